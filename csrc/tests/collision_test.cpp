// Checks of configurations say the same on every instruction set, and what the nearest pair in double precision says.
#include "mfik/collision.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "every_call.hpp"
#include "golden.hpp"
#include "kernels/cpu/collision_kernels.hpp"
#include "kernels/lanes.hpp"
#include "solver/bundle.hpp"
#include "solver/collision/world.hpp"

namespace mfik::testing {
namespace {

World all_shapes(std::mt19937& random) {
    std::uniform_real_distribution<double> place(-0.8, 0.8), up(0.0, 1.0);
    World world;
    world.add_sphere("ball", 0.1, {0.5, 0.2, 0.6, 1, 0, 0, 0});
    world.add_box("box", {0.3, 0.2, 0.4}, {0.5, -0.4, 0.3, 0.8, 0.6, 0, 0});
    world.add_cylinder("cylinder", 0.1, 0.5, {-0.4, 0.5, 0.5, 0.6, 0, 0.8, 0});
    world.add_capsule("capsule", 0.05, 0.4, {-0.5, -0.3, 0.7, 1, 0, 0, 0});
    world.add_half_space("floor", {0, 0, -0.2, 1, 0, 0, 0});
    std::vector<double> points;
    for (int i = 0; i < 50; ++i) points.insert(points.end(), {place(random), place(random), up(random)});
    world.add_point_cloud("cloud", points, 0.01);
    return world;
}

TEST(SphereCheck, EveryInstructionSetAgreesWithTheNearestPairHoweverNearTheMarginIs) {
    const Bundle bundle = read_bundle(golden_bundle("v2"));
    const Chain& chain = bundle.robot.chain;
    std::mt19937 random(1);
    const World world = all_shapes(random);
    const WorldView shapes = WorldAccess::view(&world);
    constexpr int kRows = 501, kCopies = 3;  // no multiple of the lanes
    const std::size_t dof = static_cast<std::size_t>(chain.dof);
    std::vector<double> q(kRows * dof);
    for (std::size_t i = 0; i < q.size(); ++i)
        q[i] = std::uniform_real_distribution<double>(chain.lower[i % dof], chain.upper[i % dof])(random);

    for (const double margin : {-0.01, 0.0, 0.03}) {
        const BodyView body = bundle.robot.body.view(margin);
        std::vector<cpu::Nearest> nearest(kRows);
        cpu::kernels<cpu::CollisionKernels>(cpu::InstructionSet::kBaseline)
            .nearest(chain, body, shapes, true, q.data(), kRows, HUGE_VAL, -HUGE_VAL, nearest.data());
        for (int set = 0; set <= static_cast<int>(cpu::best_instruction_set()); ++set) {
            const auto& kernels = cpu::kernels<cpu::CollisionKernels>(static_cast<cpu::InstructionSet>(set));
            std::vector<unsigned char> free(kRows);
            kernels.free(chain, body, shapes, true, q.data(), kRows, margin, free.data());
            for (std::size_t i = 0; i < kRows; ++i) {
                EXPECT_EQ(free[i] != 0, nearest[i].distance >= margin) << "set " << set << ", row " << i;
                // Points of a cloud, the last shape, are compared in single precision.
                const double beside = nearest[i].second == -world.size() ? 1e-6 : 1e-9;
                std::vector<double> copies;
                for (int copy = 0; copy < kCopies; ++copy) copies.insert(copies.end(), &q[i * dof], &q[i * dof] + dof);
                for (const bool kept : {false, true}) {
                    for (const int rows : {1, kCopies}) {  // alone, and side by side
                        unsigned char is_free[kCopies] = {2, 2, 2};
                        kernels.free(chain, body, shapes, true, copies.data(), rows,
                                     nearest[i].distance + (kept ? -beside : beside), is_free);
                        EXPECT_EQ(is_free[rows - 1] != 0, kept) << "set " << set << ", row " << i << " of " << rows;
                    }
                }
            }
            const auto count = std::count(free.begin(), free.end(), 1);
            EXPECT_TRUE(count > 20 && count < kRows - 20) << "of both kinds, not " << count;
        }
    }
}

TEST(Collision, AWorldIsRefusedWithoutSpheresBesideWhichNothingIsWritten) {
    const Solver solver = two_balls(false);
    Workspace workspace = solver.make_workspace();
    World world;
    world.add_sphere("ball", 0.1, {0, 0, 5, 1, 0, 0, 0});
    Options options;
    options.world = &world;
    const std::array<double, 2> q_ref{};
    const Pose pose{0, 0, 0.5, 1, 0, 0, 0};
    std::array<double, 2> q{7.0, 7.0};
    const auto expect_refused = [&q](const Result& result) {
        EXPECT_EQ(result.status, Status::kInvalidInput);
        EXPECT_NE(std::string(result.reason).find("fit_spheres.py"), std::string::npos) << result.reason;
        EXPECT_EQ(q, (std::array<double, 2>{7.0, 7.0}));
    };
    for (const bool by_itself : {false, true}) {
        if (by_itself) options.world = nullptr, options.self_collision = SelfCollision::kOn;
        expect_refused(solver.solve(pose, q_ref, q, workspace, options));
        expect_refused(solver.track(pose, q_ref, 0.1, q, workspace, options));
        expect_refused(solver.solve_all(pose, q_ref, q, workspace, 0.1, options));
    }
    EXPECT_TRUE(std::isnan(solver.clearance(q_ref, &world).distance_m));
    std::array<unsigned char, 1> free{9};
    EXPECT_EQ(solver.is_free(q_ref, &world, free), Status::kInvalidInput);
    EXPECT_EQ(free[0], 9);

    // What it holds is something to check, though.
    Attachments held(solver);
    held.add("held", std::vector<double>{0, 0, 0, 0.1}, "t");
    options = {};
    options.world = &world, options.attached = &held;
    EXPECT_EQ(solver.solve(pose, q_ref, q, workspace, options).status, Status::kSolved);
    EXPECT_NEAR(solver.clearance(q, &world, true, &held).distance_m, 4.3, 1e-4);
}

TEST(Attachments, AreCheckedAsTheirDistanceSaysWhereverTheyWereMoved) {
    const Solver solver = Solver::load(golden_bundle("v2"));
    std::mt19937 random(2);
    const World world = all_shapes(random);
    Attachments held(solver);
    std::vector<double> row;
    for (int i = 0; i < 20; ++i) row.insert(row.end(), {0, 0, 0.02 * i, 0.03});  // more than a register holds
    const int tool = held.add("tool", row, solver.tip_link(), {0, 0, 5, 1, 0, 0, 0});
    held.add("camera", std::vector<double>{0, 0, 0, 0.05, 0.05, 0, 0, 0.04}, "panda_link5");
    const int mast = held.add("mast", std::vector<double>{0, 0, 0, 0.03}, "panda_link3", {0.2, 0, 0, 1, 0, 0, 0});
    ASSERT_EQ(held.set_pose(tool, {0, 0.02, 0.1, 0.8, 0.6, 0, 0}), Status::kSolved);
    ASSERT_EQ(held.set_pose(mast, {0.25, 0, 0.05, 1, 0, 0, 0}), Status::kSolved);

    const std::size_t dof = static_cast<std::size_t>(solver.dof());
    constexpr std::size_t kRows = 400;
    std::vector<double> q(kRows * dof);
    for (std::size_t i = 0; i < q.size(); ++i)
        q[i] = std::uniform_real_distribution<double>(solver.lower()[i % dof], solver.upper()[i % dof])(random);
    std::vector<unsigned char> free(kRows), without(kRows);
    ASSERT_EQ(solver.is_free(q, &world, free, 0.0, true, &held), Status::kSolved);
    ASSERT_EQ(solver.is_free(q, &world, without), Status::kSolved);
    int seen[3] = {};
    for (std::size_t i = 0; i < kRows; ++i) {
        const Clearance clearance = solver.clearance({&q[i * dof], dof}, &world, true, &held);
        EXPECT_EQ(free[i] != 0, clearance.distance_m >= 0.0) << "row " << i;
        EXPECT_LE(free[i], without[i]) << "row " << i;
        for (int object = 0; object < 3; ++object)
            if (clearance.first == held.name(object) || clearance.second == held.name(object)) ++seen[object];
    }
    EXPECT_GT(std::count(free.begin(), free.end(), 1), 20);
    for (const int times : seen) EXPECT_GT(times, 0);
}

/// The message with which an object is refused.
template <class Add>
std::string refused(Add add) {
    try {
        add();
    } catch (const Error& error) {
        return error.what();
    }
    return "nothing";
}

TEST(Attachments, WhatCannotBeAttachedIsRefusedByNameAndNothingIsAttached) {
    const Solver solver = two_balls();
    Attachments held = held_by_two_balls(solver);
    const std::vector<double> ball{0, 0, 0, 0.1}, no_radius{0, 0, 0, 0}, endless{0, HUGE_VAL, 0, 0.1}, three{0, 0, 0.1};
    const Pose here{0, 0, 0, 1, 0, 0, 0};
    const auto message = [&](const char* name, const std::vector<double>& spheres, const char* link,
                             const Pose& pose = {0, 0, 0, 1, 0, 0, 0}, const std::vector<std::string>& touching = {}) {
        return refused([&] { held.add(name, spheres, link, pose, touching); });
    };
    const auto expect = [](const std::string& text, const char* part) {
        EXPECT_NE(text.find(part), std::string::npos) << text;
    };
    expect(message("one", ball, "t"), "object 'one': expected a name that no link of the body has");
    expect(message("held", ball, "t"), "expected a name that no link of the body has");
    expect(message("new", ball, "elbow"), "link: 'elbow' is no link of the robot; use one of b, t, one, two");
    expect(message("new", ball, "held"), "link: 'held' is no link of the robot; use one of b, t, one, two");
    expect(message("new", ball, "t", here, {"elbow"}), "touching: 'elbow' does not exist; use one of one, two, held");
    expect(message("new", ball, "t", {0, 0, 0, 2, 0, 0, 0}), "T_link_object: expected seven finite numbers");
    expect(message("new", no_radius, "t"), "spheres_m[3]: expected a finite number above 0 (radius [m]), got 0.0");
    expect(message("new", endless, "t"), "spheres_m[1]: expected a finite number, got inf");
    expect(message("new", three, "t"), "got 3 numbers; give four for each");
    expect(message("new", {}, "t"), "spheres_m: expected [x, y, z, radius]");
    EXPECT_EQ(held.size(), 1);
    const Attachments moved = std::move(held);
    expect(refused([&] { held.add("new", ball, "t"); }), "moved from");  // NOLINT(bugprone-use-after-move)

    // Taken by the solver that they were made for alone, wherever that has gone.
    Solver first = two_balls(), other = two_balls();
    const Attachments of_first = held_by_two_balls(first);
    first = two_balls();
    const Solver last = std::move(other);
    const Attachments of_last = held_by_two_balls(last);
    Workspace workspace = last.make_workspace();
    std::array<double, 2> q{};
    Options options;
    for (const auto& [attached, fits] : {std::pair{&of_last, true}, {&of_first, false}, {&held, false}}) {
        options.attached = attached;
        EXPECT_EQ(last.solve(here, q, q, workspace, options).status == Status::kInvalidInput, !fits);
        EXPECT_EQ(std::isnan(last.clearance(q, nullptr, true, attached).distance_m), !fits);
    }
}

}  // namespace
}  // namespace mfik::testing
