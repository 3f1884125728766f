// mfik._native.Solver. One call costs Python little: arguments are read as they are, and the solver checks their
// values. What is refused raises ValueError; mfik/solve then converts what can be converted, and names what is wrong.
#include "mfik/solver.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/py_solver.hpp"
#include "kernels/chain.hpp"
#include "mfik/collision.hpp"

namespace py = pybind11;

namespace mfik {
namespace {

constexpr std::pair<const char*, Seed> kSeeds[] = {{"reference", Seed::kReference},
                                                   {"network", Seed::kNetwork},
                                                   {"midpoint", Seed::kMidpoint},
                                                   {"azimuth", Seed::kAzimuth}};
constexpr std::pair<const char*, Status> kStatuses[] = {
    {"SOLVED", Status::kSolved},           {"NOT_CONVERGED", Status::kNotConverged},
    {"UNREACHABLE", Status::kUnreachable}, {"AT_LIMITS", Status::kAtLimits},
    {"JUMP_BOUND", Status::kJumpBound},    {"INVALID_INPUT", Status::kInvalidInput},
    {"IN_COLLISION", Status::kInCollision}};

Span<const double> view(const Doubles& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

std::size_t size_of(const Doubles& array) {
    return static_cast<std::size_t>(array.size());
}

[[noreturn]] void refuse(const char* argument) {
    throw py::value_error(std::string(argument) + ": expected another type or size");
}

/// A Python float or int, whose value the solver checks.
double read_number(const py::handle& from, const char* name) {
    if (PyFloat_Check(from.ptr())) return PyFloat_AS_DOUBLE(from.ptr());
    if (!PyLong_CheckExact(from.ptr())) refuse(name);
    const double value = PyLong_AsDouble(from.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        refuse(name);
    }
    return value;
}

int read_integer(const py::handle& from, const char* name) {
    if (!PyLong_CheckExact(from.ptr())) refuse(name);
    int overflow = 0;
    const long value = PyLong_AsLongAndOverflow(from.ptr(), &overflow);
    if (overflow != 0 || value != static_cast<int>(value)) refuse(name);
    return static_cast<int>(value);
}

/// Numbers of a vector argument, at most as many as the longest has.
class Vector {
  public:
    /// `from`: an array [n] of float64 with any stride, or a list or tuple of Python's numbers.
    Vector(const py::handle& from, const char* name) {
        const bool is_list = PyList_CheckExact(from.ptr());
        if (is_list || PyTuple_CheckExact(from.ptr())) {
            PyObject** items = PySequence_Fast_ITEMS(from.ptr());
            resize(PySequence_Fast_GET_SIZE(from.ptr()), name);
            for (std::size_t i = 0; i < size_; ++i) values_[i] = read_number(items[i], name);
        } else if (py::isinstance<py::array_t<double>>(from)) {
            const auto array = py::reinterpret_borrow<py::array>(from);
            if (array.ndim() != 1) refuse(name);
            resize(array.shape(0), name);
            const char* element = static_cast<const char*>(array.data());
            for (std::size_t i = 0; i < size_; ++i, element += array.strides(0)) {
                std::memcpy(&values_[i], element, sizeof(double));
            }
        } else {
            refuse(name);
        }
    }

    /// The same, for exactly N numbers.
    template <std::size_t N>
    static std::array<double, N> exactly(const py::handle& from, const char* name) {
        const Vector vector(from, name);
        if (vector.size_ != N) refuse(name);
        std::array<double, N> values;
        std::copy_n(vector.values_.begin(), N, values.begin());
        return values;
    }

    [[nodiscard]] Span<const double> view() const { return {values_.data(), size_}; }

  private:
    void resize(py::ssize_t size, const char* name) {
        if (size > static_cast<py::ssize_t>(values_.size())) refuse(name);
        size_ = static_cast<std::size_t>(size);
    }

    std::array<double, kMaxJoints> values_;
    std::size_t size_ = 0;
};

Seed read_seed(const py::handle& name) {
    if (!PyUnicode_Check(name.ptr())) refuse("seed");
    for (const auto& [known, seed] : kSeeds)
        if (PyUnicode_CompareWithASCIIString(name.ptr(), known) == 0) return seed;
    refuse("seed");
}

/// Bits of joints, from their indices.
std::uint32_t read_locked(const py::handle& joints) {
    if (!PyTuple_CheckExact(joints.ptr()) && !PyList_CheckExact(joints.ptr())) refuse("locked");
    std::uint32_t bits = 0;
    for (py::ssize_t i = 0; i < PySequence_Fast_GET_SIZE(joints.ptr()); ++i) {
        const int joint = read_integer(PySequence_Fast_GET_ITEM(joints.ptr(), i), "locked");
        if (joint < 0 || joint >= kMaxJoints) refuse("locked");
        bits |= std::uint32_t{1} << joint;
    }
    return bits;
}

SelfCollision read_self_collision(const py::handle& from) {
    if (from.ptr() == Py_None) return SelfCollision::kWithWorld;
    if (!PyBool_Check(from.ptr())) refuse("self_collision");
    return from.ptr() == Py_True ? SelfCollision::kOn : SelfCollision::kOff;
}

/// Options from a tuple of the fields of `mfik.solve.Options`, in their order, with the memory that they refer to.
class PyOptions {
  public:
    explicit PyOptions(const py::tuple& fields) : PyOptions(fields, check_size(fields)) {}
    PyOptions(const PyOptions&) = delete;
    PyOptions& operator=(const PyOptions&) = delete;

    [[nodiscard]] const Options& get() const { return options_; }

  private:
    static constexpr std::size_t kFields = 15;
    static PyObject* const* check_size(const py::tuple& fields) {
        if (fields.size() != kFields) refuse("options");
        return PySequence_Fast_ITEMS(fields.ptr());
    }
    PyOptions(const py::tuple&, PyObject* const* field) {
        options_.tol_pos_m = read_number(field[0], "tol_pos");
        options_.tol_rot_rad = read_number(field[1], "tol_rot");
        options_.max_iterations = read_integer(field[2], "max_iterations");
        options_.max_attempts = read_integer(field[3], "max_attempts");
        options_.seed = read_seed(field[4]);
        if (!PyBool_Check(field[5])) refuse("nearest");
        options_.nearest = field[5] == Py_True;
        if (field[6] != Py_None) {
            weights_.emplace(field[6], "joint_weights");
            options_.joint_weights = weights_->view();
            if (options_.joint_weights.empty()) refuse("joint_weights");
        }
        options_.T_tip_tool = Vector::exactly<7>(field[7], "tool");
        options_.slack = Vector::exactly<6>(field[8], "slack");
        options_.locked = read_locked(field[9]);
        if (field[10] != Py_None) {
            preferred_.emplace(field[10], "q_preferred");
            options_.q_preferred = preferred_->view();
            if (options_.q_preferred.empty()) refuse("q_preferred");
        }
        options_.preference_gain = read_number(field[11], "preference_gain");
        if (field[12] != Py_None) {
            // Of mfik.collision.World, which holds it by a reference of its own.
            world_ = py::reinterpret_borrow<py::object>(py::getattr(field[12], "native", py::none()));
            if (!py::isinstance<World>(world_)) refuse("world");
            options_.world = &world_.cast<const World&>();
        }
        options_.self_collision = read_self_collision(field[13]);
        options_.margin_m = read_number(field[14], "margin");
    }

    std::optional<Vector> weights_, preferred_;
    py::object world_;
    Options options_;
};

/// Call body(options), where Python gave `mfik._native.Options` or its fields.
template <typename Body>
auto with_options(const py::handle& given, const Body& body) {
    if (!PyTuple_CheckExact(given.ptr())) return body(given.cast<const PyOptions&>().get());
    const PyOptions options(py::reinterpret_borrow<py::tuple>(given));
    return body(options.get());
}

/// The solver that make() returns; its error as a BundleError.
template <typename Make>
PySolver made(const Make& make) {
    try {
        return PySolver(make());
    } catch (const Error& error) {
        // The message may hold a path that is no UTF-8.
        const auto message = py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(error.what()));
        PyErr_SetObject(py::module_::import("mfik.errors").attr("BundleError").ptr(), message.ptr());
        throw py::error_already_set();
    }
}

/// (q, status, pos_error, rot_error, iterations, attempts, time_us, reason, pair), of invalid input, too.
py::tuple fields(const Result& result, const Doubles& q) {
    py::object pair = py::none();
    if (result.first != nullptr) pair = py::make_tuple(result.first, result.second);
    return py::make_tuple(q, static_cast<int>(result.status), result.pos_error_m, result.rot_error_rad,
                          result.iterations, result.attempts, result.time_us, result.reason, pair);
}

/// The same of valid input.
py::tuple as_tuple(const Result& result, const Doubles& q) {
    if (result.status == Status::kInvalidInput) throw py::value_error(result.reason);
    return fields(result, q);
}

py::tuple solve(PySolver& self, const py::handle& pose, const py::handle& q_ref, const py::handle& options) {
    const Pose target = Vector::exactly<7>(pose, "pose");
    const Vector start(q_ref, "q_ref");
    Doubles q(self.solver.dof());
    return with_options(options, [&](const Options& read) {
        return as_tuple(self.solver.solve(target, start.view(), {q.mutable_data(), size_of(q)}, self.workspace, read),
                        q);
    });
}

py::tuple track(PySolver& self, const py::handle& pose, const py::handle& q_prev, const py::handle& max_step,
                const py::handle& options) {
    const Pose target = Vector::exactly<7>(pose, "pose");
    const Vector start(q_prev, "q_prev");
    Doubles q(self.solver.dof());
    const auto call = [&](const auto& bound) {
        return with_options(options, [&](const Options& read) {
            return as_tuple(
                self.solver.track(target, start.view(), bound, {q.mutable_data(), size_of(q)}, self.workspace, read),
                q);
        });
    };
    if (PyFloat_Check(max_step.ptr()) || PyLong_CheckExact(max_step.ptr()))
        return call(read_number(max_step, "max_step"));
    const Vector bounds(max_step, "max_step");
    if (bounds.view().size() != size_of(q)) refuse("max_step");
    return call(bounds.view());
}

py::tuple solve_all(PySolver& self, const py::handle& pose, const py::handle& q_ref, int n, double min_distance,
                    const py::handle& options) {
    const Pose target = Vector::exactly<7>(pose, "pose");
    const Vector start(q_ref, "q_ref");
    Doubles q({n, self.solver.dof()});
    return with_options(options, [&](const Options& read) {
        const Result result = self.solver.solve_all(target, start.view(), {q.mutable_data(), size_of(q)},
                                                    self.workspace, min_distance, read);
        q.resize({result.solutions, self.solver.dof()});
        return as_tuple(result, q);
    });
}

py::tuple solve_batch(const PySolver& self, const Doubles& poses, const Doubles& q_ref, const py::handle& options,
                      bool time_each, int threads, bool throughput) {
    const py::ssize_t rows = poses.ndim() == 2 ? poses.shape(0) : 0;
    const std::size_t n = static_cast<std::size_t>(rows);
    Doubles q({rows, static_cast<py::ssize_t>(self.solver.dof())});
    Doubles pos_error(rows), rot_error(rows), time_us(time_each ? rows : 0);
    py::array_t<std::int64_t> status(rows), iterations(rows), attempts(rows);
    std::vector<Result> results(
        n, Result{Status::kInvalidInput, 0.0, 0.0, 0, 0, 0, 0.0, "sizes disagree", nullptr, nullptr});
    {
        const Span<const double> pose_view = view(poses), q_ref_view = view(q_ref);
        const Span<double> q_view(q.mutable_data(), size_of(q)), time_view(time_us.mutable_data(), size_of(time_us));
        with_options(options, [&](const Options& read) {
            Options asked = read;
            asked.throughput = throughput;
            const py::gil_scoped_release release;
            (void)self.solver.solve_batch(pose_view, q_ref_view, q_view, results, time_view, asked, threads);
        });
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

/// Arguments that a constructor refuses, as an ArgumentError.
Tracker make_tracker(const PySolver& solver, const Doubles& q, double dt, const py::object& velocity,
                     const Doubles& acceleration) {
    const Doubles bounds = velocity.is_none() ? Doubles(0) : velocity.cast<Doubles>();
    try {
        return {solver.solver, view(q), dt, view(bounds), view(acceleration)};
    } catch (const Error& error) {
        PyErr_SetString(py::module_::import("mfik.errors").attr("ArgumentError").ptr(), error.what());
        throw py::error_already_set();
    }
}

py::tuple step(Tracker& self, const py::handle& pose, const py::handle& options) {
    const Pose target = Vector::exactly<7>(pose, "pose");
    return with_options(options, [&](const Options& read) {
        const Result result = self.step(target, read);
        const Span<const double> q = self.q();
        return fields(result, Doubles(static_cast<py::ssize_t>(q.size()), q.data()));
    });
}

std::string explain(const PySolver& self, const Doubles& q, int status, double pos_error, double rot_error,
                    int iterations, int attempts, const std::string& reason,
                    const std::optional<std::pair<std::string, std::string>>& pair) {
    return self.solver.explain(
        {static_cast<Status>(status), pos_error, rot_error, iterations, attempts, 0, 0.0, reason.c_str(),
         pair ? pair->first.c_str() : nullptr, pair ? pair->second.c_str() : nullptr},
        view(q));
}

/// (distance, first, second, gradient) of a row of joints.
py::tuple clearance(const PySolver& self, const py::handle& q, const World* world, bool self_collision) {
    const Vector joints(q, "q");
    const Clearance found = self.solver.clearance(joints.view(), world, self_collision);
    if (std::isnan(found.distance_m)) refuse("q");
    Doubles gradient(self.solver.dof());
    std::copy_n(found.gradient.begin(), self.solver.dof(), gradient.mutable_data());
    return py::make_tuple(found.distance_m, found.first, found.second, gradient);
}

/// Whether each row of q [N, J] keeps the margin.
py::array_t<bool> is_free(const PySolver& self, const Doubles& q, const World* world, double margin,
                          bool self_collision) {
    const py::ssize_t rows = q.ndim() == 2 ? q.shape(0) : 0;
    py::array_t<bool> free(rows);
    static_assert(sizeof(bool) == sizeof(unsigned char));
    const Span<unsigned char> out(reinterpret_cast<unsigned char*>(free.mutable_data()),
                                  static_cast<std::size_t>(rows));
    Status status = Status::kSolved;
    {
        const py::gil_scoped_release release;
        status = self.solver.is_free(view(q), world, out, margin, self_collision);
    }
    if (status != Status::kSolved) refuse("q");
    return free;
}

}  // namespace

const Options& options_of(const py::handle& given) {
    return given.cast<const PyOptions&>().get();
}

void bind_solver(const py::module_& m) {
    py::class_<PyOptions>(m, "Options", "Fields of mfik.solve.Options, read once.").def(py::init<const py::tuple&>());
    py::class_<PySolver> solver(m, "Solver", "C++ solver; use mfik.solve.Solver, which checks its arguments.");
    solver
        .def_static(
            "load", [](const py::bytes& path) { return made([&] { return Solver::load(path); }); }, py::arg("path"))
        .def_static(
            "from_description",
            [](const std::string& json) { return made([&] { return Solver::from_description(json); }); },
            py::arg("json"))
        .def("solve", &solve)
        .def("track", &track)
        .def("solve_all", &solve_all)
        .def("solve_batch", &solve_batch)
        .def("explain", &explain)
        .def("clearance", &clearance)
        .def("is_free", &is_free)
        .def_property_readonly("has_body", [](const PySolver& self) { return self.solver.has_body(); })
        .def_property_readonly("dof", [](const PySolver& self) { return self.solver.dof(); })
        .def_property_readonly("lanes", [](const PySolver& self) { return self.solver.lanes(); })
        .def_property_readonly("num_parameters", [](const PySolver& self) { return self.solver.num_parameters(); })
        .def_property_readonly("metadata_json", [](const PySolver& self) { return self.solver.metadata_json(); });
    bind_path(solver);
    const auto copied = [](Span<const double> values) {
        return Doubles(static_cast<py::ssize_t>(values.size()), values.data());
    };
    py::class_<Tracker>(m, "Tracker", "C++ tracker; use mfik.solve.Tracker, which checks its arguments.")
        .def(py::init(&make_tracker), py::keep_alive<1, 2>())
        .def("step", &step)
        .def_property_readonly("q", [copied](const Tracker& self) { return copied(self.q()); })
        .def_property_readonly("dq", [copied](const Tracker& self) { return copied(self.dq()); });
    py::dict seeds, statuses;
    for (const auto& [name, seed] : kSeeds) seeds[name] = static_cast<int>(seed);
    for (const auto& [name, status] : kStatuses) statuses[name] = static_cast<int>(status);
    m.attr("SEEDS") = seeds;
    m.attr("STATUSES") = statuses;
    m.attr("QUAT_NORM_TOLERANCE") = kQuatNormTolerance;
    m.attr("MAX_TOOL_LENGTH") = kMaxToolLength;
    m.attr("MAX_ITERATIONS") = kMaxIterations;
    m.attr("MAX_ATTEMPTS") = kMaxAttempts;
}

}  // namespace mfik
