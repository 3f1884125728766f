#include "kernels/adaptive_weight.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/kernels.hpp"

namespace mfik::cuda {

struct AdaptiveWeightRow {
    template <typename T>
    __device__ void operator()(const AdaptiveWeightArgs<T>& args, std::int64_t i) const {
        adaptive_weight_row(args, i);
    }
};

template <typename T>
void adaptive_weight(const AdaptiveWeightArgs<T>& args, std::intptr_t stream) {
    launch_rows<AdaptiveWeightRow>("adaptive_weight", args, args.n, stream);
}

template void adaptive_weight(const AdaptiveWeightArgs<float>&, std::intptr_t);
template void adaptive_weight(const AdaptiveWeightArgs<double>&, std::intptr_t);

}  // namespace mfik::cuda
