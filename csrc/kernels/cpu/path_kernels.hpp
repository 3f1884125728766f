// Kernels of whole paths: many configurations near each other, one in each lane of a vector register.
#pragma once

#include "kernels/cpu/dispatch.hpp"
#include "kernels/refine.hpp"

namespace mfik::cpu {

/// A configuration that is refined to a pose of its own.
struct PathRow {
    Transform T_target;
    double q[kMaxJoints];      // where it begins; where it ends
    double lower[kMaxJoints];  // bounds of its own; equal ones hold a joint
    double upper[kMaxJoints];
    const double* posture;  // [dof]: null-space posture, or null
    double gain;            // share of the way to it taken in each of the first steps
    bool converged;
};

/// How the rows of a call are refined.
struct PathRefinement {
    const Chain* chain;
    const double* slack;   // as in Constraints
    std::uint32_t locked;  // bit j: joint j stays where its bounds hold it
    double tol_pos_m, tol_rot_rad;
    int max_iterations;
    int posture_steps;  // the first ones, taken in any case by rows with a posture
};

struct PathKernels {
    const char* isa;  // see kIsa
    /// Refine rows, each by itself.
    void (*refine_rows)(const PathRefinement& how, PathRow* rows, int num_rows) noexcept;
    /// Orthonormal basis of the motions of q [dof] that leave the tool at the target, [result][dof] of `basis`; what
    /// moves a coordinate with slack counts among them.
    int (*null_space)(const Chain& chain, const Constraints& constraints, const Transform& T_target, const double* q,
                      double (*basis)[kMaxJoints]) noexcept;
    /// The row of `from` [num_from, dof] from which b [dof] is reached at the least cost, that of the row plus the
    /// change of each joint times `weight` [dof], no joint changing by more than `step` [dof]; -1 where there is none.
    int (*best_before)(const double* from, const double* cost, int num_from, const double* b, const double* step,
                       const double* weight, int dof, double& best) noexcept;
};
MFIK_DECLARE_KERNELS(PathKernels);

}  // namespace mfik::cpu
