#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "solver/c_handles.hpp"

struct mfik_tracker {
    mfik::Tracker tracker;
    std::size_t dof;
};

namespace {

using mfik::Options;
using mfik::Pose;
using mfik::Result;
using mfik::Solver;
using mfik::Span;
using mfik::Status;
using mfik::c::copy_text;
using mfik::c::read_options;

// The options of the first version end here.
constexpr std::size_t kFirstOptionsSize = offsetof(mfik_options, q_preferred) + sizeof(const double*);
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

static_assert(MFIK_SOLVED == static_cast<int>(Status::kSolved) &&
              MFIK_NOT_CONVERGED == static_cast<int>(Status::kNotConverged) &&
              MFIK_UNREACHABLE == static_cast<int>(Status::kUnreachable) &&
              MFIK_AT_LIMITS == static_cast<int>(Status::kAtLimits) &&
              MFIK_JUMP_BOUND == static_cast<int>(Status::kJumpBound) &&
              MFIK_INVALID_INPUT == static_cast<int>(Status::kInvalidInput) &&
              MFIK_IN_COLLISION == static_cast<int>(Status::kInCollision));
static_assert(MFIK_SELF_COLLISION_WITH_WORLD == static_cast<int>(mfik::SelfCollision::kWithWorld) &&
              MFIK_SELF_COLLISION_ON == static_cast<int>(mfik::SelfCollision::kOn) &&
              MFIK_SELF_COLLISION_OFF == static_cast<int>(mfik::SelfCollision::kOff));
static_assert(MFIK_SEED_REFERENCE == static_cast<int>(mfik::Seed::kReference) &&
              MFIK_SEED_NETWORK == static_cast<int>(mfik::Seed::kNetwork) &&
              MFIK_SEED_MIDPOINT == static_cast<int>(mfik::Seed::kMidpoint) &&
              MFIK_SEED_AZIMUTH == static_cast<int>(mfik::Seed::kAzimuth));

Result refusal(const char* reason) {
    return {Status::kInvalidInput, kNaN, kNaN, 0, 0, 0, 0.0, reason, nullptr, nullptr};
}

mfik_result to_c(const Result& result) {
    return {static_cast<mfik_status>(result.status),
            result.iterations,
            result.attempts,
            result.solutions,
            result.pos_error_m,
            result.rot_error_rad,
            result.time_us,
            result.reason,
            result.first,
            result.second};
}

mfik_status report(const Result& result, mfik_result* out) {
    if (out != nullptr) *out = to_c(result);
    return static_cast<mfik_status>(result.status);
}

std::size_t dof_of(const mfik_solver* solver) {
    return static_cast<std::size_t>(solver->solver.dof());
}

/// One call of the solver with the arguments that all calls share, checked for null.
template <class Call>
mfik_status checked(const mfik_solver* solver, const double* T_base_tool, const double* q_ref, const double* q_out,
                    const mfik_workspace* workspace, const mfik_options* given, mfik_result* result, Call call) {
    if (solver == nullptr) return report(refusal("solver: expected no NULL"), result);
    if (T_base_tool == nullptr) return report(refusal("T_base_tool: expected no NULL"), result);
    if (q_ref == nullptr) return report(refusal("joints to start from: expected no NULL"), result);
    if (q_out == nullptr) return report(refusal("q_out: expected no NULL"), result);
    if (workspace == nullptr) return report(refusal("workspace: expected no NULL"), result);
    Options options;
    const std::size_t dof = dof_of(solver);
    if (const char* error = read_options(given, dof, options)) return report(refusal(error), result);
    Pose pose;
    std::copy_n(T_base_tool, pose.size(), pose.begin());
    return report(call(pose, Span<const double>(q_ref, dof), options), result);
}

}  // namespace

