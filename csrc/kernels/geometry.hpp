// What network type v2 sees of a state and its target, as mfik/model/v2/features.py describes it, and its gradient.
#pragma once

#include "kernels/refine.hpp"

namespace mfik {

// The same constants stand in mfik/model/v2/constants.py.
constexpr double kFeatureDampingGain =
    0.02;  // damping of the step by squared pose error; lengths in halves of the arm's
constexpr double kFeatureDampingFloor = 1e-5;   // its least value
constexpr double kFeatureAtLimit = 1.0 - 1e-5;  // of half a joint's range from its midpoint: there it is at its limit
constexpr double kAxisRadius = 1e-12;           // of the arm's half length: nearer to the first axis is no azimuth
constexpr double kAngleFloor = 1e-12;           // keeps the axis of a vanishing rotation error finite

constexpr int kMaxFeatures = 2 * kMaxJoints + 2 * (kMaxJoints - 1) + 30;

/// What the features take of a robot.
struct Geometry {
    explicit Geometry(const Chain& of);

    Chain chain;
    double scale;                 // 1 / L; infinity: a chain without length, which has no features
    double midpoint[kMaxJoints];  // of the limits [rad] or [m]
    double per_range[kMaxJoints];
    int size;  // number of features, the last dof of which are the step

    /// Place in its range of joint j at q [rad] or [m]: -1 at the lower limit to 1 at the upper one, 0 without limits.
    template <class V>
    MFIK_INLINE V place(int j, const V& q) const {
        return (q - midpoint[j]) * per_range[j];
    }
};

/// Rotation vector w [3] of D = R_target * R^T, smooth at 0, as its axis divides by sqrt(sin^2 + kAngleFloor), and what
/// its gradient needs.
template <class V>
struct FeatureTurn {
    V D[9], sine_axis[3], sine, cosine, stretch, w[3];

    MFIK_INLINE FeatureTurn(const V* R_target, const V* R) {
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j)
                D[3 * i + j] = R_target[3 * i] * R[3 * j] + R_target[3 * i + 1] * R[3 * j + 1] +
                               R_target[3 * i + 2] * R[3 * j + 2];
        sine_axis[0] = 0.5 * (D[7] - D[5]), sine_axis[1] = 0.5 * (D[2] - D[6]), sine_axis[2] = 0.5 * (D[3] - D[1]);
        sine = square_root(squared_norm3(sine_axis) + kAngleFloor);
        cosine = 0.5 * (D[0] + D[4] + D[8] - 1.0);
        stretch = half_plane_angle(sine, cosine) / sine;
        for (int i = 0; i < 3; ++i) w[i] = stretch * sine_axis[i];
    }

    /// Torque [3], the gradient by a small turn of R in the base frame, of a gradient by w.
    MFIK_INLINE void backward(const V* by_w, V* torque) const {
        const V along = by_w[0] * sine_axis[0] + by_w[1] * sine_axis[1] + by_w[2] * sine_axis[2];
        const V per_length2 = 1.0 / (sine * sine + cosine * cosine);
        const V by_sine = along * (cosine * per_length2 - stretch) / sine, half_by_cosine = -0.5 * along * per_length2;
        V v[3];  // half the gradient by sine_axis
        for (int i = 0; i < 3; ++i) v[i] = 0.5 * (stretch * by_w[i] + by_sine * sine_axis[i] / sine);
        // M = D^T * (gradient by D), of which the skew part is left.
        const V by_D[9] = {half_by_cosine, -v[2], v[1], v[2], half_by_cosine, -v[0], -v[1], v[0], half_by_cosine};
        V M[9];
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j) M[3 * i + j] = D[i] * by_D[j] + D[3 + i] * by_D[3 + j] + D[6 + i] * by_D[6 + j];
        torque[0] = M[5] - M[7], torque[1] = M[6] - M[2], torque[2] = M[1] - M[3];
    }
};

/// The step d = s / (1 + |s|^4), s = J^T (J J^T + damping I)^-1 error [dof], lengths / L, and what its gradient needs.
/// J lacks the joints that are at a limit which the error, by J^T error, pulls them beyond: the others make up for
/// them.
template <class V>
struct FeatureStep {
    V error[6], error2, J[kMaxJoints][6], free[kMaxJoints], A[6][6] = {}, y[6], s[kMaxJoints], square = V(), shorten;

