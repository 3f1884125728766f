// Version 1 (mfik/model/v1/network.py): FiLM blocks on encoded joints and pose.
#include <algorithm>
#include <cmath>
#include <utility>

#include "solver/networks/layers.hpp"

namespace mfik {
namespace {

constexpr int kSums = 32;  // independent partial sums of a reduction
constexpr float kNormEpsilon = 1e-5f;

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
    NetworkConfig config;
    AlignedBuffer frequencies;
    Linear input_pose, input_q, condition, head;
    LayerNorm norm;
    std::vector<Block> blocks;
};

/// Scratch memory of one evaluation of up to kMaxRows rows; the distance of rows is stride() of what they hold.
struct Buffers {
    float *features, *condition, *pose_share, *x, *h, *normed, *film, *head;
    int features_step;
    std::size_t size;

    Buffers(const NetworkConfig& config, int rows, float* scratch);
};

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
    const int half = layers.config.encoding_dim / 2;
    for (int s = 0; s < count; ++s) {
        float* out = encoded + 2 * s * half;
        sincos(scalars[s], layers.frequencies.data(), half, out, out + half);
    }
}

template <class Set>
MFIK_INLINE void evaluate_rows(const Layers& layers, const Buffers& buffers, int rows, const float* q,
                               const float* poses, int num_poses, float* u) {
    const NetworkConfig& config = layers.config;
    const int width = config.width, wide = stride(width), film_step = stride(2 * width);
    const int features_step = buffers.features_step, condition_step = stride(config.cond_dim);
    float *features = buffers.features, *pose_share = buffers.pose_share, *condition = buffers.condition;
    float *x = buffers.x, *h = buffers.h, *normed = buffers.normed, *film = buffers.film, *head = buffers.head;
    const bool shared = num_poses == 1;

    // What depends on the pose alone.
    Rows input{poses, kPoseSize};
    if (config.encoding_dim > 0) {
        for (int r = 0; r < num_poses; ++r) {
            encode(layers, poses + r * kPoseSize, kPoseSize, features + r * features_step);
        }
        input = {features, features_step};
    }
    multiply<Set>(layers.input_pose, num_poses, input, {layers.input_pose.bias.data(), 0}, pose_share, wide);
    multiply<Set>(layers.condition, num_poses, {poses, kPoseSize}, {layers.condition.bias.data(), 0}, condition,
                  condition_step);
    for (int r = 0; r < num_poses; ++r) silu(condition + r * condition_step, config.cond_dim);

    input = {q, config.dof};
    if (config.encoding_dim > 0) {
        for (int r = 0; r < rows; ++r) encode(layers, q + r * config.dof, config.dof, features + r * features_step);
        input = {features, features_step};
    }
    multiply<Set>(layers.input_q, rows, input, {pose_share, shared ? 0 : wide}, x, wide);
    for (const Block& block : layers.blocks) {
        for (int r = 0; r < rows; ++r) layer_norm(block.norm1, x + r * wide, width, normed + r * wide);
        multiply<Set>(block.linear1, rows, {normed, wide}, {block.linear1.bias.data(), 0}, h, wide);
        for (int r = 0; r < rows; ++r) {
            silu(h + r * wide, width);
            layer_norm(block.norm2, h + r * wide, width, normed + r * wide);
        }
        multiply<Set>(block.linear2, rows, {normed, wide}, {block.linear2.bias.data(), 0}, h, wide);
        multiply<Set>(block.film, num_poses, {condition, condition_step}, {block.film.bias.data(), 0}, film, film_step);
        for (int r = 0; r < rows; ++r) {
            const float* scale = film + (shared ? 0 : r * film_step);
            add_film(x + r * wide, h + r * wide, scale, scale + width, width);
        }
    }
    for (int r = 0; r < rows; ++r) layer_norm(layers.norm, x + r * wide, width, normed + r * wide);
    multiply<Set, kHeadPanel>(layers.head, rows, {normed, wide}, {layers.head.bias.data(), 0}, head, kHeadPanel);
    for (int r = 0; r < rows; ++r)
        for (int j = 0; j < config.dof; ++j) u[r * config.dof + j] = head[r * kHeadPanel + j];
}

// One compilation per instruction set, chosen when a network is made.
void evaluate_baseline(const Layers& layers, const Buffers& buffers, int rows, const float* q, const float* poses,
                       int num_poses, float* u) {
    evaluate_rows<Baseline>(layers, buffers, rows, q, poses, num_poses, u);
}

#ifdef MFIK_X86
MFIK_TARGET_AVX2 void evaluate_avx2(const Layers& layers, const Buffers& buffers, int rows, const float* q,
                                    const float* poses, int num_poses, float* u) {
    evaluate_rows<Avx2>(layers, buffers, rows, q, poses, num_poses, u);
}

