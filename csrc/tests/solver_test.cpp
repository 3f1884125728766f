#include "mfik/solver.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <utility>

#include "golden.hpp"

namespace mfik::testing {
namespace {

constexpr std::size_t kDof = 7;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kSentinel = 12345.0;
using Joints = std::array<double, kDof>;

static_assert(noexcept(std::declval<const Solver&>().solve(std::declval<const Pose&>(), Span<const double>(),
                                                           Span<double>(), std::declval<Workspace&>(), Options())));
static_assert(noexcept(std::declval<const Solver&>().fk(Span<const double>())));
static_assert(std::is_nothrow_move_constructible_v<Solver> && std::is_nothrow_move_assignable_v<Solver>);
static_assert(std::is_nothrow_move_constructible_v<Workspace> && std::is_nothrow_move_assignable_v<Workspace>);
static_assert(!std::is_copy_constructible_v<Solver> && !std::is_copy_constructible_v<Workspace>);
static_assert(std::is_trivially_copyable_v<Result> && std::is_trivially_copyable_v<Span<double>>);

Pose to_array(const std::vector<double>& row) {
    Pose pose;
    std::copy_n(row.begin(), pose.size(), pose.begin());
    return pose;
}

double position_distance(const Pose& a, const Pose& b) {
    return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

/// Angle between two orientations [rad], by the chord between the nearer of +-quaternions.
double rotation_distance(const Pose& a, const Pose& b) {
    double minus = 0, plus = 0;
    for (int i = 3; i < 7; ++i) {
        minus += (a[i] - b[i]) * (a[i] - b[i]);
        plus += (a[i] + b[i]) * (a[i] + b[i]);
    }
    return 4 * std::asin(std::min(1.0, 0.5 * std::sqrt(std::min(minus, plus))));
}

class SolverTest : public ::testing::Test {
  protected:
    Joints random_joints() {
        Joints q;
        for (std::size_t j = 0; j < kDof; ++j) {
            q[j] = std::uniform_real_distribution<double>(solver_.lower()[j], solver_.upper()[j])(random_);
        }
        return q;
    }

    bool within_limits(const Joints& q) const {
        for (std::size_t j = 0; j < kDof; ++j)
            if (!(q[j] >= solver_.lower()[j] && q[j] <= solver_.upper()[j])) return false;
        return true;
    }

    std::mt19937 random_{7};
    Solver solver_ = Solver::load(golden_bundle());
    Workspace workspace_ = solver_.make_workspace();
};

TEST_F(SolverTest, OneStepAgreesWithPyTorch) {
    Options raw;
    raw.seed = Seed::kNetwork;
    raw.max_iterations = 0;
    for (const char* version : kVersions) {
        const Solver solver = Solver::load(golden_bundle(version));
        Workspace workspace = solver.make_workspace();
        const Golden& rows = golden(version);
        double worst = 0, moved = 0;
        for (std::size_t i = 0; i < rows.q_ref.size(); ++i) {
            Joints q;
            const Result result = solver.solve(to_array(rows.target_pose[i]), rows.q_ref[i], q, workspace, raw);
            ASSERT_NE(result.status, Status::kInvalidInput);
            EXPECT_EQ(result.iterations, 0);
            for (std::size_t j = 0; j < kDof; ++j) {
                worst = std::max(worst, std::abs(q[j] - rows.q_solution[i][j]));
                moved = std::max(moved, std::abs(q[j] - rows.q_ref[i][j]));
            }
        }
        EXPECT_LT(worst, 1e-5) << version;  // [rad]; 1e-6 seen, the rounding of float32
        EXPECT_GT(moved, 0.05) << version;  // the network does something
    }
}

TEST_F(SolverTest, OneStepReportsItsErrorsAndLimits) {
    Options raw;
    raw.seed = Seed::kNetwork;
    raw.max_iterations = 0;
    int outside = 0;
    for (std::size_t i = 0; i < golden().q_ref.size(); ++i) {
        const Pose target = to_array(golden().target_pose[i]);
        Joints q;
        const Result result = solver_.solve(target, golden().q_ref[i], q, workspace_, raw);
        EXPECT_NE(result.status, Status::kSolved);
        EXPECT_TRUE(within_limits(q) || result.status == Status::kAtLimits);
        outside += !within_limits(q);
        EXPECT_NEAR(result.pos_error_m, position_distance(solver_.fk(q), target), 1e-6);  // float32 poses
        EXPECT_NEAR(result.rot_error_rad, rotation_distance(solver_.fk(q), target), 1e-6);
    }
    EXPECT_GT(outside, 0);
    raw.tol_pos_m = raw.tol_rot_rad = 100;  // whatever the pose, the limits still count
    Joints q, above;
    std::copy(solver_.upper().begin(), solver_.upper().end(), above.begin());
    for (double& x : above) x += 3;
    EXPECT_EQ(solver_.solve(solver_.fk(above), above, q, workspace_, raw).status, Status::kAtLimits);
}

TEST_F(SolverTest, RefinementSolvesNearbyPosesWithinLimits) {
    int solved = 0;
    for (int i = 0; i < 500; ++i) {
        const Joints q_target = random_joints();
        Joints q_ref = q_target, q;
        for (double& x : q_ref) x += std::normal_distribution<double>(0, 0.2)(random_);
        const Pose target = solver_.fk(q_target);
        const Result result = solver_.solve(target, q_ref, q, workspace_);
        EXPECT_LE(result.iterations, (Options().max_attempts / solver_.lanes() + 4) * (Options().max_iterations + 1));
        EXPECT_TRUE(within_limits(q));
        const bool reached =
            position_distance(solver_.fk(q), target) <= 1e-5 && rotation_distance(solver_.fk(q), target) <= 1e-5;
        EXPECT_EQ(result.status == Status::kSolved, reached);
        solved += result.status == Status::kSolved;
    }
    EXPECT_GT(solved, 495);  // all seen
}

TEST_F(SolverTest, PoseBeyondTheReachIsUnreachable) {
    Joints q;
    for (const double x : {3.0, 1e6, 1e200, 1e308}) {
        const Result result = solver_.solve({x, 0, 0, 1, 0, 0, 0}, random_joints(), q, workspace_);
        EXPECT_EQ(result.status, Status::kUnreachable) << x;
        EXPECT_EQ(result.attempts, 1);
        EXPECT_GT(result.pos_error_m, 1.0);
        EXPECT_TRUE(within_limits(q));
    }
}

TEST_F(SolverTest, HugeReferenceStillEndsWithinLimits) {
    const Joints q_target = random_joints();
    for (const double size : {10.0, 1e20, 1e39, 1e300}) {
        Joints q_ref, q;
        q_ref.fill(size);
        for (const bool nearest : {false, true}) {
            Options options;
            options.nearest = nearest;
            q.fill(kSentinel);
            EXPECT_NE(solver_.solve(solver_.fk(q_target), q_ref, q, workspace_, options).status, Status::kInvalidInput);
            EXPECT_TRUE(within_limits(q)) << size;
        }
    }
}

TEST_F(SolverTest, InvalidInputLeavesTheOutputUntouched) {
    const Joints q_ref = random_joints();
    const Pose target = solver_.fk(random_joints());
    Joints q;
    const auto expect_invalid = [&](const Pose& pose, Span<const double> ref, Span<double> out, Workspace& workspace,
                                    const Options& options) {
        q.fill(kSentinel);
        const Result result = solver_.solve(pose, ref, out, workspace, options);
        EXPECT_EQ(result.status, Status::kInvalidInput);
        EXPECT_TRUE(std::isnan(result.pos_error_m) && std::isnan(result.rot_error_rad));
        EXPECT_EQ(result.iterations, 0);
        for (const double x : q) EXPECT_EQ(x, kSentinel);
    };
    for (const double bad : {kNaN, kInf, -kInf}) {
        for (std::size_t i = 0; i < 7; ++i) {
            Pose pose = target;
            pose[i] = bad;
            expect_invalid(pose, q_ref, q, workspace_, {});
            Joints ref = q_ref;
            ref[i] = bad;
            expect_invalid(target, ref, q, workspace_, {});
        }
        Options options;
        options.tol_pos_m = bad;
        expect_invalid(target, q_ref, q, workspace_, options);
        options = {};
        options.tol_rot_rad = bad;
        expect_invalid(target, q_ref, q, workspace_, options);
    }
    for (const double scale : {0.0, 0.5, 0.998, 1.002, 1e200}) {
        Pose pose = target;
        for (std::size_t i = 3; i < 7; ++i) pose[i] *= scale;
        expect_invalid(pose, q_ref, q, workspace_, {});
    }
    for (const int iterations : {-1, kMaxIterations + 1}) {
        Options options;
        options.max_iterations = iterations;
        expect_invalid(target, q_ref, q, workspace_, options);
    }
    Options options;
    options.tol_pos_m = -1e-9;
    expect_invalid(target, q_ref, q, workspace_, options);
    for (const int seed : {-1, 4}) {
        options = {};
        options.seed = static_cast<Seed>(seed);
        expect_invalid(target, q_ref, q, workspace_, options);
    }
    expect_invalid(target, {q_ref.data(), kDof - 1}, q, workspace_, {});
    expect_invalid(target, {}, q, workspace_, {});
    expect_invalid(target, q_ref, {q.data(), kDof - 1}, workspace_, {});
    expect_invalid(target, q_ref, {}, workspace_, {});
    Workspace moved_from = solver_.make_workspace();
    const Workspace taken = std::move(moved_from);
    expect_invalid(target, q_ref, q, moved_from, {});
}

TEST_F(SolverTest, QuaternionSignAndSmallNormErrorsDoNotMatter) {
    const Joints q_ref = random_joints();
    const Pose target = solver_.fk(random_joints());
    Joints q, q_same;
    (void)solver_.solve(target, q_ref, q, workspace_);
    for (const double scale : {-1.0, 1.0005, 0.9995}) {
        Pose pose = target;
        for (std::size_t i = 3; i < 7; ++i) pose[i] *= scale;
        (void)solver_.solve(pose, q_ref, q_same, workspace_);
        // A step of 1 ulp in the target may move a redundant arm, but by nothing that matters.
        for (std::size_t j = 0; j < kDof; ++j) EXPECT_NEAR(q_same[j], q[j], 1e-4) << scale;
    }
}

TEST_F(SolverTest, OutputMayShareTheReferencesMemory) {
    const Pose target = solver_.fk(random_joints());
    Joints q = random_joints(), apart;
    (void)solver_.solve(target, q, apart, workspace_);
    (void)solver_.solve(target, q, q, workspace_);
    EXPECT_EQ(q, apart);
}

class BatchTest : public SolverTest {
  protected:
    BatchTest() {
        for (std::size_t i = 0; i < kRows; ++i) {
            const Pose pose = solver_.fk(random_joints());
            const Joints q = random_joints();
            poses_.insert(poses_.end(), pose.begin(), pose.end());
            q_ref_.insert(q_ref_.end(), q.begin(), q.end());
        }
    }

    static constexpr std::size_t kRows = 333;
    std::vector<double> poses_, q_ref_;
    std::vector<double> q_ = std::vector<double>(kRows * kDof, kSentinel);
    std::vector<Result> results_ = std::vector<Result>(kRows);
};

TEST_F(BatchTest, IsTheSameAsALoopForAnyNumberOfThreads) {
    std::vector<double> q_loop(kRows * kDof);
    std::vector<Result> results_loop(kRows);
    for (std::size_t i = 0; i < kRows; ++i) {
        Pose pose;
        std::copy_n(poses_.begin() + static_cast<std::ptrdiff_t>(7 * i), 7, pose.begin());
        results_loop[i] =
            solver_.solve(pose, {q_ref_.data() + i * kDof, kDof}, {q_loop.data() + i * kDof, kDof}, workspace_);
    }
    for (const int threads : {1, 4, 100}) {
        std::fill(q_.begin(), q_.end(), kSentinel);
        std::vector<double> time_us(kRows, -1.0);
        (void)solver_.solve_batch(poses_, q_ref_, q_, results_, time_us, {}, threads);
        EXPECT_EQ(q_, q_loop);  // to the last bit
        for (std::size_t i = 0; i < kRows; ++i) {
            EXPECT_EQ(results_[i].status, results_loop[i].status);
            EXPECT_EQ(results_[i].pos_error_m, results_loop[i].pos_error_m);
            EXPECT_EQ(results_[i].rot_error_rad, results_loop[i].rot_error_rad);
            EXPECT_EQ(results_[i].iterations, results_loop[i].iterations);
            EXPECT_GT(time_us[i], 0.0);
        }
    }
}

TEST_F(BatchTest, InvalidRowsAreReportedAndTheOthersSolved) {
    poses_[7 * 5] = kNaN;
    Options loose;
    loose.tol_pos_m = loose.tol_rot_rad = 10;
    EXPECT_EQ(solver_.solve_batch(poses_, q_ref_, q_, results_, {}, loose), Status::kInvalidInput);
    for (std::size_t i = 0; i < kRows; ++i) {
        EXPECT_EQ(results_[i].status, i == 5 ? Status::kInvalidInput : Status::kSolved);
        EXPECT_EQ(q_[i * kDof] == kSentinel, i == 5);
    }
}

TEST_F(BatchTest, WrongSizesWriteNothing) {
    std::vector<double> short_rows(kRows * 7 - 1), times(kRows - 1);
    EXPECT_EQ(solver_.solve_batch(short_rows, q_ref_, q_, results_), Status::kInvalidInput);
    EXPECT_EQ(solver_.solve_batch(poses_, short_rows, q_, results_), Status::kInvalidInput);
    EXPECT_EQ(solver_.solve_batch(poses_, q_ref_, short_rows, results_), Status::kInvalidInput);
    EXPECT_EQ(solver_.solve_batch(poses_, q_ref_, q_, results_, times), Status::kInvalidInput);
    EXPECT_EQ(solver_.solve_batch(poses_, q_ref_, q_, results_, {}, {}, 0), Status::kInvalidInput);
    for (const double x : q_) EXPECT_EQ(x, kSentinel);
    EXPECT_EQ(solver_.solve_batch({}, {}, {}, {}), Status::kSolved);
}

TEST_F(SolverTest, ForwardKinematicsOfInvalidJointsIsNaN) {
    Joints q = random_joints();
    EXPECT_GE(solver_.fk(q)[3], 0.0);
    q[2] = kNaN;
    for (const double x : solver_.fk(q)) EXPECT_TRUE(std::isnan(x));
    for (const double x : solver_.fk({q.data(), 3})) EXPECT_TRUE(std::isnan(x));
}

TEST_F(SolverTest, MovedFromSolverAnswersInvalidInput) {
    const Joints q_ref = random_joints();
    const Pose target = solver_.fk(q_ref);
    Solver other = std::move(solver_);
    Joints q;
    EXPECT_EQ(solver_.solve(target, q_ref, q, workspace_).status, Status::kInvalidInput);
    EXPECT_EQ(solver_.solve_batch({}, {}, {}, {}), Status::kInvalidInput);
    EXPECT_EQ(solver_.dof(), 0);
    EXPECT_EQ(solver_.num_parameters(), 0u);
    EXPECT_TRUE(solver_.robot_name().empty() && solver_.joint_names().empty() && solver_.lower().empty());
    EXPECT_TRUE(std::isnan(solver_.fk(q_ref)[0]));
    Workspace none = solver_.make_workspace();
    EXPECT_EQ(other.solve(target, q_ref, q, none).status, Status::kInvalidInput);
    solver_ = std::move(other);
    EXPECT_NE(solver_.solve(target, q_ref, q, workspace_).status, Status::kInvalidInput);
}

TEST(StatusTest, HasNames) {
    EXPECT_STREQ(to_string(Status::kSolved), "solved");
    EXPECT_STREQ(to_string(Status::kNotConverged), "not converged");
    EXPECT_STREQ(to_string(Status::kAtLimits), "at limits");
    EXPECT_STREQ(to_string(Status::kInvalidInput), "invalid input");
    EXPECT_STREQ(to_string(static_cast<Status>(9)), "unknown status");
}

}  // namespace
}  // namespace mfik::testing
