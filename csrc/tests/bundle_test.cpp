// Solver::load takes a bundle whole or refuses it with a message that says what is wrong.
#include "solver/bundle.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "bundle_parts.hpp"
#include "fuzz/load_one.hpp"
#include "mfik/solver.hpp"
#include "solver/checksum.hpp"

namespace mfik::testing {
namespace {

namespace fs = std::filesystem;

class Bundle : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = fs::temp_directory_path() / ("mfik_bundle_test_" + std::to_string(std::random_device()()));
        fs::create_directories(folder_);
    }
    void TearDown() override { fs::remove_all(folder_); }

    std::string write(const std::string& bytes) const {
        const fs::path file = folder_ / "model.safetensors";
        std::ofstream(file, std::ios::binary) << bytes;
        return file.string();
    }

    /// Expect the golden bundle to be refused when `text` stands for the value of a key of its document.
    void expect_text_refused(const std::string& key, const std::string& text, const std::string& message) const {
        Parts parts;
        parts.document[key] = "@";
        std::string document = parts.document.dump();
        document.replace(document.find("\"@\""), 3, text);
        parts.header["__metadata__"]["mfik"] = document;
        expect_refused(parts.with_header(parts.header.dump()), message);
    }

    void expect_refused(const std::string& bytes, const std::string& message) const {
        const std::string file = write(bytes);
        try {
            (void)Solver::load(file);
            FAIL() << "loaded; expected an Error with '" << message << "'";
        } catch (const Error& error) {
            const std::string text = error.what();
            EXPECT_NE(text.find(file), std::string::npos) << text;
            EXPECT_NE(text.find(message), std::string::npos) << "expected '" << message << "' in: " << text;
        }
    }

    /// Expect the golden bundle to be refused after `change`.
    void expect_refused(const std::function<void(Parts&)>& change, const std::string& message) const {
        Parts parts(version_);
        change(parts);
        expect_refused(parts.bytes(), message);
    }

    fs::path folder_;
    std::string version_ = "v1";  // of the golden bundle that is changed
};

TEST_F(Bundle, LoadsFromFileAndFolder) {
    const std::string file = write(Parts().bytes());
    for (const std::string& path : {file, folder_.string(), golden_bundle()}) {
        const Solver solver = Solver::load(path);
        EXPECT_EQ(solver.dof(), 7);
        EXPECT_EQ(solver.robot_name(), "panda");
        EXPECT_EQ(solver.base_link(), "panda_link0");
        EXPECT_EQ(solver.tip_link(), "panda_link8");
        ASSERT_EQ(solver.joint_names().size(), 7u);
        EXPECT_EQ(solver.joint_names()[0], "panda_joint1");
        ASSERT_EQ(solver.lower().size(), 7u);
        for (std::size_t j = 0; j < 7; ++j) EXPECT_LT(solver.lower()[j], solver.upper()[j]);
        EXPECT_EQ(Json::parse(solver.metadata_json())["format"], "mfik-bundle");
        EXPECT_EQ(solver.num_parameters(), Parts().data.size() / sizeof(float) - 4);  // but 4 frequencies
    }
}

TEST_F(Bundle, MissingFileNamesThePath) {
    try {
        (void)Solver::load("/no/such/bundle");
        FAIL();
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("/no/such/bundle: no such file"), std::string::npos) << error.what();
    }
    EXPECT_THROW((void)Solver::load(""), Error);
    EXPECT_THROW((void)Solver::load(folder_.string()), Error);  // a folder without a model
    EXPECT_THROW((void)Solver::load("/dev/null"), Error);
}

TEST_F(Bundle, EveryTruncationIsRefused) {
    std::string bytes = read(golden_bundle());
    for (std::size_t part = 0; part < 20; ++part)
        EXPECT_THROW((void)Solver::load(write(bytes.substr(0, bytes.size() * part / 20))), Error) << part;
    expect_refused(bytes.substr(0, bytes.size() - 1), "checksum: expected");
    expect_refused(bytes + "x", "checksum: expected");
    // The same when the checksum fits.
    bytes.pop_back();
    seal(bytes);
    expect_refused(bytes, "within the file's");
    bytes += "xx";
    seal(bytes);
    expect_refused(bytes, "bytes for the tensors");
}

