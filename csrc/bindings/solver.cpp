// mfik._native.Solver. Argument values are checked in mfik/solve/solver.py, where messages are easy; only what memory
// safety needs is checked here.
#include "mfik/solver.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
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

Options make_options(double tol_pos_m, double tol_rot_rad, int max_iterations) {
    Options options;
    options.tol_pos_m = tol_pos_m;
    options.tol_rot_rad = tol_rot_rad;
    options.max_iterations = max_iterations;
    return options;
}

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

py::tuple solve(PySolver& self, const Doubles& pose, const Doubles& q_ref, double tol_pos_m, double tol_rot_rad,
                int max_iterations) {
    Pose target{};
    if (pose.size() != static_cast<py::ssize_t>(target.size())) throw py::value_error("pose: expected [7]");
    std::copy_n(pose.data(), target.size(), target.begin());
    Doubles q(self.solver.dof());
    const Result result = self.solver.solve(target, view(q_ref), {q.mutable_data(), static_cast<std::size_t>(q.size())},
                                            self.workspace, make_options(tol_pos_m, tol_rot_rad, max_iterations));
    if (result.status == Status::kInvalidInput) throw py::value_error("invalid input to mfik._native.Solver.solve");
    return py::make_tuple(std::move(q), static_cast<int>(result.status), result.pos_error_m, result.rot_error_rad,
                          result.iterations);
}

py::tuple solve_batch(const PySolver& self, const Doubles& poses, const Doubles& q_ref, double tol_pos_m,
                      double tol_rot_rad, int max_iterations, bool time_each, int threads) {
    const py::ssize_t rows = poses.ndim() == 2 ? poses.shape(0) : 0;
    const std::size_t n = static_cast<std::size_t>(rows);
    Doubles q({rows, static_cast<py::ssize_t>(self.solver.dof())});
    Doubles pos_error(rows), rot_error(rows), time_us(time_each ? rows : 0);
    py::array_t<std::int64_t> status(rows), iterations(rows);
    std::vector<Result> results(n, Result{Status::kInvalidInput, 0.0, 0.0, 0});
    {
        const Span<const double> pose_view = view(poses), q_ref_view = view(q_ref);
        const Span<double> q_view(q.mutable_data(), static_cast<std::size_t>(q.size()));
        const Span<double> time_view(time_us.mutable_data(), static_cast<std::size_t>(time_us.size()));
        const Options options = make_options(tol_pos_m, tol_rot_rad, max_iterations);
        const py::gil_scoped_release release;
        (void)self.solver.solve_batch(pose_view, q_ref_view, q_view, results, time_view, options, threads);
    }
    for (py::ssize_t i = 0; i < rows; ++i) {
        const Result& result = results[static_cast<std::size_t>(i)];
        if (result.status == Status::kInvalidInput) {
            throw py::value_error("invalid input to mfik._native.Solver.solve_batch");
        }
        status.mutable_at(i) = static_cast<int>(result.status);
        pos_error.mutable_at(i) = result.pos_error_m;
        rot_error.mutable_at(i) = result.rot_error_rad;
        iterations.mutable_at(i) = result.iterations;
    }
    return py::make_tuple(std::move(q), std::move(status), std::move(pos_error), std::move(rot_error),
                          std::move(iterations), time_each ? py::object(std::move(time_us)) : py::none());
}

}  // namespace

void bind_solver(py::module_& m) {
    py::class_<PySolver>(m, "Solver", "C++ solver; use mfik.solve.Solver, which checks its arguments.")
        .def_static("load", &load, py::arg("path"))
        .def("solve", &solve, py::arg("pose"), py::arg("q_ref"), py::arg("tol_pos_m"), py::arg("tol_rot_rad"),
             py::arg("max_iterations"))
        .def("solve_batch", &solve_batch, py::arg("poses"), py::arg("q_ref"), py::arg("tol_pos_m"),
             py::arg("tol_rot_rad"), py::arg("max_iterations"), py::arg("time_each"), py::arg("threads"))
        .def_property_readonly("dof", [](const PySolver& self) { return self.solver.dof(); })
        .def_property_readonly("num_parameters", [](const PySolver& self) { return self.solver.num_parameters(); })
        .def_property_readonly("metadata_json", [](const PySolver& self) { return self.solver.metadata_json(); });
    m.attr("QUAT_NORM_TOLERANCE") = kQuatNormTolerance;
    m.attr("MAX_ITERATIONS") = kMaxIterations;
}

}  // namespace mfik
