// Slack: a target that is a set of poses. The distance of a pose from that set, and how the distance changes with the
// motion of the tool.
//
// The set is described by six coordinates of the tool in the target frame, each of which may lie within [-slack,
// slack]: the position x, y, z [m], and three numbers [rad] for D = R_target^T R, the tool's rotation in the target
// frame. What these are depends on how many turns are free (infinite slack):
//
//     none    the rotation vector log(D)
//     one     about axis k: every D exp(angle e_k) counts alike. The swing: the rotation vector of the shortest turn
//             that takes e_k, an axis of the target, to u = D e_k, the same axis of the tool; perpendicular to e_k.
//     two     all but axis k: the twist about e_k that is left when that swing is taken away from D. The tool's axis k
//             may point anywhere. (Where the slack of axis k is 0, the set is the same as that of the rotation vectors
//             whose component k is 0: both are the turns about axes perpendicular to e_k.)
//     three   nothing
#pragma once

#include "kernels/chain.hpp"

namespace mfik {

/// v <- R^T v.
template <class V>
MFIK_INLINE void rotate_back(const V* R, V* v) {
    const V x = R[0] * v[0] + R[3] * v[1] + R[6] * v[2];
    const V y = R[1] * v[0] + R[4] * v[1] + R[7] * v[2];
    v[2] = R[2] * v[0] + R[5] * v[1] + R[8] * v[2];
    v[0] = x, v[1] = y;
}

/// Below this angle [rad] a series is more accurate than the closed form; the terms that it leaves out are below 1e-9.
constexpr double kSeriesAngle = 1e-2;

/// Error e = -log(D) [3], already in the target frame, and L [9] with de/dt = -L w for the angular velocity w of the
/// tool in the target frame (the inverse of the left Jacobian of SO(3) at -e; Sola, Deray and Atchuthan 2018, "A micro
/// Lie theory for state estimation in robotics", eq. 146):
///
///     L = I + [e]/2 + c [e]^2,    c = (1 - h cot h) / (4 h^2),  h = |e| / 2
template <class V>
MFIK_INLINE void rotation_vector_rows(const V* e, V* L) {
    const V angle2 = squared_norm3(e), h = 0.5 * square_root(angle2);
    V sine, cosine;
    sine_cosine(h, sine, cosine);
    const Mask<V> small = h < 0.5 * kSeriesAngle;
    const V one = splat<V>(1.0);
    const V closed = (1.0 - h * cosine / select(small, one, sine)) / select(small, one, 4.0 * h * h);
    const V c = select(small, 1.0 / 12.0 + angle2 * (1.0 / 720.0), closed);
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) L[3 * i + j] = c * e[i] * e[j];
    for (int i = 0; i < 3; ++i) L[4 * i] += 1.0 - c * angle2;
    L[1] -= 0.5 * e[2], L[2] += 0.5 * e[1], L[5] -= 0.5 * e[0];
    L[3] += 0.5 * e[2], L[6] -= 0.5 * e[1], L[7] += 0.5 * e[0];
}

/// Error and rows of the swing from axis k of the target to u, that of the tool. With v = u x e_k, |v| = sin(angle):
///
///     e = t v,    t = angle / sin(angle)
///     L_i = t cos(angle) e_i - t u_i e_k + g v_i v,    g = (sin(angle) - angle cos(angle)) / sin(angle)^3,  i != k
template <class V>
MFIK_INLINE void swing_rows(int k, const V* u, V* e, V* L) {
    constexpr double kTiny = 1e-9;       // of opposite axes: which way to turn is arbitrary, but not nowhere
    constexpr double kLeastSine = 5e-2;  // within 0.05 rad of opposite axes t and g would grow without bound
    const int i = (k + 1) % 3, j = (k + 2) % 3;
    const V cosine = u[k];
    V v[3];
    v[i] = u[j] + select(cosine < 0.0, splat<V>(kTiny), V());
    v[j] = -u[i];
    v[k] = V();
    const V sine = square_root(v[i] * v[i] + v[j] * v[j]), angle = half_plane_angle(sine, cosine);
    const V one = splat<V>(1.0);
    const Mask<V> still = and_not(sine < kTiny, cosine < 0.0);
    const V exact = select(still, one, angle / select(still, one, sine));
    for (int a = 0; a < 3; ++a) e[a] = exact * v[a];
    const Mask<V> opposite = and_not(sine < kLeastSine, cosine > 0.0);
    const V s = select(opposite, splat<V>(kLeastSine), sine);
    const V t = select(opposite, angle / kLeastSine, exact);
    const Mask<V> small = and_not(sine < kSeriesAngle, opposite);
    const V closed = (s - angle * cosine) / select(small, one, s * s * s);
    const V g = select(small, 1.0 / 3.0 + angle * angle * (2.0 / 15.0), closed);
    for (int a = 0; a < 9; ++a) L[a] = V();
    for (int row = 0; row < 3; ++row) {
        if (row == k) continue;
        L[3 * row + i] = g * v[row] * v[i];
        L[3 * row + j] = g * v[row] * v[j];
        L[4 * row] += t * cosine;
        L[3 * row + k] = -t * u[row];
    }
}

