// The arithmetic of layers. For sources that are compiled for each instruction set alone (kernels/cpu/dispatch.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/inline.hpp"
#include "solver/networks/layers.hpp"

namespace mfik {
namespace {  // each compilation has its own

#if defined(__GNUC__)
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
using Vector = float __attribute__((vector_size(kVectorBytes), may_alias));
#else
constexpr int kVectorBytes = sizeof(float);
using Vector = float;
#endif
constexpr int kVectorFloats = kVectorBytes / sizeof(float);

// Rows and columns of the outputs that the registers hold together: 16, 12 and 16 accumulators of 32, 16 and 16
// registers.
constexpr int kTileRows = kVectorBytes == 64 ? 8 : kVectorBytes == 32 ? 6 : 4;
constexpr int kTileColumns = kVectorBytes == 64 ? 32 : kVectorBytes == 32 ? 16 : 8;

/// Rows of numbers: a buffer, or the same numbers for every row (step 0).
struct Rows {
    const float* data;
    int step;

    MFIK_INLINE const float* operator[](int row) const { return data + static_cast<std::ptrdiff_t>(row) * step; }
    MFIK_INLINE Rows from(int row) const { return {(*this)[row], step}; }
};

/// y [kRows, kColumns] = addend + x w, each output by one chain of multiply-adds over the inputs: the same numbers
/// whatever the tile.
template <int kRows, int kColumns, int kWidth>
MFIK_INLINE void tile(const float* __restrict w, int in, Rows x, Rows addend, float* __restrict y,
                      std::ptrdiff_t y_step) {
    constexpr int kVectors = kColumns / kVectorFloats;
    const std::ptrdiff_t x_step = x.step, addend_step = addend.step;
    Vector sum[kRows][kVectors];
    for (int r = 0; r < kRows; ++r)
        for (int k = 0; k < kVectors; ++k)
            std::memcpy(&sum[r][k], addend.data + r * addend_step + k * kVectorFloats, kVectorBytes);
    for (int i = 0; i < in; ++i, w += kWidth) {
        for (int r = 0; r < kRows; ++r)
            for (int k = 0; k < kVectors; ++k)
                sum[r][k] += x.data[r * x_step + i] * reinterpret_cast<const Vector*>(w)[k];
    }
    for (int r = 0; r < kRows; ++r)
        for (int k = 0; k < kVectors; ++k) std::memcpy(y + r * y_step + k * kVectorFloats, &sum[r][k], kVectorBytes);
}

/// y [kRows, kColumns], the outputs from (row, column) on, of y = addend + W x; adds kRows to `row`.
template <int kRows, int kColumns, int kWidth>
MFIK_INLINE void multiply_tile(const Linear& layer, int& row, int column, Rows x, Rows addend, float* y, int y_step) {
    const float* panel = layer.weight.data() + static_cast<std::ptrdiff_t>(column / kWidth * kWidth) * layer.in;
    tile<kRows, kColumns, kWidth>(panel + column % kWidth, layer.in, x.from(row), {addend[row] + column, addend.step},
                                  y + row * y_step + column, y_step);
    row += kRows;
}

/// y [rows, whole panels] = addend + W x.
template <int kWidth = kPanel>
MFIK_INLINE void multiply(const Linear& layer, int rows, Rows x, Rows addend, float* y, int y_step) {
    constexpr int kColumns = kTileColumns;
    for (int column = 0; rows == 1 && column < layer.out; column += kWidth) {
        int row = 0;
        multiply_tile<1, kWidth, kWidth>(layer, row, column, x, addend, y, y_step);
    }
    for (int column = 0; rows > 1 && column < layer.out; column += kColumns) {
        int row = 0;
        while (rows - row >= kTileRows)
            multiply_tile<kTileRows, kColumns, kWidth>(layer, row, column, x, addend, y, y_step);
        while (rows - row >= 4) multiply_tile<4, kColumns, kWidth>(layer, row, column, x, addend, y, y_step);
        while (rows - row >= 2) multiply_tile<2, kColumns, kWidth>(layer, row, column, x, addend, y, y_step);
        while (rows - row >= 1) multiply_tile<1, kColumns, kWidth>(layer, row, column, x, addend, y, y_step);
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
    std::uint32_t bits = 0;
    std::memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits + 127u) << 23;  // 2^n
    float scale = 0.0f;
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
}  // namespace mfik
