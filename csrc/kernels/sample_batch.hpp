// One row of a training batch: gather a line in joint space, draw times on it, interpolate, weight.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/adaptive_weight.hpp"
#include "kernels/host_device.hpp"
#include "kernels/philox.hpp"

namespace mfik {

/// Lower bound of the time 1 - r that is left on a line: it divides. Also in mfik/ops/_reference.py.
constexpr double kMinRemaining = 1e-2;

template <typename T>
struct SampleBatchArgs {
    const T* __restrict__ q;                 // [rows, dof], state at time r
    const T* __restrict__ target_pose;       // [rows, 7]
    const T* __restrict__ q_target;          // [rows, dof], state at time 1
    const T* __restrict__ r;                 // [rows, 1]
    const std::int64_t* __restrict__ index;  // [batch], null: row i is line i
    T* __restrict__ q_out;                   // [batch, dof]
    T* __restrict__ target_pose_out;         // [batch, 7]
    T* __restrict__ q_target_out;            // [batch, dof]
    T* __restrict__ r_out;                   // [batch, 1]
    T* __restrict__ t_out;                   // [batch, 1]
    T* __restrict__ v_out;                   // [batch, dof]
    T* __restrict__ weight_out;              // [batch, 1]
    std::int64_t rows;
    std::int64_t batch;
    std::int64_t dof;
    std::uint64_t seed;
    std::uint64_t step;
    std::uint32_t rank;
    std::int64_t num_jvp;
    std::int64_t num_endpoint;
    T c;
    T p;
};

struct Times {
    float r;
    float t;
};

/// Times of row i of a batch. In float for every row type, so that float and double batches hold the same times.
MFIK_HOST_DEVICE inline Times draw_times(std::int64_t i, std::uint64_t seed, std::uint64_t step, std::uint32_t rank,
                                         std::int64_t num_jvp, std::int64_t num_endpoint) {
    if (i < num_endpoint) return {0.0f, 1.0f};
    constexpr float kScale = static_cast<float>(1.0 - kMinRemaining);
    const Philox4 random = philox4x32_10({{static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(step),
                                           static_cast<std::uint32_t>(step >> 32), rank}},
                                         seed);
    const float a = uniform24(random.x[0]) * kScale;
    if (i >= num_jvp) return {a, a};
    const float b = uniform24(random.x[1]) * kScale;
    return a < b ? Times{a, b} : Times{b, a};
}

/// Write row i of the batch. False when index[i] is out of range: the row then holds NaN, and nothing else is read.
template <typename T>
MFIK_HOST_DEVICE inline bool sample_row(const SampleBatchArgs<T>& args, std::int64_t i) {
    const Times times = draw_times(i, args.seed, args.step, args.rank, args.num_jvp, args.num_endpoint);
    args.r_out[i] = times.r;
    args.t_out[i] = times.t;
    T* q_out = args.q_out + i * args.dof;
    T* q_target_out = args.q_target_out + i * args.dof;
    T* v_out = args.v_out + i * args.dof;
    T* pose_out = args.target_pose_out + i * 7;

    const std::int64_t m = args.index == nullptr ? i : args.index[i];
    if (m < 0 || m >= args.rows) {
        const T nan = static_cast<T>(NAN);
        for (std::int64_t j = 0; j < args.dof; ++j) q_out[j] = q_target_out[j] = v_out[j] = nan;
        for (int k = 0; k < 7; ++k) pose_out[k] = nan;
        args.weight_out[i] = nan;
        return false;
    }
    const T* q = args.q + m * args.dof;
    const T* q_target = args.q_target + m * args.dof;
    const T* pose = args.target_pose + m * 7;

    const T r = args.r[m];
    // Written so that a NaN in r reaches the row.
    const T remaining = T(1) - r < T(kMinRemaining) ? T(kMinRemaining) : T(1) - r;
    const T elapsed = T(times.r) - r;
    T distance_sq = 0;
    for (std::int64_t j = 0; j < args.dof; ++j) {
        const T v = (q_target[j] - q[j]) / remaining;
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
    args.weight_out[i] = weight_of_distance(distance_sq, args.c, args.p);
    return true;
}

}  // namespace mfik
