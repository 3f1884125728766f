"""Ops `fk` and `refine`: batched kinematics of labels and solutions, outside every derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from mfik.errors import ArgumentError
from mfik.kinematics import RefineResult
from mfik.ops import _reference
from mfik.ops._backend import LIBRARY, has_kernel, launch
from mfik.ops._checks import check_integer, check_like, check_no_grad, check_rows
from mfik.ops._reference import RobotLike

KIND_CODES = {"revolute": 0, "prismatic": 1, "continuous": 2}  # mfik::JointKind


def fk(robot: RobotLike, q: Tensor) -> Tensor:
    """Compute the tool pose in the base frame, in float64 whatever q's dtype where there is a kernel (CPU).

    Args:
        robot: A `mfik.robots.Robot`.
        q: Joints [rad or m], [N, J], float32 or float64. NaN propagates.
    Returns:
        T_base_tool [x, y, z, qw, qx, qy, qz], unit quaternion with `qw >= 0`, [m], [N, 7].
    Raises:
        ArgumentError: q has the wrong shape or dtype, or requires grad.
    """
    check_rows("q", q, len(robot.chain.kinds))
    check_no_grad("ops.fk", "use robot.fk(q), or detach it", q=q)
    if not has_kernel("fk", q.device):
        return _reference.fk(robot, q)
    return torch.ops.mfik.fk(q, robot.chain.origins, kind_codes(robot))


def refine(
    robot: RobotLike,
    q: Tensor,
    target_pose: Tensor,
    *,
    max_iterations: int = 20,
    tol_pos: float = 1e-5,
    tol_rot: float = 1e-5,
) -> RefineResult:
    """Move joints to a target pose by damped least squares with an active set at the limits.

    See `kinematics.refine`. In float64 whatever q's dtype where there is a kernel (CPU).

    Args:
        robot: A `mfik.robots.Robot`.
        q: Start [rad or m], clamped to the limits first, [N, J], float32 or float64.
        target_pose: Desired T_base_tool, quaternion of either sign, normalised here, [m], [N, 7].
        max_iterations: Largest number of steps.
        tol_pos: Position tolerance [m].
        tol_rot: Rotation tolerance [rad].
    Returns:
        q [N, J] within the limits; converged [N], bool, whether that q meets both tolerances; iterations [N], int32.
        A row with a value that is not finite or a zero quaternion gets NaN, False and 0.
    Raises:
        ArgumentError: An argument has the wrong shape, dtype, device or value, or requires grad.
    """
    check_rows("q", q, len(robot.chain.kinds))
    check_like("target_pose", target_pose, (q.shape[0], 7), "q", q)
    check_integer("max_iterations", max_iterations, 0, 2**31 - 1, "20 is usual")
    for name, tolerance in (("tol_pos", tol_pos), ("tol_rot", tol_rot)):
        if not tolerance >= 0:
            raise ArgumentError(f"{name}: expected a number >= 0, got {tolerance}; the default is 1e-5")
    check_no_grad("ops.refine", "use kinematics.refine, or detach it", q=q, target_pose=target_pose)
    if not has_kernel("refine", q.device):
        return _reference.refine(robot, q, target_pose, max_iterations=max_iterations, tol_pos=tol_pos, tol_rot=tol_rot)
    return RefineResult(
        *torch.ops.mfik.refine(
            q,
            target_pose,
            robot.chain.origins,
            kind_codes(robot),
            robot.lower,
            robot.upper,
            max_iterations,
            tol_pos,
            tol_rot,
        )
    )


def kind_codes(robot: RobotLike) -> list[int]:
    """Return the joints' `mfik::JointKind`."""
    return [KIND_CODES[kind] for kind in robot.chain.kinds]


def _fk_kernel(q: Tensor, origins: Tensor, kinds: list[int]) -> Tensor:
    q, origins = q.contiguous(), origins.contiguous()
    pose = _fk_fake(q, origins, kinds)
    launch("fk", q, q.data_ptr(), origins.data_ptr(), kinds, pose.data_ptr(), q.shape[0])
    return pose


def _fk_fake(q: Tensor, origins: Tensor, kinds: list[int]) -> Tensor:
    return q.new_empty(q.shape[0], 7)


def _refine_kernel(
    q: Tensor,
    target_pose: Tensor,
    origins: Tensor,
    kinds: list[int],
    lower: Tensor,
    upper: Tensor,
    max_iterations: int,
    tol_pos: float,
    tol_rot: float,
) -> tuple[Tensor, Tensor, Tensor]:
    q, target_pose = q.contiguous(), target_pose.contiguous()
    origins, lower, upper = origins.contiguous(), lower.contiguous(), upper.contiguous()
    out = _refine_fake(q, target_pose, origins, kinds, lower, upper, max_iterations, tol_pos, tol_rot)
    launch(
        "refine", q, q.data_ptr(), target_pose.data_ptr(), origins.data_ptr(), kinds, lower.data_ptr(),
        upper.data_ptr(), *(value.data_ptr() for value in out), q.shape[0], max_iterations, tol_pos, tol_rot,
    )  # fmt: skip
    return out


def _refine_fake(
    q: Tensor,
    target_pose: Tensor,
    origins: Tensor,
    kinds: list[int],
    lower: Tensor,
    upper: Tensor,
    max_iterations: int,
    tol_pos: float,
    tol_rot: float,
) -> tuple[Tensor, Tensor, Tensor]:
    n = q.shape[0]
    return q.new_empty(q.shape), q.new_empty(n, dtype=torch.bool), q.new_empty(n, dtype=torch.int32)


LIBRARY.define("fk(Tensor q, Tensor origins, int[] kinds) -> Tensor")
LIBRARY.impl("fk", _fk_kernel, "CPU")
torch.library.register_fake("mfik::fk", _fk_fake, lib=LIBRARY)

LIBRARY.define(
    "refine(Tensor q, Tensor target_pose, Tensor origins, int[] kinds, Tensor lower, Tensor upper, int max_iterations, "
    "float tol_pos, float tol_rot) -> (Tensor, Tensor, Tensor)"
)
LIBRARY.impl("refine", _refine_kernel, "CPU")
torch.library.register_fake("mfik::refine", _refine_fake, lib=LIBRARY)
