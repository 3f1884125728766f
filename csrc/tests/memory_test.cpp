// Solver::load takes memory in proportion to the file, and gives all of it back when it fails: counted by replacing the
// global operator new, which can be told to fail as well.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <new>
#include <random>
#include <string>

#include "aligned_memory.hpp"
#include "fuzz/load_one.hpp"
#include "golden.hpp"
#include "mfik/solver.hpp"

namespace {

constexpr std::size_t kLarge = 4096;     // smaller blocks never fail: destroying a nlohmann::json takes some itself
constexpr std::size_t kSolver = 200000;  // [bytes] of a solver and its workspace, whatever the network: 140,000 seen
long large_left = std::numeric_limits<long>::max();  // large blocks until operator new fails
std::size_t live = 0, peak = 0;                      // [bytes]

// Each block begins with a margin that holds its size.
std::size_t margin(std::size_t alignment) {
    return alignment < alignof(std::max_align_t) ? alignof(std::max_align_t) : alignment;
}

void* allocate(std::size_t size, std::size_t alignment) noexcept {
    if (size >= kLarge && --large_left < 0) return nullptr;
    const std::size_t before = margin(alignment);
    // The size is to be a multiple of the alignment; sizes near SIZE_MAX must not wrap.
    if (size > std::numeric_limits<std::size_t>::max() - 2 * before) return nullptr;
    char* block = static_cast<char*>(aligned_memory(before, (before + size + before - 1) / before * before));
    if (block == nullptr) return nullptr;
    std::memcpy(block, &size, sizeof(size));
    live += size;
    peak = live > peak ? live : peak;
    return block + before;
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
    void* p = allocate(size, alignment);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}

void release(void* p, std::size_t alignment) noexcept {
    if (p == nullptr) return;
    char* block = static_cast<char*>(p) - margin(alignment);
    std::size_t size;
    std::memcpy(&size, block, sizeof(size));
    live -= size;
    release_aligned_memory(block);
}

}  // namespace

void* operator new(std::size_t size) {
    return allocate_or_throw(size, 1);
}
void* operator new[](std::size_t size) {
    return allocate_or_throw(size, 1);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, 1);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, 1);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept {
    release(p, 1);
}
void operator delete(void* p, std::size_t) noexcept {
    release(p, 1);
}
void operator delete(void* p, const std::nothrow_t&) noexcept {
    release(p, 1);
}
void operator delete(void* p, std::align_val_t alignment) noexcept {
    release(p, static_cast<std::size_t>(alignment));
}
void operator delete(void* p, std::size_t, std::align_val_t alignment) noexcept {
    release(p, static_cast<std::size_t>(alignment));
}
void operator delete[](void* p) noexcept {
    release(p, 1);
}
void operator delete[](void* p, std::size_t) noexcept {
    release(p, 1);
}
void operator delete[](void* p, const std::nothrow_t&) noexcept {
    release(p, 1);
}
void operator delete[](void* p, std::align_val_t alignment) noexcept {
    release(p, static_cast<std::size_t>(alignment));
}
void operator delete[](void* p, std::size_t, std::align_val_t alignment) noexcept {
    release(p, static_cast<std::size_t>(alignment));
}

namespace mfik::testing {
namespace {

namespace fs = std::filesystem;

class Memory : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = fs::temp_directory_path() / ("mfik_memory_test_" + std::to_string(std::random_device()()));
        fs::create_directories(folder_);
        std::ifstream stream(golden_bundle(), std::ios::binary);
        golden_bytes_.assign(std::istreambuf_iterator<char>(stream), {});
        std::memcpy(&header_size_, golden_bytes_.data(), sizeof(header_size_));
        (void)Solver::load(golden_bundle());  // what the C++ library takes once and keeps
    }
    void TearDown() override { fs::remove_all(folder_); }

    std::string write(const std::string& bytes) const {
        const fs::path file = folder_ / "model.safetensors";
        std::ofstream(file, std::ios::binary) << bytes;
        return file.string();
    }

    /// The golden file, its header made longer by `filler` before its last brace, with a checksum that fits.
    std::string stuffed(const std::string& filler) const {
        std::string bytes = golden_bytes_;
        bytes.insert(bytes.rfind('}', 8 + header_size_), filler);
        const std::uint64_t size = header_size_ + filler.size();
        std::memcpy(bytes.data(), &size, sizeof(size));
        seal(bytes);
        return bytes;
    }

    /// Load a file that must be refused; nothing may be left. @return The most memory in use meanwhile [bytes].
    std::size_t peak_of_refusal(const std::string& file) const {
        const std::size_t before = live;
        peak = live;
        bool refused = false;
        try {
            (void)Solver::load(file);
        } catch (const Error&) {
            refused = true;
        }
        EXPECT_TRUE(refused) << file;
        EXPECT_EQ(live, before) << "memory was left behind";
        return peak - before;
    }

