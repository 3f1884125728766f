// Hold a pose while a ball comes to where a simulated arm is: mfik gives way, computed torque follows it, and MuJoCo
// says whether the arm, by the meshes of its URDF, was ever touched.
//
//     mfik_mujoco_obstacle BUNDLE URDF blind|seeing Q...
//
// BUNDLE: of the robot of URDF, with spheres on its links and the joints outside its chain at 0. blind: mfik is not
// told of the ball. Q: joints to start from [rad or m], from base to tip. Simulated time, 1 kHz, as fast as it goes.
// Exit status 0 if no contact force arose and the tool is back at the end, 1 if not, 2 on bad arguments.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <mfik/collision.hpp>
#include <mfik/solver.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "plant.hpp"

namespace {

constexpr int kSteps = 5000;             // the ball comes and goes in kBallSteps, then the tool returns
constexpr int kBallSteps = 4000;         // 4 s
constexpr double kBall = 0.1;            // its radius [m]
constexpr double kWay = 0.35;            // from where it starts, beside the tool, to where it turns [m]
constexpr double kMargin = 0.02;         // clearance to keep [m]
constexpr double kMaxStep = 2e-3;        // of a joint in one period [rad or m]: 2 rad/s
constexpr double kMaxPlantError = 2e-3;  // [m]

/// Where the ball is: from beside the tool to 5 cm from it and back, from rest to rest.
mfik::Pose ball(const mfik::Pose& T_base_tool, int step) {
    const double s = std::min(1.0, static_cast<double>(step) / kBallSteps);
    const double gone = 0.5 * (1 + std::cos(6.28318530717958647692 * s));
    return {T_base_tool[0], T_base_tool[1] - 0.05 - kWay * gone, T_base_tool[2], 1, 0, 0, 0};
}

/// Add the ball, which alone touches the robot: links that touch each other count for nothing here.
void add_ball(mjSpec& spec) {
    for (mjsElement* it = mjs_firstElement(&spec, mjOBJ_GEOM); it != nullptr; it = mjs_nextElement(&spec, it)) {
        mjsGeom* geom = mjs_asGeom(it);
        geom->contype = 1, geom->conaffinity = 0;
    }
    mjsBody* body = mjs_addBody(mjs_findBody(&spec, "world"), nullptr);
    body->mocap = 1;
    mjsGeom* geom = mjs_addGeom(body, nullptr);
    geom->type = mjGEOM_SPHERE;
    geom->size[0] = kBall;
    geom->contype = 0, geom->conaffinity = 1;
}

/// Sum of the forces between arm and ball [N].
double contact_force(const Plant& plant) {
    double sum = 0;
    for (int i = 0; i < plant.data->ncon; ++i) {
        std::array<double, 6> force{};
        mj_contactForce(plant.model.get(), plant.data.get(), i, force.data());
        sum += std::hypot(force[0], force[1], force[2]);
    }
    return sum;
}

int run(const char* bundle, const char* urdf, bool blind, std::vector<double> q) {
    const mfik::Solver solver = mfik::Solver::load(bundle);
    if (!solver.has_body()) throw std::runtime_error("BUNDLE: expected a robot with spheres");
    mfik::Workspace workspace = solver.make_workspace();
    Plant plant(urdf, solver, q, true, add_ball);
    const mfik::Pose T_hold = solver.fk(q);
    const int tool = plant.id(mjOBJ_BODY, solver.tip_link());

    mfik::World world;
    const int moving = world.add_sphere("ball", kBall, ball(T_hold, 0));
    mfik::Options options;
    options.tol_pos_m = options.tol_rot_rad = 1e-8;
    options.margin_m = kMargin;
    if (!blind) options.world = &world;
    double max_force = 0, farthest = 0, error = 0;
    int contacts = 0, held_back = 0;
    for (int step = 1; step <= kSteps; ++step) {
        const mfik::Pose at = ball(T_hold, step);
        if (world.set_pose(moving, at) != mfik::Status::kSolved) return 1;
        std::copy_n(at.begin(), 3, plant.data->mocap_pos);
        const mfik::Result result = solver.track(T_hold, q, kMaxStep, q, workspace, options);
        if (result.status == mfik::Status::kInvalidInput) return 1;
        held_back += result.status == mfik::Status::kInCollision;
        plant.follow(q, [&] {
            contacts += plant.data->ncon;
            max_force = std::max(max_force, contact_force(plant));
        });
        mj_kinematics(plant.model.get(), plant.data.get());
        const double* p = plant.data->xpos + 3 * tool;
        error = std::hypot(p[0] - T_hold[0], p[1] - T_hold[1], p[2] - T_hold[2]);
        farthest = std::max(farthest, error);
    }
    std::printf("%s: %d steps, %d held back, gave way by %.0f mm, %d contacts, force max %.3g N, ",
                solver.robot_name().c_str(), kSteps, held_back, 1e3 * farthest, contacts, max_force);
    std::printf("%.2e mm from the pose at the end\n", 1e3 * error);
    return contacts == 0 && error <= kMaxPlantError ? 0 : 1;  // NaN is none of it
}

}  // namespace

int main(int argc, char** argv) {
    const std::string mode = argc > 3 ? argv[3] : "";
    if (argc < 5 || (mode != "blind" && mode != "seeing"))
        return std::fprintf(stderr, "usage: %s BUNDLE URDF blind|seeing Q...\n", argv[0]), 2;
    std::vector<double> q;
    for (int i = 4; i < argc; ++i) q.push_back(std::atof(argv[i]));
    try {
        return run(argv[1], argv[2], mode == "blind", q);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
