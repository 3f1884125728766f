// What a tracker commands keeps to its bounds whatever it is asked for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "golden.hpp"
#include "kernels/braking.hpp"
#include "mfik/solver.hpp"

namespace mfik::testing {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

static_assert(noexcept(std::declval<Tracker&>().step(std::declval<const Pose&>(), Options())));
static_assert(std::is_nothrow_move_constructible_v<Tracker> && !std::is_copy_constructible_v<Tracker>);

using Random = std::mt19937_64;

double uniform(Random& random, double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
}

/// 10^uniform.
double magnitude(Random& random, double low, double high) {
    return std::pow(10.0, uniform(random, low, high));
}

TEST(Braking, StoppingWayIsThatOfTheSamplesOfBraking) {
    Random random(1);
    for (int trial = 0; trial < 20000; ++trial) {
        const double brake = magnitude(random, -3, 1), v = magnitude(random, -3, 2);
        double way = 0.0, slower = v;
        while ((slower -= brake) > 0.0) way += slower;
        EXPECT_NEAR(stopping_way(v, brake), way, 1e-9 * (1 + way));
    }
}

TEST(Braking, LargestStoppableUsesTheRoomUp) {
    Random random(2);
    for (int trial = 0; trial < 200000; ++trial) {
        const double brake = magnitude(random, -6, 3), room = magnitude(random, -9, 6);
        const double v = largest_stoppable(room, brake);
        EXPECT_NEAR(v + stopping_way(v, brake), room, 1e-9 * room);
        const double braked = std::max(v - brake, 0.0);
        EXPECT_NEAR(stopping_way(v, brake), braked + stopping_way(braked, brake), 1e-9 * (room + brake));
    }
    EXPECT_EQ(largest_stoppable(0.0, 1.0), 0.0);
    EXPECT_EQ(largest_stoppable(kInf, 1.0), kInf);
}

/// A joint that is driven by an adversary: to the edge of every box, so that it runs into its limits as fast as it may.
TEST(Braking, BoxesAreNeverEmptyAndNeverLeadOutOfTheLimits) {
    Random random(3);
    for (int joint = 0; joint < 2000; ++joint) {
        const double lower = -magnitude(random, -1, 1), upper = magnitude(random, -1, 1);
        const double bound = magnitude(random, -2, 1), brake = bound * magnitude(random, -2, 0.5);
        double q = uniform(random, lower, upper), v = 0.0;
        for (int sample = 0; sample < 1000; ++sample) {
            const VelocityBox box = velocity_box(v, bound, brake, brake * (1 + 1e-9), lower - q, upper - q);
            ASSERT_LE(box.low, box.high);
            const double choice = uniform(random, 0, 1);
            const double next = choice < 0.45 ? box.high : choice < 0.9 ? box.low : uniform(random, box.low, box.high);
            ASSERT_LE(std::abs(next), bound);
            ASSERT_LE(std::abs(next - v), brake * (1 + 1e-8));
            q += next, v = next;
            ASSERT_LE(lower - q, 1e-12) << joint << " " << sample;
            ASSERT_LE(q - upper, 1e-12);
        }
    }
}

class TrackerTest : public ::testing::Test {
  protected:
    std::vector<double> random_joints() {
        std::vector<double> q(n_);
        for (std::size_t j = 0; j < n_; ++j) q[j] = uniform(random_, solver_.lower()[j], solver_.upper()[j]);
        return q;
    }

