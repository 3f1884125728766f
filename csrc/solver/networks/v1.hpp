// Network type v1 (mfik/model/v1/network.py): FiLM blocks on encoded joints and pose.
#pragma once

#include <memory>

#include "solver/networks/network.hpp"

namespace mfik::v1 {

/// Read the `model` object of a bundle.
/// @throw Error  A size is missing or out of bounds.
[[nodiscard]] std::unique_ptr<const NetworkDescription> read(const JsonReader& reader, const Json& model,
                                                             const Chain& chain);

}  // namespace mfik::v1
