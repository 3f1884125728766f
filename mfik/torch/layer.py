"""The solver's answer as a differentiable function of pose and reference, by the implicit function theorem."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from mfik import ops
from mfik.errors import ArgumentError
from mfik.kinematics import limits_like, quat_conjugate, quat_rotate
from mfik.kinematics.tensors import keep
from mfik.ops._checks import check_like, check_no_tangent, check_rows
from mfik.robots import Robot
from mfik.solve import Options, Solver, Status

DAMPING = 1e-10  # an error of 1e-3 in J J+ at a singular value of 3e-4; derivatives stay below 1 / (2 sqrt(DAMPING))


@overload
def ik(
    solver: Solver | Robot, pose: Tensor, q_ref: Tensor, *, return_status: Literal[False] = False, **options: Any
) -> Tensor: ...
@overload
def ik(
    solver: Solver | Robot, pose: Tensor, q_ref: Tensor, *, return_status: Literal[True], **options: Any
) -> tuple[Tensor, Tensor]: ...
@torch.compiler.disable(reason="mfik.torch.ik calls the C++ solver, which cannot be traced; leave it out of the graph")
def ik(
    solver: Solver | Robot,
    pose: Tensor,
    q_ref: Tensor,
    *,
    return_status: bool = False,
    threads: int = 1,
    throughput: bool = False,
    **options: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """Solve N poses, differentiably in pose and q_ref.

    Forward it is `Solver.solve_batch`. Backward it is the implicit function theorem at the answer, whatever way led
    there: `dq = J+ dx + (I - J+ J) dq_ref`, with J the Jacobian of the joints that are free, dx the motion of the pose
    as a twist `[v, w]` in the base frame at the tool, and the damped pseudo-inverse `J+ = J^T (J J^T + 1e-10 I)^-1`.

    - The Jacobian of the pose times that of q is the identity, but near singularities, where the damping bounds it.
    - In redundant joints this is a model: that of the solution nearest to q_ref, by `joint_weights`. Which of its
      solutions the solver finds is another function of q_ref, with jumps.
    - A joint on its limit is held there: its derivatives are zero. A joint in `locked` follows q_ref.
    - A row that is not solved has derivatives of zero.
    - A quaternion's gradient lies in the tangent space of the unit quaternions, at right angles to it, as the solver
      normalises it: `2 [0, g] quat` for a gradient g with respect to the rotation w of dx. A step along it leaves the
      unit quaternions to second order; normalise what is learned.

    It can be differentiated twice, exactly where joints are not redundant. `torch.func.grad`, `vmap` and `jacrev` work,
    forward mode is refused. In `torch.compile` it runs as it is, between compiled graphs.

    Args:
        solver: The solver, or a robot, whose solver without a network is then made and kept.
        pose: T_base_tool [x, y, z, qw, qx, qy, qz], [m], unit quaternion of either sign, float32 or float64, [N, 7].
        q_ref: Joints to start from [rad or m], finite, may lie outside the limits, pose's dtype and device, [N, J].
        return_status: Return the statuses, too.
        threads: Threads of `Solver.solve_batch`.
        throughput: Solve many rows side by side, as in `Solver.solve_batch`.
        options: Fields of `mfik.solve.Options` but `slack`. No gradient flows into them: where a tool is learned, give
            the tip's pose instead.

    Returns:
        The best joints found, within the limits, on pose's device in its dtype, [N, J]; with `return_status` also
        `Status` values, [N], int64.

    Raises:
        ArgumentError: An argument has the wrong shape, dtype, device or value, or no gradient though it requires one.
        RobotError: The robot has mimic joints.
        ImportError: The native extension is missing.
    """
    if isinstance(solver, Robot):
        solver = _solver(solver)
    if not isinstance(solver, Solver):
        raise ArgumentError(f"solver: expected a Solver or a Robot, got {solver!r:.60}; load one with load_robot(...)")
    solver.robot.chain.check_no_mimics("mfik.torch.ik")
    check_rows("pose", pose, 7)
    check_like("q_ref", q_ref, (len(pose), solver.dof), "pose", pose)
    check_no_tangent("mfik.torch.ik", "differentiate in reverse mode", pose=pose, q_ref=q_ref)
    for name, value in options.items():
        if isinstance(value, Tensor) and value.requires_grad:
            raise ArgumentError(
                f"{name}: expected no gradient, as ik has none for it, got requires_grad=True; detach it, or let the "
                "pose depend on it"
            )
    checked = Options(**options)
    if checked.slack != Options.slack:
        raise ArgumentError(
            f"slack: expected none, as ik differentiates poses that are reached exactly, got {checked.slack}; "
            "leave it out, or use Solver.solve_batch"
        )
    q, status = _InverseKinematics.apply(_Problem(solver, threads, throughput, checked), pose, q_ref)
    return (q, status) if return_status else q


class _Problem(NamedTuple):
    """What a solve is asked for, beside its tensors."""

    solver: Solver
    threads: int
    throughput: bool
    options: Options


class _InverseKinematics(torch.autograd.Function):
    """The function behind `ik`, of a problem, pose [N, 7] and q_ref [N, J], to q [N, J] and status [N]."""

    @staticmethod
    def forward(problem: _Problem, pose: Tensor, q_ref: Tensor) -> tuple[Tensor, Tensor]:
        solver, threads, throughput, options = problem
        result = solver.solve_batch(
            pose, q_ref, time_each=False, threads=threads, throughput=throughput, options=options
        )
        if isinstance(result.q, Tensor):
            return result.q, result.status
        return solver.robot.clamp(torch.from_numpy(result.q).to(pose.dtype)), torch.from_numpy(result.status)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[_Problem, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        problem, pose, _ = inputs
        q, status = output
        ctx.problem = problem
        ctx.mark_non_differentiable(status)
        ctx.save_for_backward(pose, q, status)

    @staticmethod
    def backward(ctx: Any, grad_q: Tensor, _: Tensor) -> tuple[None, Tensor, Tensor]:
        pose, q, status = ctx.saved_tensors
        solver, _, _, options = ctx.problem
        locked = torch.tensor([joint in options.locked for joint in range(solver.dof)], device=q.device)
        lower, upper = _bounds(solver.robot, q)
        solved = (status == Status.SOLVED)[:, None]
        moving = solved & ((q > lower) & (q < upper) | locked)
        grad = torch.where(moving, grad_q, 0.0).double()
        # Rows without a solution may hold NaN, which times zero is no zero.
        pose_solved, q_solved = torch.where(solved, pose, 1.0).double(), torch.where(solved, q, 0.0).double()
        jac = _jacobian(solver.robot, q_solved, pose_solved, options.tool)

        weights = torch.tensor(options.joint_weights or [1.0] * solver.dof, dtype=torch.float64, device=q.device)
        spread = (moving & ~locked) * (weights.min() / weights) ** 2  # of a twist over the joints
        spread_jac = jac * spread[:, None]
        damping = DAMPING * torch.eye(6, dtype=torch.float64, device=q.device)
        squared = spread_jac @ jac.mT + damping
        grad_twist, _ = torch.linalg.solve_ex(squared, spread_jac @ grad[..., None])  # [N, 6, 1]
        grad_q_ref = torch.where(moving, grad - (jac.mT @ grad_twist)[..., 0], 0.0)

        grad_v, grad_w = grad_twist[..., 0].split(3, dim=-1)  # and as a quaternion, 2 [0, grad_w] quat
        quat = pose_solved[:, 3:]
        w, v = (2.0 / (quat * quat).sum(-1, keepdim=True) * quat).split([1, 3], dim=-1)
        grad_quat = [-(grad_w * v).sum(-1, keepdim=True), w * grad_w + torch.linalg.cross(grad_w, v)]
        grad_pose = torch.cat([grad_v, *grad_quat], dim=-1)
        return None, grad_pose.to(pose.dtype), grad_q_ref.to(q.dtype)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[None, int | None, int | None], problem: _Problem, pose: Tensor, q_ref: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        size = info.batch_size
        rows = [
            (x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
            for x, dim in zip((pose, q_ref), in_dims[1:], strict=True)
        ]
        q, status = _InverseKinematics.apply(problem, *rows)
        n = len(q) // size
        return (q.unflatten(0, (size, n)), status.unflatten(0, (size, n))), (0, 0)


@lru_cache(maxsize=8)
def _solver(robot: Robot) -> Solver:
    """Return the solver of a robot, which takes milliseconds to make."""
    return Solver.from_robot(robot)


def _bounds(robot: Robot, like: Tensor) -> Tensor:
    """Return the lower and upper limits of joints like these, infinite for continuous joints, [2, J]."""

    def make() -> Tensor:
        continuous = torch.tensor([kind == "continuous" for kind in robot.kinds], device=like.device)
        infinite = torch.tensor([[-math.inf], [math.inf]], dtype=like.dtype, device=like.device)
        return torch.where(continuous, infinite, torch.stack(limits_like(like, *robot.limits())))

    return keep(robot.tensors, "bounds", like, make)


def _jacobian(robot: Robot, q: Tensor, pose: Tensor, tool: tuple[float, ...]) -> Tensor:
    """Return the Jacobian at the tool of joints that bring it to a pose, [N, 6, J]."""
    # With create_graph and in torch.func it has to be differentiable itself, which takes 20 times as long.
    jac = robot.jacobian(q) if torch.is_grad_enabled() else ops.jacobian(robot, q)
    if not any(tool[:3]):
        return jac
    position, quat = pose.new_tensor(tool).split([3, 4])
    target_quat = torch.nn.functional.normalize(pose[:, 3:], dim=-1)
    lever = quat_rotate(target_quat, quat_rotate(quat_conjugate(quat), position))  # from tip to tool, in the base frame
    linear, angular = jac.split(3, dim=1)
    return torch.cat([linear + torch.linalg.cross(angular, lever[..., None].expand_as(angular), dim=1), angular], dim=1)
