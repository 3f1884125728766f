/// @file
/// Whole paths: joints for every pose of a Cartesian path, without jumps.
///
/// @code{.cpp}
/// mfik::PathOptions path;
/// path.max_step = {&step, 1};                                     // 0.1 rad from one waypoint to the next
/// const mfik::PathResult result = solver.solve_path(poses, path, options);
/// if (result.status != mfik::Status::kSolved) std::puts(result.reason.c_str());   // where it breaks, and why
/// @endcode
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "mfik/solver.hpp"

namespace mfik {

/// What a path keeps to, beside the Options of its waypoints.
struct PathOptions {
    /// Largest change of each joint from one waypoint to the next [rad or m]: dof() finite values > 0, or one for all.
    Span<const double> max_step{};
    /// Joints at the first waypoint [rad or m], dof() values that solve its pose; or empty: any solution.
    Span<const double> q_start{};
    /// Joints at the last waypoint, likewise.
    Span<const double> q_goal{};
    /// Joints [rad or m], dof() values: locked joints stay there, and the turns of a solution that a path begins with
    /// are those nearest to it. Empty: q_start, else q_goal, else the midpoint of the limits.
    Span<const double> q_ref{};
    /// Largest change of any joint [rad or m] between two configurations that are checked for collision on the straight
    /// line of the joints from one waypoint to the next; > 0.
    double edge_check = 0.02;
    /// Longest time to search [s], > 0. The answer then is the best until then.
    double time_limit_s = 10.0;
    std::uint64_t random_seed = 0;  ///< Of the configurations from which solutions are looked for.
    /// Called about every 100 ms with the share of the work that is done, which rises from 0 to 1; returns true to end
    /// the search.
    std::function<bool(double)> progress{};
};

/// Outcome of Solver::solve_path().
struct PathResult {
    /// kSolved: every waypoint. Else why the path breaks: kUnreachable, kAtLimits or kInCollision: a waypoint has no
    /// solution, or what lies between two of them collides; kJumpBound: every connection of two waypoints needs more
    /// than max_step; kNotConverged: time or progress ended the search; kInvalidInput.
    Status status = Status::kInvalidInput;
    std::vector<double> q;             ///< Joints of the first waypoints [rad or m], [reached, dof()] row-major.
    std::size_t reached = 0;           ///< Waypoints of the longest prefix that was found.
    std::string reason;                ///< Why it ended so: names waypoints, counted from 0, joints, and what collides.
    double length = 0.0;               ///< Sum of the changes of all joints over q [rad and m].
    std::vector<double> largest_step;  ///< Largest change of each joint from one row of q to the next [rad or m].
    int attempts = 0;                  ///< Configurations from which solutions were looked for.
    double time_us = 0.0;              ///< Wall time of the call [us].
};

}  // namespace mfik
