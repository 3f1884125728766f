// Damped least squares with an active set at the joint limits, no allocation: one problem (V = double), or several side
// by side (V = Lanes) with the same chain and constraints.
#pragma once

#include <type_traits>

#include "kernels/chain.hpp"
#include "kernels/slack.hpp"

namespace mfik {

// Damping added to the diagonal of J J^T: gain * |e|^2 + floor (Sugihara 2011, "Solvability-Unconcerned Inverse
// Kinematics by the Levenberg-Marquardt Method", eq. 21 with unit weights). The same constants stand in
// mfik/kinematics/refine.py.
constexpr double kDampingGain = 0.02;
constexpr double kDampingFloor = 1e-8;
// In float rounding of J J^T reaches 1e-6, so that below this floor the factorisation may find negative pivots.
constexpr double kDampingFloorSingle = 2e-6;
// A third pass costs a fifth more time and solves no more (docs/measurements/solvers.md).
constexpr int kActiveSetPasses = 2;
/// Rounds in which coordinates that would leave their slack are put onto its edge.
constexpr int kSlackPasses = 2;

/// Squared error [m^2 + rad^2] above which an attempt is given up once half of its steps are taken: 0.2 m or 11 deg.
constexpr double kHopelessError2 = 4e-2;

/// The last steps of a refinement that failed, which tell whether the error still falls.
constexpr int kLastSteps = 4;

/// What the joints have to keep to, beyond the pose.
struct Constraints {
    double lower[kMaxJoints];             // [rad] or [m]; -infinity where there is no limit
    double upper[kMaxJoints];             // equal to `lower`: the joint stays there
    const double* slack = nullptr;        // [6], target frame: error that counts as none; infinity: free (slack.hpp)
    const double* q_preferred = nullptr;  // [dof]: null-space posture
    double preference_gain = 0.0;         // share of the way to it in one step
    double preference_share = HUGE_VAL;   // largest motion towards it, in shares of a sample's error before its steps

