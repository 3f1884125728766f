// Serial chain in z-aligned normal form: forward kinematics, geometric Jacobian, pose error.
//
// Every joint moves about (revolute, continuous) or along (prismatic) the z axis of its own frame. Arbitrary URDF axes
// are folded into the neighbouring fixed transforms when the robot is loaded (mfik/robots/serial_chain.py).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/inline.hpp"
#include "kernels/lanes.hpp"

namespace mfik {

constexpr int kMaxJoints = 16;

enum class JointKind : std::int32_t { kRevolute = 0, kPrismatic = 1, kContinuous = 2 };

/// A frame that moves by `ratio` times a joint [rad] or [m].
struct MovingFrame {
    int joint;
    double ratio;
    JointKind kind;
};

/// Kinematics and limits of a serial chain with `dof` joints. Each moves a frame, in this order, and mimics move more
/// of them: then `frame` says which joint moves each of the dof + mimics.
struct Chain {
    int dof = 0;
    int mimics = 0;
    JointKind kind[kMaxJoints] = {};
    double origin[kMaxJoints + 1][12] = {};  // 3x4 row-major: fixed transform before each frame's motion; last: tool
    MovingFrame frame[kMaxJoints] = {};      // where there are mimics
    double lower[kMaxJoints] = {};           // [rad] or [m]
    double upper[kMaxJoints] = {};           // [rad] or [m]
};

/// The moving frames of a chain, of which others than Chain have one for each joint.
template <class C>
MFIK_INLINE int num_frames(const C& chain) {
    return chain.dof;
}
MFIK_INLINE int num_frames(const Chain& chain) {
    return chain.dof + chain.mimics;
}
template <class C>
MFIK_INLINE MovingFrame moving_frame(const C& chain, int f) {
    return {f, 1.0, chain.kind[f]};
}
MFIK_INLINE MovingFrame moving_frame(const Chain& chain, int f) {
    return chain.mimics == 0 ? MovingFrame{f, 1.0, chain.kind[f]} : chain.frame[f];
}

/// Whether mimics follow joint j.
MFIK_INLINE bool is_followed(const Chain& chain, int j) {
    int moved = 0;
    for (int f = 0; chain.mimics > 0 && f < num_frames(chain); ++f) moved += chain.frame[f].joint == j;
    return moved > 1;
}

/// Rigid transform: rotation (row-major) and translation [m]. V: double, Single, or Lanes for several problems side by
/// side. Functions of a chain take any type with `dof`, `kind` and `origin` as in Chain (C).
template <class V>
struct TransformOf {
    V R[9];
    V p[3];
};
using Transform = TransformOf<double>;

/// T <- T * origin, with `origin` a 3x4 row-major transform.
template <class V, class S>
MFIK_INLINE void compose_origin(TransformOf<V>& T, const S* origin) {
    TransformOf<V> out;
    for (int i = 0; i < 3; ++i) {
        const V a = T.R[3 * i], b = T.R[3 * i + 1], c = T.R[3 * i + 2];
        for (int j = 0; j < 3; ++j) out.R[3 * i + j] = a * origin[j] + b * origin[4 + j] + c * origin[8 + j];
        out.p[i] = T.p[i] + a * origin[3] + b * origin[7] + c * origin[11];
    }
    T = out;
}

/// R <- R * Rot_z, of the angle whose sine and cosine are given.
template <class V>
MFIK_INLINE void turn_z(V* R, const V& sine, const V& cosine) {
    for (int i = 0; i < 3; ++i) {
        const V x = R[3 * i], y = R[3 * i + 1];
        R[3 * i] = cosine * x + sine * y;
        R[3 * i + 1] = cosine * y - sine * x;
    }
}

/// T <- T * Trans_z(q).
template <class V>
MFIK_INLINE void slide_z(TransformOf<V>& T, const V& q) {
    for (int i = 0; i < 3; ++i) T.p[i] += q * T.R[3 * i + 2];
}

/// T <- T * Rot_z(q) or Trans_z(q).
template <class V>
MFIK_INLINE void compose_joint(TransformOf<V>& T, JointKind kind, const V& q) {
    if (kind == JointKind::kPrismatic) return slide_z(T, q);
    V s, c;
    sine_cosine(q, s, c);
    turn_z(T.R, s, c);
}

/// Sines and cosines of the angles by which a chain's frames turn: each where it is asked for.
template <class V>
struct Turns {
    template <class C>
    MFIK_INLINE Turns(const C&, const V*) {}
    MFIK_INLINE void of(int, const V& angle, V& sine, V& cosine) const { sine_cosine(angle, sine, cosine); }
};

#ifndef __CUDACC__

/// All of them at once, in lanes.
template <>
struct Turns<double> {
    template <class C>
    MFIK_INLINE Turns(const C& chain, const double* q) {
        const int n = num_frames(chain);
        double angle[kRoom];
        for (int f = 0; f < n; ++f) {
            const MovingFrame frame = moving_frame(chain, f);
            angle[f] = frame.ratio * q[frame.joint];
        }
        for (int f = n; f % kLanes != 0; ++f) angle[f] = 0.0;
        sines_cosines(angle, n, sine_, cosine_);
    }
    MFIK_INLINE void of(int f, double, double& sine, double& cosine) const { sine = sine_[f], cosine = cosine_[f]; }

