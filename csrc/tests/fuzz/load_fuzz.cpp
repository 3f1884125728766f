// libFuzzer target: Solver::load of any bytes, past the checksum.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "fuzz/load_one.hpp"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using Json = nlohmann::ordered_json;

/// A bundle taken apart: random bytes seldom keep the lengths and the two layers of JSON intact.
struct Parts {
    Json header, document;
    std::string data;

    bool read(const std::string& bytes) {
        std::uint64_t size = 0;
        if (bytes.size() < sizeof(size)) return false;
        std::memcpy(&size, bytes.data(), sizeof(size));
        if (size > bytes.size() - sizeof(size)) return false;
        header = Json::parse(bytes.substr(sizeof(size), size), nullptr, false);
        data = bytes.substr(sizeof(size) + size);
        if (!header.is_object() || !header.contains("__metadata__")) return false;
        const Json& metadata = header["__metadata__"];
        if (!metadata.is_object() || !metadata.contains("mfik") || !metadata["mfik"].is_string()) return false;
        document = Json::parse(metadata["mfik"].get<std::string>(), nullptr, false);
        return document.is_object();
    }
};

std::string with_length(const std::string& header, const std::string& data) {
    const std::uint64_t size = header.size();
    return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + header + data;
}

std::string text(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string mutated(std::string bytes, std::size_t room) {
    const std::size_t size = bytes.size();
    bytes.resize(size + room);
    bytes.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(bytes.data()), size, bytes.size()));
    return bytes;
}

void collect(Json& value, std::vector<Json*>& nodes) {
    nodes.push_back(&value);
    if (!value.is_structured()) return;
    for (Json& child : value) collect(child, nodes);
}

/// Replace one value by a telling one, or by another of the same file.
void replace_value(Json& document, std::minstd_rand& random) {
    std::vector<Json*> nodes;
    collect(document, nodes);
    static const Json kValues = {
        nullptr,       true,           0,  1,      2,    3, 4, 17, -1, 1.5, 1e308, -1e308, 1u << 31, ~0ull, 1ull << 62,
        Json::array(), Json::object(), "", "none", "F32"};
    Json* const to = nodes[random() % nodes.size()];
    Json value = random() % 2 ? Json(kValues[random() % kValues.size()]) : Json(*nodes[random() % nodes.size()]);
    if (to->is_array() && random() % 2) {
        to->push_back(std::move(value));
    } else {
        *to = std::move(value);
    }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
    std::minstd_rand random(seed);
    const std::string bytes(reinterpret_cast<const char*>(data), size);
    Parts parts;
    const unsigned choice = random() % 6;
    if (choice == 0 || !parts.read(bytes)) return LLVMFuzzerMutate(data, size, max_size);
    std::string document = text(parts.document);
    if (choice == 1) document = mutated(document, 64);
    if (choice == 2) {
        replace_value(parts.document, random);
        document = text(parts.document);
    }
    parts.header["__metadata__"]["mfik"] = document;
    if (choice == 3) replace_value(parts.header, random);
    if (choice == 4) {
        const std::size_t bytes_of_data = parts.data.size();
        parts.data = mutated(parts.data, 0);
        parts.data.resize(bytes_of_data);  // or the tensors would not be reached
    }
    std::string header = text(parts.header);
    if (choice == 5) header = mutated(header, 64);
    const std::string out = with_length(header, parts.data);
    if (out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
    std::memcpy(data, out.data(), out.size());
    return out.size();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto file = std::filesystem::temp_directory_path() / ("mfik_fuzz_" + std::to_string(getpid()));
    mfik::testing::load_one(std::string(reinterpret_cast<const char*>(data), size), file);
    return 0;
}
