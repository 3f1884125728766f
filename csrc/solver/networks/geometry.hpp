// Inputs of network type v2: a state and its target as mfik/model/v2/features.py describes them.
#pragma once

#include "kernels/refine.hpp"

namespace mfik {

// The same constants stand in mfik/model/v2/features.py.
constexpr double kFeatureDamping = 2.5e-3;  // of the damped-least-squares step; lengths in halves of the arm's
constexpr double kAxisFloor = 1e-6;         // [m^2]: keeps the azimuth of a target on the first joint's axis finite
constexpr double kAngleFloor = 1e-12;       // keeps the axis of a vanishing rotation error finite

constexpr int kMaxFeatures = 2 * kMaxJoints + 2 * (kMaxJoints - 1) + 30;

/// What the features take of a robot.
struct Geometry {
    explicit Geometry(const Chain& of);

    Chain chain;
    double scale;                 // 1 / L; infinity: a chain without length, which has no features
    double midpoint[kMaxJoints];  // of the limits [rad] or [m]
    double per_range[kMaxJoints];
    int size;  // number of features, the last dof of which are the step
};

/// Pose error of the tool [6]: lengths / L, rotation vector [rad]. Smooth at 0, as its axis divides by
/// sqrt(sin^2 + kAngleFloor).
template <class V>
MFIK_INLINE void feature_error(const V& scale, const TransformOf<V>& target, const TransformOf<V>& tool, V* error) {
    V D[9];  // target * tool^T
    for (int i = 0; i < 3; ++i) {
        error[i] = scale * (target.p[i] - tool.p[i]);
        for (int j = 0; j < 3; ++j)
            D[3 * i + j] = target.R[3 * i] * tool.R[3 * j] + target.R[3 * i + 1] * tool.R[3 * j + 1] +
                           target.R[3 * i + 2] * tool.R[3 * j + 2];
    }
    const V v[3] = {0.5 * (D[7] - D[5]), 0.5 * (D[2] - D[6]), 0.5 * (D[3] - D[1])};
    const V length = square_root(squared_norm3(v) + kAngleFloor);
    const V stretch = half_plane_angle(length, 0.5 * (D[0] + D[4] + D[8] - 1.0)) / length;
    for (int i = 0; i < 3; ++i) error[3 + i] = stretch * v[i];
}

/// The step d = J^T (J J^T + kFeatureDamping I)^-1 error [dof], lengths / L, shortened where it is long: d / (1 +
/// |d|^4).
template <class V>
MFIK_INLINE void feature_step(const Chain& chain, const V& scale, const V (*axis)[3], const V (*point)[3], const V* tip,
                              const V* error, V* step) {
    V J[kMaxJoints][6], A[6][6] = {}, y[6], square = V();
    for (int j = 0; j < chain.dof; ++j) {
        jacobian_column(chain.kind[j], axis[j], point[j], tip, J[j]);
        for (int i = 0; i < 3; ++i) J[j][i] *= scale;
        for (int a = 0; a < 6; ++a)
            for (int b = 0; b <= a; ++b) A[a][b] += J[j][a] * J[j][b];
    }
    for (int a = 0; a < 6; ++a) A[a][a] += splat<V>(kFeatureDamping), y[a] = error[a];
    solve6(A, y);
    for (int j = 0; j < chain.dof; ++j) {
        step[j] = V();
        for (int a = 0; a < 6; ++a) step[j] += J[j][a] * y[a];
        square += step[j] * step[j];
    }
    const V shorten = 1.0 / (1.0 + square * square);
    for (int j = 0; j < chain.dof; ++j) step[j] = step[j] * shorten;
}

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

/// Writes features one behind the other, vectors and rotations as seen from the frame F.
template <class V>
struct FeatureWriter {
    const V* F;  // rotation, row-major
    V* out;

    MFIK_INLINE void put(const V& value) { *out++ = value; }
    MFIK_INLINE void put_vector(const V& x, const V& y, const V& z, const V& factor) {
        V p[3] = {x, y, z};
        rotate_back(F, p);
        for (int i = 0; i < 3; ++i) *out++ = factor * p[i];
    }
    MFIK_INLINE void put_rotation(const V* R) {
        for (int k = 0; k < 3; ++k) {
            V column[3] = {R[k], R[3 + k], R[6 + k]};
            rotate_back(F, column);
            for (int i = 0; i < 3; ++i) out[3 * i + k] = column[i];
        }
        out += 9;
    }
};

/// out [size] = the features of joints q [dof] and a target pose [7].
template <class V>
MFIK_INLINE void features(const Geometry& geometry, const V* q, const V* pose, V* out) {
    const Chain& chain = geometry.chain;
    const int n = chain.dof, last = n - 1;
    const double* base = chain.origin[0];
    const V scale = splat<V>(geometry.scale);
    V sine[kMaxJoints], cosine[kMaxJoints], axis[kMaxJoints][3], point[kMaxJoints][3], error[6], step[kMaxJoints];
    const TransformOf<V> tool = forward(chain, q, axis, point, sine, cosine), target = from_pose(pose);
    feature_error(scale, target, tool, error);
    feature_step(chain, scale, axis, point, tool.p, error, step);

    // Frame of the last joint before its motion: as it is, and as the target wants it if that joint stays.
    const TransformOf<V> is = before_last_joint(chain, tool, q[last], sine[last], cosine[last]);
    const TransformOf<V> wanted = before_last_joint(chain, target, q[last], sine[last], cosine[last]);
    const V from_joint1[3] = {wanted.p[0] - base[3], wanted.p[1] - base[7], wanted.p[2] - base[11]};

    // F: the first joint's frame before its motion, turned to the azimuth of the target.
    V F[9];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) F[3 * i + j] = splat<V>(base[4 * i + j]);
    if (chain.kind[0] != JointKind::kPrismatic) {
        V p[3] = {from_joint1[0], from_joint1[1], from_joint1[2]};
        rotate_back(F, p);
        const V radius = square_root(p[0] * p[0] + p[1] * p[1] + kAxisFloor);
        const V c = p[0] / radius, s = p[1] / radius;
        turn_z(F, s, c);
        const V first_sine = sine[0] * c - cosine[0] * s;
        cosine[0] = cosine[0] * c + sine[0] * s;
        sine[0] = first_sine;
    }

    FeatureWriter<V> writer{F, out};
    for (int j = 0; j < n; ++j) writer.put((q[j] - geometry.midpoint[j]) * geometry.per_range[j]);
    for (int j = 0; j < last; ++j)
        if (chain.kind[j] != JointKind::kPrismatic) writer.put(sine[j]);
    for (int j = 0; j < last; ++j)
        if (chain.kind[j] != JointKind::kPrismatic) writer.put(cosine[j]);
    writer.put_vector(from_joint1[0], from_joint1[1], from_joint1[2], scale);
    writer.put_rotation(wanted.R);
    writer.put_vector(is.p[0] - base[3], is.p[1] - base[7], is.p[2] - base[11], scale);
    writer.put_rotation(is.R);
    writer.put_vector(wanted.p[0] - is.p[0], wanted.p[1] - is.p[1], wanted.p[2] - is.p[2], scale);
    writer.put_vector(error[3], error[4], error[5], splat<V>(1.0));
    for (int j = 0; j < n; ++j) writer.put(step[j]);
}

}  // namespace mfik
