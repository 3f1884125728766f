#include "solver/network.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

// One compilation per instruction set, chosen when the library is loaded (CMake finds out whether the toolchain can).
#ifdef MFIK_HAS_TARGET_CLONES
#define MFIK_TARGET_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MFIK_TARGET_CLONES
#endif
// Helpers must be compiled as part of each clone.
#if defined(__GNUC__) || defined(__clang__)
#define MFIK_INLINE inline __attribute__((always_inline))
#else
#define MFIK_INLINE inline
#endif

namespace mfik {
namespace {

constexpr int kPoseSize = 7;
constexpr int kPanel = 32;      // two AVX-512 registers; twice that with the two accumulators of gemv
constexpr int kHeadPanel = 16;  // the head has at most kMaxJoints outputs
constexpr int kLanes = 16;      // independent partial sums of a reduction
constexpr float kNormEpsilon = 1e-5f;
static_assert(kHeadPanel >= kMaxJoints);

MFIK_INLINE int round_up(int n) {
    return (n + kPanel - 1) / kPanel * kPanel;
}

/// y [round_up(out)] = W x + b. kSplit accumulators over the inputs hide the latency of multiply-add.
template <int kWidth, int kSplit>
MFIK_INLINE void gemv(const Linear& layer, const float* x, float* y) {
    const float* w = layer.weight.data();
    const float* bias = layer.bias.data();
    for (int begin = 0; begin < layer.out; begin += kWidth) {
        float sum[kSplit][kWidth] = {};
        int i = 0;
        for (; i + kSplit <= layer.in; i += kSplit) {
            for (int s = 0; s < kSplit; ++s)
                for (int k = 0; k < kWidth; ++k) sum[s][k] += x[i + s] * w[s * kWidth + k];
            w += kSplit * kWidth;
        }
        for (; i < layer.in; ++i, w += kWidth)
            for (int k = 0; k < kWidth; ++k) sum[0][k] += x[i] * w[k];
        for (int k = 0; k < kWidth; ++k) {
            float total = bias[begin + k];
            for (int s = 0; s < kSplit; ++s) total += sum[s][k];
            y[begin + k] = total;
        }
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
    float lanes[kLanes] = {};
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (int k = 0; k < kLanes; ++k) {
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

/// Scratch memory of one evaluation; sizes are rounded up to whole panels.
struct Buffers {
    float *features, *condition, *x, *h, *normed, *film, *head;
    std::size_t size;

    Buffers(const NetworkConfig& config, float* scratch) : size(0) {
        const auto take = [&](int n) {
            float* begin = scratch == nullptr ? nullptr : scratch + size;
            size += static_cast<std::size_t>(round_up(n));
            return begin;
        };
        features = take(config.num_features());
        condition = take(config.cond_dim);
        x = take(config.width);
        h = take(config.width);
        normed = take(config.width);
        film = take(2 * config.width);
        head = take(kHeadPanel);
    }
};

MFIK_TARGET_CLONES void evaluate_layers(const Layers& layers, const Buffers& buffers, const float* input) {
    const NetworkConfig& config = layers.config;
    const int width = config.width, scalars = config.dof + kPoseSize;
    const auto [features, condition, x, h, normed, film, head, size] = buffers;

    const float* first = input;
    if (config.encoding_dim > 0) {
        const int half = config.encoding_dim / 2;
        for (int s = 0; s < scalars; ++s) {
            float* out = features + s * config.encoding_dim;
            sincos(input[s], layers.frequencies.data(), half, out, out + half);
        }
        first = features;
    }
    gemv<kPanel, 2>(layers.input, first, x);
    gemv<kPanel, 2>(layers.condition, input + config.dof, condition);
    silu(condition, config.cond_dim);
    for (const Block& block : layers.blocks) {
        layer_norm(block.norm1, x, width, normed);
        gemv<kPanel, 2>(block.linear1, normed, h);
        silu(h, width);
        layer_norm(block.norm2, h, width, normed);
        gemv<kPanel, 2>(block.linear2, normed, h);
        gemv<kPanel, 2>(block.film, condition, film);
        for (int i = 0; i < width; ++i) x[i] += silu(h[i] * (1.0f + film[i]) + film[width + i]);
    }
    layer_norm(layers.norm, x, width, normed);
    gemv<kHeadPanel, 4>(layers.head, normed, head);
}

AlignedBuffer copy(const std::vector<float>& values) {
    AlignedBuffer buffer(values.size());
    std::copy(values.begin(), values.end(), buffer.data());
    return buffer;
}

/// Pack a linear layer's weights [out, columns] into panels. Only the first `in` columns stay inputs; the others
/// belong to `constants` [columns - in] and become part of the bias.
Linear pack_linear(const Bundle& bundle, const std::string& name, int in, int panel,
                   const std::vector<double>& constants = {}) {
    const std::vector<float>& weight = bundle.tensors.at(name + ".weight");
    const std::vector<float>& bias = bundle.tensors.at(name + ".bias");
    const std::size_t out = bias.size(), columns = weight.size() / out;
    const std::size_t inputs = static_cast<std::size_t>(in), lanes = static_cast<std::size_t>(panel);
    const std::size_t padded = (out + lanes - 1) / lanes * lanes;
    Linear layer{in, static_cast<int>(out), AlignedBuffer(padded * inputs), AlignedBuffer(padded)};
    for (std::size_t o = 0; o < out; ++o) {
        const float* row = weight.data() + o * columns;
        float* packed = layer.weight.data() + o / lanes * lanes * inputs + o % lanes;
        for (std::size_t i = 0; i < inputs; ++i) packed[i * lanes] = row[i];
        double constant = bias[o];
        for (std::size_t i = 0; i < constants.size(); ++i) constant += constants[i] * row[inputs + i];
        layer.bias.data()[o] = static_cast<float>(constant);
    }
    return layer;
}

LayerNorm copy_norm(const Bundle& bundle, const std::string& name) {
    return {copy(bundle.tensors.at(name + ".weight")), copy(bundle.tensors.at(name + ".bias"))};
}

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t size)
    : data_(static_cast<float*>(::operator new[](size * sizeof(float), std::align_val_t{kAlignment}))) {
    std::fill_n(data_.get(), size, 0.0f);
}

Network::Network(const Bundle& bundle) {
    const NetworkConfig& config = bundle.config;
    layers_.config = config;
    std::vector<double> times{0.0, 1.0};  // r, t
    if (config.encoding_dim > 0) {
        const std::vector<float>& frequencies = bundle.tensors.at("encoding.frequencies");
        layers_.frequencies = copy(frequencies);
        times.clear();
        for (const float time : {0.0f, 1.0f}) {
            for (const float frequency : frequencies) times.push_back(std::sin(double{time * frequency}));
            for (const float frequency : frequencies) times.push_back(std::cos(double{time * frequency}));
        }
    }
    const int features = config.num_features() - static_cast<int>(times.size());
    layers_.input = pack_linear(bundle, "input", features, kPanel, times);
    layers_.condition = pack_linear(bundle, "condition", kPoseSize, kPanel, {0.0, 1.0});
    for (int i = 0; i < config.num_blocks; ++i) {
        const std::string name = "blocks." + std::to_string(i) + ".";
        layers_.blocks.push_back({copy_norm(bundle, name + "norm1"), copy_norm(bundle, name + "norm2"),
                                  pack_linear(bundle, name + "linear1", config.width, kPanel),
                                  pack_linear(bundle, name + "linear2", config.width, kPanel),
                                  pack_linear(bundle, name + "film", config.cond_dim, kPanel)});
    }
    layers_.norm = copy_norm(bundle, "norm");
    layers_.head = pack_linear(bundle, "head", config.width, kHeadPanel);
}

std::size_t Network::scratch_size(int) const noexcept {
    return Buffers(layers_.config, nullptr).size;
}

void Network::evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                       float* scratch) const noexcept {
    const Buffers buffers(layers_.config, scratch);
    const int dof = layers_.config.dof;
    float input[kMaxJoints + kPoseSize];
    for (int row = 0; row < rows; ++row) {
        std::copy_n(q + row * dof, dof, input);
        std::copy_n(poses + (num_poses == 1 ? 0 : row * kPoseSize), kPoseSize, input + dof);
        evaluate_layers(layers_, buffers, input);
        std::copy_n(buffers.head, dof, u + row * dof);
    }
}

}  // namespace mfik
