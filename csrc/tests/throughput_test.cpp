// solve_batch with Options::throughput: many rows side by side, judged by forward kinematics.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "golden.hpp"
#include "mfik/solver.hpp"

namespace mfik::testing {
namespace {

constexpr std::size_t kDof = 7;
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kRounding = 1e-9;  // [m] and [rad], of a pose that went through quaternions twice

class Throughput : public ::testing::Test {
  protected:
    std::vector<double> draw() {
        std::vector<double> q(kDof);
        for (std::size_t j = 0; j < kDof; ++j)
            q[j] = std::uniform_real_distribution<double>(solver_.lower()[j], solver_.upper()[j])(random_);
        return q;
    }

    /// Add a row: a reachable pose and a random reference.
    void add_row() {
        const std::vector<double> q = draw(), q_ref = draw();
        add_row(solver_.fk(q), q_ref);
    }
    void add_row(const Pose& pose, const std::vector<double>& q_ref) {
        poses_.insert(poses_.end(), pose.begin(), pose.end());
        q_ref_.insert(q_ref_.end(), q_ref.begin(), q_ref.end());
    }

    std::size_t rows() const { return poses_.size() / 7; }

    Status solve(const Options& options, int threads = 1) {
        q_.assign(rows() * kDof, kNaN);
        results_.assign(rows(), Result{});
        return solver_.solve_batch(poses_, q_ref_, q_, results_, {}, options, threads);
    }

    Span<const double> row(std::size_t i) const { return {q_.data() + i * kDof, kDof}; }

    /// The whole of `expected`, to the bit, from the row alone.
    void expect_alone_as_in_the_batch(std::size_t i, const Options& options) {
        std::vector<double> q(kDof);
        Result result{};
        (void)solver_.solve_batch(Span<const double>(poses_).subspan(7 * i, 7),
                                  Span<const double>(q_ref_).subspan(kDof * i, kDof), q, Span<Result>(&result, 1), {},
                                  options);
        EXPECT_EQ(result.status, results_[i].status);
        EXPECT_EQ(result.iterations, results_[i].iterations);
        EXPECT_EQ(result.attempts, results_[i].attempts);
        EXPECT_TRUE(std::equal(q.begin(), q.end(), row(i).begin())) << i;
    }

