"""The ops in plain PyTorch: what the kernels are tested against, and what runs where there is no kernel.

Arguments are those of the public ops, already checked there.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mfik import kinematics
from mfik.errors import ArgumentError

# Lower bound of the time 1 - r that is left on a line: it divides. Also in csrc/kernels/sample_batch.hpp.
MIN_REMAINING = 1e-2

MASK32 = 0xFFFFFFFF


class RobotLike(Protocol):
    """What the ops read of a `mfik.robots.Robot`, which this package must not import."""

    @property
    def chain(self) -> kinematics.Chain: ...

    @property
    def lower(self) -> Tensor: ...

    @property
    def upper(self) -> Tensor: ...


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


@torch.no_grad()
def adaptive_weight(q: Tensor, q_target: Tensor, c: float = 1e-4, p: float = 0.5) -> Tensor:
    """Reference of `ops.adaptive_weight`."""
    return ((q_target - q).square().sum(-1, keepdim=True) + c).pow(-p)


def philox(counter: tuple[Tensor | int, Tensor | int, Tensor | int, Tensor | int], key: int) -> tuple[Tensor, ...]:
    """Draw with Philox4x32-10 (Salmon et al. 2011), as csrc/kernels/philox.hpp does.

    Args:
        counter: Four words in [0, 2^32), int64 tensors that broadcast, or integers.
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


def draw_times(
    batch: int, seed: int, step: int, rank: int, num_jvp: int, num_endpoint: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the times r and t of a batch, float32, [B, 1] each."""
    row = torch.arange(batch, device=device)[:, None]
    words = philox((row, step & MASK32, step >> 32, rank), seed)
    # Exact in float32: 24 bits, and one rounding by the scale.
    u0, u1 = ((word >> 8).float() * 2.0**-24 * (1.0 - MIN_REMAINING) for word in words[:2])
    is_jvp, is_endpoint = row < num_jvp, row < num_endpoint
    r = torch.where(is_jvp, torch.minimum(u0, u1), u0)
    t = torch.where(is_jvp, torch.maximum(u0, u1), u0)
    return torch.where(is_endpoint, 0.0, r), torch.where(is_endpoint, 1.0, t)


@torch.no_grad()
def sample_batch(
    q: Tensor,
    target_pose: Tensor,
    q_target: Tensor,
    r: Tensor,
    index: Tensor | None = None,
    *,
    seed: int,
    step: int,
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
        robot.lower,
        robot.upper,
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