    MFIK_INLINE FeatureStep(const Geometry& geometry, const V* q, const V (*axis)[3], const V (*point)[3], const V* tip,
                            const V* target, const V* w) {
        const Chain& chain = geometry.chain;
        for (int i = 0; i < 3; ++i) error[i] = geometry.scale * (target[i] - tip[i]), error[3 + i] = w[i];
        error2 = squared_norm3(error) + squared_norm3(error + 3);
        for (int j = 0; j < chain.dof; ++j) {
            jacobian_column(chain.kind[j], axis[j], point[j], tip, J[j]);
            for (int i = 0; i < 3; ++i) J[j][i] *= geometry.scale;
            V pull = V();
            for (int a = 0; a < 6; ++a) pull += J[j][a] * error[a];
            const V place = geometry.place(j, q[j]);
            const Mask<V> held =
                ((place >= kFeatureAtLimit) & (pull > 0.0)) | ((place <= -kFeatureAtLimit) & (pull < 0.0));
            free[j] = select(held, V(), splat<V>(1.0));
            for (int a = 0; a < 6; ++a) J[j][a] *= free[j];
            for (int a = 0; a < 6; ++a)
                for (int b = 0; b <= a; ++b) A[a][b] += J[j][a] * J[j][b];
        }
        for (int a = 0; a < 6; ++a) A[a][a] += kFeatureDampingGain * error2 + kFeatureDampingFloor, y[a] = error[a];
        solve(y);
        for (int j = 0; j < chain.dof; ++j) {
            s[j] = V();
            for (int a = 0; a < 6; ++a) s[j] += J[j][a] * y[a];
            square += s[j] * s[j];
        }
        shorten = 1.0 / (1.0 + square * square);
    }

    /// y = A^-1 y.
    MFIK_INLINE void solve(V* rhs) const {
        V L[6][6];
        for (int a = 0; a < 6; ++a)
            for (int b = 0; b <= a; ++b) L[a][b] = A[a][b];
        solve6(L, rhs);
    }

    /// Of a gradient by the step [dof] and one by error2: those by the error [6] and by the Jacobian's columns
    /// [dof][6].
    MFIK_INLINE void backward(int dof, const V* by_step, const V& by_error2, V* by_error, V (*by_J)[6]) const {
        V along = V(), by_s[kMaxJoints], x[6] = {};
        for (int j = 0; j < dof; ++j) along += by_step[j] * s[j];
        const V back = 4.0 * along * square * shorten * shorten;
        for (int j = 0; j < dof; ++j) {
            by_s[j] = shorten * by_step[j] - back * s[j];
            for (int a = 0; a < 6; ++a) x[a] += J[j][a] * by_s[j];
        }
        solve(x);  // A is symmetric
        V by_damping = V();
        for (int a = 0; a < 6; ++a) by_damping -= x[a] * y[a];
        const V twice = 2.0 * (by_error2 + kFeatureDampingGain * by_damping);
        for (int a = 0; a < 6; ++a) by_error[a] = x[a] + twice * error[a];
        for (int j = 0; j < dof; ++j) {
            V xJ = V();
            for (int a = 0; a < 6; ++a) xJ += x[a] * J[j][a];
            for (int a = 0; a < 6; ++a) by_J[j][a] = free[j] * ((by_s[j] - xJ) * y[a] - s[j] * x[a]);
        }
    }
};

/// Frame of the last joint before its motion q, for a tool at T.
template <class V>
MFIK_INLINE TransformOf<V> before_last_joint(const Chain& chain, const TransformOf<V>& T, const V& q, const V& sine,
                                             const V& cosine) {
    const double* tip = chain.origin[chain.dof];
    TransformOf<V> out;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j)
            out.R[3 * i + j] =
                T.R[3 * i] * tip[4 * j] + T.R[3 * i + 1] * tip[4 * j + 1] + T.R[3 * i + 2] * tip[4 * j + 2];
        out.p[i] = T.p[i] - out.R[3 * i] * tip[3] - out.R[3 * i + 1] * tip[7] - out.R[3 * i + 2] * tip[11];
    }
    if (chain.kind[chain.dof - 1] == JointKind::kPrismatic) {
        for (int i = 0; i < 3; ++i) out.p[i] -= q * out.R[3 * i + 2];
    } else {
        turn_z(out.R, -sine, cosine);
    }
    return out;
}

