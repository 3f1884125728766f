// Motion near obstacles: slowed down towards them, held before the margin, and led out from within it.
#pragma once

#include "kernels/contacts.hpp"
#include "kernels/follow.hpp"

namespace mfik {

struct Core;

/// What became of a step.
enum class Damping {
    kNone,     // taken as it was
    kSlowed,   // shortened
    kLeadOut,  // replaced by one out of collision
};

/// Shorten the step from q_prev to q [dof], in own units, so that the clearance comes nearer to the margin by at most a
/// share of what it is above it (a velocity damper: Faverjon and Tournassoud 1987), all the way; where q_prev is within
/// the margin, replace it by one that leads out, or none: never deeper.
[[nodiscard]] Damping damp(const Core& core, const Obstacles& obstacles, const Constraints& constraints,
                           const StepBounds& bounds, const double* q_prev, double* q);

}  // namespace mfik
