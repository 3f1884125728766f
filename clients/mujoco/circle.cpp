// Draw three circles with a simulated arm: mfik turns poses into joints, computed torque turns joints into torques,
// and MuJoCo says where the tool really went.
//
//     mfik_mujoco_circle BUNDLE URDF Q...
//
// URDF: the bundle's robot, with masses; visual and collision elements are ignored. Q: joints to start from [rad or m],
// from base to tip. Simulated time, 1 kHz, as fast as it goes. Exit status 0 if every step was solved and the tool
// stayed within 2 mm of the circles, 1 if not, 2 on bad arguments.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <mfik/solver.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "plant.hpp"

namespace {

constexpr int kStepsPerCircle = 4000;    // 4 s
constexpr double kRadius = 0.1;          // [m]
constexpr double kMaxStep = 2e-3;        // of a joint in one period [rad or m]: 2 rad/s
constexpr double kMaxPlantError = 2e-3;  // [m]

/// Target at a step: circle 0 in the xy plane, 1 in yz, 2 in zx, each from rest to rest through the start pose.
mfik::Pose circle(mfik::Pose T_base_tool, int step) {
    const auto a = static_cast<std::size_t>(step / kStepsPerCircle), b = (a + 1) % 3;
    const double s = step % kStepsPerCircle / static_cast<double>(kStepsPerCircle);
    const double angle = 6.28318530717958647692 * s * s * s * (10 + s * (6 * s - 15));  // no jump in acceleration
    T_base_tool[a] += kRadius * (1 - std::cos(angle)) * (a == 2 ? -1 : 1);              // down, not up
    T_base_tool[b] += kRadius * std::sin(angle);
    return T_base_tool;
}

int run(const char* bundle, const char* urdf, std::vector<double> q) {
    const mfik::Solver solver = mfik::Solver::load(bundle);
    mfik::Workspace workspace = solver.make_workspace();
    Plant plant(urdf, solver, q);
    const mfik::Pose T_start = solver.fk(q);
    const int tool = plant.id(mjOBJ_BODY, solver.tip_link());
    std::vector<double> micros;
    // An answer within tolerance of the target may be the last one: tight tolerances keep the motion smooth.
    mfik::Options options;
    options.tol_pos_m = options.tol_rot_rad = 1e-8;
    double max_error = 0, sum_error = 0, max_angle = 0;
    constexpr int kSteps = 3 * kStepsPerCircle;
    for (int step = 1; step <= kSteps; ++step) {
        const mfik::Pose target = circle(T_start, step % kSteps);
        const auto before = std::chrono::steady_clock::now();
        const mfik::Result result = solver.track(target, q, kMaxStep, q, workspace, options);
        micros.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - before).count());
        if (result.status != mfik::Status::kSolved) {
            std::printf("step %d: %s\n", step, mfik::to_string(result.status));
            return 1;
        }

        plant.follow(q, [] {});

        // Where MuJoCo's own kinematics put the tool.
        mj_kinematics(plant.model.get(), plant.data.get());
        const double* p = plant.data->xpos + 3 * tool;
        const double error = std::hypot(p[0] - target[0], p[1] - target[1], p[2] - target[2]);
        const double* quat = plant.data->xquat + 4 * tool;
        double dot = 0;
        for (std::size_t k = 0; k < 4; ++k) dot += quat[k] * target[3 + k];
        max_error = std::max(max_error, error);
        sum_error += error;
        max_angle = std::max(max_angle, 2 * std::acos(std::min(1.0, std::abs(dot))));
    }
    std::sort(micros.begin(), micros.end());
    std::printf("%s: %d steps, plant error max %.2e mm, mean %.2e mm, rotation max %.2e deg; ",
                solver.robot_name().c_str(), kSteps, 1e3 * max_error, 1e3 * sum_error / kSteps,
                max_angle * 57.29577951308232);
    std::printf("solve p50 %.1f us, p99 %.1f us, max %.1f us\n", micros[micros.size() / 2],
                micros[micros.size() * 99 / 100], micros.back());
    return max_error <= kMaxPlantError ? 0 : 1;  // NaN is none of it
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) return std::fprintf(stderr, "usage: %s BUNDLE URDF Q...\n", argv[0]), 2;
    std::vector<double> q;
    for (int i = 3; i < argc; ++i) q.push_back(std::atof(argv[i]));
    try {
        return run(argv[1], argv[2], q);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
