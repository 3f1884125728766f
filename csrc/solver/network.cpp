#include "solver/network.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

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

/// Scratch memory of one evaluation of up to kMaxRows rows; the distance of rows is stride() of what they hold.
struct Buffers {
    float *features, *condition, *pose_share, *x, *h, *normed, *film, *head;
    int features_step;
    std::size_t size;

    Buffers(const NetworkConfig& config, int rows, float* scratch);
};

namespace {

constexpr int kPoseSize = 7;
constexpr int kPanel = 64;      // four AVX-512 accumulators for a single row hide the latency of multiply-add
constexpr int kHeadPanel = 32;  // the head has at most kMaxJoints outputs
constexpr int kMaxRows = 64;    // evaluated together: enough to make streaming the weights a small part of the time
constexpr int kLanes = 32;      // independent partial sums of a reduction
constexpr float kNormEpsilon = 1e-5f;
static_assert(kHeadPanel >= kMaxJoints);

/// Floats from one row of a buffer to the next, for n a row: whole panels, and a cache line more, as rows 4096 bytes
/// apart would compete for the same few places in the cache.
MFIK_INLINE int stride(int n) {
    return (n + kPanel - 1) / kPanel * kPanel + 16;
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

/// Pack `in` columns of a linear layer's weights [out, columns], from column `begin` on, into panels. With `constants`,
/// what the following columns multiply, their share becomes part of the bias.
Linear pack_linear(const Bundle& bundle, const std::string& name, int begin, int in, int panel,
                   const std::vector<double>& constants = {}) {
    const std::vector<float>& weight = bundle.tensors.at(name + ".weight");
    const std::vector<float>& bias = bundle.tensors.at(name + ".bias");
    const std::size_t out = bias.size(), columns = weight.size() / out;
    const std::size_t inputs = static_cast<std::size_t>(in), lanes = static_cast<std::size_t>(panel);
    const std::size_t padded = (out + lanes - 1) / lanes * lanes;
    Linear layer{in, static_cast<int>(out), AlignedBuffer(padded * inputs), AlignedBuffer(padded)};
    for (std::size_t o = 0; o < out; ++o) {
        const float* row = weight.data() + o * columns + begin;
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

InstructionSet best_instruction_set() noexcept {
#ifdef MFIK_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        return avx512 ? InstructionSet::kAvx512 : InstructionSet::kAvx2;
    }
#endif
    return InstructionSet::kBaseline;
}

Network::Network(const Bundle& bundle, [[maybe_unused]] InstructionSet instructions)
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

std::size_t Network::scratch_size(int rows) const noexcept {
    return Buffers(layers_.config, std::min(rows, kMaxRows), nullptr).size;
}

void Network::evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                       float* scratch) const noexcept {
    const Buffers buffers(layers_.config, std::min(rows, kMaxRows), scratch);
    for (int begin = 0; begin < rows; begin += kMaxRows) {
        const int count = std::min(rows - begin, kMaxRows);
        const std::ptrdiff_t offset = static_cast<std::ptrdiff_t>(begin) * layers_.config.dof;
        if (num_poses == 1) {
            evaluate_layers_(layers_, buffers, count, q + offset, poses, 1, u + offset);
        } else {
            const float* own = poses + static_cast<std::ptrdiff_t>(begin) * kPoseSize;
            evaluate_layers_(layers_, buffers, count, q + offset, own, count, u + offset);
        }
    }
}

}  // namespace mfik
