// mfik._native: whole paths. mfik/solve/paths.py checks what is given; what is refused here all the same raises
// ValueError.
#include "mfik/path.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <exception>

#include "bindings/bindings.hpp"
#include "bindings/py_solver.hpp"

namespace py = pybind11;

namespace mfik {
namespace {

Span<const double> view(const Doubles& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

/// Python's callable, and the signals of its interpreter, asked by a search that runs without the GIL. What either
/// raises ends the search and is raised behind it.
class Progress {
  public:
    explicit Progress(py::object callable) : callable_(std::move(callable)) {}

    bool operator()(double share) {
        const py::gil_scoped_acquire acquire;
        try {
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
            return !callable_.is_none() && callable_(share).equal(py::bool_(true));
        } catch (...) {
            raised_ = std::current_exception();
            return true;
        }
    }
    void raise() const {
        if (raised_ != nullptr) std::rethrow_exception(raised_);
    }

  private:
    py::object callable_;
    std::exception_ptr raised_;
};

/// (q, status, reached, reason, length, largest_step, attempts, time_us).
py::tuple solve_path(const PySolver& self, const Doubles& poses, const py::object& options, const Doubles& max_step,
                     const Doubles& q_start, const Doubles& q_goal, const Doubles& q_ref, double edge_check,
                     double time_limit, std::uint64_t random_seed, const py::object& callable) {
    PathOptions path;
    path.max_step = view(max_step);
    path.q_start = view(q_start);
    path.q_goal = view(q_goal);
    path.q_ref = view(q_ref);
    path.edge_check = edge_check;
    path.time_limit_s = time_limit;
    path.random_seed = random_seed;
    Progress progress(callable);
    path.progress = [&progress](double share) { return progress(share); };
    PathResult result;
    const Options& asked = options_of(options);
    {
        const py::gil_scoped_release release;
        result = self.solver.solve_path(view(poses), path, asked);
    }
    progress.raise();
    if (result.status == Status::kInvalidInput) throw py::value_error(result.reason);
    const py::ssize_t dof = self.solver.dof();
    Doubles q({static_cast<py::ssize_t>(result.reached), dof}), largest(dof);
    std::copy(result.q.begin(), result.q.end(), q.mutable_data());
    std::copy(result.largest_step.begin(), result.largest_step.end(), largest.mutable_data());
    return py::make_tuple(q, static_cast<int>(result.status), result.reached, result.reason, result.length, largest,
                          result.attempts, result.time_us);
}

}  // namespace

void bind_path(py::class_<PySolver>& solver) {
    solver.def("solve_path", &solve_path);
}

}  // namespace mfik
