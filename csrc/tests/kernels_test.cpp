// Kinematics and refinement that the solver and the training kernels share.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/chain.hpp"
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/cpu/solver_kernels.hpp"
#include "kernels/refine.hpp"

namespace mfik {
namespace {

void set_transform(double* origin, double angle, const double (&axis)[3], const double (&p)[3]) {
    const double s = std::sin(angle / 2);
    const double quat[4] = {std::cos(angle / 2), s * axis[0], s * axis[1], s * axis[2]};
    double R[9];
    quat_to_matrix(quat, R);
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) origin[4 * i + j] = R[3 * i + j];
        origin[4 * i + 3] = p[i];
    }
}

/// An arm with all kinds of joints: revolute but joint 2 (prismatic) and joint 6 (continuous), seven in all.
Chain mixed_arm() {
    Chain chain;
    chain.dof = 7;
    for (int j = 0; j <= chain.dof; ++j) {
        const double axis[3] = {j % 2 == 0 ? 1.0 : 0.0, j % 2 == 0 ? 0.0 : 1.0, 0.0};
        set_transform(chain.origin[j], 0.9 + 0.2 * j, axis, {0.1 * (j % 3), 0.05, 0.2});
    }
    for (int j = 0; j < chain.dof; ++j) {
        chain.kind[j] = j == 2 ? JointKind::kPrismatic : j == 6 ? JointKind::kContinuous : JointKind::kRevolute;
        chain.lower[j] = j == 2 ? -0.2 : j == 6 ? -kPi : -2.5;
        chain.upper[j] = j == 2 ? 0.3 : j == 6 ? kPi : 2.0;
    }
    return chain;
}

struct Kernels : ::testing::Test {
    void sample(double* q) {
        for (int j = 0; j < chain.dof; ++j) {
            q[j] = std::uniform_real_distribution<double>(chain.lower[j], chain.upper[j])(random);
        }
    }

    void expect_within_limits(const double* q) const {
        const Constraints constraints = limits();
        for (int j = 0; j < chain.dof; ++j) {
            EXPECT_GE(q[j], constraints.lower[j]) << j;
            EXPECT_LE(q[j], constraints.upper[j]) << j;
        }
    }

    Constraints limits() const {
        Constraints constraints;
        set_limits(chain, constraints);
        return constraints;
    }

    Chain chain = mixed_arm();
    std::mt19937 random{3};
};

TEST_F(Kernels, JacobianIsTheDerivativeOfForwardKinematics) {
    constexpr double kStep = 1e-6;
    for (int trial = 0; trial < 50; ++trial) {
        double q[kMaxJoints], axis[kMaxJoints][3], point[kMaxJoints][3];
        sample(q);
        const Transform T = forward(chain, q, axis, point);
        for (int j = 0; j < chain.dof; ++j) {
            double column[6], q_minus[kMaxJoints], q_plus[kMaxJoints], twist[6];
            jacobian_column(chain.kind[j], axis[j], point[j], T.p, column);
            std::copy_n(q, chain.dof, q_minus);
            std::copy_n(q, chain.dof, q_plus);
            q_minus[j] -= kStep;
            q_plus[j] += kStep;
            pose_error(forward(chain, q_plus), forward(chain, q_minus), twist);
            for (int a = 0; a < 6; ++a) EXPECT_NEAR(twist[a] / (2 * kStep), column[a], 1e-8);  // O(step^2), rounding
        }
    }
}

/// T after the time `step` at the velocity v and the angular velocity w, base frame.
Transform moved(const Transform& T, const double* v, const double* w, double step) {
    const double speed = norm3(w), half = 0.5 * speed * step;
    const double quat[4] = {std::cos(half), std::sin(half) * w[0] / speed, std::sin(half) * w[1] / speed,
                            std::sin(half) * w[2] / speed};
    double R[9];
    quat_to_matrix(quat, R);
    Transform out{};
    for (int i = 0; i < 3; ++i) {
        out.p[i] = T.p[i] + step * v[i];
        for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 3; ++k) out.R[3 * i + j] += R[3 * i + k] * T.R[3 * k + j];
    }
    return out;
}

