"""Inverse kinematics: Python face of the C++ solver, and the same on a GPU."""

from mfik.solve.solver import BatchResult, Options, Result, Seed, Solver, Status  # isort: skip (device imports it)
from mfik.solve.device import TensorResult

__all__ = ["BatchResult", "Options", "Result", "Seed", "Solver", "Status", "TensorResult"]
