#include <type_traits>

#include "kernels/cpu/solver_kernels.hpp"
#include "kernels/cpu/parallel_for.hpp"

namespace mfik::cpu {

// Rows a thread: a thread costs some 20 us to start, a row of fk 0.03 us, a row of refine 1 us.
constexpr std::int64_t kFkGrain = 4096;
constexpr std::int64_t kRefineGrain = 64;

template <typename T>
void fk(const Chain& chain, const FkArgs<T>& args, int max_threads) {
    const LaneKernels& kernels = lane_kernels();
    parallel_for(args.n, kFkGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        if constexpr (std::is_same_v<T, float>)
            kernels.fk_float(chain, args, begin, end);
        else
            kernels.fk_double(chain, args, begin, end);
    });
}

template <typename T>
void jacobian(const Chain& chain, const FkArgs<T>& args, int max_threads) {
    const LaneKernels& kernels = lane_kernels();
    parallel_for(args.n, kFkGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        if constexpr (std::is_same_v<T, float>)
            kernels.jacobian_float(chain, args, begin, end);
        else
            kernels.jacobian_double(chain, args, begin, end);
    });
}

template <typename T>
void refine(const Chain& chain, const RefineArgs<T>& args, int max_threads) {
    const LaneKernels& kernels = lane_kernels();
    parallel_for(args.n, kRefineGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        if constexpr (std::is_same_v<T, float>)
            kernels.refine_float(chain, args, begin, end);
        else
            kernels.refine_double(chain, args, begin, end);
    });
}

template void fk(const Chain&, const FkArgs<float>&, int);
template void fk(const Chain&, const FkArgs<double>&, int);
template void jacobian(const Chain&, const FkArgs<float>&, int);
template void jacobian(const Chain&, const FkArgs<double>&, int);
template void refine(const Chain&, const RefineArgs<float>&, int);
template void refine(const Chain&, const RefineArgs<double>&, int);

}  // namespace mfik::cpu
