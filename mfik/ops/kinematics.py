"""Ops `fk`, `jacobian`, `refine` and `solve`: batched kinematics of labels and solutions, outside every derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mfik.errors import ArgumentError
from mfik.kinematics import RefineResult
from mfik.ops import _reference
from mfik.ops._backend import LIBRARY, has_kernel, launch
from mfik.ops._checks import check_integer, check_like, check_no_grad, check_rows
from mfik.ops._reference import RobotLike, SolveRows

KIND_CODES = {"revolute": 0, "prismatic": 1, "continuous": 2}  # mfik::JointKind


def fk(robot: RobotLike, q: Tensor) -> Tensor:
    """Compute the tool pose in the base frame: on the CPU in float64 whatever q's dtype, on CUDA in q's dtype.

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
    return torch.ops.mfik.fk(q, robot.chain.transforms(), kind_codes(robot))


def jacobian(robot: RobotLike, q: Tensor) -> Tensor:
    """Compute the geometric Jacobian in the base frame at the tool origin; in the precision of `fk`.

    Args:
        robot: A `mfik.robots.Robot`.
        q: Joints [rad or m], [N, J], float32 or float64. NaN propagates.
    Returns:
        Jacobian, `[v, w] = J dq` in [m/s, rad/s], [N, 6, J].
    Raises:
        ArgumentError: q has the wrong shape or dtype, or requires grad.
    """
    check_rows("q", q, len(robot.chain.kinds))
    check_no_grad("ops.jacobian", "use robot.jacobian(q), or detach it", q=q)
    if not has_kernel("jacobian", q.device):
        return _reference.jacobian(robot, q)
    return torch.ops.mfik.jacobian(q, robot.chain.transforms(), kind_codes(robot))


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

    See `kinematics.refine`. On the CPU in float64 whatever q's dtype; on CUDA in float32, and where that is not enough
    for the tolerance the last steps in float64: the joints may differ from the CPU's, what `converged` says may not.

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
    _check_settings(max_iterations, tol_pos, tol_rot)
    check_no_grad("ops.refine", "use kinematics.refine, or detach it", q=q, target_pose=target_pose)
    if not has_kernel("refine", q.device):
        return _reference.refine(robot, q, target_pose, max_iterations=max_iterations, tol_pos=tol_pos, tol_rot=tol_rot)
    settings = (max_iterations, tol_pos, tol_rot)
    return RefineResult(*torch.ops.mfik.refine(q, target_pose, *chain_and_limits(robot), *settings))


def solve(
    robot: RobotLike,
    q: Tensor,
    target_pose: Tensor,
    seeds: Tensor,
    *,
    max_iterations: int = 12,
    tol_pos: float = 1e-5,
    tol_rot: float = 1e-5,
) -> SolveRows:
    """Refine each row from q, then from one seed after the other until it converges, and check what is handed out.

    The arithmetic of the steps is float32, that of the check float64; where float32 is not enough for the tolerance,
    the last steps are float64. An attempt that is far off after half its steps is given up for the next seed.
    A row's answer does not depend on the other rows.

    Args:
        robot: A `mfik.robots.Robot`.
        q: First starts [rad or m], clamped to the limits, [N, J], float32 or float64.
        target_pose: Desired T_base_tool, quaternion of either sign, normalised here, [m], [N, 7].
        seeds: The next starts of every row, clamped to the limits, [S, J], S >= 0.
        max_iterations: Largest number of steps of an attempt, not counting the float64 ones, which are as many at most.
        tol_pos: Position tolerance [m].
        tol_rot: Rotation tolerance [rad].
    Returns:
        The best joints found, and their errors. A row with a value that is not finite or a zero quaternion gets NaN,
        False and 0 attempts.
    Raises:
        ArgumentError: An argument has the wrong shape, dtype, device or value, or requires grad.
    """
    check_rows("q", q, len(robot.chain.kinds))
    check_like("target_pose", target_pose, (q.shape[0], 7), "q", q)
    check_rows("seeds", seeds, q.shape[1])
    check_like("seeds", seeds, (seeds.shape[0], q.shape[1]), "q", q)
    _check_settings(max_iterations, tol_pos, tol_rot)
    check_no_grad("ops.solve", "detach it", q=q, target_pose=target_pose, seeds=seeds)
    settings: dict[str, Any] = dict(max_iterations=max_iterations, tol_pos=tol_pos, tol_rot=tol_rot)
    if not has_kernel("solve", q.device):
        return _reference.solve(robot, q, target_pose, seeds, **settings)
    return SolveRows(*torch.ops.mfik.solve(q, target_pose, seeds, *chain_and_limits(robot), **settings))


