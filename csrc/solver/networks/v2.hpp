// Network type v2 (mfik/model/v2/network.py): residual blocks on the robot's geometry.
#pragma once

#include <memory>

#include "solver/networks/network.hpp"

namespace mfik::v2 {

/// Read the `model` object of a bundle.
/// @throw Error  A size is missing or out of bounds, or the robot's links have no length.
[[nodiscard]] std::unique_ptr<const NetworkDescription> read(const JsonReader& reader, const Json& model,
                                                             const Chain& chain);

}  // namespace mfik::v2
