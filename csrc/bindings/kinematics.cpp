// mfik._native.Chain: kinematics of NumPy arrays. What is refused here, mfik/robots/robot.py names.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "kernels/kernels.hpp"

namespace py = pybind11;

namespace mfik {
namespace {

JointKind joint_kind(const std::string& name) {
    if (name == "revolute") return JointKind::kRevolute;
    if (name == "continuous") return JointKind::kContinuous;
    if (name == "prismatic") return JointKind::kPrismatic;
    throw py::value_error("kinds: expected revolute, continuous or prismatic");
}

/// @param[in] mimics  For each moving frame the joint that it follows and its multiplier, None for a joint of its own;
///     empty: all are.
Chain make_chain(const Doubles& origins, const std::vector<std::string>& kinds,
                 const std::vector<std::optional<std::pair<int, double>>>& mimics) {
    const auto frames = kinds.size();
    if (frames < 1 || frames > kMaxJoints) throw py::value_error("kinds: expected 1 to 16 joints");
    if (static_cast<std::size_t>(origins.size()) != 12 * (frames + 1))
        throw py::value_error("origins: expected [F + 1, 3, 4]");
    if (!mimics.empty() && mimics.size() != frames)
        throw py::value_error("mimics: expected one for each kind, or none");
    Chain chain;
    for (std::size_t f = 0; f <= frames; ++f) std::copy_n(origins.data() + 12 * f, 12, chain.origin[f]);
    for (std::size_t f = 0; f < frames; ++f) {
        const JointKind kind = joint_kind(kinds[f]);
        const auto mimic = mimics.empty() ? std::nullopt : mimics[f];
        if (mimic) {
            const auto [joint, ratio] = *mimic;
            if (joint < 0 || joint >= chain.dof) throw py::value_error("mimics: expected joints before them");
            chain.frame[f] = {joint, ratio, kind};
            ++chain.mimics;
        } else {
            chain.frame[f] = {chain.dof, 1.0, kind};
            chain.kind[chain.dof++] = kind;
        }
    }
    return chain;
}

/// Joints [..., J] as float64, which are q itself where it is a contiguous array of that type.
Doubles read_joints(const Chain& chain, const py::handle& q) {
    Doubles joints = Doubles::ensure(q);
    if (!joints || joints.ndim() < 1 || joints.shape(joints.ndim() - 1) != chain.dof) {
        throw py::value_error("q: expected numbers [..., J]");
    }
    return joints;
}

/// An array of q's shape with the last dimension replaced by others.
Doubles make_output(const Doubles& q, std::initializer_list<py::ssize_t> last) {
    std::vector<py::ssize_t> shape(q.shape(), q.shape() + q.ndim() - 1);
    shape.insert(shape.end(), last);
    return Doubles(shape);
}

Doubles fk(const Chain& chain, const py::handle& q) {
    const Doubles joints = read_joints(chain, q);
    Doubles pose = make_output(joints, {7});
    const FkArgs<double> args{joints.data(), pose.mutable_data(), joints.size() / chain.dof};
    const py::gil_scoped_release release;
    cpu::fk(chain, args, 1);
    return pose;
}

Doubles jacobian(const Chain& chain, const py::handle& q) {
    const Doubles joints = read_joints(chain, q);
    Doubles jac = make_output(joints, {6, chain.dof});
    const JacobianArgs<double> args{joints.data(), jac.mutable_data(), joints.size() / chain.dof};
    const py::gil_scoped_release release;
    cpu::jacobian(chain, args, 1);
    return jac;
}

}  // namespace

void bind_kinematics(const py::module_& m) {
    py::class_<Chain>(m, "Chain", "Kinematics in C++; use mfik.robots.Robot, which checks its arguments.")
        .def(py::init(&make_chain), py::arg("origins"), py::arg("kinds"), py::arg("mimics"))
        .def("fk", &fk, py::arg("q"))
        .def("jacobian", &jacobian, py::arg("q"));
}

}  // namespace mfik
