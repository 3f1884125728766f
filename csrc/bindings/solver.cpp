// mfik._native.Solver. Argument values are checked in mfik/solve/solver.py, where messages are easy; only what memory
// safety needs is checked here.
#include "mfik/solver.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"

namespace py = pybind11;

namespace mfik {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

Span<const double> view(const Doubles& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

std::size_t size_of(const Doubles& array) {
    return static_cast<std::size_t>(array.size());
}

/// Options of `mfik.solve.Options`, field by field, with the memory that they refer to.
struct PyOptions {
    PyOptions(double tol_pos, double tol_rot, int max_iterations, int max_attempts, int seed, bool nearest,
              const std::array<double, 7>& tool, const std::array<double, 6>& slack, std::uint32_t locked,
              std::vector<double> q_preferred, double preference_gain)
        : preferred(std::move(q_preferred)) {
        options.tol_pos_m = tol_pos;
        options.tol_rot_rad = tol_rot;
        options.max_iterations = max_iterations;
        options.max_attempts = max_attempts;
        options.seed = static_cast<Seed>(seed);
        options.nearest = nearest;
        options.T_tip_tool = tool;
        options.slack = slack;
        options.locked = locked;
        options.q_preferred = preferred;
        options.preference_gain = preference_gain;
    }
    PyOptions(const PyOptions&) = delete;
    PyOptions& operator=(const PyOptions&) = delete;

    std::vector<double> preferred;
    Options options;
};

/// A solver with the workspace of `solve`, which runs under the GIL and so never twice at a time.
struct PySolver {
    explicit PySolver(Solver loaded) : solver(std::move(loaded)), workspace(solver.make_workspace()) {}

    Solver solver;
    Workspace workspace;
};

PySolver load(const py::bytes& path) {
    try {
        return PySolver(Solver::load(path));
    } catch (const Error& error) {
        // The message may hold a path that is no UTF-8.
        const auto message = py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(error.what()));
        PyErr_SetObject(py::module_::import("mfik.errors").attr("BundleError").ptr(), message.ptr());
        throw py::error_already_set();
    }
}

Pose make_pose(const Doubles& array) {
    Pose pose{};
    if (array.size() != static_cast<py::ssize_t>(pose.size())) throw py::value_error("pose: expected [7]");
    std::copy_n(array.data(), pose.size(), pose.begin());
    return pose;
}

/// (q, status, pos_error, rot_error, iterations, attempts, time_us, reason); q has `rows` rows, or is one.
py::tuple as_tuple(const Result& result, const Doubles& q) {
    if (result.status == Status::kInvalidInput) throw py::value_error(result.reason);
    return py::make_tuple(q, static_cast<int>(result.status), result.pos_error_m, result.rot_error_rad,
                          result.iterations, result.attempts, result.time_us, result.reason);
}

py::tuple solve(PySolver& self, const Doubles& pose, const Doubles& q_ref, const PyOptions& options) {
    Doubles q(self.solver.dof());
    return as_tuple(self.solver.solve(make_pose(pose), view(q_ref), {q.mutable_data(), size_of(q)}, self.workspace,
                                      options.options),
                    q);
}

py::tuple track(PySolver& self, const Doubles& pose, const Doubles& q_prev, double max_step, const PyOptions& options) {
    Doubles q(self.solver.dof());
    return as_tuple(self.solver.track(make_pose(pose), view(q_prev), max_step, {q.mutable_data(), size_of(q)},
                                      self.workspace, options.options),
                    q);
}

py::tuple solve_all(PySolver& self, const Doubles& pose, const Doubles& q_ref, int n, double min_distance,
                    const PyOptions& options) {
    Doubles q({n, self.solver.dof()});
    const Result result = self.solver.solve_all(make_pose(pose), view(q_ref), {q.mutable_data(), size_of(q)},
                                                self.workspace, min_distance, options.options);
    q.resize({result.solutions, self.solver.dof()});
    return as_tuple(result, q);
}

py::tuple solve_batch(const PySolver& self, const Doubles& poses, const Doubles& q_ref, const PyOptions& options,
                      bool time_each, int threads) {
    const py::ssize_t rows = poses.ndim() == 2 ? poses.shape(0) : 0;
    const std::size_t n = static_cast<std::size_t>(rows);
    Doubles q({rows, static_cast<py::ssize_t>(self.solver.dof())});
    Doubles pos_error(rows), rot_error(rows), time_us(time_each ? rows : 0);
    py::array_t<std::int64_t> status(rows), iterations(rows), attempts(rows);
    std::vector<Result> results(n, Result{Status::kInvalidInput, 0.0, 0.0, 0, 0, 0, 0.0, "sizes disagree"});
    {
        const Span<const double> pose_view = view(poses), q_ref_view = view(q_ref);
        const Span<double> q_view(q.mutable_data(), size_of(q)), time_view(time_us.mutable_data(), size_of(time_us));
        const py::gil_scoped_release release;
        (void)self.solver.solve_batch(pose_view, q_ref_view, q_view, results, time_view, options.options, threads);
    }
    for (py::ssize_t i = 0; i < rows; ++i) {
        const Result& result = results[static_cast<std::size_t>(i)];
        if (result.status == Status::kInvalidInput) throw py::value_error(result.reason);
        status.mutable_at(i) = static_cast<int>(result.status);
        pos_error.mutable_at(i) = result.pos_error_m;
        rot_error.mutable_at(i) = result.rot_error_rad;
        iterations.mutable_at(i) = result.iterations;
        attempts.mutable_at(i) = result.attempts;
    }
    return py::make_tuple(std::move(q), std::move(status), std::move(pos_error), std::move(rot_error),
                          std::move(iterations), std::move(attempts),
                          time_each ? py::object(std::move(time_us)) : py::none());
}

std::string explain(const PySolver& self, const Doubles& q, int status, double pos_error, double rot_error,
                    int iterations, int attempts, const std::string& reason) {
    return self.solver.explain(
        {static_cast<Status>(status), pos_error, rot_error, iterations, attempts, 0, 0.0, reason.c_str()}, view(q));
}

}  // namespace

void bind_solver(py::module_& m) {
    py::class_<PyOptions>(m, "Options")
        .def(py::init<double, double, int, int, int, bool, const std::array<double, 7>&, const std::array<double, 6>&,
                      std::uint32_t, std::vector<double>, double>());
    py::class_<PySolver>(m, "Solver", "C++ solver; use mfik.solve.Solver, which checks its arguments.")
        .def_static("load", &load, py::arg("path"))
        .def("solve", &solve)
        .def("track", &track)
        .def("solve_all", &solve_all)
        .def("solve_batch", &solve_batch)
        .def("explain", &explain)
        .def_property_readonly("dof", [](const PySolver& self) { return self.solver.dof(); })
        .def_property_readonly("lanes", [](const PySolver& self) { return self.solver.lanes(); })
        .def_property_readonly("num_parameters", [](const PySolver& self) { return self.solver.num_parameters(); })
        .def_property_readonly("metadata_json", [](const PySolver& self) { return self.solver.metadata_json(); });
    m.attr("QUAT_NORM_TOLERANCE") = kQuatNormTolerance;
    m.attr("MAX_ITERATIONS") = kMaxIterations;
    m.attr("MAX_ATTEMPTS") = kMaxAttempts;
}

}  // namespace mfik
