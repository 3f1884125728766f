#include "mfik/solver.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/chain.hpp"
#include "kernels/cpu/solver_kernels.hpp"
#include "kernels/philox.hpp"
#include "kernels/refine.hpp"
#include "kernels/search.hpp"
#include "solver/bundle.hpp"
#include "solver/networks/network.hpp"

namespace mfik {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTwoPi = 2.0 * kPi;
constexpr int kPoseSize = 7;
constexpr int kBatchChunk = 64;                   // rows that a thread of solve_batch takes at a time
constexpr std::uint64_t kTableSeed = 0x6d66696b;  // of the stored configurations
constexpr double kMostTurns = 1e6;                // beyond these, a joint's turns are not counted: it would lose digits
constexpr int kTrialSteps = 4;                    // that tell whether an error can still be lessened
constexpr double kStuck = 0.9;                    // share of the error that stays when no motion lessens it
constexpr double kInside = 0.999999;      // of a tolerance: what was refined to it passes the check after rounding
constexpr double kTrackTolerance = 1e-9;  // [m] and [rad]: looser, a path would be taken in stops and jumps
constexpr double kTrackGain = 1 - 1e-6;   // share of the squared error that a step of track() may leave at most
constexpr double kAtLimit = 1e-9;         // a joint this close to a limit is at it [rad] or [m]

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

Result invalid(const char* reason) {
    return {Status::kInvalidInput, kNaN, kNaN, 0, 0, 0, 0.0, reason};
}

bool is_finite(Span<const double> values) {
    return std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
}

bool is_tolerance(double value) {
    return std::isfinite(value) && value >= 0;
}

/// Pose with a quaternion of norm 1; false when it is not finite or its norm is off by more than kQuatNormTolerance.
bool checked_pose(const double* pose, double* out) {
    const double norm = std::sqrt(pose[3] * pose[3] + pose[4] * pose[4] + pose[5] * pose[5] + pose[6] * pose[6]);
    return std::abs(norm - 1.0) <= kQuatNormTolerance && normalize_pose(pose, out);
}

bool within_limits(const Chain& chain, const double* q) {
    for (int j = 0; j < chain.dof; ++j) {
        if (chain.kind[j] != JointKind::kContinuous && !(q[j] >= chain.lower[j] && q[j] <= chain.upper[j]))
            return false;
    }
    return true;
}

/// Of all equivalent turns of each joint, the one within the limits that is nearest to q_ref.
void unwind(const Chain& chain, const double* q_ref, double* q) {
    for (int j = 0; j < chain.dof; ++j) {
        if (chain.kind[j] == JointKind::kPrismatic) continue;
        double turns = std::nearbyint((q_ref[j] - q[j]) / kTwoPi);
        if (chain.kind[j] == JointKind::kRevolute) {
            turns = std::max(turns, std::ceil((chain.lower[j] - q[j]) / kTwoPi));
            turns = std::min(turns, std::floor((chain.upper[j] - q[j]) / kTwoPi));
        }
        if (turns == 0.0 || !(std::abs(turns) <= kMostTurns)) continue;
        const double turned = q[j] + turns * kTwoPi;
        const bool inside = turned >= chain.lower[j] && turned <= chain.upper[j];
        if (inside || chain.kind[j] == JointKind::kContinuous) q[j] = turned;
    }
}

void clamp(const Chain& chain, const Terms& terms, const double* q, double* out) {
    for (int j = 0; j < chain.dof; ++j) out[j] = std::clamp(q[j], terms.lower[j], terms.upper[j]);
}

/// T * inverse(other).
Transform times_inverse(const Transform& T, const Transform& other) {
    Transform out{};
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 3; ++k) out.R[3 * i + j] += T.R[3 * i + k] * other.R[3 * j + k];
        out.p[i] = T.p[i];
    }
    for (int i = 0; i < 3; ++i)
        for (int k = 0; k < 3; ++k) out.p[i] -= out.R[3 * i + k] * other.p[k];
    return out;
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

/// Target of the tool, and of the tip that carries it; false when the pose is none. The tool has been checked.
bool read_target(const double* pose, const Transform& T_tip_tool, Transform& T_target, Transform& T_tip) {
    double checked[kPoseSize];
    if (!checked_pose(pose, checked)) return false;
    T_target = from_pose(checked);
    T_tip = times_inverse(T_target, T_tip_tool);
    return true;
}

