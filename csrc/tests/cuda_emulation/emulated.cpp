// Reads calls of kernels from standard input, runs each by its launch code in csrc/kernels/cuda on the emulated device,
// and writes what they wrote. tests/cpp/test_cuda_emulation.py holds that to PyTorch.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "kernels/kernels.hpp"

namespace {

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "emulated: %s\n", what.c_str());
    std::exit(1);
}

void read(void* to, std::size_t size) {
    if (size > 0 && std::fread(to, size, 1, stdin) != 1) fail("the input ends within a call");
}

template <typename T>
T read() {
    T value;
    read(&value, sizeof value);
    return value;
}

template <typename T>
std::vector<T> read_list() {
    std::vector<T> values(static_cast<std::size_t>(read<std::int64_t>()));
    read(values.data(), values.size() * sizeof(T));
    return values;
}

/// An array in memory of its own, so that AddressSanitizer sees the first byte past it. It begins `offset` bytes past
/// the alignment of an allocation, as rows of a tensor may.
class DeviceArray {
  public:
    DeviceArray(std::int64_t size, std::int64_t offset)
        : offset_(static_cast<std::size_t>(offset)),
          size_(static_cast<std::size_t>(size)),
          memory_(static_cast<unsigned char*>(std::malloc(offset_ + size_)), std::free) {
        if (memory_ == nullptr) fail("no memory");
        std::memset(memory_.get(), kUnwritten, offset_ + size_);
    }
    unsigned char* get() const { return memory_.get() + offset_; }
    std::size_t size() const { return size_; }
    bool untouched() const {
        return std::all_of(memory_.get(), get() + size_, [](unsigned char byte) { return byte == kUnwritten; });
    }
    /// Whether it repeats `values` from its beginning to its end.
    bool repeats(const std::vector<unsigned char>& values) const {
        for (std::size_t at = 0; at < size_; at += values.size())
            if (std::memcmp(get() + at, values.data(), values.size()) != 0) return false;
        return true;
    }

  private:
    static constexpr unsigned char kUnwritten = 0xA5;
    std::size_t offset_, size_;
    std::unique_ptr<unsigned char, void (*)(void*)> memory_;
};

/// A kernel's name, its numbers and its arrays in the order in which `run` takes them.
struct Call {
    std::vector<char> name = read_list<char>();
    bool is_double = read<std::int64_t>() != 0;
    std::int64_t repeats = read<std::int64_t>();  // of the rows that are given; those of the outcome must repeat, too
    std::vector<std::int64_t> integers = read_list<std::int64_t>();
    std::vector<double> reals = read_list<double>();
    std::vector<std::vector<unsigned char>> given;
    std::vector<DeviceArray> in, out;

    Call() {
        for (const std::int64_t offset : read_list<std::int64_t>()) {
            given.push_back(read_list<unsigned char>());
            in.emplace_back(static_cast<std::int64_t>(given.back().size()) * repeats, offset);
            for (std::size_t at = 0; at < in.back().size(); at += given.back().size())
                std::memcpy(in.back().get() + at, given.back().data(), given.back().size());
        }
        const std::vector<std::int64_t> offsets = read_list<std::int64_t>();
        for (const std::int64_t offset : offsets) out.emplace_back(read<std::int64_t>() * repeats, offset);
    }

    std::string text() const { return {name.begin(), name.end()}; }
    std::int64_t integer(std::size_t k) const { return integers.at(k); }
    std::int64_t rows() const { return integers.at(0) * repeats; }
};

/// Pointers to the arrays of a call, in their order; null where the call gives no bytes and `or_null`.
template <typename T>
struct Arrays {
    const Call& call;

    template <typename E = T>
    const E* in(std::size_t k) const {
        return reinterpret_cast<const E*>(call.in.at(k).get());
    }
    template <typename E = T>
    const E* in_or_null(std::size_t k) const {
        return call.in.at(k).size() == 0 && call.rows() > 0 ? nullptr : in<E>(k);
    }
    template <typename E = T>
    E* out(std::size_t k) const {
        return reinterpret_cast<E*>(call.out.at(k).get());
    }
    T real(std::size_t k) const { return static_cast<T>(call.reals.at(k)); }
    mfik::BatchOut<T> batch() const { return {out(0), out(1), out(2), out(3), out(4), out(5), out(6)}; }
};

/// Its reals begin with lower and upper limits and origins, its integers end with the joints' kinds.
mfik::Chain chain_of(const Call& call, std::int64_t dof) {
    mfik::Chain chain;
    chain.dof = static_cast<int>(dof);
    const double* from = call.reals.data();
    for (int j = 0; j < chain.dof; ++j) {
        chain.lower[j] = from[j], chain.upper[j] = from[chain.dof + j];
        chain.kind[j] =
            static_cast<mfik::JointKind>(call.integers[call.integers.size() - static_cast<std::size_t>(dof - j)]);
    }
    for (int j = 0; j <= chain.dof; ++j) std::copy_n(from + 2 * chain.dof + 12 * j, 12, chain.origin[j]);
    return chain;
}

