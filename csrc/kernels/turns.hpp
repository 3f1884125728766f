// Angles that differ by full turns are the same posture of a revolute joint.
#pragma once

#include <cfloat>
#include <cmath>

#include "kernels/chain.hpp"

namespace mfik {

/// Beyond so many turns a joint's angle would lose digits (1e6 turns leave 1e-9 rad): it is left as it is.
constexpr double kMaxTurns = 1e6;

/// The angle [rad] in [-pi, pi] that differs from `angle` by full turns.
template <class V>
MFIK_INLINE V wrap_angle(const V& angle) {
    return angle - 2 * kPi * nearest_integer(angle * (0.5 / kPi));
}

/// Whether joint j can make full turns, or nearly, that leave the posture as it is. What follows a joint would turn
/// with it.
MFIK_INLINE bool makes_full_turns(const Chain& chain, int j) {
    constexpr double kNearlyATurn = 1e-3;  // [rad]: a range so little short of a turn counts as one
    if (chain.kind[j] == JointKind::kPrismatic || is_followed(chain, j)) return false;
    return chain.kind[j] == JointKind::kContinuous || chain.upper[j] - chain.lower[j] > 2 * kPi - kNearlyATurn;
}

/// Joint j of the equivalent turns of q [rad] that is nearest to q_ref and within the limits; q where there is none.
MFIK_INLINE double nearest_turn(const Chain& chain, int j, double q, double q_ref) {
    if (chain.kind[j] == JointKind::kPrismatic || is_followed(chain, j)) return q;
    double turns = nearest_integer((q_ref - q) / (2 * kPi));
    if (chain.kind[j] == JointKind::kRevolute) {
        const double lowest = std::ceil((chain.lower[j] - q) / (2 * kPi));
        const double highest = std::floor((chain.upper[j] - q) / (2 * kPi));
        turns = turns < lowest ? lowest : turns;
        turns = turns > highest ? highest : turns;
    }
    if (turns == 0.0 || !(std::fabs(turns) <= kMaxTurns)) return q;
    const double turned = q + turns * (2 * kPi);
    const bool inside = turned >= chain.lower[j] && turned <= chain.upper[j];
    return inside || chain.kind[j] == JointKind::kContinuous ? turned : q;
}

/// Distance of a configuration from q_ref: the root of the sum of the joints' squared differences, each times its
/// `weight` [dof], with every joint of q on that of its equivalent turns within the limits that is nearest. Always
/// finite, so that any solution is nearer than none.
MFIK_INLINE double distance_to_reference(const Chain& chain, const double* weight, const double* q,
                                         const double* q_ref) {
    double sum = 0.0;
    for (int j = 0; j < chain.dof; ++j) {
        const double d = weight[j] * (nearest_turn(chain, j, q[j], q_ref[j]) - q_ref[j]);
        sum += d * d;
    }
    return std::fmin(std::sqrt(sum), DBL_MAX);
}

/// Largest difference [rad] or [m] of the joints of two postures. Full turns of joints that can make them, or nearly,
/// are no difference, whether or not the limits leave room for them.
MFIK_INLINE double posture_difference(const Chain& chain, const double* unit, const double* a, const double* b) {
    double largest = 0.0;
    for (int j = 0; j < chain.dof; ++j) {
        double d = a[j] - b[j];
        if (makes_full_turns(chain, j)) d = wrap_angle(d);
        d = unit[j] * std::fabs(d);
        if (!(d <= largest)) largest = d;
    }
    return largest;
}

}  // namespace mfik
