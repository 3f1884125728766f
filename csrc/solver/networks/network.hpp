// The built-in engine, a class for each version of the network: weights packed once, then no allocation.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "mfik/solver.hpp"
#include "solver/bundle.hpp"

namespace mfik {

constexpr std::size_t kAlignment = 64;  // cache line, AVX-512 register

/// Zero-filled floats on a cache line boundary.
class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(std::size_t size);
    float* data() const noexcept { return data_.get(); }

  private:
    struct Free {
        void operator()(float* p) const noexcept { ::operator delete[](p, std::align_val_t{kAlignment}); }
    };
    std::unique_ptr<float[], Free> data_;
};

/// What the machine computes with; every set gives the same numbers but for rounding.
enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

/// The widest that this machine has and that the networks are compiled for.
[[nodiscard]] InstructionSet best_instruction_set() noexcept;

/// The network of a bundle that holds one, at r = 0, t = 1, the only times that solving uses. Real-time safe; reads the
/// weights once for up to 64 rows.
[[nodiscard]] std::unique_ptr<const Engine> make_network(const Bundle& bundle,
                                                         InstructionSet instructions = best_instruction_set());

// What make_network chooses from.
std::unique_ptr<const Engine> make_network_v1(const Bundle& bundle, InstructionSet instructions);
std::unique_ptr<const Engine> make_network_v2(const Bundle& bundle, InstructionSet instructions);

}  // namespace mfik
