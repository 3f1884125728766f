// mfik._native.World. mfik/collision/world.py checks what is given; what is refused here all the same raises
// ValueError.
#include "mfik/collision.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>

#include "bindings/bindings.hpp"

namespace py = pybind11;

namespace mfik {
namespace {

/// The index that add() returns; its error as a ValueError.
template <typename Add>
int added(const Add& add) {
    try {
        return add();
    } catch (const Error& error) {
        throw py::value_error(error.what());
    }
}

void set_pose(World& world, int shape, const Pose& pose) {
    if (world.set_pose(shape, pose) != Status::kSolved) {
        throw py::value_error("pose: expected a shape of the world and seven finite numbers with a unit quaternion");
    }
}

}  // namespace

void bind_collision(const py::module_& m) {
    py::class_<World>(m, "World", "Shapes in C++; use mfik.collision.World, which checks its arguments.")
        .def(py::init())
        .def("add_sphere", [](World& self, const std::string& name, double radius,
                              const Pose& pose) { return added([&] { return self.add_sphere(name, radius, pose); }); })
        .def("add_box", [](World& self, const std::string& name, const std::array<double, 3>& size,
                           const Pose& pose) { return added([&] { return self.add_box(name, size, pose); }); })
        .def("add_cylinder",
             [](World& self, const std::string& name, double radius, double length, const Pose& pose) {
                 return added([&] { return self.add_cylinder(name, radius, length, pose); });
             })
        .def("add_capsule",
             [](World& self, const std::string& name, double radius, double length, const Pose& pose) {
                 return added([&] { return self.add_capsule(name, radius, length, pose); });
             })
        .def("add_half_space", [](World& self, const std::string& name,
                                  const Pose& pose) { return added([&] { return self.add_half_space(name, pose); }); })
        .def("add_point_cloud",
             [](World& self, const std::string& name, const Doubles& points, double radius, const Pose& pose) {
                 return added([&] {
                     return self.add_point_cloud(name, {points.data(), static_cast<std::size_t>(points.size())}, radius,
                                                 pose);
                 });
             })
        .def("set_pose", &set_pose, py::arg("shape"), py::arg("pose"));
}

}  // namespace mfik
