#include "kernels/weighted_residual_loss.hpp"

#include "kernels/cpu/parallel_for.hpp"
#include "kernels/cpu/target_clones.hpp"
#include "kernels/kernels.hpp"

namespace mfik::cpu {
namespace {

constexpr std::int64_t kGrain = 8192;  // rows a thread, at some 5 to 10 ns each

template <int kDof, typename T>
MFIK_HOST_DEVICE_INLINE void rows(const WeightedResidualArgs<T>& args, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) weighted_residual_row<kDof>(args, i);
}

template <int kDof, typename T>
MFIK_HOST_DEVICE_INLINE void rows(const WeightedResidualBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) weighted_residual_backward_row<kDof>(args, i);
}

template <typename Args>
MFIK_HOST_DEVICE_INLINE void any_dof(const Args& args, std::int64_t begin, std::int64_t end) {
    if (args.dof == 7) return rows<7>(args, begin, end);
    if (args.dof == 6) return rows<6>(args, begin, end);
    rows<0>(args, begin, end);
}

MFIK_TARGET_CLONES void run(const WeightedResidualArgs<float>& args, std::int64_t begin, std::int64_t end) {
    any_dof(args, begin, end);
}

MFIK_TARGET_CLONES void run(const WeightedResidualArgs<double>& args, std::int64_t begin, std::int64_t end) {
    any_dof(args, begin, end);
}

MFIK_TARGET_CLONES void run(const WeightedResidualBackwardArgs<float>& args, std::int64_t begin, std::int64_t end) {
    any_dof(args, begin, end);
}

MFIK_TARGET_CLONES void run(const WeightedResidualBackwardArgs<double>& args, std::int64_t begin, std::int64_t end) {
    any_dof(args, begin, end);
}

}  // namespace

template <typename T>
void weighted_residual_loss(const WeightedResidualArgs<T>& args, int max_threads) {
    parallel_for(args.n, kGrain, max_threads, [&args](auto begin, auto end) { run(args, begin, end); });
}

template <typename T>
void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<T>& args, int max_threads) {
    parallel_for(args.n, kGrain, max_threads, [&args](auto begin, auto end) { run(args, begin, end); });
}

template void weighted_residual_loss(const WeightedResidualArgs<float>&, int);
template void weighted_residual_loss(const WeightedResidualArgs<double>&, int);
template void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<float>&, int);
template void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<double>&, int);

}  // namespace mfik::cpu
