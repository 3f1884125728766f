// What the bindings of the solver share.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "mfik/solver.hpp"

namespace mfik {

/// A solver with the workspace of `solve`, which runs under the GIL and so never twice at a time.
struct PySolver {
    explicit PySolver(Solver loaded) : solver(std::move(loaded)), workspace(solver.make_workspace()) {}

    Solver solver;
    Workspace workspace;
};

/// The options in `mfik._native.Options`; they live as long as the object.
const Options& options_of(const pybind11::handle& given);

void bind_path(pybind11::class_<PySolver>& solver);

}  // namespace mfik
