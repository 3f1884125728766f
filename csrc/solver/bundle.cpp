#include "solver/bundle.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "mfik/solver.hpp"
#include "solver/checksum.hpp"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "mfik reads safetensors files, which are little-endian, on little-endian machines only"
#endif

namespace mfik {
namespace {

// Limits of what a file may claim, mirrored in mfik/export/bundle.py. A header of a megabyte describes more tensors
// than the largest network has, and its parsed form takes up to 36 times its size.
constexpr std::uint64_t kMaxFileBytes = 1u << 30;
constexpr std::uint64_t kMaxHeaderBytes = 1u << 20;
constexpr char kDamaged[] = "the file is damaged: copy or export it again";

struct TensorView {
    Shape shape;
    const char* data = nullptr;
};

std::string shape_text(const Shape& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

/// The tensors of a safetensors header; their data tile [data, data + data_size) without gap or overlap.
std::map<std::string, TensorView> read_tensors(const JsonReader& reader, const Json& header, const char* data,
                                               std::uint64_t data_size) {
    std::map<std::string, TensorView> tensors;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
    const auto is_size = [](const Json& value) { return value.is_number_unsigned(); };
    for (const auto& [name, entry] : header.items()) {
        if (name == "__metadata__") continue;
        const std::string where = "tensor " + JsonReader::quote(name);
        const std::string dtype = reader.string(entry, "dtype", where);
        if (dtype != "F32") reader.fail(where + ".dtype", "'F32'", JsonReader::quote(dtype));
        const Json& shape = reader.member(entry, "shape", where);
        if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), is_size)) {
            reader.fail(where + ".shape", "a list of sizes", JsonReader::excerpt(shape));
        }
        TensorView tensor;
        std::uint64_t count = 1;
        for (const Json& extent : shape) {
            const std::uint64_t size = extent.get<std::uint64_t>();
            tensor.shape.push_back(size);
            count = size > data_size ? data_size + 1 : count * size;  // of two sizes below 2^30: no overflow
            if (count > data_size) {
                reader.fail(where + ".shape", "a size that the file holds", JsonReader::excerpt(shape));
            }
        }
        const Json& offsets = reader.member(entry, "data_offsets", where);
        if (!offsets.is_array() || offsets.size() != 2 || !is_size(offsets[0]) || !is_size(offsets[1])) {
            reader.fail(where + ".data_offsets", "two offsets", JsonReader::excerpt(offsets));
        }
        const std::uint64_t begin = offsets[0].get<std::uint64_t>(), end = offsets[1].get<std::uint64_t>();
        if (begin > end || end > data_size) {
            reader.fail(where + ".data_offsets",
                        "a range within the file's " + std::to_string(data_size) + " bytes of data",
                        JsonReader::excerpt(offsets));
        }
        if (end - begin != count * sizeof(float)) {
            reader.fail(where + ".data_offsets", std::to_string(count * sizeof(float)) + " bytes for its shape",
                        std::to_string(end - begin));
        }
        tensor.data = data + begin;
        ranges.emplace_back(begin, end);
        tensors.emplace(name, std::move(tensor));
    }
    std::sort(ranges.begin(), ranges.end());
    std::uint64_t covered = 0;
    for (const auto& [begin, end] : ranges) {
        if (begin != covered) {
            reader.fail("data_offsets", "tensors back to back, the next at byte " + std::to_string(covered),
                        std::to_string(begin));
        }
        covered = end;
    }
    if (covered != data_size) {
        reader.fail("data", std::to_string(covered) + " bytes for the tensors", std::to_string(data_size), kDamaged);
    }
    return tensors;
}

// Every bundle's header begins with these bytes, its checksum's digits and a quote.
constexpr std::string_view kHeaderStart = "{\"__metadata__\":{\"crc32\":\"";
static_assert(sizeof(std::uint64_t) + kHeaderStart.size() == kChecksumOffset);

/// Refuse a file whose bytes are not those that were exported, before any of them is parsed.
void check_checksum(const JsonReader& reader, std::string_view bytes, std::string_view header) {
    if (header.size() < kHeaderStart.size() + kChecksumDigits ||
        header.substr(0, kHeaderStart.size()) != kHeaderStart) {
        reader.fail("header", "'" + std::string(kHeaderStart) + "' and a checksum at its begin",
                    JsonReader::quote(header),
                    "the file is a bundle of version 1, of another program, or damaged: " +
                        std::string(JsonReader::kExportAgain));
    }
    const std::string_view stored = bytes.substr(kChecksumOffset, kChecksumDigits);
    const std::string computed = bundle_checksum(bytes);
    if (stored != computed) {
        reader.fail("checksum", JsonReader::quote(stored) + " of the header", "'" + computed + "' of the file's bytes",
                    kDamaged);
    }
}

