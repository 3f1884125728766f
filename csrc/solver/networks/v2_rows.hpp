// Evaluation of network type v2, for network_kernels.cpp alone.
#pragma once

#include "solver/networks/layer_kernels.hpp"
#include "solver/networks/v2_layers.hpp"

namespace mfik::v2 {
namespace {

/// activated = silu(x), sum = x + bias, all [n].
MFIK_INLINE void begin_block(const float* x, const float* bias, int n, float* activated, float* sum) {
    for (int i = 0; i < n; ++i) {
        activated[i] = silu(x[i]);
        sum[i] = x[i] + bias[i];
    }
}

constexpr float kGate2 = 0.3f * 0.3f;  // GATE2 in mfik/model/v2/network.py

/// Move the joints of rows by what the network makes of their features.
MFIK_INLINE void pass_rows(const Layers& layers, const Buffers& buffers, int rows) {
    const Geometry& geometry = layers.geometry;
    const int wide = stride(layers.width), columns = padded(layers.width), features_step = stride(geometry.size);
    float *x = buffers.x, *activated = buffers.activated, *h = buffers.h, *sum = buffers.sum, *head = buffers.head;
    const auto bias = [](const Linear& layer) { return Rows{layer.bias.data(), 0}; };

    multiply(layers.input, rows, {buffers.features, features_step}, bias(layers.input), x, wide);
    for (const Block& block : layers.blocks) {
        for (int r = 0; r < rows; ++r)
            begin_block(x + r * wide, block.linear2.bias.data(), columns, activated + r * wide, sum + r * wide);
        multiply(block.linear1, rows, {activated, wide}, bias(block.linear1), h, wide);
        for (int r = 0; r < rows; ++r) silu(h + r * wide, columns);
        multiply(block.linear2, rows, {h, wide}, {sum, wide}, x, wide);
    }
    for (int r = 0; r < rows; ++r) silu(x + r * wide, columns);
    multiply<kHeadPanel>(layers.head, rows, {x, wide}, bias(layers.head), head, kHeadPanel);
    const int dof = geometry.chain.dof;
    for (int r = 0; r < rows; ++r) {
        const float* step = buffers.features + r * features_step + geometry.size - dof;
        const float gate = buffers.error2[r] / (buffers.error2[r] + kGate2);
        float* q = buffers.at + r * dof;
        for (int j = 0; j < dof; ++j) {
            const float next = q[j] + step[j] + gate * head[r * kHeadPanel + j];
            q[j] = next < layers.lower[j] ? layers.lower[j] : next > layers.upper[j] ? layers.upper[j] : next;
        }
    }
}

}  // namespace
}  // namespace mfik::v2
