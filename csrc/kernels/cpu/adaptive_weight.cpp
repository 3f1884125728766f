#include "kernels/adaptive_weight.hpp"

#include "kernels/cpu/parallel_for.hpp"
#include "kernels/kernels.hpp"

namespace mfik::cpu {

constexpr std::int64_t kGrain = 8192;  // rows a thread, at some 10 ns each

template <typename T>
void adaptive_weight(const AdaptiveWeightArgs<T>& args, int max_threads) {
    parallel_for(args.n, kGrain, max_threads, [&args](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) adaptive_weight_row(args, i);
    });
}

template void adaptive_weight(const AdaptiveWeightArgs<float>&, int);
template void adaptive_weight(const AdaptiveWeightArgs<double>&, int);

}  // namespace mfik::cpu
