#include "kernels/adaptive_weight.hpp"

#include <algorithm>

#include "kernels/cpu/parallel_for.hpp"
#include "kernels/cpu/target_clones.hpp"
#include "kernels/cpu/weigh.hpp"
#include "kernels/kernels.hpp"

namespace mfik::cpu {
namespace {

constexpr std::int64_t kTile = 128;
constexpr std::int64_t kGrain = 16384;  // rows a thread, at some 3 ns each

template <int kDof, typename T>
MFIK_HOST_DEVICE_INLINE void rows(const AdaptiveWeightArgs<T>& args, std::int64_t begin, std::int64_t end) {
    T distance_sq[kTile];
    for (std::int64_t first = begin; first < end; first += kTile) {
        const std::int64_t count = std::min(kTile, end - first);
        for (std::int64_t k = 0; k < count; ++k) distance_sq[k] = row_distance_sq<kDof>(args, first + k);
        weigh(distance_sq, args.weight + first, count, args.c, args.p);
    }
}

template <typename T>
MFIK_HOST_DEVICE_INLINE void any_dof(const AdaptiveWeightArgs<T>& args, std::int64_t begin, std::int64_t end) {
    if (args.dof == 7) return rows<7>(args, begin, end);
    if (args.dof == 6) return rows<6>(args, begin, end);
    rows<0>(args, begin, end);
}

MFIK_TARGET_CLONES void run(const AdaptiveWeightArgs<float>& args, std::int64_t begin, std::int64_t end) {
    any_dof(args, begin, end);
}

MFIK_TARGET_CLONES void run(const AdaptiveWeightArgs<double>& args, std::int64_t begin, std::int64_t end) {
    any_dof(args, begin, end);
}

}  // namespace

template <typename T>
void adaptive_weight(const AdaptiveWeightArgs<T>& args, int max_threads) {
    parallel_for(args.n, kGrain, max_threads, [&args](auto begin, auto end) { run(args, begin, end); });
}

template void adaptive_weight(const AdaptiveWeightArgs<float>&, int);
template void adaptive_weight(const AdaptiveWeightArgs<double>&, int);

}  // namespace mfik::cpu