/// Two poses and a motion, and what the kernels say of them for a slack.
struct Slack : ::testing::Test {
    void draw() {
        for (Transform* T : {&target, &tool}) {
            double pose[7];
            for (double& value : pose) value = normal(random);
            ASSERT_TRUE(normalize_pose(pose, pose));
            *T = from_pose(pose);
        }
        for (int i = 0; i < 3; ++i) v[i] = normal(random), w[i] = normal(random);
    }

    /// The error's derivative along the motion, by central differences minus by the rows; the largest difference.
    double mismatch(const double* slack) const {
        constexpr double kStep = 1e-6;
        double before[6], after[6], at[6], rows[9], column[6] = {v[0], v[1], v[2], w[0], w[1], w[2]};
        set_error(slack, target, moved(tool, v, w, -kStep), before, rows);
        set_error(slack, target, moved(tool, v, w, kStep), after, rows);
        set_error(slack, target, tool, at, rows);
        set_column(slack, target, rows, column);
        double largest = 0.0;
        for (int a = 0; a < 6; ++a)
            largest = std::fmax(largest, std::fabs((after[a] - before[a]) / (2 * kStep) + column[a]));
        return largest;
    }

    /// Angle [rad] between the tool's axis k and the target's, from the first.
    double opening(int k) const {
        double c = 0.0;
        for (int i = 0; i < 3; ++i) c += target.R[3 * i + k] * tool.R[3 * i + k];
        return std::acos(std::fmin(std::fmax(c, -1.0), 1.0));
    }

    Transform target{}, tool{};
    double v[3], w[3];
    std::normal_distribution<double> normal;
    std::mt19937 random{5};
};

constexpr double kFree = HUGE_VAL;
constexpr double kSlacks[][6] = {
    {0.0, 0.0, 0.0, 0.1, 0.1, 0.1},     {0.0, kFree, 0.1, 0.0, 0.0, 0.2},     {0.0, 0.0, 0.0, kFree, 0.0, 0.1},
    {kFree, 0.0, 0.0, 0.0, kFree, 0.0}, {0.1, 0.0, 0.0, 0.3, 0.0, kFree},     {0.0, 0.0, 0.0, kFree, kFree, 0.1},
    {0.0, 0.0, 0.0, kFree, 0.0, kFree}, {0.0, 0.1, kFree, 0.0, kFree, kFree}, {0.0, 0.0, 0.1, kFree, kFree, kFree},
};

TEST_F(Slack, RowsAreTheDerivativeOfTheError) {
    for (const auto& slack : kSlacks) {
        int checked = 0;
        while (checked < 200) {
            draw();
            double error[6], rows[9];
            set_error(slack, target, tool, error, rows);
            bool near_the_end = norm3(error + 3) > 2.9;  // the rotation vector jumps at pi
            for (int k = 0; k < 3; ++k) near_the_end = near_the_end || opening(k) > 2.9;
            if (near_the_end) continue;
            ++checked;
            EXPECT_LT(mismatch(slack), 2e-7) << slack[3] << " " << slack[4] << " " << slack[5];
        }
    }
}

TEST_F(Slack, RowsAreTheDerivativeOfTheErrorOnTheSetAndNearIt) {
    for (const auto& slack : kSlacks) {
        for (const double angle : {0.0, 1e-7, 1e-3, 4.9e-3, 5.1e-3, 0.02}) {
            draw();
            tool = moved(target, v, w, angle / norm3(w));
            EXPECT_LT(mismatch(slack), 1e-8) << angle << ": " << slack[3] << " " << slack[4] << " " << slack[5];
        }
    }
}

TEST_F(Slack, AFreeTurnOfAnyAngleIsNoError) {
    for (int k = 0; k < 3; ++k) {
        double slack[6] = {};
        slack[3 + k] = kFree;
        for (double angle = -3.1; angle < 3.2; angle += 0.1) {
            draw();
            const double axis[3] = {target.R[k], target.R[3 + k], target.R[6 + k]}, still[3] = {};
            tool = moved(target, still, axis, angle);
            double error[6], rows[9];
            set_error(slack, target, tool, error, rows);
            EXPECT_LT(norm3(error + 3), 1e-15) << k << " " << angle;
        }
    }
}

