// What a GPU thread runs of `fk`, `jacobian` and `solve`, here on the CPU: float against double, and rows in any order.
#include "kernels/solve_rows.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

namespace mfik {
namespace {

/// An arm of `dof` joints; where it is not made for FixedChain, joint 2 is prismatic and the last one continuous.
Chain arm(int dof, bool mixed) {
    Chain chain;
    chain.dof = dof;
    for (int j = 0; j <= dof; ++j) {
        const double half = 0.45 + 0.1 * j;
        const double quat[4] = {std::cos(half), j % 2 == 0 ? std::sin(half) : 0.0, j % 2 == 0 ? 0.0 : std::sin(half),
                                0};
        double R[9];
        quat_to_matrix(quat, R);
        const double p[3] = {0.1 * (j % 3), 0.05, 0.2};
        for (int i = 0; i < 3; ++i) {
            for (int k = 0; k < 3; ++k) chain.origin[j][4 * i + k] = R[3 * i + k];
            chain.origin[j][4 * i + 3] = p[i];
        }
    }
    for (int j = 0; j < dof; ++j) {
        chain.kind[j] = mixed && j == 2         ? JointKind::kPrismatic
                        : mixed && j == dof - 1 ? JointKind::kContinuous
                                                : JointKind::kRevolute;
        chain.lower[j] = chain.kind[j] == JointKind::kContinuous ? -kPi : j == 2 ? -0.7 : -2.5;
        chain.upper[j] = chain.kind[j] == JointKind::kContinuous ? kPi : j == 2 ? 0.3 : 2.2;
    }
    return chain;
}

template <class T>
std::vector<T> sample(const Chain& chain, std::size_t rows, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<T> q;
    for (std::size_t i = 0; i < rows; ++i)
        for (int j = 0; j < chain.dof; ++j)
            q.push_back(static_cast<T>(std::uniform_real_distribution<double>(chain.lower[j], chain.upper[j])(random)));
    return q;
}

TEST(Single, SineAndCosineAreRightOverManyTurns) {
    double worst_near = 0, worst_far = 0;
    for (int i = -400'000; i <= 400'000; ++i) {
        const float x = static_cast<float>(i) * 2.5e-3f;
        Single s, c;
        sine_cosine(x, s, c);
        const double error = std::max(std::fabs(s.value - std::sin(static_cast<double>(x))),
                                      std::fabs(c.value - std::cos(static_cast<double>(x))));
        (std::fabs(x) < 10 ? worst_near : worst_far) = std::max(std::fabs(x) < 10 ? worst_near : worst_far, error);
    }
    EXPECT_LT(worst_near, 1e-7);
    EXPECT_LT(worst_far, 1e-7);
    Single s, c;
    for (const float x : {INFINITY, -INFINITY, NAN}) {
        sine_cosine(x, s, c);
        EXPECT_TRUE(std::isnan(s.value) && std::isnan(c.value));
    }
}

template <int kDof>
void expect_kinematics_in_float_near_double(const Chain& chain) {
    constexpr std::size_t kRows = 20'000;
    const std::size_t n = static_cast<std::size_t>(chain.dof);
    const auto single = fixed_chain<Single, kDof>(chain);
    const auto exact = fixed_chain<double, kDof>(chain);
    const std::vector<float> q = sample<float>(chain, kRows, 1);
    double worst = 0, worst_jacobian = 0;
    for (std::size_t i = 0; i < kRows; ++i) {
        double joints[kMaxJoints], pose[7], expected[7], error[6], jac[6 * kMaxJoints];
        float pose_single[7], jac_single[6 * kMaxJoints];
        Single joints_single[kMaxJoints];
        for (std::size_t j = 0; j < n; ++j) joints[j] = q[i * n + j], joints_single[j] = q[i * n + j];
        to_pose(forward(chain, joints), expected);
        fk_row(exact, joints, pose);
        for (int k = 0; k < 7; ++k) ASSERT_NEAR(pose[k], expected[k], 1e-14);
        fk_row(single, &q[i * n], pose_single);
        std::copy_n(pose_single, 7, pose);
        ASSERT_TRUE(normalize_pose(pose, pose));
        pose_error(from_pose(expected), from_pose(pose), error);
        worst = std::max({worst, norm3(error), norm3(error + 3)});
        jacobian_row(exact, joints, jac);
        jacobian_row(single, joints_single, jac_single);
        for (std::size_t k = 0; k < 6 * n; ++k)
            worst_jacobian = std::max(worst_jacobian, std::fabs(jac[k] - jac_single[k]));
    }
    EXPECT_LT(worst, kSingleNoise);
    EXPECT_LT(worst_jacobian, kSingleNoise);
}

TEST(Single, KinematicsStayUnderTheNoiseThatTheSearchAllows) {
    expect_kinematics_in_float_near_double<6>(arm(6, false));
    expect_kinematics_in_float_near_double<7>(arm(7, false));
    expect_kinematics_in_float_near_double<0>(arm(7, false));
    expect_kinematics_in_float_near_double<0>(arm(8, true));
}

TEST(FixedChain, IsChosenByTheJoints) {
    EXPECT_EQ(fixed_dof(arm(6, false)), 6);
    EXPECT_EQ(fixed_dof(arm(7, false)), 7);
    EXPECT_EQ(fixed_dof(arm(7, true)), 0);
    EXPECT_EQ(fixed_dof(arm(8, false)), 0);
    EXPECT_EQ(fixed_dof(arm(3, false)), 0);
}

/// Outcome of `rows` random problems, in memory of its own.
template <class T>
struct Problems {
    std::vector<T> q, pose, seeds, q_out, pos_error, rot_error;
    std::vector<std::int32_t> iterations, attempts;
    std::unique_ptr<bool[]> converged;
    SolveArgs<T> args;

