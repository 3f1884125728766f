// Packed weights and scratch memory of network type v1.
#pragma once

#include <vector>

#include "solver/networks/layers.hpp"

namespace mfik::v1 {

/// ModelConfig of mfik/model/v1/config.py.
struct Sizes {
    int dof = 0, width = 0, num_blocks = 0, cond_dim = 0;
    int encoding_dim = 0;  // features per input scalar; 0: the scalar itself
};

struct LayerNorm {
    AlignedBuffer weight;
    AlignedBuffer bias;
};

struct Block {
    LayerNorm norm1, norm2;
    Linear linear1, linear2, film;
};

/// What the first layers compute from r = 0 and t = 1 is a constant and part of their bias. The input layer is in two
/// parts, as the pose's share is the same for every row that has the same pose.
struct Layers {
    Sizes sizes;
    AlignedBuffer frequencies;
    Linear input_pose, input_q, condition, head;
    LayerNorm norm;
    std::vector<Block> blocks;
};

/// Scratch memory of one evaluation of up to kMaxRows rows; the distance of rows is stride() of what they hold.
struct Buffers {
    int features_step;
    float *features, *condition, *pose_share, *x, *h, *normed, *film, *head;
    std::size_t size;

    Buffers(const Sizes& sizes, int rows, float* scratch);
};

}  // namespace mfik::v1