/// Take the tensors that the network names, all and no others, each in its shape and finite.
void read_weights(const JsonReader& reader, const std::map<std::string, TensorView>& tensors, Bundle& bundle) {
    const auto expected = bundle.network == nullptr ? Shapes() : bundle.network->tensors();
    for (const auto& [name, tensor] : tensors) {
        if (expected.count(name) == 0)
            reader.fail("tensor " + JsonReader::quote(name), "no such tensor in this network", "one");
    }
    for (const auto& [name, shape] : expected) {
        const auto it = tensors.find(name);
        const std::string where = "tensor '" + name + "'";
        if (it == tensors.end()) reader.fail(where, "shape " + shape_text(shape), "nothing");
        if (it->second.shape != shape) reader.fail(where, "shape " + shape_text(shape), shape_text(it->second.shape));
        std::size_t count = 1;
        for (const std::uint64_t extent : shape) count *= extent;
        std::vector<float> values(count);
        std::memcpy(values.data(), it->second.data, count * sizeof(float));
        const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
        if (bad != values.end()) {
            reader.fail(where + "[" + std::to_string(bad - values.begin()) + "]", "a finite weight",
                        std::to_string(*bad), "training diverged: export an earlier checkpoint");
        }
        if (bundle.network->is_trained(name)) bundle.num_parameters += count;
        bundle.tensors.emplace(name, std::move(values));
    }
}

/// What the JSON document says: a format that is known, the robot and, where there is one, the network.
void read_document(const JsonReader& reader, const Json& document, Bundle& bundle) {
    const std::string format = reader.string(document, "format", "metadata");
    if (format != "mfik-bundle") reader.fail("format", "'mfik-bundle'", JsonReader::quote(format));
    const Json& version = reader.member(document, "version", "metadata");
    if (version != kBundleFormat) {
        reader.fail("version", std::to_string(kBundleFormat), JsonReader::excerpt(version),
                    "use the mfik that wrote it, or export the bundle again with this one");
    }
    bundle.robot = read_robot(reader, reader.member(document, "robot", "metadata"));
    const Json& model = reader.member(document, "model", "metadata");
    if (!model.is_null() && bundle.robot.chain.mimics > 0)
        reader.fail("model", "null, as networks do not support mimic joints", "a network");
    if (!model.is_null()) bundle.network = read_network(reader, model, bundle.robot.chain);
}

std::string read_file(const std::string& file) {
    namespace fs = std::filesystem;
    std::error_code code;
    const fs::file_type type = fs::status(file, code).type();
    if (type == fs::file_type::not_found) throw Error(file + ": no such file; make a bundle with scripts/export.py");
    if (type == fs::file_type::none)
        throw Error(file + ": cannot be read (" + code.message() + "); check the path and its permissions");
    if (type != fs::file_type::regular) throw Error(file + ": expected a regular file or a bundle folder");
    const std::uintmax_t size = fs::file_size(file, code);
    if (size > kMaxFileBytes) {
        throw Error(file + ": size: expected at most " + std::to_string(kMaxFileBytes) + " bytes, got " +
                    std::to_string(size) + "; it is no bundle, or its network is too large for this solver");
    }
    std::ifstream stream(file, std::ios::binary);
    if (code || !stream) throw Error(file + ": cannot be opened for reading; check its permissions");
    std::string bytes(static_cast<std::size_t>(size), '\0');
    if (!stream.read(bytes.data(), static_cast<std::streamsize>(size))) {
        throw Error(file + ": cannot be read to its end; copy or export it again");
    }
    return bytes;
}

}  // namespace

Bundle read_bundle(const std::string& path) {
    std::error_code code;
    const std::filesystem::path given(path);
    const std::string file = std::filesystem::is_directory(given, code) ? (given / "model.safetensors").string() : path;
    const std::string bytes = read_file(file);
    const JsonReader reader(file);

    std::uint64_t header_size = 0;
    if (bytes.size() < sizeof(header_size)) {
        reader.fail("file", "a safetensors file", std::to_string(bytes.size()) + " bytes");
    }
    std::memcpy(&header_size, bytes.data(), sizeof(header_size));
    const std::uint64_t rest = bytes.size() - sizeof(header_size);
    if (header_size > kMaxHeaderBytes || header_size > rest) {
        reader.fail("header length", "at most " + std::to_string(std::min(kMaxHeaderBytes, rest)) + " bytes",
                    std::to_string(header_size), "the file is damaged or no safetensors file: copy or export it again");
    }
    const std::string_view header_text = std::string_view(bytes).substr(sizeof(header_size), header_size);
    check_checksum(reader, bytes, header_text);
    const Json header = reader.parse(header_text, "header");
    const Json& metadata = reader.member(header, "__metadata__", "header");

    Bundle bundle;
    bundle.metadata_json = reader.string(metadata, "mfik", "__metadata__");
    read_document(reader, reader.parse(bundle.metadata_json, "metadata"), bundle);

    const char* data = bytes.data() + sizeof(header_size) + header_size;
    const auto tensors = read_tensors(reader, header, data, rest - header_size);
    read_weights(reader, tensors, bundle);
    return bundle;
}

Bundle describe_robot(const std::string& metadata_json) {
    const JsonReader reader("description");
    Bundle bundle;
    bundle.metadata_json = metadata_json;
    read_document(reader, reader.parse(metadata_json, "metadata"), bundle);
    if (bundle.network != nullptr) reader.fail("model", "null", "a network", "use Solver::load");
    return bundle;
}

}  // namespace mfik
