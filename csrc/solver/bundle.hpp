// Reader of bundle files: safetensors with one JSON document (robot, network) in its metadata.
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/chain.hpp"

namespace mfik {

/// Sizes of a version 1 network (mfik/model/v1/config.py).
struct NetworkConfig {
    int dof = 0;
    int width = 0;
    int num_blocks = 0;
    int cond_dim = 0;
    int encoding_dim = 0;  // features per input scalar; 0: the scalar itself

    int num_scalars() const { return dof + 9; }
    int num_features() const { return num_scalars() * (encoding_dim > 0 ? encoding_dim : 1); }
};

/// A checked bundle: every tensor of the network is present, has its shape and is finite.
struct Bundle {
    std::string metadata_json;
    std::string robot_name, base_link, tip_link;
    std::vector<std::string> joint_names;
    Chain chain;
    NetworkConfig config;
    std::size_t num_parameters = 0;
    std::unordered_map<std::string, std::vector<float>> tensors;  // row-major
};

/// Read a bundle, all or nothing.
/// @param[in] path  Bundle folder, or the model.safetensors in it.
/// @throw Error  See Solver::load.
Bundle read_bundle(const std::string& path);

}  // namespace mfik