/// The frame F in which features are given: the first joint's before its motion, turned about its axis to the azimuth
/// whose cosine and sine are c and s.
template <class V>
struct FeatureFrame {
    const double* base;  // rotation and position [3][4], row-major
    V c, s;

    MFIK_INLINE void rotate_to_base(V* v) const {
        const V x = v[0], y = v[1], z = v[2];
        for (int i = 0; i < 3; ++i) v[i] = base[i] * x + base[4 + i] * y + base[8 + i] * z;
    }
    /// out = factor * F^T v, its three values `stride` apart.
    MFIK_INLINE void put(const V* v, int v_stride, double factor, V* out, int stride) const {
        V b[3] = {factor * v[0], factor * v[v_stride], factor * v[2 * v_stride]};
        rotate_to_base(b);
        out[0] = c * b[0] + s * b[1], out[stride] = c * b[1] - s * b[0], out[2 * stride] = b[2];
    }
    /// Of the gradient g by what `put` writes: by_v [3], and what is added to the gradients by c and s.
    MFIK_INLINE void put_backward(const V* v, int v_stride, double factor, const V* g, int stride, V* by_v, V& by_c,
                                  V& by_s) const {
        V b[3] = {factor * v[0], factor * v[v_stride], factor * v[2 * v_stride]};
        rotate_to_base(b);
        const V gx = g[0], gy = g[stride], gz = g[2 * stride];
        by_c += gx * b[0] + gy * b[1];
        by_s += gx * b[1] - gy * b[0];
        const V x = factor * (c * gx - s * gy), y = factor * (s * gx + c * gy), z = factor * gz;
        for (int i = 0; i < 3; ++i) by_v[i] = base[4 * i] * x + base[4 * i + 1] * y + base[4 * i + 2] * z;
    }
};

/// sum += a x b.
template <class V>
MFIK_INLINE void add_cross(const V* a, const V* b, V* sum) {
    sum[0] += a[1] * b[2] - a[2] * b[1];
    sum[1] += a[2] * b[0] - a[0] * b[2];
    sum[2] += a[0] * b[1] - a[1] * b[0];
}

/// What joints q [dof] look like beside a target pose [7]: the features, and their gradient.
template <class V>
struct Look {
    const Geometry& geometry;
    const Chain& chain;
    int last;
    V sine[kMaxJoints], cosine[kMaxJoints], axis[kMaxJoints][3], point[kMaxJoints][3];
    TransformOf<V> tool, target;
    TransformOf<V> is, wanted;  // the last joint's frame before its motion; the same as the target wants it if q stays
    V from_joint1[3], from_joint1_to_is[3], still_to_go[3];  // of the last joint's frame
    V radius;                    // of the target's last joint about the first one's axis; infinite on it
    V first_sine, first_cosine;  // the first joint's angle is counted from the target's azimuth
    FeatureFrame<V> F;
    FeatureTurn<V> turn;
    FeatureStep<V> step;

