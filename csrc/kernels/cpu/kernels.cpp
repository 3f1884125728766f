// The batched ops on the CPU: rows spread over threads, each part by the kernel of the processor's instruction set.
#include "kernels/kernels.hpp"

#include <algorithm>
#include <atomic>
#include <type_traits>

#include "kernels/cpu/parallel_for.hpp"
#include "kernels/cpu/row_kernels.hpp"

namespace mfik::cpu {
namespace {

// Rows that are worth a thread, which costs some 20 us to start.
constexpr std::int64_t kWeightGrain = 16384;  // at some 3 ns a row
constexpr std::int64_t kSampleGrain = 4096;   // 20 ns
constexpr std::int64_t kDrawGrain = 512;      // 500 ns
constexpr std::int64_t kLossGrain = 8192;     // 5 to 10 ns
constexpr std::int64_t kFkGrain = 4096;       // 30 ns
constexpr std::int64_t kRefineGrain = 64;     // 1 us
constexpr std::int64_t kSolveGrain = 64;      // 10 us
constexpr std::int64_t kGeometryGrain = 256;  // 300 ns to 1 us

template <class T>
const RowKernelsOf<T>& rows_of() {
    if constexpr (std::is_same_v<T, float>)
        return kernels<RowKernels>().float32;
    else
        return kernels<RowKernels>().float64;
}

}  // namespace

template <class T>
void adaptive_weight(const AdaptiveWeightArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().adaptive_weight;
    parallel_for(args.n, kWeightGrain, max_threads, [&](auto begin, auto end) { rows(args, begin, end); });
}

template <class T>
std::int64_t sample_batch(const SampleBatchArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().sample_batch;
    std::atomic<std::int64_t> first_bad{args.batch};
    parallel_for(args.batch, kSampleGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t bad = rows(args, begin, end);
        if (bad == end) return;
        std::int64_t seen = first_bad.load();
        while (bad < seen && !first_bad.compare_exchange_weak(seen, bad)) {
        }
    });
    return first_bad == args.batch ? -1 : first_bad.load();
}

template <class T>
void draw_batch(const Chain& chain, const DrawBatchArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().draw_batch;
    parallel_for(args.batch, kDrawGrain, max_threads, [&](auto begin, auto end) { rows(chain, args, begin, end); });
}

template <class T>
void weighted_residual_loss(const WeightedResidualArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().weighted_residual_loss;
    parallel_for(args.n, kLossGrain, max_threads, [&](auto begin, auto end) { rows(args, begin, end); });
}

template <class T>
void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().weighted_residual_loss_backward;
    parallel_for(args.n, kLossGrain, max_threads, [&](auto begin, auto end) { rows(args, begin, end); });
}

template <class T>
void fk(const Chain& chain, const FkArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().fk;
    parallel_for(args.n, kFkGrain, max_threads, [&](auto begin, auto end) { rows(chain, args, begin, end); });
}

template <class T>
void jacobian(const Chain& chain, const JacobianArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().jacobian;
    parallel_for(args.n, kFkGrain, max_threads, [&](auto begin, auto end) { rows(chain, args, begin, end); });
}

template <class T>
void fk_error(const Chain& chain, const FkErrorArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().fk_error;
    parallel_for(args.n, kFkGrain, max_threads, [&](auto begin, auto end) { rows(chain, args, begin, end); });
}

template <class T>
void refine(const Chain& chain, const RefineArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().refine;
    parallel_for(args.n, kRefineGrain, max_threads, [&](auto begin, auto end) { rows(chain, args, begin, end); });
}

template <class T>
void solve(const Chain& chain, const SolveArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().solve;
    parallel_for(args.n, kSolveGrain, max_threads, [&](auto begin, auto end) { rows(chain, args, begin, end); });
}

template <class T>
void geometry(const Geometry& geometry, const GeometryArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().geometry;
    parallel_for(args.n, kGeometryGrain, max_threads, [&](auto begin, auto end) { rows(geometry, args, begin, end); });
}

template <class T>
void geometry_backward(const Geometry& geometry, const GeometryBackwardArgs<T>& args, int max_threads) {
    const auto rows = rows_of<T>().geometry_backward;
    parallel_for(args.n, kGeometryGrain, max_threads, [&](auto begin, auto end) { rows(geometry, args, begin, end); });
}

#define MFIK_INSTANTIATE(T)                                                                     \
    template void adaptive_weight(const AdaptiveWeightArgs<T>&, int);                           \
    template std::int64_t sample_batch(const SampleBatchArgs<T>&, int);                         \
    template void draw_batch(const Chain&, const DrawBatchArgs<T>&, int);                       \
    template void weighted_residual_loss(const WeightedResidualArgs<T>&, int);                  \
    template void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<T>&, int); \
    template void fk(const Chain&, const FkArgs<T>&, int);                                      \
    template void jacobian(const Chain&, const JacobianArgs<T>&, int);                          \
    template void fk_error(const Chain&, const FkErrorArgs<T>&, int);                           \
    template void refine(const Chain&, const RefineArgs<T>&, int);                              \
    template void solve(const Chain&, const SolveArgs<T>&, int);                                \
    template void geometry(const Geometry&, const GeometryArgs<T>&, int);                       \
    template void geometry_backward(const Geometry&, const GeometryBackwardArgs<T>&, int)
MFIK_INSTANTIATE(float);
MFIK_INSTANTIATE(double);

}  // namespace mfik::cpu
