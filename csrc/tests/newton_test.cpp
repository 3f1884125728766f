// Second derivatives of the pose error, and the steps that use them.
#include "kernels/newton.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/chain.hpp"

namespace mfik {
namespace {

using Random = std::mt19937;

double uniform(Random& random, double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
}

/// Any rigid transform with an offset of up to half a unit along each axis.
void set_random(Random& random, double* origin) {
    std::normal_distribution<double> normal;
    double pose[7], quat[4], R[9];
    for (double& x : pose) x = normal(random);
    ASSERT_TRUE(normalize_pose(pose, pose));
    std::copy_n(pose + 3, 4, quat);
    quat_to_matrix(quat, R);
    for (int i = 0; i < 3; ++i) {
        std::copy_n(R + 3 * i, 3, origin + 4 * i);
        origin[4 * i + 3] = uniform(random, -0.5, 0.5);
    }
}

/// Five joints of all kinds, two of which move another frame each.
Chain arm_with_mimics(Random& random) {
    Chain chain;
    chain.dof = 5, chain.mimics = 2;
    const JointKind turns = JointKind::kRevolute, slides = JointKind::kPrismatic, winds = JointKind::kContinuous;
    const MovingFrame frames[] = {{0, 1.0, turns}, {1, 1.0, slides}, {2, 1.0, turns}, {0, -0.6, turns},
                                  {3, 1.0, winds}, {1, 0.8, slides}, {4, 1.0, turns}};
    for (int f = 0; f < num_frames(chain); ++f) {
        chain.frame[f] = frames[f];
        chain.kind[frames[f].joint] = frames[f].kind;
    }
    for (int f = 0; f <= num_frames(chain); ++f) set_random(random, chain.origin[f]);
    for (int j = 0; j < chain.dof; ++j) chain.lower[j] = -1.5, chain.upper[j] = 2.0;
    return chain;
}

Transform random_target(Random& random) {
    double origin[12];
    set_random(random, origin);
    Transform T;
    for (int i = 0; i < 3; ++i) {
        std::copy_n(origin + 4 * i, 3, T.R + 3 * i);
        T.p[i] = 3.0 * origin[4 * i + 3];
    }
    return T;
}

/// J^T e and J^T J (its lower triangle) at `at`.
void first_order(const Chain& chain, const Iterate<double>& at, double* gradient, double (*H)[kMaxJoints]) {
    double J[kMaxJoints][6];
    for (int j = 0; j < chain.dof; ++j) {
        joint_column(chain, j, at.axis, at.point, at.tip, J[j]);
        gradient[j] = 0.0;
        for (int a = 0; a < 6; ++a) gradient[j] += J[j][a] * at.error[a];
        for (int k = 0; k <= j; ++k) {
            H[j][k] = 0.0;
            for (int a = 0; a < 6; ++a) H[j][k] += J[j][a] * J[k][a];
        }
    }
}

TEST(Newton, CurvatureIsTheDerivativeOfTheGradient) {
    constexpr double kStep = 1e-5;
    Random random(1);
    for (int trial = 0; trial < 200; ++trial) {
        const Chain chain = arm_with_mimics(random);
        Constraints constraints;
        set_limits(chain, constraints);
        const Transform target = random_target(random);
        Iterate<double> at;
        for (int j = 0; j < chain.dof; ++j) at.q[j] = uniform(random, -1.5, 2.0);
        linearize(chain, constraints, target, at);
        if (std::sqrt(at.rot2) > 3.0) continue;  // at half a turn the rotation vector jumps
        double H[kMaxJoints][kMaxJoints], gradient[kMaxJoints], unused[kMaxJoints][kMaxJoints];
        first_order(chain, at, gradient, H);
        add_curvature(chain, at, at.error, H);
        for (int k = 0; k < chain.dof; ++k) {
            double g[2][kMaxJoints];
            for (int side = 0; side < 2; ++side) {
                Iterate<double> aside = at;
                aside.q[k] += side == 0 ? -kStep : kStep;
                linearize(chain, constraints, target, aside);
                first_order(chain, aside, g[side], unused);
            }
            for (int j = 0; j < chain.dof; ++j)
                EXPECT_NEAR(H[std::max(j, k)][std::min(j, k)], (g[0][j] - g[1][j]) / (2 * kStep), 1e-6)
                    << trial << ": joints " << j << ", " << k;
        }
    }
}

/// Where the target is out of reach, steps of damped least squares go on back and forth; Newton's are at rest soon.
TEST(Newton, StepsKeepToTheLimitsAndEndAtTheLeastError) {
    Random random(2);
    int at_rest = 0;
    constexpr int kTrials = 100;
    for (int trial = 0; trial < kTrials; ++trial) {
        const Chain chain = arm_with_mimics(random);
        Constraints constraints;
        set_limits(chain, constraints);
        Transform target = random_target(random);
        Iterate<double> at;
        for (int j = 0; j < chain.dof; ++j) at.q[j] = uniform(random, -1.5, 2.0);
        double dq[kMaxJoints] = {}, longest = 0.0;
        for (int step = 0; step < 100; ++step) {
            linearize(chain, constraints, target, at);
            newton_step(chain, constraints, target, at, dq, kDampingGain);
            double gradient[kMaxJoints], unused[kMaxJoints][kMaxJoints], falls = 0.0;
            first_order(chain, at, gradient, unused);
            longest = 0.0;
            for (int j = 0; j < chain.dof; ++j) {
                falls += gradient[j] * dq[j];
                longest = std::max(longest, std::abs(dq[j]));
                const bool free = chain.kind[j] == JointKind::kContinuous;
                ASSERT_TRUE(free || at.q[j] + dq[j] <= chain.upper[j] + 1e-12) << trial << ": joint " << j;
                ASSERT_TRUE(free || at.q[j] + dq[j] >= chain.lower[j] - 1e-12) << trial << ": joint " << j;
            }
            ASSERT_GE(falls, -1e-12) << trial;
            const double share = std::min(1.0, 0.1 / longest);
            for (int j = 0; j < chain.dof; ++j) dq[j] *= share;
            move(constraints, chain.dof, dq, at.q);
        }
        at_rest += longest < 1e-9;
    }
    EXPECT_GE(at_rest, 0.9 * kTrials);
}

}  // namespace
}  // namespace mfik
