// Damped least squares with an active set at the joint limits, no allocation: one problem (V = double), or several side
// by side (V = Lanes) with the same chain and terms.
#pragma once

#include <type_traits>

#include "kernels/chain.hpp"

namespace mfik {

// Damping added to the diagonal of J J^T: gain * |e|^2 + floor (Sugihara 2011, "Solvability-Unconcerned Inverse
// Kinematics by the Levenberg-Marquardt Method", eq. 21 with unit weights). The same constants stand in
// mfik/kinematics/refine.py.
constexpr double kDampingGain = 0.02;
constexpr double kDampingFloor = 1e-8;
// In float rounding of J J^T reaches 1e-6, so that below this floor the factorisation may find negative pivots.
constexpr double kDampingFloorSingle = 2e-6;
constexpr int kActiveSetPasses = 2;  // a third costs a fifth more time and solves no more (docs/performance.md)
constexpr double kPi = 3.14159265358979323846;

/// What is asked of the joints, beyond the pose.
struct Terms {
    double lower[kMaxJoints];           // [rad] or [m]; -infinity where there is no limit
    double upper[kMaxJoints];           // equal to `lower`: the joint stays there
    const double* slack = nullptr;      // [6], target frame: error that counts as none; infinity: the axis is free
    const double* preferred = nullptr;  // [dof]: posture to lean to in the null space
    double preference_gain = 0.0;       // share of the way to it in one step