namespace mfik::c {

const char* read_options(const mfik_options* given, std::size_t dof, Options& out) {
    if (given == nullptr) return nullptr;
    if (given->size < kFirstOptionsSize || given->size > sizeof(mfik_options)) {
        return "options.size: expected sizeof(mfik_options) of this library or an earlier one; use mfik_options_init";
    }
    mfik_options options;
    mfik_options_init(&options, sizeof(options));
    std::memcpy(&options, given, given->size);
    if (options.seed < MFIK_SEED_REFERENCE || options.seed > MFIK_SEED_AZIMUTH) {
        return "options.seed: expected a value of mfik_seed";
    }
    out.tol_pos_m = options.tol_pos_m;
    out.tol_rot_rad = options.tol_rot_rad;
    out.max_iterations = options.max_iterations;
    out.max_attempts = options.max_attempts;
    out.seed = static_cast<mfik::Seed>(options.seed);
    out.nearest = options.nearest != 0;
    std::copy_n(options.T_tip_tool, out.T_tip_tool.size(), out.T_tip_tool.begin());
    std::copy_n(options.slack, out.slack.size(), out.slack.begin());
    out.locked = options.locked;
    if (options.q_preferred != nullptr) out.q_preferred = {options.q_preferred, dof};
    out.preference_gain = options.preference_gain;
    out.throughput = options.throughput != 0;
    if (options.self_collision < MFIK_SELF_COLLISION_WITH_WORLD || options.self_collision > MFIK_SELF_COLLISION_OFF) {
        return "options.self_collision: expected a value of mfik_self_collision";
    }
    out.self_collision = static_cast<mfik::SelfCollision>(options.self_collision);
    out.margin_m = options.margin_m;
    if (options.world != nullptr) out.world = &options.world->world;
    if (options.attached != nullptr) out.attached = &options.attached->attachments;
    if (options.joint_weights != nullptr) out.joint_weights = {options.joint_weights, dof};
    return nullptr;
}

void copy_text(const char* text, char* out, std::size_t size) {
    if (out == nullptr || size == 0) return;
    const std::size_t length = std::min(std::strlen(text), size - 1);
    std::memcpy(out, text, length);
    out[length] = '\0';
}

}  // namespace mfik::c

const char* mfik_version() noexcept {
    return MFIK_VERSION;
}

const char* mfik_status_name(mfik_status status) noexcept {
    return status == MFIK_OUT_OF_MEMORY ? "out of memory" : mfik::to_string(static_cast<Status>(status));
}

mfik_solver* mfik_load(const char* path, char* error, size_t error_size) noexcept {
    try {
        if (path == nullptr) throw mfik::Error("path: expected no NULL");
        return new mfik_solver{Solver::load(path)};
    } catch (const std::bad_alloc&) {
        copy_text("out of memory", error, error_size);
    } catch (const std::exception& caught) {
        copy_text(caught.what(), error, error_size);
    }
    return nullptr;
}

void mfik_destroy(mfik_solver* solver) noexcept {
    delete solver;
}

