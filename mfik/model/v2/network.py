"""The network of type v2: mean velocity u(q, r, t | target_pose) from the robot's geometry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mfik.errors import ArgumentError
from mfik.model.interface import Network
from mfik.model.v2.config import ModelConfig
from mfik.model.v2.features import Geometry, is_dual
from mfik.ops import MIN_REMAINING
from mfik.robots import Robot

# The next two also stand in csrc/solver/networks/v2_rows.hpp and v2.cpp.
GATE2 = 0.2**2  # squared pose error, with lengths in halves of the arm's, at which half of the learned part counts
LIMIT_MARGIN = 2.0**-23  # of a joint's largest difference and value, which float32 rounding of q + u stays below
_BLOCK_GAIN = 0.5  # of the initial weights that end a block: without normalisation the sum of blocks would grow
_GRADIENT_BOUND = 4.0  # times the batch's median norm: largest gradient of a row that passes from look to look


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


class MeanFlowNet(Network):
    """Mean velocity u(q, r, t | target_pose) over [r, t] of the flow that is at q at time r.

    An iteration of `config.passes` looks at the robot's geometry (in training mode `config.training_passes`), all with
    the same weights, from q_0 = q:

        q_k+1 = clamp(q_k + d(q_k) + g(q_k) N(features(q_k), r, t)),  u = (q_K - q) / (1 - r)

    d is the damped-least-squares step of `Geometry`, N a residual MLP whose head starts at zero, and g = e^2 / (e^2 +
    GATE2) vanishes with the pose error e, as d does: where q solves the pose, u is zero for all r and t, and another
    evaluation moves nothing. On a straight line to a solution u is the rest of the way over the rest of the time, so an
    untrained network takes steps of damped least squares, and N learns what they miss. Answers lie within the limits.

    In training a row's gradient, on its way from one look to the one before, is bounded to a multiple of the batch's
    median norm: rotation errors near half a turn and nearly singular steps would drown the others. A look that ended at
    a limit learns what leads away from it, though the clamp's own gradient there is zero.

    Args:
        config: Size.
        robot: The robot, whose geometry is part of the network.

    Raises:
        ArgumentError: config and robot differ in joints.
    """

    config: ModelConfig
    lower: Tensor
    upper: Tensor

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
        lower, upper = robot.limits()
        margin = LIMIT_MARGIN * (upper - lower + torch.maximum(lower.abs(), upper.abs()))
        endless = torch.tensor([kind == "continuous" for kind in robot.kinds], device=lower.device)
        limits = {
            "lower": (lower + margin).masked_fill(endless, -torch.inf),
            "upper": (upper - margin).masked_fill(endless, torch.inf),
        }
        for name, value in limits.items():
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Evaluate the mean velocity; see `Network.forward`."""
        at = q
        for look in range(self.config.training_passes if self.training else self.config.passes):
            if look > 0 and self._learns(at):
                at = _BoundedGradient.apply(at)
            at = self.look(at, target_pose, r, t)
        return (at - q) / (1 - r).clamp_min(MIN_REMAINING)

    def look(self, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Return where one look leads, q_k+1 [N, J] from q_k; arguments as in `forward`."""
        features, error2 = self.geometry(q, target_pose)
        x = self.input(torch.cat((features, r, t), dim=-1))
        for block in self.blocks:
            x = block(x)
        learned = error2 / (error2 + GATE2) * self.head(nn.functional.silu(x))
        q = q + features[:, -self.config.dof :] + learned
        limited = _Limited.apply if self._learns(q) else torch.clamp
        return limited(q, self.lower, self.upper)

    def _learns(self, at: Tensor) -> bool:
        """Tell whether a gradient, and no tangent, goes through a look's answer in training."""
        return self.training and at.requires_grad and not is_dual(at)


class _BoundedGradient(torch.autograd.Function):
    """The identity, whose gradient is bounded row by row; a row whose gradient is not finite gets none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor) -> Tensor:
        return q.view_as(q)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        norm = gradient.norm(dim=-1, keepdim=True)
        finite = norm.isfinite()
        bound = _GRADIENT_BOUND * norm.where(finite, norm.new_tensor(torch.inf)).median()
        return (gradient * (bound / norm.clamp_min(1e-30)).clamp(max=1)).where(finite, gradient.new_zeros(()))


class _Limited(torch.autograd.Function):
    """clamp(q, lower, upper), whose gradient is kept where following it leads back within the limits.

    Beyond a limit the gradient of clamp is zero, so a joint that was sent there once would never learn to come back.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        return q.clamp(lower, upper)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        q, lower, upper = inputs
        ctx.save_for_backward(q > upper, q < lower)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        above, below = ctx.saved_tensors
        return gradient.masked_fill((above & (gradient < 0)) | (below & (gradient > 0)), 0), None, None
