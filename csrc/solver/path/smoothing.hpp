// Smoothing: the whole path made shorter along the null space of its poses.
#pragma once

#include "solver/path/task.hpp"

namespace mfik::path {

/// Shorten a path q [size, dof] that keeps to everything, which it does afterwards, too. Takes `rounds` at most, fewer
/// where it no longer pays. q_start and q_goal stay where they are.
void smooth(Task& task, int rounds, double done_before, double done_after, Rows& q);

}  // namespace mfik::path
