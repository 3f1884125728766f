"""Orientations that are spread evenly over all there are."""

from __future__ import annotations

import numpy as np

# Alexa, "Super-Fibonacci Spirals: Fast, Low-Discrepancy Sampling of SO(3)", CVPR 2022, algorithm 1.
_PHI = 2.0**0.5
_PSI = 1.533751168755204288118041  # the positive root of psi^4 = psi + 4


def super_fibonacci(n: int) -> np.ndarray:
    """Return n orientations spread evenly over SO(3): a super-Fibonacci spiral (Alexa, 2022).

    Args:
        n: Number of orientations, at least 1.
    Returns:
        Unit quaternions [qw, qx, qy, qz] with `qw >= 0`, [n, 4].
    """
    s = np.arange(n) + 0.5
    inner, outer = np.sqrt(s / n), np.sqrt(1.0 - s / n)
    alpha, beta = 2.0 * np.pi * s / _PHI, 2.0 * np.pi * s / _PSI
    quats = np.stack([inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)], axis=1)
    return np.where(quats[:, :1] < 0.0, -quats, quats)


def rotation_matrix(quat: np.ndarray) -> np.ndarray:
    """Return the rotation of a unit quaternion [qw, qx, qy, qz], [3, 3]."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
