// A 1 kHz loop: the tool goes round a horizontal circle of 5 cm radius in two seconds. Checks its own answers.
//
//     controller BUNDLE Q...
//
// Q: joints to start from [rad or m], from base to tip, such as 0 -0.8 0 -2.4 0 1.6 0.8 for a Panda.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <mfik/solver.hpp>
#include <thread>
#include <vector>
#ifdef __linux__
#include <sched.h>
#include <sys/mman.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPeriod{1};
constexpr int kSteps = 2000;
constexpr double kRadius_m = 0.05;
constexpr double kMaxStep = 2e-3;       // of a joint in one period [rad or m]: the robot's 2 rad/s
constexpr double kMaxError_m = 1.1e-5;  // the solver's default tolerance and a rounding

/// Ask the system for what a real-time thread needs. Refused without the rights: then the loop runs late at times.
void become_real_time() {
#ifdef __linux__
    const bool locked = mlockall(MCL_CURRENT | MCL_FUTURE) == 0;
    sched_param priority{};
    priority.sched_priority = 80;
    const bool scheduled = sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
    std::printf("memory %s, real-time priority %s\n", locked ? "locked" : "not locked",
                scheduled ? "granted" : "refused");
#endif
}

/// Pose on the circle: from rest to rest, without a jump in acceleration.
mfik::Pose circle(mfik::Pose T_base_tool, int step) {
    const double s = static_cast<double>(step) / kSteps;
    const double angle = 6.28318530717958647692 * s * s * s * (10 + s * (6 * s - 15));
    T_base_tool[0] += kRadius_m * (std::cos(angle) - 1);
    T_base_tool[1] += kRadius_m * std::sin(angle);
    return T_base_tool;
}

double distance_m(const mfik::Pose& a, const mfik::Pose& b) {
    return std::sqrt((a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]) + (a[2] - b[2]) * (a[2] - b[2]));
}

int run(const char* bundle, std::vector<double> q) {
    // At start-up: read and check the bundle, take all memory, make one call to touch it.
    const mfik::Solver solver = mfik::Solver::load(bundle);
    mfik::Workspace workspace = solver.make_workspace();  // this thread's
    if (q.size() != static_cast<std::size_t>(solver.dof())) {
        std::fprintf(stderr, "Q: expected %d joints, got %zu\n", solver.dof(), q.size());
        return 2;
    }
    std::vector<double> q_next(q.size()), micros(kSteps);
    const mfik::Pose T_start = solver.fk(q);
    mfik::Result result = solver.track(T_start, q, kMaxStep, q_next, workspace);
    become_real_time();

    double largest_step = 0, largest_error_m = 0;
    int late = 0;
    Clock::time_point wake = Clock::now();
    for (int step = 1; step <= kSteps; ++step) {
        std::this_thread::sleep_until(wake += kPeriod);
        const mfik::Pose T_base_tool = circle(T_start, step);
        const Clock::time_point begin = Clock::now();
        result = solver.track(T_base_tool, q, kMaxStep, q_next, workspace);
        const Clock::time_point end = Clock::now();
        if (result.status != mfik::Status::kSolved) {  // never a jump: stay at q, and stop the robot as it stops best
            std::fprintf(stderr, "step %d: %s\n", step, solver.explain(result, q_next).c_str());
            return 1;
        }
        for (std::size_t j = 0; j < q.size(); ++j) largest_step = std::max(largest_step, std::abs(q_next[j] - q[j]));
        largest_error_m = std::max(largest_error_m, distance_m(solver.fk(q_next), T_base_tool));
        q.swap(q_next);  // here a controller sends q
        micros[static_cast<std::size_t>(step - 1)] = std::chrono::duration<double, std::micro>(end - begin).count();
        late += end > wake + kPeriod;
    }
    std::sort(micros.begin(), micros.end());
    std::printf("%s: %d steps tracked, %d late; latency p50 %.1f us, p99 %.1f us, max %.1f us\n",
                solver.robot_name().c_str(), kSteps, late, micros[kSteps / 2], micros[kSteps * 99 / 100],
                micros.back());
    std::printf("largest joint step %.2e of %.0e, at most %.1e mm off the circle, %.1e mm from the start at the end\n",
                largest_step, kMaxStep, 1e3 * largest_error_m, 1e3 * distance_m(solver.fk(q), T_start));
    const bool closed = distance_m(solver.fk(q), T_start) <= kMaxError_m;
    return largest_step <= kMaxStep && largest_error_m <= kMaxError_m && closed ? 0 : 1;
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
