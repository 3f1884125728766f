// What networks are made of: linear layers in packed panels, and the memory of an evaluation.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/chain.hpp"
#include "kernels/inline.hpp"
#include "solver/aligned_buffer.hpp"
#include "solver/networks/tensors.hpp"

namespace mfik {

constexpr int kPoseSize = 7;
constexpr int kPanel = 64;  // outputs: four accumulators of AVX-512 for a single row hide the latency of multiply-add
constexpr int kHeadPanel = 32;  // the head has at most kMaxJoints outputs
constexpr int kMaxRows = 64;    // evaluated together: enough to make streaming the weights a small part of the time
static_assert(kHeadPanel >= kMaxJoints);

// Limits of what a file may claim, as in mfik/model.
constexpr int kMaxWidth = 1 << 14;
constexpr int kMaxBlocks = 256;

/// Linear layer. Its weights are stored in panels of outputs, [panels][in][panel], so that evaluation streams through
/// them once and each step adds one input's share to a whole panel. Missing outputs of the last panel are zero.
struct Linear {
    int in = 0, out = 0;
    AlignedBuffer weight;
    AlignedBuffer bias;  // [panels * panel]
};

/// Pack `in` columns of a linear layer's weights [out, columns], from column `begin` on, into panels. With `constants`,
/// what the following columns multiply, their share becomes part of the bias.
[[nodiscard]] Linear pack_linear(const Tensors& weights, const std::string& name, int begin, int in, int panel,
                                 const std::vector<double>& constants = {});

/// Add the tensors of a linear layer, or those of a layer norm.
void add_linear(Shapes& tensors, const std::string& name, int out, int in);
void add_norm(Shapes& tensors, const std::string& name, int width);

/// n in whole panels.
MFIK_INLINE constexpr int padded(int n) {
    return (n + kPanel - 1) / kPanel * kPanel;
}

/// Floats from one row of a buffer to the next, for n a row: whole panels, and a cache line more, as rows 4096 bytes
/// apart would compete for the same few places in the cache.
MFIK_INLINE constexpr int stride(int n) {
    return padded(n) + 16;
}

/// Hands out the parts of an evaluation's scratch memory; without memory it counts.
struct ScratchParts {
    float* scratch;
    int rows;
    std::size_t size = 0;  // floats handed out

    /// `rows` rows, `step` floats apart.
    float* take(int step) {
        float* begin = scratch == nullptr ? nullptr : scratch + size;
        size += static_cast<std::size_t>(rows) * static_cast<std::size_t>(step);
        return begin;
    }
};

/// Evaluate in pieces of up to kMaxRows rows: evaluate_piece(rows, q, poses, num_poses, u).
template <class Evaluate>
void in_pieces(int rows, int dof, const float* q, const float* poses, int num_poses, float* u,
               const Evaluate& evaluate_piece) noexcept {
    for (int begin = 0; begin < rows; begin += kMaxRows) {
        const int count = rows - begin < kMaxRows ? rows - begin : kMaxRows;
        const std::ptrdiff_t offset = static_cast<std::ptrdiff_t>(begin) * dof;
        if (num_poses == 1) {
            evaluate_piece(count, q + offset, poses, 1, u + offset);
        } else {
            const float* own = poses + static_cast<std::ptrdiff_t>(begin) * kPoseSize;
            evaluate_piece(count, q + offset, own, count, u + offset);
        }
    }
}

}  // namespace mfik
