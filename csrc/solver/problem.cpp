#include "solver/problem.hpp"

#include <algorithm>
#include <cmath>

#include "solver/collision/obstacles.hpp"
#include "solver/core.hpp"

namespace mfik {
namespace {

constexpr char kToolRefused[] =
    "T_tip_tool: expected up to kMaxToolLength (1e9 m), and a unit quaternion in the last four";

bool is_tolerance(double value) {
    return std::isfinite(value) && value >= 0;
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

/// chain <- chain with the tool behind its last joint.
void add_tool(const Transform& T_tip_tool, Chain& chain) {
    double* last = chain.origin[num_frames(chain)];
    Transform T_joint_tool;
    double tip_tool[12];
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) {
            T_joint_tool.R[3 * i + j] = last[4 * i + j];
            tip_tool[4 * i + j] = T_tip_tool.R[3 * i + j];
        }
        T_joint_tool.p[i] = last[4 * i + 3];
        tip_tool[4 * i + 3] = T_tip_tool.p[i];
    }
    compose_origin(T_joint_tool, tip_tool);
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) last[4 * i + j] = T_joint_tool.R[3 * i + j];
        last[4 * i + 3] = T_joint_tool.p[i];
    }
}

/// Limits, slack and locked joints; false where a locked joint is outside its limits.
bool read_constraints(const Chain& chain, Span<const double> q_ref, const Options& options, Constraints& constraints) {
    set_limits(chain, constraints);
    if (options.slack != Options{}.slack) constraints.slack = options.slack.data();
    for (std::size_t j = 0; j < q_ref.size(); ++j) {
        if (!(options.locked >> j & 1u)) continue;
        if (!(q_ref[j] >= constraints.lower[j] && q_ref[j] <= constraints.upper[j])) return false;
        constraints.lower[j] = constraints.upper[j] = q_ref[j];
    }
    return true;
}

/// Weights of the joints' differences in own units.
void read_weights(const Core& core, const Options& options, double* weight) {
    const Span<const double> given = options.joint_weights;
    const double largest = given.empty() ? 1.0 : *std::max_element(given.begin(), given.end());
    for (int j = 0; j < core.chain().dof; ++j) {
        weight[j] = core.units.joint[j];
        if (!given.empty()) weight[j] *= given[static_cast<std::size_t>(j)] / largest;  // squares stay finite
    }
}

}  // namespace

bool is_finite(Span<const double> values) {
    return std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
}

const char* refusal(const Options& options, std::size_t dof) {
    if (!is_tolerance(options.tol_pos_m)) return "tol_pos_m: expected a finite number of at least 0";
    if (!is_tolerance(options.tol_rot_rad)) return "tol_rot_rad: expected a finite number of at least 0";
    if (options.max_iterations < 0 || options.max_iterations > kMaxIterations)
        return "max_iterations: expected 0 to kMaxIterations";
    if (options.max_attempts < 1 || options.max_attempts > kMaxAttempts)
        return "max_attempts: expected 1 to kMaxAttempts";
    if (options.seed < Seed::kReference || options.seed > Seed::kAzimuth) return "seed: expected a value of Seed";
    if (!(options.preference_gain >= 0.0 && options.preference_gain <= 1.0)) return "preference_gain: expected 0 to 1";
    if (!options.q_preferred.empty() && (options.q_preferred.size() != dof || !is_finite(options.q_preferred)))
        return "q_preferred: expected dof() finite values or none";
    if (!options.joint_weights.empty() &&
        (options.joint_weights.size() != dof || !is_finite(options.joint_weights) ||
         !std::all_of(options.joint_weights.begin(), options.joint_weights.end(), [](double w) { return w > 0.0; })))
        return "joint_weights: expected dof() finite values above 0 or none";
    for (const double slack : options.slack)
        if (!(slack >= 0.0)) return "slack: expected numbers of at least 0, infinity to free an axis";
    if (options.locked >> dof != 0) return "locked: expected bits of the joints 0 to dof() - 1 only";
    if (!std::all_of(options.T_tip_tool.begin(), options.T_tip_tool.begin() + 3,
                     [](double x) { return std::abs(x) <= kMaxToolLength; }))
        return kToolRefused;
    return nullptr;
}

bool read_pose(const double* pose, Transform& T) {
    const double norm = std::sqrt(pose[3] * pose[3] + pose[4] * pose[4] + pose[5] * pose[5] + pose[6] * pose[6]);
    double unit[kPoseSize];
    if (!(std::abs(norm - 1.0) <= kQuatNormTolerance) || !normalize_pose(pose, unit)) return false;
    T = from_pose(unit);
    return true;
}

bool read_tool(const Options& options, Transform& T_tip_tool) {
    return read_pose(options.T_tip_tool.data(), T_tip_tool);
}

