// Solver::solve and Solver::solve_all.
#include <algorithm>
#include <cmath>

#include "kernels/turns.hpp"
#include "solver/collision/obstacles.hpp"
#include "solver/core.hpp"
#include "solver/problem.hpp"
#include "solver/verdict.hpp"

namespace mfik {
namespace {

/// The configuration within the constraints that is nearest to q.
void clamp(const Chain& chain, const Constraints& constraints, const double* q, double* out) {
    for (int j = 0; j < chain.dof; ++j) out[j] = std::clamp(q[j], constraints.lower[j], constraints.upper[j]);
}

/// The search that a problem asks for, with q_ref as the first seed.
SearchTask search_task(const Core& core, const Problem& problem) {
    const Options& options = problem.options;
    SearchTask task{};
    task.chain = problem.chain;
    task.constraints = &problem.constraints;
    task.table = &core.table;
    task.feature = seed_feature(core.chain(), core.table.half_size, problem.T_tip);
    task.T_target = problem.T_target;
    task.tol_pos_m = options.tol_pos_m;
    task.tol_rot_rad = options.tol_rot_rad;
    task.max_iterations = options.max_iterations;
    task.max_attempts = problem.too_far ? 1 : options.max_attempts;
    task.q_near = problem.q_ref;
    task.weight = problem.weight;
    if (problem.keeps_clear && !problem.tip_collides) task.obstacles = &problem.obstacles;
    clamp(core.chain(), problem.constraints, problem.q_ref, task.q_ref);
    return task;
}

/// Refine q towards the null-space posture, and keep what still solves the pose. Returns the steps taken.
int approach_posture(const Core& core, const Problem& problem, double* q) {
    const Options& options = problem.options;
    double moved[kMaxJoints];
    std::copy_n(q, core.chain().dof, moved);
    const RefineOutcome outcome = core.kernels.refine_one(
        *problem.chain, with_posture(problem.constraints, options), problem.T_target, moved, 2 * options.max_iterations,
        kInside * options.tol_pos_m, kInside * options.tol_rot_rad, options.max_iterations);
    const bool is_solved = outcome.converged && (!problem.keeps_clear || is_clear(core, problem.obstacles, moved));
    if (is_solved) std::copy_n(moved, core.chain().dof, q);
    return outcome.iterations;
}

/// After a search that failed: see where the best attempt leads to in the end, so that the status can say why it fails.
/// Returns whether it stalled. Asked for a single attempt, the search has its joints, q: steps from them are only
/// tried.
bool follow_best(const Core& core, const Problem& problem, SearchResult& found, double* q) {
    const Options& options = problem.options;
    const bool single = options.max_attempts == 1;
    if (found.collides) return false;
    if (options.max_iterations == 0 || (single && problem.too_far)) return false;
    double tried[kMaxJoints];
    std::copy_n(q, core.chain().dof, tried);
    const Approach end = single ? approach(core, problem, problem.constraints, tried, kLastSteps, 0.0, 0.0)
                                : approach(core, problem, problem.constraints, q, options.max_iterations + kLastSteps,
                                           kInside * options.tol_pos_m, kInside * options.tol_rot_rad);
    found.iterations += end.iterations;
    return end.stalled;
}

/// Search, in vain where the tip collides at the target: then for joints that reach it all the same, to show them.
void run_search(const Core& core, const Problem& problem, SearchTask& task, SearchResult& found, SolutionPool* pool) {
    task.exhaust = task.exhaust && !problem.tip_collides;
    task.nearest = task.nearest && !problem.tip_collides;
    core.kernels.search(task, found, pool);
    if (!problem.tip_collides) return;
    found.collides = found.solved;
    found.solved = false;
}

/// Search from the seeds, then the verdict on the best joints, q.
Result search(const Core& core, const Problem& problem, const double* seed, double* q) {
    const Chain& chain = core.chain();
    const Options& options = problem.options;
    SearchResult found{};
    if (options.max_iterations == 0) {
        std::copy_n(seed, chain.dof, q);
        found.attempts = 1;
    } else {
        SearchTask task = search_task(core, problem);
        task.nearest = options.nearest;
        task.has_first_seed = options.seed != Seed::kReference;
        clamp(chain, problem.constraints, seed, task.first_seed);
        run_search(core, problem, task, found, nullptr);
        std::copy_n(found.q, chain.dof, q);
    }
    return conclude(core, problem, found, q);
}

/// Hand out solutions of the pool: the nearest to q_ref, then always the one whose distance from those taken is
/// largest.
void spread(const Core& core, const Problem& problem, SolutionPool& pool, Span<double> q_out, Result& result) {
    const Chain& chain = core.chain();
    const double* unit = core.units.joint;
    const std::size_t dof = static_cast<std::size_t>(chain.dof), wanted = q_out.size() / dof;
    double gap[SolutionPool::kCapacity];
    for (int i = 0; i < pool.size; ++i) {
        unwind(chain, problem.q_ref, pool.q[i]);
        gap[i] = -distance_to_reference(chain, problem.weight, pool.q[i], problem.q_ref);
    }
    for (result.solutions = 0; static_cast<std::size_t>(result.solutions) < wanted && result.solutions < pool.size;
         ++result.solutions) {
        const int taken = static_cast<int>(std::max_element(gap, gap + pool.size) - gap);
        const Result one = verdict(core, problem, pool.q[taken], false);
        from_units(core.units, pool.q[taken], q_out.subspan(static_cast<std::size_t>(result.solutions) * dof, dof));
        result.pos_error_m = std::max(result.pos_error_m, one.pos_error_m);
        result.rot_error_rad = std::max(result.rot_error_rad, one.rot_error_rad);
        for (int i = 0; i < pool.size; ++i) {
            const double distance = posture_difference(chain, unit, pool.q[i], pool.q[taken]);
            gap[i] = result.solutions == 0 ? distance : std::min(gap[i], distance);
        }
        gap[taken] = -1.0;
    }
}

}  // namespace

Result conclude(const Core& core, const Problem& problem, SearchResult found, double* q) {
    const Options& options = problem.options;
    if (found.solved && !options.q_preferred.empty()) found.iterations += approach_posture(core, problem, q);
    const bool stalled = !found.solved && follow_best(core, problem, found, q);
    if (options.max_iterations > 0) unwind(core.chain(), problem.q_ref, q);
    Result result = verdict(core, problem, q, stalled);
    result.iterations = found.iterations;
    result.attempts = found.attempts;
    return result;
}

void unwind(const Chain& chain, const double* q_ref, double* q) {
    for (int j = 0; j < chain.dof; ++j) q[j] = nearest_turn(chain, j, q[j], q_ref[j]);
}

Result solve_pose(const Core& core, const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out,
                  Scratch* scratch, const Options& options, const double* network_seed) {
    const Clock::time_point start = Clock::now();
    Problem problem;
    read_problem(core, T_base_tool, q_ref, options, scratch, problem);
    if (problem.error != nullptr) return invalid(problem.error);
    if (q_out.size() != q_ref.size()) return invalid("q_out: expected dof() values");
    double seed[kMaxJoints], q[kMaxJoints];
    if (options.seed != Seed::kNetwork) {
        analytic_seed(core, problem.T_tip, problem.q_ref, options.seed, seed);
    } else if (network_seed != nullptr) {
        std::copy_n(network_seed, q_ref.size(), seed);
    } else if (core.engine != nullptr) {
        network_seeds(core, 1, problem.q_ref, problem.tip_pose, scratch->network.data(), seed);
    } else {
        return invalid("seed: the bundle holds no network");
    }
    Result result = search(core, problem, seed, q);
    from_units(core.units, q, q_out);
    result.time_us = microseconds_since(start);
    return result;
}

Result Solver::solve(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out, Workspace& workspace,
                     const Options& options) const noexcept {
    if (impl_ == nullptr) return invalid("solver: it was moved from");
    return solve_pose(*impl_, T_base_tool, q_ref, q_out, workspace.impl_.get(), options, nullptr);
}

Result Solver::solve_all(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out, Workspace& workspace,
                         double min_distance, const Options& options) const noexcept {
    const Clock::time_point start = Clock::now();
    if (impl_ == nullptr) return invalid("solver: it was moved from");
    Problem problem;
    read_problem(*impl_, T_base_tool, q_ref, options, workspace.impl_.get(), problem);
    if (problem.error != nullptr) return invalid(problem.error);
    if (q_out.size() % q_ref.size() != 0 || q_out.empty())
        return invalid("q_out: expected n * dof() values, n at least 1");
    if (!(std::isfinite(min_distance) && min_distance > 0))
        return invalid("min_distance: expected a finite number above 0");
    if (options.max_iterations == 0) return invalid("max_iterations: expected at least 1 to find all solutions");

    SolutionPool& pool = workspace.impl_->pool;
    pool.size = 0;
    pool.min_distance = min_distance;
    pool.unit = impl_->units.joint;
    SearchTask task = search_task(*impl_, problem);
    task.exhaust = true;
    SearchResult found{};
    run_search(*impl_, problem, task, found, &pool);
    const bool stalled = !found.solved && follow_best(*impl_, problem, found, found.q);
    Result result = verdict(*impl_, problem, found.q, stalled);
    result.solutions = 0;
    if (found.solved) spread(*impl_, problem, pool, q_out, result);
    result.iterations = found.iterations;
    result.attempts = found.attempts;
    result.time_us = microseconds_since(start);
    return result;
}

}  // namespace mfik