    fs::path folder_;
    std::string golden_bytes_;
    std::uint64_t header_size_ = 0;
};

TEST_F(Memory, DamagedFilesTakeTheirSizeOnly) {
    std::string bytes = golden_bytes_;
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    EXPECT_LT(peak_of_refusal(write(bytes)), bytes.size() + 20000);  // the bytes, the stream's buffer, the message
    EXPECT_LT(peak_of_refusal(write(bytes.substr(0, bytes.size() / 2))), bytes.size() / 2 + 20000);
    const std::uint64_t huge = std::uint64_t{1} << 40;
    std::memcpy(bytes.data(), &huge, sizeof(huge));
    EXPECT_LT(peak_of_refusal(write(bytes)), bytes.size() + 20000);
}

TEST_F(Memory, HugeFilesTakeNothing) {
    const std::string file = write("");
#ifdef _WIN32
    GTEST_SKIP() << "MinGW's resize_file ends at 2 GiB";
#endif
    fs::resize_file(file, std::uintmax_t{1} << 40);  // takes no room on the disk
    EXPECT_LT(peak_of_refusal(file), 20000u);
}

TEST_F(Memory, WeightsAreTakenTwiceAtMost) {
    std::string bytes = golden_bytes_;
    const float infinity = std::numeric_limits<float>::infinity();
    std::memcpy(&bytes[bytes.size() - sizeof(infinity)], &infinity, sizeof(infinity));  // in the last tensor
    seal(bytes);
    EXPECT_LT(peak_of_refusal(write(bytes)), 2 * bytes.size() + 30 * header_size_);
}

TEST_F(Memory, HostileHeadersTakeABoundedMultiple) {
    // What costs most for its bytes: short values and keys, on one level and nested; sealed, so that they are parsed.
    const auto repeated = [](const std::string& part, std::size_t size) {
        std::string text;
        while (text.size() < size) text += part;
        return text;
    };
    constexpr std::size_t kSize = 500000;
    std::string keys;
    for (int i = 0; keys.size() < kSize; ++i) keys += ",\"" + std::to_string(i) + "\":0";
    const std::string deep = repeated("[", 30);
    for (const std::string& filler :
         {",\"x\":[0" + repeated(",0", kSize) + "]", ",\"x\":[{}" + repeated(",{}", kSize) + "]",
          ",\"x\":[[]" + repeated(",[]", kSize) + "]", ",\"x\":[0" + repeated(",{\"\":0}", kSize) + "]", keys,
          ",\"x\":\"" + repeated("x", kSize) + "\"", ",\"x\":" + repeated("[", kSize),
          ",\"x\":[" + deep + repeated("],[", kSize)}) {
        const std::string bytes = stuffed(filler);
        const std::size_t most = peak_of_refusal(write(bytes));
        EXPECT_LT(most, bytes.size() + 40 * (header_size_ + filler.size())) << filler.substr(0, 20);
    }
}

TEST_F(Memory, RunningOutOfMemoryLeavesNothingBehind) {
    for (const char* version : kVersions) {
        const std::string file = golden_bundle(version);
        const std::size_t before = live;
        const long unlimited = large_left;
        (void)Solver::load(file);
        const long needed = unlimited - large_left;
        EXPECT_EQ(live, before) << "a solver's memory was left behind";
        ASSERT_GT(needed, 10);
        for (long allowed = 0; allowed < needed; ++allowed) {
            bool failed = false;
            large_left = allowed;
            try {
                (void)Solver::load(file);
            } catch (const std::bad_alloc&) {
                failed = true;
            } catch (const Error&) {
                failed = true;  // a stream without a buffer cannot be read
            }
            large_left = unlimited;
            EXPECT_TRUE(failed) << allowed;
            EXPECT_EQ(live, before) << allowed << " large blocks";
        }
    }
}

TEST_F(Memory, CorpusLeavesNothingBehind) {
    const std::string file = write("");
    for (const auto& entry : fs::directory_iterator(MFIK_CORPUS_DIR)) {
        std::ifstream stream(entry.path(), std::ios::binary);
        std::string bytes{std::istreambuf_iterator<char>(stream), {}};
        const std::size_t size = bytes.size(), before = live;
        peak = live;
        load_one(bytes, file);
        EXPECT_LT(peak - before, 40 * size + kSolver) << entry.path();
        EXPECT_EQ(live, before) << entry.path();
    }
}

}  // namespace
}  // namespace mfik::testing
