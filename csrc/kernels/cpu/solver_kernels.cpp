// Compiled several times, with MFIK_ISA naming the instruction set. Everything that it calls is inlined: a function
// that is shared with another compilation would run instructions that the machine may lack.
#include "kernels/cpu/solver_kernels.hpp"

#include <cstring>
#include <limits>

#ifndef MFIK_ISA
#error "MFIK_ISA: expected the name of the instruction set, see csrc/CMakeLists.txt"
#endif

namespace mfik::cpu::MFIK_ISA {
namespace {

constexpr int kReferenceGrace = 2;  // steps that a nearly solved attempt from q_ref may take after another has solved
constexpr double kNearlySolved = 1e-2;  // squared error [m^2 + rad^2] below which an attempt converges in few steps
constexpr double kHopeless = 4e-2;      // squared error above which half the steps of an attempt were in vain

MFIK_HOST_DEVICE inline Lanes load(const double* from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof(lanes));
    return lanes;
}

MFIK_HOST_DEVICE inline void set_target(const Transform& T, int lane, TransformOf<Lanes>& T_target) {
    for (int i = 0; i < 9; ++i) T_target.R[i][lane] = T.R[i];
    for (int i = 0; i < 3; ++i) T_target.p[i][lane] = T.p[i];
}

/// The row of the table that is nearest to the target, among those of each lane.
MFIK_HOST_DEVICE inline void nearest_rows(const SeedTable& table, const SeedFeature& target, int* rows) {
    Lanes best = broadcast(HUGE_VAL), best_chunk = {};
    for (int chunk = 0; chunk < SeedTable::kSize / kLanes; ++chunk) {
        const int begin = chunk * kLanes;
        Lanes distance = {}, along = {};
        for (int k = 0; k < 3; ++k) {
            const Lanes d = load(table.feature[k] + begin) - target.value[k];
            distance += d * d;
        }
        for (int k = 3; k < 7; ++k) along += load(table.feature[k] + begin) * target.value[k];
        // Beyond its limits the first joint would be cut short.
        constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
        const Lanes from_middle = load(table.turn + begin) + (target.azimuth - table.middle0);
        const Lanes turns = (from_middle * (0.5 / kPi) + kRound) - kRound;
        const Lanes within = from_middle - turns * (2 * kPi);
        const LaneMask beyond = (within > table.half0) | (within < -table.half0);
        const Lanes score = distance + (1.0 - along * along) + select(beyond, broadcast(1.0), Lanes{});
        const LaneMask better = score < best;
        best = select(better, score, best);
        best_chunk = select(better, broadcast(chunk), best_chunk);
    }
    for (int lane = 0; lane < kLanes; ++lane) rows[lane] = static_cast<int>(best_chunk[lane]) * kLanes + lane;
}

/// Begin an attempt at stored configuration `row`, the first joint turned towards the target.
MFIK_HOST_DEVICE inline void take_row(const SearchTask& task, int row, double* q) {
    const SeedTable& table = *task.table;
    const int n = task.chain->dof;
    for (int j = 0; j < n; ++j) q[j] = table.q[row][j];
    if (task.chain->kind[0] != JointKind::kPrismatic) {
        const double from_middle = table.turn[row] + task.feature.azimuth - table.middle0;
        q[0] = table.middle0 + from_middle - 2 * kPi * std::nearbyint(from_middle / (2 * kPi));
    }
    for (int j = 0; j < n; ++j) {
        if (q[j] < task.terms->lower[j]) q[j] = task.terms->lower[j];
        if (q[j] > task.terms->upper[j]) q[j] = task.terms->upper[j];
    }
}

MFIK_HOST_DEVICE inline void add(const Chain& chain, const double* q, SolutionPool& pool) {
    if (pool.size == SolutionPool::kCapacity) return;
    for (int i = 0; i < pool.size; ++i)
        if (joint_distance(chain, q, pool.q[i]) <= pool.min_distance) return;
    for (int j = 0; j < chain.dof; ++j) pool.q[pool.size][j] = q[j];
    ++pool.size;
}

void search(const SearchTask& task, SearchResult& result, SolutionPool* pool) noexcept {
    const Chain& chain = *task.chain;
    const Terms& terms = *task.terms;
    const int n = chain.dof;
    // Below the tolerance by more than rounding, so that the caller's check agrees.
    const double pos2 = 0.999999 * task.tol_pos_m * task.tol_pos_m;
    const double rot2 = 0.999999 * task.tol_rot_rad * task.tol_rot_rad;

    TransformOf<Lanes> T_target;
    Iterate<Lanes> at;
    int age[kLanes] = {}, rows[kLanes];
    nearest_rows(*task.table, task.feature, rows);
    const int given = task.has_first_seed ? 2 : 1;  // the first seed and q_ref, or q_ref alone
    const int reference = given - 1;                // the lane that begins at q_ref
    const int first_round = task.max_attempts < kLanes ? task.max_attempts : kLanes;
    double q[kMaxJoints];
    for (int lane = 0; lane < kLanes; ++lane) {
        set_target(task.T_target, lane, T_target);
        const double* seed = lane == reference ? task.q_ref : task.first_seed;
        if (lane >= given && lane < first_round) {
            take_row(task, rows[lane], q);
            seed = q;
        } else if (lane >= given) {
            seed = task.has_first_seed ? task.first_seed : task.q_ref;  // idle
        }
        for (int j = 0; j < n; ++j) at.q[j][lane] = seed[j];
    }
    unsigned active = (1u << first_round) - 1u;
    result.solved = false;
    result.attempts = first_round;
    double nearest = HUGE_VAL, best_error = HUGE_VAL;
    int grace = kReferenceGrace, next_row = 0;

    linearize(chain, terms, T_target, at);
    for (result.iterations = 0;; ++result.iterations) {
        unsigned finished = 0;
        bool wait = false;
        for (int lane = 0; lane < kLanes; ++lane) {
            if (!(active >> lane & 1u)) continue;
            const double error = at.pos2[lane] + at.rot2[lane];
            const bool solved = at.pos2[lane] <= pos2 && at.rot2[lane] <= rot2;
            // Written so that an error that is no number ends the attempt.
            const bool hopeless = 2 * age[lane] >= task.max_iterations && !(error <= kHopeless);
            const bool over = age[lane] >= task.max_iterations || (hopeless && result.attempts < task.max_attempts);
            if (!solved && !over) {
                wait = wait || (lane == reference && error < kNearlySolved && result.iterations == age[lane]);
                continue;
            }
            finished |= 1u << lane;
            for (int j = 0; j < n; ++j) q[j] = at.q[j][lane];
            if (solved) {
                const double distance = joint_distance(chain, q, task.q_ref);
                if (pool != nullptr) add(chain, q, *pool);
                if (distance < nearest) {
                    nearest = distance;
                    for (int j = 0; j < n; ++j) result.q[j] = q[j];
                }
                result.solved = true;
            } else if (!result.solved && (error < best_error || best_error == HUGE_VAL)) {
                best_error = error;
                for (int j = 0; j < n; ++j) result.q[j] = q[j];
            }
        }
        if (result.solved && !task.exhaust && !(wait && grace-- > 0)) return;

        unsigned fresh = 0;
        for (int lane = 0; lane < kLanes; ++lane) {
            if (!(finished >> lane & 1u)) continue;
            if (result.attempts < task.max_attempts) {
                ++result.attempts;
                fresh |= 1u << lane;
            } else {
                active &= ~(1u << lane);
            }
        }
        if (active == 0) return;

        Lanes dq[kMaxJoints];
        dls_step(chain, terms, T_target, at, dq);
        move(terms, n, dq, at.q);
        for (int lane = 0; lane < kLanes; ++lane) {
            ++age[lane];
            if (!(fresh >> lane & 1u)) continue;
            take_row(task, next_row, q);
            next_row = (next_row + 1) % SeedTable::kSize;
            for (int j = 0; j < n; ++j) at.q[j][lane] = q[j];
            age[lane] = 0;
        }
        linearize(chain, terms, T_target, at);
    }
}

RefineOutcome refine_one(const Chain& chain, const Terms& terms, const Transform& T_target, double* q,
                         int max_iterations, double tol_pos_m, double tol_rot_rad, int leaning_steps) noexcept {
    return refine(chain, terms, T_target, q, max_iterations, tol_pos_m, tol_rot_rad, leaning_steps);
}

/// Hand out row i: joints as T, and whether these, rounded, still are within tolerance.
template <class T>
MFIK_HOST_DEVICE inline void finish_row(const Chain& chain, const RefineArgs<T>& args, std::int64_t i, double* q,
                                        const Transform& T_target, bool converged, int iterations) {
    bool exact = true;
    for (int j = 0; j < chain.dof; ++j) {
        if (chain.kind[j] == JointKind::kContinuous) q[j] -= 2 * kPi * std::nearbyint(q[j] / (2 * kPi));
        const T rounded = round_inside<T>(q[j], chain.lower[j], chain.upper[j]);
        exact = exact && rounded == q[j];
        args.q_out[i * chain.dof + j] = rounded;
        q[j] = rounded;
    }
    if (converged && !exact) {
        double error[6];
        pose_error(T_target, forward(chain, q), error);
        converged = norm3(error) <= args.tol_pos_m && norm3(error + 3) <= args.tol_rot_rad;
    }
    args.converged[i] = converged;
    args.iterations[i] = iterations;
}

/// Joints of row i, within the limits, and its target. A row that is none is handed out as NaN: false.
template <class T>
MFIK_HOST_DEVICE inline bool read_row(const Chain& chain, const Terms& terms, const RefineArgs<T>& args, std::int64_t i,
                                      double* q, Transform& T_target) {
    const int n = chain.dof;
    double pose[7];
    bool valid = true;
    for (int j = 0; j < n; ++j) {
        q[j] = args.q[i * n + j];
        valid = valid && std::isfinite(q[j]);
        q[j] = q[j] < terms.lower[j] ? terms.lower[j] : q[j] > terms.upper[j] ? terms.upper[j] : q[j];
    }
    for (int k = 0; k < 7; ++k) pose[k] = args.target_pose[i * 7 + k];
    if (!valid || !normalize_pose(pose, pose)) {
        for (int j = 0; j < n; ++j) args.q_out[i * n + j] = std::numeric_limits<T>::quiet_NaN();
        args.converged[i] = false;
        args.iterations[i] = 0;
        return false;
    }
    T_target = from_pose(pose);
    return true;
}

/// One row by itself: half the time of a register with one lane in use.
template <class T>
MFIK_HOST_DEVICE inline void refine_row(const Chain& chain, const RefineArgs<T>& args, std::int64_t i) {
    Terms terms;
    set_limits(chain, terms);
    double q[kMaxJoints];
    Transform T_target;
    if (!read_row(chain, terms, args, i, q, T_target)) return;
    const RefineOutcome outcome =
        refine(chain, terms, T_target, q, args.max_iterations, args.tol_pos_m, args.tol_rot_rad);
    finish_row(chain, args, i, q, T_target, outcome.converged, outcome.iterations);
}

template <class T>
MFIK_HOST_DEVICE inline void refine_rows(const Chain& chain, const RefineArgs<T>& args, std::int64_t begin,
                                         std::int64_t end) {
    const int n = chain.dof;
    Terms terms;
    set_limits(chain, terms);
    const double pos2 = args.tol_pos_m * args.tol_pos_m, rot2 = args.tol_rot_rad * args.tol_rot_rad;
    Iterate<Lanes> at;
    TransformOf<Lanes> T_target;
    Transform targets[kLanes];
    std::int64_t row[kLanes], next = begin;  // row -1: the lane idles
    int age[kLanes] = {};
    double q[kMaxJoints];
    const Transform identity{{1, 0, 0, 0, 1, 0, 0, 0, 1}, {0, 0, 0}};
    for (int lane = 0; lane < kLanes; ++lane) row[lane] = -1;
    for (bool first = true;; first = false) {
        // Lanes without a row take the next one that is valid.
        int busy = 0;
        for (int lane = 0; lane < kLanes; ++lane) {
            while (row[lane] < 0 && next < end) {
                const std::int64_t i = next++;
                if (!read_row(chain, terms, args, i, q, targets[lane])) continue;
                row[lane] = i;
                age[lane] = 0;
                set_target(targets[lane], lane, T_target);
                for (int j = 0; j < n; ++j) at.q[j][lane] = q[j];
            }
            busy += row[lane] >= 0;
            if (first && row[lane] < 0) {
                set_target(identity, lane, T_target);
                for (int j = 0; j < n; ++j) at.q[j][lane] = 0.0;
            }
        }
        if (busy == 0) return;
        linearize(chain, terms, T_target, at);
        for (int lane = 0; lane < kLanes; ++lane) {
            if (row[lane] < 0) continue;
            const bool converged = at.pos2[lane] <= pos2 && at.rot2[lane] <= rot2;
            if (!converged && age[lane] < args.max_iterations) continue;
            for (int j = 0; j < n; ++j) q[j] = at.q[j][lane];
            finish_row(chain, args, row[lane], q, targets[lane], converged, age[lane]);
            row[lane] = -1;
            --busy;
        }
        if (busy == 0 && next == end) return;
        Lanes dq[kMaxJoints];
        dls_step(chain, terms, T_target, at, dq);
        move(terms, n, dq, at.q);
        for (int lane = 0; lane < kLanes; ++lane) ++age[lane];
    }
}

/// Joints of rows i, i + 1, ...; beyond the last row that one again.
template <class T>
MFIK_HOST_DEVICE inline void load_rows(const T* from, int n, std::int64_t i, std::int64_t end, Lanes* q) {
    for (int lane = 0; lane < kLanes; ++lane) {
        const std::int64_t row = i + lane < end ? i + lane : end - 1;
        for (int j = 0; j < n; ++j) q[j][lane] = from[row * n + j];
    }
}

template <class T>
MFIK_HOST_DEVICE inline void fk_rows(const Chain& chain, const FkArgs<T>& args, std::int64_t begin, std::int64_t end) {
    Lanes q[kMaxJoints], pose[7];
    for (std::int64_t i = begin; i < end; i += kLanes) {
        load_rows(args.q, chain.dof, i, end, q);
        to_pose(forward(chain, q), pose);
        for (int lane = 0; lane < kLanes && i + lane < end; ++lane)
            for (int k = 0; k < 7; ++k) args.out[(i + lane) * 7 + k] = static_cast<T>(pose[k][lane]);
    }
}

template <class T>
MFIK_HOST_DEVICE inline void jacobian_rows(const Chain& chain, const FkArgs<T>& args, std::int64_t begin,
                                           std::int64_t end) {
    const int n = chain.dof;
    Lanes q[kMaxJoints], axis[kMaxJoints][3], point[kMaxJoints][3], column[6];
    for (std::int64_t i = begin; i < end; i += kLanes) {
        load_rows(args.q, n, i, end, q);
        const TransformOf<Lanes> tip = forward(chain, q, axis, point);
        for (int j = 0; j < n; ++j) {
            jacobian_column(chain.kind[j], axis[j], point[j], tip.p, column);
            for (int lane = 0; lane < kLanes && i + lane < end; ++lane)
                for (int a = 0; a < 6; ++a) args.out[((i + lane) * 6 + a) * n + j] = static_cast<T>(column[a][lane]);
        }
    }
}

template <class T>
void refine_any(const Chain& chain, const RefineArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    if (end - begin == 1) {
        refine_row(chain, args, begin);
    } else {
        refine_rows(chain, args, begin, end);
    }
}
template <class T>
void fk_any(const Chain& chain, const FkArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    fk_rows(chain, args, begin, end);
}
template <class T>
void jacobian_any(const Chain& chain, const FkArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    jacobian_rows(chain, args, begin, end);
}

}  // namespace

extern const LaneKernels kKernels;  // also where the header does not declare it
const LaneKernels kKernels{kLanes,        search,         refine_one,          refine_any<float>,   refine_any<double>,
                           fk_any<float>, fk_any<double>, jacobian_any<float>, jacobian_any<double>};

}  // namespace mfik::cpu::MFIK_ISA