    Problems(const Chain& chain, std::size_t rows, std::size_t num_seeds, double tolerance)
        : q(sample<T>(chain, rows, 1)),
          pose(rows * 7),
          seeds(sample<T>(chain, num_seeds, 3)),
          q_out(q.size()),
          pos_error(rows),
          rot_error(rows),
          iterations(rows),
          attempts(rows),
          converged(new bool[rows]) {
        const std::vector<double> solution = sample<double>(chain, rows, 2);
        for (std::size_t i = 0; i < rows; ++i) {
            double exact[7];
            to_pose(forward(chain, &solution[i * static_cast<std::size_t>(chain.dof)]), exact);
            for (std::size_t k = 0; k < 7; ++k) pose[i * 7 + k] = static_cast<T>(exact[k]);
        }
        args = {q.data(),
                pose.data(),
                seeds.data(),
                q_out.data(),
                pos_error.data(),
                rot_error.data(),
                converged.get(),
                iterations.data(),
                attempts.data(),
                static_cast<std::int64_t>(rows),
                static_cast<std::int64_t>(num_seeds),
                12,
                tolerance,
                tolerance};
    }
};

/// The rows in the order of a list.
struct List {
    const std::vector<std::int64_t>& rows;
    std::size_t next;
    std::int64_t past;

