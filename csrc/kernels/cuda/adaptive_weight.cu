#include "kernels/adaptive_weight.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/kernels.hpp"

namespace mfik::cuda {
namespace {

struct AdaptiveWeightRow {
    template <typename T>
    __device__ void operator()(const AdaptiveWeightArgs<T>& args, std::int64_t i) const {
        args.weight[i] = weight_of_distance(row_distance_sq<0>(args, i), args.c, args.p);
    }
};

template <int kDof>
struct AdaptiveWeightTile {
    template <typename T>
    __device__ void operator()(AdaptiveWeightArgs<T> args, std::int64_t first, int rows) const {
        __shared__ T q[kTile * kDof], q_target[kTile * kDof];
        copy_tile(q, args.q + first * kDof, rows * kDof);
        copy_tile(q_target, args.q_target + first * kDof, rows * kDof);
        __syncthreads();
        args.q = q;
        args.q_target = q_target;
        if (static_cast<int>(threadIdx.x) < rows) {
            const T distance_sq = row_distance_sq<kDof>(args, threadIdx.x);
            args.weight[first + threadIdx.x] = weight_of_distance(distance_sq, args.c, args.p);
        }
    }
};

}  // namespace

template <typename T>
void adaptive_weight(const AdaptiveWeightArgs<T>& args, std::intptr_t stream) {
    constexpr const char* kName = "adaptive_weight";
    if (args.dof == 7) return launch_tiles<AdaptiveWeightTile<7>>(kName, args, args.n, stream);
    if (args.dof == 6) return launch_tiles<AdaptiveWeightTile<6>>(kName, args, args.n, stream);
    launch_rows<AdaptiveWeightRow>(kName, args, args.n, stream);
}

template void adaptive_weight(const AdaptiveWeightArgs<float>&, std::intptr_t);
template void adaptive_weight(const AdaptiveWeightArgs<double>&, std::intptr_t);

}  // namespace mfik::cuda
