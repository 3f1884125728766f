// The file of a bundle that an engine reads, and the JSON document in its metadata.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

#include "kernels/chain.hpp"
#include "mfik/solver.hpp"
#include "solver/bundle.hpp"

namespace mfik {

/// Path of the engine's file: `path` itself, or `name` in the bundle folder `path`.
/// @throw Error  There is no such file.
inline std::string find_model_file(const std::string& path, const char* name) {
    std::error_code code;
    const std::filesystem::path given(path), file = std::filesystem::is_directory(given, code) ? given / name : given;
    if (!std::filesystem::is_regular_file(file, code)) {
        throw Error(file.string() + ": no such file; make a bundle with scripts/export.py");
    }
    return file.string();
}

/// Number of joints of the network, from the file's JSON document about itself.
/// @throw Error  It is not an mfik bundle of a version that this engine reads.
inline int read_dof(const std::string& file, const std::string& metadata_json) {
    const auto document = nlohmann::json::parse(metadata_json, nullptr, false);
    const auto value = [&](const char* pointer) {
        const nlohmann::json::json_pointer where(pointer);
        return document.is_object() && document.contains(where) ? document.at(where) : nlohmann::json();
    };
    if (value("/format") != "mfik-bundle" || value("/version") != kBundleFormat) {
        throw Error(file + ": metadata 'mfik': expected format mfik-bundle, version " + std::to_string(kBundleFormat) +
                    ", got format " + value("/format").dump() + ", version " + value("/version").dump() +
                    "; export it again with this version of mfik");
    }
    const nlohmann::json dof = value("/model/dof");
    if (!dof.is_number_unsigned() || dof < 1 || dof > kMaxJoints) {
        throw Error(file + ": model.dof: expected 1 to " + std::to_string(kMaxJoints) + ", got " + dof.dump() +
                    "; export it again");
    }
    return dof.get<int>();
}

}  // namespace mfik
