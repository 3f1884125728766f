// Chains that would meet others but for full turns.
#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/turns.hpp"
#include "solver/path/chains.hpp"

namespace mfik::path {
namespace {

constexpr std::size_t kMet = 64;  // chains that another one may meet

/// By how many turns of each joint chains meet, and the waypoint where they first do.
using Meetings = std::map<std::vector<int>, int>;

/// Which joints make full turns.
std::vector<int> turning_joints(const Task& task) {
    std::vector<int> joints;
    for (int j = 0; j < task.dof(); ++j)
        if (makes_full_turns(task.core.chain(), j) && !(task.common.options.locked >> j & 1u)) joints.push_back(j);
    return joints;
}

/// Whether a step from q leads to `there` but for full turns of `joints`, and for how many.
bool meets(const Task& task, const std::vector<int>& joints, const double* q, const double* there,
           std::vector<int>& turns) {
    std::size_t t = 0;
    for (int j = 0; j < task.dof(); ++j) {
        double change = there[j] - q[j];
        if (t < joints.size() && joints[t] == j) {
            const double whole = std::round(change / (2 * kPi));
            turns[t++] = static_cast<int>(whole);
            change -= whole * 2 * kPi;
        }
        if (std::fabs(change) > task.max_step[j]) return false;
    }
    return true;
}

void add_meetings(const Task& task, const std::vector<int>& joints, const Chain& chain, const Chain& other,
                  Meetings& meetings) {
    std::vector<int> turns(joints.size());
    for (int i = chain.begin; i < chain.end(task.dof()); ++i) {
        for (const int beside : {i - 1, i + 1}) {
            if (!other.covers(beside, task.dof())) continue;
            if (meets(task, joints, chain.at(i, task.dof()), other.at(beside, task.dof()), turns))
                meetings.emplace(turns, i);
        }
    }
}

/// A chain, turned as a whole, around a waypoint as far as it keeps the limits; empty where it does not there.
Chain turned_around(const Task& task, const std::vector<int>& joints, const std::vector<int>& turns, int waypoint,
                    const Chain& chain) {
    const Constraints& constraints = task.common.constraints;
    const std::size_t width = task.width(), at = static_cast<std::size_t>(waypoint - chain.begin);
    Rows q = chain.q;
    std::vector<bool> inside(q.size() / width, true);
    for (std::size_t i = 0; i < inside.size(); ++i) {
        for (std::size_t t = 0; t < joints.size(); ++t) {
            double& value = q[i * width + static_cast<std::size_t>(joints[t])];
            value += 2 * kPi * turns[t];
            inside[i] = inside[i] && value >= constraints.lower[joints[t]] && value <= constraints.upper[joints[t]];
        }
    }
    std::size_t first = at, end = at;
    while (end < inside.size() && inside[end]) ++end;
    while (first > 0 && end > at && inside[first - 1]) --first;
    return {chain.begin + static_cast<int>(first), Rows(q.begin() + static_cast<std::ptrdiff_t>(first * width),
                                                        q.begin() + static_cast<std::ptrdiff_t>(end * width))};
}

}  // namespace

std::vector<Chain> turned(Task& task, const std::vector<Chain>& chains, std::size_t begin, double done) {
    std::vector<Chain> copies;
    const std::vector<int> joints = turning_joints(task);
    if (joints.empty()) return copies;
    const std::size_t others = std::min(chains.size(), kMet);
    for (std::size_t k = begin; k < chains.size() && !task.stops(done); ++k) {
        Meetings meetings;
        for (std::size_t i = 0; i < others; ++i)
            add_meetings(task, joints, chains[k], chains[i * chains.size() / others], meetings);
        meetings.erase(std::vector<int>(joints.size(), 0));
        for (const auto& [turns, waypoint] : meetings) {
            Chain copy = turned_around(task, joints, turns, waypoint, chains[k]);
            if (!copy.q.empty()) copies.push_back(std::move(copy));
        }
    }
    return copies;
}

}  // namespace mfik::path