    std::mt19937_64 random_{3};
    Solver solver_ = Solver::load(golden_bundle());
    std::vector<double> poses_, q_ref_, q_;
    std::vector<Result> results_;
};

Options throughput() {
    Options options;
    options.throughput = true;
    return options;
}

TEST_F(Throughput, SolvesWhatSolveSolves) {
    for (int i = 0; i < 1500; ++i) add_row();
    for (const Seed seed : {Seed::kReference, Seed::kNetwork, Seed::kMidpoint, Seed::kAzimuth}) {
        Options options = throughput();
        options.seed = seed;
        EXPECT_EQ(solve(options), Status::kSolved);
        for (std::size_t i = 0; i < rows(); ++i) {
            const Result& result = results_[i];
            ASSERT_EQ(result.status, Status::kSolved) << i;
            EXPECT_TRUE(result.attempts >= 1 && result.attempts <= options.max_attempts && result.solutions == 1);
            EXPECT_LE(result.iterations, result.attempts * options.max_iterations);
            EXPECT_TRUE(result.time_us > 0.0 && result.pos_error_m <= 1e-5 && result.rot_error_rad <= 1e-5);
            const Pose reached = solver_.fk(row(i));
            double distance2 = 0.0, along = 0.0;
            for (std::size_t k = 0; k < 3; ++k) distance2 += std::pow(reached[k] - poses_[7 * i + k], 2);
            for (std::size_t k = 3; k < 7; ++k) along += reached[k] * poses_[7 * i + k];
            EXPECT_NEAR(std::sqrt(distance2), result.pos_error_m, kRounding);
            EXPECT_LE(2 * std::acos(std::min(1.0, std::abs(along))), 1e-5 + 1e-7);  // acos loses half of the digits
            for (std::size_t j = 0; j < kDof; ++j)
                EXPECT_TRUE(row(i)[j] >= solver_.lower()[j] && row(i)[j] <= solver_.upper()[j]);
        }
    }
}

TEST_F(Throughput, ARowDependsNeitherOnOthersNorOnThreads) {
    for (int i = 0; i < 700; ++i) add_row();
    add_row({9, 0, 0, 1, 0, 0, 0}, draw());       // out of reach
    add_row({0.05, 0, 1.1, 0, 1, 0, 0}, draw());  // within reach, but not so turned
    for (int i = 0; i < 100; ++i) add_row();
    for (const Seed seed : {Seed::kReference, Seed::kNetwork}) {
        Options options = throughput();
        options.seed = seed;
        options.max_attempts = 20;
        EXPECT_NE(solve(options), Status::kSolved);
        for (std::size_t i = 0; i < rows(); i += 13) expect_alone_as_in_the_batch(i, options);
        for (std::size_t i = 700; i < 702; ++i) expect_alone_as_in_the_batch(i, options);
        const std::vector<double> alone = q_;
        (void)solve(options, 3);
        EXPECT_EQ(q_, alone);
    }
}

TEST_F(Throughput, StartsAtAReferenceThatIsNear) {
    for (int i = 0; i < 200; ++i) {
        std::vector<double> q = draw(), q_ref = q;
        for (std::size_t j = 0; j < kDof; ++j)
            q_ref[j] = std::clamp(q[j] + 0.02 * std::sin(static_cast<double>(i) + static_cast<double>(j)),
                                  solver_.lower()[j], solver_.upper()[j]);
        add_row(solver_.fk(q), q_ref);
    }
    EXPECT_EQ(solve(throughput()), Status::kSolved);
    int stayed = 0;
    for (std::size_t i = 0; i < rows(); ++i) {
        double largest = 0.0;
        for (std::size_t j = 0; j < kDof; ++j) largest = std::max(largest, std::abs(row(i)[j] - q_ref_[i * kDof + j]));
        stayed += largest < 0.3;
    }
    EXPECT_GE(stayed, 190);
}

TEST_F(Throughput, ToolSlackAndLockedJointsHold) {
    for (int i = 0; i < 300; ++i) add_row();
    Options options = throughput();
    options.T_tip_tool = {0, 0, 0.1, 1, 0, 0, 0};
    options.slack = {0, 0, 0, 0, 0, kInf};  // free to turn about the target's z
    options.locked = 1u << 2;
    (void)solve(options);
    std::size_t solved = 0, by_solve = 0;
    Workspace workspace = solver_.make_workspace();
    Options judge = options;
    judge.max_iterations = 0;  // q as it is, judged
    for (std::size_t i = 0; i < rows(); ++i) {
        EXPECT_EQ(row(i)[2], q_ref_[i * kDof + 2]);
        Pose pose;
        std::copy_n(poses_.begin() + static_cast<std::ptrdiff_t>(7 * i), 7, pose.begin());
        std::array<double, kDof> q;
        const Span<const double> q_ref = Span<const double>(q_ref_).subspan(i * kDof, kDof);
        by_solve += solver_.solve(pose, q_ref, q, workspace, options).status == Status::kSolved;
        if (results_[i].status != Status::kSolved) continue;
        ++solved;
        const Result judged = solver_.solve(pose, row(i), q, workspace, judge);
        EXPECT_EQ(judged.status, Status::kSolved) << i;
        EXPECT_NEAR(judged.pos_error_m, results_[i].pos_error_m, kRounding);
        EXPECT_NEAR(judged.rot_error_rad, results_[i].rot_error_rad, kRounding);
    }
    EXPECT_GT(by_solve, rows() / 3);  // what the arm reaches with that joint where it is
    EXPECT_GE(solved + 3, by_solve);
}

TEST_F(Throughput, SaysOfFailedAndRefusedRowsWhatSolveSays) {
    add_row({9, 0, 0, 1, 0, 0, 0}, draw());       // out of reach
    add_row({0.05, 0, 1.1, 0, 1, 0, 0}, draw());  // within reach, but not so turned
    add_row();
    poses_[7 * 2 + 3] = kNaN;
    add_row();
    q_ref_[3 * kDof] = kInf;
    add_row();
    const Options options = throughput();
    EXPECT_EQ(solve(options), Status::kUnreachable);
    Workspace workspace = solver_.make_workspace();
    for (std::size_t i = 0; i < rows(); ++i) {
        Pose pose;
        std::copy_n(poses_.begin() + static_cast<std::ptrdiff_t>(7 * i), 7, pose.begin());
        std::vector<double> q(kDof);
        const Result one =
            solver_.solve(pose, Span<const double>(q_ref_).subspan(i * kDof, kDof), q, workspace, options);
        EXPECT_EQ(results_[i].status, one.status) << i;
        EXPECT_STREQ(results_[i].reason, one.reason);
        EXPECT_EQ(std::isnan(row(i)[0]), one.status == Status::kInvalidInput) << "refused rows are not written";
    }
    Options bad = options;
    bad.max_attempts = 0;
    EXPECT_EQ(solve(bad), Status::kInvalidInput);
}

}  // namespace
}  // namespace mfik::testing
