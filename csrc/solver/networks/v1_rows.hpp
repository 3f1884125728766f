// Evaluation of network type v1, for network_kernels.cpp alone.
#pragma once

#include <cmath>

#include "solver/networks/layer_kernels.hpp"
#include "solver/networks/v1_layers.hpp"

namespace mfik::v1 {
namespace {

constexpr int kSums = 32;              // independent partial sums of a reduction: two registers of AVX-512
constexpr float kNormEpsilon = 1e-5f;  // torch.nn.LayerNorm's default

/// x += silu(h (1 + scale) + shift), all [n].
MFIK_INLINE void add_film(float* x, const float* h, const float* scale, const float* shift, int n) {
    for (int i = 0; i < n; ++i) x[i] += silu(h[i] * (1.0f + scale[i]) + shift[i]);
}

/// sines[i] = sin(angles[i]), cosines[i] = cos(angles[i]), absolute error 1e-7 up to 1e6 rad; NaN where not finite.
/// Reduction by multiples of pi/2 in double, then Cephes sinf and cosf (Moshier 1992, single/sinf.c).
MFIK_INLINE void sincos(float scalar, const float* frequencies, int n, float* sines, float* cosines) {
    constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
    constexpr int kChunk = 64;
    for (int begin = 0; begin < n; begin += kChunk) {
        const int count = n - begin < kChunk ? n - begin : kChunk;
        float rest[kChunk], quarter[kChunk];
        for (int i = 0; i < count; ++i) {
            const double turns = static_cast<double>(scalar * frequencies[begin + i]) * 0.63661977236758134308;
            const double whole = (turns + kRound) - kRound;  // quarter turns
            rest[i] = static_cast<float>((turns - whole) * 1.57079632679489661923);
            const double fours = (0.25 * whole + kRound) - kRound;
            quarter[i] = static_cast<float>(whole - 4.0 * fours);  // -2, -1, 0, 1 or 2
        }
        for (int i = 0; i < count; ++i) {
            const float r = rest[i], z = r * r, k = quarter[i];
            const float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
            const float c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z -
                            0.5f * z + 1.0f;
            const bool odd = k * k == 1.0f;
            const float sine = odd ? c : s, cosine = odd ? s : c;
            sines[begin + i] = k == -1.0f || k * k == 4.0f ? -sine : sine;
            cosines[begin + i] = k == 1.0f || k * k == 4.0f ? -cosine : cosine;
        }
    }
}

/// Sum of (x - center), or of its square.
template <bool kSquare>
MFIK_INLINE float sum(const float* x, float center, int n) {
    float lanes[kSums] = {};
    int i = 0;
    for (; i + kSums <= n; i += kSums) {
        for (int k = 0; k < kSums; ++k) {
            const float d = x[i + k] - center;
            lanes[k] += kSquare ? d * d : d;
        }
    }
    for (; i < n; ++i) lanes[0] += kSquare ? (x[i] - center) * (x[i] - center) : x[i] - center;
    float total = 0.0f;
    for (const float lane : lanes) total += lane;
    return total;
}

/// out [n] = (x - mean) / sqrt(variance + eps) * weight + bias.
MFIK_INLINE void layer_norm(const LayerNorm& norm, const float* x, int n, float* out) {
    const float *weight = norm.weight.data(), *bias = norm.bias.data();
    const float mean = sum<false>(x, 0.0f, n) / static_cast<float>(n);
    const float variance = sum<true>(x, mean, n) / static_cast<float>(n);
    const float scale = 1.0f / std::sqrt(variance + kNormEpsilon);
    for (int i = 0; i < n; ++i) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

/// encoded [count * encoding_dim] = what the network takes of `count` scalars.
MFIK_INLINE void encode(const Layers& layers, const float* scalars, int count, float* encoded) {
    const int half = layers.sizes.encoding_dim / 2;
    for (int s = 0; s < count; ++s) {
        float* out = encoded + 2 * s * half;
        sincos(scalars[s], layers.frequencies.data(), half, out, out + half);
    }
}

MFIK_INLINE void evaluate_rows(const Layers& layers, const Buffers& buffers, int rows, const float* q,
                               const float* poses, int num_poses, float* u) {
    const Sizes& sizes = layers.sizes;
    const int width = sizes.width, wide = stride(width), film_step = stride(2 * width);
    const int features_step = buffers.features_step, condition_step = stride(sizes.cond_dim);
    float *features = buffers.features, *pose_share = buffers.pose_share, *condition = buffers.condition;
    float *x = buffers.x, *h = buffers.h, *normed = buffers.normed, *film = buffers.film, *head = buffers.head;
    const bool shared = num_poses == 1;

    // What depends on the pose alone.
    Rows input{poses, kPoseSize};
    if (sizes.encoding_dim > 0) {
        for (int r = 0; r < num_poses; ++r) {
            encode(layers, poses + r * kPoseSize, kPoseSize, features + r * features_step);
        }
        input = {features, features_step};
    }
    multiply(layers.input_pose, num_poses, input, {layers.input_pose.bias.data(), 0}, pose_share, wide);
    multiply(layers.condition, num_poses, {poses, kPoseSize}, {layers.condition.bias.data(), 0}, condition,
             condition_step);
    for (int r = 0; r < num_poses; ++r) silu(condition + r * condition_step, sizes.cond_dim);

    input = {q, sizes.dof};
    if (sizes.encoding_dim > 0) {
        for (int r = 0; r < rows; ++r) encode(layers, q + r * sizes.dof, sizes.dof, features + r * features_step);
        input = {features, features_step};
    }
    multiply(layers.input_q, rows, input, {pose_share, shared ? 0 : wide}, x, wide);
    for (const Block& block : layers.blocks) {
        for (int r = 0; r < rows; ++r) layer_norm(block.norm1, x + r * wide, width, normed + r * wide);
        multiply(block.linear1, rows, {normed, wide}, {block.linear1.bias.data(), 0}, h, wide);
        for (int r = 0; r < rows; ++r) {
            silu(h + r * wide, width);
            layer_norm(block.norm2, h + r * wide, width, normed + r * wide);
        }
        multiply(block.linear2, rows, {normed, wide}, {block.linear2.bias.data(), 0}, h, wide);
        multiply(block.film, num_poses, {condition, condition_step}, {block.film.bias.data(), 0}, film, film_step);
        for (int r = 0; r < rows; ++r) {
            const float* scale = film + (shared ? 0 : r * film_step);
            add_film(x + r * wide, h + r * wide, scale, scale + width, width);
        }
    }
    for (int r = 0; r < rows; ++r) layer_norm(layers.norm, x + r * wide, width, normed + r * wide);
    multiply<kHeadPanel>(layers.head, rows, {normed, wide}, {layers.head.bias.data(), 0}, head, kHeadPanel);
    for (int r = 0; r < rows; ++r)
        for (int j = 0; j < sizes.dof; ++j) u[r * sizes.dof + j] = head[r * kHeadPanel + j];
}

}  // namespace
}  // namespace mfik::v1