TEST_F(Slack, OppositeAxesAreHalfATurnApart) {
    for (int k = 0; k < 3; ++k) {
        double slack[6] = {};
        slack[3 + k] = kFree;
        draw();
        const int i = (k + 1) % 3;
        const double axis[3] = {target.R[i], target.R[3 + i], target.R[6 + i]}, still[3] = {};
        for (const double angle : {kPi, kPi - 1e-10, kPi - 1e-4, kPi - 0.03}) {
            tool = moved(target, still, axis, angle);
            double error[6], rows[9];
            set_error(slack, target, tool, error, rows);
            EXPECT_NEAR(norm3(error + 3), angle, 2e-9);
            for (const double row : rows) EXPECT_LT(std::fabs(row), 1e4);
        }
    }
}

TEST_F(Kernels, PrismaticJointMovesTheToolAlongItsAxis) {
    double q[kMaxJoints], axis[kMaxJoints][3], point[kMaxJoints][3];
    sample(q);
    const Transform before = forward(chain, q, axis, point);
    q[2] += 0.1;
    const Transform after = forward(chain, q);
    for (int i = 0; i < 3; ++i) EXPECT_NEAR(after.p[i] - before.p[i], 0.1 * axis[2][i], 1e-15);
    for (int i = 0; i < 9; ++i) EXPECT_NEAR(after.R[i], before.R[i], 1e-15);
}

TEST(RotationError, IsExactFromZeroToPi) {
    const double axes[][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {0.6, 0, 0.8}, {-0.48, 0.6, 0.64}};
    const double angles[] = {
        0,   1e-12,      1e-9,       1e-6, 1e-3, 0.5, 2.0, std::acos(-0.9) - 1e-9, std::acos(-0.9) + 1e-9,
        3.0, kPi - 1e-6, kPi - 1e-9, kPi};
    for (const auto& axis : axes) {
        for (const double angle : angles) {
            double base[12], turn[12], R[9], R_target[9], error[3];
            set_transform(base, 1.1, {0, 0.8, 0.6}, {0, 0, 0});
            set_transform(turn, angle, axis, {0, 0, 0});
            for (int i = 0; i < 3; ++i) {
                for (int j = 0; j < 3; ++j) {
                    R[3 * i + j] = base[4 * i + j];
                    R_target[3 * i + j] = 0;
                    for (int k = 0; k < 3; ++k) R_target[3 * i + j] += turn[4 * i + k] * base[4 * k + j];
                }
            }
            rotation_error(R_target, R, error);
            EXPECT_NEAR(norm3(error), angle, 1e-14 + 1e-12 * angle) << angle;
            if (angle < kPi) {  // at pi both signs are right
                for (int i = 0; i < 3; ++i) EXPECT_NEAR(error[i], angle * axis[i], 2e-8) << angle;
            }
        }
    }
}

TEST_F(Kernels, PoseRoundTrips) {
    for (int trial = 0; trial < 200; ++trial) {
        double q[kMaxJoints], pose[7], error[6];
        sample(q);
        const Transform T = forward(chain, q);
        to_pose(T, pose);
        EXPECT_GE(pose[3], 0.0);
        pose_error(T, from_pose(pose), error);
        for (const double e : error) EXPECT_NEAR(e, 0.0, 1e-14);
    }
}

TEST_F(Kernels, RefinementConvergesWithinLimits) {
    int converged = 0;
    for (int trial = 0; trial < 500; ++trial) {
        double q_target[kMaxJoints], q[kMaxJoints], error[6];
        sample(q_target);
        for (int j = 0; j < chain.dof; ++j) q[j] = q_target[j] + std::normal_distribution<double>(0, 0.1)(random);
        const Transform T_target = forward(chain, q_target);
        const RefineOutcome outcome = refine(chain, limits(), T_target, q, 20, 1e-9, 1e-9);
        expect_within_limits(q);
        pose_error(T_target, forward(chain, q), error);
        EXPECT_NEAR(outcome.pos_error_m, norm3(error), 1e-12);
        EXPECT_NEAR(outcome.rot_error_rad, norm3(error + 3), 1e-12);
        converged += outcome.converged;
    }
    EXPECT_GT(converged, 475);  // 95 %
}