    const Solver solver_ = Solver::load(golden_bundle("v1"));
    const std::size_t n_ = static_cast<std::size_t>(solver_.dof());
    Random random_{4};
};

/// Targets within and beyond reach, near and far, on paths of any speed, and some that are none; over all of them the
/// differences of the commands, as a controller computes them.
TEST_F(TrackerTest, NoBoundIsEverBrokenWhateverTheTargets) {
    Options options;
    options.max_iterations = 3;
    long solved = 0;
    for (int run = 0; run < 600 / MFIK_TEST_SHARE; ++run) {
        const double dt = magnitude(random_, -4, -1);
        std::vector<double> velocity(n_), acceleration(n_), q = random_joints();
        for (std::size_t j = 0; j < n_; ++j) {
            velocity[j] = magnitude(random_, -1.5, 1.5);
            acceleration[j] = magnitude(random_, -1, 2.5);
        }
        if (run % 3 == 0) std::copy_n(solver_.upper().data(), n_, q.data());
        Tracker tracker(solver_, q, dt, velocity, acceleration);
        std::vector<double> dq(n_, 0.0), at = random_joints(), to = random_joints();
        const double speed = magnitude(random_, -4, -0.5);
        for (int sample = 0; sample < 500; ++sample) {
            const double kind = uniform(random_, 0, 1);
            if (kind < 0.01) at = random_joints();
            if (kind > 0.99) to = random_joints();
            for (std::size_t j = 0; j < n_; ++j) at[j] += speed * (to[j] - at[j]);
            Pose pose = solver_.fk(at);
            if (kind > 0.5 && kind < 0.52) pose[0] += 2.0;
            if (kind > 0.6 && kind < 0.61) pose[1] = std::numeric_limits<double>::quiet_NaN();
            options.q_preferred = run % 2 == 0 ? Span<const double>(to) : Span<const double>();
            const Result result = tracker.step(pose, options);
            solved += result.status == Status::kSolved;
            for (std::size_t j = 0; j < n_; ++j) {
                const double next = tracker.q()[j], v = (next - q[j]) / dt;
                ASSERT_GE(next, solver_.lower()[j]);
                ASSERT_LE(next, solver_.upper()[j]);
                ASSERT_EQ(v, tracker.dq()[j]);
                ASSERT_LE(std::abs(v), velocity[j]) << run << " " << sample;
                ASSERT_LE(std::abs((v - dq[j]) / dt), acceleration[j]) << run << " " << sample;
                q[j] = next, dq[j] = v;
            }
        }
    }
    EXPECT_GT(solved, 300 / MFIK_TEST_SHARE);
}

TEST_F(TrackerTest, APathWithinTheBoundsIsFollowedWithoutDelay) {
    const std::vector<double> from(n_, 0.0), velocity(n_, 3.0), acceleration(n_, 30.0);
    std::vector<double> q{0.0, -0.8, 0.0, -2.4, 0.0, 1.6, 0.8};
    Tracker tracker(solver_, q, 1e-3, velocity, acceleration);
    const Pose start = solver_.fk(q);
    for (int sample = 0; sample < 2000; ++sample) {
        const double time = 2e-3 * std::acos(-1.0) * sample, ease = 0.05 * (1 - std::cos(time / 2));
        Pose pose = start;
        pose[1] += ease * std::sin(time), pose[2] += ease * (1 - std::cos(time));
        ASSERT_EQ(tracker.step(pose).status, Status::kSolved) << sample;
    }
}

TEST_F(TrackerTest, InvalidTargetsLetTheJointsGoOnToTheLastOne) {
    const std::vector<double> velocity(n_, 2.0), acceleration(n_, 10.0);
    std::vector<double> start{0.0, -0.8, 0.0, -2.4, 0.0, 1.6, 0.8}, goal = start;
    goal[0] = 0.3;
    Tracker tracker(solver_, start, 1e-3, velocity, acceleration);
    const Pose pose = solver_.fk(goal);
    for (int sample = 0; sample < 50; ++sample) EXPECT_EQ(tracker.step(pose).status, Status::kJumpBound);
    for (int sample = 0; sample < 2000; ++sample)
        EXPECT_EQ(tracker.step({0, 0, 0, 0, 0, 0, 0}).status, Status::kInvalidInput);
    for (const double v : tracker.dq()) EXPECT_EQ(v, 0.0);
    EXPECT_EQ(tracker.step(pose).status, Status::kSolved);
}

TEST_F(TrackerTest, ArgumentsThatMakeNoSenseAreRefusedByName) {
    const std::vector<double> q{0.0, -0.8, 0.0, -2.4, 0.0, 1.6, 0.8}, velocity(n_, 2.0), acceleration(n_, 10.0);
    const auto message = [&](Span<const double> from, double dt, Span<const double> v, Span<const double> a) {
        try {
            const Tracker tracker(solver_, from, dt, v, a);
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    const auto with = [](std::vector<double> values, double last) {
        values.back() = last;
        return values;
    };
    EXPECT_EQ(message(q, 1e-3, velocity, acceleration), "");
    EXPECT_NE(message(with(q, 9.0), 1e-3, velocity, acceleration).find("q[6]: expected"), std::string::npos);
    EXPECT_NE(message(q, 0.0, velocity, acceleration).find("dt: expected"), std::string::npos);
    EXPECT_NE(message(q, 1e-3, with(velocity, -1.0), acceleration).find("velocity[6]: expected"), std::string::npos);
    EXPECT_NE(message(q, 1e-3, velocity, {}).find("acceleration: expected 7 values"), std::string::npos);
    EXPECT_NE(message(q, 1e-3, velocity, with(acceleration, 1e-12)).find("acceleration[6]: expected"),
              std::string::npos);
    EXPECT_NE(message(q, 1e-3, {}, acceleration).find("velocity[0]: expected a bound"), std::string::npos);
}

}  // namespace
}  // namespace mfik::testing