mfik_workspace* mfik_workspace_create(const mfik_solver* solver) noexcept {
    if (solver == nullptr) return nullptr;
    try {
        return new mfik_workspace{solver->solver.make_workspace()};
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void mfik_workspace_destroy(mfik_workspace* workspace) noexcept {
    delete workspace;
}

int32_t mfik_dof(const mfik_solver* solver) noexcept {
    return solver == nullptr ? 0 : solver->solver.dof();
}

const char* mfik_robot_name(const mfik_solver* solver) noexcept {
    return solver == nullptr ? nullptr : solver->solver.robot_name().c_str();
}

const char* mfik_base_link(const mfik_solver* solver) noexcept {
    return solver == nullptr ? nullptr : solver->solver.base_link().c_str();
}

const char* mfik_tip_link(const mfik_solver* solver) noexcept {
    return solver == nullptr ? nullptr : solver->solver.tip_link().c_str();
}

const char* mfik_joint_name(const mfik_solver* solver, int32_t joint) noexcept {
    if (joint < 0 || joint >= mfik_dof(solver)) return nullptr;
    return solver->solver.joint_names()[static_cast<std::size_t>(joint)].c_str();
}

const double* mfik_lower(const mfik_solver* solver) noexcept {
    return solver == nullptr ? nullptr : solver->solver.lower().data();
}

const double* mfik_upper(const mfik_solver* solver) noexcept {
    return solver == nullptr ? nullptr : solver->solver.upper().data();
}

const double* mfik_velocity(const mfik_solver* solver) noexcept {
    return solver == nullptr ? nullptr : solver->solver.velocity().data();
}

int32_t mfik_lanes(const mfik_solver* solver) noexcept {
    return solver == nullptr ? 0 : solver->solver.lanes();
}

size_t mfik_num_parameters(const mfik_solver* solver) noexcept {
    return solver == nullptr ? 0 : solver->solver.num_parameters();
}

const char* mfik_metadata_json(const mfik_solver* solver) noexcept {
    return solver == nullptr ? nullptr : solver->solver.metadata_json().c_str();
}

void mfik_options_init(mfik_options* options, size_t size) noexcept {
    if (options == nullptr) return;
    const Options defaults;
    mfik_options out;
    std::memset(&out, 0, sizeof(out));
    out.size = static_cast<uint32_t>(std::min(size, sizeof(out)));
    out.tol_pos_m = defaults.tol_pos_m;
    out.tol_rot_rad = defaults.tol_rot_rad;
    out.max_iterations = defaults.max_iterations;
    out.max_attempts = defaults.max_attempts;
    out.seed = static_cast<mfik_seed>(defaults.seed);
    out.nearest = defaults.nearest;
    std::copy_n(defaults.T_tip_tool.begin(), defaults.T_tip_tool.size(), out.T_tip_tool);
    std::copy_n(defaults.slack.begin(), defaults.slack.size(), out.slack);
    out.locked = defaults.locked;
    out.preference_gain = defaults.preference_gain;
    std::memcpy(options, &out, out.size);
}

mfik_status mfik_fk(const mfik_solver* solver, const double* q, double T_base_tool[7]) noexcept {
    if (solver == nullptr || q == nullptr || T_base_tool == nullptr) return MFIK_INVALID_INPUT;
    const Pose pose = solver->solver.fk({q, dof_of(solver)});
    std::copy_n(pose.begin(), pose.size(), T_base_tool);
    return std::isnan(pose[0]) ? MFIK_INVALID_INPUT : MFIK_SOLVED;
}

mfik_status mfik_solve(const mfik_solver* solver, const double T_base_tool[7], const double* q_ref, double* q_out,
                       mfik_workspace* workspace, const mfik_options* options, mfik_result* result) noexcept {
    return checked(solver, T_base_tool, q_ref, q_out, workspace, options, result,
                   [&](const Pose& pose, Span<const double> q, const Options& checked_options) {
                       return solver->solver.solve(pose, q, {q_out, q.size()}, workspace->workspace, checked_options);
                   });
}

mfik_status mfik_track(const mfik_solver* solver, const double T_base_tool[7], const double* q_prev, double max_step,
                       double* q_out, mfik_workspace* workspace, const mfik_options* options,
                       mfik_result* result) noexcept {
    return checked(solver, T_base_tool, q_prev, q_out, workspace, options, result,
                   [&](const Pose& pose, Span<const double> q, const Options& checked_options) {
                       return solver->solver.track(pose, q, max_step, {q_out, q.size()}, workspace->workspace,
                                                   checked_options);
                   });
}

mfik_status mfik_track_joints(const mfik_solver* solver, const double T_base_tool[7], const double* q_prev,
                              const double* max_step, double* q_out, mfik_workspace* workspace,
                              const mfik_options* options, mfik_result* result) noexcept {
    if (max_step == nullptr) return report(refusal("max_step: expected no NULL"), result);
    return checked(solver, T_base_tool, q_prev, q_out, workspace, options, result,
                   [&](const Pose& pose, Span<const double> q, const Options& checked_options) {
                       return solver->solver.track(pose, q, Span<const double>(max_step, q.size()), {q_out, q.size()},
                                                   workspace->workspace, checked_options);
                   });
}

mfik_tracker* mfik_tracker_create(const mfik_solver* solver, const double* q, double dt, const double* velocity,
                                  const double* acceleration, char* error, size_t error_size) noexcept {
    try {
        if (solver == nullptr || q == nullptr || acceleration == nullptr)
            throw mfik::Error("solver, q and acceleration: expected no NULL");
        const std::size_t dof = dof_of(solver);
        const Span<const double> bounds = velocity == nullptr ? Span<const double>() : Span(velocity, dof);
        return new mfik_tracker{{solver->solver, Span(q, dof), dt, bounds, Span(acceleration, dof)}, dof};
    } catch (const std::bad_alloc&) {
        copy_text("out of memory", error, error_size);
    } catch (const std::exception& caught) {
        copy_text(caught.what(), error, error_size);
    }
    return nullptr;
}

void mfik_tracker_destroy(mfik_tracker* tracker) noexcept {
    delete tracker;
}

mfik_status mfik_tracker_step(mfik_tracker* tracker, const double T_base_tool[7], const mfik_options* given,
                              mfik_result* result) noexcept {
    if (tracker == nullptr) return report(refusal("tracker: expected no NULL"), result);
    Pose pose;
    pose.fill(kNaN);  // refused, but by the tracker, whose joints have to go on
    Options options;
    const char* error = read_options(given, tracker->dof, options);
    if (T_base_tool == nullptr) error = "T_base_tool: expected no NULL";
    if (error == nullptr) std::copy_n(T_base_tool, pose.size(), pose.begin());
    const Result outcome = tracker->tracker.step(pose, options);
    return report(error == nullptr ? outcome : refusal(error), result);
}

const double* mfik_tracker_q(const mfik_tracker* tracker) noexcept {
    return tracker == nullptr ? nullptr : tracker->tracker.q().data();
}

const double* mfik_tracker_dq(const mfik_tracker* tracker) noexcept {
    return tracker == nullptr ? nullptr : tracker->tracker.dq().data();
}

mfik_status mfik_solve_all(const mfik_solver* solver, const double T_base_tool[7], const double* q_ref, size_t n,
                           double* q_out, double min_distance, mfik_workspace* workspace, const mfik_options* options,
                           mfik_result* result) noexcept {
    return checked(solver, T_base_tool, q_ref, q_out, workspace, options, result,
                   [&](const Pose& pose, Span<const double> q, const Options& checked_options) {
                       return solver->solver.solve_all(pose, q, {q_out, n * q.size()}, workspace->workspace,
                                                       min_distance, checked_options);
                   });
}

mfik_status mfik_solve_batch(const mfik_solver* solver, size_t n, const double* poses, const double* q_ref,
                             double* q_out, mfik_result* results, const mfik_options* given, int32_t threads) noexcept {
    Options options;
    const char* error = nullptr;
    if (solver == nullptr || poses == nullptr || q_ref == nullptr || q_out == nullptr) {
        error = "solver, poses, q_ref and q_out: expected no NULL";
    } else if (threads < 1) {
        error = "threads: expected at least 1";
    } else {
        error = read_options(given, dof_of(solver), options);
    }
    if (error != nullptr) {
        if (results != nullptr) std::fill_n(results, n, to_c(refusal(error)));
        return MFIK_INVALID_INPUT;
    }
    const std::size_t dof = dof_of(solver);
    try {
        std::vector<Result> rows(n);
        const Status status =
            solver->solver.solve_batch({poses, n * 7}, {q_ref, n * dof}, {q_out, n * dof}, rows, {}, options, threads);
        if (results != nullptr) std::transform(rows.begin(), rows.end(), results, to_c);
        return static_cast<mfik_status>(status);
    } catch (const std::exception&) {
        return MFIK_OUT_OF_MEMORY;  // std::bad_alloc, or a size that no vector has
    }
}

size_t mfik_explain(const mfik_solver* solver, const mfik_result* result, const double* q_out, char* text,
                    size_t text_size) noexcept {
    if (solver == nullptr || result == nullptr || q_out == nullptr) return 0;
    try {
        const Result it{static_cast<Status>(result->status),
                        result->pos_error_m,
                        result->rot_error_rad,
                        result->iterations,
                        result->attempts,
                        result->solutions,
                        result->time_us,
                        result->reason == nullptr ? "" : result->reason,
                        result->first,
                        result->second};
        const std::string explained = solver->solver.explain(it, {q_out, dof_of(solver)});
        copy_text(explained.c_str(), text, text_size);
        return explained.size();
    } catch (const std::bad_alloc&) {
        return 0;
    }
}
