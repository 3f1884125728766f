// Compiled once for each instruction set (kernels/cpu/dispatch.hpp).
#include "kernels/cpu/path_kernels.hpp"

#include <cmath>

#include "kernels/cpu/lanes.hpp"

namespace mfik::cpu {
namespace {

/// Bounds and null-space posture of the rows in the lanes.
struct RowConstraints {
    Lanes lower[kMaxJoints], upper[kMaxJoints];
    std::uint32_t locked_joints;
    const double* slack;
    const Lanes* q_preferred;
    Lanes preference_gain;

    MFIK_INLINE bool locked(int j) const { return locked_joints >> j & 1u; }
};

struct RowConstraintsWithoutSlack : RowConstraints {
    static constexpr const double* slack = nullptr;
};

/// The rows in the lanes. E: one of the constraints above.
template <class E>
struct RowLanes {
    Iterate<Lanes> at;
    TransformOf<Lanes> T_target;
    E constraints;
    Lanes posture[kMaxJoints];
    int row[kLanes];  // -1: the lane idles
    int age[kLanes];  // steps taken
};

/// Put a row into a lane.
template <class E>
MFIK_INLINE void enter(const PathRow& row, int index, int dof, int lane, RowLanes<E>& lanes) {
    lanes.row[lane] = index;
    lanes.age[lane] = 0;
    set_lane(row.T_target, lane, lanes.T_target);
    for (int j = 0; j < dof; ++j) {
        const double q = row.q[j];
        lanes.constraints.lower[j][lane] = row.lower[j];
        lanes.constraints.upper[j][lane] = row.upper[j];
        lanes.at.q[j][lane] = q < row.lower[j] ? row.lower[j] : q > row.upper[j] ? row.upper[j] : q;
        lanes.posture[j][lane] = row.posture == nullptr ? 0.0 : row.posture[j];
    }
}

template <class E>
MFIK_INLINE void refine_rows_within(const PathRefinement& how, const E& constraints, PathRow* rows, int num_rows) {
    const int dof = how.chain->dof;
    const double pos2 = how.tol_pos_m * how.tol_pos_m, rot2 = how.tol_rot_rad * how.tol_rot_rad;
    RowLanes<E> lanes;
    lanes.constraints = constraints;
    lanes.constraints.q_preferred = lanes.posture;
    int next = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
        enter(rows[next < num_rows ? next : num_rows - 1], next < num_rows ? next : -1, dof, lane, lanes);
        if (next < num_rows) ++next;
    }
    for (;;) {
        linearize(*how.chain, lanes.constraints, lanes.T_target, lanes.at);
        bool busy = false;
        unsigned over = 0;
        for (int lane = 0; lane < kLanes; ++lane) {
            lanes.constraints.preference_gain[lane] = 0.0;
            if (lanes.row[lane] < 0) continue;
            PathRow& row = rows[lanes.row[lane]];
            const int age = lanes.age[lane];
            const bool leans = row.posture != nullptr && age < how.posture_steps;
            const double error2 = lanes.at.pos2[lane] + lanes.at.rot2[lane];
            row.converged = lanes.at.pos2[lane] <= pos2 && lanes.at.rot2[lane] <= rot2;
            // Written so that an error that is no number ends the row.
            const bool hopeless = 2 * age >= how.max_iterations && !(error2 <= kHopelessError2);
            if ((row.converged && !leans) || age >= how.max_iterations || hopeless) {
                for (int j = 0; j < dof; ++j) row.q[j] = lanes.at.q[j][lane];
                lanes.row[lane] = -1;
                over |= 1u << lane;
            } else {
                busy = true;
                if (leans) lanes.constraints.preference_gain[lane] = row.gain;
            }
        }
        if (!busy && next >= num_rows) return;
        Lanes dq[kMaxJoints];
        dls_step(*how.chain, lanes.constraints, lanes.T_target, lanes.at, dq);
        move(lanes.constraints, dof, dq, lanes.at.q);
        for (int lane = 0; lane < kLanes; ++lane) {
            ++lanes.age[lane];
            if (over >> lane & 1u && next < num_rows) {
                enter(rows[next], next, dof, lane, lanes);
                ++next;
            }
        }
    }
}

void refine_rows(const PathRefinement& how, PathRow* rows, int num_rows) noexcept {
    if (num_rows < 1) return;
    RowConstraintsWithoutSlack constraints{};
    constraints.locked_joints = how.locked;
    if (how.slack == nullptr) return refine_rows_within(how, constraints, rows, num_rows);
    RowConstraints with_slack = constraints;
    with_slack.slack = how.slack;
    refine_rows_within(how, with_slack, rows, num_rows);
}

/// A row of the Jacobian counts as dependent on others where less than this is left of it.
constexpr double kDependent = 1e-4;

/// Take what lies along unit vectors [count][dof] away from v.
MFIK_INLINE void remove_along(const double (*unit)[kMaxJoints], int count, int dof, double* v) {
    for (int k = 0; k < count; ++k) {
        double along = 0.0;
        for (int j = 0; j < dof; ++j) along += unit[k][j] * v[j];
        for (int j = 0; j < dof; ++j) v[j] -= along * unit[k][j];
    }
}

MFIK_INLINE double squared_length(const double* v, int dof) {
    double sum = 0.0;
    for (int j = 0; j < dof; ++j) sum += v[j] * v[j];
    return sum;
}

/// Move the longest of the vectors [count, size) to place `count` as a unit vector, and take it away from those behind.
/// False where all are shorter than `least`.
MFIK_INLINE bool take_longest(double (*v)[kMaxJoints], int count, int size, int dof, double least) {
    int longest = count;
    double length2 = 0.0;
    for (int k = count; k < size; ++k) {
        const double candidate = squared_length(v[k], dof);
        if (candidate > length2) length2 = candidate, longest = k;
    }
    if (!(length2 > least * least)) return false;
    const double scale = 1.0 / square_root(length2);
    for (int j = 0; j < dof; ++j) {
        const double x = v[longest][j];
        v[longest][j] = v[count][j];
        v[count][j] = scale * x;
    }
    for (int k = count + 1; k < size; ++k) remove_along(v + count, 1, dof, v[k]);
    return true;
}

/// Gram and Schmidt, the longest vector first: an orthonormal basis of the Jacobian's rows, then of what is left of the
/// joints' own directions.
int null_space(const Chain& chain, const Constraints& constraints, const Transform& T_target, const double* q,
               double (*basis)[kMaxJoints]) noexcept {
    const int dof = chain.dof;
    Iterate<double> at;
    double J[kMaxJoints][6], unused[kMaxJoints], A[6][6] = {}, rest[6];
    for (int j = 0; j < dof; ++j) at.q[j] = q[j];
    linearize(chain, constraints, T_target, at);
    assemble(chain, constraints, T_target, at, J, unused, A, rest);
    double rows[6][kMaxJoints];
    int num_rows = 0, free = 0;
    for (int a = 0; a < 6; ++a) {
        if (constraints.slack != nullptr && constraints.slack[a] > 0.0) continue;
        for (int j = 0; j < dof; ++j) rows[num_rows][j] = constraints.locked(j) ? 0.0 : J[j][a];
        ++num_rows;
    }
    int rank = 0;
    while (rank < num_rows && take_longest(rows, rank, num_rows, dof, kDependent)) ++rank;
    double left[kMaxJoints][kMaxJoints] = {};
    for (int j = 0; j < dof; ++j) {
        if (constraints.locked(j)) continue;
        left[free][j] = 1.0;
        remove_along(rows, rank, dof, left[free]);
        ++free;
    }
    int size = 0;
    while (size < free - rank && take_longest(left, size, free, dof, kDependent)) ++size;
    for (int k = 0; k < size; ++k)
        for (int j = 0; j < dof; ++j) basis[k][j] = left[k][j];
    return size;
}

int best_before(const double* from, const double* cost, int num_from, const double* b, const double* step,
                const double* weight, int dof, double& best) noexcept {
    int found = -1;
    best = HUGE_VAL;
    for (int i = 0; i < num_from; ++i, from += dof) {
        double sum = cost[i];
        if (!(sum < best)) continue;
        bool within = true;
        for (int j = 0; j < dof && within; ++j) {
            const double change = std::fabs(b[j] - from[j]);
            within = change <= step[j];
            sum += weight[j] * change;
        }
        if (!within || !(sum < best)) continue;
        best = sum;
        found = i;
    }
    return found;
}

}  // namespace

template <>
const PathKernels& compiled_kernels<PathKernels, InstructionSet::MFIK_ISA>() noexcept {
    static constexpr PathKernels kTable{kIsa, refine_rows, null_space, best_before};
    return kTable;
}

}  // namespace mfik::cpu