  private:
    static constexpr int kRoom = kMaxJoints + 8;  // of a register more, whatever its width
    double sine_[kRoom], cosine_[kRoom];
};

#endif

/// Forward kinematics: T_base_tool of joints q [dof]. When `axis` and `point` are given ([frames][3] each), they
/// receive every moving frame's z axis and a point on it in the base frame, from which `joint_column` reads the
/// Jacobian; `sine` and `cosine` [frames] those of the frames that turn.
template <class V, class C>
MFIK_INLINE TransformOf<V> forward(const C& chain, const V* q, V (*axis)[3] = nullptr, V (*point)[3] = nullptr,
                                   V* sine = nullptr, V* cosine = nullptr) {
    TransformOf<V> T;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) T.R[3 * i + j] = splat<V>(chain.origin[0][4 * i + j]);
        T.p[i] = splat<V>(chain.origin[0][4 * i + 3]);
    }
    const Turns<V> turns(chain, q);
    for (int f = 0; f < num_frames(chain); ++f) {
        if (f > 0) compose_origin(T, chain.origin[f]);
        if (axis != nullptr) {
            for (int i = 0; i < 3; ++i) {
                axis[f][i] = T.R[3 * i + 2];
                point[f][i] = T.p[i];
            }
        }
        V s = V(), c = V();
        const MovingFrame frame = moving_frame(chain, f);
        const V x = frame.ratio * q[frame.joint];
        if (frame.kind == JointKind::kPrismatic) {
            slide_z(T, x);
        } else {
            turns.of(f, x, s, c);
            turn_z(T.R, s, c);
        }
        if (sine != nullptr) sine[f] = s, cosine[f] = c;
    }
    compose_origin(T, chain.origin[num_frames(chain)]);
    return T;
}

/// Column of the geometric Jacobian, twist order [v, w], base frame, at the tool origin `p` [m].
template <class V>
MFIK_INLINE void jacobian_column(JointKind kind, const V* axis, const V* point, const V* p, V* column) {
    if (kind == JointKind::kPrismatic) {
        for (int i = 0; i < 3; ++i) column[i] = axis[i], column[3 + i] = V();
        return;
    }
    const V rx = p[0] - point[0], ry = p[1] - point[1], rz = p[2] - point[2];
    column[0] = axis[1] * rz - axis[2] * ry;
    column[1] = axis[2] * rx - axis[0] * rz;
    column[2] = axis[0] * ry - axis[1] * rx;
    for (int i = 0; i < 3; ++i) column[3 + i] = axis[i];
}

/// The same of joint j, whose mimics add to it; `axis` and `point` of forward().
template <class V, class C>
MFIK_INLINE void joint_column(const C& chain, int j, const V (*axis)[3], const V (*point)[3], const V* p, V* column) {
    jacobian_column(chain.kind[j], axis[j], point[j], p, column);
}
template <class V>
MFIK_INLINE void joint_column(const Chain& chain, int j, const V (*axis)[3], const V (*point)[3], const V* p,
                              V* column) {
    if (chain.mimics == 0) return jacobian_column(chain.kind[j], axis[j], point[j], p, column);
    for (int a = 0; a < 6; ++a) column[a] = V();
    for (int f = 0; f < num_frames(chain); ++f) {
        const MovingFrame& frame = chain.frame[f];
        if (frame.joint != j) continue;
        V own[6];
        jacobian_column(frame.kind, axis[f], point[f], p, own);
        for (int a = 0; a < 6; ++a) column[a] += frame.ratio * own[a];
    }
}

/// Rotation matrix (row-major) of a unit quaternion (w, x, y, z).
template <class V>
MFIK_INLINE void quat_to_matrix(const V* quat, V* R) {
    const V w = quat[0], x = quat[1], y = quat[2], z = quat[3];
    R[0] = 1 - 2 * (y * y + z * z), R[1] = 2 * (x * y - w * z), R[2] = 2 * (x * z + w * y);
    R[3] = 2 * (x * y + w * z), R[4] = 1 - 2 * (x * x + z * z), R[5] = 2 * (y * z - w * x);
    R[6] = 2 * (x * z - w * y), R[7] = 2 * (y * z + w * x), R[8] = 1 - 2 * (x * x + y * y);
}