SeedTable make_seed_table(const Chain& chain) {
    SeedTable table{};
    table.reach = chain_reach(chain);
    const bool turns = chain.kind[0] != JointKind::kPrismatic;
    table.middle0 = 0.5 * (chain.lower[0] + chain.upper[0]);
    table.half0 = turns && chain.kind[0] == JointKind::kRevolute ? 0.5 * (chain.upper[0] - chain.lower[0]) : kInfinity;
    for (int i = 0; i < SeedTable::kSize; ++i) {
        double* q = table.q[i];
        for (int j = 0; j < chain.dof; ++j) {
            const Philox4 draw =
                philox4x32_10({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j), 0, 0}, kTableSeed);
            // A joint that can turn more than once needs one turn only.
            const double middle = 0.5 * (chain.lower[j] + chain.upper[j]), range = chain.upper[j] - chain.lower[j];
            const double width = chain.kind[j] == JointKind::kPrismatic ? range : std::min(range, kTwoPi);
            q[j] = middle + width * (static_cast<double>(uniform24(draw.x0)) - 0.5);
        }
        const SeedFeature feature = seed_feature(chain, table.reach, forward(chain, q));
        table.turn[i] = turns ? q[0] - feature.azimuth : table.middle0;
        for (int k = 0; k < 7; ++k) table.feature[k][i] = feature.value[k];
    }
    return table;
}

/// A call's input, checked, as the kernels want it.
struct Problem {
    const char* error = nullptr;  // why the input is refused
    const Chain* chain = nullptr;
    Terms terms{};
    Transform T_target{};  // of the tool
    Transform T_tip{};     // of the tip, which seeds and network know
    double tip_pose[kPoseSize]{};
    bool too_far = false;  // beyond the reach of the arm
};

/// The terms with the posture that the options prefer. Searches go without it: leaning, they would take more steps.
Terms leaning(const Terms& terms, const Options& options) {
    Terms lean = terms;
    lean.preferred = options.q_preferred.data();
    lean.preference_gain = options.preference_gain;
    return lean;
}

}  // namespace

const char* to_string(Status status) noexcept {
    switch (status) {
        case Status::kSolved:
            return "solved";
        case Status::kNotConverged:
            return "not converged";
        case Status::kUnreachable:
            return "unreachable";
        case Status::kAtLimits:
            return "at limits";
        case Status::kJumpBound:
            return "jump bound";
        case Status::kInvalidInput:
            return "invalid input";
    }
    return "unknown status";
}

struct Workspace::Impl {
    std::size_t size;
    AlignedBuffer scratch;
    Chain tool_chain;  // of the last call with a tool
    SolutionPool pool;
};

