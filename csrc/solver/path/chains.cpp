#include "solver/path/chains.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/turns.hpp"

namespace mfik::path {
namespace {

constexpr int kSteps = 10;        // of refinement from one waypoint to the next
constexpr int kPostureSteps = 1;  // of them towards the null-space posture
constexpr double kMerged = 1e-3;  // a chain that is this near to the one it goes towards ends [rad] or [length]
constexpr double kAside[] = {0.02, -0.02, 0.06, -0.06, 0.15, -0.15};  // along the null space [rad] or [length]

/// The last row that a chain was carried to. (On the way the rows of one that goes back stand in reverse.)
const double* last(const Task& task, const Carried& carried) {
    return carried.chain.q.data() + carried.chain.q.size() - task.width();
}

int last_waypoint(const Task& task, const Carried& carried) {
    const int count = carried.chain.count(task.dof());
    return carried.forward ? carried.chain.begin + count - 1 : carried.chain.begin - count + 1;
}

int next_waypoint(const Task& task, const Carried& carried) {
    return last_waypoint(task, carried) + (carried.forward ? 1 : -1);
}

/// Bounds of the joints after one step from q: the limits, where `limited`, and max_step, rounding included.
void bound(const Task& task, const double* q, bool limited, cpu::PathRow& row) {
    for (int j = 0; j < task.dof(); ++j) {
        const double step = task.max_step[j];
        double low = q[j] - step, high = q[j] + step;
        if (q[j] - low > step) low = std::nextafter(low, kInfinity);
        if (high - q[j] > step) high = std::nextafter(high, -kInfinity);
        if (task.common.options.locked >> j & 1u) low = high = q[j];
        row.lower[j] = limited ? std::max(row.lower[j], low) : low;
        row.upper[j] = limited ? std::min(row.upper[j], high) : high;
    }
}

/// A row that leads a chain to its next waypoint, from the configuration `start`.
cpu::PathRow next_row(const Task& task, const Carried& carried, const double* start, bool limited = true) {
    const int next = next_waypoint(task, carried);
    cpu::PathRow row = task.row(next, start);
    bound(task, last(task, carried), limited, row);
    row.posture = carried.posture;
    if (carried.towards != nullptr && carried.towards->covers(next, task.dof()))
        row.posture = carried.towards->at(next, task.dof());
    row.gain = carried.gain;
    return row;
}

/// Whether a chain may take another step.
bool goes_on(const Task& task, const Carried& carried) {
    if (!carried.alive) return false;
    const int next = next_waypoint(task, carried);
    if (next < 0 || next >= task.size()) return false;
    if (task.at(next).too_far || task.at(next).tip_collides) return false;
    const int now = last_waypoint(task, carried);
    if (carried.until >= 0 && (carried.forward ? now >= carried.until : now <= carried.until)) return false;
    if (carried.towards == nullptr || !carried.towards->covers(now, task.dof())) return true;
    const double *q = last(task, carried), *other = carried.towards->at(now, task.dof());
    for (int j = 0; j < task.dof(); ++j)
        if (std::fabs(q[j] - other[j]) > kMerged) return true;
    return false;
}

void append(const Task& task, const double* q, Carried& carried) {
    carried.chain.q.insert(carried.chain.q.end(), q, q + task.dof());
}

/// Turn a joint of a chain by full turns so that a step which leaves the limits stays within them: its older rows that
/// then are outside are left out. False where no turn does it.
bool turn(const Task& task, cpu::PathRow& step, Carried& carried) {
    const mfik::Chain& chain = task.core.chain();
    const std::size_t width = task.width();
    const Constraints& constraints = task.common.constraints;
    Rows rows = carried.chain.q;
    rows.insert(rows.end(), step.q, step.q + task.dof());
    bool turned = false;
    for (int j = 0; j < task.dof(); ++j) {
        const double q = step.q[j], lower = constraints.lower[j], upper = constraints.upper[j];
        if (q >= lower && q <= upper) continue;
        if (!makes_full_turns(chain, j) || (task.common.options.locked >> j & 1u)) return false;
        const double by = q < lower ? 2 * kPi : -2 * kPi;
        if (!(q + by >= lower && q + by <= upper)) return false;
        for (std::size_t k = static_cast<std::size_t>(j); k < rows.size(); k += width) rows[k] += by;
        turned = true;
    }
    if (!turned) return false;
    std::size_t keep = rows.size() - width;  // begin of the oldest row that is still within the limits
    for (bool inside = true; inside && keep > 0;) {
        for (std::size_t j = 0; j < width; ++j) {
            const double q = rows[keep - width + j];
            inside = inside && q >= constraints.lower[j] && q <= constraints.upper[j];
        }
        if (inside) keep -= width;
    }
    if (keep == rows.size() - width) return false;  // the chain would have to begin anew
    const int dropped = static_cast<int>(keep / width);
    carried.chain.begin += carried.forward ? dropped : -dropped;
    carried.chain.q.assign(rows.begin() + static_cast<std::ptrdiff_t>(keep), rows.end());
    return true;
}

/// Try to go on where the ordinary step failed: aside, along the null space; from where the last steps lead to; and by
/// a full turn of a joint that is at its limit. `collided`: the joints that the ordinary step led to, or null.
void detour(const Task& task, const double* collided, std::vector<Carried>& chains, std::size_t index) {
    const Carried& carried = chains[index];
    const int dof = task.dof(), next = next_waypoint(task, carried);
    const double* from = last(task, carried);
    std::vector<cpu::PathRow> rows;
    double start[kMaxJoints], basis[kMaxJoints][kMaxJoints];
    if (collided == nullptr && carried.chain.count(dof) > 1) {
        for (int j = 0; j < dof; ++j) start[j] = 2 * from[j] - from[j - dof];
        rows.push_back(next_row(task, carried, start));
    }
    const double* base = collided != nullptr ? collided : from;
    const int size =
        task.kernels.null_space(*task.common.chain, task.common.constraints, task.at(next).T_target, base, basis);
    for (const double aside : kAside) {
        for (int k = 0; k < size; ++k) {
            for (int j = 0; j < dof; ++j) start[j] = base[j] + aside * basis[k][j];
            rows.push_back(next_row(task, carried, start));
            rows.back().posture = nullptr;
        }
    }
    if (collided == nullptr) rows.push_back(next_row(task, carried, from, false));
    task.refine(rows, kSteps, kPostureSteps);
    if (collided == nullptr) {
        cpu::PathRow unlimited = rows.back();
        rows.pop_back();
        Carried turned = carried;
        if (unlimited.converged && turn(task, unlimited, turned)) chains.push_back(turned);  // may move `carried`
    }
    for (const cpu::PathRow& row : rows) {
        if (!row.converged || task.clear(Rows(row.q, row.q + dof))[0] == 0) continue;
        append(task, row.q, chains[index]);
        return;
    }
    chains[index].alive = false;
}

/// One step of every chain that goes on; false where none does.
bool step_all(const Task& task, std::vector<Carried>& chains) {
    std::vector<std::size_t> moving;
    std::vector<cpu::PathRow> rows;
    for (std::size_t k = 0; k < chains.size(); ++k) {
        chains[k].alive = goes_on(task, chains[k]);
        if (!chains[k].alive) continue;
        moving.push_back(k);
        rows.push_back(next_row(task, chains[k], last(task, chains[k])));
    }
    if (moving.empty()) return false;
    task.refine(rows, kSteps, kPostureSteps);
    Rows reached;
    for (const cpu::PathRow& row : rows)
        if (row.converged) reached.insert(reached.end(), row.q, row.q + task.dof());
    const std::vector<unsigned char> free = task.clear(reached);
    std::size_t next = 0;
    for (std::size_t k = 0; k < moving.size(); ++k) {
        const bool is_free = rows[k].converged && free[next] != 0;
        next += rows[k].converged ? 1 : 0;
        if (is_free) {
            append(task, rows[k].q, chains[moving[k]]);
        } else {
            detour(task, rows[k].converged ? rows[k].q : nullptr, chains, moving[k]);
        }
    }
    return true;
}

}  // namespace

Carried begin_at(const Task& task, int waypoint, const double* q, bool forward) {
    Carried carried;
    carried.chain.begin = waypoint;
    carried.chain.q.assign(q, q + task.dof());
    carried.forward = forward;
    return carried;
}

void carry(Task& task, std::vector<Carried>& chains, double done_before, double done_after) {
    for (int step = 0; step_all(task, chains); ++step) {
        const double share = std::min(1.0, static_cast<double>(step) / std::max(1, task.size()));
        if (task.stops(done_before + share * (done_after - done_before))) break;
    }
    for (Carried& carried : chains) {
        if (carried.forward) continue;
        Rows& q = carried.chain.q;
        const int count = carried.chain.count(task.dof());
        Rows forward;
        forward.reserve(q.size());
        for (int k = count - 1; k >= 0; --k)
            forward.insert(forward.end(), q.begin() + static_cast<std::ptrdiff_t>(k) * task.dof(),
                           q.begin() + static_cast<std::ptrdiff_t>(k + 1) * task.dof());
        q = std::move(forward);
        carried.chain.begin -= count - 1;
        carried.forward = true;
    }
}

}  // namespace mfik::path
