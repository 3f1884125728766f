"""The ops in plain PyTorch: what the kernels are tested against, and what runs where there is no kernel.

Arguments are those of the public ops, already checked there.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mfik import kinematics
from mfik.errors import ArgumentError
from mfik.kinematics.turns import nearest_turn

# Lower bound of the time 1 - r that is left on a line: it divides. Also in csrc/kernels/sample_batch.hpp.
MIN_REMAINING = 1e-2

# Added to squared errors [m^2, rad^2]: keeps the gradient of their roots finite at zero error. Also in
# csrc/kernels/fk_error.hpp.
FK_SMOOTHING = 1e-6

MASK32 = 0xFFFFFFFF
_JOINT_STREAM = 0x9E3779B97F4A7C15  # also in csrc/kernels/sample_batch.hpp


class RobotLike(Protocol):
    """What the ops read of a `mfik.robots.Robot`, which this package must not import."""

    @property
    def chain(self) -> kinematics.Chain: ...

    @property
    def lower(self) -> np.ndarray: ...

    @property
    def upper(self) -> np.ndarray: ...

    def limits(self) -> tuple[Tensor, Tensor]: ...


class Batch(NamedTuple):
    """A training batch; all tensors share dtype and device.

    Attributes:
        q: State at time r [rad or m], [B, J].
        target_pose: T_base_tool to reach, `qw >= 0`, [m], [B, 7].
        q_target: State at time 1 [rad or m], [B, J].
        r: Start time, [B, 1].
        t: End time, r <= t <= 1, [B, 1].
        v: Velocity of the line [rad or m per unit of time], [B, J].
        weight: Adaptive weight of q against q_target, [B, 1].
    """

    q: Tensor
    target_pose: Tensor
    q_target: Tensor
    r: Tensor
    t: Tensor
    v: Tensor
    weight: Tensor


class SolveRows(NamedTuple):
    """Outcome of `ops.solve`, row by row.

    Attributes:
        q: Best joints found [rad or m], within the limits, [N, J].
        pos_error: Distance between the target and FK(q) in float64, [m], [N].
        rot_error: Angle between the target and FK(q) in float64, [rad], [N].
        converged: Whether both are within tolerance, [N] bool.
        iterations: Steps of the attempt that q comes from, [N] int32.
        attempts: Starts used, [N] int32.
    """

    q: Tensor
    pos_error: Tensor
    rot_error: Tensor
    converged: Tensor
    iterations: Tensor
    attempts: Tensor


@torch.no_grad()
def adaptive_weight(q: Tensor, q_target: Tensor, c: float = 1e-4, p: float = 0.5) -> Tensor:
    """Reference of `ops.adaptive_weight`."""
    return ((q_target - q).square().sum(-1, keepdim=True) + c).pow(-p)


def philox(counter: tuple[Tensor | int, Tensor | int, Tensor | int, Tensor | int], key: int) -> tuple[Tensor, ...]:
    """Draw with Philox4x32-10 (Salmon et al. 2011), as csrc/kernels/philox.hpp does.

    Args:
        counter: Four words in [0, 2^32), int64 tensors of one device that broadcast, or integers.
        key: 64-bit seed.
    Returns:
        Four int64 tensors of words in [0, 2^32).
    """
    x0, x1, x2, x3 = (torch.as_tensor(word, dtype=torch.int64) for word in counter)
    key0, key1 = key & MASK32, key >> 32 & MASK32
    for _ in range(10):
        a, b = 0xD2511F53 * x0, 0xCD9E8D57 * x2  # modulo 2^64: int64 wraps, and the masks drop the sign
        x0, x1, x2, x3 = (b >> 32 & MASK32) ^ x1 ^ key0, b & MASK32, (a >> 32 & MASK32) ^ x3 ^ key1, a & MASK32
        key0, key1 = key0 + 0x9E3779B9 & MASK32, key1 + 0xBB67AE85 & MASK32
    return x0, x1, x2, x3


def draw_words(row: Tensor, step: int | Tensor, rank: int, key: int) -> tuple[Tensor, ...]:
    """Return the four random words of a row at a step, int64 in [0, 2^32), shaped like row."""
    return philox((row, step & MASK32, step >> 32 & MASK32, rank), key)


def draw_times(
    batch: int, seed: int, step: int | Tensor, rank: int, num_jvp: int, num_endpoint: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the times r and t of a batch, float32, [B, 1] each."""
    row = torch.arange(batch, device=device)[:, None]
    words = draw_words(row, step, rank, seed)
    # Exact in float32: 24 bits, and one rounding by the scale.
    u0, u1 = ((word >> 8).float() * 2.0**-24 * (1.0 - MIN_REMAINING) for word in words[:2])
    is_jvp, is_endpoint = row < num_jvp, row < num_endpoint
    r = torch.where(is_jvp, torch.minimum(u0, u1), u0)
    t = torch.where(is_jvp, torch.maximum(u0, u1), u0)
    return torch.where(is_endpoint, 0.0, r), torch.where(is_endpoint, 1.0, t)


