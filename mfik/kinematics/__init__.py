"""Rigid-body maths of serial chains: the chain itself, and in PyTorch SE(3), forward kinematics, Jacobians, pose
errors and refinement, imported when one of them is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mfik.kinematics.chain import Chain
from mfik.kinematics.tensors import is_tensor

if TYPE_CHECKING:
    from mfik.kinematics.forward import fk, fk_and_jacobian, jacobian
    from mfik.kinematics.pose import pose_error, position_error_m, rotation_error_rad
    from mfik.kinematics.refinement import RefineResult, limits_like, refine
    from mfik.kinematics.se3 import (
        azimuth,
        canonical_quat,
        normalize_pose,
        quat_conjugate,
        quat_from_matrix,
        quat_multiply,
        quat_rotate,
        quat_to_matrix,
        rotation_vector,
    )

__all__ = [
    "Chain",
    "RefineResult",
    "azimuth",
    "canonical_quat",
    "fk",
    "fk_and_jacobian",
    "is_tensor",
    "jacobian",
    "limits_like",
    "normalize_pose",
    "pose_error",
    "position_error_m",
    "quat_conjugate",
    "quat_from_matrix",
    "quat_multiply",
    "quat_rotate",
    "quat_to_matrix",
    "refine",
    "rotation_error_rad",
    "rotation_vector",
]

_IN_PYTORCH = {
    "forward": ("fk", "fk_and_jacobian", "jacobian"),
    "pose": ("pose_error", "position_error_m", "rotation_error_rad"),
    "refinement": ("RefineResult", "limits_like", "refine"),
}


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch when it is first asked for, and keep it."""
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _IN_PYTORCH.items() if name in names), "se3")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
