#include "kernels/cuda/launch.cuh"
#include "kernels/kernels.hpp"
#include "kernels/sample_batch.hpp"

namespace mfik::cuda {
namespace {

/// Rows of `out` in shared memory; `store` writes them to device memory.
template <typename T, int kDof>
struct StagedBatch {
    T q[kTile * kDof], q_target[kTile * kDof], v[kTile * kDof], target_pose[kTile * 7];

    /// `out` with these rows in the place of those from `first` on.
    __device__ BatchOut<T> rows(const BatchOut<T>& out, std::int64_t first) {
        return {q, target_pose, q_target, out.r + first, out.t + first, v, out.weight + first};
    }

    __device__ void store(const BatchOut<T>& out, std::int64_t first, int count) const {
        __syncthreads();
        copy_tile(out.q + first * kDof, q, count * kDof);
        copy_tile(out.target_pose + first * 7, target_pose, count * 7);
        copy_tile(out.q_target + first * kDof, q_target, count * kDof);
        copy_tile(out.v + first * kDof, v, count * kDof);
    }
};

template <int kDof, typename T>
__device__ void sample_and_weigh(const SampleBatchArgs<T>& args, std::int64_t i, const Times& times) {
    bool ok;
    const T distance_sq = sample_row<kDof>(args, i, times, &ok);
    args.out.weight[i] = weight_of_distance(distance_sq, args.c, args.p);
}

struct SampleRow {
    template <typename T>
    __device__ void operator()(const SampleBatchArgs<T>& args, std::int64_t i) const {
        sample_and_weigh<0>(args, i, draw_times(i, args.key, static_cast<std::uint64_t>(*args.key.step)));
    }
};

template <int kDof>
struct SampleTile {
    template <typename T>
    __device__ void operator()(SampleBatchArgs<T> args, std::int64_t first, int rows) const {
        __shared__ StagedBatch<T, kDof> staged;
        const BatchOut<T> out = args.out;
        if (static_cast<int>(threadIdx.x) < rows) {
            const std::int64_t i = first + threadIdx.x;
            args.out = staged.rows(out, first);
            if (args.index != nullptr) {
                args.index += first;
            } else {  // row i is line i: the lines start at the tile, too
                args.q += first * kDof;
                args.target_pose += first * 7;
                args.q_target += first * kDof;
                args.r += first;
                args.rows -= first;
            }
            sample_and_weigh<kDof>(args, threadIdx.x,
                                   draw_times(i, args.key, static_cast<std::uint64_t>(*args.key.step)));
        }
        staged.store(out, first, rows);
    }
};

}  // namespace

template <typename T>
void sample_batch(const SampleBatchArgs<T>& args, std::intptr_t stream) {
    constexpr const char* kName = "sample_batch";
    if (args.dof == 7) return launch_tiles<SampleTile<7>>(kName, args, args.batch, stream);
    if (args.dof == 6) return launch_tiles<SampleTile<6>>(kName, args, args.batch, stream);
    launch_rows<SampleRow>(kName, args, args.batch, stream);
}

namespace {

template <typename T>
struct ChainAndBatch {
    Chain chain;
    DrawBatchArgs<T> batch;
};

struct DrawRow {
    template <typename T>
    __device__ void operator()(const ChainAndBatch<T>& args, std::int64_t i) const {
        draw_row(args.chain, args.batch, i);
    }
};

}  // namespace

template <typename T>
void draw_batch(const Chain& chain, const DrawBatchArgs<T>& args, std::intptr_t stream) {
    // Bound by the kinematics in double, not by memory: nothing is staged.
    launch_rows<DrawRow>("draw_batch", ChainAndBatch<T>{chain, args}, args.batch, stream);
}

template void sample_batch(const SampleBatchArgs<float>&, std::intptr_t);
template void sample_batch(const SampleBatchArgs<double>&, std::intptr_t);
template void draw_batch(const Chain&, const DrawBatchArgs<float>&, std::intptr_t);
template void draw_batch(const Chain&, const DrawBatchArgs<double>&, std::intptr_t);

}  // namespace mfik::cuda
