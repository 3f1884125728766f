// Every call that a control loop may make, with every kind of outcome: what the real-time tests watch.
#pragma once

#include <array>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "golden.hpp"
#include "mfik/collision.hpp"
#include "mfik/solver.hpp"

namespace mfik::testing {

/// Number of results of each status.
using Seen = std::array<int, 7>;

/// The bound of docs/how-to/controller.md: refinement steps of solve() and solve_all().
inline int worst_case_iterations(const Solver& solver, const Options& options) {
    return (options.max_attempts / solver.lanes() + 4) * (options.max_iterations + 1) +
           (options.nearest ? 192 / solver.lanes() : 0);
}

/// Make the calls for golden row `row`, and hand each result with its bound of iterations to `check(result, bound)`.
/// golden() takes memory when it is called first; this does not.
template <class Check>
void every_call(const Solver& solver, Workspace& workspace, std::size_t row, Check check) {
    constexpr double kInf = std::numeric_limits<double>::infinity();
    const Golden& rows = golden();
    constexpr std::array<double, 7> bounds = {0.001, 0.1, 0.2, 1.0, 0.002, 0.1, 3.0};
    std::array<double, 7> q;
    std::array<double, 7 * 8> all;
    const auto calls = [&](const Pose& pose, Span<const double> q_ref, const Options& options) {
        const int bound = worst_case_iterations(solver, options);
        check(solver.solve(pose, q_ref, q, workspace, options), bound);
        check(solver.track(pose, q_ref, 0.05, q, workspace, options), options.max_iterations);
        check(solver.track(pose, q_ref, bounds, q, workspace, options), options.max_iterations);
        check(solver.solve_all(pose, q_ref, all, workspace, 0.1, options), bound);
    };
    Pose pose;
    for (std::size_t k = 0; k < pose.size(); ++k) pose[k] = rows.target_pose[row][k];
    const Span<const double> q_ref = rows.q_ref[row];
    Options options;
    calls(pose, q_ref, options);
    for (const Seed seed : {Seed::kNetwork, Seed::kMidpoint, Seed::kAzimuth}) {
        options.seed = seed;
        calls(pose, q_ref, options);
        options.max_iterations = 0;
        calls(pose, q_ref, options);
        options.max_iterations = 1, options.max_attempts = 1;
        calls(pose, q_ref, options);
        options = {};
    }
    options.nearest = true;
    options.max_attempts = 15;  // not a multiple of any number of lanes
    calls(pose, q_ref, options);
    options.q_preferred = q_ref;
    options.joint_weights = bounds;
    calls(pose, q_ref, options);
    options.T_tip_tool = {0, 0, 0.1, 1, 0, 0, 0};
    options.slack = {0, 0.01, 0, 0, 0, kInf};
    options.locked = 1u << 2;
    calls(pose, q_ref, options);
    calls({9, 0, 0, 1, 0, 0, 0}, q_ref, {});       // out of reach
    calls({0.05, 0, 1.1, 0, 1, 0, 0}, q_ref, {});  // within reach, but not so turned
    pose[row % 7] = std::numeric_limits<double>::quiet_NaN();
    calls(pose, q_ref, {});
    calls({0.5, 0, 0.5, 1, 0, 0, 0}, {}, {});
    (void)solver.fk(q_ref);
}

/// Two balls on two sliding joints along z, which are checked against each other; the tip is the second one. Without a
/// body, the joints alone.
inline Solver two_balls(bool with_body = true) {
    const auto joint = [](const char* name) {
        return std::string("{\"name\": \"") + name +
               "\", \"kind\": \"prismatic\", \"lower\": -1, \"upper\": 1, \"origin\": [1,0,0,0, 0,1,0,0, 0,0,1,0]}";
    };
    const auto link = [](const char* name, int frame) {
        return std::string("{\"name\": \"") + name + "\", \"frame\": " + std::to_string(frame) +
               ", \"transform\": [1,0,0,0, 0,1,0,0, 0,0,1,0], \"spheres\": [[0, 0, 0, 0.1], [0.3, 0, 0, 0.1]]}";
    };
    const std::string body = "{\"links\": [" + link("one", 1) + ", " + link("two", 2) +
                             "], \"pairs\": [[\"one\", \"two\", \"checked\", 0, 0]]}";
    return Solver::from_description(
        "{\"format\": \"mfik-bundle\", \"version\": 2, \"model\": null, \"robot\": {\"name\": \"two\", \"base_link\": "
        "\"b\", "
        "\"tip_link\": \"t\", \"tool\": [1,0,0,0, 0,1,0,0, 0,0,1,0], \"joints\": [" +
        joint("i") + ", " + joint("j") + "], \"body\": " + (with_body ? body : "null") + "}}");
}

/// Clearance that calls_beside_obstacles() asks for [m].
constexpr double kMargin = 0.01;

/// A ball, a box and a cloud in the way of two_balls(); the ball is the first one.
inline World around_two_balls() {
    World world;
    world.add_sphere("ball", 0.1, {0, 0, 0.5, 1, 0, 0, 0});
    world.add_box("box", {0.1, 0.1, 0.1}, {0.5, 0, -0.4, 1, 0, 0, 0});
    world.add_point_cloud("cloud", std::vector<double>{0, 0, -0.8, 0, 0.1, -0.8}, 0.02);
    return world;
}

/// A tracker of two_balls(), between what is around them.
inline Tracker tracker_of_two_balls(const Solver& solver) {
    const std::vector<double> velocity(2, 1.0), acceleration(2, 10.0);
    return {solver, std::vector<double>{-0.2, 0.2}, 0.01, velocity, acceleration};
}

/// A ball that the tip of two_balls() holds.
inline Attachments held_by_two_balls(const Solver& solver) {
    Attachments held(solver);
    held.add("held", std::vector<double>{0, 0, 0.05, 0.03}, "t", {0.15, 0, 0, 1, 0, 0, 0});
    return held;
}

/// Make the calls of two_balls() around_two_balls(), whose ball moves, half of them with what is held, which moves,
/// too, and hand each result with its joints, its bound of iterations and what was held to `check(result, q, bound,
/// held)`.
/// @param[in,out] tracker  That of two_balls().
template <class Check>
void calls_beside_obstacles(const Solver& solver, Workspace& workspace, Tracker& tracker, World& world,
                            Attachments& held, Check check) {
    std::array<double, 2> q, far{};
    std::array<double, 2 * 4> all;
    for (int i = -60; i < 60; ++i) {
        const Pose pose{0, 0, 0.03 * i, 1, 0, 0, 0};
        const std::array<double, 2> q_ref{0.015 * i, -0.01 * i};
        Options options;
        options.world = &world;
        options.margin_m = kMargin;
        options.nearest = i % 2 == 0;
        if (i % 3 == 0) options.q_preferred = far;
        if (i % 4 < 2) options.attached = &held;
        (void)held.set_pose(0, {0, 0, 0.2 + 0.002 * i, 1, 0, 0, 0});
        (void)world.set_pose(0, {0, 0, 0.3 + 0.001 * i, 1, 0, 0, 0});
        const int bound = worst_case_iterations(solver, options);
        check(solver.solve(pose, q_ref, q, workspace, options), q.data(), bound, options.attached);
        check(solver.track(pose, q_ref, 0.05, q, workspace, options), q.data(), options.max_iterations,
              options.attached);
        check(solver.solve_all(pose, q_ref, all, workspace, 0.05, options), all.data(), bound, options.attached);
        for (int sample = 0; sample < 20; ++sample) {
            check(tracker.step(pose, options), tracker.q().data(), options.max_iterations, options.attached);
        }
    }
}

}  // namespace mfik::testing
