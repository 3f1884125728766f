"""Differences between poses."""

from __future__ import annotations

import torch
from torch import Tensor

from mfik.errors import ArgumentError
from mfik.kinematics.se3 import quat_conjugate, quat_multiply, rotation_vector


def pose_error(pose: Tensor, target_pose: Tensor) -> Tensor:
    """Compute the displacement from a pose to its target, in the base frame.

    `[p* - p, log(R* R^T)]`, so that `J dq = pose_error` to first order, with J of `kinematics.jacobian`.

    Args:
        pose: T_base_tool, [..., 7].
        target_pose: Desired T_base_tool, quaternion of either sign, [..., 7].
    Returns:
        Displacement [m, rad], [..., 6].
    Raises:
        ArgumentError: An argument is not [..., 7].
    """
    relative = _relative_quat(pose, target_pose)
    return torch.cat([target_pose[..., :3] - pose[..., :3], rotation_vector(relative)], dim=-1)


def position_error_m(pose: Tensor, target_pose: Tensor) -> Tensor:
    """Compute the distance of two poses' origins.

    Args:
        pose: T_base_tool, [..., 7].
        target_pose: Desired T_base_tool, [..., 7].
    Returns:
        Distance [m], [...].
    Raises:
        ArgumentError: An argument is not [..., 7].
    """
    _check_pose("pose", pose)
    _check_pose("target_pose", target_pose)
    return torch.linalg.vector_norm(target_pose[..., :3] - pose[..., :3], dim=-1)


def rotation_error_rad(pose: Tensor, target_pose: Tensor) -> Tensor:
    """Compute the angle between two poses' orientations.

    `2 atan2(|v|, |w|)` of the relative quaternion: arccos would lose half of the digits near 0.

    Args:
        pose: T_base_tool, quaternion of either sign, [..., 7].
        target_pose: Desired T_base_tool, quaternion of either sign, [..., 7].
    Returns:
        Angle [rad] in [0, pi], [...].
    Raises:
        ArgumentError: An argument is not [..., 7].
    """
    relative = _relative_quat(pose, target_pose)
    return 2.0 * torch.atan2(torch.linalg.vector_norm(relative[..., 1:], dim=-1), relative[..., 0].abs())


def _relative_quat(pose: Tensor, target_pose: Tensor) -> Tensor:
    """Return the quaternion of `R* R^T`, [..., 4]."""
    _check_pose("pose", pose)
    _check_pose("target_pose", target_pose)
    return quat_multiply(target_pose[..., 3:], quat_conjugate(pose[..., 3:]))


def _check_pose(name: str, pose: Tensor) -> None:
    if pose.shape[-1:] != (7,):
        raise ArgumentError(f"{name}: expected [..., 7] as [x, y, z, qw, qx, qy, qz], got {list(pose.shape)}")