Workspace::Workspace(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;
Workspace::~Workspace() = default;

/// What a thread of solve_batch needs.
struct Solver::BatchMemory {
    Workspace workspace;
    AlignedBuffer scratch;  // of the network for kBatchChunk rows
    double seeds[kBatchChunk * kMaxJoints];
};

struct Solver::Impl {
    Impl(std::unique_ptr<const Engine> evaluator, Bundle read)
        : engine(std::move(evaluator)), bundle(std::move(read)), table(make_seed_table(bundle.chain)) {
        bundle.tensors.clear();
    }

    std::unique_ptr<const Engine> engine;  // null: the bundle has no network
    Bundle bundle;                         // without the tensors, which the engine has packed
    SeedTable table;
    const cpu::LaneKernels* kernels = &cpu::lane_kernels();

    std::size_t scratch_size(int rows) const { return engine == nullptr ? 0 : engine->scratch_size(rows); }

    Problem check(const Pose& T_base_tool, Span<const double> q_ref, const Options& options,
                  Workspace::Impl* workspace) const;
    void network_seeds(int rows, const double* q_ref, const double* tip_poses, float* scratch, double* seeds) const;
    void network_chunk(int rows, const double* poses, const double* q_ref, const Options& options,
                       BatchMemory& memory) const;
    void free_seed(const Problem& problem, const double* q_ref, Seed seed, double* q) const;
    SearchTask search_task(const Problem& problem, const double* q_ref, const Options& options) const;
    Result solve(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out, Workspace::Impl* workspace,
                 const Options& options, const double* network_seed) const;
    Result run(const Problem& problem, const double* q_ref, const double* seed, const Options& options,
               double* q) const;
    Result judge(const Problem& problem, const double* q, const Options& options) const;
};

Solver::Solver(std::unique_ptr<const Impl> impl) noexcept : impl_(std::move(impl)) {}
Solver::Solver(Solver&&) noexcept = default;
Solver& Solver::operator=(Solver&&) noexcept = default;
Solver::~Solver() = default;

Solver Solver::load(const std::string& path) {
    Bundle bundle = read_bundle(path);
    auto network = bundle.config.version > 0 ? make_network(bundle) : nullptr;
    return Solver(std::make_unique<const Impl>(std::move(network), std::move(bundle)));
}

Solver Solver::load(const std::string& path, std::unique_ptr<const Engine> engine) {
    Bundle bundle = read_bundle(path);
    if (engine == nullptr) throw Error(path + ": engine: expected one, got none; use Solver::load(path)");
    check_engine(path, *engine, bundle.chain);
    return Solver(std::make_unique<const Impl>(std::move(engine), std::move(bundle)));
}

Workspace Solver::make_workspace() const {
    const std::size_t size = impl_ == nullptr ? 0 : impl_->scratch_size(1);
    return Workspace(std::make_unique<Workspace::Impl>(Workspace::Impl{size, AlignedBuffer(size), {}, {}}));
}

Problem Solver::Impl::check(const Pose& T_base_tool, Span<const double> q_ref, const Options& options,
                            Workspace::Impl* workspace) const {
    Problem problem;
    const std::size_t dof = static_cast<std::size_t>(bundle.chain.dof);
    const auto refuse = [&problem](const char* error) {
        problem.error = error;
        return problem;
    };
    if (workspace == nullptr || workspace->size != scratch_size(1)) {
        return refuse("workspace: expected one from this solver's make_workspace()");
    }
    if (q_ref.size() != dof) return refuse("q_ref: expected dof() values");
    if (!is_finite(q_ref)) return refuse("q_ref: expected finite values");
    if (!is_tolerance(options.tol_pos_m)) return refuse("tol_pos_m: expected a finite number of at least 0");
    if (!is_tolerance(options.tol_rot_rad)) return refuse("tol_rot_rad: expected a finite number of at least 0");
    if (options.max_iterations < 0 || options.max_iterations > kMaxIterations) {
        return refuse("max_iterations: expected 0 to kMaxIterations");
    }
    if (options.max_attempts < 1 || options.max_attempts > kMaxAttempts) {
        return refuse("max_attempts: expected 1 to kMaxAttempts");
    }
    if (options.seed < Seed::kReference || options.seed > Seed::kTurned)
        return refuse("seed: expected a value of Seed");
    double tool[kPoseSize];
    if (!checked_pose(options.T_tip_tool.data(), tool)) {
        return refuse("T_tip_tool: expected finite values with a unit quaternion in the last four");
    }
    const Transform T_tip_tool = from_pose(tool);
    if (!read_target(T_base_tool.data(), T_tip_tool, problem.T_target, problem.T_tip)) {
        return refuse("T_base_tool: expected finite values with a unit quaternion in the last four");
    }
    if (!(options.preference_gain >= 0.0 && options.preference_gain <= 1.0)) {
        return refuse("preference_gain: expected 0 to 1");
    }
    if (!options.q_preferred.empty() && (options.q_preferred.size() != dof || !is_finite(options.q_preferred))) {
        return refuse("q_preferred: expected dof() finite values or none");
    }
    bool has_slack = false;
    for (const double slack : options.slack) {
        if (!(slack >= 0.0)) return refuse("slack: expected numbers of at least 0, infinity to free an axis");
        has_slack = has_slack || slack > 0.0;
    }
    if (options.locked >> dof != 0) return refuse("locked: expected bits of the joints 0 to dof() - 1 only");

    problem.chain = &bundle.chain;
    if (options.T_tip_tool != Options{}.T_tip_tool) {
        Chain& chain = workspace->tool_chain;
        chain = bundle.chain;
        double* last = chain.origin[chain.dof];
        Transform T_joint_tip;
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 3; ++j) T_joint_tip.R[3 * i + j] = last[4 * i + j];
            T_joint_tip.p[i] = last[4 * i + 3];
        }
        double tip_tool[12];
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 3; ++j) tip_tool[4 * i + j] = T_tip_tool.R[3 * i + j];
            tip_tool[4 * i + 3] = T_tip_tool.p[i];
        }
        compose_origin(T_joint_tip, tip_tool);
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 3; ++j) last[4 * i + j] = T_joint_tip.R[3 * i + j];
            last[4 * i + 3] = T_joint_tip.p[i];
        }
        problem.chain = &chain;
    }
    to_pose(problem.T_tip, problem.tip_pose);
    const double* origin = bundle.chain.origin[0];
    const double* p = problem.T_tip.p;
    const double from_joint1[3] = {p[0] - origin[3], p[1] - origin[7], p[2] - origin[11]};
    problem.too_far = norm3(from_joint1) > table.reach + options.tol_pos_m && !has_slack;
    set_limits(bundle.chain, problem.terms);
    if (has_slack) problem.terms.slack = options.slack.data();
    for (std::size_t j = 0; j < dof; ++j) {
        if (!(options.locked >> j & 1u)) continue;
        if (!(q_ref[j] >= problem.terms.lower[j] && q_ref[j] <= problem.terms.upper[j])) {
            return refuse("q_ref: expected locked joints within their limits");
        }
        problem.terms.lower[j] = problem.terms.upper[j] = q_ref[j];
    }
    return problem;
}

