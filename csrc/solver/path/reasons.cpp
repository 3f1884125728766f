#include "solver/path/reasons.hpp"

#include <cmath>
#include <cstdio>
#include <utility>

#include "solver/collision/obstacles.hpp"

namespace mfik::path {
namespace {

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.4g", value);
    return text;
}

std::string waypoint(int i) {
    return "waypoint " + std::to_string(i);
}

std::string pair_of(const char* first, const char* second) {
    if (first == nullptr || second == nullptr) return "";
    return std::string("'") + first + "' and '" + second + "'";
}

/// Names of what is nearest to each other at joints q.
std::string nearest_pair(const Task& task, const double* q) {
    Result nearest{};
    name_nearest(task.core, task.common.obstacles, task.common.options, q, nearest);
    return pair_of(nearest.first, nearest.second);
}

/// What the solver says of a waypoint by itself: its status, and why it fails.
Status judge(Task& task, int i, std::string& why) {
    Result result{};
    (void)solution(task, i, result);
    why = result.reason;
    if (const std::string pair = pair_of(result.first, result.second); !pair.empty()) why += ": " + pair;
    return result.status;
}

/// The first waypoint from `begin` on that has no solution, with its status, or -1. Where configurations of it are
/// known, it has.
int first_without_solution(Task& task, const Graph& graph, int begin, Status& status, std::string& why) {
    for (int i = begin; i < task.size(); ++i) {
        bool known = false;
        for (const Chain& chain : graph.chains()) known = known || chain.covers(i, task.dof());
        if (known) continue;
        status = judge(task, i, why);
        if (status != Status::kSolved) return i;
    }
    return -1;
}

void explain_gap(const Task& task, const Graph& graph, PathResult& result) {
    const int k = graph.reached();
    const Gap gap = graph.gap();
    const std::string between = waypoint(k - 1) + " and " + waypoint(k);
    if (gap.joint >= 0) {
        const std::string& name = task.core.bundle.robot.joint_names[static_cast<std::size_t>(gap.joint)];
        const bool slides = task.core.chain().kind[gap.joint] == JointKind::kPrismatic;
        result.status = Status::kJumpBound;
        result.reason = "between " + between + " every connection that was found breaks: joint '" + name +
                        "' would change by " + number(gap.excess) + (slides ? " m" : " rad") + " more than max_step";
        if (task.has_goal && k == task.size() - 1) result.reason += " to q_goal";
        return;
    }
    result.status = gap.blocked.empty() ? Status::kJumpBound : Status::kInCollision;
    result.reason = "between " + between + " every connection that was found ";
    result.reason += gap.blocked.empty() ? "breaks" : "collides: " + nearest_pair(task, gap.blocked.data());
}

}  // namespace

void report_solved(const Task& task, PathResult& result) {
    result.status = Status::kSolved;
    result.reason = "all " + std::to_string(task.size()) + " waypoints are reached";
}

void explain(Task& task, const Graph& graph, PathResult& result) {
    const int k = graph.reached();
    if (k == 0 && task.has_start) {
        result.status = Status::kInCollision;
        result.reason =
            "waypoint 0: q_start is nearer to something than the margin: " + nearest_pair(task, task.q_start);
        return;
    }
    if (task.was_stopped()) {
        result.status = Status::kNotConverged;
        result.reason = (task.was_cancelled() ? "progress ended the search at " : "time_limit ended the search at ") +
                        waypoint(k) + " of " + std::to_string(task.size());
        return;
    }
    Status status = Status::kSolved;
    std::string why;
    const int without = first_without_solution(task, graph, k, status, why);
    if (without >= 0) {
        result.status = status == Status::kNotConverged ? Status::kUnreachable : status;
        result.reason = waypoint(without) + " has no solution: " + why;
        return;
    }
    if (k == 0) {
        result.status = Status::kNotConverged;
        result.reason = "waypoint 0: no solution was found that can be carried on";
        return;
    }
    explain_gap(task, graph, result);
}

}  // namespace mfik::path