TEST_F(Bundle, ForeignFilesAreRefused) {
    expect_refused("", "a safetensors file, got 0 bytes");
    expect_refused(std::string("PK\x03\x04") + std::string(4096, 'z'), "header length");  // a .pt file
    expect_refused(std::string(4096, '\0'), "header: expected");
    Parts parts;
    parts.header["__metadata__"].erase("crc32");  // what version 1 wrote
    expect_refused(parts.with_header(parts.header.dump()), "a bundle of version 1, of another program, or damaged");
    parts.header.erase("__metadata__");  // somebody else's safetensors
    expect_refused(parts.with_header(parts.header.dump()), "export the bundle again");
}

TEST_F(Bundle, HugeHeaderLengthIsRefusedWithoutAllocating) {
    std::string bytes = read(golden_bundle());
    for (const std::uint64_t size :
         {std::uint64_t{1} << 63, ~std::uint64_t{0}, std::uint64_t{1} << 24, std::uint64_t{bytes.size()} - 7}) {
        std::memcpy(bytes.data(), &size, sizeof(size));
        expect_refused(bytes, "header length");
    }
}

TEST_F(Bundle, ChecksumIsTheStandards) {
    EXPECT_EQ(crc32("123456789"), 0xCBF43926u);  // the check value of ITU-T V.42's CRC-32
    EXPECT_EQ(crc32(""), 0u);
    const std::string text = "any bytes, in two parts of any length";
    for (std::size_t i = 0; i <= text.size(); ++i)
        EXPECT_EQ(crc32(text.substr(i), crc32(text.substr(0, i))), crc32(text)) << i;
    // The golden file's was written by Python's zlib.
    const std::string bytes = read(golden_bundle());
    EXPECT_EQ(bytes.substr(kChecksumOffset, kChecksumDigits), bundle_checksum(bytes));
}

TEST_F(Bundle, EveryFlippedBitIsRefused) {
    std::string bytes = read(golden_bundle());
    std::uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof(size));
    // Odd steps reach every bit of a byte; a checksum of 32 bits misses no single one, wherever it is.
    for (std::size_t bit = 0; bit < 8 * bytes.size(); bit += bit < 8 * (8 + size) ? 5 : 311) {
        char& byte = bytes[bit / 8];
        const char good = byte;
        byte = static_cast<char>(byte ^ (1 << bit % 8));
        EXPECT_THROW((void)Solver::load(write(bytes)), Error) << "bit " << bit;
        byte = good;
    }
    std::string flipped = bytes;
    flipped.back() = static_cast<char>(flipped.back() ^ 1);  // a weight that stays finite
    expect_refused(flipped, "checksum: expected '" + bytes.substr(kChecksumOffset, kChecksumDigits) + "'");
    EXPECT_EQ(Solver::load(write(bytes)).dof(), 7);
}

TEST_F(Bundle, FuzzersCorpusIsLoadedOrRefused) {
    int loaded = 0, refused = 0;
    for (const auto& entry : fs::directory_iterator(MFIK_CORPUS_DIR)) {
        ++(load_one(read(entry.path().string()), folder_ / "model.safetensors") ? loaded : refused);
    }
    EXPECT_GE(loaded, 4);  // networks that work
    EXPECT_GT(refused, 80);
}

TEST_F(Bundle, HugeFilesAreRefusedUnread) {
    const std::string file = write("");
#ifdef _WIN32
    GTEST_SKIP() << "MinGW's resize_file ends at 2 GiB";
#endif
    fs::resize_file(file, std::uintmax_t{1} << 40);  // takes no room on the disk
    try {
        (void)Solver::load(file);
        FAIL();
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("size: expected at most 1073741824"), std::string::npos);
    }
}

TEST_F(Bundle, JsonIsBounded) {
    // Deep enough to overflow the stack of whoever prints it.
    const std::string deep = std::string(100000, '[') + std::string(100000, ']');
    for (const char* key : {"robot", "training", "version"}) expect_text_refused(key, deep, "at most 32 levels");
    expect_text_refused("training", "{\"a\":" + std::string(100000, '['), "at most 32 levels");
    expect_text_refused("training", "{\"a\": 1, \"b\": 2, \"a\": 3}", "every key once, got 'a' twice");
    expect_text_refused("training", "{}, \"robot\": {}", "every key once");
    expect_text_refused("training", "NaN", "metadata: expected a JSON object");
    expect_text_refused("training", "1e999", "metadata: expected a JSON object");
    expect_text_refused("training", std::string("0}\0", 3), "metadata: expected a JSON object");
    const Parts parts;
    const std::string header = parts.header.dump();
    expect_refused(parts.with_header(header.substr(0, header.size() - 1) + ",\"norm.bias\":0}"), "every key once");
    expect_refused(parts.with_header(header + std::string(1, '\0')), "header: expected a JSON object");
    expect_refused(parts.with_header(header + std::string(1 << 20, ' ')), "header length: expected at most 1048576");
}

