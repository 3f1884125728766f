// Serial chain in z-aligned normal form: forward kinematics, geometric Jacobian, pose error.
//
// Every joint moves about (revolute, continuous) or along (prismatic) the z axis of its own frame. Arbitrary URDF axes
// are folded into the neighbouring fixed transforms when the robot is loaded (mfik/robots/urdf.py).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.hpp"

namespace mfik {

constexpr int kMaxJoints = 16;

enum class JointKind : std::int32_t { kRevolute = 0, kPrismatic = 1, kContinuous = 2 };

/// Kinematics and limits of a serial chain with `dof` joints.
struct Chain {
    int dof = 0;
    JointKind kind[kMaxJoints] = {};
    double origin[kMaxJoints + 1][12] = {};  // 3x4 row-major: fixed transform before each joint's motion; last: tool
    double lower[kMaxJoints] = {};           // [rad] or [m]
    double upper[kMaxJoints] = {};           // [rad] or [m]
};

/// Rigid transform: rotation (row-major) and translation [m].
struct Transform {
    double R[9];
    double p[3];
};

/// T <- T * origin, with `origin` a 3x4 row-major transform.
MFIK_HOST_DEVICE inline void compose_origin(Transform& T, const double* origin) {
    Transform out;
    for (int i = 0; i < 3; ++i) {
        const double a = T.R[3 * i], b = T.R[3 * i + 1], c = T.R[3 * i + 2];
        for (int j = 0; j < 3; ++j) out.R[3 * i + j] = a * origin[j] + b * origin[4 + j] + c * origin[8 + j];
        out.p[i] = T.p[i] + a * origin[3] + b * origin[7] + c * origin[11];
    }
    T = out;
}

/// T <- T * Rot_z(q) or Trans_z(q).
MFIK_HOST_DEVICE inline void compose_joint(Transform& T, JointKind kind, double q) {
    if (kind == JointKind::kPrismatic) {
        for (int i = 0; i < 3; ++i) T.p[i] += q * T.R[3 * i + 2];
        return;
    }
    const double s = std::sin(q), c = std::cos(q);
    for (int i = 0; i < 3; ++i) {
        const double x = T.R[3 * i], y = T.R[3 * i + 1];
        T.R[3 * i] = c * x + s * y;
        T.R[3 * i + 1] = c * y - s * x;
    }
}

/// Forward kinematics: T_base_tool of joints q [dof]. When `axis` and `point` are given ([dof][3] each), they receive
/// every joint's z axis and a point on it in the base frame, from which `jacobian_column` reads the Jacobian.
MFIK_HOST_DEVICE inline Transform forward(const Chain& chain, const double* q, double (*axis)[3] = nullptr,
                                          double (*point)[3] = nullptr) {
    Transform T;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) T.R[3 * i + j] = chain.origin[0][4 * i + j];
        T.p[i] = chain.origin[0][4 * i + 3];
    }
    for (int j = 0; j < chain.dof; ++j) {
        if (j > 0) compose_origin(T, chain.origin[j]);
        if (axis != nullptr) {
            for (int i = 0; i < 3; ++i) {
                axis[j][i] = T.R[3 * i + 2];
                point[j][i] = T.p[i];
            }
        }
        compose_joint(T, chain.kind[j], q[j]);
    }
    compose_origin(T, chain.origin[chain.dof]);
    return T;
}

/// Column of the geometric Jacobian, twist order [v, w], base frame, at the tool origin `p` [m].
MFIK_HOST_DEVICE inline void jacobian_column(JointKind kind, const double* axis, const double* point, const double* p,
                                             double* column) {
    if (kind == JointKind::kPrismatic) {
        for (int i = 0; i < 3; ++i) column[i] = axis[i], column[3 + i] = 0.0;
        return;
    }
    const double rx = p[0] - point[0], ry = p[1] - point[1], rz = p[2] - point[2];
    column[0] = axis[1] * rz - axis[2] * ry;
    column[1] = axis[2] * rx - axis[0] * rz;
    column[2] = axis[0] * ry - axis[1] * rx;
    for (int i = 0; i < 3; ++i) column[3 + i] = axis[i];
}

/// Rotation matrix (row-major) of a unit quaternion (w, x, y, z).
MFIK_HOST_DEVICE inline void quat_to_matrix(const double* quat, double* R) {
    const double w = quat[0], x = quat[1], y = quat[2], z = quat[3];
    R[0] = 1 - 2 * (y * y + z * z), R[1] = 2 * (x * y - w * z), R[2] = 2 * (x * z + w * y);
    R[3] = 2 * (x * y + w * z), R[4] = 1 - 2 * (x * x + z * z), R[5] = 2 * (y * z - w * x);
    R[6] = 2 * (x * z - w * y), R[7] = 2 * (y * z + w * x), R[8] = 1 - 2 * (x * x + y * y);
}

