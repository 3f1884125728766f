"""Serial chains: forward kinematics and geometric Jacobian."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mfik.errors import ArgumentError, RobotError
from mfik.kinematics.se3 import normalize_pose, quat_from_matrix, quat_multiply, quat_rotate

JOINT_KINDS = ("revolute", "continuous", "prismatic")
MAX_JOINTS = 16
ROTATION_TOLERANCE = 1e-9  # largest entry of R^T R - I; rotations computed in float64 stay under 1e-15


@dataclass(frozen=True, eq=False)
class Chain:
    """A serial chain in z-aligned normal form: every joint moves about or along its own z axis.

    Args:
        origins: Transform [R | p] ([m]) from joint j-1's moved frame to joint j's frame before its motion; row 0 starts
            at the base, row J ends at the tool. [J+1, 3, 4], float64, on the CPU.
        kinds: One of JOINT_KINDS per joint, length J, 1 <= J <= MAX_JOINTS.
    Raises:
        RobotError: A shape, kind or value above does not hold, or an origin is no rigid transform.
    """

    origins: Tensor
    kinds: tuple[str, ...]
    # Constants of FK by row, so that one copy moves them all to q's device: quat (4), quat * k (4), p (3), z axis (3),
    # 1 if the joint turns, 0 if it slides (1). Row J (the tool) uses the first four and p.
    table: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.kinds) <= MAX_JOINTS:
            raise RobotError(f"kinds: expected 1 to {MAX_JOINTS} joints, got {len(self.kinds)}; choose other end links")
        for kind in self.kinds:
            if kind not in JOINT_KINDS:
                raise RobotError(f"kinds: expected each to be one of {JOINT_KINDS}, got {kind!r}")
        shape = (len(self.kinds) + 1, 3, 4)
        if self.origins.shape != shape or self.origins.dtype != torch.float64 or self.origins.device.type != "cpu":
            raise RobotError(
                f"origins: expected {list(shape)} torch.float64 on cpu (one per joint and the tool), "
                f"got {list(self.origins.shape)} {self.origins.dtype} on {self.origins.device}"
            )
        rotation, translation = self.origins[..., :3], self.origins[..., 3]
        defect = (rotation.mT @ rotation - torch.eye(3, dtype=torch.float64)).abs().amax((-2, -1))
        rigid = (defect <= ROTATION_TOLERANCE) & (torch.linalg.det(rotation) > 0) & translation.isfinite().all(-1)
        if not rigid.all():
            row = int((~rigid).nonzero()[0])
            raise RobotError(f"origins[{row}]: expected a rigid transform [R | p], got {self.origins[row].tolist()}")
        quat = quat_from_matrix(rotation)
        quat_k = quat_multiply(quat, torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64))
        turns = torch.tensor([[float(kind != "prismatic")] for kind in (*self.kinds, "revolute")], dtype=torch.float64)
        object.__setattr__(self, "table", torch.cat([quat, quat_k, translation, rotation[..., 2], turns], dim=-1))

    @property
    def dof(self) -> int:
        """Number of joints J."""
        return len(self.kinds)


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
    quat, quat_k, offset, axis, turns = chain.table.to(q.device, q.dtype).split([4, 4, 3, 3, 1], dim=-1)
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
