"""The network of type v1: mean velocity u(q, r, t | target_pose), and its derivative along a trajectory.

`MeanFlowNet.forward_with_tangent` is the dual-number form of `forward`, written by hand: it pushes tangents beside the
values that the ordinary forward computes anyway, so a row's derivative costs its tangent's matrix products and no
second forward.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mfik.model.interface import Network
from mfik.model.v1 import dual
from mfik.model.v1.config import ModelConfig

_MAX_PERIOD = 10_000.0  # ratio of the highest to the lowest sinusoidal frequency


class Encoding(nn.Module):
    """Encode each scalar s as [sin(s f_0), ..., cos(s f_0), ...]; the frequencies f travel with the weights."""

    frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        half = config.encoding_dim // 2
        if config.encoding == "sinusoidal":
            frequencies = torch.exp(torch.arange(half) * (-math.log(_MAX_PERIOD) / (half - 1)))
        else:
            frequencies = torch.randn(half, generator=torch.Generator().manual_seed(0))
        self.register_buffer("frequencies", config.encoding_scale * frequencies)

    def forward(self, scalars: Tensor) -> Tensor:
        """Map [N, S] to [N, S * encoding_dim]."""
        angles = scalars.unsqueeze(-1) * self.frequencies
        return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(1)

    def tangent(self, features: Tensor, tangents: Tensor) -> Tensor:
        """Push the scalars' tangents [N, S] beside `forward`'s features, both [N, S * encoding_dim]."""
        sin, cos = features.unflatten(1, (tangents.shape[1], -1)).chunk(2, dim=-1)
        angles = tangents.unsqueeze(-1) * self.frequencies
        return torch.cat((cos * angles, -sin * angles), dim=-1).flatten(1)


class ResidualBlock(nn.Module):
    """x + SiLU(FiLM(Linear(LN(SiLU(Linear(LN(x)))))))."""

    def __init__(self, width: int, cond_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.linear2 = nn.Linear(width, width)
        self.film = nn.Linear(cond_dim, 2 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map [N, width] and [N, cond_dim] to [N, width]."""
        h = nn.functional.silu(self.linear1(self.norm1(x)))
        h = self.linear2(self.norm2(self.dropout(h)))
        scale, shift = self.film(condition).chunk(2, dim=-1)
        return x + nn.functional.silu(h * (1 + scale) + shift)

    def forward_with_tangent(
        self, x: Tensor, condition: Tensor, dx: Tensor, dcondition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluate `forward` on all rows and push the tangents of the first n.

        Args:
            x: [N, width].
            condition: [N, cond_dim].
            dx: Tangent of x's first n rows, [n, width].
            dcondition: Tangent of condition's first n rows, [n, cond_dim].

        Returns:
            What `forward` returns, [N, width], and the tangent of its first n rows, [n, width], without gradient.
        """
        normed, of_norm1 = dual.layer_norm(self.norm1, x)
        inner = self.linear1(normed)
        h = nn.functional.silu(inner)
        mask = self.dropout(torch.ones_like(h)) if self.training and self.dropout.p else None
        if mask is not None:  # value and tangent share it
            h = h * mask
        normed, of_norm2 = dual.layer_norm(self.norm2, h)
        h = self.linear2(normed)
        scale, shift = self.film(condition).chunk(2, dim=-1)
        gain = 1 + scale
        modulated = h * gain + shift
        with torch.no_grad():
            n = len(dx)
            dh = dual.linear_tangent(self.linear1, dual.layer_norm_tangent(self.norm1, of_norm1, dx))
            dh = dual.silu_tangent(inner, dh)
            if mask is not None:
                dh = dh * mask[:n]
            dh = dual.linear_tangent(self.linear2, dual.layer_norm_tangent(self.norm2, of_norm2, dh))
            dscale, dshift = dual.linear_tangent(self.film, dcondition).chunk(2, dim=-1)
            dh = dshift.addcmul(dh, gain[:n]).addcmul(h[:n], dscale)
            dx = dx + dual.silu_tangent(modulated, dh)
        return x + nn.functional.silu(modulated), dx


class MeanFlowNet(Network):
    """Mean velocity u(q, r, t | target_pose) over [r, t] of the flow that is at q at time r.

    The head starts at zero, so an untrained network answers the reference itself: q_solution = q_ref.

    Args:
        config: Size and encoding; `ModelConfig.panda_default()` has 17.9M parameters.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        scalars = config.dof + 7 + 2
        self.encoding = None if config.encoding == "none" else Encoding(config)
        self.input = nn.Linear(scalars * (1 if self.encoding is None else config.encoding_dim), config.width)
        self.condition = nn.Linear(7 + 2, config.cond_dim)
        self.blocks = nn.ModuleList(
            ResidualBlock(config.width, config.cond_dim, config.dropout) for _ in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.dof)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Evaluate the mean velocity; see `Network.forward`."""
        scalars = self._scalars(q, target_pose, r, t)
        condition = nn.functional.silu(self.condition(scalars[:, q.shape[1] :]))
        x = self.input(scalars if self.encoding is None else self.encoding(scalars))
        for block in self.blocks:
            x = block(x, condition)
        return self.head(self.norm(x))

    def forward_with_tangent(
        self, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the mean velocity, and along a trajectory its derivative D = du/dr + v . grad_q u, in one pass.

        The same as `torch.func.jvp(forward, (q, r), (v, 1))` on the first n rows, in closed form; a dropout mask is
        shared by value and tangent. Under autocast the tangents' matrix products are rounded as the values' are.

        Args:
            q: As for `forward`, [N, J].
            target_pose: As for `forward`, [N, 7].
            r: As for `forward`, [N, 1].
            t: As for `forward`, [N, 1].
            v: Velocity at the first n rows, 0 <= n <= N, [rad] or [m] per unit time, [n, J].

        Returns:
            u [N, J], with gradient, and D of the first n rows, [rad] or [m] per unit time squared, [n, J], without.
        """
        n, dof = v.shape
        scalars = self._scalars(q, target_pose, r, t)
        features = scalars if self.encoding is None else self.encoding(scalars)
        x, gate = self.input(features), self.condition(scalars[:, dof:])
        condition = nn.functional.silu(gate)
        with torch.no_grad():
            fixed = v.new_zeros(n, 7)
            tangents = torch.cat((v, fixed, torch.ones_like(v[:, :1]), fixed[:, :1]), dim=-1)
            dfeatures = tangents if self.encoding is None else self.encoding.tangent(features[:n], tangents)
            dx = dual.linear_tangent(self.input, dfeatures)
            dcondition = dual.silu_tangent(gate, dual.linear_tangent(self.condition, tangents[:, dof:]))
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            x, dx = block.forward_with_tangent(x, condition, dx, dcondition)
        normed, of_norm = dual.layer_norm(self.norm, x)
        u = self.head(normed)
        with torch.no_grad():
            derivative = dual.linear_tangent(self.head, dual.layer_norm_tangent(self.norm, of_norm, dx))
        return u, derivative

    @staticmethod
    def _scalars(q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Return the network's inputs [q, position, canonical quaternion, r, t], [N, J + 9]."""
        position, quat = target_pose[:, :3], target_pose[:, 3:]
        quat = torch.where(quat[:, :1] < 0, -quat, quat)  # both signs are one rotation
        return torch.cat((q, position, quat, r, t), dim=-1)
