#include "kernels/cuda/launch.cuh"
#include "kernels/kernels.hpp"
#include "kernels/weighted_residual_loss.hpp"

namespace mfik::cuda {
namespace {

struct WeightedResidualRow {
    template <typename T>
    __device__ void operator()(const WeightedResidualArgs<T>& args, std::int64_t i) const {
        weighted_residual_row<0>(args, i);
    }
};

template <int kDof>
struct WeightedResidualTile {
    template <typename T>
    __device__ void operator()(WeightedResidualArgs<T> args, std::int64_t first, int rows) const {
        __shared__ T u[kTile * kDof], v[kTile * kDof], derivative[kTile * kDof];
        const std::int64_t left = args.num_jvp - first;
        const int with_derivative = static_cast<int>(left < 0 ? 0 : left < rows ? left : rows);
        T* residual = args.residual + first * kDof;
        copy_tile(u, args.u + first * kDof, rows * kDof);
        copy_tile(v, args.v + first * kDof, rows * kDof);
        if (with_derivative > 0) copy_tile(derivative, args.derivative + first * kDof, with_derivative * kDof);
        __syncthreads();
        T own[kDof];  // the row's residual: u is restrict, so it is overwritten only once read
        if (static_cast<int>(threadIdx.x) < rows) {
            const int i = static_cast<int>(threadIdx.x);
            WeightedResidualArgs<T> row = args;
            row.u = u + i * kDof;
            row.v = v + i * kDof;
            row.derivative = derivative + i * kDof;
            row.r += first + i;
            row.t += first + i;
            if (row.weight != nullptr) row.weight += first + i;
            row.loss += first + i;
            row.squared += first + i;
            row.residual = own;
            row.num_jvp = i < with_derivative ? 1 : 0;
            weighted_residual_row<kDof>(row, 0);
        }
        __syncthreads();
        if (static_cast<int>(threadIdx.x) < rows)
            for (int j = 0; j < kDof; ++j) u[threadIdx.x * kDof + j] = own[j];
        __syncthreads();
        copy_tile(residual, u, rows * kDof);
    }
};

}  // namespace

template <typename T>
void weighted_residual_loss(const WeightedResidualArgs<T>& args, std::intptr_t stream) {
    constexpr const char* kName = "weighted_residual_loss";
    if (args.dof == 7) return launch_tiles<WeightedResidualTile<7>>(kName, args, args.n, stream);
    if (args.dof == 6) return launch_tiles<WeightedResidualTile<6>>(kName, args, args.n, stream);
    launch_rows<WeightedResidualRow>(kName, args, args.n, stream);
}

namespace {

struct WeightedResidualBackwardRow {
    template <typename T>
    __device__ void operator()(const WeightedResidualBackwardArgs<T>& args, std::int64_t i) const {
        weighted_residual_backward_row<0>(args, i);
    }
};

template <int kDof>
struct WeightedResidualBackwardTile {
    template <typename T>
    __device__ void operator()(const WeightedResidualBackwardArgs<T>& args, std::int64_t first, int rows) const {
        __shared__ T scale[kTile];
        if (static_cast<int>(threadIdx.x) < rows)
            scale[threadIdx.x] = residual_gradient_scale(args, first + threadIdx.x);
        __syncthreads();
        const std::int64_t from = first * kDof;
        for (int k = static_cast<int>(threadIdx.x); k < rows * kDof; k += kTile)
            args.u_gradient[from + k] = scale[k / kDof] * args.residual[from + k];
    }
};

}  // namespace

template <typename T>
void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<T>& args, std::intptr_t stream) {
    constexpr const char* kName = "weighted_residual_loss_backward";
    if (args.dof == 7) return launch_tiles<WeightedResidualBackwardTile<7>>(kName, args, args.n, stream);
    if (args.dof == 6) return launch_tiles<WeightedResidualBackwardTile<6>>(kName, args, args.n, stream);
    launch_rows<WeightedResidualBackwardRow>(kName, args, args.n, stream);
}

template void weighted_residual_loss(const WeightedResidualArgs<float>&, std::intptr_t);
template void weighted_residual_loss(const WeightedResidualArgs<double>&, std::intptr_t);
template void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<float>&, std::intptr_t);
template void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<double>&, std::intptr_t);

}  // namespace mfik::cuda
