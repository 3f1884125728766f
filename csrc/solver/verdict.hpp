// What a call says of the joints that it hands out.
#pragma once

#include "mfik/solver.hpp"
#include "solver/problem.hpp"

namespace mfik {

constexpr char kSolvedReason[] = "both errors are within tolerance";

/// Share of an error that kLastSteps steps leave at least where no joint motion lessens it.
constexpr double kStalled = 0.9;

/// How a refinement went.
struct Approach {
    int iterations;  // steps taken
    bool stalled;    // it failed, and its last kLastSteps steps, or as many as there were, hardly lessened the error
};

/// Refine q within the constraints to a tolerance [units of length] and [rad]; the first `posture_steps` steps move
/// towards the null-space posture, too.
[[nodiscard]] Approach approach(const Core& core, const Problem& problem, const Constraints& constraints, double* q,
                                int max_iterations, double tol_pos_m, double tol_rot_rad, int posture_steps = 0);

/// Errors and status of joints q; `iterations` and `attempts` are left to the caller.
/// @param[in] stalled  Where they fail: whether no joint motion lessens the error.
[[nodiscard]] Result verdict(const Core& core, const Problem& problem, const double* q, bool stalled);

}  // namespace mfik