    MFIK_INLINE Look(const Geometry& of, const V* q, const V* pose)
        : geometry(of),
          chain(of.chain),
          last(chain.dof - 1),
          tool(forward(chain, q, axis, point, sine, cosine)),
          target(from_pose(pose)),
          is(before_last_joint(chain, tool, q[last], sine[last], cosine[last])),
          wanted(before_last_joint(chain, target, q[last], sine[last], cosine[last])),
          radius(splat<V>(1.0)),
          first_sine(sine[0]),
          first_cosine(cosine[0]),
          F{chain.origin[0], splat<V>(1.0), splat<V>(0.0)},
          turn(target.R, tool.R),
          step(of, q, axis, point, tool.p, target.p, turn.w) {
        for (int i = 0; i < 3; ++i) {
            from_joint1[i] = wanted.p[i] - F.base[4 * i + 3];
            from_joint1_to_is[i] = is.p[i] - F.base[4 * i + 3];
            still_to_go[i] = wanted.p[i] - is.p[i];
        }
        if (!has_azimuth()) return;
        V p[3] = {from_joint1[0], from_joint1[1], from_joint1[2]};
        F.rotate_to_base(p);
        radius = square_root(p[0] * p[0] + p[1] * p[1]);
        const Mask<V> on_axis = radius * geometry.scale < kAxisRadius;
        radius = select(on_axis, splat<V>(HUGE_VAL), radius);  // no gradient leads away from it
        F.c = select(on_axis, splat<V>(1.0), p[0] / radius), F.s = p[1] / radius;
        first_sine = sine[0] * F.c - cosine[0] * F.s;
        first_cosine = cosine[0] * F.c + sine[0] * F.s;
    }

    /// out [geometry.size]
    MFIK_INLINE void features(const V* q, V* out) const {
        const double scale = geometry.scale;
        for (int j = 0; j <= last; ++j) *out++ = geometry.place(j, q[j]);
        for (int j = 0; j < last; ++j)
            if (chain.kind[j] != JointKind::kPrismatic) *out++ = j == 0 ? first_sine : sine[j];
        for (int j = 0; j < last; ++j)
            if (chain.kind[j] != JointKind::kPrismatic) *out++ = j == 0 ? first_cosine : cosine[j];
        F.put(from_joint1, 1, scale, out, 1), out += 3;
        for (int k = 0; k < 3; ++k) F.put(wanted.R + k, 3, 1.0, out + k, 3);
        out += 9;
        F.put(from_joint1_to_is, 1, scale, out, 1), out += 3;
        for (int k = 0; k < 3; ++k) F.put(is.R + k, 3, 1.0, out + k, 3);
        out += 9;
        F.put(still_to_go, 1, scale, out, 1), out += 3;
        F.put(turn.w, 1, 1.0, out, 1), out += 3;
        for (int j = 0; j <= last; ++j) *out++ = step.shorten * step.s[j];
    }

    /// by_q [dof]: the gradient by q of one by the features, g [geometry.size], and one by the squared pose error.
    MFIK_INLINE void backward(const V* g, const V& by_error2, V* by_q) const {
        const double scale = geometry.scale;
        V by_c = V(), by_s = V();
        for (int j = 0; j <= last; ++j) by_q[j] = *g++ * geometry.per_range[j];
        for (int j = 0; j < last; ++j) {
            if (chain.kind[j] == JointKind::kPrismatic) continue;
            if (j == 0) by_c += *g * sine[0], by_s -= *g * cosine[0];
            by_q[j] += *g++ * (j == 0 ? first_cosine : cosine[j]);
        }
        for (int j = 0; j < last; ++j) {
            if (chain.kind[j] == JointKind::kPrismatic) continue;
            if (j == 0) by_c += *g * cosine[0], by_s += *g * sine[0];
            by_q[j] -= *g++ * (j == 0 ? first_sine : sine[j]);
        }
        V by_wanted_p[3], by_wanted_R[3][3], by_is_p[3], by_is_R[3][3], by_both[3], by_w[3];  // of R by its columns
        F.put_backward(from_joint1, 1, scale, g, 1, by_wanted_p, by_c, by_s), g += 3;
        for (int k = 0; k < 3; ++k) F.put_backward(wanted.R + k, 3, 1.0, g + k, 3, by_wanted_R[k], by_c, by_s);
        g += 9;
        F.put_backward(from_joint1_to_is, 1, scale, g, 1, by_is_p, by_c, by_s), g += 3;
        for (int k = 0; k < 3; ++k) F.put_backward(is.R + k, 3, 1.0, g + k, 3, by_is_R[k], by_c, by_s);
        g += 9;
        F.put_backward(still_to_go, 1, scale, g, 1, by_both, by_c, by_s), g += 3;
        for (int i = 0; i < 3; ++i) by_wanted_p[i] += by_both[i], by_is_p[i] -= by_both[i];
        F.put_backward(turn.w, 1, 1.0, g, 1, by_w, by_c, by_s), g += 3;
        wanted_backward(by_wanted_p, by_wanted_R, by_c, by_s, by_q);
        chain_backward(g, by_error2, by_w, by_is_p, by_is_R, by_q);
    }