def draw_normal(shape: tuple[int, int], seed: int, step: Tensor, rank: int) -> Tensor:
    """Return standard normal numbers, float32, a function of (seed, step, rank) on every device.

    Box and Muller (1958), two numbers from two words; column pair j has the key of joint j.
    """
    rows, columns = shape
    row = torch.arange(rows, device=step.device)
    pairs = []
    for pair in range((columns + 1) // 2):
        words = draw_words(row, step, rank, joint_key(seed, pair))
        share = [((word >> 8).float() + 0.5) * 2.0**-24 for word in words[:2]]
        radius, angle = (-2 * share[0].log()).sqrt(), 2 * torch.pi * share[1]
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs[:columns], dim=-1)


def joint_key(seed: int, joint: int) -> int:
    """Return the Philox key of a joint's random numbers."""
    return seed ^ (_JOINT_STREAM * (joint + 1) & (1 << 64) - 1)


@torch.no_grad()
def sample_batch(
    q: Tensor,
    target_pose: Tensor,
    q_target: Tensor,
    r: Tensor,
    index: Tensor | None = None,
    *,
    seed: int,
    step: int | Tensor,
    rank: int = 0,
    num_jvp: int,
    num_endpoint: int,
    c: float = 1e-4,
    p: float = 0.5,
) -> Batch:
    """Reference of `ops.sample_batch`."""
    if index is not None:
        valid = (index >= 0) & (index < q.shape[0])
        if index.device.type == "cpu" and not valid.all():
            raise index_error(index, int((~valid).nonzero()[0]), q.shape[0])
        row = torch.where(valid, index, 0)
        q, target_pose, q_target, r = (
            torch.where(valid[:, None], rows[row], torch.nan) for rows in (q, target_pose, q_target, r)
        )
    times = draw_times(q.shape[0], seed, step, rank, num_jvp, num_endpoint, q.device)
    r_new, t_new = (time.to(q.dtype) for time in times)
    v = (q_target - q) / (1.0 - r).clamp_min(MIN_REMAINING)
    state = q + v * (r_new - r)
    pose = torch.cat([target_pose[:, :3], kinematics.canonical_quat(target_pose[:, 3:])], dim=-1)
    return Batch(state, pose, q_target.clone(), r_new, t_new, v, adaptive_weight(state, q_target, c, p))


