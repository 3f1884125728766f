"""Op `weighted_residual_loss`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mfik.errors import ArgumentError
from mfik.ops import _reference
from mfik.ops._backend import LIBRARY, has_kernel, launch
from mfik.ops._checks import check_like, check_no_grad, check_no_tangent, check_rows, check_weight


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
    """Compute each row's loss `w ||u - (v + (t - r) D)||^2`, differentiable with respect to u alone.

    Args:
        u: Predicted mean velocity [rad or m per unit of time], [B, J], float32 or float64.
        v: Velocity of the line [rad or m per unit of time], [B, J].
        derivative: D of the first n rows, 0 <= n <= B; the others have t = r, whose D does not count. [n, J].
        r: Start time, [B, 1].
        t: End time, [B, 1].
        weight: w, a constant, [B, 1]; None takes `(||u - (v + (t - r) D)||^2 + c)^-p`, a constant too (p = 0: 1).
        clip: Largest norm of (t - r) D in units of the row's ||v||; 0 turns clipping off.
        c: Bounds that weight by c^-p, > 0.
        p: Its power, >= 0.
    Returns:
        The rows' losses [B, 1], and their squared residuals without gradient [B, 1].
    Raises:
        ArgumentError: An argument has the wrong shape, dtype, device or value, one but u requires grad, or u has a
            forward-mode tangent, which would be lost.
    """
    check_rows("u", u)
    rows, dof = u.shape
    check_like("v", v, u.shape, "u", u)
    check_rows("derivative", derivative, dof)
    n = derivative.shape[0]
    if n > rows:
        raise ArgumentError(f"derivative: expected at most {rows} rows to go with u {list(u.shape)}, got {n}")
    check_like("derivative", derivative, (n, dof), "u", u)
    check_like("r", r, (rows, 1), "u", u)
    check_like("t", t, (rows, 1), "u", u)
    constants = {"v": v, "derivative": derivative, "r": r, "t": t}
    if weight is not None:
        check_like("weight", weight, (rows, 1), "u", u)
        constants["weight"] = weight
    check_weight(c, p, u.dtype)
    if not 0 <= clip < math.inf:
        raise ArgumentError(f"clip: expected a finite number >= 0, got {clip}; 0 turns clipping off")
    check_no_grad("weighted_residual_loss", "detach it", **constants)
    check_no_tangent("weighted_residual_loss", "take its derivative in reverse mode", u=u)
    if not has_kernel("weighted_residual_loss", u.device):
        return _reference.weighted_residual_loss(u, v, derivative, r, t, weight, clip=clip, c=c, p=p)
    loss, squared, _ = torch.ops.mfik.weighted_residual_loss(u, v, derivative, r, t, weight, clip, c, p)
    return loss, squared


def _kernel(
    u: Tensor,
    v: Tensor,
    derivative: Tensor,
    r: Tensor,
    t: Tensor,
    weight: Tensor | None,
    clip: float,
    c: float,
    p: float,
) -> tuple[Tensor, ...]:
    arrays = [x.contiguous() for x in (u, v, derivative, r, t)] + ([] if weight is None else [weight.contiguous()])
    out = _fake(u, v, derivative, r, t, weight, clip, c, p)
    addresses = [x.data_ptr() for x in arrays] + ([0] if weight is None else []) + [x.data_ptr() for x in out]
    launch("weighted_residual_loss", u, addresses, *u.shape, derivative.shape[0], clip, c, p)
    return out


def _fake(
    u: Tensor,
    v: Tensor,
    derivative: Tensor,
    r: Tensor,
    t: Tensor,
    weight: Tensor | None,
    clip: float,
    c: float,
    p: float,
) -> tuple[Tensor, ...]:
    return u.new_empty(u.shape[0], 1), u.new_empty(u.shape[0], 1), u.new_empty(u.shape)


def _backward_kernel(
    gradient: Tensor, residual: Tensor, squared: Tensor, weight: Tensor | None, c: float, p: float
) -> Tensor:
    arrays = [x.contiguous() for x in (gradient, residual, squared)] + ([] if weight is None else [weight.contiguous()])
    out = _backward_fake(gradient, residual, squared, weight, c, p)
    addresses = [x.data_ptr() for x in arrays] + ([0] if weight is None else []) + [out.data_ptr()]
    launch("weighted_residual_loss_backward", residual, addresses, *residual.shape, c, p)
    return out


def _backward_fake(
    gradient: Tensor, residual: Tensor, squared: Tensor, weight: Tensor | None, c: float, p: float
) -> Tensor:
    return residual.new_empty(residual.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, squared, residual = output
    ctx.mark_non_differentiable(squared, residual)
    ctx.save_for_backward(residual, squared, inputs[5])
    ctx.c, ctx.p = inputs[7:]


def _backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Any, ...]:
    residual, squared, weight = ctx.saved_tensors
    u_gradient = torch.ops.mfik.weighted_residual_loss_backward(gradient, residual, squared, weight, ctx.c, ctx.p)
    return u_gradient, *[None] * 8


LIBRARY.define(
    "weighted_residual_loss(Tensor u, Tensor v, Tensor derivative, Tensor r, Tensor t, Tensor? weight, float clip, "
    "float c, float p) -> (Tensor, Tensor, Tensor)"
)
LIBRARY.define(
    "weighted_residual_loss_backward(Tensor gradient, Tensor residual, Tensor squared, Tensor? weight, float c, "
    "float p) -> Tensor"
)
for _name, _run, _shape in (
    ("weighted_residual_loss", _kernel, _fake),
    ("weighted_residual_loss_backward", _backward_kernel, _backward_fake),
):
    LIBRARY.impl(_name, _run, "CPU")
    LIBRARY.impl(_name, _run, "CUDA")
    torch.library.register_fake(f"mfik::{_name}", _shape, lib=LIBRARY)
torch.library.register_autograd("mfik::weighted_residual_loss", _backward, setup_context=_setup_context, lib=LIBRARY)