  private:
    /// A single joint's target lies on its axis.
    [[nodiscard]] MFIK_INLINE bool has_azimuth() const { return chain.kind[0] != JointKind::kPrismatic && last > 0; }

    /// What the last joint's frame as the target wants it says of that joint.
    MFIK_INLINE void wanted_backward(V* by_p, const V (*by_R)[3], const V& by_c, const V& by_s, V* by_q) const {
        if (chain.kind[last] != JointKind::kPrismatic) {  // turned back by q: x' = -y dq, y' = x dq
            for (int i = 0; i < 3; ++i) by_q[last] += by_R[1][i] * wanted.R[3 * i] - by_R[0][i] * wanted.R[3 * i + 1];
            return;
        }
        if (has_azimuth()) {  // c = x / radius, s = y / radius
            const V back = (by_c * F.c + by_s * F.s) / radius;
            const V x = by_c / radius - back * F.c, y = by_s / radius - back * F.s;
            for (int i = 0; i < 3; ++i) by_p[i] += F.base[4 * i] * x + F.base[4 * i + 1] * y;
        }
        for (int i = 0; i < 3; ++i) by_q[last] -= by_p[i] * wanted.R[3 * i + 2];
    }

    /// What depends on the chain's frames: each joint feels the forces on all that it moves.
    MFIK_INLINE void chain_backward(const V* by_step, const V& by_error2, V* by_w, const V* by_is_p,
                                    const V (*by_is_R)[3], V* by_q) const {
        const double scale = geometry.scale;
        V by_error[6], by_J[kMaxJoints][6], by_axis[kMaxJoints][3], by_point[kMaxJoints][3], by_tip[3], torque[3];
        step.backward(chain.dof, by_step, by_error2, by_error, by_J);
        for (int i = 0; i < 3; ++i) by_tip[i] = -scale * by_error[i], by_w[i] += by_error[3 + i];
        turn.backward(by_w, torque);
        for (int j = 0; j <= last; ++j) {
            V arm[3], linear[3], lever[3] = {};
            for (int i = 0; i < 3; ++i) {
                arm[i] = tool.p[i] - point[j][i];
                linear[i] = scale * by_J[j][i];
                by_point[j][i] = V();
            }
            if (chain.kind[j] == JointKind::kPrismatic) {
                for (int i = 0; i < 3; ++i) by_axis[j][i] = linear[i];
                continue;
            }
            for (int i = 0; i < 3; ++i) by_axis[j][i] = by_J[j][3 + i];
            add_cross(arm, linear, by_axis[j]);
            add_cross(linear, axis[j], lever);
            for (int i = 0; i < 3; ++i) by_tip[i] += lever[i], by_point[j][i] -= lever[i];
        }
        for (int i = 0; i < 3; ++i) by_point[last][i] += by_is_p[i];
        V force[3] = {by_tip[0], by_tip[1], by_tip[2]};
        add_cross(tool.p, force, torque);  // about the base's origin
        for (int j = last; j >= 0; --j) {
            V here[3] = {torque[0], torque[1], torque[2]}, at[3] = {-point[j][0], -point[j][1], -point[j][2]};
            add_cross(at, force, here);
            const bool slides = chain.kind[j] == JointKind::kPrismatic;
            for (int i = 0; i < 3; ++i) by_q[j] += axis[j][i] * (slides ? force[i] : here[i]);
            add_cross(axis[j], by_axis[j], torque);
            add_cross(point[j], by_point[j], torque);
            for (int i = 0; i < 3; ++i) force[i] += by_point[j][i];
            if (j < last) continue;
            for (int k = 0; k < 3; ++k) {
                const V column[3] = {is.R[k], is.R[3 + k], is.R[6 + k]};
                add_cross(column, by_is_R[k], torque);
            }
        }
    }
};

}  // namespace mfik
