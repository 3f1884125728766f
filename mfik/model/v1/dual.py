"""Layers that push tangents beside their values: dual numbers, written by hand.

Of SiLU and of LayerNorm without its weight the Jacobian is symmetric, J = J^T, so PyTorch's fused backward kernel
(J^T g) is the tangent kernel (J dx) as well. Tangents belong to the first rows and carry no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def linear(layer: nn.Linear, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """Return layer(x), and the tangent of its first len(dx) rows without gradient."""
    y = layer(x)
    with torch.no_grad():  # rather than a detached weight: autocast then uses the copy that it rounded for layer(x)
        return y, nn.functional.linear(dx, layer.weight)


def silu(x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """Return silu(x), and the tangent of its first len(dx) rows without gradient."""
    return nn.functional.silu(x), torch.ops.aten.silu_backward(dx, x.detach()[: len(dx)])


def layer_norm(layer: nn.LayerNorm, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """Return layer(x), and the tangent of its first len(dx) rows without gradient, in the weights' precision."""
    n, shape = len(dx), layer.normalized_shape
    x, dx = x.to(layer.weight.dtype), dx.to(layer.weight.dtype)
    y, mean, rstd = torch.native_layer_norm(x, shape, layer.weight, layer.bias, layer.eps)
    # Without weight and bias, rstd (I - 1 1^T / width - z z^T / width) dx with z = (x - mean) rstd: symmetric.
    dy, _, _ = torch.ops.aten.native_layer_norm_backward(
        dx, x.detach()[:n], shape, mean.detach()[:n], rstd.detach()[:n], None, None, (True, False, False)
    )
    return y, dy * layer.weight.detach()
