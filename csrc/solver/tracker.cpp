// Tracker: a path with bounds of velocity and acceleration.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "kernels/pursuit.hpp"
#include "solver/collision/damper.hpp"
#include "solver/collision/obstacles.hpp"
#include "solver/core.hpp"
#include "solver/problem.hpp"
#include "solver/verdict.hpp"

namespace mfik {
namespace {

/// Largest motion of a joint's goal in one sample [rad] or [units of length]: farther ones are found in several. With
/// 0.5, refinement ended at the limits or at the edge of the reach on 2 of 100 ways of 0.5 rad.
constexpr double kGoalStep = 0.1;
/// Share of a joint's acceleration, and of its velocity, for motion in the null space to a posture that is asked for.
/// The rest is the path's.
constexpr double kPostureShare = 0.25;

/// Parts of a change of velocity that are tried where the whole would not let the joints come to rest clear of
/// obstacles: 1, 1/2, 1/4 and 1/8.
constexpr int kParts = 4;

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

/// Velocities that the next sample may have.
struct NextVelocity {
    double brake[kMaxJoints];  // change of velocity a sample
    VelocityBox boxes[kMaxJoints];

    [[nodiscard]] bool holds(int dof, const double* v) const {
        for (int j = 0; j < dof; ++j)
            if (!(v[j] >= boxes[j].low && v[j] <= boxes[j].high)) return false;
        return true;
    }
    /// The largest velocity, in brakes: after so many samples all joints may be at rest, slowed down together.
    [[nodiscard]] double in_brakes(int dof, const double* v) const {
        double most = 0.0;
        for (int j = 0; j < dof; ++j) most = std::max(most, std::abs(v[j]) / brake[j]);
        return most;
    }
};

/// Everything in the robot's own units, but for what is handed out.
struct Tracker::Impl {
    explicit Impl(const Core& solver) : core(solver), scratch(solver.scratch_size(1)) {}

    const Core& core;
    Scratch scratch;
    double dt = 0.0;
    double velocity[kMaxJoints]{}, acceleration[kMaxJoints]{};
    double q[kMaxJoints]{}, dq[kMaxJoints]{};
    double goal[kMaxJoints]{};
    GoalMotion goal_motion[kMaxJoints];
    double posture_speed = 0.0;  // of the goal in the null space, [acceleration * dt]
    bool keeps_clear = false;    // of obstacles, in the last sample
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

