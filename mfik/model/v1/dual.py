"""Layers whose tangents are pushed beside their values: dual numbers, written by hand.

Of SiLU and of LayerNorm without its weight the Jacobian is symmetric, J = J^T, so PyTorch's fused backward kernel
(J^T g) is the tangent kernel (J dx) as well. Tangents belong to the first rows and carry no gradient: what computes
them here runs under `torch.no_grad()`, as a detached tensor or a context for each would take as long as its arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Normalized(NamedTuple):
    """What `layer_norm` and its tangent have in common: the input, and its rows' means and inverse deviations."""

    x: Tensor
    mean: Tensor
    rstd: Tensor


def layer_norm(layer: nn.LayerNorm, x: Tensor) -> tuple[Tensor, Normalized]:
    """Return layer(x) in the weights' precision, and what its tangent takes."""
    x = x.to(layer.weight.dtype)
    y, mean, rstd = torch.native_layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
    return y, Normalized(x, mean, rstd)


def layer_norm_tangent(layer: nn.LayerNorm, at: Normalized, dx: Tensor) -> Tensor:
    """Return the tangent of the first len(dx) rows of layer(x), in the weights' precision."""
    n = len(dx)
    x, mean, rstd = at.x[:n], at.mean[:n], at.rstd[:n]
    # Without weight and bias, rstd (I - 1 1^T / width - z z^T / width) dx with z = (x - mean) rstd: symmetric.
    dy, _, _ = torch.ops.aten.native_layer_norm_backward(
        dx.to(x.dtype), x, layer.normalized_shape, mean, rstd, None, None, (True, False, False)
    )
    return dy * layer.weight


def linear_tangent(layer: nn.Linear, dx: Tensor) -> Tensor:
    """Return the tangent of layer(x), after which autocast uses the copy of the weight that it rounded for that."""
    return nn.functional.linear(dx, layer.weight)


def silu_tangent(x: Tensor, dx: Tensor) -> Tensor:
    """Return the tangent of the first len(dx) rows of silu(x)."""
    return torch.ops.aten.silu_backward(dx, x[: len(dx)])
