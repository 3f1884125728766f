// Tracker: a path with bounds of velocity and acceleration.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "kernels/pursuit.hpp"
#include "solver/core.hpp"
#include "solver/problem.hpp"
#include "solver/verdict.hpp"

namespace mfik {
namespace {

/// Largest motion of a joint's goal in one sample [rad] or [units of length]: farther ones are found in several. With
/// 0.5, refinement ended at the limits or at the edge of the reach on 2 of 100 ways of 0.5 rad.
constexpr double kGoalStep = 0.1;
/// Share of a joint's acceleration, and of its velocity, for motion in the null space. The rest is the path's.
constexpr double kPostureShare = 0.25;

// Rounding of a command, in units of the last place of its largest value: a difference of two commands per sample time
// may be wrong by one of them. Braking is planned with some to spare, and uses them where rounding asks for it.
constexpr double kPlanned = 6.0, kHardest = 1.5, kOfVelocity = 2.0;
/// Smallest bound, in those units, with which that leaves something to move by.
constexpr double kLeastBound = 64.0;
constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

void refuse(bool valid, const std::string& argument, const std::string& expected) {
    if (!valid) throw Error(argument + ": expected " + expected);
}

std::string text(double value) {
    std::string digits(32, '\0');
    digits.resize(static_cast<std::size_t>(std::snprintf(digits.data(), digits.size(), "%.6g", value)));
    return digits;
}

}  // namespace

/// Everything in the robot's own units, but for what is handed out.
struct Tracker::Impl {
    explicit Impl(const Core& solver) : core(solver), scratch(solver.scratch_size(1)) {}

    const Core& core;
    Scratch scratch;
    double dt = 0.0;
    double velocity[kMaxJoints]{}, acceleration[kMaxJoints]{};
    double q[kMaxJoints]{}, dq[kMaxJoints]{};
    double goal[kMaxJoints]{};
    double posture_speed = 0.0;  // of the goal in the null space, [acceleration * dt]
    double q_out[kMaxJoints]{}, dq_out[kMaxJoints]{}, goal_out[kMaxJoints]{};

    [[nodiscard]] int dof() const { return core.chain().dof; }

    /// What rounding of a command of joint j does to a velocity.
    [[nodiscard]] double rounding(int j) const {
        const Chain& chain = core.chain();
        const double largest = chain.kind[j] == JointKind::kContinuous
                                   ? std::abs(q[j]) + dt * velocity[j]
                                   : std::max(std::abs(chain.lower[j]), std::abs(chain.upper[j]));
        return kEpsilon * largest / dt;
    }

    void hand_out() {
        const std::size_t n = static_cast<std::size_t>(dof());
        from_units(core.units, q, {q_out, n});
        from_units(core.units, dq, {dq_out, n});
        from_units(core.units, goal, {goal_out, n});
    }

