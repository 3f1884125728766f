// Chains: a configuration carried from waypoint to waypoint.
#pragma once

#include <vector>

#include "solver/path/task.hpp"

namespace mfik::path {

/// Configurations of consecutive waypoints, each refined from the one before it.
struct Chain {
    int begin = 0;  // waypoint of the first row
    Rows q;         // [count, dof]

    [[nodiscard]] int count(int dof) const { return static_cast<int>(q.size()) / dof; }
    [[nodiscard]] int end(int dof) const { return begin + count(dof); }  // one past the last waypoint
    [[nodiscard]] bool covers(int waypoint, int dof) const { return waypoint >= begin && waypoint < end(dof); }
    [[nodiscard]] const double* at(int waypoint, int dof) const {
        return q.data() + static_cast<std::ptrdiff_t>(waypoint - begin) * dof;
    }
};

/// A chain on its way.
struct Carried {
    Chain chain;
    bool forward = true;              // else towards the first waypoint
    const double* posture = nullptr;  // [dof]: null-space posture, or null
    const Chain* towards = nullptr;   // another chain, whose configuration at each waypoint is the posture
    double gain = 0.0;
    int until = -1;     // waypoint after which it ends; -1: the last one of its way
    bool alive = true;  // goes on
};

/// Carry chains side by side until each is at the end of its way, or breaks: where no refinement within max_step
/// reaches the next pose without a collision.
void carry(Task& task, std::vector<Carried>& chains, double done_before, double done_after);

/// One chain from a configuration of a waypoint.
[[nodiscard]] Carried begin_at(const Task& task, int waypoint, const double* q, bool forward);

/// Copies of the chains from number `begin` on, turned as a whole by full turns to where they meet another one, which
/// may have made such turns on its way.
[[nodiscard]] std::vector<Chain> turned(Task& task, const std::vector<Chain>& chains, std::size_t begin, double done);

/// Solutions of a waypoint that keep clear, from `draws` random configurations, [count, dof]; turns nearest to q_near.
[[nodiscard]] Rows candidates(Task& task, int waypoint, int draws, int stream, const double* q_near);

/// Solutions of a waypoint around known ones, [count, dof]: as far as the null space leads from them without leaving
/// the limits or colliding, in steps within max_step; `most` of them at most.
[[nodiscard]] Rows fill(Task& task, int waypoint, Rows known, int most);

/// The solution of a waypoint that Solver::solve finds with many attempts, [1, dof] or empty, and what it says.
[[nodiscard]] Rows solution(Task& task, int waypoint, Result& result);

}  // namespace mfik::path
