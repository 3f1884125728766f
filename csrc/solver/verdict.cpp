#include "solver/verdict.hpp"

#include <algorithm>
#include <cmath>

#include "solver/collision/obstacles.hpp"
#include "solver/core.hpp"

namespace mfik {
namespace {

bool within_limits(const Chain& chain, const double* q) {
    for (int j = 0; j < chain.dof; ++j) {
        if (chain.kind[j] != JointKind::kContinuous && !(q[j] >= chain.lower[j] && q[j] <= chain.upper[j]))
            return false;
    }
    return true;
}

/// Whether a joint that may move is at a limit.
bool at_a_limit(const Constraints& constraints, int dof, const double* q) {
    for (int j = 0; j < dof; ++j) {
        const bool at = q[j] - constraints.lower[j] < kAtLimit || constraints.upper[j] - q[j] < kAtLimit;
        if (at && !constraints.locked(j)) return true;
    }
    return false;
}

}  // namespace

Approach approach(const Core& core, const Problem& problem, const Constraints& constraints, double* q,
                  int max_iterations, double tol_pos_m, double tol_rot_rad, int posture_steps) {
    const int last = std::min(kLastSteps, max_iterations);
    const auto refine = [&](int iterations, int posture) {
        return core.kernels.refine_one(*problem.chain, constraints, problem.T_target, q, iterations, tol_pos_m,
                                       tol_rot_rad, posture);
    };
    const auto squared = [](const RefineOutcome& outcome) {
        return outcome.pos_error_m * outcome.pos_error_m + outcome.rot_error_rad * outcome.rot_error_rad;
    };
    const RefineOutcome first = refine(max_iterations - last, std::min(posture_steps, max_iterations - last));
    if (first.converged || last == 0) return {first.iterations, false};
    const RefineOutcome second = refine(last, posture_steps - std::min(posture_steps, first.iterations));
    const double share = std::pow(kStalled, 2.0 * last / kLastSteps);  // of the squared error
    return {first.iterations + second.iterations, !second.converged && squared(second) > share * squared(first)};
}

Result verdict(const Core& core, const Problem& problem, const double* q, bool stalled) {
    const int dof = core.chain().dof;
    const Options& options = problem.options;
    Iterate<double> at;
    std::copy_n(q, dof, at.q);
    linearize(*problem.chain, problem.constraints, problem.T_target, at);
    const double pos_error = std::sqrt(at.pos2), rot_error = std::sqrt(at.rot2);
    Result result{Status::kNotConverged, pos_error * core.units.length, rot_error, 0, 0, 0, 0.0, "", nullptr, nullptr};
    const auto say = [&result](Status status, const char* reason) {
        result.status = status;
        result.reason = reason;
        return result;
    };
    if (!within_limits(core.chain(), q))
        return say(Status::kAtLimits, "the answer violates a joint limit; let it be refined");
    if (pos_error <= options.tol_pos_m && rot_error <= options.tol_rot_rad) {
        if (problem.keeps_clear && (problem.tip_collides || !is_clear(core, problem.obstacles, q))) {
            name_nearest(core, problem.obstacles, options, q, result);
            return say(Status::kInCollision,
                       problem.tip_collides ? "what the tip carries collides at the target, whatever the joints"
                                            : "every answer that was found is nearer to something than the margin");
        }
        result.solutions = 1;
        return say(Status::kSolved, kSolvedReason);
    }
    if (problem.too_far)
        return say(Status::kUnreachable, "the target is farther from the first joint than the arm reaches");
    if (options.max_iterations == 0) return say(Status::kNotConverged, "the seed as it is; let it be refined");
    if (!stalled) {
        return say(Status::kNotConverged,
                   "the error was still falling when the iterations ran out; allow more, or more attempts");
    }
    if (at_a_limit(problem.constraints, dof, q))
        return say(Status::kAtLimits, "joint limits hold the best attempt back");
    return say(Status::kUnreachable, "no joint motion lessens the error of the best attempt");
}

}  // namespace mfik
