// Motion of one joint in samples of equal time, with bounded velocity and acceleration: how fast it may move to stop in
// time. A command is a position; its velocity is the difference from the last one per sample time, its acceleration the
// difference of the velocities. Lengths of way are in [sample time * unit of velocity].
//
// Braking from velocity v >= 0 by `brake` a sample, the joint still moves v - brake, v - 2 brake, ... while that is
// above 0. With n = floor(v / brake):
//
//     S(v) = n v - brake n (n + 1) / 2
//
// The joint can stop within `room` where S(v) <= room. That set is invariant: S(v) = v' + S(v') for the braking command
// v' = max(v - brake, 0), so that a joint in it may always brake and stays in it. A command v >= 0 keeps to it where
// the whole way v + S(v) is within the room that there is before it: it is strictly increasing, with the values
// brake m (m + 1) / 2 at v = m brake and straight lines between them.
#pragma once

#include <cmath>

#include "kernels/inline.hpp"

namespace mfik {

/// Way [velocity * sample] of a joint that brakes from velocity v >= 0.
MFIK_INLINE double stopping_way(double v, double brake) {
    const double n = std::floor(v / brake);
    return n * v - 0.5 * brake * n * (n + 1.0);
}

/// Largest velocity >= 0 from which a joint stops within `room` [velocity * sample], this sample included; where there
/// is none, the velocity, below 0, that leads back into it.
MFIK_INLINE double largest_stoppable(double room, double brake) {
    if (!(room > 0.0)) return room;
    if (room == HUGE_VAL) return HUGE_VAL;
    const double m = std::floor(0.5 * (std::sqrt(1.0 + 8.0 * (room / brake)) - 1.0));
    return (room + 0.5 * brake * m * (m + 1.0)) / (m + 1.0);
}

/// Velocities of one joint for the next sample.
struct VelocityBox {
    double low, high;
};

/// Velocities that keep to both bounds and leave room to brake before either limit. `v` is the velocity now, within its
/// bound; to_lower <= 0 and to_upper >= 0 are the ways [velocity * sample] to the limits, from which a joint that kept
/// to such boxes could always brake. `hardest`, slightly above `brake`, is what it may brake by where rounding asks for
/// more.
MFIK_INLINE VelocityBox velocity_box(double v, double bound, double brake, double hardest, double to_lower,
                                     double to_upper) {
    const double low = std::fmax(-bound, v - brake), high = std::fmin(bound, v + brake);
    const double stop_up = largest_stoppable(to_upper, brake), stop_down = -largest_stoppable(-to_lower, brake);
    VelocityBox box{std::fmax(low, stop_down), std::fmin(high, stop_up)};
    if (stop_up < low) box.low = box.high = std::fmax(stop_up, v - hardest);
    if (stop_down > high) box.low = box.high = std::fmin(stop_down, v + hardest);
    return box;
}

}  // namespace mfik
