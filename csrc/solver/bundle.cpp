#include "solver/bundle.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "mfik/solver.hpp"
#include "solver/networks/geometry.hpp"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "mfik reads safetensors files, which are little-endian, on little-endian machines only"
#endif

namespace mfik {
namespace {

using Json = nlohmann::json;

// Limits of what a file may claim, mirrored in mfik/export/bundle.py. A header of a megabyte describes more tensors
// than kMaxBlocks blocks have, and its parsed form takes up to 36 times its size.
constexpr std::uint64_t kMaxFileBytes = 1u << 30;
constexpr std::uint64_t kMaxHeaderBytes = 1u << 20;
constexpr std::size_t kMaxJsonDepth = 32;
constexpr int kMaxWidth = 1 << 14;
constexpr int kMaxBlocks = 256;
constexpr double kOrthonormalTolerance = 1e-9;
constexpr char kExportAgain[] = "export the bundle again with scripts/export.py";
constexpr char kDamaged[] = "the file is damaged: copy or export it again";

/// Text from the file for a message: cut, and printable.
std::string quote(std::string_view text) {
    constexpr std::size_t kLength = 60;
    std::string shown(text.substr(0, kLength));
    // A damaged file may hold anything: keep messages printable.
    std::replace_if(shown.begin(), shown.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return "'" + shown + (text.size() <= kLength ? "'" : "...'");
}

/// What is asked of a text before it is parsed into memory: bounded depth, so that no function that walks the document
/// exhausts the stack, and keys that occur once, as parsers differ in which of two counts.
struct JsonRules : nlohmann::json_sax<Json> {
    std::string broken, got;                  // the first rule that does not hold
    std::vector<std::set<std::string>> keys;  // of the open objects and arrays

    bool open() {
        keys.emplace_back();
        if (keys.size() > kMaxJsonDepth) broken = "at most " + std::to_string(kMaxJsonDepth) + " levels", got = "more";
        return broken.empty();
    }
    bool close() {
        keys.pop_back();
        return true;
    }
    bool key(std::string& name) override {
        if (!keys.back().insert(name).second) broken = "every key once", got = quote(name) + " twice";
        return broken.empty();
    }
    bool start_object(std::size_t) override { return open(); }
    bool start_array(std::size_t) override { return open(); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool null() override { return true; }
    bool boolean(bool) override { return true; }
    bool number_integer(std::int64_t) override { return true; }
    bool number_unsigned(std::uint64_t) override { return true; }
    bool number_float(double, const std::string&) override { return true; }
    bool string(std::string&) override { return true; }
    bool binary(Json::binary_t&) override { return true; }
    bool parse_error(std::size_t, const std::string&, const Json::exception&) override { return false; }
};

/// Reads checked values of a JSON document; `where` is the element's name in messages.
class Reader {
  public:
    explicit Reader(std::string file) : file_(std::move(file)) {}

    [[noreturn]] void fail(const std::string& where, const std::string& expected, const std::string& got,
                           const std::string& remedy = kExportAgain) const {
        throw Error(file_ + ": " + where + ": expected " + expected + ", got " + got + "; " + remedy);
    }

    /// A JSON object that keeps to JsonRules.
    Json parse(std::string_view text, const std::string& where) const {
        JsonRules rules;
        const bool holds = Json::sax_parse(text, &rules);
        if (!rules.broken.empty()) fail(where, rules.broken, rules.got);
        const bool has_nul = text.find('\0') != text.npos;  // where nlohmann::json stops reading
        Json document = holds && !has_nul ? Json::parse(text) : Json();
        if (!document.is_object()) fail(where, "a JSON object", quote(text));
        return document;
    }

    const Json& member(const Json& object, const char* key, const std::string& where) const {
        if (!object.is_object()) fail(where, "a JSON object", excerpt(object));
        const auto it = object.find(key);
        if (it == object.end()) fail(where + "." + key, "a value", "nothing");
        return *it;
    }

    std::string string(const Json& object, const char* key, const std::string& where) const {
        const Json& value = member(object, key, where);
        if (!value.is_string()) fail(where + "." + key, "a string", excerpt(value));
        return value.get<std::string>();
    }

    int integer(const Json& object, const char* key, const std::string& where, int low, int high) const {
        const Json& value = member(object, key, where);
        // A float or an unsigned number above 2^63 is no match for the range either.
        if (!value.is_number_integer() || value < low || value > high) {
            fail(where + "." + key, "an integer from " + std::to_string(low) + " to " + std::to_string(high),
                 excerpt(value));
        }
        return value.get<int>();
    }

    double number(const Json& value, const std::string& where) const {
        if (!value.is_number() || !std::isfinite(value.get<double>())) fail(where, "a finite number", excerpt(value));
        return value.get<double>();
    }

    static std::string excerpt(const Json& value) {
        return quote(value.dump(-1, ' ', false, Json::error_handler_t::replace));
    }

  private:
    std::string file_;
};

struct TensorView {
    std::vector<std::uint64_t> shape;
    const char* data = nullptr;
};

std::string shape_text(const std::vector<std::uint64_t>& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

/// A 3x4 row-major rigid transform of 12 numbers.
void read_transform(const Reader& reader, const Json& value, const std::string& where, double* out) {
    if (!value.is_array() || value.size() != 12)
        reader.fail(where, "12 numbers (3x4 row-major)", Reader::excerpt(value));
    for (std::size_t i = 0; i < 12; ++i) out[i] = reader.number(value[i], where + "[" + std::to_string(i) + "]");
    double defect = 0.0;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) {
            double dot = i == j ? -1.0 : 0.0;
            for (int k = 0; k < 3; ++k) dot += out[4 * k + i] * out[4 * k + j];
            defect = std::max(defect, std::abs(dot));
        }
    }
    const double determinant = out[0] * (out[5] * out[10] - out[6] * out[9]) -
                               out[1] * (out[4] * out[10] - out[6] * out[8]) +
                               out[2] * (out[4] * out[9] - out[5] * out[8]);
    if (!(defect <= kOrthonormalTolerance) || determinant < 0) {
        reader.fail(where, "a rotation matrix in its first three columns (R^T R = I to 1e-9, det R = 1)",
                    Reader::excerpt(value));
    }
}

void read_robot(const Reader& reader, const Json& document, Bundle& bundle) {
    const Json& robot = reader.member(document, "robot", "metadata");
    bundle.robot_name = reader.string(robot, "name", "robot");
    bundle.base_link = reader.string(robot, "base_link", "robot");
    bundle.tip_link = reader.string(robot, "tip_link", "robot");
    const Json& joints = reader.member(robot, "joints", "robot");
    if (!joints.is_array() || joints.empty() || joints.size() > kMaxJoints) {
        reader.fail("robot.joints", "1 to " + std::to_string(kMaxJoints) + " joints",
                    joints.is_array() ? std::to_string(joints.size()) : Reader::excerpt(joints));
    }
    Chain& chain = bundle.chain;
    chain.dof = static_cast<int>(joints.size());
    for (int j = 0; j < chain.dof; ++j) {
        const Json& joint = joints[static_cast<std::size_t>(j)];
        const std::string where = "robot.joints[" + std::to_string(j) + "]";
        const std::string name = reader.string(joint, "name", where);
        if (std::count(bundle.joint_names.begin(), bundle.joint_names.end(), name) > 0) {
            reader.fail(where + ".name", "a name of its own", quote(name));
        }
        bundle.joint_names.push_back(name);
        const std::string kind = reader.string(joint, "kind", where);
        if (kind == "revolute") {
            chain.kind[j] = JointKind::kRevolute;
        } else if (kind == "prismatic") {
            chain.kind[j] = JointKind::kPrismatic;
        } else if (kind == "continuous") {
            chain.kind[j] = JointKind::kContinuous;
        } else {
            reader.fail(where + ".kind", "'revolute', 'prismatic' or 'continuous'", quote(kind));
        }
        const double lower = reader.number(reader.member(joint, "lower", where), where + ".lower");
        const double upper = reader.number(reader.member(joint, "upper", where), where + ".upper");
        if (!(lower < upper)) {
            reader.fail(where, "lower < upper", "[" + std::to_string(lower) + ", " + std::to_string(upper) + "]");
        }
        if (chain.kind[j] == JointKind::kContinuous && !(lower == -kPi && upper == kPi)) {
            reader.fail(where, "[-pi, pi] as it is continuous",
                        "[" + std::to_string(lower) + ", " + std::to_string(upper) + "]");
        }
        chain.lower[j] = lower;
        chain.upper[j] = upper;
        read_transform(reader, reader.member(joint, "origin", where), where + ".origin", chain.origin[j]);
    }
    read_transform(reader, reader.member(robot, "tool", "robot"), "robot.tool", chain.origin[chain.dof]);
}

void read_config(const Reader& reader, const Json& document, Bundle& bundle) {
    const Json& model = reader.member(document, "model", "metadata");
    if (model.is_null()) return;  // a robot alone
    const std::string type = reader.string(model, "type", "model");
    if (type != "v1" && type != "v2") {
        reader.fail("model.type", "'v1' or 'v2'", quote(type), "update mfik to a version that reads it");
    }
    NetworkConfig& config = bundle.config;
    config.version = type == "v1" ? 1 : 2;
    config.dof = reader.integer(model, "dof", "model", 1, kMaxJoints);
    if (config.dof != bundle.chain.dof) {
        reader.fail("model.dof", std::to_string(bundle.chain.dof) + " (the robot's joints)",
                    std::to_string(config.dof));
    }
    config.width = reader.integer(model, "width", "model", 1, kMaxWidth);
    config.num_blocks = reader.integer(model, "num_blocks", "model", 1, kMaxBlocks);
    if (config.version == 2) {
        if (std::isinf(Geometry(bundle.chain).scale)) reader.fail("robot", "links that have a length", "none");
        return;
    }
    config.cond_dim = reader.integer(model, "cond_dim", "model", 1, kMaxWidth);
    const std::string encoding = reader.string(model, "encoding", "model");
    if (encoding == "none") return;
    if (encoding != "sinusoidal" && encoding != "fourier") {
        reader.fail("model.encoding", "'sinusoidal', 'fourier' or 'none'", quote(encoding),
                    "update mfik to a version that reads it");
    }
    config.encoding_dim = reader.integer(model, "encoding_dim", "model", 4, kMaxWidth);
    if (config.encoding_dim % 2 != 0) {
        reader.fail("model.encoding_dim", "an even number", std::to_string(config.encoding_dim));
    }
}

/// Tensor names and shapes of a network: network.py of mfik/model/v1 and v2.
std::map<std::string, std::vector<std::uint64_t>> expected_tensors(const Bundle& bundle) {
    const NetworkConfig& config = bundle.config;
    using Shape = std::vector<std::uint64_t>;
    const auto size = [](int n) { return static_cast<std::uint64_t>(n); };
    const std::uint64_t width = size(config.width), cond = size(config.cond_dim);
    std::map<std::string, Shape> expected;
    if (config.version == 0) return expected;
    const auto linear = [&](const std::string& name, std::uint64_t out, std::uint64_t in) {
        expected[name + ".weight"] = Shape{out, in};
        expected[name + ".bias"] = Shape{out};
    };
    const auto norm = [&](const std::string& name) {
        expected[name + ".weight"] = Shape{width};
        expected[name + ".bias"] = Shape{width};
    };
    const auto block = [](int i) { return "blocks." + std::to_string(i) + "."; };
    for (int i = 0; i < config.num_blocks; ++i) {
        linear(block(i) + "linear1", width, width);
        linear(block(i) + "linear2", width, width);
    }
    linear("head", size(config.dof), width);
    if (config.version == 2) {
        linear("input", width, size(Geometry(bundle.chain).size + 2));
        return expected;
    }
    if (config.encoding_dim > 0) expected["encoding.frequencies"] = Shape{size(config.encoding_dim / 2)};
    linear("input", width, size((config.dof + 9) * std::max(config.encoding_dim, 1)));
    linear("condition", cond, 9);
    for (int i = 0; i < config.num_blocks; ++i) {
        norm(block(i) + "norm1");
        norm(block(i) + "norm2");
        linear(block(i) + "film", 2 * width, cond);
    }
    norm("norm");
    return expected;
}

/// The tensors of a safetensors header; their data tile [data, data + data_size) without gap or overlap.
std::map<std::string, TensorView> read_tensors(const Reader& reader, const Json& header, const char* data,
                                               std::uint64_t data_size) {
    std::map<std::string, TensorView> tensors;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
    const auto is_size = [](const Json& value) { return value.is_number_unsigned(); };
    for (const auto& [name, entry] : header.items()) {
        if (name == "__metadata__") continue;
        const std::string where = "tensor " + quote(name);
        const std::string dtype = reader.string(entry, "dtype", where);
        if (dtype != "F32") reader.fail(where + ".dtype", "'F32'", quote(dtype));
        const Json& shape = reader.member(entry, "shape", where);
        if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), is_size)) {
            reader.fail(where + ".shape", "a list of sizes", Reader::excerpt(shape));
        }
        TensorView tensor;
        std::uint64_t count = 1;
        for (const Json& extent : shape) {
            tensor.shape.push_back(extent.get<std::uint64_t>());
            // Also keeps the product from overflowing.
            if (tensor.shape.back() > data_size || (count *= tensor.shape.back()) > data_size) {
                reader.fail(where + ".shape", "a size that the file holds", Reader::excerpt(shape));
            }
        }
        const Json& offsets = reader.member(entry, "data_offsets", where);
        if (!offsets.is_array() || offsets.size() != 2 || !is_size(offsets[0]) || !is_size(offsets[1])) {
            reader.fail(where + ".data_offsets", "two offsets", Reader::excerpt(offsets));
        }
        const std::uint64_t begin = offsets[0].get<std::uint64_t>(), end = offsets[1].get<std::uint64_t>();
        if (begin > end || end > data_size) {
            reader.fail(where + ".data_offsets",
                        "a range within the file's " + std::to_string(data_size) + " bytes of data",
                        Reader::excerpt(offsets));
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
void check_checksum(const Reader& reader, std::string_view bytes, std::string_view header) {
    if (header.size() < kHeaderStart.size() + kChecksumDigits ||
        header.substr(0, kHeaderStart.size()) != kHeaderStart) {
        reader.fail("header", "'" + std::string(kHeaderStart) + "' and a checksum at its begin", quote(header),
                    "the file is a bundle of version 1, of another program, or damaged: " + std::string(kExportAgain));
    }
    const std::string_view stored = bytes.substr(kChecksumOffset, kChecksumDigits);
    const std::string computed = bundle_checksum(bytes);
    if (stored != computed) {
        reader.fail("checksum", quote(stored) + " of the header", "'" + computed + "' of the file's bytes", kDamaged);
    }
}

std::string read_file(const std::string& file) {
    namespace fs = std::filesystem;
    std::error_code code;
    if (!fs::exists(file, code)) throw Error(file + ": no such file; make a bundle with scripts/export.py");
    if (!fs::is_regular_file(file, code)) throw Error(file + ": expected a regular file or a bundle folder");
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

std::uint32_t crc32(std::string_view bytes, std::uint32_t crc) noexcept {
    // Eight tables take eight bytes a step ("slicing-by-8": Kounavis and Berry, ISCC 2005): table k advances the
    // remainder of a byte over k more zero bytes.
    static constexpr auto kTables = [] {
        std::array<std::array<std::uint32_t, 256>, 8> tables{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0u);
            tables[0][i] = value;
        }
        for (std::size_t k = 1; k < 8; ++k) {
            for (std::size_t i = 0; i < 256; ++i) {
                tables[k][i] = (tables[k - 1][i] >> 8) ^ tables[0][tables[k - 1][i] & 0xFF];
            }
        }
        return tables;
    }();
    crc = ~crc;
    std::size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
        std::uint32_t low, high;
        std::memcpy(&low, bytes.data() + i, sizeof(low));
        std::memcpy(&high, bytes.data() + i + 4, sizeof(high));
        low ^= crc;
        crc = kTables[7][low & 0xFF] ^ kTables[6][low >> 8 & 0xFF] ^ kTables[5][low >> 16 & 0xFF] ^
              kTables[4][low >> 24] ^ kTables[3][high & 0xFF] ^ kTables[2][high >> 8 & 0xFF] ^
              kTables[1][high >> 16 & 0xFF] ^ kTables[0][high >> 24];
    }
    for (; i < bytes.size(); ++i) crc = (crc >> 8) ^ kTables[0][(crc ^ static_cast<std::uint8_t>(bytes[i])) & 0xFF];
    return ~crc;
}

std::string bundle_checksum(std::string_view bytes) {
    std::uint32_t crc = crc32(bytes.substr(0, kChecksumOffset));
    crc = crc32(std::string_view("00000000", kChecksumDigits), crc);
    crc = crc32(bytes.substr(kChecksumOffset + kChecksumDigits), crc);
    std::string digits(kChecksumDigits, '0');
    for (std::size_t i = 0; i < kChecksumDigits; ++i) digits[i] = "0123456789abcdef"[crc >> (28 - 4 * i) & 0xF];
    return digits;
}

Bundle read_bundle(const std::string& path) {
    std::error_code code;
    const std::filesystem::path given(path);
    const std::string file = std::filesystem::is_directory(given, code) ? (given / "model.safetensors").string() : path;
    const std::string bytes = read_file(file);
    const Reader reader(file);

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
    const Json document = reader.parse(bundle.metadata_json, "metadata");
    const std::string format = reader.string(document, "format", "metadata");
    if (format != "mfik-bundle") reader.fail("format", "'mfik-bundle'", quote(format));
    const Json& version = reader.member(document, "version", "metadata");
    if (version != kBundleVersion) {
        reader.fail("version", std::to_string(kBundleVersion), Reader::excerpt(version),
                    "use the mfik that wrote it, or export the bundle again with this one");
    }
    read_robot(reader, document, bundle);
    read_config(reader, document, bundle);

    const char* data = bytes.data() + sizeof(header_size) + header_size;
    const auto tensors = read_tensors(reader, header, data, rest - header_size);
    const auto expected = expected_tensors(bundle);
    for (const auto& [name, tensor] : tensors) {
        if (expected.count(name) == 0) reader.fail("tensor " + quote(name), "no such tensor in this network", "one");
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
        if (name != "encoding.frequencies") bundle.num_parameters += count;
        bundle.tensors.emplace(name, std::move(values));
    }
    return bundle;
}

}  // namespace mfik
