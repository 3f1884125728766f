// A 1 kHz loop beside something that moves: the tool holds its pose, a ball of 10 cm radius comes to where the arm is
// and goes away again, and the arm gives way. Checks its own answers.
//
//     obstacle BUNDLE Q...
//
// BUNDLE: of a robot with spheres on its links. Q: joints to start from [rad or m], from base to tip, such as
// 0 -0.8 0 -2.4 0 1.6 0.8 for a Panda.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <mfik/collision.hpp>
#include <mfik/solver.hpp>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPeriod{1};
constexpr int kSteps = 3000;  // the ball comes and goes in kBallSteps, then the tool returns
constexpr int kBallSteps = 2000;
constexpr double kBall_m = 0.1;         // its radius
constexpr double kWay_m = 0.35;         // from where it starts, beside the tool, to where it turns
constexpr double kMargin_m = 0.02;      // clearance to keep
constexpr double kMaxStep = 2e-3;       // of a joint in one period [rad or m]: the robot's 2 rad/s
constexpr double kMaxError_m = 1.1e-5;  // the solver's default tolerance and a rounding

/// Where the ball is: from beside the tool to 5 cm from it and back, from rest to rest.
mfik::Pose ball(const mfik::Pose& T_base_tool, int step) {
    const double s = std::min(1.0, static_cast<double>(step) / kBallSteps);
    const double gone = 0.5 * (1 + std::cos(6.28318530717958647692 * s));
    return {T_base_tool[0], T_base_tool[1] - 0.05 - kWay_m * gone, T_base_tool[2], 1, 0, 0, 0};
}

double distance_m(const mfik::Pose& a, const mfik::Pose& b) {
    return std::sqrt((a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]) + (a[2] - b[2]) * (a[2] - b[2]));
}

int run(const char* bundle, std::vector<double> q) {
    // At start-up: the solver, this thread's memory, and the world, whose shapes move later without any.
    const mfik::Solver solver = mfik::Solver::load(bundle);
    mfik::Workspace workspace = solver.make_workspace();
    if (q.size() != static_cast<std::size_t>(solver.dof()) || !solver.has_body()) {
        std::fprintf(stderr, "expected a robot with spheres and %d joints, got %zu\n", solver.dof(), q.size());
        return 2;
    }
    const mfik::Pose T_hold = solver.fk(q);
    mfik::World world;
    const int moving = world.add_sphere("ball", kBall_m, ball(T_hold, 0));
    mfik::Options options;
    options.world = &world;
    options.margin_m = kMargin_m;
    std::vector<double> q_next(q.size()), micros(kSteps);

    double largest_step = 0, least_clearance_m = 1, farthest_m = 0;
    int held_back = 0;
    Clock::time_point wake = Clock::now();
    for (int step = 1; step <= kSteps; ++step) {
        std::this_thread::sleep_until(wake += kPeriod);
        const Clock::time_point begin = Clock::now();
        if (world.set_pose(moving, ball(T_hold, step)) != mfik::Status::kSolved) return 1;
        const mfik::Result result = solver.track(T_hold, q, kMaxStep, q_next, workspace, options);
        const Clock::time_point end = Clock::now();
        // Whatever the status, the joints are safe to send: on the way to the pose, at rest, or out of the way.
        if (result.status == mfik::Status::kInvalidInput) return 1;
        held_back += result.status == mfik::Status::kInCollision;
        for (std::size_t j = 0; j < q.size(); ++j) largest_step = std::max(largest_step, std::abs(q_next[j] - q[j]));
        q.swap(q_next);  // here a controller sends q
        micros[static_cast<std::size_t>(step - 1)] = std::chrono::duration<double, std::micro>(end - begin).count();
        least_clearance_m = std::min(least_clearance_m, solver.clearance(q, &world, false).distance_m);
        farthest_m = std::max(farthest_m, distance_m(solver.fk(q), T_hold));
    }
    std::sort(micros.begin(), micros.end());
    std::printf("%s: %d steps, %d of them held back; latency p50 %.1f us, p99 %.1f us, max %.1f us\n",
                solver.robot_name().c_str(), kSteps, held_back, micros[kSteps / 2], micros[kSteps * 99 / 100],
                micros.back());
    std::printf("gave way by %.0f mm, clearance at least %.1f mm, %.1e mm from the pose at the end, ", 1e3 * farthest_m,
                1e3 * least_clearance_m, 1e3 * distance_m(solver.fk(q), T_hold));
    std::printf("largest joint step %.2e of %.0e\n", largest_step, kMaxStep);
    const bool back = distance_m(solver.fk(q), T_hold) <= kMaxError_m;
    return back && held_back > 0 && least_clearance_m > 0 && largest_step <= kMaxStep ? 0 : 1;
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