/// Unit quaternion (w, x, y, z), w >= 0, of a rotation matrix (Shepperd 1978: the largest component divides).
MFIK_HOST_DEVICE inline void matrix_to_quat(const double* R, double* quat) {
    const double trace = R[0] + R[4] + R[8];
    double w, x, y, z;
    if (trace >= R[0] && trace >= R[4] && trace >= R[8]) {
        w = 1 + trace, x = R[7] - R[5], y = R[2] - R[6], z = R[3] - R[1];
    } else if (R[0] >= R[4] && R[0] >= R[8]) {
        w = R[7] - R[5], x = 1 + R[0] - R[4] - R[8], y = R[1] + R[3], z = R[2] + R[6];
    } else if (R[4] >= R[8]) {
        w = R[2] - R[6], x = R[1] + R[3], y = 1 - R[0] + R[4] - R[8], z = R[5] + R[7];
    } else {
        w = R[3] - R[1], x = R[2] + R[6], y = R[5] + R[7], z = 1 - R[0] - R[4] + R[8];
    }
    const double scale = (w < 0 ? -1.0 : 1.0) / std::sqrt(w * w + x * x + y * y + z * z);
    quat[0] = w * scale, quat[1] = x * scale, quat[2] = y * scale, quat[3] = z * scale;
}

/// Pose [x, y, z, qw, qx, qy, qz] of a transform.
MFIK_HOST_DEVICE inline void to_pose(const Transform& T, double* pose) {
    for (int i = 0; i < 3; ++i) pose[i] = T.p[i];
    matrix_to_quat(T.R, pose + 3);
}

/// Transform of a pose with a unit quaternion.
MFIK_HOST_DEVICE inline Transform from_pose(const double* pose) {
    Transform T;
    quat_to_matrix(pose + 3, T.R);
    for (int i = 0; i < 3; ++i) T.p[i] = pose[i];
    return T;
}

/// Rotation vector [rad] of R_target * R^T, in the base frame: what the tool still has to turn.
MFIK_HOST_DEVICE inline void rotation_error(const double* R_target, const double* R, double* error) {
    double D[9];  // R_target * R^T
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            D[3 * i + j] =
                R_target[3 * i] * R[3 * j] + R_target[3 * i + 1] * R[3 * j + 1] + R_target[3 * i + 2] * R[3 * j + 2];
    // sin(angle) * axis and cos(angle); near pi the skew part vanishes and the quaternion takes over.
    const double vx = 0.5 * (D[7] - D[5]), vy = 0.5 * (D[2] - D[6]), vz = 0.5 * (D[3] - D[1]);
    const double sine = std::sqrt(vx * vx + vy * vy + vz * vz);
    const double cosine = 0.5 * (D[0] + D[4] + D[8] - 1.0);
    double scale = 1.0;
    if (cosine > -0.9) {
        if (sine > 1e-9) scale = std::atan2(sine, cosine) / sine;
        error[0] = scale * vx, error[1] = scale * vy, error[2] = scale * vz;
        return;
    }
    double quat[4];
    matrix_to_quat(D, quat);
    const double norm = std::sqrt(quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3]);
    scale = 2.0 * std::atan2(norm, quat[0]) / norm;
    error[0] = scale * quat[1], error[1] = scale * quat[2], error[2] = scale * quat[3];
}

/// Pose error [position [m]; rotation vector [rad]] of T against T_target, base frame.
MFIK_HOST_DEVICE inline void pose_error(const Transform& T_target, const Transform& T, double* error) {
    for (int i = 0; i < 3; ++i) error[i] = T_target.p[i] - T.p[i];
    rotation_error(T_target.R, T.R, error + 3);
}

MFIK_HOST_DEVICE inline double norm3(const double* v) {
    return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
}

/// Unit quaternion with w >= 0 from pose [7]; false (pose untouched) when the pose is not finite or the quaternion is
/// (nearly) zero. Any other norm is normalised.
MFIK_HOST_DEVICE inline bool normalize_pose(const double* pose, double* out) {
    double norm2 = 0.0;
    for (int i = 0; i < 7; ++i) {
        if (!std::isfinite(pose[i])) return false;
        if (i >= 3) norm2 += pose[i] * pose[i];
    }
    if (!(norm2 > 1e-12) || !std::isfinite(norm2)) return false;
    const double scale = (pose[3] < 0 ? -1.0 : 1.0) / std::sqrt(norm2);
    for (int i = 0; i < 3; ++i) out[i] = pose[i];
    for (int i = 3; i < 7; ++i) out[i] = pose[i] * scale;
    return true;
}

}  // namespace mfik
