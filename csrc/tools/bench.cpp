// mfik-bench BUNDLE [N]: times N solves (default 100,000) of each kind on one core of this machine.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <string>
#include <vector>

#include "mfik/solver.hpp"

namespace {

constexpr long kMostSolves = 10000000;
constexpr double kLocalSpread = 0.3;  // [rad] or [m]
constexpr double kPathStep = 0.035;   // joint motion between two samples of a path [rad] or [m]
constexpr double kJumpBound = 0.15;   // [rad] or [m]
constexpr int kRepeats = 5;           // of a batch, of which the fastest counts

struct Row {
    mfik::Pose target;
    std::vector<double> q_ref;
};

double quantile(const std::vector<double>& sorted, double p) {
    return sorted[static_cast<std::size_t>(p * static_cast<double>(sorted.size() - 1))];
}

void print(const char* name, std::vector<double> time_us, std::size_t solved, long steps) {
    const double n = static_cast<double>(time_us.size());
    double sum = 0.0;
    for (const double time : time_us) sum += time;
    std::sort(time_us.begin(), time_us.end());
    std::printf("%-34s %9.3f %% %6.2f %8.2f %8.2f %8.2f %8.2f %9.1f\n", name, 100.0 * static_cast<double>(solved) / n,
                static_cast<double>(steps) / n, quantile(time_us, 0.5), sum / n, quantile(time_us, 0.99),
                quantile(time_us, 0.999), time_us.back());
}

void run(const mfik::Solver& solver, const std::vector<Row>& rows, const char* name, const mfik::Options& options) {
    mfik::Workspace workspace = solver.make_workspace();
    std::vector<double> q(static_cast<std::size_t>(solver.dof())), time_us;
    std::size_t solved = 0;
    long steps = 0;
    for (const Row& row : rows) {
        const mfik::Result result = solver.solve(row.target, row.q_ref, q, workspace, options);
        time_us.push_back(result.time_us);
        solved += result.status == mfik::Status::kSolved;
        steps += result.iterations;
    }
    print(name, time_us, solved, steps);
}

using Random = std::mt19937_64;

std::vector<double> draw(const mfik::Solver& solver, Random& random) {
    std::vector<double> q;
    for (int j = 0; j < solver.dof(); ++j) {
        const std::size_t i = static_cast<std::size_t>(j);
        q.push_back(std::uniform_real_distribution<double>(solver.lower()[i], solver.upper()[i])(random));
    }
    return q;
}

std::vector<double> nudge(const mfik::Solver& solver, std::vector<double> q, double spread, Random& random) {
    std::normal_distribution<double> noise(0.0, spread);
    for (std::size_t j = 0; j < q.size(); ++j)
        q[j] = std::clamp(q[j] + noise(random), solver.lower()[j], solver.upper()[j]);
    return q;
}

/// Poses from any reference, from near ones, and mostly out of reach; then single attempts from each seed.
void run_poses(const mfik::Solver& solver, int n, Random& random) {
    std::vector<Row> any, local, beyond;
    for (int i = 0; i < n; ++i) {
        const std::vector<double> q = draw(solver, random);
        const mfik::Pose target = solver.fk(q);
        any.push_back({target, draw(solver, random)});
        local.push_back({target, nudge(solver, q, kLocalSpread, random)});
        mfik::Pose stretched = target;
        for (std::size_t k = 0; k < 3; ++k) stretched[k] *= 1.5;
        beyond.push_back({stretched, draw(solver, random)});
    }
    run(solver, std::vector<Row>(any.begin(), any.begin() + std::min(n, 1000)), "(warm-up)", {});
    run(solver, any, "any reference", {});
    run(solver, local, "reference within 0.3 rad", {});
    run(solver, beyond, "mostly out of reach", {});
    mfik::Options nearest;
    nearest.nearest = true;
    run(solver, any, "any reference, nearest kept", nearest);
    const std::array<std::pair<const char*, mfik::Seed>, 4> seeds{
        {{"one attempt: the reference", mfik::Seed::kReference},
         {"one attempt: the midpoint", mfik::Seed::kMidpoint},
         {"one attempt: turned to the azimuth", mfik::Seed::kAzimuth},
         {"one attempt: the network", mfik::Seed::kNetwork}}};
    for (const auto& [name, seed] : seeds) {
        if (seed == mfik::Seed::kNetwork && solver.num_parameters() == 0) continue;
        mfik::Options one;
        one.seed = seed;
        one.max_attempts = 1;
        run(solver, any, name, one);
        if (seed != mfik::Seed::kNetwork) continue;
        mfik::Options first;
        first.seed = seed;
        run(solver, any, "the network, then as by default", first);
    }
}

/// Rows a second of solve_batch on one thread, any reference.
void run_batches(const mfik::Solver& solver, int n, Random& random) {
    const std::size_t rows = static_cast<std::size_t>(n), dof = static_cast<std::size_t>(solver.dof());
    std::vector<double> poses, q_ref, q_out(rows * dof);
    std::vector<mfik::Result> results(rows);
    for (int i = 0; i < n; ++i) {
        const mfik::Pose target = solver.fk(draw(solver, random));
        const std::vector<double> q = draw(solver, random);
        poses.insert(poses.end(), target.begin(), target.end());
        q_ref.insert(q_ref.end(), q.begin(), q.end());
    }
    const auto run_batch = [&](const char* name, mfik::Seed seed, bool throughput) {
        mfik::Options options;
        options.seed = seed;
        options.throughput = throughput;
        double fastest = 0.0, attempts = 0.0, steps = 0.0;
        for (int repeat = 0; repeat < kRepeats; ++repeat) {
            const auto start = std::chrono::steady_clock::now();
            (void)solver.solve_batch(poses, q_ref, q_out, results, {}, options);
            const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
            fastest = std::max(fastest, n / time.count());
        }
        std::size_t solved = 0;
        for (const mfik::Result& result : results) {
            solved += result.status == mfik::Status::kSolved;
            attempts += result.attempts;
            steps += result.iterations;
        }
        std::printf("%-34s %9.3f %% %6.2f %8.2f %12.0f rows a second\n", name, 100.0 * static_cast<double>(solved) / n,
                    steps / n, attempts / n, fastest);
    };
    std::printf("%-34s %11s %6s %8s\n", "solve_batch, one thread", "solved", "steps", "attempts");
    run_batch("as solve()", mfik::Seed::kReference, false);
    run_batch("throughput", mfik::Seed::kReference, true);
    if (solver.num_parameters() > 0) run_batch("throughput, the network first", mfik::Seed::kNetwork, true);
}

/// A path: joints wander at most kPathStep a sample and turn round at the limits.
void run_path(const mfik::Solver& solver, int n, Random& random) {
    mfik::Workspace workspace = solver.make_workspace();
    const std::size_t dof = static_cast<std::size_t>(solver.dof());
    std::vector<double> q = draw(solver, random), speed(dof), now = q, next(dof), time_us;
    std::size_t solved = 0;
    long steps = 0;
    double largest = 0.0;
    bool lost = true;
    std::uniform_real_distribution<double> speeds(-kPathStep, kPathStep);
    for (int i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < dof; ++j) {
            if (i % 200 == 0) speed[j] = speeds(random);
            if (q[j] + speed[j] < solver.lower()[j] || q[j] + speed[j] > solver.upper()[j]) speed[j] = -speed[j];
            q[j] += speed[j];
        }
        if (lost || i % 200 == 0) now = q;  // a path that was lost is taken up again
        const mfik::Result result = solver.track(solver.fk(q), now, kJumpBound, next, workspace);
        for (std::size_t j = 0; j < dof; ++j) largest = std::max(largest, std::abs(next[j] - now[j]));
        time_us.push_back(result.time_us);
        lost = result.status != mfik::Status::kSolved;
        solved += !lost;
        steps += result.iterations;
        now = next;
    }
    print("tracking, up to 2 deg a sample", time_us, solved, steps);
    std::printf("largest joint step while tracking: %.4f (bound %.4f)\n", largest, kJumpBound);
}

}  // namespace

int main(int argc, char** argv) try {
    const long n = argc > 2 ? std::strtol(argv[2], nullptr, 10) : 100000;
    if (argc < 2 || argc > 3 || n < 1 || n > kMostSolves) {
        std::fprintf(stderr, "usage: mfik-bench BUNDLE [N]\n");
        return 2;
    }
    const mfik::Solver solver = mfik::Solver::load(argv[1]);
    std::printf("%s, %d joints, %zu parameters, %d lanes, %ld solves each, tolerance 1e-5 m and rad\n",
                solver.robot_name().c_str(), solver.dof(), solver.num_parameters(), solver.lanes(), n);
    std::printf("%-34s %11s %6s %8s %8s %8s %8s %9s\n", "", "solved", "steps", "p50 us", "mean", "p99", "p99.9", "max");
    Random random(0);
    const int solves = static_cast<int>(n);
    run_poses(solver, solves, random);
    run_path(solver, solves, random);
    run_batches(solver, solves, random);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "mfik-bench: %s\n", error.what());
    return 1;
}
