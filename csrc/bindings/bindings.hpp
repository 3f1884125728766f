#pragma once

#include <pybind11/pybind11.h>

namespace mfik {

void bind_kernels(pybind11::module_& m);
void bind_solver(pybind11::module_& m);

}  // namespace mfik
