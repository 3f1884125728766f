// Reader of bundle files: safetensors with one JSON document (robot, network) in its metadata.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernels/chain.hpp"

namespace mfik {

constexpr int kBundleVersion = 2;  // BUNDLE_VERSION of mfik/export/bundle.py

/// Sizes of a network (config.py of mfik/model/v1 and v2).
struct NetworkConfig {
    int version = 0;  // 0: the bundle holds a robot alone
    int dof = 0;
    int width = 0;
    int num_blocks = 0;
    int cond_dim = 0;      // of version 1
    int encoding_dim = 0;  // of version 1: features per input scalar; 0: the scalar itself
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

/// Where a bundle file keeps its checksum: the first value of its header, behind the header's length.
constexpr std::size_t kChecksumOffset = 34, kChecksumDigits = 8;

/// CRC-32 of ITU-T V.42 (reflected, polynomial 0x04C11DB7; zlib's), continued from the `crc` of what precedes.
std::uint32_t crc32(std::string_view bytes, std::uint32_t crc = 0) noexcept;

/// The checksum of a bundle file, lower-case hexadecimal: CRC-32 of its bytes with '0' for each digit of the checksum.
/// @param[in] bytes  The file, at least kChecksumOffset + kChecksumDigits bytes.
std::string bundle_checksum(std::string_view bytes);

/// Read a bundle, all or nothing.
/// @param[in] path  Bundle folder, or the model.safetensors in it.
/// @throw Error  See Solver::load.
Bundle read_bundle(const std::string& path);

}  // namespace mfik
