#include "mfik/solver.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/chain.hpp"
#include "kernels/refine.hpp"
#include "solver/bundle.hpp"
#include "solver/network.hpp"

namespace mfik {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kTwoPi = 6.28318530717958647692;
constexpr std::size_t kPoseSize = 7;
constexpr std::size_t kBatchChunk = 32;  // rows that a thread of solve_batch takes at a time
constexpr Result kInvalid{Status::kInvalidInput, kNaN, kNaN, 0};

bool is_valid(const Options& options) {
    const auto tolerance = [](double value) { return std::isfinite(value) && value >= 0; };
    return tolerance(options.tol_pos_m) && tolerance(options.tol_rot_rad) && options.max_iterations >= 0 &&
           options.max_iterations <= kMaxIterations;
}

bool is_finite(Span<const double> values) {
    return std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
}

bool has_unit_quat(const Pose& pose) {
    const double norm = std::sqrt(pose[3] * pose[3] + pose[4] * pose[4] + pose[5] * pose[5] + pose[6] * pose[6]);
    return std::abs(norm - 1.0) <= kQuatNormTolerance;
}

/// Continuous joints to the same angle in [-pi, pi].
void wrap(const Chain& chain, double* q) {
    for (int j = 0; j < chain.dof; ++j)
        if (chain.kind[j] == JointKind::kContinuous) q[j] = std::remainder(q[j], kTwoPi);
}

bool within_limits(const Chain& chain, const double* q) {
    for (int j = 0; j < chain.dof; ++j)
        if (!(q[j] >= chain.lower[j] && q[j] <= chain.upper[j])) return false;
    return true;
}

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

const char* to_string(Status status) noexcept {
    switch (status) {
        case Status::kSolved:
            return "solved";
        case Status::kNotConverged:
            return "not converged";
        case Status::kOutsideLimits:
            return "outside limits";
        case Status::kInvalidInput:
            return "invalid input";
    }
    return "unknown status";
}

struct Workspace::Impl {
    std::size_t size;
    AlignedBuffer scratch;
};

Workspace::Workspace(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;
Workspace::~Workspace() = default;

struct Solver::Impl {
    Impl(std::unique_ptr<const Engine> evaluator, Bundle read)
        : engine(std::move(evaluator)), scratch_size(engine->scratch_size(1)), bundle(std::move(read)) {
        bundle.tensors.clear();
    }

    std::unique_ptr<const Engine> engine;
    std::size_t scratch_size;  // of one row
    Bundle bundle;             // without the tensors: the engine has its own
};

Solver::Solver(std::unique_ptr<const Impl> impl) noexcept : impl_(std::move(impl)) {}
Solver::Solver(Solver&&) noexcept = default;
Solver& Solver::operator=(Solver&&) noexcept = default;
Solver::~Solver() = default;

Solver Solver::load(const std::string& path) {
    Bundle bundle = read_bundle(path);
    auto network = std::make_unique<const Network>(bundle);
    return Solver(std::make_unique<const Impl>(std::move(network), std::move(bundle)));
}

Solver Solver::load(const std::string& path, std::unique_ptr<const Engine> engine) {
    Bundle bundle = read_bundle(path);
    if (engine == nullptr) throw Error(path + ": engine: expected one, got none; use Solver::load(path)");
    check_engine(path, *engine, bundle.chain);
    return Solver(std::make_unique<const Impl>(std::move(engine), std::move(bundle)));
}

Workspace Solver::make_workspace() const {
    const std::size_t size = impl_ == nullptr ? 0 : impl_->scratch_size;
    return Workspace(std::make_unique<Workspace::Impl>(Workspace::Impl{size, AlignedBuffer(size)}));
}

Result Solver::solve(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out, Workspace& workspace,
                     const Options& options) const noexcept {
    if (impl_ == nullptr || workspace.impl_ == nullptr) return kInvalid;
    const Chain& chain = impl_->bundle.chain;
    const std::size_t dof = static_cast<std::size_t>(chain.dof);
    double pose[kPoseSize];
    if (q_ref.size() != dof || q_out.size() != dof || workspace.impl_->size != impl_->scratch_size ||
        !is_valid(options) || !is_finite(q_ref) || !has_unit_quat(T_base_tool) ||
        !normalize_pose(T_base_tool.data(), pose)) {
        return kInvalid;
    }

    float q_float[kMaxJoints], pose_float[kPoseSize], u[kMaxJoints];
    for (std::size_t j = 0; j < dof; ++j) q_float[j] = static_cast<float>(q_ref[j]);
    for (std::size_t i = 0; i < kPoseSize; ++i) pose_float[i] = static_cast<float>(pose[i]);
    impl_->engine->evaluate(1, q_float, pose_float, 1, u, workspace.impl_->scratch.data());

    // Inputs of absurd size overflow float32: then the reference itself is the start.
    const bool usable = std::all_of(u, u + dof, [](float value) { return std::isfinite(value); });
    double q[kMaxJoints];
    for (std::size_t j = 0; j < dof; ++j) {
        q[j] = usable ? q_ref[j] + static_cast<double>(u[j]) : std::clamp(q_ref[j], chain.lower[j], chain.upper[j]);
    }
    wrap(chain, q);

    Result result{Status::kNotConverged, kNaN, kNaN, 0};
    const Transform T_target = from_pose(pose);
    if (options.max_iterations > 0) {
        result.iterations =
            refine(chain, T_target, q, options.max_iterations, options.tol_pos_m, options.tol_rot_rad).iterations;
        wrap(chain, q);
    }
    // Judge the very values that are handed out.
    double error[6];
    pose_error(T_target, forward(chain, q), error);
    result.pos_error_m = norm3(error);
    result.rot_error_rad = norm3(error + 3);
    if (!within_limits(chain, q)) {
        result.status = Status::kOutsideLimits;
    } else if (result.pos_error_m <= options.tol_pos_m && result.rot_error_rad <= options.tol_rot_rad) {
        result.status = Status::kSolved;
    }
    std::copy_n(q, dof, q_out.data());
    return result;
}

Status Solver::solve_batch(Span<const double> poses, Span<const double> q_ref, Span<double> q_out, Span<Result> results,
                           Span<double> time_us, const Options& options, int threads) const {
    const std::size_t rows = results.size(), dof = static_cast<std::size_t>(this->dof());
    if (impl_ == nullptr || threads < 1 || poses.size() != rows * kPoseSize || q_ref.size() != rows * dof ||
        q_out.size() != rows * dof || !(time_us.empty() || time_us.size() == rows)) {
        return Status::kInvalidInput;
    }
    std::atomic<std::size_t> next{0};
    const auto work = [&](Workspace& workspace) noexcept {
        for (std::size_t begin; (begin = next.fetch_add(kBatchChunk, std::memory_order_relaxed)) < rows;) {
            for (std::size_t i = begin; i < std::min(begin + kBatchChunk, rows); ++i) {
                Pose pose;
                std::copy_n(poses.data() + i * kPoseSize, kPoseSize, pose.begin());
                const auto start = std::chrono::steady_clock::now();
                results[i] = solve(pose, q_ref.subspan(i * dof, dof), q_out.subspan(i * dof, dof), workspace, options);
                if (time_us.empty()) continue;
                time_us[i] =
                    std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
            }
        }
    };
    const std::size_t workers =
        std::min(static_cast<std::size_t>(threads), std::max<std::size_t>(1, (rows + kBatchChunk - 1) / kBatchChunk));
    std::vector<Workspace> workspaces;
    for (std::size_t i = 0; i < workers; ++i) workspaces.push_back(make_workspace());
    std::vector<std::thread> helpers;
    helpers.reserve(workers - 1);
    try {
        for (std::size_t i = 1; i < workers; ++i) helpers.emplace_back(work, std::ref(workspaces[i]));
    } catch (const std::system_error&) {
        // No more threads to be had: those that run, and this one, do the work.
    }
    work(workspaces[0]);
    for (std::thread& helper : helpers) helper.join();
    const auto failed = std::find_if(results.begin(), results.end(),
                                     [](const Result& result) { return result.status != Status::kSolved; });
    return failed == results.end() ? Status::kSolved : failed->status;
}

Pose Solver::fk(Span<const double> q) const noexcept {
    Pose pose;
    pose.fill(kNaN);
    if (impl_ != nullptr && q.size() == static_cast<std::size_t>(dof()) && is_finite(q)) {
        to_pose(forward(impl_->bundle.chain, q.data()), pose.data());
    }
    return pose;
}

namespace {
// What a moved-from solver names.
const std::string kNoName;
const std::vector<std::string> kNoNames;
}  // namespace

int Solver::dof() const noexcept {
    return impl_ == nullptr ? 0 : impl_->bundle.chain.dof;
}
const std::string& Solver::robot_name() const noexcept {
    return impl_ == nullptr ? kNoName : impl_->bundle.robot_name;
}
const std::string& Solver::base_link() const noexcept {
    return impl_ == nullptr ? kNoName : impl_->bundle.base_link;
}
const std::string& Solver::tip_link() const noexcept {
    return impl_ == nullptr ? kNoName : impl_->bundle.tip_link;
}
const std::vector<std::string>& Solver::joint_names() const noexcept {
    return impl_ == nullptr ? kNoNames : impl_->bundle.joint_names;
}
Span<const double> Solver::lower() const noexcept {
    if (impl_ == nullptr) return {};
    return {impl_->bundle.chain.lower, static_cast<std::size_t>(dof())};
}
Span<const double> Solver::upper() const noexcept {
    if (impl_ == nullptr) return {};
    return {impl_->bundle.chain.upper, static_cast<std::size_t>(dof())};
}
std::size_t Solver::num_parameters() const noexcept {
    return impl_ == nullptr ? 0 : impl_->bundle.num_parameters;
}
const std::string& Solver::metadata_json() const noexcept {
    return impl_ == nullptr ? kNoName : impl_->bundle.metadata_json;
}

}  // namespace mfik
