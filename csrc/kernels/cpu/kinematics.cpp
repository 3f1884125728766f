#include <cmath>
#include <limits>

#include "kernels/chain.hpp"
#include "kernels/cpu/parallel_for.hpp"
#include "kernels/kernels.hpp"
#include "kernels/refine.hpp"

namespace mfik::cpu {

// Rows a thread: a thread costs some 20 us to start, a row of fk 0.3 us, a row of refine 3 to 10 us.
constexpr std::int64_t kFkGrain = 1024;
constexpr std::int64_t kRefineGrain = 32;

template <typename T>
void fk(const Chain& chain, const FkArgs<T>& args, int max_threads) {
    parallel_for(args.n, kFkGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        double q[kMaxJoints], pose[7];
        for (std::int64_t i = begin; i < end; ++i) {
            for (int j = 0; j < chain.dof; ++j) q[j] = args.q[i * chain.dof + j];
            to_pose(forward(chain, q), pose);
            for (int k = 0; k < 7; ++k) args.pose[i * 7 + k] = static_cast<T>(pose[k]);
        }
    });
}

/// Round to T towards the inside of [lower, upper].
template <typename T>
T round_inside(double x, double lower, double upper) {
    const T rounded = static_cast<T>(x);
    if (rounded < lower) return std::nextafter(rounded, std::numeric_limits<T>::infinity());
    if (rounded > upper) return std::nextafter(rounded, -std::numeric_limits<T>::infinity());
    return rounded;
}

template <typename T>
void refine_row(const Chain& chain, const RefineArgs<T>& args, std::int64_t i) {
    double q[kMaxJoints], pose[7];
    T* q_out = args.q_out + i * chain.dof;
    bool valid = true;
    for (int j = 0; j < chain.dof; ++j) {
        q[j] = args.q[i * chain.dof + j];
        valid = valid && std::isfinite(q[j]);
    }
    for (int k = 0; k < 7; ++k) pose[k] = args.target_pose[i * 7 + k];
    if (!valid || !normalize_pose(pose, pose)) {
        for (int j = 0; j < chain.dof; ++j) q_out[j] = std::numeric_limits<T>::quiet_NaN();
        args.converged[i] = false;
        args.iterations[i] = 0;
        return;
    }
    const Transform T_target = from_pose(pose);
    const RefineOutcome outcome = refine(chain, T_target, q, args.max_iterations, args.tol_pos_m, args.tol_rot_rad);
    bool exact = true;
    for (int j = 0; j < chain.dof; ++j) {
        q_out[j] = round_inside<T>(q[j], chain.lower[j], chain.upper[j]);
        exact = exact && q_out[j] == q[j];
        q[j] = q_out[j];
    }
    args.converged[i] = outcome.converged;
    args.iterations[i] = outcome.iterations;
    if (outcome.converged && !exact) {
        double error[6];
        pose_error(T_target, forward(chain, q), error);
        args.converged[i] = norm3(error) <= args.tol_pos_m && norm3(error + 3) <= args.tol_rot_rad;
    }
}

template <typename T>
void refine(const Chain& chain, const RefineArgs<T>& args, int max_threads) {
    parallel_for(args.n, kRefineGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) refine_row(chain, args, i);
    });
}

template void fk(const Chain&, const FkArgs<float>&, int);
template void fk(const Chain&, const FkArgs<double>&, int);
template void refine(const Chain&, const RefineArgs<float>&, int);
template void refine(const Chain&, const RefineArgs<double>&, int);

}  // namespace mfik::cpu
