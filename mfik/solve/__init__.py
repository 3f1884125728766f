"""Inverse kinematics: Python face of the C++ solver, and the same on CUDA. Without CUDA tensors it needs NumPy only."""

from mfik.solve.clearance import Clearance
from mfik.solve.paths import PathResult
from mfik.solve.solver import Solver, model_path, pretrained_names
from mfik.solve.tracker import Tracker
from mfik.solve.types import BatchResult, Options, Result, Seed, Status, TensorResult

__all__ = [
    "BatchResult",
    "Clearance",
    "Options",
    "PathResult",
    "Result",
    "Seed",
    "Solver",
    "Status",
    "TensorResult",
    "Tracker",
    "model_path",
    "pretrained_names",
]
