// Version 1 network (mfik/model/v1/network.py), the built-in engine: weights packed once, then no allocation.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

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

/// Linear layer. Its weights are stored in panels of outputs, [panels][in][panel], so that evaluation streams through
/// them once and each step adds one input's share to a whole panel. Missing outputs of the last panel are zero.
struct Linear {
    int in = 0, out = 0;
    AlignedBuffer weight;
    AlignedBuffer bias;  // [panels * panel]
};

struct LayerNorm {
    AlignedBuffer weight;
    AlignedBuffer bias;
};

struct Block {
    LayerNorm norm1, norm2;
    Linear linear1, linear2, film;
};

/// The network at r = 0, t = 1, the only times that solving uses: what the first layers compute from r and t is a
/// constant and part of their bias. The input layer is in two parts, as the pose's share is the same for every row that
/// has the same pose.
struct Layers {
    NetworkConfig config;
    AlignedBuffer frequencies;
    Linear input_pose, input_q, condition, head;
    LayerNorm norm;
    std::vector<Block> blocks;
};

struct Buffers;

/// What the machine computes with; every set gives the same numbers but for rounding.
enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

/// The widest that this machine has and that the network is compiled for.
[[nodiscard]] InstructionSet best_instruction_set() noexcept;

class Network final : public Engine {
  public:
    explicit Network(const Bundle& bundle, InstructionSet instructions = best_instruction_set());

    [[nodiscard]] std::size_t scratch_size(int rows) const noexcept override;

    /// Real-time safe. With num_poses == 1, what depends on the pose alone is computed once for up to 64 rows.
    void evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                  float* scratch) const noexcept override;

  private:
    using EvaluateLayers = void (*)(const Layers&, const Buffers&, int rows, const float* q, const float* poses,
                                    int num_poses, float* u);
    EvaluateLayers evaluate_layers_;
    Layers layers_;
};

}  // namespace mfik
