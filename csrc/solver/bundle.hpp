// Reader of bundle files: safetensors with one JSON document (robot, network) in its metadata.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "solver/networks/network.hpp"
#include "solver/robot_description.hpp"

namespace mfik {

constexpr int kBundleFormat = 2;  // BUNDLE_FORMAT of mfik/export/bundle.py

/// A checked bundle: every tensor of the network is present, has its shape and is finite.
struct Bundle {
    std::string metadata_json;
    RobotDescription robot;
    std::unique_ptr<const NetworkDescription> network;  // null: a robot alone
    std::size_t num_parameters = 0;
    Tensors tensors;
};

/// Read a bundle, all or nothing.
/// @param[in] path  Bundle folder, or the model.safetensors in it.
/// @throw Error  See Solver::load.
[[nodiscard]] Bundle read_bundle(const std::string& path);

/// Make a bundle of a robot alone from its JSON document.
/// @throw Error  See Solver::from_description.
[[nodiscard]] Bundle describe_robot(const std::string& metadata_json);

}  // namespace mfik
