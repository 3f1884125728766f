"""Ops `sample_batch` and `draw_batch`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mfik.errors import ArgumentError
from mfik.ops import _reference
from mfik.ops._backend import LIBRARY, has_kernel, launch
from mfik.ops._checks import check_integer, check_like, check_no_grad, check_rows, check_weight
from mfik.ops._reference import Batch, RobotLike
from mfik.ops.kinematics import chain_and_limits


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
    """Gather data rows and draw new times on their lines.

    Row m of the data is the line through (r, q) and (1, q_target) (docs/explanation/concepts.md); `1 - r` is bounded
    below by MIN_REMAINING = 0.01:

        v = (q_target - q) / (1 - r),    q(s) = q + v (s - r)

    Row i of the batch holds `q(s)` at the new start time `s`. With u0, u1 uniform in [0, 0.99):

        i < num_endpoint:             s = 0,            t = 1             (where inference evaluates)
        num_endpoint <= i < num_jvp:  s = min(u0, u1),  t = max(u0, u1)
        num_jvp <= i:                 s = t = u0                          (plain flow matching)

    The draw is Philox4x32-10 (Salmon et al. 2011) with key seed and counter (i, step, rank): the same arguments give
    the same times, bit for bit, on every device, dtype and number of threads.

    Args:
        q: State at time r [rad or m], [M, J], float32 or float64.
        target_pose: T_base_tool to reach, quaternion of either sign, [m], [M, 7].
        q_target: State at time 1 [rad or m], [M, J].
        r: Time of q, [M, 1].
        index: Data row of each batch row, [B], int64; None takes all in order (B = M). A value out of range is an
            error on the CPU; on CUDA, where looking would wait for the device, such a row comes back as NaN.
        seed: Of the training run, in [0, 2^63).
        step: Of the training run, in [0, 2^63); as a tensor, [1] int64 on q's device, it is read when the kernel runs,
            which a captured CUDA graph needs, and not checked.
        rank: Of the process, in [0, 2^32).
        num_jvp: Rows whose times may differ, in [0, B].
        num_endpoint: Of these, rows at (0, 1), in [0, num_jvp].
        c: See `adaptive_weight`.
        p: See `adaptive_weight`.
    Returns:
        The batch, in new memory, without gradient.
    Raises:
        ArgumentError: An argument has the wrong shape, dtype, device or value, or requires grad.
    """
    check_rows("q", q)
    rows = q.shape[0]
    check_like("target_pose", target_pose, (rows, 7), "q", q)
    check_like("q_target", q_target, q.shape, "q", q)
    check_like("r", r, (rows, 1), "q", q)
    if index is not None and not isinstance(index, Tensor):
        raise ArgumentError(f"index: expected a tensor [B], got {type(index).__name__}; use torch.as_tensor")
    if index is not None and (index.ndim != 1 or index.dtype != torch.int64 or index.device != q.device):
        raise ArgumentError(
            f"index: expected [B] torch.int64 on {q.device} like q, got {list(index.shape)} {index.dtype} on "
            f"{index.device}; convert with index.flatten().to(q.device, torch.int64)"
        )
    batch = rows if index is None else index.shape[0]
    step = _check_draw(batch, seed, step, rank, num_jvp, num_endpoint, q.device)
    check_weight(c, p, q.dtype)
    check_no_grad("sample_batch", "detach it", q=q, target_pose=target_pose, q_target=q_target, r=r)
    draw: dict[str, Any] = dict(step=step, seed=seed, rank=rank, num_jvp=num_jvp, num_endpoint=num_endpoint, c=c, p=p)
    if not has_kernel("sample_batch", q.device):
        return _reference.sample_batch(q, target_pose, q_target, r, index, **draw)
    return Batch(*torch.ops.mfik.sample_batch(q, target_pose, q_target, r, index, **draw))


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
    """Draw the lines of a batch from the robot itself, and times on them: `sample_batch` without data.

    Row i is the line from a reference at time 0 to a solution at time 1, both uniform within the limits and independent
    (`global` coupling), the solution in its turn nearest to the reference; its pose is computed in the same launch, in
    float64. Joint j has the Philox key seed ^ (0x9E3779B97F4A7C15 (j + 1) mod 2^64) and the counter of the times, so
    the same arguments give the same joints and times on every device.

    Args:
        robot: A `mfik.robots.Robot`.
        batch: Number of rows B.
        seed: As for `sample_batch`.
        step: As for `sample_batch`.
        rank: As for `sample_batch`.
        num_jvp: As for `sample_batch`.
        num_endpoint: As for `sample_batch`.
        c: See `adaptive_weight`.
        p: See `adaptive_weight`.
        dtype: torch.float32 or torch.float64.
        device: Where to draw; a step given as a tensor lies there.
    Returns:
        The batch.
    Raises:
        ArgumentError: An argument has the wrong shape, dtype, device or value.
    """
    device = torch.empty(0, device=device).device  # "cuda" gets its number
    check_integer("batch", batch, 0, 2**63 - 1, "give the number of rows")
    if dtype not in (torch.float32, torch.float64):
        raise ArgumentError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
    step = _check_draw(batch, seed, step, rank, num_jvp, num_endpoint, device)
    check_weight(c, p, dtype)
    draw: dict[str, Any] = dict(step=step, seed=seed, rank=rank, num_jvp=num_jvp, num_endpoint=num_endpoint, c=c, p=p)
    if not has_kernel("draw_batch", device):
        return _reference.draw_batch(robot, batch, **draw, dtype=dtype, device=device)
    return Batch(*torch.ops.mfik.draw_batch(*chain_and_limits(robot), batch, dtype=dtype, **draw))


def _check_draw(
    batch: int, seed: int, step: int | Tensor, rank: int, num_jvp: int, num_endpoint: int, device: torch.device
) -> Tensor:
    """Check what a draw depends on; return the step in the device's memory, [1] int64."""
    check_integer("seed", seed, 0, 2**63 - 1, "take it modulo 2^63")
    check_integer("rank", rank, 0, 2**32 - 1, "count from 0")
    check_integer("num_jvp", num_jvp, 0, batch, "it counts rows of the batch")
    check_integer("num_endpoint", num_endpoint, 0, num_jvp, "it counts rows of the first num_jvp")
    if not isinstance(step, Tensor):
        check_integer("step", step, 0, 2**63 - 1, "count from 0")
        return torch.full((1,), step, dtype=torch.int64, device=device)
    if step.shape != (1,) or step.dtype != torch.int64 or step.device != device:
        raise ArgumentError(
            f"step: expected an integer or a tensor [1] torch.int64 on {device}, got {list(step.shape)} {step.dtype} "
            f"on {step.device}; convert with step.reshape(1).to({str(device)!r}, torch.int64)"
        )
    return step


