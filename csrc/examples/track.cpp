// Track a Cartesian circle at 1 kHz: 10 cm radius, horizontal, 4 s.
//
//     mfik_track BUNDLE Q...
//
// Q: joints to start from [rad or m], from base to tip, such as 0 -0.8 0 -2.4 0 1.6 0.8 for a Panda.
// The loop keeps time by the clock, so that what the system adds to a solve shows. A controller also asks its system
// for locked memory and a real-time priority (mlockall and SCHED_FIFO on Linux).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <mfik/solver.hpp>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPeriod{1};
constexpr int kSteps = 4000;
constexpr double kRadius = 0.1;    // [m]
constexpr double kMaxStep = 2e-3;  // of a joint in one period [rad or m]: the robot's 2 rad/s

/// Pose on the circle: from rest to rest, without a jump in acceleration.
mfik::Pose circle(mfik::Pose T_base_tool, int step) {
    const double s = static_cast<double>(step) / kSteps;
    const double angle = 6.28318530717958647692 * s * s * s * (10 + s * (6 * s - 15));
    T_base_tool[0] += kRadius * (std::cos(angle) - 1);
    T_base_tool[1] += kRadius * std::sin(angle);
    return T_base_tool;
}

int run(const char* bundle, std::vector<double> q) {
    // At start-up: read and check the bundle, take all memory.
    const mfik::Solver solver = mfik::Solver::load(bundle);
    mfik::Workspace workspace = solver.make_workspace();
    mfik::Options options;
    // A target within tolerance of the last answer would not move the robot at all: tight tolerances, smooth motion.
    options.tol_pos_m = options.tol_rot_rad = 1e-8;
    if (q.size() != static_cast<std::size_t>(solver.dof())) {
        std::fprintf(stderr, "Q: expected %d joints, got %zu\n", solver.dof(), q.size());
        return 2;
    }
    std::vector<double> q_next(q.size()), micros(kSteps);
    const mfik::Pose T_start = solver.fk(q);
    double largest_step = 0;
    int late = 0;

    Clock::time_point wake = Clock::now();
    for (int step = 1; step <= kSteps; ++step) {
        std::this_thread::sleep_until(wake += kPeriod);
        const Clock::time_point begin = Clock::now();
        const mfik::Result result = solver.track(circle(T_start, step), q, kMaxStep, q_next, workspace, options);
        const Clock::time_point end = Clock::now();
        if (result.status != mfik::Status::kSolved) {  // never a jump: stay at q, and stop the robot as it stops best
            std::fprintf(stderr, "step %d: %s, %.1e m and %.1e rad off\n", step, mfik::to_string(result.status),
                         result.pos_error_m, result.rot_error_rad);
            return 1;
        }
        for (std::size_t j = 0; j < q.size(); ++j) largest_step = std::max(largest_step, std::abs(q_next[j] - q[j]));
        q.swap(q_next);  // here a controller sends q
        micros[static_cast<std::size_t>(step - 1)] = std::chrono::duration<double, std::micro>(end - begin).count();
        late += end > wake + kPeriod;
    }
    std::sort(micros.begin(), micros.end());
    std::printf("%d steps tracked, %d late: solve p50 %.1f us, p99 %.1f us, max %.1f us; largest joint step %.2e\n",
                kSteps, late, micros[kSteps / 2], micros[kSteps * 99 / 100], micros.back(), largest_step);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) return std::fprintf(stderr, "usage: %s BUNDLE Q...\n", argv[0]), 2;
    std::vector<double> q;
    for (int i = 2; i < argc; ++i) q.push_back(std::atof(argv[i]));
    try {
        return run(argv[1], q);
    } catch (const mfik::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
