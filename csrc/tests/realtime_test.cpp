// No call takes memory or more steps than promised, whatever the outcome: counted by replacing the global operator new.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "aligned_memory.hpp"
#include "every_call.hpp"
#include "mfik/collision.hpp"

namespace {

thread_local long allocations = 0;

void* allocate(std::size_t size, std::size_t alignment) {
    ++allocations;
    // The size is to be a multiple of the alignment.
    void* p = aligned_memory(alignment, (size + alignment - 1) / alignment * alignment);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}

}  // namespace

// Every form, as sanitizers bring their own of those that are left out.
void* operator new(std::size_t size) {
    return allocate(size, alignof(std::max_align_t));
}
void* operator new[](std::size_t size) {
    return allocate(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, alignof(std::max_align_t));
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept {
    release_aligned_memory(p);
}
void operator delete(void* p, std::size_t) noexcept {
    release_aligned_memory(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
    release_aligned_memory(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
    release_aligned_memory(p);
}
void operator delete[](void* p) noexcept {
    release_aligned_memory(p);
}
void operator delete[](void* p, std::size_t) noexcept {
    release_aligned_memory(p);
}
void operator delete[](void* p, std::align_val_t) noexcept {
    release_aligned_memory(p);
}
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept {
    release_aligned_memory(p);
}

static_assert(noexcept(std::declval<const mfik::Solver&>().solve({}, {}, {}, std::declval<mfik::Workspace&>())));
static_assert(noexcept(std::declval<const mfik::Solver&>().track({}, {}, 0.1, {}, std::declval<mfik::Workspace&>())));
static_assert(noexcept(std::declval<const mfik::Solver&>().solve_all({}, {}, {}, std::declval<mfik::Workspace&>())));
static_assert(noexcept(std::declval<const mfik::Solver&>().fk({})));
static_assert(noexcept(std::declval<mfik::World&>().set_pose(0, {})));
static_assert(noexcept(std::declval<mfik::Attachments&>().set_pose(0, {})));

namespace mfik::testing {
namespace {

class RealTime : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Versions, RealTime, ::testing::ValuesIn(kVersions));

TEST_P(RealTime, NoCallTakesMemoryWhateverTheOutcome) {
    const Solver solver = Solver::load(golden_bundle(GetParam()));
    Workspace workspace = solver.make_workspace();
    const std::size_t rows = golden().q_ref.size();
    const long before_new = allocations;
    std::vector<double> counted(3);
    ASSERT_GT(allocations, before_new) << "the counter does not count";

    const long before = allocations;
    Seen seen{};
    for (std::size_t row = 0; row < rows; ++row) {
        every_call(solver, workspace, row,
                   [&seen](const Result& result, int) { ++seen[static_cast<std::size_t>(result.status)]; });
    }
    EXPECT_EQ(allocations, before);
    for (std::size_t status = 0; status < seen.size(); ++status) {
        if (static_cast<Status>(status) == Status::kInCollision) continue;  // needs spheres: see below
        EXPECT_GT(seen[status], 0) << to_string(static_cast<Status>(status)) << " was not tried";
    }
}

TEST_P(RealTime, NoStepOfATrackerTakesMemoryOrMoreStepsThanPromised) {
    const Solver solver = Solver::load(golden_bundle(GetParam()));
    std::vector<double> midpoint(7), bounds(7, 2.0);
    for (std::size_t j = 0; j < midpoint.size(); ++j) midpoint[j] = 0.5 * (solver.lower()[j] + solver.upper()[j]);
    Tracker tracker(solver, midpoint, 1e-3, bounds, bounds);
    const Pose start = solver.fk(midpoint);
    Options options;
    Seen seen{};
    const std::size_t rows = golden().target_pose.size();
    const long before = allocations;
    for (std::size_t sample = 0; sample < 4000; ++sample) {
        Pose pose;
        for (std::size_t k = 0; k < pose.size(); ++k) pose[k] = golden().target_pose[sample / 200 % rows][k];
        if (sample < 200) pose = start;          // the others are too far for a fifth of a second
        if (sample % 200 == 100) pose[3] = 0.0;  // no unit quaternion, where qw counts
        if (sample / 200 % 4 == 3) pose[0] += 3.0;
        options.q_preferred = sample / 400 % 2 == 0 ? Span<const double>(midpoint) : Span<const double>();
        const Result result = tracker.step(pose, options);
        ++seen[static_cast<std::size_t>(result.status)];
        EXPECT_LE(result.iterations, options.max_iterations);
    }
    EXPECT_EQ(allocations, before);
    for (const Status status : {Status::kSolved, Status::kJumpBound, Status::kInvalidInput, Status::kUnreachable})
        EXPECT_GT(seen[static_cast<std::size_t>(status)], 0) << to_string(status) << " was not tried";
}

TEST_P(RealTime, NoCallTakesMoreStepsThanPromised) {
    const Solver solver = Solver::load(golden_bundle(GetParam()));
    Workspace workspace = solver.make_workspace();
    double largest_share = 0.0;
    for (std::size_t row = 0; row < golden().q_ref.size(); ++row) {
        every_call(solver, workspace, row, [&largest_share](const Result& result, int bound) {
            EXPECT_LE(result.iterations, bound);
            if (bound > 3) largest_share = std::max(largest_share, static_cast<double>(result.iterations) / bound);
        });
    }
    EXPECT_GT(largest_share, 0.5) << "no call came near the bound";
    // Within reach, but not so turned: no attempt can succeed.
    const Pose impossible{0.05, 0, 1.1, 0, 1, 0, 0};
    std::array<double, 7> q;
    for (const int attempts : {1, 2, 7, 8, 9, 160, 161}) {
        for (const int iterations : {1, 2, 12, 100}) {
            Options options;
            options.max_attempts = attempts;
            options.max_iterations = iterations;
            const Result result = solver.solve(impossible, golden().q_ref[0], q, workspace, options);
            EXPECT_NE(result.status, Status::kSolved);
            EXPECT_LE(result.attempts, attempts);
            EXPECT_LE(result.iterations, worst_case_iterations(solver, options)) << attempts << " x " << iterations;
        }
    }
}

TEST(RealTimeCollision, NeitherClearanceNorMovingAShapeTakesMemory) {
    const Solver solver = two_balls();
    World world;
    const Pose pose{0, 0, 0.5, 1, 0, 0, 0}, moved{0, 0, 0.6, 1, 0, 0, 0};
    const std::vector<double> points{0, 0, 1, 0, 0.1, 1, 0.1, 0, 1};
    world.add_sphere("sphere", 0.1, pose);
    world.add_box("box", {0.1, 0.2, 0.3}, pose);
    world.add_cylinder("cylinder", 0.1, 0.2, pose);
    world.add_capsule("capsule", 0.1, 0.2, pose);
    world.add_half_space("floor", {0, 0, -1, 1, 0, 0, 0});
    const int cloud = world.add_point_cloud("cloud", points, 0.01);
    std::array<double, 32> rows{};
    std::array<unsigned char, 16> free{};
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = 0.05 * static_cast<double>(i);

    const long before = allocations;
    for (int shape = 0; shape < world.size(); ++shape) {
        EXPECT_EQ(world.set_pose(shape, shape == cloud ? pose : moved), Status::kSolved);
        const std::array<double, 2> q{0.1 * shape, 0.2};
        EXPECT_TRUE(solver.clearance(q, &world).second != nullptr);
        EXPECT_EQ(solver.is_free(rows, &world, free), Status::kSolved);
    }
    EXPECT_EQ(world.find("cloud"), cloud);
    EXPECT_EQ(world.set_pose(world.size(), pose), Status::kInvalidInput);
    EXPECT_EQ(world.set_pose(0, {0, 0, 0, 2, 0, 0, 0}), Status::kInvalidInput);
    const std::array<double, 2> bad{std::nan(""), 0.0};
    EXPECT_TRUE(std::isnan(solver.clearance(bad, &world).distance_m));
    EXPECT_EQ(allocations, before);
}

TEST(RealTimeCollision, WhatIsHeldIsTakenUpMovedAndLaidDownWithoutMemory) {
    const Solver solver = two_balls();
    World world;
    world.add_sphere("ball", 0.1, {0, 0, 2.0, 1, 0, 0, 0});
    Attachments tool = held_by_two_balls(solver), box = held_by_two_balls(solver);
    box.add("box", std::vector<double>{0, 0, 0, 0.05, 0, 0, 0.1, 0.05}, "two", {0, 0, 0.5, 1, 0, 0, 0}, {"one"});
    const std::array<double, 2> q{0.2, 0.3};
    std::array<unsigned char, 1> free{};

    const long before = allocations;
    // The tip's ball is at z = 0.5; the box's upper end reaches up to 0.5 + 0.5 + 0.1 + 0.05.
    EXPECT_NEAR(solver.clearance(q, &world, false, &tool).distance_m, 1.9 - 0.6, 1e-12);
    EXPECT_NEAR(solver.clearance(q, &world, false, &box).distance_m, 1.9 - 1.15, 1e-12);
    EXPECT_STREQ(solver.clearance(q, &world, false, &box).first, "box");
    EXPECT_EQ(box.set_pose(box.find("box"), {0, 0, 1.3, 1, 0, 0, 0}), Status::kSolved);
    EXPECT_NEAR(solver.clearance(q, &world, false, &box).distance_m, 1.9 - 1.95, 1e-12);
    for (const Attachments* held : {static_cast<const Attachments*>(nullptr), static_cast<const Attachments*>(&tool),
                                    static_cast<const Attachments*>(&box)}) {
        EXPECT_EQ(solver.is_free(q, &world, free, 0.0, false, held), Status::kSolved);
        EXPECT_EQ(free[0] != 0, held != &box);
    }
    EXPECT_EQ(box.set_pose(2, {0, 0, 0, 1, 0, 0, 0}), Status::kInvalidInput);
    EXPECT_EQ(box.set_pose(1, {0, 0, 0, 1, 1, 0, 0}), Status::kInvalidInput);
    EXPECT_EQ(box.find("brush"), -1);
    EXPECT_EQ(allocations, before);
}

TEST(RealTimeCollision, NoCallBesideObstaclesTakesMemoryOrMoreStepsThanPromised) {
    const Solver solver = two_balls();
    Workspace workspace = solver.make_workspace();
    Tracker tracker = tracker_of_two_balls(solver);
    World world = around_two_balls();
    Attachments held = held_by_two_balls(solver);
    const long before = allocations;
    Seen seen{};
    int held_free = 0, held_colliding = 0;
    const auto check = [&](const Result& result, const double* q, int bound, const Attachments* attached) {
        ++seen[static_cast<std::size_t>(result.status)];
        EXPECT_LE(result.iterations, bound);
        EXPECT_EQ(result.first != nullptr && result.second != nullptr, result.status == Status::kInCollision);
        if (result.first != nullptr && std::strcmp(result.first, "held") == 0) ++held_colliding;
        if (result.status != Status::kSolved) return;
        EXPECT_GE(solver.clearance({q, 2}, &world, false, attached).distance_m, kMargin);
        EXPECT_GE(solver.clearance({q, 2}, nullptr, true, attached).distance_m, 0.0);
        if (attached != nullptr) ++held_free;
    };
    calls_beside_obstacles(solver, workspace, tracker, world, held, check);
    EXPECT_EQ(allocations, before);
    EXPECT_GT(seen[static_cast<std::size_t>(Status::kSolved)], 50);
    EXPECT_GT(seen[static_cast<std::size_t>(Status::kInCollision)], 50);
    EXPECT_GT(held_free, 10);
    EXPECT_GT(held_colliding, 0);
}

}  // namespace
}  // namespace mfik::testing
