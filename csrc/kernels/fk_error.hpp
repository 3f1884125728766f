// One row of the forward-kinematics loss: how far the pose of joints is from a target, and the gradient.
#pragma once

#include <cstdint>

#include "kernels/chain.hpp"

namespace mfik {

/// Added to squared errors [m^2, rad^2]: keeps the gradient of their roots finite at zero error. Also in
/// mfik/ops/_reference.py.
constexpr double kFkSmoothing = 1e-6;

template <typename T>
struct FkErrorArgs {
    const T* q;            // [n, dof]
    const T* target_pose;  // [n, 7]
    T* error;              // [n]
    T* gradient;           // [n, dof]
    std::int64_t n;
};

/// Position error [m] + rotation error [chord of the half angle, about rad] of joints q [dof] from a pose [7] with a
/// unit quaternion of either sign, and its gradient [dof] by the joints.
template <class V, class C>
MFIK_INLINE V fk_error(const C& chain, const V* q, const V* target_pose, V* gradient) {
    V axis[kMaxJoints][3], point[kMaxJoints][3], pose[7];
    const TransformOf<V> tip = forward(chain, q, axis, point);
    to_pose(tip, pose);
    const V* target = target_pose + 3;
    const V* quat = pose + 3;
    V difference[3];
    for (int k = 0; k < 3; ++k) difference[k] = pose[k] - target_pose[k];
    const V cosine = quat[0] * target[0] + quat[1] * target[1] + quat[2] * target[2] + quat[3] * target[3];
    // Vector part of target * conj(quat): its norm is the sine of the half angle, which 1 - cosine^2 loses near zero.
    const V turn[3] = {quat[0] * target[1] - target[0] * quat[1] + quat[2] * target[3] - quat[3] * target[2],
                       quat[0] * target[2] - target[0] * quat[2] + quat[3] * target[1] - quat[1] * target[3],
                       quat[0] * target[3] - target[0] * quat[3] + quat[1] * target[2] - quat[2] * target[1]};
    const V position = square_root(squared_norm3(difference) + kFkSmoothing);
    const V rotation = square_root(4.0 * squared_norm3(turn) + kFkSmoothing);
    // As the pose turns with angular velocity w, dquat = [0, w] quat / 2, so dcosine = w . turn / 2.
    V slope[6];  // by the twist [v, w]
    for (int k = 0; k < 3; ++k) {
        slope[k] = difference[k] / position;
        slope[3 + k] = -2.0 * cosine / rotation * turn[k];
    }
    for (int j = 0; j < chain.dof; ++j) {
        V column[6];
        jacobian_column(chain.kind[j], axis[j], point[j], tip.p, column);
        gradient[j] = slope[0] * column[0];
        for (int k = 1; k < 6; ++k) gradient[j] += slope[k] * column[k];
    }
    return position + rotation;
}

}  // namespace mfik
