#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/kernels.hpp"

namespace mfik::cuda {
namespace {

/// Rows: FkArgs, JacobianArgs or FkErrorArgs; S: what a row is computed in.
template <int kDof, typename T, template <typename> class Rows, typename S = ArithmeticOf<T>>
struct ChainAndRows {
    FixedChain<S, kDof> chain;
    Rows<T> rows;
};

struct FkRow {
    template <typename Args>
    __device__ void operator()(const Args& args, std::int64_t i) const {
        fk_row(args.chain, args.rows.q + i * args.chain.dof, args.rows.pose + i * 7);
    }
};

/// Joints and poses of a tile go through shared memory.
struct FkTile {
    template <int kDof, typename T>
    __device__ void operator()(const ChainAndRows<kDof, T, FkArgs>& args, std::int64_t first, int rows) const {
        __shared__ T q[kTile * kDof], pose[kTile * 7];
        const int i = static_cast<int>(threadIdx.x);
        copy_tile(q, args.rows.q + first * kDof, rows * kDof);
        __syncthreads();
        if (i < rows) fk_row(args.chain, q + i * kDof, pose + i * 7);
        __syncthreads();
        copy_tile(args.rows.pose + first * 7, pose, rows * 7);
    }
};

struct JacobianRow {
    template <int kDof, typename T>
    __device__ void operator()(const ChainAndRows<kDof, T, JacobianArgs>& args, std::int64_t i) const {
        const int n = args.chain.dof;
        ArithmeticOf<T> q[kMaxJoints];
        for (int j = 0; j < n; ++j) q[j] = args.rows.q[i * n + j];
        jacobian_row(args.chain, q, args.rows.jacobian + i * 6 * n);
    }
};

/// Joints, then Jacobians of a tile go through the same shared memory: 43 kB in double, of 48 kB.
struct JacobianTile {
    template <int kDof, typename T>
    __device__ void operator()(const ChainAndRows<kDof, T, JacobianArgs>& args, std::int64_t first, int rows) const {
        __shared__ T staged[kTile * 6 * kDof];
        const int i = static_cast<int>(threadIdx.x);
        ArithmeticOf<T> q[kMaxJoints] = {};
        copy_tile(staged, args.rows.q + first * kDof, rows * kDof);
        __syncthreads();
        for (int j = 0; j < kDof; ++j) q[j] = staged[(i < rows ? i : 0) * kDof + j];
        __syncthreads();
        if (i < rows) jacobian_row(args.chain, q, staged + i * 6 * kDof);
        __syncthreads();
        copy_tile(args.rows.jacobian + first * 6 * kDof, staged, rows * 6 * kDof);
    }
};

template <int kDof, typename T, template <typename> class Rows>
ChainAndRows<kDof, T, Rows> with_chain(const Chain& chain, const Rows<T>& rows) {
    return {fixed_chain<ArithmeticOf<T>, kDof>(chain), rows};
}

struct FkErrorRow {
    template <int kDof, typename T>
    __device__ void operator()(const ChainAndRows<kDof, T, FkErrorArgs, double>& args, std::int64_t i) const {
        const int n = args.chain.dof;
        double q[kMaxJoints], pose[7], gradient[kMaxJoints];
        for (int j = 0; j < n; ++j) q[j] = args.rows.q[i * n + j];
        for (int k = 0; k < 7; ++k) pose[k] = args.rows.target_pose[i * 7 + k];
        args.rows.error[i] = static_cast<T>(mfik::fk_error(args.chain, q, pose, gradient));
        for (int j = 0; j < n; ++j) args.rows.gradient[i * n + j] = static_cast<T>(gradient[j]);
    }
};

// The search takes some 180 registers a thread and spills none: five blocks of 64 threads fit a multiprocessor, but two
// of 128. Held to 168 registers, three of 128 would fit, and the arrays of 6 joints spill.
constexpr int kSearchBlock = 64;

template <int kDof, typename T>
struct SearchArgs {
    SearchRobot<kDof> robot;
    SolveArgs<T> rows;
};

/// Rows [begin, end) of a block, each for the thread that asks next.
struct BlockQueue {
    int* next;
    std::int64_t begin, end, past;