def _check_settings(max_iterations: int, tol_pos: float, tol_rot: float) -> None:
    check_integer("max_iterations", max_iterations, 0, 2**31 - 1, "20 is usual")
    for name, tolerance in (("tol_pos", tol_pos), ("tol_rot", tol_rot)):
        if not tolerance >= 0:
            raise ArgumentError(f"{name}: expected a number >= 0, got {tolerance}; the default is 1e-5")


def kind_codes(robot: RobotLike) -> list[int]:
    """Return the joints' `mfik::JointKind`."""
    return [KIND_CODES[kind] for kind in robot.chain.kinds]


def chain_and_limits(robot: RobotLike) -> tuple[Tensor, list[int], Tensor, Tensor]:
    """Return a robot as the kernels take it: origins [J+1, 3, 4], kinds, lower and upper limits [J]."""
    return robot.chain.transforms(), kind_codes(robot), *robot.limits()


def _fk_kernel(q: Tensor, origins: Tensor, kinds: list[int]) -> Tensor:
    q, origins = q.contiguous(), origins.contiguous()
    pose = _fk_fake(q, origins, kinds)
    launch("fk", q, q.data_ptr(), origins.data_ptr(), kinds, pose.data_ptr(), q.shape[0])
    return pose


def _fk_fake(q: Tensor, origins: Tensor, kinds: list[int]) -> Tensor:
    return q.new_empty(q.shape[0], 7)


def _jacobian_kernel(q: Tensor, origins: Tensor, kinds: list[int]) -> Tensor:
    q, origins = q.contiguous(), origins.contiguous()
    jac = _jacobian_fake(q, origins, kinds)
    launch("jacobian", q, q.data_ptr(), origins.data_ptr(), kinds, jac.data_ptr(), q.shape[0])
    return jac


def _jacobian_fake(q: Tensor, origins: Tensor, kinds: list[int]) -> Tensor:
    return q.new_empty(q.shape[0], 6, q.shape[1])


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
        "refine", q, [q.data_ptr(), target_pose.data_ptr()], origins.data_ptr(), kinds, lower.data_ptr(),
        upper.data_ptr(), [value.data_ptr() for value in out], q.shape[0], max_iterations, tol_pos, tol_rot,
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


def _solve_kernel(
    q: Tensor,
    target_pose: Tensor,
    seeds: Tensor,
    origins: Tensor,
    kinds: list[int],
    lower: Tensor,
    upper: Tensor,
    max_iterations: int,
    tol_pos: float,
    tol_rot: float,
) -> tuple[Tensor, ...]:
    q, target_pose, seeds = q.contiguous(), target_pose.contiguous(), seeds.contiguous()
    origins, lower, upper = origins.contiguous(), lower.contiguous(), upper.contiguous()
    out = _solve_fake(q, target_pose, seeds, origins, kinds, lower, upper, max_iterations, tol_pos, tol_rot)
    inputs = [q.data_ptr(), target_pose.data_ptr(), seeds.data_ptr()]
    launch(
        "solve", q, inputs, origins.data_ptr(), kinds, lower.data_ptr(), upper.data_ptr(),
        [value.data_ptr() for value in out], q.shape[0], seeds.shape[0], max_iterations, tol_pos, tol_rot,
    )  # fmt: skip
    return out


def _solve_fake(
    q: Tensor,
    target_pose: Tensor,
    seeds: Tensor,
    origins: Tensor,
    kinds: list[int],
    lower: Tensor,
    upper: Tensor,
    max_iterations: int,
    tol_pos: float,
    tol_rot: float,
) -> tuple[Tensor, ...]:
    n = q.shape[0]
    counts = (q.new_empty(n, dtype=torch.int32) for _ in range(2))
    return q.new_empty(q.shape), q.new_empty(n), q.new_empty(n), q.new_empty(n, dtype=torch.bool), *counts


LIBRARY.define("fk(Tensor q, Tensor origins, int[] kinds) -> Tensor")
LIBRARY.define("jacobian(Tensor q, Tensor origins, int[] kinds) -> Tensor")
_ROBOT = "Tensor origins, int[] kinds, Tensor lower, Tensor upper"
_SETTINGS = "int max_iterations, float tol_pos, float tol_rot"
LIBRARY.define(f"refine(Tensor q, Tensor target_pose, {_ROBOT}, {_SETTINGS}) -> (Tensor, Tensor, Tensor)")
LIBRARY.define(
    f"solve(Tensor q, Tensor target_pose, Tensor seeds, {_ROBOT}, {_SETTINGS}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
for _name, _kernel, _fake in (
    ("fk", _fk_kernel, _fk_fake),
    ("jacobian", _jacobian_kernel, _jacobian_fake),
    ("refine", _refine_kernel, _refine_fake),
    ("solve", _solve_kernel, _solve_fake),
):
    LIBRARY.impl(_name, _kernel, "CPU")
    LIBRARY.impl(_name, _kernel, "CUDA")
    torch.library.register_fake(f"mfik::{_name}", _fake, lib=LIBRARY)
