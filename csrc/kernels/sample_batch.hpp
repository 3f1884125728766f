// One row of a training batch: a line in joint space, gathered or drawn; times on it, interpolation, weight.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/adaptive_weight.hpp"
#include "kernels/chain.hpp"
#include "kernels/inline.hpp"
#include "kernels/philox.hpp"
#include "kernels/turns.hpp"

namespace mfik {

/// Lower bound of the time 1 - r that is left on a line: it divides. Also in mfik/ops/_reference.py.
constexpr double kMinRemaining = 1e-2;

/// Joint j is drawn with the key seed ^ (kJointStream * (j + 1) mod 2^64), the times with the seed itself. Also in
/// mfik/ops/_reference.py.
constexpr std::uint64_t kJointStream = 0x9E3779B97F4A7C15ull;

template <typename T>
struct BatchOut {
    T* __restrict__ q;            // [batch, dof]
    T* __restrict__ target_pose;  // [batch, 7]
    T* __restrict__ q_target;     // [batch, dof]
    T* __restrict__ r;            // [batch, 1]
    T* __restrict__ t;            // [batch, 1]
    T* __restrict__ v;            // [batch, dof]
    T* __restrict__ weight;       // [batch, 1]
};

/// What the random numbers of a batch, and with them its times, are a function of.
struct BatchKey {
    std::uint64_t seed;
    const std::int64_t* step;  // [1], in the memory of the device: a captured graph reads the step of its replay
    std::uint32_t rank;
    std::int64_t num_jvp;
    std::int64_t num_endpoint;
};

template <typename T>
struct SampleBatchArgs {
    const T* __restrict__ q;                 // [rows, dof], state at time r
    const T* __restrict__ target_pose;       // [rows, 7]
    const T* __restrict__ q_target;          // [rows, dof], state at time 1
    const T* __restrict__ r;                 // [rows, 1]
    const std::int64_t* __restrict__ index;  // [batch], null: row i is line i
    BatchOut<T> out;
    BatchKey key;
    std::int64_t rows;
    std::int64_t batch;
    std::int64_t dof;
    T c;
    T p;
};

template <typename T>
struct DrawBatchArgs {
    BatchOut<T> out;
    BatchKey key;
    std::int64_t batch;
    T c;
    T p;
};

struct Times {
    float r;
    float t;
};

MFIK_INLINE Philox4 draw_words(std::int64_t i, std::uint64_t step, std::uint32_t rank, std::uint64_t key) {
    return philox4x32_10(
        {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32), rank},
        key);
}

/// Times of row i of a batch. In float for every row type, so that float and double batches hold the same times.
/// Without branches: the loop over rows vectorises.
MFIK_INLINE Times draw_times(std::int64_t i, const BatchKey& key, std::uint64_t step) {
    constexpr float kScale = static_cast<float>(1.0 - kMinRemaining);
    const Philox4 random = draw_words(i, step, key.rank, key.seed);
    const float a = uniform24(random.x0) * kScale, drawn = uniform24(random.x1) * kScale;
    const float b = i < key.num_jvp ? drawn : a;
    const float low = a < b ? a : b, high = a < b ? b : a;
    return {i < key.num_endpoint ? 0.0f : low, i < key.num_endpoint ? 1.0f : high};
}

/// Write row i of the batch but for its weight. Returns ||q_target - q||^2, NaN when index[i] is out of range: the row
/// then holds NaN, and nothing else is read.
template <int kDof, typename T>
MFIK_INLINE T sample_row(const SampleBatchArgs<T>& args, std::int64_t i, const Times& times, bool* ok) {
    const std::int64_t dof = kDof > 0 ? kDof : args.dof;
    args.out.r[i] = times.r;
    args.out.t[i] = times.t;
    T* q_out = args.out.q + i * dof;
    T* q_target_out = args.out.q_target + i * dof;
    T* v_out = args.out.v + i * dof;
    T* pose_out = args.out.target_pose + i * 7;

    const std::int64_t m = args.index == nullptr ? i : args.index[i];
    *ok = m >= 0 && m < args.rows;
    if (!*ok) {
        const T nan = static_cast<T>(NAN);
        for (std::int64_t j = 0; j < dof; ++j) q_out[j] = q_target_out[j] = v_out[j] = nan;
        for (int k = 0; k < 7; ++k) pose_out[k] = nan;
        return nan;
    }
    const T* q = args.q + m * dof;
    const T* q_target = args.q_target + m * dof;
    const T* pose = args.target_pose + m * 7;

    const T r = args.r[m];
    // Written so that a NaN in r reaches the row.
    const T per_remaining = T(1) / (T(1) - r < T(kMinRemaining) ? T(kMinRemaining) : T(1) - r);
    const T elapsed = T(times.r) - r;
    T distance_sq = 0;
    for (std::int64_t j = 0; j < dof; ++j) {
        const T v = (q_target[j] - q[j]) * per_remaining;
        const T state = q[j] + v * elapsed;
        const T d = q_target[j] - state;
        distance_sq += d * d;
        q_out[j] = state;
        q_target_out[j] = q_target[j];
        v_out[j] = v;
    }
    const T sign = pose[3] < T(0) ? T(-1) : T(1);
    for (int k = 0; k < 3; ++k) pose_out[k] = pose[k];
    for (int k = 3; k < 7; ++k) pose_out[k] = sign * pose[k];
    return distance_sq;
}

/// Uniform within [lower, upper]. The product is exact in double (25 and 24 bits), so that a fused multiply-add changes
/// nothing and every device draws the same joint.
template <typename T>
MFIK_INLINE T draw_joint(std::uint32_t word, double lower, double upper) {
    const double share = (static_cast<double>(word >> 8) + 0.5) * 0x1p-24;
    const T drawn = static_cast<T>(lower + static_cast<double>(static_cast<float>(upper - lower)) * share);
    if (drawn < lower) return std::nextafter(drawn, static_cast<T>(INFINITY));
    if (drawn > upper) return std::nextafter(drawn, static_cast<T>(-INFINITY));
    return drawn;
}

/// Draw row i of a batch: reference and solution uniform within the limits and independent, the solution in its turn
/// nearest to the reference, its pose by forward kinematics in double.
template <typename T>
MFIK_INLINE void draw_row(const Chain& chain, const DrawBatchArgs<T>& args, std::int64_t i) {
    const std::uint64_t step = static_cast<std::uint64_t>(*args.key.step);
    const Times times = draw_times(i, args.key, step);
    double label[kMaxJoints], pose[7];
    T distance_sq = 0;
    for (int j = 0; j < chain.dof; ++j) {
        const Philox4 random = draw_words(i, step, args.key.rank, args.key.seed ^ (kJointStream * (j + 1)));
        const T q = draw_joint<T>(random.x0, chain.lower[j], chain.upper[j]);
        const T drawn = draw_joint<T>(random.x1, chain.lower[j], chain.upper[j]);
        const T q_target = static_cast<T>(nearest_turn(chain, j, drawn, q));
        label[j] = q_target;
        const T v = q_target - q, state = q + v * T(times.r), d = q_target - state;
        distance_sq += d * d;
        args.out.q[i * chain.dof + j] = state;
        args.out.q_target[i * chain.dof + j] = q_target;
        args.out.v[i * chain.dof + j] = v;
    }
    to_pose(forward(chain, label), pose);
    for (int k = 0; k < 7; ++k) args.out.target_pose[i * 7 + k] = static_cast<T>(pose[k]);
    args.out.r[i] = times.r;
    args.out.t[i] = times.t;
    args.out.weight[i] = weight_of_distance(distance_sq, args.c, args.p);
}

}  // namespace mfik