TEST_F(Bundle, FormatAndVersionAreChecked) {
    expect_refused([](Parts& p) { p.document["version"] = 1; }, "version: expected 2, got '1'");
    expect_refused([](Parts& p) { p.document["version"] = 3; }, "version: expected 2, got '3'");
    expect_refused([](Parts& p) { p.document["version"] = "2"; }, "version: expected 2");
    expect_refused([](Parts& p) { p.document["format"] = "other"; }, "format: expected 'mfik-bundle', got 'other'");
    expect_refused([](Parts& p) { p.document.erase("robot"); }, "metadata.robot: expected a value, got nothing");
    expect_refused([](Parts& p) { p.document["model"]["type"] = "v3"; }, "model.type: expected 'v1' or 'v2', got 'v3'");
}

TEST_F(Bundle, ModelConfigurationIsChecked) {
    const auto set = [](const char* key, Json value) { return [=](Parts& p) { p.document["model"][key] = value; }; };
    expect_refused(set("dof", 6), "model.dof: expected 7");
    expect_refused(set("dof", 17), "model.dof: expected an integer from 1 to 16, got '17'");
    expect_refused(set("width", 0), "model.width");
    expect_refused(set("width", 32.0), "model.width");
    expect_refused(set("width", -1), "model.width");
    expect_refused(set("width", 1ull << 63), "model.width");
    expect_refused(set("width", 64), "tensor 'blocks.0.film.bias': expected shape [128], got [64]");
    expect_refused(set("num_blocks", 1), "no such tensor");
    expect_refused(set("num_blocks", 3), "tensor 'blocks.2.");
    expect_refused(set("cond_dim", "16"), "model.cond_dim");
    expect_refused(set("encoding", "hash"), "model.encoding");
    expect_refused(set("encoding", "none"), "tensor 'encoding.frequencies'");
    expect_refused(set("width", 1 << 15), "model.width: expected an integer from 1 to 16384");
    expect_refused(set("num_blocks", 1 << 20), "model.num_blocks: expected an integer from 1 to 256");
    expect_refused(set("encoding_dim", 2), "model.encoding_dim: expected an integer from 4");
    expect_refused(set("encoding_dim", 7), "model.encoding_dim: expected an even number, got 7");
}

TEST_F(Bundle, Version2IsChecked) {
    version_ = "v2";
    const std::string file = write(Parts("v2").bytes());
    EXPECT_EQ(Solver::load(file).num_parameters(), Parts("v2").data.size() / sizeof(float));
    const auto set = [](const char* key, Json value) { return [=](Parts& p) { p.document["model"][key] = value; }; };
    expect_refused(set("type", "v1"), "model.cond_dim: expected a value, got nothing");
    expect_refused(set("type", nullptr), "model.type: expected a string");
    expect_refused(set("dof", 6), "model.dof: expected 7");
    expect_refused(set("dof", 17), "model.dof: expected an integer from 1 to 16, got '17'");
    for (const Json& width : {Json(0), Json(-1), Json(32.0), Json("32"), Json(1 << 15), Json(1ull << 63)})
        expect_refused(set("width", width), "model.width: expected an integer from 1 to 16384");
    expect_refused(set("width", 64), "expected shape [64");
    expect_refused(set("num_blocks", 1 << 20), "model.num_blocks: expected an integer from 1 to 256");
    expect_refused(set("passes", 65), "model.passes: expected an integer from 1 to 64");
    for (const Json& starts : {Json(0), Json(17), Json(1.5), Json()})
        expect_refused(set("starts", starts), "model.starts: expected an integer from 1 to 16");
    expect_refused(set("num_blocks", 1), "tensor 'blocks.1.linear1.bias': expected no such tensor in this network");
    expect_refused(set("num_blocks", 3), "tensor 'blocks.2.linear1.bias': expected shape [32], got nothing");
    // The number of features follows from the robot: a sine and a cosine less.
    expect_refused([](Parts& p) { p.document["robot"]["joints"][2]["kind"] = "prismatic"; },
                   "tensor 'input.weight': expected shape [32, 56], got [32, 58]");
    expect_refused([](Parts& p) { p.weight("head.weight")[3] = std::numeric_limits<float>::quiet_NaN(); },
                   "tensor 'head.weight'[3]: expected a finite weight");
    expect_refused(
        [](Parts& p) {
            p.header["norm.bias"] = p.header["head.bias"];
            p.header.erase("head.bias");
        },
        "tensor 'norm.bias': expected no such tensor");
    expect_refused(
        [](Parts& p) {
            Json& robot = p.document["robot"];
            for (const std::size_t i : {3u, 7u, 11u}) {
                for (Json& joint : robot["joints"]) joint["origin"][i] = 0;
                robot["tool"][i] = 0;
            }
        },
        "robot: expected links that have a length, got none");
}

