// Draw three circles with a simulated arm: mfik turns poses into joints, computed torque turns joints into torques,
// and MuJoCo says where the tool really went.
//
//     mfik_mujoco_circle BUNDLE URDF Q...
//
// URDF: the bundle's robot, with masses; visual and collision elements are ignored. Q: joints to start from [rad or m],
// from base to tip. Simulated time, 1 kHz, as fast as it goes. Exit status 0 if every step was solved and the tool
// stayed within 2 mm of the circles, 1 if not, 2 on bad arguments.
#include <mujoco/mujoco.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mfik/solver.hpp>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr double kPeriod = 1e-3;         // of control [s]
constexpr int kSubsteps = 4;             // of simulation in a period
constexpr int kStepsPerCircle = 4000;    // 4 s
constexpr double kRadius = 0.1;          // [m]
constexpr double kMaxStep = 2e-3;        // of a joint in one period [rad or m]: 2 rad/s
constexpr double kMaxPlantError = 2e-3;  // [m]
constexpr double kArmature = 0.1;        // inertia of each motor as its joint sees it [kg m^2]
constexpr double kStiffness = 400;       // of the error's dynamics, critically damped [1/s^2]
constexpr double kDamping = 40;          // [1/s]

using Model = std::unique_ptr<mjModel, decltype(&mj_deleteModel)>;
using Data = std::unique_ptr<mjData, decltype(&mj_deleteData)>;

/// Read a URDF without its shapes, keep the links that fixed joints hold, and give the joints motors.
Model load_model(const char* path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(std::string(path) + ": cannot be read");
    std::stringstream text;
    text << file.rdbuf();
    const std::regex shapes(R"(<(visual|collision)\b[^>]*/>|<(visual|collision)\b[^]*?</\2>)");
    std::string xml = std::regex_replace(text.str(), shapes, "");
    const std::size_t robot = xml.find("</robot>");
    if (robot == std::string::npos) throw std::runtime_error(std::string(path) + ": expected </robot>, found none");
    xml.insert(robot, "<mujoco><compiler fusestatic=\"false\"/></mujoco>");

    char error[500] = "";
    mjSpec* spec = mj_parseXMLString(xml.c_str(), nullptr, error, sizeof error);
    if (spec == nullptr) throw std::runtime_error(std::string(path) + ": " + error);
    Model model(mj_compile(spec, nullptr), mj_deleteModel);
    const std::string reason = model ? "" : mjs_getError(spec);
    mj_deleteSpec(spec);
    if (!model) throw std::runtime_error(std::string(path) + ": " + reason);
    model->opt.timestep = kPeriod / kSubsteps;
    std::fill_n(model->dof_armature, model->nv, kArmature);
    const Data data(mj_makeData(model.get()), mj_deleteData);
    mj_setConst(model.get(), data.get());  // what the compiler derived from the armature
    return model;
}

int id(const mjModel& model, mjtObj type, const std::string& name) {
    const int found = mj_name2id(&model, type, name.c_str());
    if (found < 0) throw std::runtime_error("URDF: has no '" + name + "', which the bundle names; give that robot's");
    return found;
}

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
    const auto dof = static_cast<std::size_t>(solver.dof());
    if (q.size() != dof) throw std::runtime_error("Q: expected " + std::to_string(dof) + " joints");
    const mfik::Pose T_start = solver.fk(q);

    const Model model = load_model(urdf);
    const Data data(mj_makeData(model.get()), mj_deleteData);
    const auto nv = static_cast<std::size_t>(model->nv);
    if (model->nq != model->nv) throw std::runtime_error("URDF: expected joints of one coordinate only");
    std::vector<std::size_t> joint;  // index in MuJoCo of each joint of the solver
    for (const std::string& name : solver.joint_names())
        joint.push_back(static_cast<std::size_t>(model->jnt_qposadr[id(*model, mjOBJ_JOINT, name)]));
    const int tool = id(*model, mjOBJ_BODY, solver.tip_link());
    for (std::size_t j = 0; j < dof; ++j) data->qpos[joint[j]] = q[j];

    // Joints that the solver does not know, such as fingers, are held where they are.
    std::vector<double> q_plan(data->qpos, data->qpos + nv), q_next = q_plan, v_plan(nv), acceleration(nv), micros;
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

        // Computed torque: M (planned acceleration + what pulls the arm back to the plan) + gravity, motion, damping.
        for (std::size_t j = 0; j < dof; ++j) q_next[joint[j]] = q[j];
        mj_forward(model.get(), data.get());
        for (std::size_t i = 0; i < nv; ++i) {
            const double v_next = (q_next[i] - q_plan[i]) / kPeriod;
            acceleration[i] = (v_next - v_plan[i]) / kPeriod + kDamping * (v_plan[i] - data->qvel[i]) +
                              kStiffness * (q_plan[i] - data->qpos[i]);
            v_plan[i] = v_next;
            q_plan[i] = q_next[i];
        }
        mj_mulM(model.get(), data.get(), data->qfrc_applied, acceleration.data());
        for (std::size_t i = 0; i < nv; ++i) data->qfrc_applied[i] += data->qfrc_bias[i] - data->qfrc_passive[i];
        for (int substep = 0; substep < kSubsteps; ++substep) mj_step(model.get(), data.get());

        // Where MuJoCo's own kinematics put the tool.
        mj_kinematics(model.get(), data.get());
        const double* p = data->xpos + 3 * tool;
        const double error = std::hypot(p[0] - target[0], p[1] - target[1], p[2] - target[2]);
        const double* quat = data->xquat + 4 * tool;
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
