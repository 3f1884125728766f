// One sample of a path: joints near the last ones that bring the tool to its target, or in its direction where a bound
// on their motion does not let them arrive.
#pragma once

#include <cmath>

#include "kernels/newton.hpp"

namespace mfik {

/// [m] and [rad]: refined to a looser tolerance, a slow path would be taken in stops and jumps.
constexpr double kTrackTolerance = 1e-9;
/// A careful step is taken where the squared error is curved along it by at most this times what its normal equations
/// foresee, damping included; else the damping is raised. Where an error is left in the end, at the edge of the reach,
/// at limits and at singularities, undamped steps overshoot and lead back and forth across the least error. Above 2
/// they do; 1.1 to 1.3 come to rest alike, 2 reverses twice as often at the edge of the reach.
constexpr double kCurvatureMargin = 1.2;
constexpr double kDampingRaise = 16.0;
/// Share of the squared error below which, if the normal equations foresee that a step takes no more than that off it,
/// the step is Newton's: there they tell little of the least error, about which they would hunt.
constexpr double kLargeResidual = 0.1;
/// Share of the room within its bounds that motion in the null space takes, which leaves the rest to the steps back to
/// the target, and of that motion where those do not arrive.
constexpr double kPostureRoom = 0.8, kPostureRetreat = 0.25;

/// How far the joints may move in one sample: each within [low, high], wherever its limits are, and in the null space
/// by at most `posture` of that.
struct StepBounds {
    double low[kMaxJoints], high[kMaxJoints], posture[kMaxJoints];
};

struct FollowOutcome {
    bool converged;
    bool bounded;  // the bounds shortened the last step
    int iterations;
    double last_share;  // what the last kLastSteps steps, or as many as there were, left of the squared error
    // Motion in the null space, and what is left of it without preference_gain: the largest in shares of the bounds.
    double posture_moved, posture_left;
};

/// How fast half the squared error beyond the slack falls with a motion dq [dof] at `at`: e^T J dq.
template <class C, class E>
MFIK_INLINE double descent(const C& chain, const E& constraints, const Transform& T_target, const Iterate<double>& at,
                           const double* dq) {
    double error[6];
    for (int a = 0; a < 6; ++a) error[a] = at.error[a];
    if (constraints.slack != nullptr) beyond_slack(constraints.slack, at.error, error);
    double sum = 0.0;
    for (int j = 0; j < chain.dof; ++j) {
        double column[6], gradient = 0.0;
        joint_column(chain, j, at.axis, at.point, at.tip, column);
        if (constraints.slack != nullptr) set_column(constraints.slack, T_target, at.rows, column);
        for (int a = 0; a < 6; ++a) gradient += column[a] * error[a];
        sum += gradient * dq[j];
    }
    return sum;
}

/// Largest share of a motion dq from q that keeps every joint within its step's bounds.
MFIK_INLINE double share_within(const StepBounds& bounds, int n, const double* q, const double* dq) {
    double share = 1.0;
    for (int j = 0; j < n; ++j) {
        const double room = dq[j] > 0.0 ? bounds.high[j] - q[j] : bounds.low[j] - q[j];
        if (std::fabs(dq[j]) > std::fabs(room) && room / dq[j] < share) share = room / dq[j];
    }
    return share;
}

/// The joints after a share of a motion, within limits and bounds whatever the rounding.
template <class E>
MFIK_INLINE void move_within(const E& constraints, const StepBounds& bounds, int n, double share, const double* dq,
                             const double* from, double* q) {
    for (int j = 0; j < n; ++j) {
        const double next = from[j] + share * dq[j];
        const double low = constraints.lower[j] > bounds.low[j] ? constraints.lower[j] : bounds.low[j];
        const double high = constraints.upper[j] < bounds.high[j] ? constraints.upper[j] : bounds.high[j];
        q[j] = next < low ? low : next > high ? high : next;
    }
}

/// Refine `start` as far as the bounds allow: false where a step would meet one, or the steps run out. `at` then is
/// undefined, else the solution.
template <class C, class E, class Solved>
MFIK_INLINE bool arrive(const C& chain, const E& constraints, const StepBounds& bounds, const Transform& T_target,
                        const Iterate<double>& start, int max_iterations, const Solved& solved, Iterate<double>& at,
                        int& iterations) {
    const Iterate<double>* from = &start;
    for (int step = 0; step < max_iterations; ++step) {
        double dq[kMaxJoints];
        dls_step(chain, constraints, T_target, *from, dq);
        if (share_within(bounds, chain.dof, from->q, dq) < 1.0) return false;
        move_within(constraints, bounds, chain.dof, 1.0, dq, from->q, at.q);
        linearize(chain, constraints, T_target, at);
        from = &at;
        ++iterations;
        if (solved(at)) return true;
    }
    return false;
}

/// Move the joints of iterates[0], linearized, towards the target in up to `max_iterations` steps, until it is solved
/// or a step meets a bound; `now` says in which iterate they end, linearized. Where plain refinement does not arrive,
/// careful steps lead towards the target: one that meets a bound is shortened as a whole, so that the tool keeps its
/// direction, and is the last. An error that is accepted already is no reason for them: at limits and singularities
/// they would creep.
template <class C, class E, class Accepted, class Solved>
MFIK_INLINE FollowOutcome approach_target(const C& chain, const E& constraints, const StepBounds& bounds,
                                          const Transform& T_target, Iterate<double> (&iterates)[2], int& now,
                                          int max_iterations, const Accepted& accepted, const Solved& solved) {
    const int n = chain.dof;
    now = 0;
    FollowOutcome outcome{solved(iterates[0]), false, 0, 1.0, 0.0, 0.0};
    if (outcome.converged) return outcome;
    outcome.converged = arrive(chain, constraints, bounds, T_target, iterates[0], (2 * max_iterations + 2) / 3, solved,
                               iterates[1], outcome.iterations);
    if (outcome.converged) {
        now = 1;
        return outcome;
    }
    if (accepted(iterates[0])) return outcome;
    double past[kLastSteps] = {};  // squared errors before the last steps
    double gain = kDampingGain;
    int steps = 0;
    while (!outcome.converged && !outcome.bounded && outcome.iterations < max_iterations) {
        const Iterate<double>& at = iterates[now];
        Iterate<double>& next = iterates[1 - now];
        past[steps++ % kLastSteps] = at.pos2 + at.rot2;
        ++outcome.iterations;
        double dq[kMaxJoints];
        dls_step(chain, constraints, T_target, at, dq, gain);
        if (descent(chain, constraints, T_target, at, dq) < kLargeResidual * (at.pos2 + at.rot2))
            newton_step(chain, constraints, T_target, at, dq, gain);
        const double share = share_within(bounds, n, at.q, dq);
        move_within(constraints, bounds, n, share, dq, at.q, next.q);
        double longest = 0.0;
        for (int j = 0; j < n; ++j) {
            dq[j] = next.q[j] - at.q[j];
            longest = std::fmax(longest, std::fabs(dq[j]));
        }
        if (share == 1.0 && longest <= kTrackTolerance) return outcome;  // at the least error
        linearize(chain, constraints, T_target, next);
        outcome.converged = solved(next);
        if (!outcome.converged) {
            const double falls = descent(chain, constraints, T_target, at, dq);
            if (!(falls > 0.0)) return outcome;
            const double curvature = falls - descent(chain, constraints, T_target, next, dq);
            if (curvature > kCurvatureMargin * share * falls) {
                gain *= kDampingRaise;
                continue;
            }
        }
        now = 1 - now;
        outcome.bounded = share < 1.0;
    }
    const Iterate<double>& end = iterates[now];
    if (steps > 0) outcome.last_share = (end.pos2 + end.rot2) / past[steps < kLastSteps ? 0 : steps % kLastSteps];
    return outcome;
}

/// Move q [dof] from where it solves the target, `start`, towards the posture of `constraints` in the null space, as
/// far as the bounds leave room, no joint by more than `most`, and only as far as the next motion goes on in that
/// direction: where it would lead back, the joints stop at the nearest posture instead of swinging about it. Takes
/// steps until those of `outcome` are `max_iterations`.
template <class C, class E, class Solved>
MFIK_INLINE void approach_posture(const C& chain, const E& constraints, const E& without_posture,
                                  const StepBounds& bounds, double most, const Transform& T_target,
                                  const Iterate<double>& start, double* q, int max_iterations, const Solved& solved,
                                  FollowOutcome& outcome) {
    const int n = chain.dof;
    Iterate<double> at;
    double dq[kMaxJoints], onwards[kMaxJoints];
    dls_step(chain, constraints, T_target, start, dq);
    double share = kPostureRoom * share_within(bounds, n, start.q, dq);
    for (int j = 0; j < n; ++j) {
        const double bound = std::fmin(bounds.posture[j], most);
        if (share * std::fabs(dq[j]) > bound) share = bound / std::fabs(dq[j]);
    }
    while (outcome.iterations < max_iterations) {
        move_within(constraints, bounds, n, share, dq, start.q, at.q);
        linearize(chain, constraints, T_target, at);
        ++outcome.iterations;
        if (!solved(at) && !arrive(chain, without_posture, bounds, T_target, at, max_iterations - outcome.iterations,
                                   solved, at, outcome.iterations)) {
            share *= kPostureRetreat;
            continue;
        }
        dls_step(chain, constraints, T_target, at, onwards);
        double before = 0.0, after = 0.0;
        for (int j = 0; j < n; ++j) before += dq[j] * dq[j], after += dq[j] * onwards[j];
        if (after >= 0.0) {
            for (int j = 0; j < n; ++j) {
                const double moved = std::fabs(at.q[j] - q[j]) / bounds.posture[j];
                const double left = std::fabs(dq[j]) / (constraints.preference_gain * bounds.posture[j]);
                outcome.posture_moved = std::fmax(outcome.posture_moved, moved);
                outcome.posture_left = std::fmax(outcome.posture_left, left);
                q[j] = at.q[j];
            }
            break;
        }
        share *= before / (before - after);  // where the motion onwards vanishes, were it linear in between
    }
}

/// Follow a path: approach the target; where it is reached, the null-space posture. Errors within the tolerances are
/// accepted, but refined to kTrackTolerance where that is possible.
template <class C, class E>
MFIK_INLINE FollowOutcome follow(const C& chain, const E& constraints, const StepBounds& bounds,
                                 const Transform& T_target, double* q, int max_iterations, double tol_pos_m,
                                 double tol_rot_rad) {
    const auto within = [](double tol_pos, double tol_rot) {
        return [=](const Iterate<double>& at) { return at.pos2 <= tol_pos * tol_pos && at.rot2 <= tol_rot * tol_rot; };
    };
    const auto accepted = within(tol_pos_m, tol_rot_rad);
    const auto solved = within(std::fmin(tol_pos_m, kTrackTolerance), std::fmin(tol_rot_rad, kTrackTolerance));
    E without_posture = constraints;
    without_posture.q_preferred = nullptr;
    Iterate<double> iterates[2];
    for (int j = 0; j < chain.dof; ++j) iterates[0].q[j] = q[j];
    int now = 0;
    linearize(chain, without_posture, T_target, iterates[0]);
    const double error = std::sqrt(iterates[0].pos2 + iterates[0].rot2);
    FollowOutcome outcome =
        approach_target(chain, without_posture, bounds, T_target, iterates, now, max_iterations, accepted, solved);
    for (int j = 0; j < chain.dof; ++j) q[j] = iterates[now].q[j];
    double most = HUGE_VAL;
    if (!std::isinf(constraints.preference_share))
        most = outcome.iterations > 0 ? constraints.preference_share * error : 0.0;
    if (constraints.q_preferred != nullptr && outcome.converged && most > 0.0) {
        approach_posture(chain, constraints, without_posture, bounds, most, T_target, iterates[now], q, max_iterations,
                         solved, outcome);
    }
    return outcome;
}

}  // namespace mfik
