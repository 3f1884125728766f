// Joints that pursue a goal whose way ahead they do not know.
#include "kernels/pursuit.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace mfik {
namespace {

using Random = std::mt19937_64;
constexpr double kInf = std::numeric_limits<double>::infinity();

double uniform(Random& random, double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
}

/// One joint without limits. A sample is the unit of time.
class Joint {
  public:
    Joint(double velocity, double brake) : velocity_(velocity), brake_(brake) {}

    void pursue(double goal) {
        motion_.observe(goal - goal_, brake_);
        const double gap = goal - q, before = v_;
        const VelocityBox box = velocity_box(v_, velocity_, brake_, brake_ * (1 + 1e-9), -kInf, kInf);
        mfik::pursue(1, &gap, &motion_, &velocity_, &brake_, &box, &v_);
        EXPECT_LE(std::abs(v_), velocity_);
        EXPECT_LE(std::abs(v_ - before), brake_ * (1 + 1e-8));
        goal_ = goal;
        q += v_;
    }

    double q = 0.0;

  private:
    double velocity_, brake_, goal_ = 0.0, v_ = 0.0;
    GoalMotion motion_;
};

/// Way of a motion from 0 to 1 without jerk at its ends, at `time` in [0, 1]: at most 1.875 fast, 5.7735 accelerated.
double smooth_way(double time) {
    time = std::clamp(time, 0.0, 1.0);
    return time * time * time * (10.0 - 15.0 * time + 6.0 * time * time);
}

/// How far a joint passes the end of that motion, which takes some samples, with shares of the bounds that it needs.
double passes_end(double share_of_velocity, double share_of_acceleration, int samples) {
    Joint joint(share_of_velocity * 1.875 / samples, share_of_acceleration * 5.7735 / (samples * samples));
    double farthest = 0.0;
    for (int i = 1; i <= 12 * samples; ++i) {
        joint.pursue(smooth_way(static_cast<double>(i) / samples));
        farthest = std::max(farthest, joint.q);
    }
    EXPECT_NEAR(joint.q, 1.0, 1e-9);
    return farthest - 1.0;
}

TEST(Pursuit, AGoalThatSlowsDownIsNotPassedByAJointThatCatchesUpWithIt) {
    Random random(1);
    for (int trial = 0; trial < 50; ++trial) {
        const double velocity = uniform(random, 0.5, 0.99), acceleration = uniform(random, 1.05, 3.0);
        EXPECT_LT(passes_end(velocity, acceleration, 200 + trial * 20), 1e-3) << velocity << " " << acceleration;
    }
}

TEST(Pursuit, AGoalThatSlowsDownHarderThanTheJointCanIsHardlyPassed) {
    Random random(2);
    for (int trial = 0; trial < 50; ++trial) {
        const double acceleration = uniform(random, 0.2, 1.0);
        EXPECT_LT(passes_end(10.0, acceleration, 200 + trial * 20), 0.03) << acceleration;
    }
}

/// As an elbow's, where the target leaves the reach on a straight line.
TEST(Pursuit, AGoalThatSpeedsUpWithoutBoundAndStopsAtOnceIsHardlyPassed) {
    Random random(3);
    for (int trial = 0; trial < 50; ++trial) {
        const double samples = uniform(random, 300, 3000), acceleration = uniform(random, 1.0, 10.0);
        Joint joint(kInf, acceleration / (samples * samples));
        double farthest = 0.0;
        for (int i = 1; i <= 8 * static_cast<int>(samples); ++i) {
            joint.pursue(1.0 - std::sqrt(std::max(0.0, 1.0 - i / samples)));
            farthest = std::max(farthest, joint.q);
        }
        EXPECT_NEAR(joint.q, 1.0, 1e-9);
        EXPECT_LT(farthest - 1.0, 0.1) << samples << " " << acceleration;
    }
}

TEST(Pursuit, AGoalOfConstantVelocityIsCaughtUpWithHoweverItGotThere) {
    for (const double harder : {0.5, 2.0, 20.0, kInf}) {
        const double velocity = 1e-3, brake = 2e-6;
        Joint joint(kInf, brake);
        double goal = 0.0, v = 0.0;
        for (int i = 0; i < 60000; ++i) {
            v = std::min(velocity, v + harder * brake);
            joint.pursue(goal += v);
        }
        EXPECT_NEAR(joint.q, goal, 1e-9) << harder;
    }
}

TEST(Pursuit, NoiseOfTheGoalIsNoReasonToStayBehind) {
    Random random(4);
    std::normal_distribution<double> noise(0.0, 1e-6);
    Joint joint(kInf, 2e-6);
    double farthest = 0.0;
    for (int i = 1; i <= 20000; ++i) {
        const double goal = 1e-3 * i;
        joint.pursue(goal + noise(random));
        if (i > 4000) farthest = std::max(farthest, std::abs(goal - joint.q));
    }
    EXPECT_LT(farthest, 1e-3);  // a sample of the goal's motion
}

}  // namespace
}  // namespace mfik