Json joint_value(std::size_t j, const char* key) {
    return Parts().document["robot"]["joints"][j][key];
}

TEST_F(Bundle, RobotIsChecked) {
    const auto joint = [](std::size_t j, const char* key, Json value) {
        return [=](Parts& p) { p.document["robot"]["joints"][j][key] = value; };
    };
    expect_refused(joint(2, "kind", "ball"), "robot.joints[2].kind");
    expect_refused(joint(3, "lower", 4.0), "robot.joints[3]: expected lower < upper");
    expect_refused(joint(3, "lower", joint_value(3, "upper")), "robot.joints[3]: expected lower < upper");
    expect_refused(joint(3, "name", joint_value(2, "name")), "robot.joints[3].name: expected a name of its own");
    expect_refused(joint(3, "kind", "continuous"), "robot.joints[3]: expected [-pi, pi] as it is continuous");
    expect_refused(joint(3, "upper", "1"), "robot.joints[3].upper: expected a finite number");
    expect_refused(joint(3, "upper", nullptr), "robot.joints[3].upper: expected a finite number");
    expect_refused(joint(1, "origin", Json::array({1, 2, 3})), "robot.joints[1].origin: expected 12 numbers");
    expect_refused([](Parts& p) { p.document["robot"]["tool"][0] = 1.01; }, "robot.tool: expected a rotation matrix");
    expect_refused([](Parts& p) { p.document["robot"]["joints"] = Json::array(); }, "robot.joints: expected 1 to 16");
    expect_refused(
        [](Parts& p) {
            Json& joints = p.document["robot"]["joints"];
            for (int i = 0; i < 10; ++i) joints.push_back(joints[0]);
        },
        "robot.joints: expected 1 to 16 joints, got 17");
    // Longer than a rotation's column by 1e-8.
    expect_refused([](Parts& p) { p.document["robot"]["joints"][0]["origin"][10] = 1 + 1e-8; },
                   "robot.joints[0].origin: expected a rotation matrix");
    expect_refused([](Parts& p) { p.document["robot"]["name"] = 5; }, "robot.name: expected a string");
    // A mirror image is orthonormal, yet no rotation.
    expect_refused(
        [](Parts& p) {
            for (const int i : {2, 6, 10}) {
                Json& x = p.document["robot"]["tool"][static_cast<std::size_t>(i)];
                x = -x.get<double>();
            }
        },
        "robot.tool: expected a rotation matrix");
}

