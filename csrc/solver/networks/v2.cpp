// Version 2 (mfik/model/v2/network.py): residual blocks on the robot's geometry.
#include <algorithm>
#include <cmath>

#include "solver/networks/geometry.hpp"
#include "solver/networks/layers.hpp"

namespace mfik {

Geometry::Geometry(const Chain& of) : chain(of) {
    double length = 0.0;
    for (int j = 0; j <= chain.dof; ++j)
        length += std::sqrt(chain.origin[j][3] * chain.origin[j][3] + chain.origin[j][7] * chain.origin[j][7] +
                            chain.origin[j][11] * chain.origin[j][11]);
    scale = 2.0 / length;
    int turning = 0;
    for (int j = 0; j < chain.dof; ++j) {
        middle[j] = 0.5 * (chain.lower[j] + chain.upper[j]);
        per_range[j] = chain.kind[j] == JointKind::kContinuous ? 0.0 : 2.0 / (chain.upper[j] - chain.lower[j]);
        turning += j + 1 < chain.dof && chain.kind[j] != JointKind::kPrismatic;
    }
    size = 2 * chain.dof + 2 * turning + 30;
}

namespace {

struct Block {
    Linear linear1, linear2;
};

/// What the input layer computes from r = 0 and t = 1 is a constant and part of its bias.
struct Layers {
    Geometry geometry;
    int width;
    Linear input, head;
    std::vector<Block> blocks;
};

/// Scratch memory of one evaluation of up to kMaxRows rows; the distance of rows is stride() of what they hold.
struct Buffers {
    float *features, *x, *activated, *h, *sum, *head;
    std::size_t size = 0;

    Buffers(const Layers& layers, int rows, float* scratch) {
        const auto take = [&](int step) {
            float* begin = scratch == nullptr ? nullptr : scratch + size;
            size += static_cast<std::size_t>(rows) * static_cast<std::size_t>(step);
            return begin;
        };
        features = take(stride(layers.geometry.size));
        for (float** buffer : {&x, &activated, &h, &sum}) *buffer = take(stride(layers.width));
        head = take(kHeadPanel);
    }
};

/// activated = silu(x), sum = x + bias, all [n].
MFIK_INLINE void begin_block(const float* x, const float* bias, int n, float* activated, float* sum) {
    for (int i = 0; i < n; ++i) {
        activated[i] = silu(x[i]);
        sum[i] = x[i] + bias[i];
    }
}

template <class Set>
MFIK_INLINE void evaluate_rows(const Layers& layers, const Buffers& buffers, int rows, float* u) {
    const Geometry& geometry = layers.geometry;
    const int wide = stride(layers.width), columns = padded(layers.width), features_step = stride(geometry.size);
    float *x = buffers.x, *activated = buffers.activated, *h = buffers.h, *sum = buffers.sum, *head = buffers.head;
    const auto bias = [](const Linear& layer) { return Rows{layer.bias.data(), 0}; };

    multiply<Set>(layers.input, rows, {buffers.features, features_step}, bias(layers.input), x, wide);
    for (const Block& block : layers.blocks) {
        for (int r = 0; r < rows; ++r)
            begin_block(x + r * wide, block.linear2.bias.data(), columns, activated + r * wide, sum + r * wide);
        multiply<Set>(block.linear1, rows, {activated, wide}, bias(block.linear1), h, wide);
        for (int r = 0; r < rows; ++r) silu(h + r * wide, columns);
        multiply<Set>(block.linear2, rows, {h, wide}, {sum, wide}, x, wide);
    }
    for (int r = 0; r < rows; ++r) silu(x + r * wide, columns);
    multiply<Set, kHeadPanel>(layers.head, rows, {x, wide}, bias(layers.head), head, kHeadPanel);
    const int dof = geometry.chain.dof;
    for (int r = 0; r < rows; ++r) {
        const float* step = buffers.features + r * features_step + geometry.size - dof;
        for (int j = 0; j < dof; ++j) u[r * dof + j] = step[j] + head[r * kHeadPanel + j];
    }
}

// One compilation per instruction set, chosen when a network is made.
void evaluate_baseline(const Layers& layers, const Buffers& buffers, int rows, float* u) {
    evaluate_rows<Baseline>(layers, buffers, rows, u);
}

#ifdef MFIK_X86
MFIK_TARGET_AVX2 void evaluate_avx2(const Layers& layers, const Buffers& buffers, int rows, float* u) {
    evaluate_rows<Avx2>(layers, buffers, rows, u);
}

MFIK_TARGET_AVX512 void evaluate_avx512(const Layers& layers, const Buffers& buffers, int rows, float* u) {
    evaluate_rows<Avx512>(layers, buffers, rows, u);
}
#endif

class NetworkV2 final : public Engine {
  public:
    NetworkV2(const Bundle& bundle, [[maybe_unused]] InstructionSet instructions)
        : layers_{Geometry(bundle.chain), bundle.config.width, {}, {}, {}} {
#ifdef MFIK_X86
        if (instructions == InstructionSet::kAvx2) evaluate_layers_ = evaluate_avx2;
        if (instructions == InstructionSet::kAvx512) evaluate_layers_ = evaluate_avx512;
#endif
#ifdef MFIK_HAS_X86_LEVELS
        if (instructions >= InstructionSet::kAvx2) features_ = features_of_one_ = avx2::features_of_rows;
        if (instructions == InstructionSet::kAvx512) features_ = avx512::features_of_rows;
#endif
        const NetworkConfig& config = bundle.config;
        layers_.input = pack_linear(bundle, "input", 0, layers_.geometry.size, kPanel, {0.0, 1.0});
        for (int i = 0; i < config.num_blocks; ++i) {
            const std::string name = "blocks." + std::to_string(i) + ".";
            layers_.blocks.push_back({pack_linear(bundle, name + "linear1", 0, config.width, kPanel),
                                      pack_linear(bundle, name + "linear2", 0, config.width, kPanel)});
        }
        layers_.head = pack_linear(bundle, "head", 0, config.width, kHeadPanel);
    }

    [[nodiscard]] std::size_t scratch_size(int rows) const noexcept override {
        return Buffers(layers_, std::min(rows, kMaxRows), nullptr).size;
    }

    void evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                  float* scratch) const noexcept override {
        const Buffers buffers(layers_, std::min(rows, kMaxRows), scratch);
        const int step = stride(layers_.geometry.size);
        const auto piece = [&](int count, const float* its_q, const float* its_poses, int its_num_poses, float* its_u) {
            FeaturesOfRows* const features = count == 1 ? features_of_one_ : features_;
            features(layers_.geometry, count, its_q, its_poses, its_num_poses, buffers.features, step);
            evaluate_layers_(layers_, buffers, count, its_u);
        };
        in_pieces(rows, layers_.geometry.chain.dof, q, poses, num_poses, u, piece);
    }

  private:
    FeaturesOfRows* features_ = baseline::features_of_rows;
    // The same bits. A single row takes 0.41 us on half of a register of AVX-512, 0.58 us on a whole one (Zen 4).
    FeaturesOfRows* features_of_one_ = baseline::features_of_rows;
    decltype(&evaluate_baseline) evaluate_layers_ = evaluate_baseline;
    Layers layers_;
};

}  // namespace

std::unique_ptr<const Engine> make_network_v2(const Bundle& bundle, InstructionSet instructions) {
    return std::make_unique<const NetworkV2>(bundle, instructions);
}

}  // namespace mfik
