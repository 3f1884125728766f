// Where and why a path breaks, in words.
#pragma once

#include "solver/path/graph.hpp"

namespace mfik::path {

/// Say in `result` why the search ended before the last waypoint.
void explain(Task& task, const Graph& graph, PathResult& result);

/// The same where the path is complete.
void report_solved(const Task& task, PathResult& result);

}  // namespace mfik::path