/// Error and row of the twist about axis k of D [9]:
///
///     e_k = -atan2(D_ji - D_ij, D_ii + D_jj),    L_k = (u + e_k) / (1 + u_k),  u = D e_k,  i = k + 1, j = k + 2
template <class V>
MFIK_INLINE void twist_row(int k, const V* D, V* e, V* L) {
    constexpr double kLeast = 1e-6;  // of 1 + u_k, which vanishes after half a turn of the swing
    const int i = (k + 1) % 3, j = (k + 2) % 3;
    const V y = D[3 * j + i] - D[3 * i + j], x = D[4 * i] + D[4 * j];
    const Mask<V> negative = y < 0.0;
    const V angle = half_plane_angle(select(negative, -y, y), x);
    for (int a = 0; a < 3; ++a) e[a] = V();
    for (int a = 0; a < 9; ++a) L[a] = V();
    e[k] = select(negative, angle, -angle);
    const V sum = 1.0 + D[4 * k];
    const V scale = 1.0 / select(sum < kLeast, splat<V>(kLeast), sum);
    L[3 * k + i] = scale * D[3 * i + k];
    L[3 * k + j] = scale * D[3 * j + k];
    L[4 * k] = splat<V>(1.0);
}

/// How far the tool T is from the target along the set's coordinates [6], with the sign of the motion that leads to the
/// target; 0 along those that are free. `rows` [9]: the last three change at the rate -rows w with the angular velocity
/// w of the tool in the base frame; the first three at -R_target^T v, where they are not free.
/// @param[in] slack  [6], see Constraints.
template <class V>
MFIK_INLINE void set_error(const double* slack, const TransformOf<V>& T_target, const TransformOf<V>& T, V* error,
                           V* rows) {
    for (int i = 0; i < 3; ++i) error[i] = T_target.p[i] - T.p[i];
    rotate_back(T_target.R, error);
    for (int i = 0; i < 3; ++i)
        if (slack[i] == HUGE_VAL) error[i] = V();

    V L[9] = {}, *e = error + 3;
    int free_turns = 0, free = 0, bounded = 0;  // the last axis of each kind
    for (int i = 0; i < 3; ++i) {
        const bool is_free = slack[3 + i] == HUGE_VAL;
        free_turns += is_free;
        (is_free ? free : bounded) = i;
    }
    if (free_turns == 0) {
        rotation_error(T_target.R, T.R, e);
        rotate_back(T_target.R, e);
        rotation_vector_rows(e, L);
    } else if (free_turns == 1) {
        V u[3] = {T.R[free], T.R[3 + free], T.R[6 + free]};
        rotate_back(T_target.R, u);
        swing_rows(free, u, e, L);
    } else if (free_turns == 2) {
        V D[9];
        for (int j = 0; j < 3; ++j) {
            V column[3] = {T.R[j], T.R[3 + j], T.R[6 + j]};
            rotate_back(T_target.R, column);
            for (int i = 0; i < 3; ++i) D[3 * i + j] = column[i];
        }
        twist_row(bounded, D, e, L);
    } else {
        for (int i = 0; i < 3; ++i) e[i] = V();
    }
    for (int a = 0; a < 3; ++a)
        for (int i = 0; i < 3; ++i)
            rows[3 * a + i] = L[3 * a] * T_target.R[3 * i] + L[3 * a + 1] * T_target.R[3 * i + 1] +
                              L[3 * a + 2] * T_target.R[3 * i + 2];
}

/// Column of a Jacobian [6], base frame, as the column of the set's coordinates: how fast set_error falls.
template <class V>
MFIK_INLINE void set_column(const double* slack, const TransformOf<V>& T_target, const V* rows, V* column) {
    rotate_back(T_target.R, column);
    for (int i = 0; i < 3; ++i)
        if (slack[i] == HUGE_VAL) column[i] = V();
    const V x = column[3], y = column[4], z = column[5];
    for (int i = 0; i < 3; ++i) column[3 + i] = rows[3 * i] * x + rows[3 * i + 1] * y + rows[3 * i + 2] * z;
}

/// Error [6] beyond the slack.
template <class V>
MFIK_INLINE void beyond_slack(const double* slack, const V* error, V* beyond) {
    for (int a = 0; a < 6; ++a) {
        const V e = error[a], s = splat<V>(slack[a]);
        beyond[a] = select(e > s, e - s, select(e < -s, e + s, V()));
    }
}

}  // namespace mfik