    __host__ __device__ std::int64_t operator()() {
#ifdef __CUDA_ARCH__
        const std::int64_t row = begin + atomicAdd(next, 1);
#else
        const std::int64_t row = begin + (*next)++;
#endif
        return row < end ? row : past;
    }
};

template <int kDof, typename T>
__global__ void __launch_bounds__(kSearchBlock)
    search(const __grid_constant__ SearchArgs<kDof, T> args, std::int64_t rows_a_block) {
    __shared__ int next;
    if (threadIdx.x == 0) next = 0;
    __syncthreads();
    const std::int64_t begin = blockIdx.x * rows_a_block, n = args.rows.n;
    BlockQueue queue{&next, begin, begin + rows_a_block < n ? begin + rows_a_block : n, n};
    search_rows(args.robot, args.rows, queue);
}

void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(std::string("solve: ") + cudaGetErrorString(status));
}

/// One wave of blocks, each with its share of the rows: a thread that is done takes the next row of its block.
template <int kDof, typename T>
void launch_search(const Chain& chain, const SolveArgs<T>& rows, std::intptr_t stream) {
    int device = 0, processors = 0, blocks = 0;
    check(cudaGetDevice(&device));
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, search<kDof, T>, kSearchBlock, 0));
    const std::int64_t resident = std::int64_t{processors} * std::max(blocks, 1);
    const std::int64_t share = std::max<std::int64_t>((rows.n + resident - 1) / resident, kSearchBlock);
    const auto grid = static_cast<unsigned>((rows.n + share - 1) / share);
    const SearchArgs<kDof, T> args{{fixed_chain<Single, kDof>(chain), single_limits(chain)}, rows};
    launch("solve", search<kDof, T>, grid, kSearchBlock, stream, args, share);
}

template <typename T>
struct FinishArgs {
    Chain chain;
    SolveArgs<T> rows;
};

struct FinishRow {
    template <typename T>
    __device__ void operator()(const FinishArgs<T>& args, std::int64_t i) const {
        finish_row(args.chain, args.rows, i);
    }
};

}  // namespace

template <typename T>
void fk(const Chain& chain, const FkArgs<T>& args, std::intptr_t stream) {
    const int dof = fixed_dof(chain);
    if (dof == 6) return launch_tiles<FkTile>("fk", with_chain<6>(chain, args), args.n, stream);
    if (dof == 7) return launch_tiles<FkTile>("fk", with_chain<7>(chain, args), args.n, stream);
    launch_rows<FkRow>("fk", with_chain<0>(chain, args), args.n, stream);
}

template <typename T>
void jacobian(const Chain& chain, const JacobianArgs<T>& args, std::intptr_t stream) {
    const int dof = fixed_dof(chain);
    if (dof == 6) return launch_tiles<JacobianTile>("jacobian", with_chain<6>(chain, args), args.n, stream);
    if (dof == 7) return launch_tiles<JacobianTile>("jacobian", with_chain<7>(chain, args), args.n, stream);
    launch_rows<JacobianRow>("jacobian", with_chain<0>(chain, args), args.n, stream);
}

template <typename T>
void fk_error(const Chain& chain, const FkErrorArgs<T>& args, std::intptr_t stream) {
    const auto run = [&](const auto& fixed) { launch_rows<FkErrorRow>("fk_error", fixed, args.n, stream); };
    const int dof = fixed_dof(chain);
    if (dof == 6) return run(ChainAndRows<6, T, FkErrorArgs, double>{fixed_chain<double, 6>(chain), args});
    if (dof == 7) return run(ChainAndRows<7, T, FkErrorArgs, double>{fixed_chain<double, 7>(chain), args});
    run(ChainAndRows<0, T, FkErrorArgs, double>{fixed_chain<double, 0>(chain), args});
}

template <typename T>
void solve(const Chain& chain, const SolveArgs<T>& args, std::intptr_t stream) {
    if (args.n == 0) return;
    switch (fixed_dof(chain)) {
        case 6:
            launch_search<6>(chain, args, stream);
            break;
        case 7:
            launch_search<7>(chain, args, stream);
            break;
        default:
            launch_search<0>(chain, args, stream);
    }
    launch_rows<FinishRow>("solve", FinishArgs<T>{chain, args}, args.n, stream);
}

template <typename T>
void refine(const Chain& chain, const RefineArgs<T>& args, std::intptr_t stream) {
    solve(chain,
          SolveArgs<T>{args.q, args.target_pose, nullptr, args.q_out, nullptr, nullptr, args.converged, args.iterations,
                       nullptr, args.n, 0, args.max_iterations, args.tol_pos_m, args.tol_rot_rad},
          stream);
}

template void fk(const Chain&, const FkArgs<float>&, std::intptr_t);
template void fk(const Chain&, const FkArgs<double>&, std::intptr_t);
template void jacobian(const Chain&, const JacobianArgs<float>&, std::intptr_t);
template void jacobian(const Chain&, const JacobianArgs<double>&, std::intptr_t);
template void fk_error(const Chain&, const FkErrorArgs<float>&, std::intptr_t);
template void fk_error(const Chain&, const FkErrorArgs<double>&, std::intptr_t);
template void refine(const Chain&, const RefineArgs<float>&, std::intptr_t);
template void refine(const Chain&, const RefineArgs<double>&, std::intptr_t);
template void solve(const Chain&, const SolveArgs<float>&, std::intptr_t);
template void solve(const Chain&, const SolveArgs<double>&, std::intptr_t);

}  // namespace mfik::cuda