    std::int64_t operator()() { return next < rows.size() ? rows[next++] : past; }
};

// A call each, where MFIK_INLINE would compile the search anew: half the time of this file.
template <int kDof, class T>
[[gnu::noinline]] void search(const SearchRobot<kDof>& robot, const SolveArgs<T>& args, List& rows) {
    search_rows(robot, args, rows);
}

template <class T>
[[gnu::noinline]] void finish(const Chain& chain, const SolveArgs<T>& args, std::int64_t row) {
    finish_row(chain, args, row);
}

template <int kDof, class T>
void expect_solved(const Chain& chain, double tolerance) {
    constexpr std::size_t kRows = 2000 / MFIK_TEST_SHARE;
    const SearchRobot<kDof> robot{fixed_chain<Single, kDof>(chain), single_limits(chain)};
    Problems<T> all(chain, kRows, 63, tolerance), shared(chain, kRows, 63, tolerance);
    std::vector<std::int64_t> order(kRows);
    for (std::size_t i = 0; i < kRows; ++i) order[i] = static_cast<std::int64_t>(i);
    List whole{order, 0, kRows};
    search(robot, all.args, whole);
    // As three threads of a block that take what comes.
    std::shuffle(order.begin(), order.end(), std::mt19937(5));
    for (std::size_t thread = 0; thread < 3; ++thread) {
        std::vector<std::int64_t> own;
        for (std::size_t i = thread; i < kRows; i += 3) own.push_back(order[i]);
        List list{own, 0, kRows};
        search(robot, shared.args, list);
    }
    EXPECT_EQ(all.q_out, shared.q_out);
    EXPECT_EQ(all.attempts, shared.attempts);
    std::size_t solved = 0;
    for (std::size_t i = 0; i < kRows; ++i) {
        finish(chain, all.args, static_cast<std::int64_t>(i));
        double q[kMaxJoints], pose[7], error[6];
        const std::size_t n = static_cast<std::size_t>(chain.dof);
        for (std::size_t j = 0; j < n; ++j) {
            q[j] = all.q_out[i * n + j];
            ASSERT_TRUE(q[j] >= chain.lower[j] && q[j] <= chain.upper[j]) << i << " " << j;
        }
        std::copy_n(&all.pose[i * 7], 7, pose);
        ASSERT_TRUE(normalize_pose(pose, pose));
        pose_error(from_pose(pose), forward(chain, q), error);
        ASSERT_EQ(all.converged[i], norm3(error) <= tolerance && norm3(error + 3) <= tolerance) << i;
        solved += all.converged[i];
    }
    EXPECT_GT(solved, kRows * 98 / 100);
}

TEST(SolveRows, FindsRandomPosesInAnyOrder) {
    expect_solved<6, float>(arm(6, false), 1e-4);
    expect_solved<7, float>(arm(7, false), 1e-4);
    expect_solved<7, float>(arm(7, false), 1e-5);
    expect_solved<7, double>(arm(7, false), 1e-8);
    expect_solved<0, float>(arm(8, true), 1e-4);
    expect_solved<0, double>(arm(8, true), 1e-6);
}

TEST(SolveRows, SizesAreFixedOrNotWithTheSameOutcome) {
    const Chain chain = arm(7, false);
    Problems<float> fixed(chain, 500, 10, 1e-4), any(chain, 500, 10, 1e-4);
    std::vector<std::int64_t> order(500);
    for (std::size_t i = 0; i < 500; ++i) order[i] = static_cast<std::int64_t>(i);
    List first{order, 0, 500}, second{order, 0, 500};
    search(SearchRobot<7>{fixed_chain<Single, 7>(chain), single_limits(chain)}, fixed.args, first);
    search(SearchRobot<0>{fixed_chain<Single, 0>(chain), single_limits(chain)}, any.args, second);
    EXPECT_EQ(fixed.attempts, any.attempts);
    // To the bit, where the baseline multiplies and adds in two steps; on aarch64 what is fused differs with the loops.
    for (std::size_t i = 0; i < fixed.q_out.size(); ++i) ASSERT_NEAR(fixed.q_out[i], any.q_out[i], 1e-4) << i;
}

TEST(SolveRows, OffsetsPastTwoToThe31AreTheirOwn) {
    // Pointers moved back by what the row adds: a product in 32 bits would miss the arrays.
    const Chain chain = arm(7, false);
    const SearchRobot<7> robot{fixed_chain<Single, 7>(chain), single_limits(chain)};
    Problems<float> here(chain, 1, 5, 1e-4), far(chain, 1, 5, 1e-4);
    std::vector<std::int64_t> order{0};
    List list{order, 0, 1};
    search(robot, here.args, list);
    finish(chain, here.args, 0);
    constexpr std::int64_t kRow = (std::int64_t{1} << 32) + 3;
    const auto back = [](auto* pointer, std::int64_t elements) {
        using Pointer = decltype(pointer);
        using Element = std::remove_pointer_t<Pointer>;
        return reinterpret_cast<Pointer>(reinterpret_cast<std::uintptr_t>(pointer) -
                                         static_cast<std::uintptr_t>(elements) * sizeof(Element));
    };
    SolveArgs<float> args = far.args;
    args.q = back(args.q, 7 * kRow), args.target_pose = back(args.target_pose, 7 * kRow);
    args.q_out = back(args.q_out, 7 * kRow), args.pos_error = back(args.pos_error, kRow);
    args.rot_error = back(args.rot_error, kRow), args.converged = back(args.converged, kRow);
    args.iterations = back(args.iterations, kRow), args.attempts = back(args.attempts, kRow);
    args.n = kRow + 1;
    order = {kRow};
    List last{order, 0, args.n};
    search(robot, args, last);
    finish(chain, args, kRow);
    EXPECT_EQ(here.q_out, far.q_out);
    EXPECT_EQ(here.pos_error, far.pos_error);
    EXPECT_EQ(here.attempts, far.attempts);
    EXPECT_TRUE(far.converged[0]);
}

}  // namespace
}  // namespace mfik
