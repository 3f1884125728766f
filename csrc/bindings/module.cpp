// Python extension mfik._native: kernels on raw pointers (checked in mfik/ops), kinematics of arrays and the C++
// solver.
#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"

PYBIND11_MODULE(_native, m) {
    m.doc() =
        "Native kernels and solver of mfik. Use mfik.ops, mfik.robots and mfik.solve, which check their arguments.";
    mfik::bind_kernels(m);
    mfik::bind_kinematics(m);
    mfik::bind_collision(m);  // before those that take a world
    mfik::bind_solver(m);
}
