// What a call keeps clear of.
#pragma once

#include "kernels/contacts.hpp"
#include "mfik/solver.hpp"

namespace mfik {

struct Core;

/// Whether the options ask for collision.
[[nodiscard]] bool asks_for_collision(const Options& options);

/// Why what the options say of collision is refused, else null.
[[nodiscard]] const char* collision_refusal(const Core& core, const Options& options);

/// What the options, which ask for collision and are not refused, keep clear of.
[[nodiscard]] Obstacles read_obstacles(const Core& core, const Options& options);

/// Whether joints q [dof], in own units as all here, keep the margin.
[[nodiscard]] bool is_clear(const Core& core, const Obstacles& obstacles, const double* q);

/// Whether what moves with the tip does not keep the margin from the world with the tip within `slop` of a
/// transform: then no joints do.
[[nodiscard]] bool tip_collides(const Core& core, const Obstacles& obstacles, const Transform& T_tip, double slop);

/// Name the nearest two at joints q [dof] in a result.
void name_nearest(const Core& core, const Obstacles& obstacles, const Options& options, const double* q,
                  Result& result);

}  // namespace mfik
