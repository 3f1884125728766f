#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace mfik {

using Doubles = pybind11::array_t<double, pybind11::array::c_style | pybind11::array::forcecast>;

void bind_collision(const pybind11::module_& m);
void bind_kernels(pybind11::module_& m);
void bind_kinematics(const pybind11::module_& m);
void bind_solver(const pybind11::module_& m);

}  // namespace mfik