def _new_batch(like: Tensor, batch: int, dof: int) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(batch, columns) for columns in (dof, 7, dof, 1, 1, dof, 1))


def _sample_kernel(
    q: Tensor,
    target_pose: Tensor,
    q_target: Tensor,
    r: Tensor,
    index: Tensor | None,
    step: Tensor,
    seed: int,
    rank: int,
    num_jvp: int,
    num_endpoint: int,
    c: float,
    p: float,
) -> tuple[Tensor, ...]:
    lines = [rows.contiguous() for rows in (q, target_pose, q_target, r)]
    index = None if index is None else index.contiguous()
    out = _sample_fake(q, target_pose, q_target, r, index, step, seed, rank, num_jvp, num_endpoint, c, p)
    addresses = [rows.data_ptr() for rows in lines] + [0 if index is None else index.data_ptr()]
    draw = (out[0].shape[0], seed, step.data_ptr(), rank, num_jvp, num_endpoint, c, p)
    bad = launch("sample_batch", q, addresses, [rows.data_ptr() for rows in out], *q.shape, draw)
    if index is not None and bad is not None and bad >= 0:
        raise _reference.index_error(index, bad, q.shape[0])
    return out


def _sample_fake(
    q: Tensor,
    target_pose: Tensor,
    q_target: Tensor,
    r: Tensor,
    index: Tensor | None,
    step: Tensor,
    seed: int,
    rank: int,
    num_jvp: int,
    num_endpoint: int,
    c: float,
    p: float,
) -> tuple[Tensor, ...]:
    return _new_batch(q, q.shape[0] if index is None else index.shape[0], q.shape[1])


def _draw_kernel(
    origins: Tensor,
    kinds: list[int],
    lower: Tensor,
    upper: Tensor,
    batch: int,
    step: Tensor,
    dtype: torch.dtype,
    seed: int,
    rank: int,
    num_jvp: int,
    num_endpoint: int,
    c: float,
    p: float,
) -> tuple[Tensor, ...]:
    origins, lower, upper = origins.contiguous(), lower.contiguous(), upper.contiguous()
    out = _draw_fake(origins, kinds, lower, upper, batch, step, dtype, seed, rank, num_jvp, num_endpoint, c, p)
    launch(
        "draw_batch", out[0], origins.data_ptr(), kinds, lower.data_ptr(), upper.data_ptr(),
        [rows.data_ptr() for rows in out], (batch, seed, step.data_ptr(), rank, num_jvp, num_endpoint, c, p),
    )  # fmt: skip
    return out


def _draw_fake(
    origins: Tensor,
    kinds: list[int],
    lower: Tensor,
    upper: Tensor,
    batch: int,
    step: Tensor,
    dtype: torch.dtype,
    seed: int,
    rank: int,
    num_jvp: int,
    num_endpoint: int,
    c: float,
    p: float,
) -> tuple[Tensor, ...]:
    return _new_batch(step.new_empty(0, dtype=dtype), batch, len(kinds))


_DRAW = "SymInt seed, SymInt rank, SymInt num_jvp, SymInt num_endpoint, float c, float p"
_BATCH = "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
LIBRARY.define(
    "sample_batch(Tensor q, Tensor target_pose, Tensor q_target, Tensor r, Tensor? index, Tensor step, "
    f"{_DRAW}) -> {_BATCH}"
)
LIBRARY.define(
    "draw_batch(Tensor origins, int[] kinds, Tensor lower, Tensor upper, SymInt batch, Tensor step, ScalarType dtype, "
    f"{_DRAW}) -> {_BATCH}"
)
for _name, _kernel, _fake in (
    ("sample_batch", _sample_kernel, _sample_fake),
    ("draw_batch", _draw_kernel, _draw_fake),
):
    LIBRARY.impl(_name, _kernel, "CPU")
    LIBRARY.impl(_name, _kernel, "CUDA")
    torch.library.register_fake(f"mfik::{_name}", _fake, lib=LIBRARY)
