// One solver shared by threads, a workspace each: the answers of a single thread, and no data race under
// ThreadSanitizer (docs/developing.md).
#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

#include "every_call.hpp"

namespace mfik::testing {
namespace {

bool same(double a, double b) {
    return std::memcmp(&a, &b, sizeof(a)) == 0;  // NaN is NaN
}

class Threads : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Versions, Threads, ::testing::ValuesIn(kVersions));

TEST_P(Threads, ShareASolverAndAnswerAsOneThreadDoes) {
    const Solver solver = Solver::load(golden_bundle(GetParam()));
    const std::size_t rows = golden().q_ref.size() / MFIK_TEST_SHARE;
    const auto answer = [&] {
        std::vector<Result> results;
        Workspace workspace = solver.make_workspace();
        for (std::size_t row = 0; row < rows; ++row) {
            every_call(solver, workspace, row, [&](const Result& result, int) { results.push_back(result); });
        }
        return results;
    };
    const std::vector<Result> expected = answer();
    ASSERT_GT(expected.size(), rows);
    std::vector<std::vector<Result>> answers(4);
    std::vector<std::thread> threads;
    for (auto& results : answers) threads.emplace_back([&] { results = answer(); });
    for (std::thread& thread : threads) thread.join();
    for (const auto& results : answers) {
        ASSERT_EQ(results.size(), expected.size());
        for (std::size_t i = 0; i < results.size(); ++i) {
            EXPECT_EQ(results[i].status, expected[i].status) << i;
            EXPECT_EQ(results[i].iterations, expected[i].iterations) << i;
            EXPECT_TRUE(same(results[i].pos_error_m, expected[i].pos_error_m)) << i;
            EXPECT_TRUE(same(results[i].rot_error_rad, expected[i].rot_error_rad)) << i;
        }
    }
}

TEST_P(Threads, OfABatchAnswerAsOneThreadDoes) {
    const Solver solver = Solver::load(golden_bundle(GetParam()));
    const std::size_t repeats = 20, rows = repeats * golden().q_ref.size();  // more than a thread takes at a time
    std::vector<double> poses, q_ref;
    for (std::size_t i = 0; i < rows; ++i) {
        const std::size_t row = i % golden().q_ref.size();
        for (const double x : golden().target_pose[row]) poses.push_back(x);
        for (const double x : golden().q_ref[row]) q_ref.push_back(x);
    }
    std::vector<double> expected(q_ref.size()), q(q_ref.size());
    std::vector<Result> results(rows);
    const Status status = solver.solve_batch(poses, q_ref, expected, results);
    EXPECT_EQ(solver.solve_batch(poses, q_ref, q, results, {}, {}, 4), status);
    EXPECT_EQ(q, expected);
}

}  // namespace
}  // namespace mfik::testing
