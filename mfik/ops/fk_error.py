"""Op `fk_error`."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mfik.ops import _reference
from mfik.ops._backend import has_kernel, launch
from mfik.ops._checks import check_integer, check_like, check_no_grad, check_no_tangent, check_rows
from mfik.ops._reference import RobotLike
from mfik.ops.kinematics import kind_codes


def fk_error(robot: RobotLike, q: Tensor, target_pose: Tensor, rows: int | None = None) -> Tensor:
    """Compute how far the poses of joints are from their targets, differentiable once with respect to q.

    With the position error d [m] and the angle a between the orientations, a row's error is

        sqrt(||d||^2 + s) + sqrt(4 sin^2(a / 2) + s),    s = FK_SMOOTHING,

    smooth for every angle, and at no error. The gradient comes from the geometric Jacobian in the same launch; both are
    computed in float64 whatever the dtype.

    Args:
        robot: A `mfik.robots.Robot`.
        q: Joints [rad or m], [N, J], float32 or float64.
        target_pose: T_base_tool [x, y, z, qw, qx, qy, qz], [m], unit quaternion of either sign, [N, 7].
        rows: How many of the first rows count, in [1, N]; None: all.
    Returns:
        The rows' mean position error [m] + rotation error [chord of the half angle, about rad], a scalar.
    Raises:
        ArgumentError: An argument has the wrong shape, dtype, device or value, target_pose requires grad, or one has a
            forward-mode tangent, which would be lost.
    """
    check_rows("q", q, len(robot.chain.kinds))
    check_like("target_pose", target_pose, (q.shape[0], 7), "q", q)
    rows = q.shape[0] if rows is None else rows
    check_integer("rows", rows, 1, q.shape[0], "it counts rows of q")
    check_no_grad("fk_error", "detach it", target_pose=target_pose)
    check_no_tangent("fk_error", "take its derivative in reverse mode", q=q)
    if not has_kernel("fk_error", q.device):
        return _reference.fk_error(robot, q, target_pose, rows)
    return cast(Tensor, _FkError.apply(q, target_pose, robot, rows))


class _FkError(torch.autograd.Function):
    """The kernel, which computes errors and their gradient at once.

    In the backward pass an operator of the torch library would take 0.2 ms more, a slice and a mean outside 0.1 ms: of
    5 ms that a small network's step takes.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, target_pose: Tensor, robot: RobotLike, rows: int) -> Tensor:
        q, target_pose, origins = q.contiguous(), target_pose.contiguous(), robot.chain.transforms()
        error, gradient = q.new_empty(rows), torch.zeros_like(q)
        inputs, outputs = [q.data_ptr(), target_pose.data_ptr()], [error.data_ptr(), gradient.data_ptr()]
        launch("fk_error", q, inputs, origins.data_ptr(), kind_codes(robot), outputs, rows)
        ctx.save_for_backward(gradient)
        ctx.rows = rows
        return error.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_error: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * (by_error / ctx.rows), None, None, None
