// Compiled once for each instruction set (kernels/cpu/dispatch.hpp).
#include "kernels/cpu/solver_kernels.hpp"

#include <cmath>

#include "kernels/cpu/batch_search.hpp"
#include "kernels/cpu/nearest.hpp"
#include "kernels/cpu/sphere_check.hpp"

namespace mfik::cpu {
namespace {

/// Steps that a nearly solved attempt from q_ref may take after another has solved: its solution is the nearer one.
constexpr int kReferenceGrace = 2;
/// Squared error [m^2 + rad^2] below which an attempt converges in few steps: 0.1 m or 6 deg.
constexpr double kNearlySolved2 = 1e-2;

/// A search for the nearest solution ends once this share of max_attempts, one after the other, has found none that
/// lessens the distance to kNearer of it.
constexpr double kPatience = 0.3, kNearer = 0.99;
/// It gives an attempt up that is so much farther than the nearest solution after a quarter of its steps.
constexpr double kTooFar = 1.5;

/// Steps that attempts which collide wait for others, so that all of them are pushed out together, if at all.
constexpr int kWait = 3;
/// Steps out of collision that an attempt may take.
constexpr int kMaxEscapes = 4;
/// An attempt that collides more deeply than this [m] makes room at once.
constexpr double kHopelessDepth = 0.2;
/// Contacts reach so far beyond the margin [m]: steps out of collision then end at some distance from it.
constexpr double kEscapeRoom = 5e-3;
/// What a solution is asked for beyond the margin [m], so that it passes the check whatever the rounding.
constexpr double kClearanceRounding = 1e-9;

/// The same for the target of a search, within the limits.
MFIK_INLINE void take_row(const SearchTask& task, int row, double* q) {
    row_at(*task.chain, *task.table, row, task.feature.place, q);
    for (int j = 0; j < task.chain->dof; ++j) {
        if (q[j] < task.constraints->lower[j]) q[j] = task.constraints->lower[j];
        if (q[j] > task.constraints->upper[j]) q[j] = task.constraints->upper[j];
    }
}

MFIK_INLINE void add(const Chain& chain, const double* q, SolutionPool& pool) {
    if (pool.size == SolutionPool::kCapacity) return;
    for (int i = 0; i < pool.size; ++i)
        if (posture_difference(chain, pool.unit, q, pool.q[i]) <= pool.min_distance) return;
    for (int j = 0; j < chain.dof; ++j) pool.q[pool.size][j] = q[j];
    ++pool.size;
}

/// Attempts side by side, one in each lane.
struct Attempts {
    Iterate<Lanes> at;
    TransformOf<Lanes> T_target;
    int age[kLanes];       // steps taken
    unsigned active;       // bit of each lane: it holds an attempt
    int reference;         // lane of the attempt from q_ref
    int grace;             // steps that it may still take after another has solved
    int next_row;          // of the table, for the next attempt
    unsigned waiting;      // bit of each lane: it reaches the pose and collides, and waits for others
    int patience;          // steps that they still do
    int escapes[kLanes];   // steps out of collision taken
    double depth[kLanes];  // of those that collide and make room [m]
    double nearest;        // distance from q_near of the solution that is kept
    int fruitless;         // attempts that have ended since one lessened it to kNearer of it
    NearSeeds seeds;       // of a search for the nearest
    NearSolutions near;    // likewise
    double best_error2;
};

/// The first round: the first seed, q_ref, and the stored configurations that suit the target.
MFIK_INLINE void begin(const SearchTask& task, Attempts& attempts, SearchResult& result) {
    const int n = task.chain->dof;
    int rows[kLanes] = {};
    Lanes scores;
    const int given = task.has_first_seed ? 2 : 1;  // the first seed and q_ref, or q_ref alone
    if (task.nearest) {
        attempts.seeds.score(task);
        for (int lane = given; lane < kLanes; ++lane) rows[lane] = attempts.seeds.take();
    } else {
        nearest_rows(*task.table, task.feature, rows, scores);
    }
    const int first_round = task.max_attempts < kLanes ? task.max_attempts : kLanes;
    attempts.reference = given - 1;
    double q[kMaxJoints];
    for (int lane = 0; lane < kLanes; ++lane) {
        set_lane(task.T_target, lane, attempts.T_target);
        attempts.age[lane] = attempts.escapes[lane] = 0;
        const double* seed = lane == attempts.reference ? task.q_ref : task.first_seed;
        if (lane >= given && lane < first_round) {
            take_row(task, rows[lane], q);
            seed = q;
        } else if (lane >= given) {
            seed = task.has_first_seed ? task.first_seed : task.q_ref;  // idle
        }
        for (int j = 0; j < n; ++j) attempts.at.q[j][lane] = seed[j];
    }
    attempts.active = (1u << first_round) - 1u;
    attempts.grace = kReferenceGrace;
    attempts.waiting = 0;
    attempts.patience = kWait;
    attempts.next_row = 0;
    attempts.fruitless = 0;
    attempts.nearest = attempts.best_error2 = HUGE_VAL;
    result.solved = result.collides = false;
    result.attempts = first_round;
    result.iterations = 0;
}

/// Squared tolerances to which a search refines.
struct Tolerance2 {
    explicit Tolerance2(const SearchTask& task)
        : pos(kInside * task.tol_pos_m * kInside * task.tol_pos_m),
          rot(kInside * task.tol_rot_rad * kInside * task.tol_rot_rad) {}

