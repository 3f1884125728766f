// A simulated arm that computed torque drives, for the programs of this folder.
#pragma once

#include <mujoco/mujoco.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mfik/solver.hpp>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

constexpr double kPeriod = 1e-3;    // of control [s]
constexpr int kSubsteps = 4;        // of simulation in a period
constexpr double kArmature = 0.1;   // inertia of each motor as its joint sees it [kg m^2]
constexpr double kStiffness = 400;  // of the error's dynamics, critically damped [1/s^2]
constexpr double kDamping = 40;     // [1/s]

/// The robot of a URDF file, its joints at those of a solver. Joints that the solver does not know, such as fingers,
/// are held where they are.
class Plant {
    using Model = std::unique_ptr<mjModel, decltype(&mj_deleteModel)>;
    using Data = std::unique_ptr<mjData, decltype(&mj_deleteData)>;

  public:
    const Model model;
    const Data data;

    /// @param[in] urdf  The solver's robot, with masses.
    /// @param[in] q  Joints to start from [rad or m].
    /// @param[in] with_shapes  Keep the collision geometry; visual geometry is left out.
    /// @param[in] edit  Changes what was read before it is compiled.
    Plant(
        const std::filesystem::path& urdf, const mfik::Solver& solver, const std::vector<double>& q,
        bool with_shapes = false, const std::function<void(mjSpec&)>& edit = [](mjSpec&) {})
        : model(load(urdf, with_shapes, edit)), data(mj_makeData(model.get()), mj_deleteData) {
        if (q.size() != static_cast<std::size_t>(solver.dof()))
            throw std::runtime_error("Q: expected " + std::to_string(solver.dof()) + " joints");
        if (model->nq != model->nv) throw std::runtime_error("URDF: expected joints of one coordinate only");
        for (const std::string& name : solver.joint_names())
            joint_.push_back(static_cast<std::size_t>(model->jnt_qposadr[id(mjOBJ_JOINT, name)]));
        for (std::size_t j = 0; j < q.size(); ++j) data->qpos[joint_[j]] = q[j];
        q_plan_.assign(data->qpos, data->qpos + model->nv);
        q_next_ = q_plan_;
        v_plan_.resize(q_plan_.size());
        acceleration_.resize(q_plan_.size());
    }

    [[nodiscard]] int id(mjtObj type, const std::string& name) const {
        const int found = mj_name2id(model.get(), type, name.c_str());
        if (found < 0)
            throw std::runtime_error("URDF: has no '" + name + "', which the bundle names; give that robot's");
        return found;
    }

    /// Move for a period towards joints q by computed torque: M (planned acceleration + what pulls the arm back to the
    /// plan) + gravity, motion, damping.
    /// @param[in] look  Called after every step of the simulation.
    template <class Look>
    void follow(const std::vector<double>& q, Look look) {
        for (std::size_t j = 0; j < q.size(); ++j) q_next_[joint_[j]] = q[j];
        mj_forward(model.get(), data.get());
        for (std::size_t i = 0; i < q_plan_.size(); ++i) {
            const double v_next = (q_next_[i] - q_plan_[i]) / kPeriod;
            acceleration_[i] = (v_next - v_plan_[i]) / kPeriod + kDamping * (v_plan_[i] - data->qvel[i]) +
                               kStiffness * (q_plan_[i] - data->qpos[i]);
            v_plan_[i] = v_next;
            q_plan_[i] = q_next_[i];
        }
        mj_mulM(model.get(), data.get(), data->qfrc_applied, acceleration_.data());
        for (std::size_t i = 0; i < q_plan_.size(); ++i)
            data->qfrc_applied[i] += data->qfrc_bias[i] - data->qfrc_passive[i];
        for (int substep = 0; substep < kSubsteps; ++substep) {
            mj_step(model.get(), data.get());
            look();
        }
    }

  private:
    /// Read a URDF, keep the links that fixed joints hold, and give the joints motors.
    static Model load(const std::filesystem::path& urdf, bool with_shapes, const std::function<void(mjSpec&)>& edit) {
        std::ifstream file(urdf);
        if (!file) throw std::runtime_error(urdf.string() + ": cannot be read");
        std::stringstream text;
        text << file.rdbuf();
        const std::regex visual(R"(<visual\b[^>]*/>|<visual\b[^]*?</visual>)");
        const std::regex shapes(R"(<collision\b[^>]*/>|<collision\b[^]*?</collision>)");
        std::string xml = std::regex_replace(text.str(), visual, "");
        xml = with_shapes ? with_paths(urdf, xml) : std::regex_replace(xml, shapes, "");
        const std::size_t robot = xml.find("</robot>");
        if (robot == std::string::npos) throw std::runtime_error(urdf.string() + ": expected </robot>, found none");
        xml.insert(robot, R"(<mujoco><compiler fusestatic="false" strippath="false"/></mujoco>)");

        char error[500] = "";
        mjSpec* spec = mj_parseXMLString(xml.c_str(), nullptr, error, sizeof error);
        if (spec == nullptr) throw std::runtime_error(urdf.string() + ": " + error);
        edit(*spec);
        Model model(mj_compile(spec, nullptr), mj_deleteModel);
        const std::string reason = model ? "" : mjs_getError(spec);
        mj_deleteSpec(spec);
        if (!model) throw std::runtime_error(urdf.string() + ": " + reason);
        model->opt.timestep = kPeriod / kSubsteps;
        std::fill_n(model->dof_armature, model->nv, kArmature);
        const Data data(mj_makeData(model.get()), mj_deleteData);
        mj_setConst(model.get(), data.get());  // what the compiler derived from the armature
        return model;
    }

    /// The text with `package://` replaced by the folder above the file that holds the package.
    static std::string with_paths(const std::filesystem::path& urdf, std::string xml) {
        const std::string scheme = "package://";
        const std::filesystem::path file = std::filesystem::absolute(urdf);
        for (std::size_t at = xml.find(scheme); at != std::string::npos; at = xml.find(scheme, at)) {
            const std::size_t begin = at + scheme.size(), end = xml.find('"', begin);
            const std::string name = xml.substr(begin, end - begin);
            std::filesystem::path folder = file.parent_path();
            while (!std::filesystem::exists(folder / name) && folder != folder.root_path())
                folder = folder.parent_path();
            if (!std::filesystem::exists(folder / name))
                throw std::runtime_error(urdf.string() + ": '" + name + "' is in no folder above the file");
            xml.replace(at, end - at, (folder / name).string());
        }
        return xml;
    }

    std::vector<std::size_t> joint_;  // index in MuJoCo of each joint of the solver
    std::vector<double> q_plan_, q_next_, v_plan_, acceleration_;
};