TEST_F(Kernels, RefinementTakesNoStepWhenAlreadyThere) {
    double q[kMaxJoints];
    sample(q);
    const RefineOutcome outcome = refine(chain, limits(), forward(chain, q), q, 20, 1e-9, 1e-9);
    EXPECT_TRUE(outcome.converged);
    EXPECT_EQ(outcome.iterations, 0);
}

TEST_F(Kernels, RefinementIsBounded) {
    double q[kMaxJoints];
    sample(q);
    Transform far = forward(chain, q);
    far.p[0] += 100;
    for (const int iterations : {0, 1, 7}) {
        const RefineOutcome outcome = refine(chain, limits(), far, q, iterations, 1e-5, 1e-5);
        EXPECT_FALSE(outcome.converged);
        EXPECT_EQ(outcome.iterations, iterations);
        expect_within_limits(q);
    }
}

TEST_F(Kernels, ContinuousJointsTurnTheShortWay) {
    double q_target[kMaxJoints], q[kMaxJoints];
    sample(q_target);
    q_target[6] = kPi - 0.05;
    std::copy_n(q_target, chain.dof, q);
    q[6] = -kPi + 0.05 + 6 * kPi;  // 0.1 rad past it, three turns up
    const RefineOutcome outcome = refine(chain, limits(), forward(chain, q_target), q, 20, 1e-10, 1e-10);
    EXPECT_TRUE(outcome.converged);
    EXPECT_LE(outcome.iterations, 6);
    EXPECT_NEAR(q[6], kPi - 0.05 + 4 * kPi, 0.5);  // it stays on its turn
}

