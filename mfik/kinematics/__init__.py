"""Rigid-body maths of serial chains in PyTorch: SE(3), forward kinematics, Jacobians, pose errors, refinement."""

from mfik.kinematics.forward import Chain, fk, fk_and_jacobian, jacobian
from mfik.kinematics.pose import pose_error, position_error_m, rotation_error_rad
from mfik.kinematics.refinement import RefineResult, refine
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
    "jacobian",
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
