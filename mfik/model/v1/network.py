"""The version 1 network: mean velocity u(q, r, t | target_pose)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mfik.model.v1.config import ModelConfig

_MAX_PERIOD = 10_000.0  # ratio of the highest to the lowest sinusoidal frequency


class Encoding(nn.Module):
    """Encode each scalar s as [sin(s f_0), ..., cos(s f_0), ...]; the frequencies f travel with the weights."""

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


class MeanFlowNet(nn.Module):
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
        """Evaluate the mean velocity.

        Args:
            q: Joints at time r, [rad] or [m], [N, J].
            target_pose: T_base_tool [x, y, z, qw, qx, qy, qz], [m], unit quaternion of either sign, [N, 7].
            r: Start time in [0, 1], [N, 1].
            t: End time in [r, 1], [N, 1].

        Returns:
            u, [rad] or [m] per unit time, [N, J].
        """
        position, quat = target_pose[:, :3], target_pose[:, 3:]
        quat = torch.where(quat[:, :1] < 0, -quat, quat)  # both signs are one rotation
        scalars = torch.cat((q, position, quat, r, t), dim=-1)
        condition = nn.functional.silu(self.condition(scalars[:, q.shape[1] :]))
        x = self.input(scalars if self.encoding is None else self.encoding(scalars))
        for block in self.blocks:
            x = block(x, condition)
        return self.head(self.norm(x))

    def num_parameters(self) -> int:
        """Return the number of trained scalars."""
        return sum(p.numel() for p in self.parameters())


class SingleStep(nn.Module):
    """What is exported: (q_ref, target_pose) -> q_solution = q_ref + u(q_ref, 0, 1)."""

    def __init__(self, model: MeanFlowNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> Tensor:
        """Map q_ref [N, J] and target_pose [N, 7] to q_solution [N, J]."""
        r = torch.zeros_like(q_ref[:, :1])
        return q_ref + self.model(q_ref, target_pose, r, torch.ones_like(r))
