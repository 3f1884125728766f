// mfik._native.Chain: kinematics of NumPy arrays. What is refused here, mfik/robots/robot.py names.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
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

Chain make_chain(const Doubles& origins, const std::vector<std::string>& kinds) {
    const auto dof = static_cast<py::ssize_t>(kinds.size());
    if (dof < 1 || dof > kMaxJoints) throw py::value_error("kinds: expected 1 to 16 joints");
    if (origins.size() != 12 * (dof + 1)) throw py::value_error("origins: expected [J + 1, 3, 4]");
    Chain chain;
    chain.dof = static_cast<int>(dof);
    for (int j = 0; j <= chain.dof; ++j) std::copy_n(origins.data() + 12 * j, 12, chain.origin[j]);
    std::transform(kinds.begin(), kinds.end(), chain.kind, joint_kind);
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
        .def(py::init(&make_chain), py::arg("origins"), py::arg("kinds"))
        .def("fk", &fk, py::arg("q"))
        .def("jacobian", &jacobian, py::arg("q"));
}

}  // namespace mfik
