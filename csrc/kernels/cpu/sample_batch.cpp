#include "kernels/sample_batch.hpp"

#include <algorithm>
#include <atomic>

#include "kernels/cpu/parallel_for.hpp"
#include "kernels/cpu/target_clones.hpp"
#include "kernels/cpu/weigh.hpp"
#include "kernels/kernels.hpp"

namespace mfik::cpu {
namespace {

constexpr std::int64_t kSampleGrain = 4096;  // rows a thread, at some 20 ns each
constexpr std::int64_t kDrawGrain = 512;     // at some 500 ns each
constexpr std::int64_t kTile = 128;
constexpr std::int64_t kAhead = 24;  // rows whose data is fetched before they are read: shuffled rows miss every cache

/// Start to load a line of the data, both cache lines where it may lie across two. Any address may be asked for.
template <typename T>
MFIK_HOST_DEVICE_INLINE void prefetch_line(const SampleBatchArgs<T>& args, std::int64_t m) {
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

/// Rows [begin, end), a tile at a time: random numbers and weights in loops that vectorise, around the gather that does
/// not. Returns the first row whose index is out of range, `end` when there is none.
template <int kDof, typename T>
MFIK_HOST_DEVICE_INLINE std::int64_t rows(const SampleBatchArgs<T>& args, std::int64_t begin, std::int64_t end) {
    const std::uint64_t step = static_cast<std::uint64_t>(*args.key.step);
    const BatchKey key = args.key;
    float r[kTile], t[kTile];
    T distance_sq[kTile];
    for (std::int64_t first = begin; first < end; first += kTile) {
        const std::int64_t count = std::min(kTile, end - first);
        for (std::int64_t k = 0; k < count; ++k) {
            const Times times = draw_times(first + k, key, step);
            r[k] = times.r;
            t[k] = times.t;
        }
        for (std::int64_t k = 0; k < count; ++k) {
            if (args.index != nullptr && first + k + kAhead < end) prefetch_line(args, args.index[first + k + kAhead]);
            bool ok;
            distance_sq[k] = sample_row<kDof>(args, first + k, {r[k], t[k]}, &ok);
            if (!ok) return first + k;
        }
        weigh(distance_sq, args.out.weight + first, count, args.c, args.p);
    }
    return end;
}

template <typename T>
MFIK_HOST_DEVICE_INLINE std::int64_t any_dof(const SampleBatchArgs<T>& args, std::int64_t begin, std::int64_t end) {
    if (args.dof == 7) return rows<7>(args, begin, end);
    if (args.dof == 6) return rows<6>(args, begin, end);
    return rows<0>(args, begin, end);
}

MFIK_TARGET_CLONES std::int64_t run(const SampleBatchArgs<float>& args, std::int64_t begin, std::int64_t end) {
    return any_dof(args, begin, end);
}

MFIK_TARGET_CLONES std::int64_t run(const SampleBatchArgs<double>& args, std::int64_t begin, std::int64_t end) {
    return any_dof(args, begin, end);
}

}  // namespace

template <typename T>
std::int64_t sample_batch(const SampleBatchArgs<T>& args, int max_threads) {
    std::atomic<std::int64_t> first_bad{args.batch};
    parallel_for(args.batch, kSampleGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t bad = run(args, begin, end);
        if (bad == end) return;
        std::int64_t seen = first_bad.load();
        while (bad < seen && !first_bad.compare_exchange_weak(seen, bad)) {
        }
    });
    return first_bad == args.batch ? -1 : first_bad.load();
}

template <typename T>
void draw_batch(const Chain& chain, const DrawBatchArgs<T>& args, int max_threads) {
    parallel_for(args.batch, kDrawGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) draw_row(chain, args, i);
    });
}

template std::int64_t sample_batch(const SampleBatchArgs<float>&, int);
template std::int64_t sample_batch(const SampleBatchArgs<double>&, int);
template void draw_batch(const Chain&, const DrawBatchArgs<float>&, int);
template void draw_batch(const Chain&, const DrawBatchArgs<double>&, int);

}  // namespace mfik::cpu
