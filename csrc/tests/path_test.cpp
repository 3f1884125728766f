// Whole paths: the graph's search and reasons on the golden robot, and what is refused.
#include "mfik/path.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "golden.hpp"
#include "solver/path/graph.hpp"

namespace mfik::testing {
namespace {

/// Poses of a smooth motion about the midpoint of the limits, [count, 7].
std::vector<double> poses_of_motion(const Solver& solver, int count) {
    std::vector<double> poses, q(static_cast<std::size_t>(solver.dof()));
    for (int i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < q.size(); ++j) {
            const double range = solver.upper()[j] - solver.lower()[j];
            q[j] = 0.5 * (solver.lower()[j] + solver.upper()[j]) +
                   0.1 * range * std::sin(0.05 * i + static_cast<double>(j));
        }
        const Pose pose = solver.fk(q);
        poses.insert(poses.end(), pose.begin(), pose.end());
    }
    return poses;
}

TEST(Path, EveryWaypointIsReachedWithinTheBound) {
    const Solver solver = Solver::load(golden_bundle("v1"));
    const std::vector<double> poses = poses_of_motion(solver, 40);
    const double step = 0.2;
    PathOptions path;
    path.max_step = {&step, 1};
    const PathResult result = solver.solve_path(poses, path);
    ASSERT_EQ(result.status, Status::kSolved) << result.reason;
    ASSERT_EQ(result.reached, 40u);
    const std::size_t dof = static_cast<std::size_t>(solver.dof());
    double length = 0.0;
    for (std::size_t i = 0; i < result.reached; ++i) {
        const Pose pose = solver.fk({&result.q[i * dof], dof});
        for (std::size_t k = 0; k < 3; ++k) EXPECT_NEAR(pose[k], poses[i * 7 + k], 1e-5);
        for (std::size_t j = 0; j < dof && i > 0; ++j) {
            const double change = std::abs(result.q[i * dof + j] - result.q[(i - 1) * dof + j]);
            EXPECT_LE(change, step);
            EXPECT_LE(change, result.largest_step[j]);
            length += change;
        }
    }
    EXPECT_NEAR(result.length, length, 1e-9);
}

TEST(Path, TheWaypointOutOfReachIsNamedAndThoseBeforeAreHandedOut) {
    const Solver solver = Solver::load(golden_bundle("v1"));
    std::vector<double> poses = poses_of_motion(solver, 20);
    poses[11 * 7] += 100.0;
    const double step = 0.2;
    PathOptions path;
    path.max_step = {&step, 1};
    const PathResult result = solver.solve_path(poses, path);
    EXPECT_EQ(result.status, Status::kUnreachable);
    EXPECT_EQ(result.reached, 11u);
    EXPECT_NE(result.reason.find("waypoint 11 has no solution"), std::string::npos) << result.reason;
}

TEST(Path, WhatIsRefusedIsNamed) {
    const Solver solver = Solver::load(golden_bundle("v1"));
    const std::vector<double> poses = poses_of_motion(solver, 2);
    const double step = 0.2, none = 0.0;
    const std::vector<double> far(static_cast<std::size_t>(solver.dof()), 1e3);
    const auto refused = [&](PathOptions path, Span<const double> given, const std::string& name) {
        const PathResult result = solver.solve_path(given, path);
        EXPECT_EQ(result.status, Status::kInvalidInput);
        EXPECT_EQ(result.reason.rfind(name, 0), 0u) << result.reason;
        EXPECT_TRUE(result.q.empty());
    };
    PathOptions path;
    refused(path, poses, "max_step");
    path.max_step = {&none, 1};
    refused(path, poses, "max_step");
    path.max_step = {&step, 1};
    refused(path, {}, "poses");
    refused(path, {poses.data(), 8}, "poses");
    path.q_start = far;
    refused(path, poses, "q_start");
}

TEST(Path, ProgressNeverGoesBackThoughStepsAreDoneAgain) {
    const Core core(nullptr, read_bundle(golden_bundle("v1")));
    const Solver solver = Solver::load(golden_bundle("v1"));
    const std::vector<double> poses = poses_of_motion(solver, 2);
    const double step = 0.2;
    std::vector<double> told;
    PathOptions options;
    options.max_step = {&step, 1};
    options.progress = [&told](double share) {
        told.push_back(share);
        return false;
    };
    path::Task task(core, poses, options, Options());
    ASSERT_EQ(task.error, "");
    for (const double done : {0.5, 0.1, 0.7, 2.0}) {
        std::this_thread::sleep_for(std::chrono::milliseconds(110));  // it is told every 100
        EXPECT_FALSE(task.stops(done));
    }
    EXPECT_EQ(told, (std::vector<double>{0.5, 0.5, 0.7, 1.0}));
}

TEST(Path, TheGraphTakesTheShortestWayAndChangesChainsWhereTheyMeet) {
    const Solver solver = Solver::load(golden_bundle("v1"));
    const Core core(nullptr, read_bundle(golden_bundle("v1")));
    const std::vector<double> poses = poses_of_motion(solver, 4);
    const double step = 0.2;
    PathOptions options;
    options.max_step = {&step, 1};
    path::Task task(core, poses, options, Options());
    ASSERT_EQ(task.error, "");
    const std::size_t dof = task.width();
    const auto row = [dof](double x) { return path::Rows(dof, x); };
    const auto chain = [&](int begin, const std::vector<double>& xs) {
        path::Chain made;
        made.begin = begin;
        for (const double x : xs) made.q.insert(made.q.end(), dof, x);
        return made;
    };
    path::Graph graph(task);
    graph.add(chain(0, {0.0, 0.1, 0.3}));  // breaks behind waypoint 2
    graph.add(chain(1, {0.15, 0.15, 0.15}));
    graph.search();
    EXPECT_TRUE(graph.is_complete());
    path::Rows expected = row(0.0);
    for (int i = 0; i < 3; ++i) expected.insert(expected.end(), dof, 0.15);
    EXPECT_EQ(graph.shortest(), expected);
    path::Graph broken(task);
    broken.add(chain(0, {0.0, 0.1}));
    broken.add(chain(2, {0.5, 0.5}));
    broken.search();
    EXPECT_EQ(broken.reached(), 2);
    EXPECT_NEAR(broken.gap().excess, 0.2 * task.unit()[broken.gap().joint], 1e-12);
}

}  // namespace
}  // namespace mfik::testing
