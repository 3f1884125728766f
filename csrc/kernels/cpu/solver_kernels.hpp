// Kernels of the solver: several problems side by side, one in each lane of a vector register.
#pragma once

#include "kernels/cpu/dispatch.hpp"
#include "kernels/follow.hpp"
#include "kernels/search.hpp"

namespace mfik::cpu {

/// Every function works on the calling thread; all but search_rows on one pose.
struct SolverKernels {
    const char* isa;  // see kIsa
    int lanes;        // problems that are worked on side by side
    void (*search)(const SearchTask& task, SearchResult& result, SolutionPool* pool) noexcept;
    RefineOutcome (*refine_one)(const Chain& chain, const Constraints& constraints, const Transform& T_target,
                                double* q, int max_iterations, double tol_pos_m, double tol_rot_rad,
                                int posture_steps) noexcept;
    FollowOutcome (*follow)(const Chain& chain, const Constraints& constraints, const StepBounds& bounds,
                            const Transform& T_target, double* q, int max_iterations, double tol_pos_m,
                            double tol_rot_rad) noexcept;
    /// Many poses, one in each lane.
    void (*search_rows)(const BatchTask& task, SearchRow* rows, int num_rows) noexcept;
};
MFIK_DECLARE_KERNELS(SolverKernels);

}  // namespace mfik::cpu
