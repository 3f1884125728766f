// Batched kernels on raw pointers to contiguous arrays. Arguments are checked by the caller (mfik/ops).
#pragma once

#include <cstdint>
#include <string>

#include "kernels/adaptive_weight.hpp"
#include "kernels/chain.hpp"
#include "kernels/fk_error.hpp"
#include "kernels/geometry.hpp"
#include "kernels/sample_batch.hpp"
#include "kernels/solve_rows.hpp"
#include "kernels/weighted_residual_loss.hpp"

namespace mfik {

template <typename T>
struct FkArgs {
    const T* q;  // [n, dof]
    T* pose;     // [n, 7]
    std::int64_t n;
};

template <typename T>
struct JacobianArgs {
    const T* q;   // [n, dof]
    T* jacobian;  // [n, 6, dof]
    std::int64_t n;
};

template <typename T>
struct RefineArgs {
    const T* q;                // [n, dof]
    const T* target_pose;      // [n, 7]
    T* q_out;                  // [n, dof]
    bool* converged;           // [n]
    std::int32_t* iterations;  // [n]
    std::int64_t n;
    int max_iterations;
    double tol_pos_m;
    double tol_rot_rad;
};

template <typename T>
struct GeometryArgs {
    const T* q;            // [n, dof]
    const T* target_pose;  // [n, 7]
    T* features;           // [n, geometry.size]
    T* error2;             // [n]
    std::int64_t n;
};

template <typename T>
struct GeometryBackwardArgs {
    const T* q;            // [n, dof]
    const T* target_pose;  // [n, 7]
    const T* by_features;  // [n, geometry.size]
    const T* by_error2;    // [n]
    T* by_q;               // [n, dof]
    std::int64_t n;
};

// `max_threads` bounds the threads; results do not depend on it. Instantiated for float and double.
namespace cpu {

template <typename T>
void adaptive_weight(const AdaptiveWeightArgs<T>& args, int max_threads);

/// Returns the first row whose index is out of range, -1 when there is none.
template <typename T>
std::int64_t sample_batch(const SampleBatchArgs<T>& args, int max_threads);

template <typename T>
void draw_batch(const Chain& chain, const DrawBatchArgs<T>& args, int max_threads);

template <typename T>
void weighted_residual_loss(const WeightedResidualArgs<T>& args, int max_threads);

template <typename T>
void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<T>& args, int max_threads);

/// Computed in double whatever T.
template <typename T>
void fk(const Chain& chain, const FkArgs<T>& args, int max_threads);

/// Geometric Jacobian, twist order [v, w], base frame, at the tool origin. Computed in double whatever T.
template <typename T>
void jacobian(const Chain& chain, const JacobianArgs<T>& args, int max_threads);

/// Computed in double whatever T.
template <typename T>
void fk_error(const Chain& chain, const FkErrorArgs<T>& args, int max_threads);

/// Computed in double whatever T. `converged` speaks of the returned, rounded joints, which lie within the limits. A
/// row with a value that is not finite or a zero quaternion gets NaN joints, not converged, 0 iterations.
template <typename T>
void refine(const Chain& chain, const RefineArgs<T>& args, int max_threads);

/// Refine in float from q, then from one seed after the other until one converges, judge in double, and let double
/// finish what float cannot. Rows that cannot be used: see `refine`; their errors are NaN, their attempts 0.
template <typename T>
void solve(const Chain& chain, const SolveArgs<T>& args, int max_threads);

/// Features of network type v2 and the squared pose error, lengths / L. Computed in double whatever T.
template <typename T>
void geometry(const Geometry& geometry, const GeometryArgs<T>& args, int max_threads);

/// Their gradient by the joints. Computed in double whatever T.
template <typename T>
void geometry_backward(const Geometry& geometry, const GeometryBackwardArgs<T>& args, int max_threads);

}  // namespace cpu

// Asynchronous on `stream` (a cudaStream_t) of the calling thread's current device; throw std::runtime_error when the
// launch fails.
namespace cuda {

/// Why CUDA does not run the kernels on the current device (no driver, one that is too old, a device that they were not
/// compiled for); empty where it does.
std::string problem();

template <typename T>
void adaptive_weight(const AdaptiveWeightArgs<T>& args, std::intptr_t stream);

/// Rows whose index is out of range hold NaN.
template <typename T>
void sample_batch(const SampleBatchArgs<T>& args, std::intptr_t stream);

template <typename T>
void draw_batch(const Chain& chain, const DrawBatchArgs<T>& args, std::intptr_t stream);

template <typename T>
void weighted_residual_loss(const WeightedResidualArgs<T>& args, std::intptr_t stream);

template <typename T>
void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<T>& args, std::intptr_t stream);

/// Computed in T.
template <typename T>
void fk(const Chain& chain, const FkArgs<T>& args, std::intptr_t stream);

/// Computed in T.
template <typename T>
void jacobian(const Chain& chain, const JacobianArgs<T>& args, std::intptr_t stream);

/// Computed in double whatever T.
template <typename T>
void fk_error(const Chain& chain, const FkErrorArgs<T>& args, std::intptr_t stream);

/// As cpu::refine, but in float first: near a tolerance or a singularity the steps may differ.
template <typename T>
void refine(const Chain& chain, const RefineArgs<T>& args, std::intptr_t stream);

/// As cpu::solve.
template <typename T>
void solve(const Chain& chain, const SolveArgs<T>& args, std::intptr_t stream);

}  // namespace cuda

}  // namespace mfik
