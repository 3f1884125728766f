"""Op `sample_batch`."""

from __future__ import annotations

import torch
from torch import Tensor

from mfik.errors import ArgumentError
from mfik.ops import _reference
from mfik.ops._backend import LIBRARY, has_kernel, launch
from mfik.ops._checks import check_integer, check_like, check_no_grad, check_rows, check_weight
from mfik.ops._reference import Batch


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
    """Gather data rows and draw new times on their lines.

    Row m of the data is the line through (r, q) and (1, q_target) (docs/concepts.md); `1 - r` is bounded below by
    MIN_REMAINING = 0.01:

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
        step: Of the training run, in [0, 2^63).
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
    check_integer("seed", seed, 0, 2**63 - 1, "take it modulo 2^63")
    check_integer("step", step, 0, 2**63 - 1, "count from 0")
    check_integer("rank", rank, 0, 2**32 - 1, "count from 0")
    check_integer("num_jvp", num_jvp, 0, batch, "it counts rows of the batch")
    check_integer("num_endpoint", num_endpoint, 0, num_jvp, "it counts rows of the first num_jvp")
    check_weight(c, p, q.dtype)
    check_no_grad("sample_batch", "detach it", q=q, target_pose=target_pose, q_target=q_target, r=r)
    if not has_kernel("sample_batch", q.device):
        return _reference.sample_batch(
            q, target_pose, q_target, r, index,
            seed=seed, step=step, rank=rank, num_jvp=num_jvp, num_endpoint=num_endpoint, c=c, p=p,
        )  # fmt: skip
    return Batch(
        *torch.ops.mfik.sample_batch(q, target_pose, q_target, r, index, seed, step, rank, num_jvp, num_endpoint, c, p)
    )


def _kernel(
    q: Tensor,
    target_pose: Tensor,
    q_target: Tensor,
    r: Tensor,
    index: Tensor | None,
    seed: int,
    step: int,
    rank: int,
    num_jvp: int,
    num_endpoint: int,
    c: float,
    p: float,
) -> tuple[Tensor, ...]:
    lines = [rows.contiguous() for rows in (q, target_pose, q_target, r)]
    index = None if index is None else index.contiguous()
    out = _fake(q, target_pose, q_target, r, index, seed, step, rank, num_jvp, num_endpoint, c, p)
    addresses = [rows.data_ptr() for rows in lines] + [0 if index is None else index.data_ptr()]
    bad = launch(
        "sample_batch", q, addresses, [rows.data_ptr() for rows in out], q.shape[0], out[0].shape[0], q.shape[1],
        seed, step, rank, num_jvp, num_endpoint, c, p,
    )  # fmt: skip
    if bad is not None and bad >= 0:
        raise _reference.index_error(index, bad, q.shape[0])
    return out


def _fake(
    q: Tensor,
    target_pose: Tensor,
    q_target: Tensor,
    r: Tensor,
    index: Tensor | None,
    seed: int,
    step: int,
    rank: int,
    num_jvp: int,
    num_endpoint: int,
    c: float,
    p: float,
) -> tuple[Tensor, ...]:
    batch = q.shape[0] if index is None else index.shape[0]
    dof = q.shape[1]
    return tuple(q.new_empty(batch, columns) for columns in (dof, 7, dof, 1, 1, dof, 1))


LIBRARY.define(
    "sample_batch(Tensor q, Tensor target_pose, Tensor q_target, Tensor r, Tensor? index, SymInt seed, SymInt step, "
    "SymInt rank, SymInt num_jvp, SymInt num_endpoint, float c, float p) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
LIBRARY.impl("sample_batch", _kernel, "CPU")
LIBRARY.impl("sample_batch", _kernel, "CUDA")
torch.library.register_fake("mfik::sample_batch", _fake, lib=LIBRARY)
