// Solver::track.
#include <algorithm>
#include <cmath>

#include "solver/collision/damper.hpp"
#include "solver/collision/obstacles.hpp"
#include "solver/core.hpp"
#include "solver/problem.hpp"
#include "solver/verdict.hpp"

namespace mfik {
namespace {

/// What one sample may do: at most max_step [dof] from q_prev, and joints beyond their limits come back by as
/// much, held there by the constraints. Returns whether one of them is so far outside that one step does not lead back.
bool bound_step(Span<const double> q_prev, const double* max_step, Constraints& constraints, StepBounds& bounds) {
    bool returning = false;
    for (std::size_t j = 0; j < q_prev.size(); ++j) {
        const double q = q_prev[j], step = max_step[j];
        // The bound holds for the difference as it is computed, rounding included.
        double low = q - step, high = q + step;
        if (q - low > step) low = std::nextafter(low, kInfinity);
        if (high - q > step) high = std::nextafter(high, -kInfinity);
        bounds.low[j] = low, bounds.high[j] = high, bounds.posture[j] = kInfinity;
        if (constraints.lower[j] > high) {
            constraints.lower[j] = constraints.upper[j] = high;
            returning = true;
        } else if (constraints.upper[j] < low) {
            constraints.lower[j] = constraints.upper[j] = low;
            returning = true;
        }
    }
    return returning;
}

bool is_step(Span<const double> max_step) {
    return std::all_of(max_step.begin(), max_step.end(), [](double step) { return std::isfinite(step) && step > 0; });
}

}  // namespace

Result Solver::track(const Pose& T_base_tool, Span<const double> q_prev, double max_step, Span<double> q_out,
                     Workspace& workspace, const Options& options) const noexcept {
    return track(T_base_tool, q_prev, Span<const double>(&max_step, 1), q_out, workspace, options);
}

Result Solver::track(const Pose& T_base_tool, Span<const double> q_prev, Span<const double> max_step,
                     Span<double> q_out, Workspace& workspace, const Options& options) const noexcept {
    const Clock::time_point start = Clock::now();
    if (impl_ == nullptr) return invalid("solver: it was moved from");
    Problem problem;
    read_problem(*impl_, T_base_tool, q_prev, options, workspace.impl_.get(), problem);
    if (problem.error != nullptr) return invalid(problem.error);
    if (q_out.size() != q_prev.size()) return invalid("q_out: expected dof() values");
    if ((max_step.size() != 1 && max_step.size() != q_prev.size()) || !is_step(max_step))
        return invalid("max_step: expected a finite number above 0, or dof() of them");

    const int dof = impl_->chain().dof;
    const Options& own = problem.options;
    double steps[kMaxJoints], q[kMaxJoints], posture[kMaxJoints];
    for (std::size_t j = 0; j < q_prev.size(); ++j)
        steps[j] = max_step[max_step.size() == 1 ? 0 : j] / impl_->units.joint[j];
    StepBounds bounds;
    const bool returning = bound_step({problem.q_ref, q_prev.size()}, steps, problem.constraints, bounds);
    for (int j = 0; j < dof; ++j)
        q[j] = std::clamp(problem.q_ref[j], problem.constraints.lower[j], problem.constraints.upper[j]);
    const Constraints constraints = with_path_posture(problem.constraints, *problem.chain, own, q, posture);
    const FollowOutcome step =
        impl_->kernels.follow(*problem.chain, constraints, bounds, problem.T_target, q, own.max_iterations,
                              kInside * own.tol_pos_m, kInside * own.tol_rot_rad);
    const Damping damping = problem.keeps_clear
                                ? damp(*impl_, problem.obstacles, problem.constraints, bounds, problem.q_ref, q)
                                : Damping::kNone;
    Result result = verdict(*impl_, problem, q, step.last_share > kStalled * kStalled);
    result.iterations = step.iterations;
    result.attempts = 1;
    if (result.status != Status::kSolved && step.bounded) {
        result.status = Status::kJumpBound;
        result.reason = "the target needs a larger step of some joint than max_step";
    }
    if (result.status != Status::kSolved && returning) {
        result.status = Status::kAtLimits;
        result.reason = "q_prev is outside the limits by more than max_step; the answer is on the way back";
    }
    if (result.status != Status::kSolved && damping != Damping::kNone) {
        result.status = Status::kInCollision;
        result.reason = reason_of(damping);
        name_nearest(*impl_, problem.obstacles, options, q, result);
    }
    from_units(impl_->units, q, q_out);
    result.time_us = microseconds_since(start);
    return result;
}

}  // namespace mfik