TEST(ActiveSet, JointAtItsLimitLeavesTheStepToTheOthers) {
    // Two sliders along x: the first may not move, so the second must bring all of the 0.5 m.
    Chain chain;
    chain.dof = 2;
    const double quarter_turn[12] = {0, 0, 1, 0, 0, 1, 0, 0, -1, 0, 0, 0};  // z axis to x
    const double identity[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
    std::copy_n(quarter_turn, 12, chain.origin[0]);
    std::copy_n(identity, 12, chain.origin[1]);
    std::copy_n(identity, 12, chain.origin[2]);
    for (int j = 0; j < 2; ++j) chain.kind[j] = JointKind::kPrismatic, chain.lower[j] = -1, chain.upper[j] = 1;
    chain.upper[0] = 0;
    double q[2] = {0, 0};
    const double q_target[2] = {-0.4, 0.9};
    Constraints constraints;
    set_limits(chain, constraints);
    const RefineOutcome outcome = refine(chain, constraints, forward(chain, q_target), q, 20, 1e-9, 1e-9);
    EXPECT_TRUE(outcome.converged);
    EXPECT_EQ(q[0], 0.0);
    EXPECT_NEAR(q[1], 0.5, 1e-9);
    EXPECT_LE(outcome.iterations, 5);
}

/// Every instruction set that this machine runs.
std::vector<cpu::InstructionSet> instruction_sets() {
    std::vector<cpu::InstructionSet> all;
    for (int set = 0; set <= static_cast<int>(cpu::best_instruction_set()); ++set)
        all.push_back(static_cast<cpu::InstructionSet>(set));
    return all;
}

TEST_F(Kernels, LanesAgreeWithOneProblemAtATimeOnEveryInstructionSet) {
    constexpr int kRows = 101;  // no multiple of the lanes
    constexpr double kTolerance = 1e-9;
    const std::size_t n = static_cast<std::size_t>(chain.dof);
    std::vector<double> q(kRows * n), poses(kRows * 7), expected(kRows * n);
    std::vector<int> steps(kRows);
    std::vector<char> solved(kRows);
    for (std::size_t i = 0; i < kRows; ++i) {
        double q_target[kMaxJoints];
        sample(q_target);
        to_pose(forward(chain, q_target), &poses[i * 7]);
        sample(&q[i * n]);
        std::copy_n(&q[i * n], n, &expected[i * n]);
        const RefineOutcome outcome =
            refine(chain, limits(), from_pose(&poses[i * 7]), &expected[i * n], 15, kTolerance, kTolerance);
        steps[i] = outcome.iterations;
        solved[i] = outcome.converged;
        expected[i * n + 6] = std::remainder(expected[i * n + 6], 2 * kPi);
    }
    poses[7 * 5] = NAN;
    for (const cpu::InstructionSet set : instruction_sets()) {
        const cpu::RowKernelsOf<double>& kernels = cpu::kernels<cpu::RowKernels>(set).float64;
        std::vector<double> out(kRows * n), pose(kRows * 7);
        bool converged[kRows];
        std::int32_t iterations[kRows];
        kernels.refine(chain,
                       {q.data(), poses.data(), out.data(), converged, iterations, kRows, 15, kTolerance, kTolerance},
                       0, kRows);
        kernels.fk(chain, {q.data(), pose.data(), kRows}, 0, kRows);
        int compared = 0;
        for (std::size_t i = 0; i < kRows; ++i) {
            double one[7];
            to_pose(forward(chain, &q[i * n]), one);
            for (std::size_t k = 0; k < 7; ++k) EXPECT_NEAR(pose[i * 7 + k], one[k], 1e-14);
            if (i == 5) {
                EXPECT_TRUE(std::isnan(out[i * n]) && !converged[i] && iterations[i] == 0);
                continue;
            }
            EXPECT_EQ(converged[i], solved[i] != 0) << i;
            if (!converged[i]) continue;
            EXPECT_EQ(iterations[i], steps[i]);
            for (std::size_t j = 0; j < n; ++j) EXPECT_NEAR(out[i * n + j], expected[i * n + j], 1e-6);  // rounding
            ++compared;
        }
        EXPECT_GT(compared, 30);
    }
}

TEST_F(Kernels, EveryInstructionSetFindsTheSamePose) {
    SeedTable table{};
    table.reach = reach_beside_rail(chain);
    table.half_size = 0.5 * table.reach;
    table.turns = true;
    table.half0 = kPi;
    for (int i = 0; i < SeedTable::kSize; ++i) {
        sample(table.q[i]);
        const SeedFeature feature = seed_feature(chain, table.half_size, forward(chain, table.q[i]));
        table.offset[i] = table.q[i][0] - feature.place;
        for (int k = 0; k < 7; ++k) table.feature[k][i] = feature.value[k];
    }
    double weight[kMaxJoints];
    std::fill_n(weight, kMaxJoints, 1.0);
    const Constraints constraints = limits();
    for (const cpu::InstructionSet set : instruction_sets()) {
        const cpu::SolverKernels& kernels = cpu::kernels<cpu::SolverKernels>(set);
        for (int trial = 0; trial < 200; ++trial) {
            double q_target[kMaxJoints], error[6];
            sample(q_target);
            SearchTask task{};
            task.chain = &chain, task.constraints = &constraints, task.table = &table;
            task.T_target = forward(chain, q_target);
            task.feature = seed_feature(chain, table.half_size, task.T_target);
            task.tol_pos_m = task.tol_rot_rad = 1e-8;
            task.max_iterations = 12, task.max_attempts = 160;
            sample(task.q_ref);
            task.q_near = task.q_ref;
            task.weight = weight;
            SearchResult result{};
            kernels.search(task, result, nullptr);
            ASSERT_TRUE(result.solved) << kernels.lanes;
            pose_error(task.T_target, forward(chain, result.q), error);
            EXPECT_LE(std::max(norm3(error), norm3(error + 3)), 1e-8);
            expect_within_limits(result.q);
            EXPECT_LE(result.attempts, task.max_attempts);
            EXPECT_LE(result.iterations, (task.max_attempts / kernels.lanes + 1) * (task.max_iterations + 1));
        }
    }
}

TEST(NormalizePose, TakesEitherSignAndRefusesWhatIsNoRotation) {
    const double pose[7] = {1, 2, 3, -2, 0, 0, 0};
    double out[7];
    ASSERT_TRUE(normalize_pose(pose, out));
    EXPECT_EQ(out[0], 1.0);
    EXPECT_EQ(out[3], 1.0);
    const double zero[7] = {1, 2, 3, 0, 0, 0, 0}, bad[7] = {1, NAN, 3, 1, 0, 0, 0}, big[7] = {0, 0, 0, 1e300, 0, 0, 0};
    EXPECT_FALSE(normalize_pose(zero, out));
    EXPECT_FALSE(normalize_pose(bad, out));
    EXPECT_FALSE(normalize_pose(big, out));
}

}  // namespace
}  // namespace mfik
