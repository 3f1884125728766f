// A bundle taken apart, for tests that change what it holds.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "fuzz/load_one.hpp"
#include "golden.hpp"

namespace mfik::testing {

using Json = nlohmann::ordered_json;

inline std::string read(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// The golden bundle, taken apart to be changed and written again, with a checksum that fits.
struct Parts {
    Json header, document;
    std::string data;

    explicit Parts(const std::string& version = "v1") {
        const std::string bytes = read(golden_bundle(version));
        std::uint64_t size = 0;
        std::memcpy(&size, bytes.data(), sizeof(size));
        header = Json::parse(bytes.substr(8, size));
        document = Json::parse(header["__metadata__"]["mfik"].get<std::string>());
        data = bytes.substr(8 + size);
    }

    std::string bytes() const {
        Json out = header;
        out["__metadata__"]["mfik"] = document.dump();
        return with_header(out.dump());
    }

    std::string with_header(const std::string& text) const {
        const std::uint64_t size = text.size();
        std::string bytes = std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + text + data;
        seal(bytes);
        return bytes;
    }

    float* weight(const std::string& name) {
        return reinterpret_cast<float*>(data.data() + header[name]["data_offsets"][0].get<std::size_t>());
    }
};

}  // namespace mfik::testing