bool read_target(const Core& core, const double* pose, const Transform& T_tip_tool, Transform& T_target,
                 Transform& T_tip) {
    double own[kPoseSize];
    pose_to_units(core.units, pose, own);
    if (!read_pose(own, T_target)) return false;
    T_tip = times_inverse(T_target, T_tip_tool);
    return true;
}

const Chain& chain_to_tool(const Core& core, const Options& options, const Transform& T_tip_tool, Scratch& scratch) {
    if (options.T_tip_tool == Options{}.T_tip_tool) return core.chain();
    scratch.tool_chain = core.chain();
    add_tool(T_tip_tool, scratch.tool_chain);
    return scratch.tool_chain;
}

bool is_too_far(const Core& core, const Options& options, const Transform& T_tip) {
    const double *origin = core.chain().origin[0], *p = T_tip.p;
    const double from_joint1[3] = {p[0] - origin[3], p[1] - origin[7], p[2] - origin[11]};
    return norm3(from_joint1) > core.table.reach + options.tol_pos_m && options.slack == Options{}.slack;
}

Options options_in_units(const Core& core, const Options& options, double* q_preferred) {
    Options own = options;
    own.tol_pos_m /= core.units.length;
    for (std::size_t i = 0; i < 3; ++i) own.slack[i] /= core.units.length;
    pose_to_units(core.units, options.T_tip_tool.data(), own.T_tip_tool.data());
    if (options.q_preferred.size() == static_cast<std::size_t>(core.chain().dof)) {
        to_units(core.units, options.q_preferred, q_preferred);
        own.q_preferred = {q_preferred, options.q_preferred.size()};
    }
    return own;
}

void read_problem(const Core& core, const Pose& T_base_tool, Span<const double> q_ref, const Options& given,
                  Scratch* scratch, Problem& problem) {
    const Chain& chain = core.chain();
    const std::size_t dof = static_cast<std::size_t>(chain.dof);
    const auto refuse = [&problem](const char* error) { problem.error = error; };
    if (scratch == nullptr || scratch->size != core.scratch_size(1))
        return refuse("workspace: expected one from this solver's make_workspace()");
    if (q_ref.size() != dof) return refuse("q_ref: expected dof() values");
    if (!is_finite(q_ref)) return refuse("q_ref: expected finite values");
    if (const char* error = refusal(given, dof)) return refuse(error);
    problem.options = options_in_units(core, given, problem.q_preferred);
    to_units(core.units, q_ref, problem.q_ref);
    read_weights(core, given, problem.weight);
    const Options& options = problem.options;
    Transform T_tip_tool;
    if (!read_tool(options, T_tip_tool)) return refuse(kToolRefused);
    if (!read_target(core, T_base_tool.data(), T_tip_tool, problem.T_target, problem.T_tip))
        return refuse("T_base_tool: expected finite values with a unit quaternion in the last four");
    if (!read_constraints(chain, {problem.q_ref, dof}, options, problem.constraints))
        return refuse("q_ref: expected locked joints within their limits");

    problem.chain = &chain_to_tool(core, options, T_tip_tool, *scratch);
    to_pose(problem.T_tip, problem.tip_pose);
    problem.too_far = is_too_far(core, options, problem.T_tip);
    if (const char* error = collision_refusal(core, options)) return refuse(error);
    problem.keeps_clear = asks_for_collision(options);
    if (!problem.keeps_clear) return;
    problem.obstacles = read_obstacles(core, options);
    if (options.slack == Options{}.slack) {
        const double slop = options.tol_pos_m + options.tol_rot_rad * core.table.reach;
        problem.tip_collides = tip_collides(core, problem.obstacles, problem.T_tip, slop);
    }
}

Constraints with_posture(const Constraints& constraints, const Options& options) {
    Constraints with = constraints;
    with.q_preferred = options.q_preferred.data();
    with.preference_gain = options.preference_gain;
    return with;
}

Constraints with_path_posture(const Constraints& constraints, const Chain& chain, const Options& options,
                              const double* q, double* posture) {
    if (!options.q_preferred.empty()) return with_posture(constraints, options);
    int spare = -6;  // joints beyond what the target asks for
    for (const double slack : options.slack) spare += std::isinf(slack);
    bool leads = false;
    for (int j = 0; j < chain.dof; ++j) {
        const double lower = constraints.lower[j], upper = constraints.upper[j];
        spare += lower < upper;
        const double room = kFromLimits * (upper - lower);
        posture[j] = chain.kind[j] == JointKind::kContinuous ? q[j] : std::clamp(q[j], lower + room, upper - room);
        leads = leads || posture[j] != q[j];
    }
    Constraints with = constraints;
    if (leads && spare > 0) {
        with.q_preferred = posture;
        with.preference_gain = options.preference_gain;
        with.preference_share = kLeadingShare;
    }
    return with;
}

}  // namespace mfik
