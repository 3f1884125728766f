"""The network of type v2: mean velocity u(q, r, t | target_pose) from the robot's geometry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfik.errors import ArgumentError
from mfik.model import dual
from mfik.model.interface import Network
from mfik.model.v2.config import ModelConfig
from mfik.model.v2.features import Geometry
from mfik.ops import MIN_REMAINING
from mfik.robots import Robot

_BLOCK_GAIN = 0.5  # of the initial weights that end a block: without normalisation the sum of blocks would grow


class ResidualBlock(nn.Module):
    """x + Linear(SiLU(Linear(SiLU(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, width)
        self.linear2 = nn.Linear(width, width)
        with torch.no_grad():
            self.linear2.weight.mul_(_BLOCK_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, width] to [N, width]."""
        return x + self.linear2(nn.functional.silu(self.linear1(nn.functional.silu(x))))

    def forward_with_tangent(self, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate `forward` on all rows, and push the tangents dx [n, width] of the first n, without gradient."""
        h, dh = dual.linear(self.linear1, *dual.silu(x, dx))
        h, dh = dual.linear(self.linear2, *dual.silu(h, dh))
        return x + h, dx + dh


class MeanFlowNet(Network):
    """Mean velocity u(q, r, t | target_pose) over [r, t] of the flow that is at q at time r.

    u = (d(q) + N(features, r, t)) / (1 - r): d is the damped-least-squares step of `Geometry`, N a residual MLP whose
    head starts at zero. On a straight line to a solution u is the rest of the way over the rest of the time, so near a
    solution an untrained network takes a step of damped least squares, and N learns what that step misses.

    Args:
        config: Size.
        robot: The robot, whose geometry is part of the network.

    Raises:
        ArgumentError: config and robot differ in joints.
    """

    def __init__(self, config: ModelConfig, robot: Robot) -> None:
        super().__init__()
        if config.dof != robot.dof:
            raise ArgumentError(f"config.dof: expected {robot.dof} joints of {robot.name!r}, got {config.dof}")
        self.config = config
        self.geometry = Geometry(robot)
        self.input = nn.Linear(self.geometry.size + 2, config.width)
        self.blocks = nn.ModuleList(ResidualBlock(config.width) for _ in range(config.num_blocks))
        self.head = nn.Linear(config.width, config.dof)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Evaluate the mean velocity; see `Network.forward`."""
        features, step = self.geometry(q, target_pose)
        x = self.input(torch.cat((features, r, t), dim=-1))
        for block in self.blocks:
            x = block(x)
        return (step + self.head(nn.functional.silu(x))) / (1 - r).clamp_min(MIN_REMAINING)

    def forward_with_tangent(
        self, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the mean velocity, and along a trajectory its derivative D = du/dr + v . grad_q u, in one pass.

        The same as `torch.func.jvp(forward, (q, r), (v, 1))` on the first n rows. The features are differentiated by
        `torch.func.jvp`, the MLP in closed form.

        Args:
            q: As for `forward`, [N, J].
            target_pose: As for `forward`, [N, 7].
            r: As for `forward`, [N, 1].
            t: As for `forward`, [N, 1].
            v: Velocity at the first n rows, 0 <= n <= N, [rad] or [m] per unit time, [n, J].

        Returns:
            u [N, J], with gradient, and D of the first n rows, [rad] or [m] per unit time squared, [n, J], without.
        """
        n = len(v)
        with torch.no_grad():  # nothing before the input layer is trained
            (first, first_step), (dfeatures, dstep) = torch.func.jvp(
                lambda joints: self.geometry(joints, target_pose[:n]), (q[:n],), (v.detach(),)
            )
            features, step = self.geometry(q[n:], target_pose[n:])
            features, step = torch.cat((first, features)), torch.cat((first_step, step))
            dtimes = torch.cat((torch.ones_like(v[:, :1]), torch.zeros_like(v[:, :1])), dim=-1)
        x, dx = dual.linear(self.input, torch.cat((features, r, t), dim=-1), torch.cat((dfeatures, dtimes), dim=-1))
        for block in self.blocks:
            x, dx = block.forward_with_tangent(x, dx)
        h, dh = dual.linear(self.head, *dual.silu(x, dx))
        remaining = (1 - r).clamp_min(MIN_REMAINING)
        u = (step + h) / remaining
        # d(1 / remaining)/dr = 1 / remaining^2 but where it is clamped.
        free = (1 - r[:n] > MIN_REMAINING).to(dh)
        derivative = (dstep + dh + free * u.detach()[:n]) / remaining[:n]
        return u, derivative
