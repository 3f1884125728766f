// The robot's own unit of length: errors of position and rotation weigh alike in it whatever unit the robot is
// described in, and no constant of the solver is an absolute length.
#pragma once

#include "kernels/chain.hpp"
#include "mfik/solver.hpp"

namespace mfik {

/// The size of the units that a solver computes in.
struct Units {
    double length;             // [m]: a power of two about the arm's reach, by which scaling does not round
    double joint[kMaxJoints];  // [rad] or [m]
};

/// The units of a chain in metres: its reach beside a rail that carries it, or else the rail.
[[nodiscard]] Units own_units(const Chain& chain);

/// A chain in metres in those units.
[[nodiscard]] Chain in_units(const Chain& chain, const Units& units);

/// Joints [rad] or [m] in those units; `out` may be `q`.
void to_units(const Units& units, Span<const double> q, double* out);
/// And back.
void from_units(const Units& units, const double* q, Span<double> out);

/// Positions of a pose [7] in those units.
void pose_to_units(const Units& units, const double* pose, double* out);

}  // namespace mfik
