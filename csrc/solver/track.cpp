// Solver::track.
#include <algorithm>
#include <cmath>

#include "solver/core.hpp"
#include "solver/problem.hpp"
#include "solver/verdict.hpp"

namespace mfik {
namespace {

/// [m] and [rad]: refined to a looser tolerance, a slow path would be taken in stops and jumps.
constexpr double kTrackTolerance = 1e-9;
/// Share of the squared error that a step towards a target out of reach must not exceed to be taken.
constexpr double kTrackGain = 1 - 1e-6;

/// Tighten the constraints to max_step around q_prev. Returns whether q_prev is so far outside the limits that one step
/// does not lead back.
bool bound_step(Span<const double> q_prev, double max_step, Constraints& constraints) {
    bool returning = false;
    for (std::size_t j = 0; j < q_prev.size(); ++j) {
        const double q = q_prev[j];
        // The bound holds for the difference as it is computed, rounding included.
        double low = q - max_step, high = q + max_step;
        if (q - low > max_step) low = std::nextafter(low, kInfinity);
        if (high - q > max_step) high = std::nextafter(high, -kInfinity);
        returning = returning || constraints.lower[j] > high || constraints.upper[j] < low;
        constraints.lower[j] = std::clamp(constraints.lower[j], low, high);
        constraints.upper[j] = std::clamp(constraints.upper[j], low, high);
    }
    return returning;
}

/// Whether a bound of the step, not a limit, holds a joint.
bool at_step_bound(const Constraints& bounds, const Constraints& limits, int dof, const double* q) {
    for (int j = 0; j < dof; ++j) {
        const bool low = q[j] - bounds.lower[j] < kAtLimit && bounds.lower[j] > limits.lower[j];
        const bool high = bounds.upper[j] - q[j] < kAtLimit && bounds.upper[j] < limits.upper[j];
        if (low || high) return true;
    }
    return false;
}

/// For a target out of reach: steps may lead back and forth between joints of one error, so the arm stays where it is
/// unless the error falls. (Towards a target within reach the error may have to rise on the way.)
void rest_without_gain(const Core& core, const Problem& problem, Span<const double> q_prev, const Options& options,
                       double* q, Result& result) {
    Iterate<double> start;
    for (std::size_t j = 0; j < q_prev.size(); ++j)
        start.q[j] = std::clamp(q_prev[j], problem.constraints.lower[j], problem.constraints.upper[j]);
    linearize(*problem.chain, problem.constraints, problem.T_target, start);
    const double error2 = result.pos_error_m * result.pos_error_m + result.rot_error_rad * result.rot_error_rad;
    if (!(error2 > kTrackGain * (start.pos2 + start.rot2))) return;
    std::copy_n(start.q, q_prev.size(), q);
    result = verdict(core, problem, q, options, false);
}

}  // namespace

Result Solver::track(const Pose& T_base_tool, Span<const double> q_prev, double max_step, Span<double> q_out,
                     Workspace& workspace, const Options& options) const noexcept {
    const Clock::time_point start = Clock::now();
    if (impl_ == nullptr) return invalid("solver: it was moved from");
    Problem problem = read_problem(*impl_, T_base_tool, q_prev, options, workspace.impl_.get());
    if (problem.error != nullptr) return invalid(problem.error);
    if (q_out.size() != q_prev.size()) return invalid("q_out: expected dof() values");
    if (!(std::isfinite(max_step) && max_step > 0)) return invalid("max_step: expected a finite number above 0");

    const int dof = impl_->chain().dof;
    const Constraints limits = problem.constraints;
    const bool returning = bound_step(q_prev, max_step, problem.constraints);
    double q[kMaxJoints];
    std::copy_n(q_prev.data(), dof, q);
    const bool has_posture = !options.q_preferred.empty();
    const Approach step =
        approach(*impl_, problem, has_posture ? with_posture(problem.constraints, options) : problem.constraints, q,
                 options.max_iterations, std::min(kInside * options.tol_pos_m, kTrackTolerance),
                 std::min(kInside * options.tol_rot_rad, kTrackTolerance), has_posture ? 1 : 0);
    Result result = verdict(*impl_, problem, q, options, step.stalled);
    if (problem.too_far) rest_without_gain(*impl_, problem, q_prev, options, q, result);
    result.iterations = step.iterations;
    result.attempts = 1;
    if (result.status != Status::kSolved && at_step_bound(problem.constraints, limits, dof, q)) {
        result.status = Status::kJumpBound;
        result.reason = "the target needs a larger step of some joint than max_step";
    }
    if (result.status != Status::kSolved && returning) {
        result.status = Status::kAtLimits;
        result.reason = "q_prev is outside the limits by more than max_step; the answer is on the way back";
    }
    std::copy_n(q, dof, q_out.data());
    result.time_us = microseconds_since(start);
    return result;
}

}  // namespace mfik
