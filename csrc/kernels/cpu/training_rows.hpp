// Rows of training batches and losses. For row_kernels.cpp alone.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/row_kernels.hpp"
#include "kernels/cpu/weigh.hpp"

namespace mfik::cpu {
namespace {

constexpr std::int64_t kTile = 128;
constexpr std::int64_t kAhead = 24;  // rows whose data is fetched before they are read: shuffled rows miss every cache

/// Start to load a line of the data, both cache lines where it may lie across two. Any address may be asked for.
template <typename T>
MFIK_INLINE void prefetch_line(const SampleBatchArgs<T>& args, std::int64_t m) {
#if defined(__GNUC__) || defined(__clang__)
    const T* const starts[3] = {args.q + m * args.dof, args.q_target + m * args.dof, args.target_pose + m * 7};
    const std::int64_t sizes[3] = {args.dof, args.dof, 7};
    for (int k = 0; k < 3; ++k) {
        __builtin_prefetch(starts[k]);
        __builtin_prefetch(starts[k] + sizes[k] - 1);
    }
    __builtin_prefetch(args.r + m);
#endif
}

/// Eight numbers, which a row of up to as many joints, or a pose, is read and written as. What lies behind the row is
/// read and overwritten with it.
template <typename T>
struct WideRow;
template <>
struct WideRow<float> {
    using Type = float __attribute__((vector_size(32)));
};
template <>
struct WideRow<double> {
    using Type = double __attribute__((vector_size(64)));
};
constexpr int kWide = 8;

template <typename T>
MFIK_INLINE typename WideRow<T>::Type load_wide(const T* from) {
    typename WideRow<T>::Type row;
    std::memcpy(&row, from, sizeof row);
    return row;
}

template <typename T>
MFIK_INLINE void store_wide(const typename WideRow<T>::Type& row, T* to) {
    std::memcpy(to, &row, sizeof row);
}

/// `sample_row` but for its times, of row i and line m, neither of them the last one of its array.
template <int kDof, typename T>
MFIK_INLINE T sample_wide_row(const SampleBatchArgs<T>& args, std::int64_t i, std::int64_t m, const Times& times) {
    using Wide = typename WideRow<T>::Type;
    const Wide q = load_wide(args.q + m * kDof), q_target = load_wide(args.q_target + m * kDof);
    const Wide pose = load_wide(args.target_pose + m * 7);
    const T r = args.r[m];
    const T per_remaining = T(1) / (T(1) - r < T(kMinRemaining) ? T(kMinRemaining) : T(1) - r);
    const Wide v = (q_target - q) * per_remaining;
    const Wide state = q + v * (T(times.r) - r);
    const T sign = pose[3] < T(0) ? T(-1) : T(1);
    store_wide(state, args.out.q + i * kDof);
    store_wide(q_target, args.out.q_target + i * kDof);
    store_wide(v, args.out.v + i * kDof);
    store_wide(pose * Wide{1, 1, 1, sign, sign, sign, sign, 1}, args.out.target_pose + i * 7);
    const Wide d = q_target - state, squared = d * d;
    T distance_sq = (squared[0] + squared[1]) + (squared[2] + squared[3]) + (squared[4] + squared[5]);
    for (int j = 6; j < kDof; ++j) distance_sq += squared[j];
    return distance_sq;
}

/// Rows [begin, end), a tile at a time: random numbers and weights in loops that vectorise, around the gather that does
/// not. Returns the first row whose index is out of range, `end` when there is none.
template <int kDof, typename T>
MFIK_INLINE std::int64_t sample_rows(const SampleBatchArgs<T>& args, std::int64_t begin, std::int64_t end) {
    const std::uint64_t step = static_cast<std::uint64_t>(*args.key.step);
    const BatchKey key = args.key;
    float r[kTile], t[kTile];
    T distance_sq[kTile];
    for (std::int64_t first = begin; first < end; first += kTile) {
        const std::int64_t count = kTile < end - first ? kTile : end - first;
        for (std::int64_t k = 0; k < count; ++k) {
            const Times times = draw_times(first + k, key, step);
            r[k] = times.r;
            t[k] = times.t;
        }
        for (std::int64_t k = 0; k < count; ++k) {
            if (args.index != nullptr && first + k + kAhead < end) prefetch_line(args, args.index[first + k + kAhead]);
            const std::int64_t i = first + k, m = args.index == nullptr ? i : args.index[i];
            if constexpr (kDof >= 6 && kDof <= kWide) {
                if (m >= 0 && m + 1 < args.rows && i + 1 < end) {
                    distance_sq[k] = sample_wide_row<kDof>(args, i, m, {r[k], t[k]});
                    continue;
                }
            }
            bool ok = true;
            distance_sq[k] = sample_row<kDof>(args, i, {r[k], t[k]}, &ok);
            if (!ok) return i;
        }
        for (std::int64_t k = 0; k < count; ++k) {
            args.out.r[first + k] = r[k];
            args.out.t[first + k] = t[k];
        }
        weigh(distance_sq, args.out.weight + first, count, args.c, args.p);
    }
    return end;
}

template <int kDof, class T>
MFIK_INLINE void weight_rows(const AdaptiveWeightArgs<T>& args, std::int64_t begin, std::int64_t end) {
    T distance_sq[kTile];
    for (std::int64_t first = begin; first < end; first += kTile) {
        const std::int64_t count = kTile < end - first ? kTile : end - first;
        for (std::int64_t k = 0; k < count; ++k) distance_sq[k] = row_distance_sq<kDof>(args, first + k);
        weigh(distance_sq, args.weight + first, count, args.c, args.p);
    }
}

template <int kDof, class T>
MFIK_INLINE void loss_rows(const WeightedResidualArgs<T>& args, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) weighted_residual_row<kDof>(args, i);
}

template <int kDof, class T>
MFIK_INLINE void loss_backward_rows(const WeightedResidualBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) weighted_residual_backward_row<kDof>(args, i);
}

}  // namespace
}  // namespace mfik::cpu
