"""Solvers of robots with spheres on their links."""

import pytest

from mfik.robots import load_robot


def solver_of(name):
    pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)
    from mfik.solve import Solver

    return Solver.from_robot(load_robot(name))


@pytest.fixture(scope="package")
def panda():
    return solver_of("panda")


@pytest.fixture(scope="package")
def ur10():
    return solver_of("ur10")