    MFIK_HOST_DEVICE bool locked(int j) const { return lower[j] == upper[j]; }
};

/// Damping floor of arithmetic in V.
template <class V>
MFIK_HOST_DEVICE constexpr double damping_floor() {
    return std::is_same_v<V, Single> ? kDampingFloorSingle : kDampingFloor;
}

/// The limits of the chain alone.
MFIK_HOST_DEVICE inline void set_limits(const Chain& chain, Terms& terms) {
    for (int j = 0; j < chain.dof; ++j) {
        const bool free = chain.kind[j] == JointKind::kContinuous;
        terms.lower[j] = free ? -HUGE_VAL : chain.lower[j];
        terms.upper[j] = free ? HUGE_VAL : chain.upper[j];
    }
}

/// Joints and what depends on them.
template <class V>
struct Iterate {
    V q[kMaxJoints];
    V axis[kMaxJoints][3], point[kMaxJoints][3];  // of the joints, base frame
    V tip[3];                                     // tool origin
    V error[6];    // [position [m]; rotation vector [rad]] beyond the slack; base frame, target frame under slack
    V pos2, rot2;  // squared norms of its halves
};

/// v <- R^T v.
template <class V>
MFIK_HOST_DEVICE inline void rotate_back(const V* R, V* v) {
    const V x = R[0] * v[0] + R[3] * v[1] + R[6] * v[2];
    const V y = R[1] * v[0] + R[4] * v[1] + R[7] * v[2];
    v[2] = R[2] * v[0] + R[5] * v[1] + R[8] * v[2];
    v[0] = x, v[1] = y;
}

/// Fill in everything that depends on at.q. `terms` of these functions: Terms, or any type with its members (E).
template <class V, class C, class E>
MFIK_HOST_DEVICE inline void linearize(const C& chain, const E& terms, const TransformOf<V>& T_target, Iterate<V>& at) {
    const TransformOf<V> T = forward(chain, at.q, at.axis, at.point);
    pose_error(T_target, T, at.error);
    for (int i = 0; i < 3; ++i) at.tip[i] = T.p[i];
    if (terms.slack != nullptr) {
        rotate_back(T_target.R, at.error);
        rotate_back(T_target.R, at.error + 3);
        for (int i = 0; i < 6; ++i) {
            const V e = at.error[i], slack = V() + terms.slack[i];
            at.error[i] = select(e > slack, e - slack, select(e < -slack, e + slack, V()));
        }
    }
    at.pos2 = squared_norm3(at.error);
    at.rot2 = squared_norm3(at.error + 3);
}

/// Solve the symmetric positive definite system A x = b, 6x6, in place (b becomes x): A = L D L^T, lower triangle.
template <class V>
MFIK_HOST_DEVICE inline void solve6(V (*A)[6], V* b) {
    V inverse[6];  // of D
    for (int j = 0; j < 6; ++j) {
        V d = A[j][j];
        for (int k = 0; k < j; ++k) {
            const V scaled = A[j][k];  // L D until its row comes
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

/// Step dq [dof] of the joints towards the target; at.q + dq lies within the limits up to rounding.
template <class V, class C, class E>
MFIK_HOST_DEVICE inline void dls_step(const C& chain, const E& terms, const TransformOf<V>& T_target,
                                      const Iterate<V>& at, V* dq) {
    const int n = chain.dof;
    V J[kMaxJoints][6], lean[kMaxJoints];  // columns of the free joints; motion wanted in the null space
    V A[6][6] = {}, rest[6];               // lower triangle of J_free J_free^T; error left for the free joints
    for (int a = 0; a < 6; ++a) rest[a] = at.error[a];
    for (int j = 0; j < n; ++j) {
        if (terms.locked(j)) continue;
        jacobian_column(chain.kind[j], at.axis[j], at.point[j], at.tip, J[j]);
        if (terms.slack != nullptr) {
            rotate_back(T_target.R, J[j]);
            rotate_back(T_target.R, J[j] + 3);
            for (int a = 0; a < 6; ++a)
                if (terms.slack[a] == HUGE_VAL) J[j][a] = V();
        }
        for (int a = 0; a < 6; ++a)
            for (int b = 0; b <= a; ++b) A[a][b] += J[j][a] * J[j][b];
        lean[j] = V();
        if (terms.preferred != nullptr) {
            lean[j] = terms.preference_gain * (terms.preferred[j] - at.q[j]);
            for (int a = 0; a < 6; ++a) rest[a] -= J[j][a] * lean[j];
        }
    }
    const V damping = kDampingGain * (at.pos2 + at.rot2) + damping_floor<V>();
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
        for (int j = 0; j < n; ++j) {
            if (terms.locked(j)) {
                dq[j] = terms.lower[j] - at.q[j];
                continue;
            }
            V d = lean[j];
            for (int a = 0; a < 6; ++a) d += J[j][a] * y[a];
            const V to_lower = terms.lower[j] - at.q[j], to_upper = terms.upper[j] - at.q[j];
            const Mask<V> below = d<to_lower, above = d> to_upper;
            d = select(below, to_lower, select(above, to_upper, d));
            dq[j] = select(fixed[j], dq[j], d);
            const Mask<V> now = and_not(below | above, fixed[j]);
            if (!any(now)) continue;
            violated = violated | now;
            fixed[j] = fixed[j] | now;
            // The joint leaves the free ones: its motion is known, beyond what it leant to already.
            V column[6];
            for (int a = 0; a < 6; ++a) column[a] = select(now, J[j][a], V());
            for (int a = 0; a < 6; ++a) {
                rest[a] -= column[a] * (d - lean[j]);
                for (int b = 0; b <= a; ++b) A[a][b] -= column[a] * column[b];
            }
        }
        if (!any(violated)) break;
    }
}

/// q <- q + dq; a joint held at a limit lands exactly on it, whatever the rounding.
template <class V, class E>
MFIK_HOST_DEVICE inline void move(const E& terms, int n, const V* dq, V* q) {
    for (int j = 0; j < n; ++j) {
        const V next = q[j] + dq[j], lower = V() + terms.lower[j], upper = V() + terms.upper[j];
        q[j] = select(next < lower, lower, select(next > upper, upper, next));
    }
}

/// Round to T towards the inside of [lower, upper].
template <class T>
MFIK_HOST_DEVICE inline T round_inside(double x, double lower, double upper) {
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
/// done. The first `leaning_steps` of them lean to the preferred posture, and are taken in any case.
MFIK_HOST_DEVICE inline RefineOutcome refine(const Chain& chain, const Terms& terms, const Transform& T_target,
                                             double* q, int max_iterations, double tol_pos_m, double tol_rot_rad,
                                             int leaning_steps = 0) {
    Terms straight = terms;
    straight.preferred = nullptr;
    Iterate<double> at;
    double dq[kMaxJoints] = {};
    for (int j = 0; j < chain.dof; ++j) at.q[j] = q[j];
    move(terms, chain.dof, dq, at.q);
    RefineOutcome outcome{};
    for (int iteration = 0;; ++iteration) {
        linearize(chain, terms, T_target, at);
        const bool converged = at.pos2 <= tol_pos_m * tol_pos_m && at.rot2 <= tol_rot_rad * tol_rot_rad;
        outcome = {converged, iteration, std::sqrt(at.pos2), std::sqrt(at.rot2)};
        if ((converged && iteration >= leaning_steps) || iteration >= max_iterations) break;
        dls_step(chain, iteration < leaning_steps ? terms : straight, T_target, at, dq);
        move(terms, chain.dof, dq, at.q);
    }
    for (int j = 0; j < chain.dof; ++j) q[j] = at.q[j];
    return outcome;
}

}  // namespace mfik
