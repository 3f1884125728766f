"""Inverse kinematics: Python face of the C++ solver."""

from mfik.solve.solver import BatchResult, Options, Result, Seed, Solver, Status

__all__ = ["BatchResult", "Options", "Result", "Seed", "Solver", "Status"]
