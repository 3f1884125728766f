// Solutions of one waypoint.
#include <algorithm>
#include <cmath>

#include "kernels/philox.hpp"
#include "kernels/turns.hpp"
#include "solver/path/chains.hpp"

namespace mfik::path {
namespace {

constexpr int kSteps = 16;             // of refinement, of each draw
constexpr int kAttempts = 1000;        // of the solver by itself, where draws find nothing
constexpr double kMinDistance = 0.05;  // of two solutions in some joint [rad] or [m]; nearer ones count as one

/// A configuration drawn uniformly within the limits, brought to the target's place by the first joint.
void draw(const Task& task, const SeedFeature& target, int index, int stream, double* q) {
    const mfik::Chain& chain = task.core.chain();
    if (chain.dof < 1) return;
    const SeedTable& table = task.core.table;
    for (int j = 0; j < chain.dof; ++j) {
        const Philox4 random = philox4x32_10({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(j),
                                              static_cast<std::uint32_t>(stream), 0x70617468u},
                                             task.path.random_seed);
        const double midpoint = 0.5 * (chain.lower[j] + chain.upper[j]), range = chain.upper[j] - chain.lower[j];
        const double width = chain.kind[j] == JointKind::kPrismatic ? range : std::min(range, 2 * kPi);
        q[j] = midpoint + width * (static_cast<double>(uniform24(random.x0)) - 0.5);
    }
    const SeedFeature feature = seed_feature(chain, table.half_size, forward(chain, q));
    q[0] = brought_to_place<double>(table, q[0] - feature.place, target.place);
}

bool is_new(const Task& task, const Rows& known, const double* q) {
    for (std::size_t k = 0; k < known.size(); k += task.width())
        if (posture_difference(task.core.chain(), task.unit(), &known[k], q) <= kMinDistance) return false;
    return true;
}

constexpr double kFillStep = 0.8;   // of max_step
constexpr double kFillApart = 0.4;  // likewise; nearer solutions are left out
constexpr double kFillMost = 0.3;   // length of a step at most [rad] or [length]
constexpr int kFillSteps = 6;       // of refinement

/// Largest change of a joint from a to b, as a share of what a step along the null space may be.
double steps_between(const Task& task, const double* a, const double* b) {
    double largest = 0.0;
    for (int j = 0; j < task.dof(); ++j)
        largest = std::max(largest, std::fabs(b[j] - a[j]) / std::min(task.max_step[j], kFillMost));
    return largest;
}

/// A step along the null space from each row of `from`, both ways along each of its directions.
std::vector<cpu::PathRow> steps_aside(const Task& task, int waypoint, const Rows& from) {
    std::vector<cpu::PathRow> rows;
    double basis[kMaxJoints][kMaxJoints], q[kMaxJoints];
    const double zero[kMaxJoints] = {};
    for (std::size_t k = 0; k < from.size(); k += task.width()) {
        const int size = task.kernels.null_space(*task.common.chain, task.common.constraints,
                                                 task.at(waypoint).T_target, &from[k], basis);
        for (int d = 0; d < size; ++d) {
            const double scale = kFillStep / steps_between(task, zero, basis[d]);
            for (const double sign : {1.0, -1.0}) {
                for (int j = 0; j < task.dof(); ++j)
                    q[j] = from[k + static_cast<std::size_t>(j)] + sign * scale * basis[d][j];
                rows.push_back(task.row(waypoint, q));
            }
        }
    }
    return rows;
}

}  // namespace

Rows fill(Task& task, int waypoint, Rows known, int most) {
    Rows found, edge = known;
    while (!edge.empty() && !task.stops(0.5)) {
        std::vector<cpu::PathRow> rows = steps_aside(task, waypoint, edge);
        task.refine(rows, kFillSteps, 0);
        Rows reached;
        for (const cpu::PathRow& row : rows)
            if (row.converged) reached.insert(reached.end(), row.q, row.q + task.dof());
        const std::vector<unsigned char> free = task.clear(reached);
        edge.clear();
        for (std::size_t i = 0; i < free.size(); ++i) {
            const double* q = &reached[i * task.width()];
            bool is_new = free[i] != 0;
            for (std::size_t k = 0; is_new && k < known.size(); k += task.width())
                is_new = steps_between(task, &known[k], q) > kFillApart;
            if (!is_new) continue;
            known.insert(known.end(), q, q + task.dof());
            edge.insert(edge.end(), q, q + task.dof());
            found.insert(found.end(), q, q + task.dof());
            if (found.size() >= static_cast<std::size_t>(most) * task.width()) return found;
        }
    }
    return found;
}

Rows candidates(Task& task, int waypoint, int draws, int stream, const double* q_near) {
    Rows found;
    const Waypoint& at = task.at(waypoint);
    if (at.too_far || at.tip_collides) return found;
    const SeedFeature target = seed_feature(task.core.chain(), task.core.table.half_size, at.T_tip);
    std::vector<cpu::PathRow> rows;
    double q[kMaxJoints];
    for (int i = 0; i < draws; ++i) {
        draw(task, target, i, stream, q);
        rows.push_back(task.row(waypoint, q));
    }
    task.attempts += draws;
    task.refine(rows, kSteps, 0);
    Rows reached;
    for (cpu::PathRow& row : rows) {
        if (!row.converged) continue;
        unwind(task.core.chain(), q_near, row.q);
        reached.insert(reached.end(), row.q, row.q + task.dof());
    }
    const std::vector<unsigned char> free = task.clear(reached);
    for (std::size_t k = 0; k < free.size(); ++k) {
        const double* solution = &reached[k * task.width()];
        if (free[k] != 0 && is_new(task, found, solution)) found.insert(found.end(), solution, solution + task.dof());
    }
    return found;
}

Rows solution(Task& task, int waypoint, Result& result) {
    std::vector<double> q_ref(task.width()), q(task.width());
    from_units(task.core.units, task.common.q_ref, q_ref);
    Options options = task.given;
    options.max_attempts = kAttempts;
    options.nearest = false;
    options.seed = Seed::kReference;
    options.max_iterations = kSteps;
    options.q_preferred = {};
    options.joint_weights = {};
    result = solve_pose(task.core, task.pose(waypoint), q_ref, q, &task.scratch, options, nullptr);
    task.attempts += result.attempts;
    if (result.status != Status::kSolved) return {};
    Rows found(task.width());
    to_units(task.core.units, q, found.data());
    return found;
}

}  // namespace mfik::path