/// q_ref + u(q_ref, 0, 1) for rows of references [rows, dof] and tip poses [rows, 7].
void Solver::Impl::network_seeds(int rows, const double* q_ref, const double* tip_poses, float* scratch,
                                 double* seeds) const {
    const int dof = bundle.chain.dof;
    float q[kBatchChunk * kMaxJoints], poses[kBatchChunk * kPoseSize], u[kBatchChunk * kMaxJoints];
    if (rows < 1 || dof < 1) return;
    for (int i = 0; i < rows * dof; ++i) q[i] = static_cast<float>(q_ref[i]);
    for (int i = 0; i < rows * kPoseSize; ++i) poses[i] = static_cast<float>(tip_poses[i]);
    engine->evaluate(rows, q, poses, rows, u, scratch);
    for (int i = 0; i < rows * dof; ++i) {
        // Inputs of absurd size overflow float32: then the reference itself is the start.
        seeds[i] = std::isfinite(u[i]) ? q_ref[i] + static_cast<double>(u[i]) : q_ref[i];
    }
}

/// Where the network sends up to kBatchChunk rows of solve_batch.
void Solver::Impl::network_chunk(int rows, const double* poses, const double* q_ref, const Options& options,
                                 BatchMemory& memory) const {
    double tool[kPoseSize], tip_poses[kBatchChunk * kPoseSize];
    if (!checked_pose(options.T_tip_tool.data(), tool)) return;  // every row will be refused
    const Transform T_tip_tool = from_pose(tool);
    for (int i = 0; i < rows; ++i) {
        Transform T_target, T_tip = T_tip_tool;  // a row that is no pose will be refused
        (void)read_target(poses + i * kPoseSize, T_tip_tool, T_target, T_tip);
        to_pose(T_tip, tip_poses + i * kPoseSize);
    }
    network_seeds(rows, q_ref, tip_poses, memory.scratch.data(), memory.seeds);
}

/// The joints that a seed other than the network names.
void Solver::Impl::free_seed(const Problem& problem, const double* q_ref, Seed seed, double* q) const {
    const Chain& chain = bundle.chain;
    std::copy_n(q_ref, chain.dof, q);
    if (seed == Seed::kReference) return;
    for (int j = 0; j < chain.dof; ++j) q[j] = 0.5 * (chain.lower[j] + chain.upper[j]);
    if (seed == Seed::kTurned && chain.kind[0] != JointKind::kPrismatic) {
        const SeedFeature now = seed_feature(chain, table.reach, forward(chain, q));
        const SeedFeature wanted = seed_feature(chain, table.reach, problem.T_tip);
        q[0] += std::remainder(wanted.azimuth - now.azimuth, kTwoPi);
    }
}