/// The key of a batch: integers 2 to 5, and its step, the first array.
mfik::BatchKey key_of(const Call& call) {
    return {static_cast<std::uint64_t>(call.integer(2)), reinterpret_cast<const std::int64_t*>(call.in.at(0).get()),
            static_cast<std::uint32_t>(call.integer(3)), call.integer(4), call.integer(5)};
}

/// Integers 0 and 1 are rows and joints.
template <typename T>
void run_without_robot(const Call& call, std::intptr_t stream) {
    const Arrays<T> a{call};
    const std::int64_t n = call.rows(), dof = call.integer(1);
    const std::string name = call.text();
    if (name == "adaptive_weight") {
        mfik::cuda::adaptive_weight<T>({a.in(0), a.in(1), a.out(0), n, dof, a.real(0), a.real(1)}, stream);
    } else if (name == "sample_batch") {
        mfik::cuda::sample_batch<T>(
            {a.in(1), a.in(2), a.in(3), a.in(4), a.template in_or_null<std::int64_t>(5), a.batch(), key_of(call),
             call.integer(6) * call.repeats, n, dof, a.real(0), a.real(1)},
            stream);
    } else if (name == "weighted_residual_loss") {
        mfik::cuda::weighted_residual_loss<T>(
            {a.in(0), a.in(1), a.in(2), a.in(3), a.in(4), a.in_or_null(5), a.out(0), a.out(1), a.out(2), n, dof,
             call.integer(2), a.real(0), a.real(1), a.real(2)},
            stream);
    } else if (name == "weighted_residual_loss_backward") {
        mfik::cuda::weighted_residual_loss_backward<T>(
            {a.in(0), a.in(1), a.in(2), a.in_or_null(3), a.out(0), n, dof, a.real(0), a.real(1)}, stream);
    } else {
        fail("no kernel " + name);
    }
}

template <typename T>
void run(const Call& call, std::intptr_t stream) {
    const Arrays<T> a{call};
    const std::int64_t n = call.rows(), dof = call.integer(1);
    const std::size_t last = call.reals.size() - 1;
    const std::string name = call.text();
    if (call.reals.size() < 12) return run_without_robot<T>(call, stream);  // no robot
    const mfik::Chain chain = chain_of(call, dof);
    if (name == "fk") {
        mfik::cuda::fk<T>(chain, {a.in(0), a.out(0), n}, stream);
    } else if (name == "jacobian") {
        mfik::cuda::jacobian<T>(chain, {a.in(0), a.out(0), n}, stream);
    } else if (name == "fk_error") {
        mfik::cuda::fk_error<T>(chain, {a.in(0), a.in(1), a.out(0), a.out(1), n}, stream);
    } else if (name == "draw_batch") {
        mfik::cuda::draw_batch<T>(chain, {a.batch(), key_of(call), n, a.real(last - 1), a.real(last)}, stream);
    } else if (name == "refine") {
        mfik::cuda::refine<T>(chain,
                              {a.in(0), a.in(1), a.out(0), a.template out<bool>(1), a.template out<std::int32_t>(2), n,
                               static_cast<int>(call.integer(2)), call.reals[last - 1], call.reals[last]},
                              stream);
    } else if (name == "solve") {
        mfik::cuda::solve<T>(chain,
                             {a.in(0), a.in(1), a.in(2), a.out(0), a.out(1), a.out(2), a.template out<bool>(3),
                              a.template out<std::int32_t>(4), a.template out<std::int32_t>(5), n, call.integer(3),
                              static_cast<int>(call.integer(2)), call.reals[last - 1], call.reals[last]},
                             stream);
    } else {
        fail("no kernel " + name);
    }
}

void check_and_write(const Call& call) {
    const std::string name = call.text();
    for (std::size_t k = 0; k < call.in.size(); ++k)
        if (!call.in[k].repeats(call.given[k])) fail(name + ": input " + std::to_string(k) + " was written");
    for (const DeviceArray& array : call.out) {
        const std::size_t size = array.size() / static_cast<std::size_t>(call.repeats);
        if (!array.repeats({array.get(), array.get() + size})) fail(name + ": rows that are alike differ");
        if (std::fwrite(array.get(), 1, size, stdout) != size) fail("no output");
    }
}

}  // namespace

int main() {
    const auto stream = reinterpret_cast<cudaStream_t>(std::intptr_t{64});
    if (!mfik::cuda::problem().empty()) fail("the device is refused");
    try {
        for (int next = std::getchar(); next == '+'; next = std::getchar()) {
            const Call call;
            (call.is_double ? run<double> : run<float>)(call, reinterpret_cast<std::intptr_t>(stream));
            cudaStreamSynchronize(nullptr);
            for (const DeviceArray& array : call.out)
                if (!array.untouched()) fail(call.text() + ": ran in a stream that is not its own");
            cudaStreamSynchronize(stream);
            check_and_write(call);
        }
    } catch (const std::exception& error) {
        fail(error.what());
    }
    return 0;
}
