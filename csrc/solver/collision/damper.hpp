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
/// @param[in] room  Beyond the margin [m], which is kept, too, where q_prev has it.
[[nodiscard]] Damping damp(const Core& core, const Obstacles& obstacles, const Constraints& constraints,
                           const StepBounds& bounds, const double* q_prev, double* q, double room = 0.0);

/// What a status says of a step that was not taken as it was.
[[nodiscard]] const char* reason_of(Damping damping);

/// How much of a straight motion of the joints is clear.
struct ClearWay {
    double share;    // of the motion, from its beginning on
    bool whichever;  // the whole of it, and so is any other motion in which no joint leaves its way
};

/// Room beyond the margin [m] for what may come nearer between two places that are looked at.
constexpr double kRoom = 1e-3;

/// How much of the straight motion from `from` to `to` [dof], in own units, keeps the margin at each of its points.
/// Motions that begin half of kRoom before the margin or more end so far before it. Of others, the points between two
/// places that are looked at may be nearer by 0.1 mm, and from within the margin on nothing is deeper than where the
/// motion begins, but for 1 mm between two places.
[[nodiscard]] ClearWay clear_way(const Core& core, const Obstacles& obstacles, const double* from, const double* to);

}  // namespace mfik