/// Errors and status of joints within the terms, and why they fail where they do.
Result Solver::Impl::judge(const Problem& problem, const double* q, const Options& options) const {
    Iterate<double> at;
    std::copy_n(q, bundle.chain.dof, at.q);
    linearize(*problem.chain, problem.terms, problem.T_target, at);
    Result result{Status::kNotConverged, std::sqrt(at.pos2), std::sqrt(at.rot2), 0, 0, 0, 0.0, ""};
    if (!within_limits(bundle.chain, q)) {
        result.status = Status::kAtLimits;
        result.reason = "the answer violates a joint limit; let it be refined";
    } else if (result.pos_error_m <= options.tol_pos_m && result.rot_error_rad <= options.tol_rot_rad) {
        result.status = Status::kSolved;
        result.solutions = 1;
        result.reason = "both errors are within tolerance";
    } else if (problem.too_far) {
        result.status = Status::kUnreachable;
        result.reason = "the target is farther from the first joint than the arm reaches";
    } else {
        result.reason = "the error was still falling when the iterations ran out; allow more, or more attempts";
        double trial[kMaxJoints];
        std::copy_n(q, bundle.chain.dof, trial);
        const RefineOutcome outcome =
            kernels->refine_one(*problem.chain, problem.terms, problem.T_target, trial, kTrialSteps, 0.0, 0.0, 0);
        const double before = at.pos2 + at.rot2;
        const double after = outcome.pos_error_m * outcome.pos_error_m + outcome.rot_error_rad * outcome.rot_error_rad;
        if (after > kStuck * kStuck * before) {
            bool at_limit = false;
            for (int j = 0; j < bundle.chain.dof; ++j) {
                const double lower = problem.terms.lower[j], upper = problem.terms.upper[j];
                at_limit = at_limit || q[j] - lower < kAtLimit || upper - q[j] < kAtLimit;
            }
            result.status = at_limit ? Status::kAtLimits : Status::kUnreachable;
            result.reason = at_limit ? "joint limits hold the best attempt back"
                                     : "no joint motion lessens the error of the best attempt";
        }
    }
    return result;
}

/// The search that the options ask for, with q_ref as the first seed.
SearchTask Solver::Impl::search_task(const Problem& problem, const double* q_ref, const Options& options) const {
    SearchTask task{};
    task.chain = problem.chain;
    task.terms = &problem.terms;
    task.table = &table;
    task.feature = seed_feature(bundle.chain, table.reach, problem.T_tip);
    task.T_target = problem.T_target;
    task.tol_pos_m = options.tol_pos_m;
    task.tol_rot_rad = options.tol_rot_rad;
    task.max_iterations = options.max_iterations;
    task.max_attempts = problem.too_far ? 1 : options.max_attempts;
    clamp(bundle.chain, problem.terms, q_ref, task.q_ref);
    return task;
}

Result Solver::Impl::run(const Problem& problem, const double* q_ref, const double* seed, const Options& options,
                         double* q) const {
    const Chain& chain = bundle.chain;
    SearchResult found{};
    if (options.max_iterations == 0) {
        std::copy_n(seed, chain.dof, q);
        found.attempts = 1;
    } else {
        SearchTask task = search_task(problem, q_ref, options);
        task.exhaust = options.nearest;
        task.has_first_seed = options.seed != Seed::kReference;
        clamp(chain, problem.terms, seed, task.first_seed);
        kernels->search(task, found, nullptr);
        std::copy_n(found.q, chain.dof, q);
    }
    if (found.solved && !options.q_preferred.empty()) {
        double leant[kMaxJoints];
        std::copy_n(q, chain.dof, leant);
        const RefineOutcome outcome = kernels->refine_one(
            *problem.chain, leaning(problem.terms, options), problem.T_target, leant, 2 * options.max_iterations,
            kInside * options.tol_pos_m, kInside * options.tol_rot_rad, options.max_iterations);
        found.iterations += outcome.iterations;
        if (outcome.converged) std::copy_n(leant, chain.dof, q);
    }
    if (!found.solved && options.max_iterations > 0 && options.max_attempts > 1) {
        // Where the best attempt leads to in the end, so that the status can say why it fails.
        found.iterations += kernels
                                ->refine_one(*problem.chain, problem.terms, problem.T_target, q, options.max_iterations,
                                             kInside * options.tol_pos_m, kInside * options.tol_rot_rad, 0)
                                .iterations;
    }
    if (options.max_iterations > 0) unwind(chain, q_ref, q);
    Result result = judge(problem, q, options);
    result.iterations = found.iterations;
    result.attempts = found.attempts;
    return result;
}

