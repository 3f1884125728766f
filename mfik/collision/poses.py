"""Poses of shapes and objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mfik.errors import ArgumentError

QUAT_NORM_TOLERANCE = 1e-3  # kQuatNormTolerance of csrc/include/mfik/solver.hpp


def as_pose(argument: str, pose: ArrayLike) -> np.ndarray:
    """Return a pose [x, y, z, qw, qx, qy, qz] with a unit quaternion, [7].

    Raises:
        ArgumentError: It has another size, is not finite, or its quaternion's norm is off 1 by more than 1e-3.
    """
    try:
        array = np.array(pose, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{argument}: expected seven numbers [x, y, z, qw, qx, qy, qz], got {error}") from None
    if array.shape != (7,) or not np.isfinite(array).all():
        raise ArgumentError(
            f"{argument}: expected seven finite numbers [x, y, z, qw, qx, qy, qz], got {array.tolist()!s:.100}"
        )
    norm = float(np.linalg.norm(array[3:]))
    if abs(norm - 1.0) > QUAT_NORM_TOLERANCE:
        raise ArgumentError(f"{argument}: expected a unit quaternion, got norm {norm:.6g}; normalise pose[3:7]")
    array[3:] /= norm
    return array


def as_transform(argument: str, pose: ArrayLike) -> np.ndarray:
    """Return the transform [4, 4] of a pose; see `as_pose`."""
    x, y, z, qw, qx, qy, qz = as_pose(argument, pose)
    transform = np.eye(4)
    transform[:3, :3] = [
        [1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy - qw * qz), 2 * (qx * qz + qw * qy)],
        [2 * (qx * qy + qw * qz), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz - qw * qx)],
        [2 * (qx * qz - qw * qy), 2 * (qy * qz + qw * qx), 1 - 2 * (qx * qx + qy * qy)],
    ]
    transform[:3, 3] = x, y, z
    return transform