@torch.no_grad()
def draw_batch(
    robot: RobotLike,
    batch: int,
    *,
    seed: int,
    step: int | Tensor,
    rank: int = 0,
    num_jvp: int,
    num_endpoint: int,
    c: float = 1e-4,
    p: float = 0.5,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Batch:
    """Reference of `ops.draw_batch`."""
    device = torch.device(device)
    row = torch.arange(batch, device=device)
    columns: list[tuple[Tensor, Tensor]] = []
    for j, kind in enumerate(robot.chain.kinds):
        lower, upper = float(robot.lower[j]), float(robot.upper[j])
        span = float(torch.tensor(upper - lower).float())  # 24 bits: the product below is exact
        words = draw_words(row, step, rank, joint_key(seed, j))
        q, q_target = (
            _inside((lower + span * (((word >> 8).double() + 0.5) * 2.0**-24)).to(dtype), lower, upper)
            for word in words[:2]
        )
        if kind != "prismatic":
            limits = (-math.inf, math.inf) if kind == "continuous" else (lower, upper)
            q_target = nearest_turn(q_target.double(), q.double(), *limits).to(dtype)
        columns.append((q, q_target))
    q, q_target = (torch.stack(joints, dim=-1) for joints in zip(*columns, strict=True))
    times = draw_times(batch, seed, step, rank, num_jvp, num_endpoint, device)
    r, t = (time.to(dtype) for time in times)
    v = q_target - q
    state = q + v * r
    pose = fk(robot, q_target.double()).to(dtype)
    return Batch(state, pose, q_target, r, t, v, adaptive_weight(state, q_target, c, p))


def _inside(x: Tensor, lower: float, upper: float) -> Tensor:
    """Return x, rounded from a number within the limits, with what rounding carried over them brought back."""
    x = torch.where(x.double() < lower, x.nextafter(torch.full_like(x, torch.inf)), x)
    return torch.where(x.double() > upper, x.nextafter(torch.full_like(x, -torch.inf)), x)


def weighted_residual_loss(
    u: Tensor,
    v: Tensor,
    derivative: Tensor,
    r: Tensor,
    t: Tensor,
    weight: Tensor | None = None,
    *,
    clip: float = 0.0,
    c: float = 1e-4,
    p: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Reference of `ops.weighted_residual_loss`."""
    n = derivative.shape[0]
    with torch.no_grad():
        correction = (t[:n] - r[:n]) * derivative
        if clip:
            largest = clip * v[:n].norm(dim=-1, keepdim=True)
            norm = correction.norm(dim=-1, keepdim=True)
            correction = torch.where(norm > largest, largest / norm, 1.0) * correction
        target = torch.cat((v[:n] + correction, v[n:]))
    squared = (u - target).square().sum(-1, keepdim=True)
    if weight is None:
        weight = (squared.detach() + c).pow(-p)
    return weight.detach() * squared, squared.detach()


def index_error(index: Tensor, at: int, rows: int) -> ArgumentError:
    """Return the error that names an index out of range."""
    return ArgumentError(
        f"index: expected values in [0, {rows}), got {int(index[at])} at position {at}; draw it with "
        f"torch.randint({rows}, ...)"
    )


@torch.no_grad()
def fk(robot: RobotLike, q: Tensor) -> Tensor:
    """Reference of `ops.fk`."""
    return kinematics.fk(robot.chain, q)


@torch.no_grad()
def jacobian(robot: RobotLike, q: Tensor) -> Tensor:
    """Reference of `ops.jacobian`."""
    return kinematics.jacobian(robot.chain, q)


def fk_error(robot: RobotLike, q: Tensor, target_pose: Tensor, rows: int) -> Tensor:
    """Reference of `ops.fk_error`."""
    joints, target = q[:rows].double(), target_pose[:rows].double()
    pose = kinematics.fk(robot.chain, joints)
    difference = pose[:, :3] - target[:, :3]
    # Vector part of target * conj(quat): its norm is the sine of the half angle.
    (scalar, vector), (target_scalar, target_vector) = (x[:, 3:].split((1, 3), dim=-1) for x in (pose, target))
    turn = scalar * target_vector - target_scalar * vector + torch.linalg.cross(vector, target_vector)
    position = (difference.square().sum(-1, keepdim=True) + FK_SMOOTHING).sqrt()
    rotation = (4 * turn.square().sum(-1, keepdim=True) + FK_SMOOTHING).sqrt()
    return (position + rotation).to(q.dtype).mean()


@torch.no_grad()
def refine(
    robot: RobotLike,
    q: Tensor,
    target_pose: Tensor,
    *,
    max_iterations: int = 20,
    tol_pos: float = 1e-5,
    tol_rot: float = 1e-5,
) -> kinematics.RefineResult:
    """Reference of `ops.refine`."""
    norm_sq = target_pose[:, 3:].double().square().sum(-1)
    valid = (norm_sq > 1e-12) & q.isfinite().all(-1) & target_pose.isfinite().all(-1)
    identity = target_pose.new_tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    result = kinematics.refine(
        robot.chain,
        *robot.limits(),
        torch.where(valid[:, None], q, 0.0),
        kinematics.normalize_pose(torch.where(valid[:, None], target_pose, identity)),
        max_iterations=max_iterations,
        tol_pos=tol_pos,
        tol_rot=tol_rot,
    )
    return kinematics.RefineResult(
        torch.where(valid[:, None], result.q, torch.nan),
        result.converged & valid,
        torch.where(valid, result.iterations, 0).int(),
    )


@torch.no_grad()
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
    """Reference of `ops.solve`: the steps in q's dtype, every attempt to its end."""
    unit = target_pose.double()
    unit = torch.cat((unit[:, :3], torch.nn.functional.normalize(unit[:, 3:], dim=-1)), dim=-1)
    best = refine(robot, q, target_pose, max_iterations=0)
    unknown = torch.full_like(q[:, 0], torch.nan)
    attempts = best.q.isfinite().all(-1).int()
    out = SolveRows(best.q.clone(), unknown, unknown.clone(), best.converged, best.iterations, attempts)
    open_rows = best.q.isfinite().all(-1).nonzero().flatten()
    for attempt, start in enumerate((q, *seeds)):
        begin = start[open_rows] if attempt == 0 else start.expand(len(open_rows), -1)
        result = refine(
            robot, begin, target_pose[open_rows], max_iterations=max_iterations, tol_pos=tol_pos, tol_rot=tol_rot
        )
        error = kinematics.pose_error(kinematics.fk(robot.chain, result.q.double()), unit[open_rows])
        pos, rot = error[:, :3].norm(dim=-1), error[:, 3:].norm(dim=-1)
        solved = (pos <= tol_pos) & (rot <= tol_rot)
        previous = out.pos_error[open_rows].square() + out.rot_error[open_rows].square()
        better = solved | ~(pos.square() + rot.square() >= previous)
        rows = open_rows[better]
        for column, value in zip(out, (result.q, pos, rot, solved, result.iterations), strict=False):
            column[rows] = value[better].to(column.dtype)
        out.attempts[open_rows] = attempt + 1
        open_rows = open_rows[~solved]
    return out