/// `network_seed` [dof]: where the network's answer is at hand already.
Result Solver::Impl::solve(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out,
                           Workspace::Impl* workspace, const Options& options, const double* network_seed) const {
    const Clock::time_point start = Clock::now();
    const Problem problem = check(T_base_tool, q_ref, options, workspace);
    if (problem.error != nullptr) return invalid(problem.error);
    if (q_out.size() != q_ref.size()) return invalid("q_out: expected dof() values");
    double seed[kMaxJoints], q[kMaxJoints];
    if (options.seed != Seed::kNetwork) {
        free_seed(problem, q_ref.data(), options.seed, seed);
    } else if (network_seed != nullptr) {
        std::copy_n(network_seed, q_ref.size(), seed);
    } else if (engine != nullptr) {
        network_seeds(1, q_ref.data(), problem.tip_pose, workspace->scratch.data(), seed);
    } else {
        return invalid("seed: the bundle holds no network");
    }
    Result result = run(problem, q_ref.data(), seed, options, q);
    std::copy_n(q, q_out.size(), q_out.data());
    result.time_us = microseconds_since(start);
    return result;
}

Result Solver::solve(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out, Workspace& workspace,
                     const Options& options) const noexcept {
    if (impl_ == nullptr) return invalid("solver: it was moved from");
    return impl_->solve(T_base_tool, q_ref, q_out, workspace.impl_.get(), options, nullptr);
}

Result Solver::track(const Pose& T_base_tool, Span<const double> q_prev, double max_step, Span<double> q_out,
                     Workspace& workspace, const Options& options) const noexcept {
    const Clock::time_point start = Clock::now();
    if (impl_ == nullptr) return invalid("solver: it was moved from");
    Problem problem = impl_->check(T_base_tool, q_prev, options, workspace.impl_.get());
    if (problem.error != nullptr) return invalid(problem.error);
    if (q_out.size() != q_prev.size()) return invalid("q_out: expected dof() values");
    if (!(std::isfinite(max_step) && max_step > 0)) return invalid("max_step: expected a finite number above 0");

    const int n = impl_->bundle.chain.dof;
    const Terms limits = problem.terms;
    double q[kMaxJoints];
    bool returning = false;  // q_prev is so far outside the limits that one step does not lead back
    for (int j = 0; j < n; ++j) {
        q[j] = q_prev[static_cast<std::size_t>(j)];
        // The bound holds for the difference as it is computed, rounding included.
        double low = q[j] - max_step, high = q[j] + max_step;
        if (q[j] - low > max_step) low = std::nextafter(low, kInfinity);
        if (high - q[j] > max_step) high = std::nextafter(high, -kInfinity);
        returning = returning || limits.lower[j] > high || limits.upper[j] < low;
        problem.terms.lower[j] = std::clamp(limits.lower[j], low, high);
        problem.terms.upper[j] = std::clamp(limits.upper[j], low, high);
    }
    const bool leans = !options.q_preferred.empty();
    const RefineOutcome outcome = impl_->kernels->refine_one(
        *problem.chain, leans ? leaning(problem.terms, options) : problem.terms, problem.T_target, q,
        options.max_iterations, std::min(kInside * options.tol_pos_m, kTrackTolerance),
        std::min(kInside * options.tol_rot_rad, kTrackTolerance), leans ? 1 : 0);
    Result result = impl_->judge(problem, q, options);
    if (problem.too_far) {
        // Steps may lead back and forth between joints of one error: then the arm stays where it is. Towards a target
        // within reach, the error may have to rise on the way.
        Iterate<double> start;
        for (int j = 0; j < n; ++j) {
            start.q[j] =
                std::clamp(q_prev[static_cast<std::size_t>(j)], problem.terms.lower[j], problem.terms.upper[j]);
        }
        linearize(*problem.chain, problem.terms, problem.T_target, start);
        const double error2 = result.pos_error_m * result.pos_error_m + result.rot_error_rad * result.rot_error_rad;
        if (error2 > kTrackGain * (start.pos2 + start.rot2)) {
            std::copy_n(start.q, n, q);
            result = impl_->judge(problem, q, options);
        }
    }
    result.iterations = outcome.iterations;
    result.attempts = 1;
    if (result.status != Status::kSolved) {
        for (int j = 0; j < n; ++j) {
            const bool low = q[j] - problem.terms.lower[j] < kAtLimit && problem.terms.lower[j] > limits.lower[j];
            const bool high = problem.terms.upper[j] - q[j] < kAtLimit && problem.terms.upper[j] < limits.upper[j];
            if (!(low || high)) continue;
            result.status = Status::kJumpBound;
            result.reason = "the target needs a larger step of some joint than max_step";
        }
        if (returning) {
            result.status = Status::kAtLimits;
            result.reason = "q_prev is outside the limits by more than max_step; the answer is on the way back";
        }
    }
    std::copy_n(q, n, q_out.data());
    result.time_us = microseconds_since(start);
    return result;
}

