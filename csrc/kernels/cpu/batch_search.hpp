// Search for throughput: many poses, one in each lane. For solver_kernels.cpp alone.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cpu/stored_seeds.hpp"

namespace mfik::cpu {
namespace {

/// The first attempts of a row are given up where the squared error is above kHopelessError2 after a third of the
/// steps, above kBoundRate of that a step later, and so on: what converges well does so faster. Beside the rule of
/// single searches (half of the steps, the same bound), which later attempts follow, rows take 6 to 14 % fewer steps on
/// Panda, UR10 and TIAGo. With all attempts so, 4 of 20,000 poses near Panda's limits, where convergence is slow, were
/// not solved.
constexpr int kHastyAttempts = 8;
constexpr int kHastyTrial = 3, kTrial = 2;
constexpr double kBoundRate = 0.3;

/// Constraints of the rows in the lanes: as Constraints, but locked joints stay where each row has them.
struct LaneConstraints {
    Lanes lower[kMaxJoints], upper[kMaxJoints];
    std::uint32_t locked_joints;
    const double* slack;
    static constexpr const double* q_preferred = nullptr;
    static constexpr double preference_gain = 0.0;

    MFIK_INLINE bool locked(int j) const { return locked_joints >> j & 1u; }
};

struct LaneConstraintsWithoutSlack : LaneConstraints {
    static constexpr const double* slack = nullptr;
};

/// A row in a lane.
struct RowAttempt {
    int row;            // -1: the lane idles
    int age;            // steps of this attempt
    double bound2;      // squared error [m^2 + rad^2] above which it is given up, once it may be
    int seeds[kLanes];  // rows of the table, nearest first
    double best_error2;
};

/// The rows in the lanes. E: one of the constraints above.
template <class E>
struct BatchLanes {
    Iterate<Lanes> at;
    TransformOf<Lanes> T_target;
    E constraints;
    RowAttempt attempts[kLanes];
};

/// Begin an attempt of the row in a lane at q, within the limits.
template <class E>
MFIK_INLINE void begin_at(int n, int lane, const double* q, BatchLanes<E>& lanes) {
    lanes.attempts[lane].age = 0;
    lanes.attempts[lane].bound2 = kHopelessError2;
    for (int j = 0; j < n; ++j) {
        const double lower = lanes.constraints.lower[j][lane], upper = lanes.constraints.upper[j][lane];
        lanes.at.q[j][lane] = q[j] < lower ? lower : q[j] > upper ? upper : q[j];
    }
}

/// Distance of the tip at q_ref from its target, as nearest_rows measures it, of rows that begin there: one in each
/// lane.
MFIK_INLINE void score_references(const BatchTask& task, SearchRow* rows, int num_rows) {
    const double per_half_size = 1 / task.table->half_size;
    Lanes q[kMaxJoints];
    for (int first = 0; first < num_rows; first += kLanes) {
        TransformOf<Lanes> target;
        for (int lane = 0; lane < kLanes; ++lane) {
            const SearchRow& row = rows[first + lane < num_rows ? first + lane : num_rows - 1];
            for (int j = 0; j < task.chain->dof; ++j) q[j][lane] = row.q_ref[j];
            set_lane(row.T_tip, lane, target);
        }
        const TransformOf<Lanes> tip = forward(*task.chain, q);
        Lanes distance2 = {}, trace = {};  // trace of the relative rotation: 1 + 2 cos(angle)
        for (int i = 0; i < 3; ++i) distance2 += (tip.p[i] - target.p[i]) * (tip.p[i] - target.p[i]);
        for (int i = 0; i < 9; ++i) trace += tip.R[i] * target.R[i];
        const Lanes score = distance2 * (per_half_size * per_half_size) + 0.25 * (3.0 - trace);
        for (int lane = 0; lane < kLanes && first + lane < num_rows; ++lane)
            rows[first + lane].reference_score = score[lane];
    }
}

/// Put a row into a lane and begin its first attempt.
template <class E>
MFIK_INLINE void enter(const BatchTask& task, SearchRow& row, int index, int lane, BatchLanes<E>& lanes) {
    const Chain& chain = *task.chain;
    const SeedTable& table = *task.table;
    RowAttempt& attempt = lanes.attempts[lane];
    attempt.row = index;
    attempt.best_error2 = HUGE_VAL;
    row.solved = false;
    row.iterations = 0;
    row.attempts = 1;
    set_lane(row.T_target, lane, lanes.T_target);
    for (int j = 0; j < chain.dof; ++j) {
        const bool locked = lanes.constraints.locked(j), free = chain.kind[j] == JointKind::kContinuous;
        lanes.constraints.lower[j][lane] = locked ? row.q_ref[j] : free ? -HUGE_VAL : chain.lower[j];
        lanes.constraints.upper[j][lane] = locked ? row.q_ref[j] : free ? HUGE_VAL : chain.upper[j];
    }
    int rows[kLanes];
    Lanes scores;
    nearest_rows(table, row.feature, rows, scores);
    for (int k = 0; k < kLanes; ++k) {  // insertion sort
        int place = k;
        for (; place > 0 && scores[attempt.seeds[place - 1] % kLanes] > scores[k]; --place)
            attempt.seeds[place] = attempt.seeds[place - 1];
        attempt.seeds[place] = rows[k];
    }
    const double* seed = row.has_first_seed ? row.first_seed : row.q_ref;
    const double best = scores[attempt.seeds[0] % kLanes];
    double q[kMaxJoints];
    if (!row.has_first_seed && best < row.reference_score) {
        row_at(chain, table, attempt.seeds[0], row.feature.place, q);
        seed = q;
    }
    begin_at(chain.dof, lane, seed, lanes);
}

/// Keep what the row in a lane has found. Returns whether its attempt is over; `row.solved` whether it succeeded.
template <class E>
MFIK_INLINE bool is_over(const BatchTask& task, SearchRow& row, int lane, BatchLanes<E>& lanes) {
    RowAttempt& attempt = lanes.attempts[lane];
    const double tol_pos = kInside * task.tol_pos_m, tol_rot = kInside * task.tol_rot_rad;
    const double pos2 = lanes.at.pos2[lane], rot2 = lanes.at.rot2[lane], error2 = pos2 + rot2;
    row.solved = pos2 <= tol_pos * tol_pos && rot2 <= tol_rot * tol_rot;
    // Written so that an error that is no number ends the attempt.
    const bool hasty = row.attempts <= kHastyAttempts;
    const bool on_trial = (hasty ? kHastyTrial : kTrial) * attempt.age >= task.max_iterations;
    const bool hopeless = on_trial && !(error2 <= attempt.bound2);
    if (hasty && on_trial) attempt.bound2 *= kBoundRate;
    const bool over = attempt.age >= task.max_iterations || (hopeless && row.attempts < task.max_attempts);
    if (!row.solved && !over) return false;
    if (row.solved || error2 < attempt.best_error2 || attempt.best_error2 == HUGE_VAL) {
        attempt.best_error2 = error2;
        row.pos_error_m = square_root(pos2);
        row.rot_error_rad = square_root(rot2);
        for (int j = 0; j < task.chain->dof; ++j) row.q[j] = lanes.at.q[j][lane];
    }
    return true;
}

/// Begin the next attempt of a row: the stored configurations that are nearest, then all of them in their order.
template <class E>
MFIK_INLINE void try_next(const BatchTask& task, SearchRow& row, int lane, BatchLanes<E>& lanes) {
    const int next = row.attempts++;
    double q[kMaxJoints];
    row_at(*task.chain, *task.table,
           next < kLanes ? lanes.attempts[lane].seeds[next] : (next - kLanes) % SeedTable::kSize, row.feature.place, q);
    begin_at(task.chain->dof, lane, q, lanes);
}

template <class E>
MFIK_INLINE void search_rows_within(const BatchTask& task, const E& constraints, SearchRow* rows, int num_rows) {
    BatchLanes<E> lanes;
    lanes.constraints = constraints;
    score_references(task, rows, num_rows);
    int next = 0;  // row that enters next
    for (int lane = 0; lane < kLanes; ++lane) {
        if (next < num_rows) {
            enter(task, rows[next], next, lane, lanes);
            ++next;
        } else {  // idle, at joints that are finite
            enter(task, rows[num_rows - 1], num_rows - 1, lane, lanes);
            lanes.attempts[lane].row = -1;
        }
    }
    for (;;) {
        linearize(*task.to_tool, lanes.constraints, lanes.T_target, lanes.at);
        unsigned over = 0;
        bool goes_on = next < num_rows;
        for (int lane = 0; lane < kLanes; ++lane) {
            const int row = lanes.attempts[lane].row;
            if (row < 0) continue;
            if (is_over(task, rows[row], lane, lanes)) over |= 1u << lane;
            const bool done = rows[row].solved || (over >> lane & 1u && rows[row].attempts >= task.max_attempts);
            if (done) lanes.attempts[lane].row = -1;
            goes_on = goes_on || !done;
        }
        if (!goes_on) return;
        Lanes dq[kMaxJoints];
        dls_step(*task.to_tool, lanes.constraints, lanes.T_target, lanes.at, dq);
        move(lanes.constraints, task.chain->dof, dq, lanes.at.q);
        for (int lane = 0; lane < kLanes; ++lane) {
            const int row = lanes.attempts[lane].row;
            if (row >= 0 && !(over >> lane & 1u)) {
                ++lanes.attempts[lane].age;
                ++rows[row].iterations;
            } else if (row >= 0) {
                try_next(task, rows[row], lane, lanes);
            } else if (next < num_rows) {
                enter(task, rows[next], next, lane, lanes);
                ++next;
            }
        }
    }
}

void search_rows(const BatchTask& task, SearchRow* rows, int num_rows) noexcept {
    LaneConstraintsWithoutSlack constraints{};
    constraints.locked_joints = task.locked;
    if (task.slack == nullptr) return search_rows_within(task, constraints, rows, num_rows);
    LaneConstraints with_slack = constraints;
    with_slack.slack = task.slack;
    search_rows_within(task, with_slack, rows, num_rows);
}

}  // namespace
}  // namespace mfik::cpu
