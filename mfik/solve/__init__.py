"""Inverse kinematics: Python face of the C++ solver, and the same on a GPU."""

from mfik.solve.solver import (  # isort: skip (cuda imports it)
    BatchResult,
    Options,
    Result,
    Seed,
    Solver,
    Status,
    model_path,
    pretrained_names,
)
from mfik.solve.cuda import TensorResult

__all__ = [
    "BatchResult",
    "Options",
    "Result",
    "Seed",
    "Solver",
    "Status",
    "TensorResult",
    "model_path",
    "pretrained_names",
]