    FollowOutcome move_goal(const Problem& problem, Damping& damping);
    [[nodiscard]] NextVelocity next_velocity() const;
    void pursue_goal(const double* last_goal, const NextVelocity& next, double* v);
    void brake(const NextVelocity& next, double* v) const;
    [[nodiscard]] double end_of(const NextVelocity& next, const double* v, double* end) const;
    [[nodiscard]] bool give_way(const Obstacles& obstacles, const NextVelocity& next, double* v);
    void advance(const double* v);
};

/// Let the goal follow the target as `track` would. Motion in the null space to a posture that is asked for, which has
/// time, stays within shares of the bounds; motion away from the limits is as fast as the target leads it, and part of
/// the path. Beside obstacles it moves as `track` would, and no faster than the joints may, so that these go where it
/// went.
FollowOutcome Tracker::Impl::move_goal(const Problem& problem, Damping& damping) {
    const Options& options = problem.options;
    StepBounds bounds;
    double fastest = kInfinity;  // [acceleration * dt]
    const double speed = std::max(posture_speed, kPostureShare);
    for (int j = 0; j < dof(); ++j) {
        const double most = problem.keeps_clear ? std::min(kGoalStep, velocity[j] * dt) : kGoalStep;
        bounds.low[j] = goal[j] - most;
        bounds.high[j] = goal[j] + most;
        bounds.posture[j] = options.q_preferred.empty() ? kInfinity : speed * acceleration[j] * dt * dt;
        fastest = std::min(fastest, kPostureShare * velocity[j] / (acceleration[j] * dt));
    }
    double posture[kMaxJoints], last_goal[kMaxJoints];
    std::copy_n(goal, dof(), last_goal);
    const Constraints constraints = with_path_posture(problem.constraints, *problem.chain, options, goal, posture);
    const FollowOutcome outcome =
        core.kernels.follow(*problem.chain, constraints, bounds, problem.T_target, goal, options.max_iterations,
                            kInside * options.tol_pos_m, kInside * options.tol_rot_rad);
    posture_speed = std::min({speed * outcome.posture_moved + kPostureShare, fastest,
                              largest_stoppable(speed * outcome.posture_left, kPostureShare)});
    if (problem.keeps_clear)
        damping = damp(core, problem.obstacles, problem.constraints, bounds, last_goal, goal, kRoom);
    return outcome;
}

NextVelocity Tracker::Impl::next_velocity() const {
    const Chain& chain = core.chain();
    NextVelocity next;
    for (int j = 0; j < chain.dof; ++j) {
        const bool free = chain.kind[j] == JointKind::kContinuous;
        const double change = (1.0 - 4.0 * kEpsilon) * acceleration[j] * dt, round = rounding(j);
        next.brake[j] = change - kPlanned * round;
        next.boxes[j] = velocity_box(dq[j], (1.0 - 4.0 * kEpsilon) * velocity[j] - kOfVelocity * round, next.brake[j],
                                     change - kHardest * round, free ? -kInfinity : (chain.lower[j] - q[j]) / dt,
                                     free ? kInfinity : (chain.upper[j] - q[j]) / dt);
    }
    return next;
}

/// Velocities v [dof] towards the goal, which has moved on from last_goal [dof].
void Tracker::Impl::pursue_goal(const double* last_goal, const NextVelocity& next, double* v) {
    double gap[kMaxJoints];
    for (int j = 0; j < dof(); ++j) {
        goal_motion[j].observe((goal[j] - last_goal[j]) / dt, next.brake[j]);
        gap[j] = (goal[j] - q[j]) / dt;
    }
    pursue(dof(), gap, goal_motion, velocity, next.brake, next.boxes, v);
}

/// Velocities v [dof] that slow all joints down together, in a straight line.
void Tracker::Impl::brake(const NextVelocity& next, double* v) const {
    const double samples = next.in_brakes(dof(), dq), share = samples > 1.0 ? 1.0 - 1.0 / samples : 0.0;
    for (int j = 0; j < dof(); ++j) v[j] = std::clamp(share * dq[j], next.boxes[j].low, next.boxes[j].high);
}

/// Where joints that move with v [dof] in the next sample, and then brake together, come to rest; returns how many
/// times as far as in that sample they go.
double Tracker::Impl::end_of(const NextVelocity& next, const double* v, double* end) const {
    const double brakes = next.in_brakes(dof(), v);
    const double samples = brakes > 0.0 ? 1.0 + stopping_way(brakes, 1.0) / brakes : 1.0;
    for (int j = 0; j < dof(); ++j) end[j] = q[j] + dt * samples * v[j];
    return samples;
}

/// Take v [dof] only as far as the joints could come to rest in the end, in a straight line that is clear. So they can
/// after every sample, as what they do if nothing else is clear is to go on braking. Where something is taken back the
/// goal begins anew where they would stop, and true is returned.
///
/// (Planning with a way to stop at the end of each command: Petti and Fraichard 2005, "Safe motion planning in dynamic
/// environments".)
bool Tracker::Impl::give_way(const Obstacles& obstacles, const NextVelocity& next, double* v) {
    const Chain& chain = core.chain();
    double stopping[kMaxJoints], tried[kMaxJoints], end[kMaxJoints];
    brake(next, stopping);
    const auto take = [&](double share_of_velocity, double share_of_way) {
        for (int j = 0; j < chain.dof; ++j) {
            v[j] = share_of_velocity * tried[j];
            goal[j] = q[j] + share_of_way * (end[j] - q[j]);
            if (chain.kind[j] != JointKind::kContinuous) goal[j] = std::clamp(goal[j], chain.lower[j], chain.upper[j]);
        }
        return true;
    };
    std::copy_n(v, chain.dof, tried);
    for (int i = 0; i < kParts; ++i) {
        const double samples = end_of(next, tried, end);
        const ClearWay way = clear_way(core, obstacles, q, end);
        if (i == 0 && way.whichever) return false;
        double share = way.share;
        for (int j = 0; j < chain.dof && !way.whichever; ++j) {
            if (chain.kind[j] == JointKind::kContinuous) continue;
            const double room = (end[j] > q[j] ? chain.upper[j] : chain.lower[j]) - q[j];
            if (std::abs(end[j] - q[j]) > std::abs(room)) share = std::min(share, room / (end[j] - q[j]));
        }
        if (share >= 1.0) return i > 0 ? take(1.0, 1.0) : false;
        const double brakes = next.in_brakes(chain.dof, tried);
        const double slower = largest_stoppable(share * samples * brakes, 1.0) / brakes;
        for (int j = 0; j < chain.dof; ++j) v[j] = slower * tried[j];
        if (next.holds(chain.dof, v)) return take(slower, share);
        for (int j = 0; j < chain.dof; ++j) tried[j] = stopping[j] + 0.5 * (tried[j] - stopping[j]);
    }
    std::copy_n(stopping, chain.dof, tried);
    (void)end_of(next, tried, end);
    return take(1.0, 1.0);
}

void Tracker::Impl::advance(const double* v) {
    const Chain& chain = core.chain();
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
    const NextVelocity next = state.next_velocity();
    double v[kMaxJoints], last_goal[kMaxJoints];
    std::copy_n(state.goal, dof, last_goal);
    FollowOutcome followed{};
    Damping damping = Damping::kNone;
    if (problem.error == nullptr) {
        followed = state.move_goal(problem, damping);
        state.keeps_clear = problem.keeps_clear;
    }
    if (problem.error != nullptr && state.keeps_clear) {
        state.brake(next, v);
    } else {
        state.pursue_goal(last_goal, next, v);
    }
    if (problem.keeps_clear && problem.error == nullptr && state.give_way(problem.obstacles, next, v))
        damping = std::max(damping, Damping::kSlowed);
    state.advance(v);
    state.hand_out();
    if (problem.error != nullptr) return invalid(problem.error);
    Result result = verdict(state.core, problem, state.q, false);
    if (result.status != Status::kSolved && damping != Damping::kNone) {
        result.status = Status::kInCollision;
        result.reason = reason_of(damping);
        name_nearest(state.core, problem.obstacles, options, state.q, result);
    } else if (result.status != Status::kSolved) {
        const Result at_goal = verdict(state.core, problem, state.goal, followed.last_share > kStalled * kStalled);
        const bool on_their_way = at_goal.status == Status::kSolved || followed.bounded;
        result.status = on_their_way ? Status::kJumpBound : at_goal.status;
        result.reason = on_their_way ? "the joints are on their way to the target" : at_goal.reason;
        result.first = on_their_way ? nullptr : at_goal.first;
        result.second = on_their_way ? nullptr : at_goal.second;
    }
    result.iterations = followed.iterations;
    result.attempts = 1;
    result.time_us = microseconds_since(start);
    return result;
}

}  // namespace mfik