    double pos, rot;
};

/// What becomes of attempts that reach the pose and collide; bits of lanes.
struct Colliding {
    unsigned lanes = 0;     // those that are pushed out or make room
    unsigned escaping = 0;  // those that take a step out of collision
    unsigned waiting = 0;   // those that wait
    Lanes dq[kMaxJoints];   // the step out of collision
};

/// Frames of all attempts, for collision.
MFIK_INLINE void place_attempts(const SearchTask& task, const Iterate<Lanes>& at, TransformOf<Lanes>* frame) {
    Lanes q[kMaxJoints];
    for (int j = 0; j < task.chain->dof; ++j) q[j] = at.q[j] * task.obstacles->unit[j];
    frames_of(*task.obstacles->chain, q, frame);
}

/// Push attempts that wait out of collision, along the null space of the target, or let them make room.
__attribute__((noinline)) void push_out(const SearchTask& task, Attempts& attempts, const TransformOf<Lanes>* frame,
                                        Colliding& colliding) {
    Lanes reach;
    for (int lane = 0; lane < kLanes; ++lane) {
        const bool waits = attempts.waiting >> lane & 1u;
        reach[lane] = waits ? task.obstacles->margin + kEscapeRoom : -HUGE_VAL;
    }
    const ContactsOf<Lanes> found = contacts(*task.obstacles, frame, reach);
    unsigned escaping = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
        const double depth = found.deepest[lane] - (kEscapeRoom - kClearanceRounding);
        if (!(attempts.waiting >> lane & 1u) || depth <= 0.0) continue;
        colliding.lanes |= 1u << lane;
        attempts.depth[lane] = depth;
        if (depth < kHopelessDepth && attempts.escapes[lane] < kMaxEscapes && attempts.age[lane] < task.max_iterations)
            escaping |= 1u << lane;
    }
    attempts.waiting = 0;
    attempts.patience = kWait;
    if (escaping == 0) return;
    const LaneMask leads_out = escape(*task.chain, *task.constraints, attempts.T_target, attempts.at, *task.obstacles,
                                      frame, found, colliding.dq);
    for (int lane = 0; lane < kLanes; ++lane)
        if (leads_out[lane] != 0) colliding.escaping |= escaping & 1u << lane;
}

/// Ask attempts that have reached the pose whether they collide. Those that do wait while others are nearly solved, of
/// which one may be free. (A function of its own, so that searches without obstacles are compiled as if there were
/// none.)
__attribute__((noinline)) void find_colliding(const SearchTask& task, Attempts& attempts, Colliding& colliding) {
    const Iterate<Lanes>& at = attempts.at;
    const Obstacles& obstacles = *task.obstacles;
    const Tolerance2 tolerance(task);
    colliding.lanes = colliding.escaping = 0;
    unsigned reached = 0, nearly = 0, over = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
        const unsigned bit = attempts.active & 1u << lane;
        if (at.pos2[lane] <= tolerance.pos && at.rot2[lane] <= tolerance.rot) reached |= bit;
        if (at.pos2[lane] + at.rot2[lane] < kNearlySolved2) nearly |= bit;
        if (attempts.age[lane] >= task.max_iterations) over |= bit;
    }
    TransformOf<Lanes> frame[kMaxJoints + 1];
    const unsigned asked = reached & ~attempts.waiting;
    unsigned free = 0;
    SingleFrames singles;
    if (asked != 0) {
        place_attempts(task, at, frame);
        to_single(frame, obstacles.chain->dof + 1, singles);
    }
    for (unsigned left = asked; left != 0; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        if (keeps_margin(obstacles.body, obstacles.world, obstacles.self, obstacles.margin + kClearanceRounding, frame,
                         singles, obstacles.chain->dof, lane)) {
            free |= 1u << lane;
        } else {
            attempts.waiting |= 1u << lane;
        }
    }
    const bool none_yet = free == 0 && attempts.nearest == HUGE_VAL;
    if (attempts.waiting != 0 && (none_yet || task.exhaust || task.nearest)) {
        const bool others = (nearly & ~(attempts.waiting | free | over)) != 0;
        if (!others || (attempts.waiting & over) != 0 || attempts.patience-- == 0) {
            if (asked == 0) place_attempts(task, at, frame);
            push_out(task, attempts, frame, colliding);
        }
    }
    colliding.waiting = attempts.waiting;
}

