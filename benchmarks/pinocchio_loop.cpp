/// @file
/// The peer that a careful user would write: damped least squares on Pinocchio, its FK, and one of its iterations.
///
///     pinocchio_loop solve IN OUT          joints [N, J] (NaN where none), time of each solve [N]
///     pinocchio_loop fk IN OUT REPEATS     poses [N, 7] of q_ref, time of each repeat over all rows [REPEATS]
///     pinocchio_loop step IN OUT REPEATS   joints [N, J] after one iteration from q_ref, time of each repeat [REPEATS]
///
/// benchmarks/peers.py compiles and calls it; exchange.hpp describes the files. Pinocchio is header-only here, so that
/// the compiler may use every instruction of the machine, which its shipped libraries cannot.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iostream>
#include <limits>
#include <pinocchio/algorithm/frames.hpp>
#include <pinocchio/algorithm/jacobian.hpp>
#include <pinocchio/algorithm/kinematics.hpp>
#include <pinocchio/multibody.hpp>
#include <pinocchio/spatial.hpp>
#include <random>
#include <string>
#include <vector>

#include "exchange.hpp"

namespace {

constexpr int kMaxIterations = 15;  // of one attempt; of 15, 20 and 30 the least work from random seeds
constexpr int kMaxAttempts = 200;
constexpr double kTolerance = 1e-5;  // [m] and [rad]
// Damping lam = gain |e|^2 + floor (Sugihara 2011, "Solvability-Unconcerned Inverse Kinematics by the
// Levenberg-Marquardt Method"); gains from 0.005 to 0.1 do the same work.
constexpr double kDampingGain = 0.02;
constexpr double kDampingFloor = 1e-8;
constexpr int kActiveSetPasses = 3;

using Clock = std::chrono::steady_clock;

double us_since(Clock::time_point start) {
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

pinocchio::SE3 transform(const double* origin) {  // [3, 4], row by row
    const Eigen::Map<const Eigen::Matrix<double, 3, 4, Eigen::RowMajor>> matrix(origin);
    return {matrix.leftCols<3>(), matrix.col(3)};
}

/// One robot of `J` joints (Eigen::Dynamic for any number) and its scratch memory.
template <int J>
class Loop {
  public:
    using Joints = Eigen::Matrix<double, J, 1>;

    explicit Loop(const Problem& problem)
        : lower_(Eigen::Map<const Joints>(problem.lower.data(), static_cast<Eigen::Index>(problem.dof))),
          upper_(Eigen::Map<const Joints>(problem.upper.data(), static_cast<Eigen::Index>(problem.dof))) {
        pinocchio::JointIndex joint = 0;
        for (std::size_t j = 0; j < problem.dof; ++j) {
            const pinocchio::SE3 origin = transform(&problem.origins[12 * j]);
            const std::string name = "joint" + std::to_string(j);
            joint = problem.slides[j] != 0.0 ? model_.addJoint(joint, pinocchio::JointModelPZ(), origin, name)
                                             : model_.addJoint(joint, pinocchio::JointModelRZ(), origin, name);
        }
        tool_ = model_.addFrame(
            pinocchio::Frame("tool", joint, 0, transform(&problem.origins[12 * problem.dof]), pinocchio::OP_FRAME));
        data_ = pinocchio::Data(model_);
        q_ = Eigen::VectorXd::Zero(model_.nq);
        jacobian_.setZero(6, static_cast<Eigen::Index>(problem.dof));
    }

    const pinocchio::SE3& fk(const Joints& q) {
        q_ = q;
        pinocchio::forwardKinematics(model_, data_, q_);
        return pinocchio::updateFramePlacement(model_, data_, tool_);
    }

    /// Compute Jacobian and error at q; return whether both errors are within the tolerance.
    bool evaluate(const Joints& q, const pinocchio::SE3& target) {
        q_ = q;
        pinocchio::computeJointJacobians(model_, data_, q_);
        const pinocchio::SE3& tool = pinocchio::updateFramePlacement(model_, data_, tool_);
        error_.template head<3>() = target.translation() - tool.translation();
        const Eigen::Matrix3d turn = tool.rotation().transpose() * target.rotation();
        error_.template tail<3>() = tool.rotation() * pinocchio::log3(turn);
        return error_.template head<3>().norm() <= kTolerance && error_.template tail<3>().norm() <= kTolerance;
    }

    /// Take one damped step from q, whose Jacobian and error `evaluate` computed. A joint that would cross its limit
    /// moves onto it, and the others make up for the rest: merely clamped, 2.4 % of the Panda's poses near limits fail.
    void step(Joints& q) {
        pinocchio::getFrameJacobian(model_, data_, tool_, pinocchio::LOCAL_WORLD_ALIGNED, jacobian_);
        const double damping = kDampingGain * error_.squaredNorm() + kDampingFloor;
        for (int pass = 1;; ++pass) {
            Eigen::Matrix<double, 6, 6> normal = jacobian_ * jacobian_.transpose();
            normal.diagonal().array() += damping;
            const Joints dq = jacobian_.transpose() * normal.llt().solve(error_);
            const Joints next = (q + dq).cwiseMax(lower_).cwiseMin(upper_);
            bool crossing = false;
            for (Eigen::Index j = 0; j < q.size() && pass < kActiveSetPasses; ++j) {
                if (next[j] == q[j] + dq[j]) continue;
                crossing = true;
                error_ -= jacobian_.col(j) * (next[j] - q[j]);
                jacobian_.col(j).setZero();
                q[j] = next[j];
            }
            if (!crossing) {
                q = next;
                return;
            }
        }
    }

    /// Solve from q; afterwards from random joints. Return whether q solves the target.
    bool solve(const pinocchio::SE3& target, Joints& q, std::uint64_t seed) {
        std::mt19937_64 random(seed);
        q = q.cwiseMax(lower_).cwiseMin(upper_);
        for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
            if (attempt > 0) {
                for (Eigen::Index j = 0; j < q.size(); ++j) {
                    const double low = std::max(lower_[j], -M_PI), high = std::min(upper_[j], M_PI);
                    q[j] = std::uniform_real_distribution<double>(low, high)(random);
                }
            }
            for (int iteration = 0; iteration < kMaxIterations; ++iteration) {
                if (evaluate(q, target)) return true;
                step(q);
            }
            if (evaluate(q, target)) return true;
        }
        return false;
    }

  private:
    pinocchio::Model model_;
    pinocchio::Data data_;
    pinocchio::FrameIndex tool_ = 0;
    Eigen::VectorXd q_;  // one type for Pinocchio, whose algorithms take a minute to compile for each
    Joints lower_, upper_;
    Eigen::Matrix<double, 6, J> jacobian_;
    Eigen::Matrix<double, 6, 1> error_;
};

pinocchio::SE3 target_of(const double* pose) {
    return {Eigen::Quaterniond(pose[3], pose[4], pose[5], pose[6]).toRotationMatrix(),
            Eigen::Map<const Eigen::Vector3d>(pose)};
}

template <int J>
void run(const std::string& mode, const Problem& problem, const std::string& out, int repeats) {
    Loop<J> loop(problem);
    using Joints = typename Loop<J>::Joints;
    const auto dof = static_cast<Eigen::Index>(problem.dof);
    const auto row = [&](std::size_t i) { return Joints(Eigen::Map<const Joints>(&problem.q_ref[i * dof], dof)); };
    const std::size_t width = mode == "fk" ? 7 : problem.dof;
    std::vector<double> answers(problem.rows * width, std::numeric_limits<double>::quiet_NaN()), us;
    if (mode == "solve") {
        for (std::size_t i = 0; i < problem.rows; ++i) {
            Joints q = row(i);
            const Clock::time_point start = Clock::now();
            const bool solved = loop.solve(target_of(&problem.pose[7 * i]), q, i);
            us.push_back(us_since(start));
            if (solved) Eigen::Map<Joints>(&answers[i * width], dof) = q;
        }
    } else {
        for (int repeat = 0; repeat < repeats; ++repeat) {
            const Clock::time_point start = Clock::now();
            for (std::size_t i = 0; i < problem.rows; ++i) {
                Joints q = row(i);
                if (mode == "fk") {
                    const pinocchio::SE3& tool = loop.fk(q);
                    const Eigen::Quaterniond quat(tool.rotation());
                    const double pose[] = {tool.translation()[0],
                                           tool.translation()[1],
                                           tool.translation()[2],
                                           quat.w(),
                                           quat.x(),
                                           quat.y(),
                                           quat.z()};
                    std::memcpy(&answers[i * width], pose, sizeof pose);
                } else {
                    loop.evaluate(q, target_of(&problem.pose[7 * i]));
                    loop.step(q);
                    Eigen::Map<Joints>(&answers[i * width], dof) = q;
                }
            }
            us.push_back(us_since(start));
        }
    }
    write_answers(out, answers, us);
}

}  // namespace

int main(int argc, char** argv) try {
    const std::string mode = argc > 1 ? argv[1] : "";
    if (!(mode == "solve" && argc == 4) && !((mode == "fk" || mode == "step") && argc == 5)) {
        std::cerr << "usage: pinocchio_loop solve IN OUT | fk IN OUT REPEATS | step IN OUT REPEATS\n";
        return 2;
    }
    const Problem problem = read_problem(argv[2]);
    const int repeats = argc == 5 ? std::stoi(argv[4]) : 1;
    if (problem.dof == 6) {
        run<6>(mode, problem, argv[3], repeats);
    } else if (problem.dof == 7) {
        run<7>(mode, problem, argv[3], repeats);
    } else {
        run<Eigen::Dynamic>(mode, problem, argv[3], repeats);
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "pinocchio_loop: " << error.what() << "\n";
    return 1;
}