TEST_F(Bundle, TensorsAreChecked) {
    expect_refused([](Parts& p) { p.header["head.bias"]["dtype"] = "F16"; },
                   "tensor 'head.bias'.dtype: expected 'F32'");
    for (const char* dtype : {"BF16", "F64", "I32", ""})
        expect_refused([=](Parts& p) { p.header["head.bias"]["dtype"] = dtype; }, "dtype: expected 'F32'");
    expect_refused([](Parts& p) { p.header["head.bias"]["dtype"] = 4; }, "dtype: expected a string");
    expect_refused([](Parts& p) { p.header["norm.bias"] = 4; }, "tensor 'norm.bias': expected a JSON object");
    expect_refused([](Parts& p) { p.header["norm.bias"]["shape"] = {-32}; }, "shape: expected a list of sizes");
    expect_refused([](Parts& p) { p.header["norm.bias"]["shape"] = {32.0}; }, "shape: expected a list of sizes");
    expect_refused([](Parts& p) { p.header["norm.bias"]["shape"] = {0}; }, "data_offsets: expected 0 bytes");
    expect_refused([](Parts& p) { p.header["norm.bias"]["shape"] = {0, 1ull << 62}; }, "a size that the file holds");
    expect_refused(
        [](Parts& p) {  // a gap: no tensor owns these bytes
            p.header["norm.weight"]["data_offsets"][0] = p.header["norm.weight"]["data_offsets"][0].get<int>() + 4;
            p.header["norm.weight"]["shape"] = {31};
        },
        "back to back");
    expect_refused([](Parts& p) { p.header["norm.bias"]["data_offsets"] = {128, 0}; }, "within the file's");
    expect_refused([](Parts& p) { p.header["norm.bias"]["shape"] = {31}; },
                   "tensor 'norm.bias'.data_offsets: expected 124 bytes");
    expect_refused([](Parts& p) { p.header["norm.bias"]["shape"] = {2, 16}; },
                   "tensor 'norm.bias': expected shape [32]");
    expect_refused([](Parts& p) { p.header["norm.bias"]["shape"] = {1ull << 33, 1ull << 33}; },
                   "tensor 'norm.bias'.shape");
    expect_refused([](Parts& p) { p.header["norm.bias"]["data_offsets"][0] = -4; }, "two offsets");
    expect_refused([](Parts& p) { p.header["norm.bias"]["data_offsets"] = {1ull << 40, (1ull << 40) + 128}; },
                   "within the file's");
    expect_refused([](Parts& p) { p.header["norm.bias"]["data_offsets"] = p.header["norm.weight"]["data_offsets"]; },
                   "back to back");
    expect_refused(
        [](Parts& p) {
            p.header["extra"] =
                Json{{"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {p.data.size(), p.data.size() + 4}}};
            p.data += std::string(4, '\0');
        },
        "tensor 'extra': expected no such tensor");
    expect_refused(
        [](Parts& p) {
            p.header["other.weight"] = p.header["norm.weight"];
            p.header.erase("norm.weight");
        },
        "tensor 'other.weight': expected no such tensor");
    expect_refused([](Parts& p) { p.weight("head.weight")[3] = std::numeric_limits<float>::quiet_NaN(); },
                   "tensor 'head.weight'[3]: expected a finite weight");
    expect_refused([](Parts& p) { p.weight("input.bias")[0] = std::numeric_limits<float>::infinity(); },
                   "tensor 'input.bias'[0]");
    expect_refused([](Parts& p) { p.weight("encoding.frequencies")[1] = -std::numeric_limits<float>::infinity(); },
                   "tensor 'encoding.frequencies'[1]");
}

TEST_F(Bundle, MessagesStayShortAndPrintable) {
    const std::string noise = "\n\x1b[31m" + std::string(5000, 'x');
    const auto try_one = [&](const std::function<void(Parts&)>& change) {
        Parts parts;
        change(parts);
        EXPECT_FALSE(load_one(parts.bytes(), folder_ / "model.safetensors"));  // aborts on a bad message
    };
    try_one([&](Parts& p) { p.document["robot"]["joints"][0]["kind"] = noise; });
    try_one([&](Parts& p) { p.document["model"]["type"] = noise; });
    try_one([&](Parts& p) { p.document["model"]["encoding"] = noise; });
    try_one([&](Parts& p) { p.header["norm.bias"]["dtype"] = noise; });
    try_one([&](Parts& p) { p.header["norm.bias"]["shape"] = Json::array_t(5000, 1ull << 40); });
    try_one([&](Parts& p) { p.header["norm.bias"]["shape"] = Json::array_t(5000, 1); });
    try_one([&](Parts& p) { p.header[noise] = p.header["norm.bias"]; });
    try_one([&](Parts& p) { p.document[noise] = noise, p.document["version"] = noise; });
    EXPECT_FALSE(load_one(Parts().with_header("\xff\x01" + noise), folder_ / "model.safetensors"));
}

}  // namespace
}  // namespace mfik::testing