/// Whether a search for the nearest solution, which has one, gives an attempt up that is about to lead to a far one.
MFIK_INLINE bool leads_too_far(const SearchTask& task, const Attempts& attempts, int lane) {
    if (attempts.age[lane] != task.max_iterations / 4) return false;
    double q[kMaxJoints];
    for (int j = 0; j < task.chain->dof; ++j) q[j] = attempts.at.q[j][lane];
    return distance_to_reference(*task.chain, task.weight, q, task.q_near) > kTooFar * attempts.nearest;
}

/// Look at every attempt: keep what the finished ones found. Returns the lanes that are finished; `wait` says whether
/// the attempt from q_ref is nearly solved.
MFIK_INLINE unsigned collect(const SearchTask& task, const Colliding& colliding, Attempts& attempts,
                             SearchResult& result, SolutionPool* pool, bool& wait) {
    const Chain& chain = *task.chain;
    const Iterate<Lanes>& at = attempts.at;
    const Tolerance2 tolerance(task);
    unsigned finished = 0;
    double q[kMaxJoints];
    for (int lane = 0; lane < kLanes; ++lane) {
        if (!(attempts.active >> lane & 1u)) continue;
        if ((colliding.escaping | colliding.waiting) >> lane & 1u) continue;
        const int age = attempts.age[lane];
        const bool collides = colliding.lanes >> lane & 1u;
        // Any attempt that reaches the pose is better than one that does not, and of those the one that collides least.
        const double error2 = collides ? -1.0 / (1.0 + attempts.depth[lane]) : at.pos2[lane] + at.rot2[lane];
        const bool solved = !collides && at.pos2[lane] <= tolerance.pos && at.rot2[lane] <= tolerance.rot;
        // Written so that an error that is no number ends the attempt.
        const bool hopeless = 2 * age >= task.max_iterations && !(error2 <= kHopelessError2);
        const bool over = age >= task.max_iterations || (hopeless && result.attempts < task.max_attempts) || collides ||
                          (task.nearest && result.solved && leads_too_far(task, attempts, lane));
        if (!solved && !over) {
            const bool first = result.iterations == age;  // no later attempt in that lane
            wait = wait || (lane == attempts.reference && error2 < kNearlySolved2 && first);
            continue;
        }
        finished |= 1u << lane;
        ++attempts.fruitless;
        for (int j = 0; j < chain.dof; ++j) q[j] = at.q[j][lane];
        bool keep = false;
        if (solved) {
            const double distance = distance_to_reference(chain, task.weight, q, task.q_near);
            if (pool != nullptr) add(chain, q, *pool);
            if (task.nearest) add(task, q, distance, attempts.near);
            if (distance < kNearer * attempts.nearest) attempts.fruitless = 0;
            keep = distance < attempts.nearest;
            if (keep) attempts.nearest = distance;
            result.solved = true;
        } else if (!result.solved && (error2 < attempts.best_error2 || attempts.best_error2 == HUGE_VAL)) {
            attempts.best_error2 = error2;
            result.collides = collides;
            keep = true;
        }
        for (int j = 0; keep && j < chain.dof; ++j) result.q[j] = q[j];
    }
    return finished;
}

/// Lanes of `finished` attempts that take another one; the others fall idle.
MFIK_INLINE unsigned renewed(const SearchTask& task, unsigned finished, Attempts& attempts, SearchResult& result) {
    unsigned fresh = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
        if (!(finished >> lane & 1u)) continue;
        if (result.attempts < task.max_attempts) {
            ++result.attempts;
            fresh |= 1u << lane;
        } else {
            attempts.active &= ~(1u << lane);
        }
    }
    return fresh;
}

