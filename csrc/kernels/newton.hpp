// Newton's method on the pose error, with an active set at the joint limits: steps for targets out of reach, whose
// error does not vanish, so that what damped least squares leaves out of the second derivatives counts.
#pragma once

#include <cmath>

#include "kernels/refine.hpp"

namespace mfik {

/// How often the damping of a step is raised by kNewtonRaise until the error is convex within it: more than enough for
/// any chain, and bounded.
constexpr int kNewtonRaises = 32;
constexpr double kNewtonRaise = 4.0;

/// a . (b x c)
MFIK_INLINE double triple_product(const double* a, const double* b, const double* c) {
    return a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
}

/// Add to the lower triangle of J^T J what it lacks to the second derivatives of half the squared error. With the
/// linear columns v and axes w of two moving frames, f the one nearer to the base, and the error (p, r), p [m] and r
/// the rotation vector [rad], in the base frame:
///
///     H_fg - J_f . J_g = -p . (w_f x v_g) - 1/2 r . (w_f x w_g) + (c - 1) (w_f . w_g - (w_f . r) (w_g . r) / |r|^2),
///
/// c = |r| / 2 cot(|r| / 2). The first is the derivative of v_g, the others are those of w_g and of the rotation vector
/// under a small turn: log(exp(r) exp(-w)) = r - (I + [r] / 2 + (1 - c) [r]^2 / |r|^2) w + O(w^2), the inverse right
/// Jacobian of SO(3) (Sola, Deray and Atchuthan 2018, "A micro Lie theory for state estimation in robotics").
template <class C>
MFIK_INLINE void add_curvature(const C& chain, const Iterate<double>& at, const double* error,
                               double (*H)[kMaxJoints]) {
    const double* p = error;
    const double* r = error + 3;
    const double angle2 = squared_norm3(r), angle = std::sqrt(angle2);
    const double over_angle2 =
        angle < kSeriesAngle ? -1.0 / 12.0 : (0.5 * angle / std::tan(0.5 * angle) - 1.0) / angle2;  // (c - 1) / |r|^2
    for (int g = 0; g < num_frames(chain); ++g) {
        const MovingFrame inner = moving_frame(chain, g);
        const double* w_g = at.axis[g];
        double column[6];
        jacobian_column(inner.kind, w_g, at.point[g], at.tip, column);
        for (int f = 0; f <= g; ++f) {
            const MovingFrame outer = moving_frame(chain, f);
            if (outer.kind == JointKind::kPrismatic) continue;
            const double* w_f = at.axis[f];
            double h = -triple_product(p, w_f, column);
            if (inner.kind != JointKind::kPrismatic) {
                double along = 0.0, of_f = 0.0, of_g = 0.0;
                for (int i = 0; i < 3; ++i) along += w_f[i] * w_g[i], of_f += w_f[i] * r[i], of_g += w_g[i] * r[i];
                h += over_angle2 * (angle2 * along - of_f * of_g) - 0.5 * triple_product(r, w_f, w_g);
            }
            h *= outer.ratio * inner.ratio;
            const int j = inner.joint, k = outer.joint;
            H[j > k ? j : k][j > k ? k : j] += f != g && j == k ? 2.0 * h : h;
        }
    }
}

/// Solve H x = b over the joints that are free, of a symmetric H (its lower triangle is read), in place: b becomes x.
/// False, and b as it was, where H is not positive definite by more than `least` in the pivots of L D L^T, as in
/// solve6.
MFIK_INLINE bool solve_free(int n, const double (*H)[kMaxJoints], const bool* fixed, double least, double* b) {
    double L[kMaxJoints][kMaxJoints], pivot[kMaxJoints], x[kMaxJoints];
    int free[kMaxJoints], m = 0;
    for (int j = 0; j < n; ++j)
        if (!fixed[j]) free[m++] = j;
    for (int i = 0; i < m; ++i) {
        for (int j = 0; j < i; ++j) {
            double sum = H[free[i]][free[j]];
            for (int k = 0; k < j; ++k) sum -= L[i][k] * pivot[k] * L[j][k];
            L[i][j] = sum / pivot[j];
        }
        pivot[i] = H[free[i]][free[i]];
        for (int k = 0; k < i; ++k) pivot[i] -= L[i][k] * L[i][k] * pivot[k];
        if (!(pivot[i] > least)) return false;
        x[i] = b[free[i]];
        for (int k = 0; k < i; ++k) x[i] -= L[i][k] * x[k];
    }
    for (int i = 0; i < m; ++i) x[i] /= pivot[i];
    for (int i = m - 1; i >= 0; --i)
        for (int k = i + 1; k < m; ++k) x[i] -= L[k][i] * x[k];
    for (int i = 0; i < m; ++i) b[free[i]] = x[i];
    return true;
}

/// Step dq [dof] of the joints towards the least error; at.q + dq lies within the limits up to rounding:
///
///     (H + mu I) dq = J^T e,
///
/// over the joints that are free, with mu that of damped least squares or, where H + mu I is not positive definite,
/// larger: then no step leads beyond the least error along it, as far as the second derivatives tell. Joints at a limit
/// that the gradient leads beyond stay there; of others, the first that meets one is held there, and the rest goes on
/// from there to where it then leads: an active-set method, whose every part lessens the error that is foreseen. Of the
/// error beyond slack, J are the columns of the set's coordinates (slack.hpp), whose own second derivatives are left
/// out.
template <class C, class E>
MFIK_INLINE void newton_step(const C& chain, const E& constraints, const Transform& T_target, const Iterate<double>& at,
                             double* dq, double damping_gain) {
    const int n = chain.dof;
    double error[6], in_base[6] = {};
    for (int a = 0; a < 6; ++a) in_base[a] = error[a] = at.error[a];
    if (constraints.slack != nullptr) {
        beyond_slack(constraints.slack, at.error, error);
        for (int i = 0; i < 3; ++i) {
            in_base[i] = in_base[3 + i] = 0.0;
            for (int k = 0; k < 3; ++k) in_base[i] += T_target.R[3 * i + k] * error[k];
        }
    }
    double mu = damping_gain * (at.pos2 + at.rot2) + damping_floor<double>();
    const double least = 0.5 * mu;
    double J[kMaxJoints][6], H[kMaxJoints][kMaxJoints], gradient[kMaxJoints];
    bool fixed[kMaxJoints];
    for (int j = 0; j < n; ++j) {
        joint_column(chain, j, at.axis, at.point, at.tip, J[j]);
        if (constraints.slack != nullptr) {
            set_column(constraints.slack, T_target, at.rows, J[j]);
            for (int a = 0; a < 6; ++a)
                if (constraints.slack[a] > 0.0 && error[a] == 0.0) J[j][a] = 0.0;
        }
        gradient[j] = 0.0;
        for (int a = 0; a < 6; ++a) gradient[j] += J[j][a] * error[a];
        for (int k = 0; k <= j; ++k) {
            H[j][k] = j == k ? mu : 0.0;
            for (int a = 0; a < 6; ++a) H[j][k] += J[j][a] * J[k][a];
        }
        dq[j] = constraints.locked(j) ? constraints.lower[j] - at.q[j] : 0.0;
        fixed[j] = constraints.locked(j) || (gradient[j] < 0.0 && at.q[j] <= constraints.lower[j]) ||
                   (gradient[j] > 0.0 && at.q[j] >= constraints.upper[j]);
    }
    add_curvature(chain, at, in_base, H);
    for (int raises = 0; raises < kNewtonRaises;) {
        double x[kMaxJoints];
        for (int j = 0; j < n; ++j) {
            x[j] = gradient[j];
            for (int k = 0; k < n; ++k)
                if (fixed[k]) x[j] -= H[j > k ? j : k][j > k ? k : j] * dq[k];
        }
        if (!solve_free(n, H, fixed, least, x)) {
            for (int j = 0; j < n; ++j) H[j][j] += (kNewtonRaise - 1.0) * mu;
            mu *= kNewtonRaise;
            ++raises;
            continue;
        }
        double share = 1.0;
        int first = -1;  // joint that meets its limit
        for (int j = 0; j < n; ++j) {
            const double way = fixed[j] ? 0.0 : x[j] - dq[j];
            const double room = (way > 0.0 ? constraints.upper[j] : constraints.lower[j]) - at.q[j] - dq[j];
            if (std::fabs(way) > std::fabs(room) && room / way < share) share = room / way, first = j;
        }
        for (int j = 0; j < n; ++j)
            if (!fixed[j]) dq[j] += share * (x[j] - dq[j]);
        if (first < 0) break;
        fixed[first] = true;
    }
}

}  // namespace mfik
