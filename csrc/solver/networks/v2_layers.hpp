// Packed weights and scratch memory of network type v2.
#pragma once

#include <vector>

#include "kernels/geometry.hpp"
#include "solver/networks/layers.hpp"

namespace mfik::v2 {

struct Block {
    Linear linear1, linear2;
};

/// What the input layer computes from r = 0 and t = 1 is a constant and part of its bias.
struct Layers {
    Geometry geometry;
    int width;
    int passes;  // looks at the geometry from one start
    int starts;  // of one evaluation
    Linear input, head;
    std::vector<Block> blocks;
    float lower[kMaxJoints], upper[kMaxJoints];  // within the limits by more than rounding
    float span[kMaxJoints];                      // between them; a turn for a continuous joint
    std::vector<float> shifts;                   // of each start from the first one, [starts][dof]

    /// Where a start begins, counted from 0, of an evaluation from joints q [dof].
    void begin(int start, const float* q, float* at) const noexcept;
};

/// Scratch memory of one evaluation of up to kMaxRows rows; the distance of rows is stride() of what they hold.
struct Buffers {
    float *features, *x, *activated, *h, *sum, *head;
    float *at, *error2;  // joints [rows][dof] and squared pose errors [rows], without gaps
    std::size_t size;

    Buffers(const Layers& layers, int rows, float* scratch);
};

}  // namespace mfik::v2
