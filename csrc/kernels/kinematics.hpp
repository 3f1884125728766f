// One row of `fk` and `jacobian`, for a GPU thread: chains whose size is known when they are compiled, so that what
// depends on a joint stays in registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/chain.hpp"

namespace mfik {

/// What a row of T is computed in.
template <class T>
using ArithmeticOf = std::conditional_t<std::is_same_v<T, float>, Single, double>;

struct AllTurn {
    MFIK_INLINE constexpr JointKind operator[](int) const { return JointKind::kRevolute; }
};

/// A chain of `kDof` joints, none of them prismatic, with its constants in S.
template <class S, int kDof>
struct FixedChain {
    static constexpr int dof = kDof;
    AllTurn kind;
    S origin[kDof + 1][12];
};

/// Any chain.
template <class S>
struct FixedChain<S, 0> {
    int dof;
    JointKind kind[kMaxJoints];
    S origin[kMaxJoints + 1][12];
};

/// Constants of `chain`, whose joints are those that FixedChain<S, kDof> takes.
template <class S, int kDof>
FixedChain<S, kDof> fixed_chain(const Chain& chain) {
    FixedChain<S, kDof> fixed{};
    if constexpr (kDof == 0) {
        fixed.dof = chain.dof;
        for (int j = 0; j < chain.dof; ++j) fixed.kind[j] = chain.kind[j];
    }
    for (int j = 0; j <= chain.dof; ++j)
        for (int k = 0; k < 12; ++k) fixed.origin[j][k] = chain.origin[j][k];
    return fixed;
}

/// Number of joints that FixedChain is compiled for, 0 for all others.
inline int fixed_dof(const Chain& chain) {
    for (int j = 0; j < chain.dof; ++j)
        if (chain.kind[j] == JointKind::kPrismatic) return 0;
    return chain.dof == 6 || chain.dof == 7 ? chain.dof : 0;
}

/// Pose [7] of joints q [dof].
template <class C, class T>
MFIK_INLINE void fk_row(const C& chain, const T* q, T* pose) {
    using V = ArithmeticOf<T>;
    V joints[kMaxJoints], values[7];
    for (int j = 0; j < chain.dof; ++j) joints[j] = q[j];
    to_pose(forward(chain, joints), values);
    for (int k = 0; k < 7; ++k) pose[k] = number(values[k]);
}

/// Jacobian [6, dof] of joints [dof], see cpu::jacobian.
template <class C, class T>
MFIK_INLINE void jacobian_row(const C& chain, const ArithmeticOf<T>* joints, T* jacobian) {
    using V = ArithmeticOf<T>;
    V axis[kMaxJoints][3], point[kMaxJoints][3];
    const TransformOf<V> tip = forward(chain, joints, axis, point);
    for (int j = 0; j < chain.dof; ++j) {
        V column[6];
        joint_column(chain, j, axis, point, tip.p, column);
        for (int a = 0; a < 6; ++a) jacobian[a * chain.dof + j] = number(column[a]);
    }
}

}  // namespace mfik