/// One step of every attempt, out of collision where they are `escaping`; `fresh` lanes begin at stored configurations
/// instead.
template <class E>
MFIK_INLINE void advance(const SearchTask& task, const E& constraints, const SearchResult& result,
                         const Colliding& colliding, unsigned fresh, Attempts& attempts) {
    const int n = task.chain->dof;
    Lanes dq[kMaxJoints];
    double q[kMaxJoints];
    dls_step(*task.chain, constraints, attempts.T_target, attempts.at, dq);
    for (int lane = 0; colliding.escaping != 0 && lane < kLanes; ++lane) {
        if (!(colliding.escaping >> lane & 1u)) continue;
        for (int j = 0; j < n; ++j) dq[j][lane] = colliding.dq[j][lane];
        ++attempts.escapes[lane];
    }
    move(constraints, n, dq, attempts.at.q);
    for (int lane = 0; lane < kLanes; ++lane) {
        ++attempts.age[lane];
        if (!(fresh >> lane & 1u)) continue;
        const bool in_order = !task.nearest || result.attempts > SeedTable::kSize;
        take_row(task, in_order ? attempts.next_row : attempts.seeds.take(), q);
        if (in_order) attempts.next_row = (attempts.next_row + 1) % SeedTable::kSize;
        for (int j = 0; j < n; ++j) attempts.at.q[j][lane] = q[j];
        attempts.age[lane] = attempts.escapes[lane] = 0;
    }
}

/// Whether a search that has solved the pose goes on.
MFIK_INLINE bool goes_on(const SearchTask& task, const Attempts& attempts) {
    if (task.nearest) return attempts.fruitless < kPatience * task.max_attempts;
    return task.exhaust;
}

/// Lanes of those asked for that keep clear of the obstacles, if there are any.
MFIK_INLINE unsigned clear_lanes(const SearchTask& task, const Iterate<Lanes>& at, unsigned asked) {
    if (task.obstacles == nullptr || asked == 0) return asked;
    const Obstacles& obstacles = *task.obstacles;
    TransformOf<Lanes> frame[kMaxJoints + 1];
    SingleFrames singles;
    place_attempts(task, at, frame);
    to_single(frame, obstacles.chain->dof + 1, singles);
    unsigned clear = 0;
    for (unsigned left = asked; left != 0; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        if (keeps_margin(obstacles.body, obstacles.world, obstacles.self, obstacles.margin + kClearanceRounding, frame,
                         singles, obstacles.chain->dof, lane))
            clear |= 1u << lane;
    }
    return clear;
}

/// Let the nearest solutions slide, kLanes at a time.
template <class E>
__attribute__((noinline)) void slide_near(const SearchTask& task, const E& constraints, Attempts& attempts,
                                          SearchResult& result) {
    const auto clear = [&task](const Iterate<Lanes>& at, unsigned asked) { return clear_lanes(task, at, asked); };
    for (int first = 0; first < attempts.near.size; first += kLanes) {
        Slides<E> slides(task, constraints, attempts.T_target, attempts.near, first);
        slides.run(result, attempts.nearest, clear);
    }
}

template <class E>
MFIK_INLINE void search_within(const SearchTask& task, const E& constraints, SearchResult& result, SolutionPool* pool) {
    Attempts attempts;
    Colliding colliding;
    begin(task, attempts, result);
    for (;; ++result.iterations) {
        linearize(*task.chain, constraints, attempts.T_target, attempts.at);
        if (task.obstacles != nullptr) find_colliding(task, attempts, colliding);
        bool wait = false;
        const unsigned finished = collect(task, colliding, attempts, result, pool, wait);
        if (result.solved && !goes_on(task, attempts) && !(wait && attempts.grace-- > 0)) break;
        const unsigned fresh = renewed(task, finished, attempts, result);
        if (attempts.active == 0) break;
        advance(task, constraints, result, colliding, fresh, attempts);
    }
    if (task.nearest) slide_near(task, constraints, attempts, result);
}

void search(const SearchTask& task, SearchResult& result, SolutionPool* pool) noexcept {
    by_slack(*task.constraints, [&](const auto& constraints) { search_within(task, constraints, result, pool); });
}

RefineOutcome refine_one(const Chain& chain, const Constraints& given, const Transform& T_target, double* q,
                         int max_iterations, double tol_pos_m, double tol_rot_rad, int posture_steps) noexcept {
    return by_slack(given, [&](const auto& constraints) {
        return refine(chain, constraints, T_target, q, max_iterations, tol_pos_m, tol_rot_rad, posture_steps);
    });
}

FollowOutcome follow_one(const Chain& chain, const Constraints& given, const StepBounds& bounds,
                         const Transform& T_target, double* q, int max_iterations, double tol_pos_m,
                         double tol_rot_rad) noexcept {
    return by_slack(given, [&](const auto& constraints) {
        return follow(chain, constraints, bounds, T_target, q, max_iterations, tol_pos_m, tol_rot_rad);
    });
}

}  // namespace

template <>
const SolverKernels& compiled_kernels<SolverKernels, InstructionSet::MFIK_ISA>() noexcept {
    static constexpr SolverKernels kTable{kIsa, kLanes, search, refine_one, follow_one, search_rows};
    return kTable;
}

}  // namespace mfik::cpu
