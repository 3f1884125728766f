"""Refinement of joint values by damped least squares within joint limits.

Reference of the C++ solver's kernel: the same algorithm, row by row.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mfik.errors import ArgumentError
from mfik.kinematics.chain import Chain
from mfik.kinematics.forward import check_q, fk_and_jacobian
from mfik.kinematics.pose import pose_error
from mfik.kinematics.turns import wrap

# Damping lam = DAMPING_GAIN |e|^2 + DAMPING_FLOOR (Sugihara 2011, "Solvability-Unconcerned Inverse Kinematics by the
# Levenberg-Marquardt Method").
DAMPING_GAIN = 0.02
DAMPING_FLOOR = 1e-8
ACTIVE_SET_PASSES = 2
ATTEMPT_REFINEMENTS = 10  # steps of what every measurement calls one attempt


class RefineResult(NamedTuple):
    """Refined joints.

    Attributes:
        q: Joints [rad or m], within limits, [N, J].
        converged: Whether both tolerances were met, [N] bool.
        iterations: Steps taken, [N] int64.
    """

    q: Tensor
    converged: Tensor
    iterations: Tensor


def refine(
    chain: Chain,
    lower: Tensor,
    upper: Tensor,
    q: Tensor,
    target_pose: Tensor,
    *,
    max_iterations: int = 20,
    tol_pos: float = 1e-5,
    tol_rot: float = 1e-5,
) -> RefineResult:
    """Move joints to a target pose by damped least squares; a joint that would cross its limit is held on it.

    Differentiable in q and target_pose; with both tolerances 0 every row takes max_iterations steps.

    Args:
        chain: The chain.
        lower: Lower limits [rad or m], [J]; ignored for continuous joints, which are wrapped into [-pi, pi] at the end.
        upper: Upper limits [rad or m], [J].
        q: Start [rad or m], clamped to the limits first, [N, J].
        target_pose: Desired T_base_tool, unit quaternion of either sign, q's dtype, [N, 7].
        max_iterations: Largest number of steps.
        tol_pos: Position tolerance [m].
        tol_rot: Rotation tolerance [rad].
    Returns:
        Joints, convergence flag and step count per row.
    Raises:
        ArgumentError: An argument has the wrong shape, dtype or value.
    """
    check_q(chain, q)
    if q.ndim != 2:
        raise ArgumentError(f"q: expected [N, {chain.dof}], got {list(q.shape)}; flatten the batch dimensions")
    if target_pose.shape != (q.shape[0], 7) or target_pose.dtype != q.dtype:
        raise ArgumentError(
            f"target_pose: expected [{q.shape[0]}, 7] {q.dtype} like q, "
            f"got {list(target_pose.shape)} {target_pose.dtype}; give one pose per row of q"
        )
    if max_iterations < 0 or not tol_pos >= 0 or not tol_rot >= 0:
        raise ArgumentError(
            "max_iterations, tol_pos, tol_rot: expected non-negative numbers, "
            f"got {max_iterations}, {tol_pos}, {tol_rot}"
        )
    continuous = torch.tensor([kind == "continuous" for kind in chain.kinds], device=q.device)
    lower, upper = limits_like(q, lower, upper)
    lower_limited = torch.where(continuous, -math.inf, lower)
    upper_limited = torch.where(continuous, math.inf, upper)

    q = torch.clamp(q, lower_limited, upper_limited)
    converged = torch.zeros(q.shape[0], dtype=torch.bool, device=q.device)
    iterations = torch.full((q.shape[0],), max_iterations, dtype=torch.int64, device=q.device)
    for iteration in range(max_iterations + 1):
        pose, jac = fk_and_jacobian(chain, q)
        error = pose_error(pose, target_pose)
        distance = torch.linalg.vector_norm(error.detach().unflatten(-1, (2, 3)), dim=-1)
        reached = ~converged & (distance[:, 0] <= tol_pos) & (distance[:, 1] <= tol_rot)
        iterations = torch.where(reached, iteration, iterations)
        converged = converged | reached
        if iteration == max_iterations or converged.all():
            break
        q = torch.where(converged[:, None], q, _step(q, jac, error, lower_limited, upper_limited))
    pi_lower, pi_upper = limits_like(q, *torch.tensor([[-math.pi], [math.pi]], dtype=torch.float64))
    q = torch.where(continuous, torch.clamp(wrap(q), pi_lower, pi_upper), q)
    return RefineResult(q, converged, iterations)


def limits_like(q: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Cast limits to q's device and dtype, rounding inwards, so that a clamped float32 q also holds them in float64.

    Args:
        q: Gives the device and dtype.
        lower: Lower limits [rad or m], [J], float64.
        upper: Upper limits [rad or m], [J], float64.
    Returns:
        Lower and upper limits, [J] each.
    """
    lower_cast, upper_cast = lower.to(q.dtype), upper.to(q.dtype)
    up = torch.nextafter(lower_cast, torch.full_like(lower_cast, math.inf))
    down = torch.nextafter(upper_cast, torch.full_like(upper_cast, -math.inf))
    lower_cast = torch.where(lower_cast.to(lower.dtype) < lower, up, lower_cast)
    upper_cast = torch.where(upper_cast.to(upper.dtype) > upper, down, upper_cast)
    return lower_cast.to(q.device), upper_cast.to(q.device)


def _step(q: Tensor, jac: Tensor, error: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Take one damped step with an active set at the limits.

    Args:
        q: Joints, [N, J].
        jac: Jacobian, [N, 6, J].
        error: Displacement to the target, [N, 6].
        lower: Lower limits, [J].
        upper: Upper limits, [J].
    Returns:
        Next joints within limits, [N, J].
    """
    # The 6x6 systems are solved in float64: in float32 the damping floor lies under the rounding of J J^T, and the
    # factorisation fails at singular poses.
    jac, rest = jac.double(), error.double()
    damping = (DAMPING_GAIN * (rest * rest).sum(-1) + DAMPING_FLOOR)[:, None, None] * torch.eye(
        6, dtype=torch.float64, device=q.device
    )
    free = torch.ones_like(q, dtype=torch.bool)
    q_next = q
    for _ in range(ACTIVE_SET_PASSES):
        jac_free = jac * free[:, None, :]
        factor, _ = torch.linalg.cholesky_ex(jac_free @ jac_free.mT + damping)
        dq = (jac_free.mT @ torch.cholesky_solve(rest[..., None], factor)).squeeze(-1).to(q.dtype)
        q_next = torch.where(free, q + dq, q_next)
        below, above = free & (q_next < lower), free & (q_next > upper)
        crossing = below | above
        if not crossing.any():
            break
        q_next = torch.where(below, lower, torch.where(above, upper, q_next))
        held = torch.where(crossing, q_next - q, 0.0).double()
        rest = rest - (jac @ held[..., None]).squeeze(-1)
        free = free & ~crossing
    return q_next
