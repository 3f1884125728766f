"""Forward kinematics and geometric Jacobian of a serial chain in PyTorch, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from mfik.errors import ArgumentError
from mfik.kinematics.chain import Chain
from mfik.kinematics.se3 import normalize_pose, quat_from_matrix, quat_multiply, quat_rotate
from mfik.kinematics.tensors import keep, to_tensor


def fk(chain: Chain, q: Tensor) -> Tensor:
    """Compute the tool pose in the base frame.

    Args:
        chain: The chain.
        q: Joints [rad or m], [..., J], float32 or float64. NaN propagates.
    Returns:
        T_base_tool [x, y, z, qw, qx, qy, qz], [m], [..., 7], unit quaternion with `qw >= 0`.
    Raises:
        ArgumentError: q has the wrong shape or dtype.
    """
    tool_pose, _, _, _ = _frames(chain, q)
    return tool_pose


def jacobian(chain: Chain, q: Tensor) -> Tensor:
    """Compute the geometric Jacobian in the base frame, reference point = tool origin.

    Same as Pinocchio's LOCAL_WORLD_ALIGNED: `twist = J dq`, twist = [v, w] in [m/s, rad/s].

    Args:
        chain: The chain.
        q: Joints [rad or m], [..., J], float32 or float64.
    Returns:
        Jacobian, [..., 6, J].
    Raises:
        ArgumentError: q has the wrong shape or dtype.
    """
    return fk_and_jacobian(chain, q)[1]


def fk_and_jacobian(chain: Chain, q: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `fk` and `jacobian` at the cost of one pass.

    Args:
        chain: The chain.
        q: Joints [rad or m], [..., J], float32 or float64.
    Returns:
        T_base_tool [..., 7] and the Jacobian [..., 6, J].
    Raises:
        ArgumentError: q has the wrong shape or dtype.
    """
    tool_pose, quats, positions, turns = _frames(chain, q)
    axes = quat_rotate(quats, q.new_tensor([0.0, 0.0, 1.0]))
    levers = tool_pose[..., None, :3] - positions
    linear = turns * torch.linalg.cross(axes, levers) + (1.0 - turns) * axes
    return tool_pose, torch.cat([linear, turns * axes], dim=-1).mT


def check_q(chain: Chain, q: Tensor) -> None:
    """Raise ArgumentError unless q is a float32 or float64 tensor [..., J]."""
    if not isinstance(q, Tensor):
        raise ArgumentError(f"q: expected a tensor [..., {chain.dof}], got {type(q).__name__}; use torch.as_tensor")
    if q.shape[-1:] != (chain.dof,):
        raise ArgumentError(
            f"q: expected [..., {chain.dof}] (one value per joint), got {list(q.shape)}; put the joints last"
        )
    if q.dtype not in (torch.float32, torch.float64):
        raise ArgumentError(f"q: expected torch.float32 or torch.float64, got {q.dtype}; convert with q.float()")


def _frames(chain: Chain, q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the tool pose [..., 7], the moved joint frames' quats [..., J, 4] and positions [..., J, 3], turns [J, 1].

    The orientations are composed joint by joint; everything else is one batched operation over the joints.
    """
    check_q(chain, q)
    quat, quat_k, offset, axis, turns = _table(chain, q).split([4, 4, 3, 3, 1], dim=-1)
    turns = turns[:-1]
    angle = q[..., None] * turns
    slide = q[..., None] * (1.0 - turns)
    local = quat[:-1] * torch.cos(0.5 * angle) + quat_k[:-1] * torch.sin(0.5 * angle)
    quats = [local[..., 0, :]]
    for joint in range(1, chain.dof):
        quats.append(quat_multiply(quats[-1], local[..., joint, :]))
    tool_quat = quat_multiply(quats[-1], quat[-1])
    joint_quats = torch.stack(quats, dim=-2)
    steps = offset[:-1] + axis[:-1] * slide
    tool_step = offset[-1:].expand(*q.shape[:-1], 1, 3)
    turned = quat_rotate(joint_quats, torch.cat([steps[..., 1:, :], tool_step], dim=-2))
    positions = torch.cat([steps[..., :1, :], turned], dim=-2).cumsum(-2)
    tool_pose = normalize_pose(torch.cat([positions[..., -1, :], tool_quat], dim=-1))
    return tool_pose, joint_quats, positions[..., :-1, :], turns


def _table(chain: Chain, like: Tensor) -> Tensor:
    """Return the constants of FK on the device and in the dtype of `like`, [J + 1, 15].

    By row: quat (4), quat * k (4), p (3), z axis (3), 1 if the joint turns, 0 if it slides (1). Row J (the tool) uses
    the first four and p.
    """

    chain.check_no_mimics("tensors")

    def make() -> Tensor:
        origins = to_tensor(chain.origins)
        rotation, translation = origins[..., :3], origins[..., 3]
        quat = quat_from_matrix(rotation)
        quat_k = quat_multiply(quat, origins.new_tensor([0.0, 0.0, 0.0, 1.0]))
        turns = origins.new_tensor([[float(kind != "prismatic")] for kind in (*chain.kinds, "revolute")])
        return torch.cat([quat, quat_k, translation, rotation[..., 2], turns], dim=-1).to(like)

    return keep(chain.tensors, "table", like, make)
