// One sample of joints that pursue a moving goal within the boxes of their velocities: in a straight line where the
// boxes let them, arriving with the goal's velocity, without passing it.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/braking.hpp"
#include "kernels/chain.hpp"

namespace mfik {

/// Bisections for the share of the way where the boxes exclude the direction: 2^-20 of it is far below a box.
constexpr int kShareBisections = 20;
/// Samples in a row in which a goal speeds up, or slows down, before that is believed: single ones are noise of the
/// target, or a path that begins at once. With 4, noise of 1 um made joints lag by 4 times as much.
constexpr int kSteadySamples = 6;
/// What a goal did is forgotten in this times the time that a joint takes to stop from the goal's velocity, so that a
/// goal that moves on evenly is met in the end. With 1, joints passed the end of motions by up to a fifth of them (16:
/// a fiftieth; before a goal's acceleration was looked at: by up to half).
constexpr double kForgotten = 16.0;
/// Least share of its acceleration that a joint approaches a goal with which slows down itself.
constexpr double kLeastApproach = 0.1;

/// What the samples so far tell of the motion of one joint's goal, whose way ahead is not known. Velocities [rad/s or
/// units of length / s] and their changes a sample.
struct GoalMotion {
    double velocity = 0.0;
    double change = 0.0;                 // of the velocity, in the last sample
    double steady[kSteadySamples] = {};  // [i]: the least change in the last i + 1 samples, 0 where its sign varies
    double hardest = 0.0;                // change a sample by which the goal may come to stop

    /// Take in the goal's velocity in the next sample. It is expected to stop as hard as it has sped up or slowed down
    /// since it last stood still.
    void observe(double next, double brake) {
        const double last_change = change;
        change = next - velocity;
        for (int i = kSteadySamples - 1; i > 0; --i)
            steady[i] = change * last_change > 0.0 ? std::min(std::fabs(change), steady[i - 1]) : 0.0;
        steady[0] = std::fabs(change);
        if (next * velocity <= 0.0) {
            hardest = 0.0;
        } else {
            hardest *= std::max(0.0, 1.0 - brake / (kForgotten * std::fabs(next)));
        }
        hardest = std::max(hardest, steady[kSteadySamples - 1]);
        velocity = next;
    }
    /// Change of the velocity that has lasted for kSteadySamples.
    [[nodiscard]] double acceleration() const { return std::copysign(steady[kSteadySamples - 1], change); }
};

/// Velocities v [n] for the next sample.
///
/// A joint may approach the goal, which moves on and goes on slowing down as it does, no faster than it can brake
/// beside it. All of them take the same share of their way, the largest that the slowest joint can brake from and the
/// boxes have room for: a straight line, slowed down as a whole. A joint that the goal comes back to waits for it:
/// moving along with it, away from it, each turn of the goal would be two of the joint. Where no share is in every box,
/// as the joints still move elsewhere, the one that violates them least (in squares of brakes) decides, and each joint
/// takes what its box has nearest to it.
///
/// A goal that is faster than the joints is expected to move on no faster than they can. Behind one that may stop
/// harder than a joint, that joint goes no faster than it could stop where the goal would then (as a driver behind
/// another car: Gipps 1981, "A behavioural car-following model for computer simulation").
/// @param[in] gap  From the joints to the goal, where it is in the next sample [velocity * sample], [n].
/// @param[in] velocity  The joints' bounds, [n].
/// @param[in] brake  Change of velocity a sample, [n].
inline void pursue(int n, const double* gap, const GoalMotion* goals, const double* velocity, const double* brake,
                   const VelocityBox* boxes, double* v) {
    double goal_v[kMaxJoints], way[kMaxJoints];
    VelocityBox box[kMaxJoints];
    double share_of_goal = 1.0;
    for (int j = 0; j < n; ++j) {
        const double speed = std::fabs(goals[j].velocity), sign = goals[j].velocity > 0.0 ? 1.0 : -1.0;
        double most = velocity[j];
        box[j] = boxes[j];
        if (goals[j].hardest > brake[j]) {
            const double behind = sign * gap[j] + stopping_way(speed, goals[j].hardest);
            most = std::min(most, std::max(0.0, largest_stoppable(behind, brake[j])));
            if (sign > 0.0) {
                box[j].high = std::max(box[j].low, std::min(box[j].high, most));
            } else {
                box[j].low = std::min(box[j].high, std::max(box[j].low, -most));
            }
        }
        if (speed > most) share_of_goal = std::min(share_of_goal, most / speed);
    }
    double share = 1.0;
    for (int j = 0; j < n; ++j) {
        goal_v[j] = share_of_goal * goals[j].velocity;
        way[j] = gap[j] - goal_v[j];
        const double slows = way[j] > 0.0 ? -goals[j].acceleration() : goals[j].acceleration();
        const double approach = std::max(kLeastApproach * brake[j], brake[j] - std::max(0.0, slows));
        const double distance = std::fabs(way[j]), most = largest_stoppable(distance, approach);
        if (most < share * distance) share = most / distance;
    }
    const auto wanted_at = [&](int j, double s) {
        const double wanted = goal_v[j] + s * way[j];
        return wanted * (goal_v[j] + way[j]) < 0.0 ? 0.0 : wanted;
    };
    const auto beyond = [&](int j, double s) {
        const double wanted = wanted_at(j, s);
        return wanted > box[j].high ? wanted - box[j].high : wanted < box[j].low ? wanted - box[j].low : 0.0;
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
        v[j] = wanted < box[j].low ? box[j].low : wanted > box[j].high ? box[j].high : wanted;
    }
}

}  // namespace mfik
