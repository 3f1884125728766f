// Batched solving for GPUs: refinement in float from one start after the other, then the check, and what float leaves
// to be done, in double. Rows of `search_rows` and `finish_row` are independent; the CPU runs the same functions.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "kernels/kinematics.hpp"
#include "kernels/refine.hpp"
#include "kernels/turns.hpp"

namespace mfik {

/// Error that float arithmetic leaves at joints that are right [m] and [rad]: `search_rows` stops short of the
/// tolerance by as much, and does not try for less.
constexpr double kSingleNoise = 2e-6;

template <typename T>
struct SolveArgs {
    const T* q;                // [n, dof]: first starts
    const T* target_pose;      // [n, 7]
    const T* seeds;            // [num_seeds, dof]: the next starts of every row that fails, in this order
    T* q_out;                  // [n, dof]
    T* pos_error;              // [n], of q_out; [m]; may be null
    T* rot_error;              // [n], of q_out; [rad]; null with pos_error
    bool* converged;           // [n]: whether both errors are within tolerance
    std::int32_t* iterations;  // [n]: steps of the attempt that is handed out
    std::int32_t* attempts;    // [n]: starts used; may be null
    std::int64_t n;
    std::int64_t num_seeds;
    int max_iterations;  // of each attempt in float
    double tol_pos_m;
    double tol_rot_rad;
};

/// Limits as `Constraints`, rounded inwards: joints within them are within the robot's, too.
struct SingleLimits {
    Single lower[kMaxJoints], upper[kMaxJoints];
    static constexpr const double* slack = nullptr;
    static constexpr const double* q_preferred = nullptr;
    static constexpr double preference_gain = 0.0;