Result Solver::solve_all(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out, Workspace& workspace,
                         double min_distance, const Options& options) const noexcept {
    const Clock::time_point start = Clock::now();
    if (impl_ == nullptr) return invalid("solver: it was moved from");
    const Problem problem = impl_->check(T_base_tool, q_ref, options, workspace.impl_.get());
    if (problem.error != nullptr) return invalid(problem.error);
    const std::size_t dof = q_ref.size(), wanted = q_out.size() / dof;
    if (q_out.size() % dof != 0 || wanted == 0) return invalid("q_out: expected n * dof() values, n at least 1");
    if (!(std::isfinite(min_distance) && min_distance > 0)) {
        return invalid("min_distance: expected a finite number above 0");
    }
    if (options.max_iterations == 0) return invalid("max_iterations: expected at least 1 to find all solutions");

    const Chain& chain = impl_->bundle.chain;
    SolutionPool& pool = workspace.impl_->pool;
    pool.size = 0;
    pool.min_distance = min_distance;
    SearchTask task = impl_->search_task(problem, q_ref.data(), options);
    task.exhaust = true;
    SearchResult found{};
    impl_->kernels->search(task, found, &pool);
    Result result = impl_->judge(problem, found.q, options);
    result.solutions = 0;
    if (found.solved) {
        // The nearest to q_ref first, then always the one whose distance from those taken is largest.
        double gap[SolutionPool::kCapacity];
        for (int i = 0; i < pool.size; ++i) {
            unwind(chain, q_ref.data(), pool.q[i]);
            gap[i] = -joint_distance(chain, pool.q[i], q_ref.data());
        }
        while (static_cast<std::size_t>(result.solutions) < wanted && result.solutions < pool.size) {
            const int taken = static_cast<int>(std::max_element(gap, gap + pool.size) - gap);
            const Result one = impl_->judge(problem, pool.q[taken], options);
            std::copy_n(pool.q[taken], dof, q_out.data() + static_cast<std::size_t>(result.solutions) * dof);
            result.pos_error_m = std::max(result.pos_error_m, one.pos_error_m);
            result.rot_error_rad = std::max(result.rot_error_rad, one.rot_error_rad);
            for (int i = 0; i < pool.size; ++i) {
                const double distance = joint_distance(chain, pool.q[i], pool.q[taken]);
                gap[i] = result.solutions == 0 ? distance : std::min(gap[i], distance);
            }
            gap[taken] = -1.0;
            ++result.solutions;
        }
    }
    result.iterations = found.iterations;
    result.attempts = found.attempts;
    result.time_us = microseconds_since(start);
    return result;
}

