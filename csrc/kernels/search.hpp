// Search for joints that reach one pose: several attempts are refined side by side, one in each lane of a vector
// register, and an attempt that fails makes room for the next seed.
#pragma once

#include <cstdint>

#include "kernels/contacts.hpp"
#include "kernels/turns.hpp"

namespace mfik {

/// Share of a tolerance to which a search refines, so that its answer passes the check by forward kinematics whatever
/// the rounding: 1e-6 of a tolerance of 1e-9 is 1e-15, a unit in the last place of a length of some metres.
constexpr double kInside = 0.999999;
/// How a tip pose looks from the first joint, where that joint does not matter: turned back about its axis to the half
/// plane of azimuth 0, or moved back along it to height 0. So one stored configuration serves every azimuth, and every
/// place of a rail.
struct SeedFeature {
    double place;     // azimuth [rad], or height [length]
    double value[7];  // position [half_size], quaternion
};

/// Configurations drawn uniformly within the limits. [kSize] is a multiple of every kLanes.
struct SeedTable {
    static constexpr int kSize = 512;

    double reach;             // the tip is never farther from joint 1
    double half_size;         // half of that with the first joint at zero
    bool turns;               // the first joint
    double midpoint0, half0;  // of the first joint's range; half0 infinite where it does not matter
    double q[kSize][kMaxJoints];
    double offset[kSize];  // q[.][0] - place of its tip
    double feature[7][kSize];
};

/// SeedFeature of a tip pose.
inline SeedFeature seed_feature(const Chain& chain, double half_size, const Transform& T) {
    const double* origin = chain.origin[0];
    double p[3], R[9];
    for (int i = 0; i < 3; ++i) {
        p[i] = 0.0;
        for (int k = 0; k < 3; ++k) p[i] += origin[4 * k + i] * (T.p[k] - origin[4 * k + 3]);
        for (int j = 0; j < 3; ++j)
            R[3 * i + j] = origin[i] * T.R[j] + origin[4 + i] * T.R[3 + j] + origin[8 + i] * T.R[6 + j];
    }
    SeedFeature feature{};
    if (chain.kind[0] == JointKind::kPrismatic) {
        feature.place = p[2];
        p[2] = 0.0;
    } else {
        const double radius = std::hypot(p[0], p[1]);
        const double c = radius > 1e-9 ? p[0] / radius : 1.0, s = radius > 1e-9 ? p[1] / radius : 0.0;
        for (int j = 0; j < 3; ++j) {
            const double x = R[j], y = R[3 + j];
            R[j] = c * x + s * y;
            R[3 + j] = c * y - s * x;
        }
        p[0] = radius, p[1] = 0.0;
        feature.place = std::atan2(s, c);
    }
    for (int i = 0; i < 3; ++i) feature.value[i] = p[i] / half_size;
    matrix_to_quat(R, feature.value + 3);
    return feature;
}

/// First joint, nearest to the midpoint of its range, that brings a configuration of that offset to the place of the
/// target.
template <class V, class S>
MFIK_INLINE V brought_to_place(const SeedTable& table, const S& offset, double place) {
    const V from_midpoint = offset + (place - table.midpoint0);
    return table.midpoint0 + (table.turns ? wrap_angle<V>(from_midpoint) : from_midpoint);
}

/// Largest motion of a frame along its axis.
inline double slide_length(const Chain& chain, int f) {
    const MovingFrame frame = moving_frame(chain, f);
    if (frame.kind != JointKind::kPrismatic) return 0.0;
    const double lower = chain.lower[frame.joint], upper = chain.upper[frame.joint];
    return std::fabs(frame.ratio) * std::fmax(std::fabs(lower), std::fabs(upper));
}

/// Largest distance of the tip from the first joint, but for that joint's own motion along a rail.
inline double reach_beside_rail(const Chain& chain) {
    double reach = 0.0;
    for (int f = 1; f <= num_frames(chain); ++f) {
        const double* o = chain.origin[f];
        reach += std::sqrt(o[3] * o[3] + o[7] * o[7] + o[11] * o[11]);
    }
    for (int f = 1; f < num_frames(chain); ++f) reach += slide_length(chain, f);
    return reach;
}

/// Largest motion of the first joint along a rail.
inline double rail_length(const Chain& chain) {
    return slide_length(chain, 0);
}

/// What to look for. Lengths are in the robot's own unit (solver/units.hpp).
struct SearchTask {
    const Chain* chain;
    const Constraints* constraints;
    const SeedTable* table;
    SeedFeature feature;  // of the target, for the table
    Transform T_target;
    double tol_pos_m, tol_rot_rad;
    const double* q_near;           // [dof]: solutions near it are preferred
    const double* weight;           // [dof] of the joints in that distance
    double q_ref[kMaxJoints];       // the same within the limits: an attempt begins there
    double first_seed[kMaxJoints];  // within the limits
    bool has_first_seed;            // else the first seed is q_ref
    int max_iterations;             // steps of each attempt, at least 1
    int max_attempts;
    bool exhaust;                // go on after a solution, until the last attempt
    bool nearest;                // go on for the solution nearest to q_near
    const Obstacles* obstacles;  // which solutions keep clear of, or null
};

/// A row of a batch that is solved for throughput: its input, checked, then what was found.
struct SearchRow {
    Transform T_target;        // of the tool
    SeedFeature feature;       // of the tip that carries it
    Transform T_tip;           // likewise
    double q_ref[kMaxJoints];  // within the limits; locked joints stay there
    double first_seed[kMaxJoints];
    bool has_first_seed;     // else the first attempt begins at q_ref or a stored configuration, whichever is nearer
    double reference_score;  // distance of the tip at q_ref from its target
    bool solved;
    int iterations, attempts;
    double pos_error_m, rot_error_rad;  // at q
    double q[kMaxJoints];               // the solution, else the best attempt
};

/// What the rows of a batch have in common.
struct BatchTask {
    const Chain* chain;    // to the tip
    const Chain* to_tool;  // to the tool
    const SeedTable* table;
    const double* slack;   // as in Constraints
    std::uint32_t locked;  // bit j: joint j
    double tol_pos_m, tol_rot_rad;
    int max_iterations;  // steps of each attempt, at least 1
    int max_attempts;    // of each row
};

/// Solutions that differ from each other.
struct SolutionPool {
    static constexpr int kCapacity = 256;
    int size;
    double min_distance;  // [rad] or [m]
    const double* unit;   // [dof] of the joints [rad] or [m]
    double q[kCapacity][kMaxJoints];
};

struct SearchResult {
    bool solved;
    bool collides;         // not solved: q reaches the pose, but collides
    int iterations;        // steps taken one after the other
    int attempts;          // seeds begun
    double q[kMaxJoints];  // the solution nearest to q_near, else the best attempt
};

}  // namespace mfik
