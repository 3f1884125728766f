"""Inverse kinematics with an exported network: Python face of the C++ solver."""

from mfik.solve.solver import BatchResult, Result, Solver, Status

__all__ = ["BatchResult", "Result", "Solver", "Status"]
