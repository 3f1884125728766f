// What the networks of all versions are made of: linear layers in packed panels, compiled for each instruction set.
// For the sources of networks alone, which CMake compiles with -ffp-contract=fast.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "solver/networks/network.hpp"

#if defined(__GNUC__) || defined(__clang__)
#define MFIK_INLINE inline __attribute__((always_inline))  // part of the function of each instruction set
#define MFIK_NOINLINE __attribute__((noinline))
#define MFIK_VECTOR(BYTES) float __attribute__((vector_size(BYTES), may_alias))
#define MFIK_BASELINE_BYTES 16
#ifdef __x86_64__
#define MFIK_X86
#define MFIK_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define MFIK_TARGET_AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#endif
#else
#define MFIK_INLINE inline
#define MFIK_NOINLINE
#define MFIK_VECTOR(BYTES) float
#define MFIK_BASELINE_BYTES 4
#endif

namespace mfik {

constexpr int kPoseSize = 7;
constexpr int kPanel = 64;      // four AVX-512 accumulators for a single row hide the latency of multiply-add
constexpr int kHeadPanel = 32;  // the head has at most kMaxJoints outputs
constexpr int kMaxRows = 64;    // evaluated together: enough to make streaming the weights a small part of the time
static_assert(kHeadPanel >= kMaxJoints);

/// Linear layer. Its weights are stored in panels of outputs, [panels][in][panel], so that evaluation streams through
/// them once and each step adds one input's share to a whole panel. Missing outputs of the last panel are zero.
struct Linear {
    int in = 0, out = 0;
    AlignedBuffer weight;
    AlignedBuffer bias;  // [panels * panel]
};

/// Pack `in` columns of a linear layer's weights [out, columns], from column `begin` on, into panels. With `constants`,
/// what the following columns multiply, their share becomes part of the bias.
Linear pack_linear(const Bundle& bundle, const std::string& name, int begin, int in, int panel,
                   const std::vector<double>& constants = {});

namespace {  // each source compiles its own

/// n in whole panels.
MFIK_INLINE int padded(int n) {
    return (n + kPanel - 1) / kPanel * kPanel;
}

/// Floats from one row of a buffer to the next, for n a row: whole panels, and a cache line more, as rows 4096 bytes
/// apart would compete for the same few places in the cache.
MFIK_INLINE int stride(int n) {
    return padded(n) + 16;
}

/// Rows of numbers: a buffer, or the same numbers for every row (step 0).
struct Rows {
    const float* data;
    int step;

    MFIK_INLINE const float* operator[](int row) const { return data + static_cast<std::ptrdiff_t>(row) * step; }
    MFIK_INLINE Rows from(int row) const { return {(*this)[row], step}; }
};

// An instruction set: the rows and columns of the outputs that its registers hold together, and
//     y [kTileRows, kTileColumns] = addend + x w,
// each output by one chain of multiply-adds over the inputs: the same numbers whatever the tile. A function of its own,
// because GCC takes vectors apart that are wider than those of the function where they stand, before it inlines.
#define MFIK_DEFINE_INSTRUCTIONS(NAME, TARGET, BYTES, ROWS, COLUMNS)                                            \
    struct NAME {                                                                                               \
        static constexpr int kRows = ROWS, kColumns = COLUMNS;                                                  \
        using Vector = MFIK_VECTOR(BYTES);                                                                      \
        template <int kTileRows, int kTileColumns, int kWidth>                                                  \
        TARGET static void tile(const float* __restrict w, int in, Rows x, Rows addend, float* __restrict y,    \
                                std::ptrdiff_t y_step) {                                                        \
            constexpr int kLanes = BYTES / sizeof(float), kVectors = kTileColumns / kLanes;                     \
            const std::ptrdiff_t x_step = x.step, addend_step = addend.step;                                    \
            Vector sum[kTileRows][kVectors];                                                                    \
            for (int r = 0; r < kTileRows; ++r)                                                                 \
                for (int k = 0; k < kVectors; ++k)                                                              \
                    std::memcpy(&sum[r][k], addend.data + r * addend_step + k * kLanes, BYTES);                 \
            for (int i = 0; i < in; ++i, w += kWidth) {                                                         \
                for (int r = 0; r < kTileRows; ++r)                                                             \
                    for (int k = 0; k < kVectors; ++k)                                                          \
                        sum[r][k] += x.data[r * x_step + i] * reinterpret_cast<const Vector*>(w)[k];            \
            }                                                                                                   \
            for (int r = 0; r < kTileRows; ++r)                                                                 \
                for (int k = 0; k < kVectors; ++k) std::memcpy(y + r * y_step + k * kLanes, &sum[r][k], BYTES); \
        }                                                                                                       \
    }
MFIK_DEFINE_INSTRUCTIONS(Baseline, MFIK_NOINLINE, MFIK_BASELINE_BYTES, 4, 8);
#ifdef MFIK_X86
MFIK_DEFINE_INSTRUCTIONS(Avx2, MFIK_NOINLINE MFIK_TARGET_AVX2, 32, 6, 16);
MFIK_DEFINE_INSTRUCTIONS(Avx512, MFIK_NOINLINE MFIK_TARGET_AVX512, 64, 8, 32);
#endif

/// y [kRows, kColumns], the outputs from (row, column) on, of y = addend + W x; adds kRows to `row`.
template <class Set, int kRows, int kColumns, int kWidth>
MFIK_INLINE void multiply_tile(const Linear& layer, int& row, int column, Rows x, Rows addend, float* y, int y_step) {
    const float* panel = layer.weight.data() + static_cast<std::ptrdiff_t>(column / kWidth * kWidth) * layer.in;
    Set::template tile<kRows, kColumns, kWidth>(panel + column % kWidth, layer.in, x.from(row),
                                                {addend[row] + column, addend.step}, y + row * y_step + column, y_step);
    row += kRows;
}

/// y [rows, whole panels] = addend + W x.
template <class Set, int kWidth = kPanel>
MFIK_INLINE void multiply(const Linear& layer, int rows, Rows x, Rows addend, float* y, int y_step) {
    constexpr int kColumns = Set::kColumns;
    for (int column = 0; rows == 1 && column < layer.out; column += kWidth) {
        int row = 0;
        multiply_tile<Set, 1, kWidth, kWidth>(layer, row, column, x, addend, y, y_step);
    }
    for (int column = 0; rows > 1 && column < layer.out; column += kColumns) {
        int row = 0;
        while (rows - row >= Set::kRows)
            multiply_tile<Set, Set::kRows, kColumns, kWidth>(layer, row, column, x, addend, y, y_step);
        while (rows - row >= 4) multiply_tile<Set, 4, kColumns, kWidth>(layer, row, column, x, addend, y, y_step);
        while (rows - row >= 2) multiply_tile<Set, 2, kColumns, kWidth>(layer, row, column, x, addend, y, y_step);
        while (rows - row >= 1) multiply_tile<Set, 1, kColumns, kWidth>(layer, row, column, x, addend, y, y_step);
    }
}

/// exp(x): Cephes expf (Moshier 1992, single/expf.c) with branch-free range reduction; relative error 2e-7, NaN stays.
MFIK_INLINE float fast_exp(float x) {
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
    const float shifted = x * 1.44269504088896341f + kRound;
    const float n = shifted - kRound;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    std::uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits + 127u) << 23;  // 2^n
    float scale;
    std::memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

MFIK_INLINE float silu(float x) {
    return x / (1.0f + fast_exp(-x));
}

MFIK_INLINE void silu(float* x, int n) {
    for (int i = 0; i < n; ++i) x[i] = silu(x[i]);
}

}  // namespace

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