    MFIK_INLINE bool locked(int) const { return false; }
};

inline SingleLimits single_limits(const Chain& chain) {
    SingleLimits limits{};
    Constraints constraints;
    set_limits(chain, constraints);
    for (int j = 0; j < chain.dof; ++j) {
        if (chain.kind[j] == JointKind::kContinuous) {
            limits.lower[j] = -HUGE_VALF, limits.upper[j] = HUGE_VALF;
            continue;
        }
        limits.lower[j] = round_inside<float>(constraints.lower[j], constraints.lower[j], HUGE_VAL);
        limits.upper[j] = round_inside<float>(constraints.upper[j], -HUGE_VAL, constraints.upper[j]);
    }
    return limits;
}

/// What the search knows of the robot.
template <int kDof>
struct SearchRobot {
    FixedChain<Single, kDof> chain;
    SingleLimits limits;
};

/// Start a row: clamp q into args.q_out and `at`. False, and NaN joints, where a value cannot be used.
template <int kDof, typename T>
MFIK_INLINE bool begin_row(const SearchRobot<kDof>& robot, const SolveArgs<T>& args, std::int64_t row,
                           Iterate<Single>& at, TransformOf<Single>& T_target) {
    const int n = robot.chain.dof;
    T pose[7];
    Single target[7];
    bool valid = true;
    for (int j = 0; j < n; ++j) valid = valid && std::isfinite(args.q[row * n + j]);
    for (int k = 0; k < 7; ++k) pose[k] = args.target_pose[row * 7 + k];
    valid = valid && normalize_pose(pose, pose);
    for (int k = 0; k < 7; ++k) target[k] = pose[k];
    T_target = from_pose(target);
    for (int j = 0; j < n; ++j) {
        const T lower = number(robot.limits.lower[j]), upper = number(robot.limits.upper[j]);
        T q = args.q[row * n + j];
        if (lower < -FLT_MAX) q = static_cast<T>(wrap_angle(static_cast<double>(q)));  // continuous
        q = q < lower ? lower : q > upper ? upper : q;
        at.q[j] = q;
        args.q_out[row * n + j] = valid ? q : static_cast<T>(NAN);
    }
    args.converged[row] = false;
    args.iterations[row] = 0;
    if (args.attempts != nullptr) args.attempts[row] = valid;
    return valid;
}

/// Square of the tolerance to which float refines, see kSingleNoise.
MFIK_INLINE Single single_tolerance2(double tolerance) {
    const double enough = tolerance - kSingleNoise > kSingleNoise ? tolerance - kSingleNoise : kSingleNoise;
    return enough * enough;
}

/// Work on the rows that `take()` gives until one is args.n or more: refine in float from q, then from one seed after
/// the other. `converged` afterwards: whether float says so. Every pass of the loop is one step of one row, so that the
/// threads of a warp stay together however many steps their rows need.
template <int kDof, typename T, class Take>
MFIK_INLINE void search_rows(const SearchRobot<kDof>& robot, const SolveArgs<T>& args, Take& take) {
    const int n = robot.chain.dof;
    const Single pos2 = single_tolerance2(args.tol_pos_m), rot2 = single_tolerance2(args.tol_rot_rad);
    Iterate<Single> at;
    TransformOf<Single> T_target;
    Single best{};
    int age = 0;
    std::int64_t row = 0, attempt = 0;
    bool busy = false;
    for (;;) {
        while (!busy) {
            row = take();
            if (row >= args.n) return;
            busy = begin_row(robot, args, row, at, T_target);
            age = 0, attempt = 0;
        }
        linearize(robot.chain, robot.limits, T_target, at);
        const Single error = at.pos2 + at.rot2;
        const bool solved = at.pos2 <= pos2 && at.rot2 <= rot2, last = attempt == args.num_seeds;
        // Written so that an error that is no number ends the attempt.
        const bool over = age >= args.max_iterations || !(error <= FLT_MAX) ||
                          (!last && 2 * age >= args.max_iterations && !(error <= kHopelessError2));
        if (!solved && !over) {
            Single dq[kMaxJoints];
            dls_step(robot.chain, robot.limits, T_target, at, dq);
            move(robot.limits, n, dq, at.q);
            ++age;
            continue;
        }
        if (age == 0 && attempt == 0) {
            best = error;  // begin_row handed q out, with all its digits
        } else if (solved || error < best) {
            for (int j = 0; j < n; ++j) args.q_out[row * n + j] = number(at.q[j]);
            args.iterations[row] = age;
            best = error;
        }
        busy = !solved && !last;
        if (busy) {
            for (int j = 0; j < n; ++j) at.q[j] = args.seeds[attempt * n + j];
            for (int j = 0; j < n; ++j) {
                const Single lower = robot.limits.lower[j], upper = robot.limits.upper[j];
                at.q[j] = select(at.q[j] < lower, lower, select(at.q[j] > upper, upper, at.q[j]));
            }
            ++attempt;
            age = 0;
        } else {
            args.converged[row] = solved;
        }
        if (args.attempts != nullptr) args.attempts[row] = static_cast<std::int32_t>(attempt + 1);
    }
}

/// Wrap q where joints are continuous, round it to T within the limits, and measure its errors [m] and [rad].
template <typename T>
MFIK_INLINE void round_and_measure(const Chain& chain, const Transform& T_target, double* q, double& pos, double& rot) {
    double error[6];
    for (int j = 0; j < chain.dof; ++j) {
        if (chain.kind[j] == JointKind::kContinuous) q[j] = wrap_angle(q[j]);
        q[j] = round_inside<T>(q[j], chain.lower[j], chain.upper[j]);
    }
    pose_error(T_target, forward(chain, q), error);
    pos = norm3(error), rot = norm3(error + 3);
}

/// Error of row i's joints in double. Where the search converged but double disagrees, steps in double: as many as the
/// row has left, or, where attempts are counted, `max_iterations` more.
template <typename T>
MFIK_INLINE void finish_row(const Chain& chain, const SolveArgs<T>& args, std::int64_t i) {
    const int n = chain.dof;
    double q[kMaxJoints], pose[7];
    for (int j = 0; j < n; ++j) q[j] = args.q_out[i * n + j];
    for (int k = 0; k < 7; ++k) pose[k] = args.target_pose[i * 7 + k];
    double pos = NAN, rot = pos;
    bool converged = false;
    if (!std::isnan(q[0]) && normalize_pose(pose, pose)) {
        const Transform T_target = from_pose(pose);
        const int left = args.attempts != nullptr ? args.max_iterations : args.max_iterations - args.iterations[i];
        for (bool refined = false;; refined = true) {
            round_and_measure<T>(chain, T_target, q, pos, rot);
            converged = pos <= args.tol_pos_m && rot <= args.tol_rot_rad;
            if (converged || refined || !args.converged[i] || left <= 0) break;
            WithoutSlack constraints;
            set_limits(chain, constraints);
            args.iterations[i] +=
                refine(chain, constraints, T_target, q, left, args.tol_pos_m, args.tol_rot_rad).iterations;
        }
        for (int j = 0; j < n; ++j) args.q_out[i * n + j] = static_cast<T>(q[j]);
    }
    args.converged[i] = converged;
    if (args.pos_error != nullptr) {
        args.pos_error[i] = static_cast<T>(pos);
        args.rot_error[i] = static_cast<T>(rot);
    }
}

}  // namespace mfik
