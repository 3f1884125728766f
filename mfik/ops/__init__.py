"""Fused ops: sampling, weighting, the loss of a row, and the kinematics of labels and solutions.

Each runs a native kernel where there is one for the device, else the PyTorch reference of the same name in
`_reference.py` (of `geometry`: `mfik.model.v2.Geometry.reference`). None has a forward-mode derivative, and only
`weighted_residual_loss` and `fk_error` have a gradient: never call them inside a differentiated network, to which they
are constants.
`geometry` is called there, by a function that takes its gradient from `geometry_backward` and forward mode elsewhere.
"""

from mfik import needs_torch  # noqa: F401
from mfik.ops._backend import has_kernel
from mfik.ops._reference import MIN_REMAINING, Batch, SolveRows, draw_normal
from mfik.ops.adaptive_weight import adaptive_weight
from mfik.ops.fk_error import fk_error
from mfik.ops.geometry import GeometryRobot, geometry, geometry_backward, has_geometry
from mfik.ops.kinematics import fk, jacobian, refine, solve
from mfik.ops.sample_batch import draw_batch, sample_batch
from mfik.ops.weighted_residual_loss import weighted_residual_loss

__all__ = [
    "MIN_REMAINING",
    "Batch",
    "GeometryRobot",
    "SolveRows",
    "adaptive_weight",
    "draw_batch",
    "draw_normal",
    "fk",
    "fk_error",
    "geometry",
    "geometry_backward",
    "has_geometry",
    "has_kernel",
    "jacobian",
    "refine",
    "sample_batch",
    "solve",
    "weighted_residual_loss",
]