/// Unit quaternion (w, x, y, z), w >= 0, of a rotation matrix (Shepperd 1978: the largest component divides).
template <class V>
MFIK_INLINE void matrix_to_quat(const V* R, V* quat) {
    const V trace = R[0] + R[4] + R[8];
    const V wx = R[7] - R[5], wy = R[2] - R[6], wz = R[3] - R[1];  // 4 w x, ...
    const V xy = R[1] + R[3], yz = R[5] + R[7], xz = R[2] + R[6];
    const V xx = 1 + R[0] - R[4] - R[8], yy = 1 - R[0] + R[4] - R[8], zz = 1 - R[0] - R[4] + R[8];
    const Mask<V> by_y = R[4] >= R[8];
    const V larger = select(by_y, R[4], R[8]);
    const Mask<V> by_x = R[0] >= larger, by_w = trace >= select(by_x, R[0], larger);
    const V w = select(by_w, 1 + trace, select(by_x, wx, select(by_y, wy, wz)));
    const V x = select(by_w, wx, select(by_x, xx, select(by_y, xy, xz)));
    const V y = select(by_w, wy, select(by_x, xy, select(by_y, yy, yz)));
    const V z = select(by_w, wz, select(by_x, xz, select(by_y, yz, zz)));
    const V length = square_root(w * w + x * x + y * y + z * z);
    const V scale = 1.0 / select(w < 0.0, -length, length);
    quat[0] = w * scale, quat[1] = x * scale, quat[2] = y * scale, quat[3] = z * scale;
}

/// Pose [x, y, z, qw, qx, qy, qz] of a transform.
template <class V>
MFIK_INLINE void to_pose(const TransformOf<V>& T, V* pose) {
    for (int i = 0; i < 3; ++i) pose[i] = T.p[i];
    matrix_to_quat(T.R, pose + 3);
}

/// Transform of a pose with a unit quaternion.
template <class V>
MFIK_INLINE TransformOf<V> from_pose(const V* pose) {
    TransformOf<V> T;
    quat_to_matrix(pose + 3, T.R);
    for (int i = 0; i < 3; ++i) T.p[i] = pose[i];
    return T;
}

/// Rotation vector [rad] of R_target * R^T, in the base frame: what the tool still has to turn.
template <class V>
MFIK_INLINE void rotation_error(const V* R_target, const V* R, V* error) {
    V D[9];  // R_target * R^T
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            D[3 * i + j] =
                R_target[3 * i] * R[3 * j] + R_target[3 * i + 1] * R[3 * j + 1] + R_target[3 * i + 2] * R[3 * j + 2];
    // sin(angle) * axis and cos(angle)
    const V v[3] = {0.5 * (D[7] - D[5]), 0.5 * (D[2] - D[6]), 0.5 * (D[3] - D[1])};
    const V sine = square_root(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    const V cosine = 0.5 * (D[0] + D[4] + D[8] - 1.0);
    const V angle = half_plane_angle(sine, cosine);
    const Mask<V> tiny = sine < 1e-9;
    const V scale = select(tiny, splat<V>(1.0), angle / select(tiny, splat<V>(1.0), sine));
    for (int i = 0; i < 3; ++i) error[i] = scale * v[i];

    const Mask<V> near_pi = cosine < -0.9;
    if (!any(near_pi)) return;
    // The skew part vanishes at pi. The symmetric part is cos I + (1 - cos) a a^T: the axis is its longest column.
    const V inverse = 1.0 / (1.0 - cosine);
    V column[3] = {}, diagonal = V() - 1.0;
    for (int k = 0; k < 3; ++k) {
        const V d = (D[4 * k] - cosine) * inverse;
        const Mask<V> longer = d > diagonal;
        diagonal = select(longer, d, diagonal);
        for (int i = 0; i < 3; ++i) {
            const V b = i == k ? d : 0.5 * (D[3 * i + k] + D[3 * k + i]) * inverse;
            column[i] = select(longer, b, column[i]);
        }
    }
    const V along = column[0] * v[0] + column[1] * v[1] + column[2] * v[2];
    const V length = square_root(column[0] * column[0] + column[1] * column[1] + column[2] * column[2]);
    const V signed_angle = select(along < 0.0, -angle, angle) / length;
    for (int i = 0; i < 3; ++i) error[i] = select(near_pi, signed_angle * column[i], error[i]);
}

/// Pose error [position [m]; rotation vector [rad]] of T against T_target, base frame.
template <class V>
MFIK_INLINE void pose_error(const TransformOf<V>& T_target, const TransformOf<V>& T, V* error) {
    for (int i = 0; i < 3; ++i) error[i] = T_target.p[i] - T.p[i];
    rotation_error(T_target.R, T.R, error + 3);
}

template <class V>
MFIK_INLINE V squared_norm3(const V* v) {
    return v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
}

MFIK_INLINE double norm3(const double* v) {
    return std::sqrt(squared_norm3(v));
}

/// Unit quaternion with w >= 0 from pose [7]; false (pose untouched) when the pose is not finite or the quaternion is
/// (nearly) zero. Any other norm is normalised.
template <class T>
MFIK_INLINE bool normalize_pose(const T* pose, T* out) {
    T norm2 = 0;
    for (int i = 0; i < 7; ++i) {
        if (!std::isfinite(pose[i])) return false;
        if (i >= 3) norm2 += pose[i] * pose[i];
    }
    if (!(norm2 > T(1e-12)) || !std::isfinite(norm2)) return false;
    const T scale = (pose[3] < 0 ? T(-1) : T(1)) / std::sqrt(norm2);
    for (int i = 0; i < 3; ++i) out[i] = pose[i];
    for (int i = 3; i < 7; ++i) out[i] = pose[i] * scale;
    return true;
}

}  // namespace mfik