Status Solver::solve_batch(Span<const double> poses, Span<const double> q_ref, Span<double> q_out, Span<Result> results,
                           Span<double> time_us, const Options& options, int threads) const {
    const std::size_t rows = results.size(), dof = static_cast<std::size_t>(this->dof());
    if (impl_ == nullptr || threads < 1 || poses.size() != rows * kPoseSize || q_ref.size() != rows * dof ||
        q_out.size() != rows * dof || !(time_us.empty() || time_us.size() == rows)) {
        return Status::kInvalidInput;
    }
    const std::size_t chunk = kBatchChunk;
    const bool together = options.seed == Seed::kNetwork && impl_->engine != nullptr && time_us.empty();
    std::atomic<std::size_t> next{0};
    const auto work = [&](BatchMemory& memory) noexcept {
        for (std::size_t begin; (begin = next.fetch_add(chunk, std::memory_order_relaxed)) < rows;) {
            const std::size_t size = std::min(chunk, rows - begin);
            if (together) {
                impl_->network_chunk(static_cast<int>(size), poses.data() + begin * kPoseSize,
                                     q_ref.data() + begin * dof, options, memory);
            }
            for (std::size_t i = begin; i < begin + size; ++i) {
                Pose pose;
                std::copy_n(poses.data() + i * kPoseSize, kPoseSize, pose.begin());
                results[i] = impl_->solve(pose, q_ref.subspan(i * dof, dof), q_out.subspan(i * dof, dof),
                                          memory.workspace.impl_.get(), options,
                                          together ? memory.seeds + (i - begin) * dof : nullptr);
                if (!time_us.empty()) time_us[i] = results[i].time_us;
            }
        }
    };
    const std::size_t workers =
        std::min(static_cast<std::size_t>(threads), std::max<std::size_t>(1, (rows + chunk - 1) / chunk));
    std::vector<BatchMemory> memories;
    for (std::size_t i = 0; i < workers; ++i) {
        memories.push_back({make_workspace(), AlignedBuffer(together ? impl_->scratch_size(kBatchChunk) : 0), {}});
    }
    std::vector<std::thread> helpers;
    helpers.reserve(workers - 1);
    try {
        for (std::size_t i = 1; i < workers; ++i) helpers.emplace_back(work, std::ref(memories[i]));
    } catch (const std::system_error&) {
        // Fewer threads are to be had: those that run take all rows.
    }
    work(memories[0]);
    for (std::thread& helper : helpers) helper.join();
    const auto failed = std::find_if(results.begin(), results.end(),
                                     [](const Result& result) { return result.status != Status::kSolved; });
    return failed == results.end() ? Status::kSolved : failed->status;
}

std::string Solver::explain(const Result& result, Span<const double> q_out) const {
    std::string text = std::string(to_string(result.status)) + ": " + result.reason;
    if (result.status == Status::kInvalidInput || impl_ == nullptr) return text;
    char numbers[160];
    std::snprintf(numbers, sizeof(numbers),
                  "; position error %.3g mm, rotation error %.3g deg after %d steps, %d attempt%s",
                  1e3 * result.pos_error_m, result.rot_error_rad * 180.0 / kPi, result.iterations, result.attempts,
                  result.attempts == 1 ? "" : "s");
    text += numbers;
    const Chain& chain = impl_->bundle.chain;
    if (q_out.size() != static_cast<std::size_t>(chain.dof)) return text;
    std::string at;
    for (std::size_t j = 0; j < q_out.size(); ++j) {
        if (chain.kind[j] == JointKind::kContinuous) continue;
        const bool low = q_out[j] <= chain.lower[j] + kAtLimit, high = q_out[j] >= chain.upper[j] - kAtLimit;
        if (!low && !high) continue;
        std::snprintf(numbers, sizeof(numbers), " %s limit (%.4g)", low ? "lower" : "upper",
                      low ? chain.lower[j] : chain.upper[j]);
        at += (at.empty() ? "" : ", ") + impl_->bundle.joint_names[j] + numbers;
    }
    if (!at.empty()) text += "; at or beyond: " + at;
    return text;
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
int Solver::lanes() const noexcept {
    return impl_ == nullptr ? 0 : impl_->kernels->lanes;
}
std::size_t Solver::num_parameters() const noexcept {
    return impl_ == nullptr ? 0 : impl_->bundle.num_parameters;
}
const std::string& Solver::metadata_json() const noexcept {
    return impl_ == nullptr ? kNoName : impl_->bundle.metadata_json;
}

}  // namespace mfik
