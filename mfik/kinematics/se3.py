"""Rotations and rigid transforms in PyTorch.

A quaternion `quat` is `[w, x, y, z]`; a pose is `[x, y, z, qw, qx, qy, qz]` in metres. `quat` and `-quat` are the same
rotation; the canonical one has `qw >= 0`. All functions take leading batch dimensions, which broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor


def quat_conjugate(quat: Tensor) -> Tensor:
    """Return the inverse rotation of a unit quaternion [..., 4]."""
    return torch.cat([quat[..., :1], -quat[..., 1:]], dim=-1)


def quat_multiply(left: Tensor, right: Tensor) -> Tensor:
    """Compose two rotations: `R(result) = R(left) R(right)`.

    Args:
        left: Quaternion, [..., 4].
        right: Quaternion, [..., 4].
    Returns:
        Hamilton product, [..., 4]; not renormalised.
    """
    left_w, left_v = left[..., :1], left[..., 1:]
    right_w, right_v = right[..., :1], right[..., 1:]
    w = left_w * right_w - (left_v * right_v).sum(-1, keepdim=True)
    v = left_w * right_v + right_w * left_v + _cross(left_v, right_v)
    return torch.cat([w, v], dim=-1)


def quat_rotate(quat: Tensor, vec: Tensor) -> Tensor:
    """Rotate vectors: `R(quat) vec`.

    Args:
        quat: Unit quaternion, [..., 4].
        vec: Vector, [..., 3].
    Returns:
        Rotated vector, [..., 3].
    """
    w, v = quat[..., :1], quat[..., 1:]
    twice_cross = 2.0 * _cross(v, vec)
    return vec + w * twice_cross + _cross(v, twice_cross)


def quat_to_matrix(quat: Tensor) -> Tensor:
    """Convert a unit quaternion [..., 4] to a rotation matrix [..., 3, 3]."""
    w, x, y, z = quat.unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def quat_from_matrix(matrix: Tensor) -> Tensor:
    """Convert a rotation matrix to its canonical unit quaternion.

    Every row of the outer product `4 quat quat^T` is a multiple of the quaternion; the row with the largest diagonal
    entry is free of cancellation (Shepperd 1978, "Quaternion from Rotation Matrix").

    Args:
        matrix: Rotation matrix, [..., 3, 3].
    Returns:
        Unit quaternion with `qw >= 0`, [..., 4].
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (row.unbind(-1) for row in matrix.unbind(-2))
    entries = [
        1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01,
        m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20,
        m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21,
        m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22,
    ]  # fmt: skip
    outer = torch.stack(entries, dim=-1).unflatten(-1, (4, 4))
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = torch.take_along_dim(outer, best[..., None, None], dim=-2).squeeze(-2)
    return canonical_quat(torch.nn.functional.normalize(row, dim=-1))


def canonical_quat(quat: Tensor) -> Tensor:
    """Return the quaternion [..., 4] of the same rotation with `qw >= 0`."""
    return torch.where(quat[..., :1] < 0, -quat, quat)


def normalize_pose(pose: Tensor) -> Tensor:
    """Return the pose [..., 7] with a unit quaternion and `qw >= 0`."""
    quat = pose[..., 3:]
    quat = quat / torch.linalg.vector_norm(quat, dim=-1, keepdim=True)
    return torch.cat([pose[..., :3], canonical_quat(quat)], dim=-1)


def azimuth(base: Tensor, position: Tensor) -> Tensor:
    """Return the angle of points [..., 3] about the z axis of a frame [3, 4], [rad], [...]."""
    local = (position - base[:, 3]) @ base[:, :3]
    return torch.atan2(local[..., 1], local[..., 0])


def rotation_vector(quat: Tensor) -> Tensor:
    """Compute the logarithm of a rotation, the shortest way round.

    Differentiable at the identity. At an angle of exactly pi both directions are shortest and the result jumps.

    Args:
        quat: Unit quaternion of either sign, [..., 4].
    Returns:
        Axis times angle [rad], [..., 3], norm in [0, pi].
    """
    quat = canonical_quat(quat)
    w, v = quat[..., :1], quat[..., 1:]
    norm_sq = (v * v).sum(-1, keepdim=True)
    # angle / |v| = 2 atan(|v| / w) / |v| = 2/w (1 - x^2/3 + x^4/5 - ...), x = |v| / w: two terms suffice for x^4 < eps.
    # Each branch gets a harmless input where the other is taken, as where() would pass 0 * inf = NaN to the gradient.
    small = norm_sq < torch.finfo(quat.dtype).eps ** 0.5
    w_small = torch.where(small, w, 1.0)
    norm = torch.where(small, 1.0, norm_sq).sqrt()
    scale = torch.where(small, 2.0 / w_small * (1.0 - norm_sq / (3.0 * w_small**2)), 2.0 * torch.atan2(norm, w) / norm)
    return scale * v


def _cross(left: Tensor, right: Tensor) -> Tensor:
    """Compute the cross product [..., 3]; torch.linalg.cross itself wants equal numbers of dimensions."""
    return torch.linalg.cross(*torch.broadcast_tensors(left, right))
