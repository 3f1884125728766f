// One sample of joints that pursue a moving goal within the boxes of their velocities: in a straight line where the
// boxes let them, arriving with the goal's velocity, without passing it.
#pragma once

#include "kernels/braking.hpp"
#include "kernels/chain.hpp"

namespace mfik {

/// Bisections for the share of the way where the boxes exclude the direction: 2^-20 of it is far below a box.
constexpr int kShareBisections = 20;

/// Velocities v [n] for the next sample.
///
/// A joint may approach the goal, which moves on with goal_v, no faster than it can brake beside it. All of them take
/// the same share of their way, the largest that the slowest joint can brake from and the boxes have room for: a
/// straight line, slowed down as a whole. A joint that the goal comes back to waits for it: moving along with it, away
/// from it, each turn of the goal would be two of the joint. Where no share is in every box, as the joints still move
/// elsewhere, the one that violates them least (in squares of brakes) decides, and each joint takes what its box has
/// nearest to it.
/// @param[in] way  From the joints to the goal, less what the goal moves in the sample [velocity * sample], [n].
/// @param[in] brake  Change of velocity a sample, [n].
MFIK_INLINE void pursue(int n, const double* way, const double* goal_v, const double* brake, const VelocityBox* boxes,
                        double* v) {
    double share = 1.0;
    for (int j = 0; j < n; ++j) {
        const double distance = std::fabs(way[j]), most = largest_stoppable(distance, brake[j]);
        if (most < share * distance) share = most / distance;
    }
    const auto wanted_at = [&](int j, double s) {
        const double wanted = goal_v[j] + s * way[j];
        return wanted * (goal_v[j] + way[j]) < 0.0 ? 0.0 : wanted;
    };
    const auto beyond = [&](int j, double s) {
        const double wanted = wanted_at(j, s);
        return wanted > boxes[j].high ? wanted - boxes[j].high : wanted < boxes[j].low ? wanted - boxes[j].low : 0.0;
    };
    // The sum of squares is convex in the share; its slope tells on which side the least is.
    const auto slope = [&](double s) {
        double sum = 0.0;
        for (int j = 0; j < n; ++j) sum += beyond(j, s) * way[j] / (brake[j] * brake[j]);
        return sum;
    };
    if (slope(share) > 0.0) {
        double low = 0.0, high = share;
        for (int i = 0; i < kShareBisections; ++i) {
            const double middle = 0.5 * (low + high);
            (slope(middle) > 0.0 ? high : low) = middle;
        }
        share = low;
    }
    for (int j = 0; j < n; ++j) {
        const double wanted = wanted_at(j, share);
        v[j] = wanted < boxes[j].low ? boxes[j].low : wanted > boxes[j].high ? boxes[j].high : wanted;
    }
}

}  // namespace mfik
