#include "solver/collision/obstacles.hpp"

#include <cmath>

#include "solver/collision/attachments.hpp"
#include "solver/collision/world.hpp"
#include "solver/core.hpp"

namespace mfik {

bool asks_for_collision(const Options& options) {
    return options.world != nullptr || options.self_collision == SelfCollision::kOn;
}

const char* collision_refusal(const Core& core, const Options& options) {
    if (options.self_collision < SelfCollision::kWithWorld || options.self_collision > SelfCollision::kOff)
        return "self_collision: expected a value of SelfCollision";
    if (!std::isfinite(options.margin_m)) return "margin_m: expected a finite number";
    if (!AttachmentsAccess::fit(core, options.attached)) return "attached: expected attachments made for this solver";
    if (asks_for_collision(options) && AttachmentsAccess::body(core, options.attached).empty()) {
        return "world: expected a bundle with spheres on the robot's links, which collision needs; fit them with "
               "scripts/fit_spheres.py, and export the bundle of a robot that was loaded with them";
    }
    return nullptr;
}

Obstacles read_obstacles(const Core& core, const Options& options) {
    return {&core.chain_in_metres(),
            core.units.joint,
            AttachmentsAccess::body(core, options.attached).view(options.margin_m),
            WorldAccess::view(options.world),
            options.self_collision != SelfCollision::kOff,
            options.margin_m};
}

namespace {

/// Joints q [dof] in [rad] and [m].
void to_metres(const Obstacles& obstacles, const double* q, double* metres) {
    for (int j = 0; j < obstacles.chain->dof; ++j) metres[j] = q[j] * obstacles.unit[j];
}

}  // namespace

bool is_clear(const Core& core, const Obstacles& obstacles, const double* q) {
    double metres[kMaxJoints];
    unsigned char free = 0;
    to_metres(obstacles, q, metres);
    core.collision.free(*obstacles.chain, obstacles.body, obstacles.world, obstacles.self, metres, 1, obstacles.margin,
                        &free);
    return free != 0;
}

bool tip_collides(const Core& core, const Obstacles& obstacles, const Transform& T_tip, double slop) {
    const double length = core.units.length;
    const int dof = obstacles.chain->dof;
    // The frame of the last joint, where its links are: the tip's without the chain's last origin.
    const double* o = obstacles.chain->origin[dof];
    Transform frame{};
    for (int i = 0; i < 3; ++i) {
        frame.p[i] = length * T_tip.p[i];
        for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 3; ++k) frame.R[3 * i + j] += T_tip.R[3 * i + k] * o[4 * j + k];
        for (int k = 0; k < 3; ++k) frame.p[i] -= frame.R[3 * i + k] * o[4 * k + 3];
    }
    return core.collision.last_frame_collides(obstacles.body, obstacles.world, frame, dof,
                                              obstacles.margin - length * slop);
}

void name_nearest(const Core& core, const Obstacles& obstacles, const Options& options, const double* q,
                  Result& result) {
    double metres[kMaxJoints];
    cpu::Nearest found{};
    to_metres(obstacles, q, metres);
    core.collision.nearest(*obstacles.chain, obstacles.body, obstacles.world, obstacles.self, metres, 1, kInfinity,
                           -kInfinity, &found);
    if (!(found.first >= 0)) return;
    const BodyDescription& body = AttachmentsAccess::body(core, options.attached);
    const auto link_of = [&body](double sphere) {
        return body.names[static_cast<std::size_t>(body.link_of[static_cast<std::size_t>(sphere)])].c_str();
    };
    result.first = link_of(found.first);
    result.second =
        found.second >= 0 ? link_of(found.second) : options.world->name(static_cast<int>(-1 - found.second));
}

}  // namespace mfik