    FollowOutcome move_goal(const Problem& problem);
    void pursue_goal(const double* goal_v);
};

/// Let the goal follow the target. Its motion in the null space, which has time, stays within shares of the bounds.
FollowOutcome Tracker::Impl::move_goal(const Problem& problem) {
    const Options& options = problem.options;
    StepBounds bounds;
    double fastest = kInfinity;  // [acceleration * dt]
    const double speed = std::max(posture_speed, kPostureShare);
    for (int j = 0; j < dof(); ++j) {
        bounds.low[j] = goal[j] - kGoalStep;
        bounds.high[j] = goal[j] + kGoalStep;
        bounds.posture[j] = speed * acceleration[j] * dt * dt;
        fastest = std::min(fastest, kPostureShare * velocity[j] / (acceleration[j] * dt));
    }
    double posture[kMaxJoints];
    const Constraints constraints = with_path_posture(problem.constraints, *problem.chain, options, goal, posture);
    const FollowOutcome outcome =
        core.kernels.follow(*problem.chain, constraints, bounds, problem.T_target, goal, options.max_iterations,
                            kInside * options.tol_pos_m, kInside * options.tol_rot_rad);
    posture_speed = std::min({speed * outcome.posture_moved + kPostureShare, fastest,
                              largest_stoppable(speed * outcome.posture_left, kPostureShare)});
    return outcome;
}

/// Move the joints towards the goal, which moves with goal_v [dof].
void Tracker::Impl::pursue_goal(const double* goal_v) {
    const Chain& chain = core.chain();
    VelocityBox boxes[kMaxJoints];
    double way[kMaxJoints], brake[kMaxJoints], v[kMaxJoints];
    for (int j = 0; j < chain.dof; ++j) {
        const bool free = chain.kind[j] == JointKind::kContinuous;
        const double change = (1.0 - 4.0 * kEpsilon) * acceleration[j] * dt, round = rounding(j);
        brake[j] = change - kPlanned * round;
        boxes[j] = velocity_box(dq[j], (1.0 - 4.0 * kEpsilon) * velocity[j] - kOfVelocity * round, brake[j],
                                change - kHardest * round, free ? -kInfinity : (chain.lower[j] - q[j]) / dt,
                                free ? kInfinity : (chain.upper[j] - q[j]) / dt);
        way[j] = (goal[j] - q[j]) / dt - goal_v[j];
    }
    pursue(chain.dof, way, goal_v, brake, boxes, v);
    for (int j = 0; j < chain.dof; ++j) {
        double next = q[j] + dt * v[j];
        if (chain.kind[j] != JointKind::kContinuous) next = std::clamp(next, chain.lower[j], chain.upper[j]);
        dq[j] = (next - q[j]) / dt;
        q[j] = next;
    }
}

Tracker::Tracker(const Solver& solver, Span<const double> q, double dt, Span<const double> velocity,
                 Span<const double> acceleration) {
    if (solver.impl_ == nullptr) throw Error("solver: expected one that was not moved from");
    const Core& core = *solver.impl_;
    const std::size_t n = static_cast<std::size_t>(solver.dof());
    const std::vector<std::string>& names = solver.joint_names();
    const bool own = velocity.empty();
    if (own) velocity = solver.velocity();
    const std::string dof = std::to_string(n);
    refuse(q.size() == n && is_finite(q), "q", dof + " finite values");
    refuse(std::isfinite(dt) && dt > 0.0, "dt", "a finite number above 0 [s], got " + text(dt));
    refuse(velocity.size() == n, "velocity", dof + " values");
    refuse(acceleration.size() == n, "acceleration", dof + " values");
    impl_ = std::make_unique<Impl>(core);
    impl_->dt = dt;
    const Units& units = core.units;
    to_units(units, q, impl_->q);
    to_units(units, q, impl_->goal);
    to_units(units, velocity, impl_->velocity);
    to_units(units, acceleration, impl_->acceleration);
    const Chain& chain = core.chain_in_metres();
    for (std::size_t j = 0; j < n; ++j) {
        const std::string index = "[" + std::to_string(j) + "]", of = " of joint '" + names[j] + "'";
        refuse(chain.kind[j] == JointKind::kContinuous || (q[j] >= chain.lower[j] && q[j] <= chain.upper[j]),
               "q" + index,
               text(chain.lower[j]) + " to " + text(chain.upper[j]) + ", the limits" + of + ", got " + text(q[j]) +
                   "; move it there first");
        const double least = kLeastBound * impl_->rounding(static_cast<int>(j)) * units.joint[j];
        refuse(!own || velocity[j] != kInfinity, "velocity" + index,
               "a bound" + of + ", for which the robot's description has none; give velocity");
        refuse(std::isfinite(velocity[j]) && velocity[j] >= least, "velocity" + index,
               "a finite number above 0" + of + ", at least " + text(least) +
                   " for commands that are told from rounding, got " + text(velocity[j]));
        refuse(std::isfinite(acceleration[j]) && acceleration[j] * dt >= least, "acceleration" + index,
               "a finite number above 0" + of + ", at least " + text(least / dt) +
                   " for commands that are told from rounding, got " + text(acceleration[j]));
    }
    impl_->hand_out();
}

Tracker::Tracker(Tracker&&) noexcept = default;
Tracker& Tracker::operator=(Tracker&&) noexcept = default;
Tracker::~Tracker() = default;

Span<const double> Tracker::q() const noexcept {
    if (impl_ == nullptr) return {};
    return {impl_->q_out, static_cast<std::size_t>(impl_->dof())};
}

Span<const double> Tracker::dq() const noexcept {
    if (impl_ == nullptr) return {};
    return {impl_->dq_out, static_cast<std::size_t>(impl_->dof())};
}

Result Tracker::step(const Pose& T_base_tool, const Options& options) noexcept {
    const Clock::time_point start = Clock::now();
    if (impl_ == nullptr) return invalid("tracker: it was moved from");
    Impl& state = *impl_;
    const int dof = state.dof();
    Problem problem;
    read_problem(state.core, T_base_tool, {state.goal_out, static_cast<std::size_t>(dof)}, options, &state.scratch,
                 problem);
    FollowOutcome followed{};
    double goal_v[kMaxJoints] = {}, last_goal[kMaxJoints];
    std::copy_n(state.goal, dof, last_goal);
    if (problem.error == nullptr && problem.keeps_clear)
        problem.error = "world: a tracker does not keep clear of obstacles; Solver::track does";
    if (problem.error == nullptr) {
        followed = state.move_goal(problem);
        double share = 1.0;  // a goal that is faster than the joints is expected to move on no faster than they can
        for (int j = 0; j < dof; ++j) {
            goal_v[j] = (state.goal[j] - last_goal[j]) / state.dt;
            if (std::abs(goal_v[j]) > state.velocity[j])
                share = std::min(share, state.velocity[j] / std::abs(goal_v[j]));
        }
        for (int j = 0; j < dof; ++j) goal_v[j] *= share;
    }
    state.pursue_goal(goal_v);
    state.hand_out();
    if (problem.error != nullptr) return invalid(problem.error);
    Result result = verdict(state.core, problem, state.q, false);
    if (result.status != Status::kSolved) {
        const Result at_goal = verdict(state.core, problem, state.goal, followed.last_share > kStalled * kStalled);
        const bool solved = at_goal.status == Status::kSolved;
        result.status = solved || followed.bounded ? Status::kJumpBound : at_goal.status;
        result.reason = solved || followed.bounded ? "the joints are on their way to the target" : at_goal.reason;
    }
    result.iterations = followed.iterations;
    result.attempts = 1;
    result.time_us = microseconds_since(start);
    return result;
}

}  // namespace mfik