MFIK_TARGET_AVX512 void evaluate_avx512(const Layers& layers, const Buffers& buffers, int rows, const float* q,
                                        const float* poses, int num_poses, float* u) {
    evaluate_rows<Avx512>(layers, buffers, rows, q, poses, num_poses, u);
}
#endif

AlignedBuffer copy(const std::vector<float>& values) {
    AlignedBuffer buffer(values.size());
    std::copy(values.begin(), values.end(), buffer.data());
    return buffer;
}

LayerNorm copy_norm(const Bundle& bundle, const std::string& name) {
    return {copy(bundle.tensors.at(name + ".weight")), copy(bundle.tensors.at(name + ".bias"))};
}

Buffers::Buffers(const NetworkConfig& config, int rows, float* scratch) : size(0) {
    const auto take = [&](int step) {
        float* begin = scratch == nullptr ? nullptr : scratch + size;
        size += static_cast<std::size_t>(rows) * static_cast<std::size_t>(step);
        return begin;
    };
    features_step = stride(std::max(config.dof, kPoseSize) * config.encoding_dim);
    features = take(config.encoding_dim > 0 ? features_step : 0);
    condition = take(stride(config.cond_dim));
    pose_share = take(stride(config.width));
    x = take(stride(config.width));
    h = take(stride(config.width));
    normed = take(stride(config.width));
    film = take(stride(2 * config.width));
    head = take(kHeadPanel);
}

class NetworkV1 final : public Engine {
  public:
    NetworkV1(const Bundle& bundle, InstructionSet instructions);

    [[nodiscard]] std::size_t scratch_size(int rows) const noexcept override {
        return Buffers(layers_.config, std::min(rows, kMaxRows), nullptr).size;
    }

    /// With num_poses == 1, what depends on the pose alone is computed once for up to kMaxRows rows.
    void evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                  float* scratch) const noexcept override {
        const Buffers buffers(layers_.config, std::min(rows, kMaxRows), scratch);
        const auto piece = [&](auto... args) { evaluate_layers_(layers_, buffers, args...); };
        in_pieces(rows, layers_.config.dof, q, poses, num_poses, u, piece);
    }

  private:
    decltype(&evaluate_baseline) evaluate_layers_;
    Layers layers_;
};

NetworkV1::NetworkV1(const Bundle& bundle, [[maybe_unused]] InstructionSet instructions)
    : evaluate_layers_(evaluate_baseline) {
#ifdef MFIK_X86
    if (instructions == InstructionSet::kAvx2) evaluate_layers_ = evaluate_avx2;
    if (instructions == InstructionSet::kAvx512) evaluate_layers_ = evaluate_avx512;
#endif
    const NetworkConfig& config = bundle.config;
    layers_.config = config;
    std::vector<double> times{0.0, 1.0};  // r, t
    int features = 1;                     // of each input scalar
    if (config.encoding_dim > 0) {
        const std::vector<float>& frequencies = bundle.tensors.at("encoding.frequencies");
        layers_.frequencies = copy(frequencies);
        features = config.encoding_dim;
        times.clear();
        for (const float time : {0.0f, 1.0f}) {
            for (const float frequency : frequencies) times.push_back(std::sin(double{time * frequency}));
            for (const float frequency : frequencies) times.push_back(std::cos(double{time * frequency}));
        }
    }
    // Columns of the input layer: joints, pose, times.
    layers_.input_q = pack_linear(bundle, "input", 0, config.dof * features, kPanel);
    layers_.input_pose = pack_linear(bundle, "input", config.dof * features, kPoseSize * features, kPanel, times);
    layers_.condition = pack_linear(bundle, "condition", 0, kPoseSize, kPanel, {0.0, 1.0});
    for (int i = 0; i < config.num_blocks; ++i) {
        const std::string name = "blocks." + std::to_string(i) + ".";
        layers_.blocks.push_back({copy_norm(bundle, name + "norm1"), copy_norm(bundle, name + "norm2"),
                                  pack_linear(bundle, name + "linear1", 0, config.width, kPanel),
                                  pack_linear(bundle, name + "linear2", 0, config.width, kPanel),
                                  pack_linear(bundle, name + "film", 0, config.cond_dim, kPanel)});
    }
    layers_.norm = copy_norm(bundle, "norm");
    layers_.head = pack_linear(bundle, "head", 0, config.width, kHeadPanel);
}

}  // namespace

std::unique_ptr<const Engine> make_network_v1(const Bundle& bundle, InstructionSet instructions) {
    return std::make_unique<const NetworkV1>(bundle, instructions);
}

}  // namespace mfik