    MFIK_INLINE bool locked(int j) const { return lower[j] == upper[j]; }
};

/// The same, known to be without slack when a kernel is compiled: what is for slack then costs it nothing.
struct WithoutSlack : Constraints {
    static constexpr const double* slack = nullptr;
};

/// Call body(constraints), with their type saying whether there is slack.
template <class Body>
MFIK_INLINE auto by_slack(const Constraints& constraints, const Body& body) {
    return constraints.slack != nullptr ? body(constraints) : body(WithoutSlack{constraints});
}

/// Damping floor of arithmetic in V.
template <class V>
MFIK_INLINE constexpr double damping_floor() {
    return std::is_same_v<V, Single> ? kDampingFloorSingle : kDampingFloor;
}

/// The limits of the chain alone.
MFIK_INLINE void set_limits(const Chain& chain, Constraints& constraints) {
    for (int j = 0; j < chain.dof; ++j) {
        const bool free = chain.kind[j] == JointKind::kContinuous;
        constraints.lower[j] = free ? -HUGE_VAL : chain.lower[j];
        constraints.upper[j] = free ? HUGE_VAL : chain.upper[j];
    }
}

/// Joints and what depends on them.
template <class V>
struct Iterate {
    V q[kMaxJoints];
    V axis[kMaxJoints][3], point[kMaxJoints][3];  // of the moving frames, base frame
    V tip[3];                                     // tool origin
    V error[6];    // [position [m]; rotation vector [rad]], base frame; under slack as in set_error
    V rows[9];     // under slack alone: see set_error
    V pos2, rot2;  // squared norms of the error's halves, beyond the slack
};

/// Fill in everything that depends on at.q. `constraints` of these functions: Constraints, or any type with its members
/// (E).
template <class V, class C, class E>
MFIK_INLINE void linearize(const C& chain, const E& constraints, const TransformOf<V>& T_target, Iterate<V>& at) {
    const TransformOf<V> T = forward(chain, at.q, at.axis, at.point);
    for (int i = 0; i < 3; ++i) at.tip[i] = T.p[i];
    if (constraints.slack != nullptr) {
        set_error(constraints.slack, T_target, T, at.error, at.rows);
        V beyond[6];
        beyond_slack(constraints.slack, at.error, beyond);
        at.pos2 = squared_norm3(beyond);
        at.rot2 = squared_norm3(beyond + 3);
        return;
    }
    pose_error(T_target, T, at.error);
    at.pos2 = squared_norm3(at.error);
    at.rot2 = squared_norm3(at.error + 3);
}

/// Solve A x = b for a symmetric positive definite A, 6x6 (its lower triangle is read), in place: b becomes x.
///
/// A = L D L^T with a unit lower triangular L and a diagonal D (Golub and Van Loan, "Matrix Computations", 4.1.2):
///     D_j = A_jj - sum_{k<j} L_jk^2 D_k,    L_ij = (A_ij - sum_{k<j} L_ik D_k L_jk) / D_j,
/// then L y = b, z = D^-1 y, L^T x = z.
template <class V>
MFIK_INLINE void solve6(V (*A)[6], V* b) {
    V inverse[6];  // 1 / D_j
    for (int j = 0; j < 6; ++j) {
        V d = A[j][j];
        for (int k = 0; k < j; ++k) {
            const V scaled = A[j][k];  // L_jk D_k, which the updates of earlier columns left here
            A[j][k] = scaled * inverse[k];
            d -= A[j][k] * scaled;
        }
        inverse[j] = 1.0 / d;
        for (int i = j + 1; i < 6; ++i)
            for (int k = 0; k < j; ++k) A[i][j] -= A[i][k] * A[j][k];
    }
    for (int i = 0; i < 6; ++i)
        for (int k = 0; k < i; ++k) b[i] -= A[i][k] * b[k];
    for (int i = 0; i < 6; ++i) b[i] *= inverse[i];
    for (int i = 5; i >= 0; --i)
        for (int k = i + 1; k < 6; ++k) b[i] -= A[k][i] * b[k];
}

/// Motion of joint j that is wanted in the null space.
template <class E, class V>
MFIK_INLINE V posture_motion(const E& constraints, int j, const V& q) {
    return constraints.preference_gain * (constraints.q_preferred[j] - q);
}

/// The normal equations of one step, with every joint free that is not locked: columns J [dof][6] of the free joints,
/// the motion dq_0 [dof] towards the null-space posture, the lower triangle A of J J^T, and the error e - J dq_0 that
/// is left. (Arrays of their own: in one struct the compiler has to expect that a write to J changes A, and steps take
/// 10 % more.)
template <class V, class C, class E>
MFIK_INLINE void assemble(const C& chain, const E& constraints, const TransformOf<V>& T_target, const Iterate<V>& at,
                          V (*J)[6], V* null_motion, V (*A)[6], V* rest) {
    for (int a = 0; a < 6; ++a) rest[a] = at.error[a];
    for (int j = 0; j < chain.dof; ++j) {
        if (constraints.locked(j)) continue;
        joint_column(chain, j, at.axis, at.point, at.tip, J[j]);
        if (constraints.slack != nullptr) {
            set_column(constraints.slack, T_target, at.rows, J[j]);
        }
        for (int a = 0; a < 6; ++a)
            for (int b = 0; b <= a; ++b) A[a][b] += J[j][a] * J[j][b];
        null_motion[j] = V();
        if (constraints.q_preferred != nullptr) {
            null_motion[j] = posture_motion(constraints, j, at.q[j]);
            for (int a = 0; a < 6; ++a) rest[a] -= J[j][a] * null_motion[j];
        }
    }
}

/// Of the coordinates with finite slack, keep those in the normal equations that the step would take out of it: they
/// are put onto the edge. The others may move as they like, and leave the equations.
template <class V, class C, class E>
MFIK_INLINE void choose_slack_rows(const C& chain, const E& constraints, const V& damping, V (*J)[6], V (*A)[6],
                                   V* rest) {
    bool loose[6];        // has slack
    Mask<V> put[6] = {};  // onto the edge
    V edge[6] = {};
    for (int a = 0; a < 6; ++a) loose[a] = constraints.slack[a] > 0.0 && constraints.slack[a] != HUGE_VAL;
    for (int pass = 0; pass < kSlackPasses; ++pass) {
        V L[6][6], y[6];
        for (int a = 0; a < 6; ++a) {
            for (int b = 0; b <= a; ++b) {
                L[a][b] = A[a][b];
                if (loose[a]) L[a][b] = select(put[a], L[a][b], V());
                if (loose[b]) L[a][b] = select(put[b], L[a][b], V());
            }
            L[a][a] += damping;
            y[a] = loose[a] ? select(put[a], rest[a] - edge[a], V()) : rest[a];
        }
        solve6(L, y);
        for (int a = 0; a < 6; ++a) {
            if (!loose[a]) continue;
            V left = rest[a];  // of the error, after the step
            for (int j = 0; j < chain.dof; ++j) {
                if (constraints.locked(j)) continue;
                V along = V();
                for (int b = 0; b < 6; ++b) along += J[j][b] * y[b];
                left -= J[j][a] * along;
            }
            const V slack = splat<V>(constraints.slack[a]);
            const Mask<V> above = and_not(left > slack, put[a]), below = and_not(left < -slack, put[a]);
            edge[a] = select(above, slack, select(below, -slack, edge[a]));
            put[a] = put[a] | above | below;
        }
    }
    for (int a = 0; a < 6; ++a) {
        if (!loose[a]) continue;
        rest[a] = select(put[a], rest[a] - edge[a], V());
        for (int b = 0; b < 6; ++b) {
            V& cell = b <= a ? A[a][b] : A[b][a];
            cell = select(put[a], cell, V());
        }
        for (int j = 0; j < chain.dof; ++j)
            if (!constraints.locked(j)) J[j][a] = select(put[a], J[j][a], V());
    }
}

/// Step dq [dof] of the joints towards the target; at.q + dq lies within the limits up to rounding.
///
/// Damped least squares with a motion dq_0 wanted in the null space (Nakamura and Hanafusa 1986; Liegeois 1977):
///     dq = dq_0 + J^T y,    (J J^T + lambda I) y = e - J dq_0,    lambda = gain |e|^2 + floor,
/// over the joints that are free. One that would cross a limit is put onto it, its share of the motion goes over to the
/// right-hand side, and the others are solved for again: kActiveSetPasses passes of an active-set method.
template <class V, class C, class E>
MFIK_INLINE void dls_step(const C& chain, const E& constraints, const TransformOf<V>& T_target, const Iterate<V>& at,
                          V* dq, double damping_gain = kDampingGain) {
    V J[kMaxJoints][6], null_motion[kMaxJoints], A[6][6] = {}, rest[6];
    assemble(chain, constraints, T_target, at, J, null_motion, A, rest);
    const V damping = damping_gain * (at.pos2 + at.rot2) + damping_floor<V>();
    if (constraints.slack != nullptr) choose_slack_rows(chain, constraints, damping, J, A, rest);
    Mask<V> fixed[kMaxJoints] = {};  // held at a limit for this step
    for (int pass = 0; pass < kActiveSetPasses; ++pass) {
        V L[6][6], y[6];
        for (int a = 0; a < 6; ++a) {
            for (int b = 0; b < a; ++b) L[a][b] = A[a][b];
            L[a][a] = A[a][a] + damping;
            y[a] = rest[a];
        }
        solve6(L, y);
        Mask<V> violated = {};
        for (int j = 0; j < chain.dof; ++j) {
            if (constraints.locked(j)) {
                dq[j] = constraints.lower[j] - at.q[j];
                continue;
            }
            V d = null_motion[j];
            for (int a = 0; a < 6; ++a) d += J[j][a] * y[a];
            const V to_lower = constraints.lower[j] - at.q[j], to_upper = constraints.upper[j] - at.q[j];
            const Mask<V> below = d<to_lower, above = d> to_upper;
            d = select(below, to_lower, select(above, to_upper, d));
            dq[j] = select(fixed[j], dq[j], d);
            const Mask<V> now = and_not(below | above, fixed[j]);
            if (!any(now)) continue;
            violated = violated | now;
            fixed[j] = fixed[j] | now;
            // The joint leaves the free ones: its motion is known, beyond its share of dq_0.
            V column[6];
            for (int a = 0; a < 6; ++a) column[a] = select(now, J[j][a], V());
            for (int a = 0; a < 6; ++a) {
                rest[a] -= column[a] * (d - null_motion[j]);
                for (int b = 0; b <= a; ++b) A[a][b] -= column[a] * column[b];
            }
        }
        if (!any(violated)) break;
    }
}

/// q <- q + dq; a joint held at a limit lands exactly on it, whatever the rounding.
template <class V, class E>
MFIK_INLINE void move(const E& constraints, int n, const V* dq, V* q) {
    for (int j = 0; j < n; ++j) {
        const V next = q[j] + dq[j], lower = splat<V>(constraints.lower[j]), upper = splat<V>(constraints.upper[j]);
        q[j] = select(next < lower, lower, select(next > upper, upper, next));
    }
}

/// Round to T towards the inside of [lower, upper].
template <class T>
MFIK_INLINE T round_inside(double x, double lower, double upper) {
    if constexpr (std::is_same_v<T, double>) {
        return x;
    } else {
        const T rounded = static_cast<T>(x);
        return rounded < lower   ? ::nextafterf(rounded, HUGE_VALF)
               : rounded > upper ? ::nextafterf(rounded, -HUGE_VALF)
                                 : rounded;
    }
}

struct RefineOutcome {
    bool converged;
    int iterations;
    double pos_error_m;
    double rot_error_rad;
};

/// Refine q [dof] in place, within the limits, until both errors are within tolerance or `max_iterations` steps are
/// done. The first `posture_steps` of them move towards the null-space posture too, and are taken in any case.
template <class E>
MFIK_INLINE RefineOutcome refine(const Chain& chain, const E& constraints, const Transform& T_target, double* q,
                                 int max_iterations, double tol_pos_m, double tol_rot_rad, int posture_steps = 0) {
    E without_posture = constraints;
    without_posture.q_preferred = nullptr;
    Iterate<double> at;
    double dq[kMaxJoints] = {};
    for (int j = 0; j < chain.dof; ++j) at.q[j] = q[j];
    move(constraints, chain.dof, dq, at.q);
    RefineOutcome outcome{};
    for (int iteration = 0;; ++iteration) {
        linearize(chain, constraints, T_target, at);
        const bool converged = at.pos2 <= tol_pos_m * tol_pos_m && at.rot2 <= tol_rot_rad * tol_rot_rad;
        outcome = {converged, iteration, std::sqrt(at.pos2), std::sqrt(at.rot2)};
        if ((converged && iteration >= posture_steps) || iteration >= max_iterations) break;
        dls_step(chain, iteration < posture_steps ? constraints : without_posture, T_target, at, dq);
        move(constraints, chain.dof, dq, at.q);
    }
    for (int j = 0; j < chain.dof; ++j) q[j] = at.q[j];
    return outcome;
}

}  // namespace mfik
