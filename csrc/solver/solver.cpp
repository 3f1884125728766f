// Loading, workspaces and what a solver says of its robot. solve.cpp, track.cpp and batch.cpp hold the calls.
#include "mfik/solver.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "solver/core.hpp"
#include "solver/problem.hpp"

namespace mfik {
namespace {

// What a moved-from solver names.
const std::string kNoName;
const std::vector<std::string> kNoNames;

/// Try the engine once: one for another number of joints would read and write past the solver's memory.
void check_engine(const std::string& path, const Engine& engine, const Chain& chain) {
    float q[kMaxJoints], u[kMaxJoints];
    const float pose[kPoseSize] = {0.5f, 0.0f, 0.5f, 1.0f, 0.0f, 0.0f, 0.0f};
    std::fill_n(q, kMaxJoints, 0.1f);
    std::fill_n(u, kMaxJoints, std::numeric_limits<float>::infinity());  // what no network answers to such input
    const AlignedBuffer scratch(engine.scratch_size(1));
    engine.evaluate(1, q, pose, 1, u, scratch.data());
    const auto written = std::find_if(u, u + kMaxJoints, [](float value) { return !std::isfinite(value); }) - u;
    if (written != chain.dof) {
        throw Error(path + ": engine: expected u of " + std::to_string(chain.dof) + " finite values, got " +
                    std::to_string(written) + "; load the engine from the same bundle");
    }
}

}  // namespace

Workspace::Workspace(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;
Workspace::~Workspace() = default;

Solver::Solver(std::unique_ptr<const Impl> impl) noexcept : impl_(std::move(impl)) {}
Solver::Solver(Solver&&) noexcept = default;
Solver& Solver::operator=(Solver&&) noexcept = default;
Solver::~Solver() = default;

Solver Solver::load(const std::string& path) {
    Bundle bundle = read_bundle(path);
    auto engine = bundle.network == nullptr ? nullptr : bundle.network->make_engine(bundle.tensors);
    return Solver(std::make_unique<const Impl>(std::move(engine), std::move(bundle)));
}

Solver Solver::load(const std::string& path, std::unique_ptr<const Engine> engine) {
    Bundle bundle = read_bundle(path);
    if (engine == nullptr) throw Error(path + ": engine: expected one, got none; use Solver::load(path)");
    check_engine(path, *engine, bundle.robot.chain);
    return Solver(std::make_unique<const Impl>(std::move(engine), std::move(bundle)));
}

Solver Solver::from_description(const std::string& json) {
    return Solver(std::make_unique<const Impl>(nullptr, describe_robot(json)));
}

Workspace Solver::make_workspace() const {
    return Workspace(std::make_unique<Workspace::Impl>(impl_ == nullptr ? 0 : impl_->scratch_size(1)));
}

Pose Solver::fk(Span<const double> q) const noexcept {
    Pose pose;
    pose.fill(kNaN);
    if (impl_ != nullptr && q.size() == static_cast<std::size_t>(dof()) && is_finite(q)) {
        to_pose(forward(impl_->chain_in_metres(), q.data()), pose.data());
    }
    return pose;
}

bool Solver::has_body() const noexcept {
    return impl_ != nullptr && !impl_->bundle.robot.body.empty();
}
int Solver::dof() const noexcept {
    return impl_ == nullptr ? 0 : impl_->chain().dof;
}
const std::string& Solver::robot_name() const noexcept {
    return impl_ == nullptr ? kNoName : impl_->bundle.robot.name;
}
const std::string& Solver::base_link() const noexcept {
    return impl_ == nullptr ? kNoName : impl_->bundle.robot.base_link;
}
const std::string& Solver::tip_link() const noexcept {
    return impl_ == nullptr ? kNoName : impl_->bundle.robot.tip_link;
}
const std::vector<std::string>& Solver::joint_names() const noexcept {
    return impl_ == nullptr ? kNoNames : impl_->bundle.robot.joint_names;
}
Span<const double> Solver::lower() const noexcept {
    if (impl_ == nullptr) return {};
    return {impl_->chain_in_metres().lower, static_cast<std::size_t>(dof())};
}
Span<const double> Solver::upper() const noexcept {
    if (impl_ == nullptr) return {};
    return {impl_->chain_in_metres().upper, static_cast<std::size_t>(dof())};
}
Span<const double> Solver::velocity() const noexcept {
    if (impl_ == nullptr) return {};
    return {impl_->bundle.robot.velocity, static_cast<std::size_t>(dof())};
}
int Solver::lanes() const noexcept {
    return impl_ == nullptr ? 0 : impl_->kernels.lanes;
}
std::size_t Solver::num_parameters() const noexcept {
    return impl_ == nullptr ? 0 : impl_->bundle.num_parameters;
}
const std::string& Solver::metadata_json() const noexcept {
    return impl_ == nullptr ? kNoName : impl_->bundle.metadata_json;
}

}  // namespace mfik
