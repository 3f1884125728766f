// Damped least squares with an active set at the joint limits: one problem, double precision, no allocation.
#pragma once

#include "kernels/chain.hpp"

namespace mfik {

// Damping added to the diagonal of J J^T: gain * |e|^2 + floor (Sugihara 2011, "Solvability-Unconcerned Inverse
// Kinematics by the Levenberg-Marquardt Method", eq. 21 with unit weights). The same constants stand in
// mfik/kinematics/refine.py.
constexpr double kDampingGain = 0.02;
constexpr double kDampingFloor = 1e-8;
constexpr int kActiveSetPasses = 3;

struct RefineOutcome {
    bool converged;
    int iterations;
    double pos_error_m;
    double rot_error_rad;
};

/// Solve the symmetric positive definite system A x = b, 6x6, in place (b becomes x) by Cholesky.
MFIK_HOST_DEVICE inline void solve6(double (*A)[6], double* b) {
    double inverse_diagonal[6];
    for (int j = 0; j < 6; ++j) {
        double d = A[j][j];
        for (int k = 0; k < j; ++k) d -= A[j][k] * A[j][k];
        const double inv = 1.0 / std::sqrt(d);
        inverse_diagonal[j] = inv;
        for (int i = j + 1; i < 6; ++i) {
            double s = A[i][j];
            for (int k = 0; k < j; ++k) s -= A[i][k] * A[j][k];
            A[i][j] = s * inv;
        }
    }
    for (int i = 0; i < 6; ++i) {
        for (int k = 0; k < i; ++k) b[i] -= A[i][k] * b[k];
        b[i] *= inverse_diagonal[i];
    }
    for (int i = 5; i >= 0; --i) {
        for (int k = i + 1; k < 6; ++k) b[i] -= A[k][i] * b[k];
        b[i] *= inverse_diagonal[i];
    }
}

/// Refine q [dof] in place towards T_target until both errors are within tolerance or `max_iterations` steps are done.
/// q starts clamped to the limits and stays within them (continuous joints have none and end in [-pi, pi]).
MFIK_HOST_DEVICE inline RefineOutcome refine(const Chain& chain, const Transform& T_target, double* q,
                                             int max_iterations, double tol_pos_m, double tol_rot_rad) {
    const int n = chain.dof;
    for (int j = 0; j < n; ++j) {
        if (chain.kind[j] == JointKind::kContinuous) continue;
        q[j] = q[j] < chain.lower[j] ? chain.lower[j] : (q[j] > chain.upper[j] ? chain.upper[j] : q[j]);
    }
    RefineOutcome outcome{false, 0, 0.0, 0.0};
    double axis[kMaxJoints][3], point[kMaxJoints][3], J[kMaxJoints][6], dq[kMaxJoints];
    for (int iteration = 0;; ++iteration) {
        const Transform T = forward(chain, q, axis, point);
        double error[6];
        pose_error(T_target, T, error);
        outcome.iterations = iteration;
        outcome.pos_error_m = norm3(error);
        outcome.rot_error_rad = norm3(error + 3);
        outcome.converged = outcome.pos_error_m <= tol_pos_m && outcome.rot_error_rad <= tol_rot_rad;
        if (outcome.converged || iteration == max_iterations) break;

        double damping = kDampingFloor;
        for (double e : error) damping += kDampingGain * e * e;
        double A[6][6] = {};  // lower triangle of J_free J_free^T
        for (int j = 0; j < n; ++j) {
            jacobian_column(chain.kind[j], axis[j], point[j], T.p, J[j]);
            for (int a = 0; a < 6; ++a)
                for (int b = 0; b <= a; ++b) A[a][b] += J[j][a] * J[j][b];
        }
        unsigned fixed = 0;  // bit j: joint j is held at a limit for this step
        for (int pass = 0; pass < kActiveSetPasses; ++pass) {
            double L[6][6], y[6];
            for (int a = 0; a < 6; ++a) {
                for (int b = 0; b <= a; ++b) L[a][b] = A[a][b];
                L[a][a] += damping;
                y[a] = error[a];
            }
            solve6(L, y);
            bool violated = false;
            for (int j = 0; j < n; ++j) {
                if (fixed >> j & 1u) continue;
                dq[j] = 0.0;
                for (int a = 0; a < 6; ++a) dq[j] += J[j][a] * y[a];
                if (chain.kind[j] == JointKind::kContinuous) continue;
                const double to_lower = chain.lower[j] - q[j], to_upper = chain.upper[j] - q[j];
                if (dq[j] >= to_lower && dq[j] <= to_upper) continue;
                dq[j] = dq[j] < to_lower ? to_lower : to_upper;
                violated = true;
                fixed |= 1u << j;
                for (int a = 0; a < 6; ++a) {
                    error[a] -= J[j][a] * dq[j];
                    for (int b = 0; b <= a; ++b) A[a][b] -= J[j][a] * J[j][b];
                }
            }
            if (!violated) break;
        }
        for (int j = 0; j < n; ++j) {
            const double next = q[j] + dq[j];
            // A joint held at a limit lands exactly on it, whatever the rounding of q + (limit - q).
            q[j] = chain.kind[j] == JointKind::kContinuous ? next
                   : next < chain.lower[j]                 ? chain.lower[j]
                   : next > chain.upper[j]                 ? chain.upper[j]
                                                           : next;
        }
    }
    constexpr double kPi = 3.14159265358979323846;
    for (int j = 0; j < n; ++j)
        if (chain.kind[j] == JointKind::kContinuous) q[j] -= 2 * kPi * std::floor((q[j] + kPi) / (2 * kPi));
    return outcome;
}

}  // namespace mfik
