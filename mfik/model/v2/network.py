"""The network of type v2: mean velocity u(q, r, t | target_pose) from the robot's geometry."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mfik.errors import ArgumentError
from mfik.model.interface import Network
from mfik.model.v2.config import ModelConfig
from mfik.model.v2.features import Geometry, Target, is_dual, is_traced
from mfik.ops import MIN_REMAINING
from mfik.robots import Robot

# The next three also stand in csrc/solver/networks/v2_rows.hpp and v2.cpp.
GATE2 = 0.3**2  # squared pose error, with lengths in halves of the arm's, at which half of the learned part counts
NEAR2 = 1e-9  # squared pose error from which one more look leads as near to the pose as float32 can tell
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


class Starts(nn.Module):
    """Where an evaluation begins: at q_0, and from there on at places that divide each joint's range evenly.

    Args:
        lower: Lower limits [rad or m], minus infinity where there is none, [J], float64.
        upper: Upper ones.
        count: Number of starts.
    """

    lower: Tensor
    upper: Tensor
    span: Tensor
    shifts: Tensor

    def __init__(self, lower: Tensor, upper: Tensor, count: int) -> None:
        super().__init__()
        span = (upper - lower).nan_to_num(posinf=2 * torch.pi)
        share = torch.arange(count, dtype=span.dtype, device=span.device).unsqueeze(-1) / count
        shifts = (share - (share > 0.5).to(share)) * span  # [starts, J], half a range at most
        for name, value in {"lower": lower, "upper": upper, "span": span, "shifts": shifts}.items():
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, q: Tensor, shift: Tensor) -> Tensor:
        """Return where the start of a row of `shifts` begins for q_0 = q, [N, J]."""
        at = q + shift
        at = torch.where(at > self.upper, at - self.span, torch.where(at < self.lower, at + self.span, at))
        return at.clamp(self.lower, self.upper)


class Judge(nn.Module):
    """What an evaluation keeps of its looks. (Constants are tensors: graphs make one of a number in every look.)"""

    near2: Tensor
    none: Tensor

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("near2", torch.tensor([NEAR2], device=device), persistent=False)
        self.register_buffer("none", torch.zeros(1, device=device), persistent=False)

    def forward(self, at: Tensor, error2: Tensor, best: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best of an evaluation's looks and its squared error, [N, J] and [N, 1]; 0 where it has settled.

        What is not a number is handed out, too: an answer to a pose that is not finite is none.

        Args:
            at: Where the last look was.
            error2: Squared pose error at the last look.
            best: Of the looks before.
            least: Its squared pose error; infinite before the first look.
        """
        settled = least <= self.near2  # by the look before
        best, least = better(at, error2, best, least)
        return best, torch.where(settled, self.none, least)


def better(at: Tensor, error2: Tensor, best: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Return the better of a look and those before and its squared error; arguments as of `Judge`."""
    kept = error2 >= least  # which what is no number is not
    return torch.where(kept, best, at), torch.where(kept, least, error2)


class MeanFlowNet(Network):
    """Mean velocity u(q, r, t | target_pose) over [r, t] of the flow that is at q at time r.

    An iteration of looks at the robot's geometry, all with the same weights, from q_0 = clamp(q):

        q_k+1 = clamp(q_k + d(q_k) + g(q_k) N(features(q_k), r, t)),  u = (q* - q) / (1 - r)

    d is the damped-least-squares step of `Geometry`, N a residual MLP whose head starts at zero, and g = e^2 / (e^2 +
    GATE2) vanishes with the pose error e, as d does: where q solves the pose, u is zero for all r and t, and another
    evaluation moves nothing. On a straight line to a solution u is the rest of the way over the rest of the time, so an
    untrained network takes steps of damped least squares, and N learns what they miss.

    The answer q* is what of all looks had the least pose error. It lies within the limits. An evaluation settles with
    the look after the one that met a squared error below NEAR2, as further looks could hardly tell. What has not
    settled after K = `config.passes` looks mostly never does: it is at the edge of a branch that does not reach the
    pose. So it begins anew, K looks each, at the other ones of `config.starts` places that divide each joint's range
    evenly from q_0 on.

    In training mode it is q_k after k = `config.training_passes` looks, which gradients reach through all looks. A
    row's gradient, on its way from one look to the one before, is bounded to a multiple of the batch's median norm:
    rotation errors near half a turn and nearly singular steps would drown the others. A look that ended at a limit
    learns what leads away from it, though the clamp's own gradient there is zero.

    Args:
        config: Size.
        robot: The robot, whose geometry is part of the network.

    Raises:
        ArgumentError: config and robot differ in joints.
    """

    config: ModelConfig
    lower: Tensor
    upper: Tensor
    gate2: Tensor

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
        self.register_buffer("gate2", torch.tensor([GATE2], device=lower.device), persistent=False)
        self.judge = Judge(lower.device)
        self.starts = Starts(limits["lower"], limits["upper"], config.starts)

    def forward(self, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Evaluate the mean velocity; see `Network.forward`."""
        if self.training:
            answer = q
            for look in range(self.config.training_passes):
                if look > 0 and self._learns(answer):
                    answer = _BoundedGradient.apply(answer)
                answer, _ = self.look(answer, target_pose, r, t)
        elif q.is_cpu and not (torch.is_grad_enabled() or is_dual(q) or is_dual(target_pose) or is_traced()):
            answer = _UnsettledRows.apply(q, target_pose, r, t, self)
        else:
            begun, answer, least = self.start(q)
            for shift in self.starts.shifts:
                at = self.starts(begun, shift)
                for _ in range(self.config.passes + 1):  # the last one judges
                    at, answer, least = self.judged_look(at, answer, least, target_pose, r, t)
        return (answer - q) / (1 - r).clamp_min(MIN_REMAINING)

    def without_restarts(self) -> MeanFlowNet:
        """Return a network of the same parameters that begins at q alone."""
        network = copy.deepcopy(self, {id(parameter): parameter for parameter in self.parameters()})
        network.config = replace(self.config, starts=1)
        network.starts.shifts = self.starts.shifts[:1]
        return network

    def start(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return where an evaluation begins: q_0, the best so far, both [N, J], and its squared error, [N, 1]."""
        at = q.clamp(self.lower, self.upper)
        return at, at, torch.full_like(q[:, :1], torch.inf)

    def judged_look(
        self, at: Tensor, best: Tensor, least: Tensor, target: Tensor | Target, r: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Look once more: return q_k+1, and of q_0 to q_k the best and its squared error, from q_k and those before."""
        ahead, error2 = self.look(at, target, r, t)
        return ahead, *self.judge(at, error2, best, least)

    def look(self, q: Tensor, target: Tensor | Target, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return where one look leads, q_k+1 [N, J] from q_k, and the squared pose error of q_k, [N, 1]."""
        features, error2 = self.geometry(q, target)
        x = self.layers(torch.cat((features, r, t), dim=-1))
        gate = error2 / (error2 + self.gate2)
        ahead = torch.addcmul(q + features[:, -self.config.dof :], gate, self.head(x))
        limited = _Limited.apply if self._learns(ahead) else torch.clamp
        return limited(ahead, self.lower, self.upper), error2

    def layers(self, seen: Tensor) -> Tensor:
        """Return what the head takes, [N, width], of what the layers see, [N, size]."""
        x = self.input(seen)
        for block in self.blocks:
            x = block(x)
        return nn.functional.silu(x)

    def _learns(self, at: Tensor) -> bool:
        """Tell whether a gradient, and no tangent, goes through a look's answer in training."""
        return self.training and at.requires_grad and not is_dual(at)


class _UnsettledRows(torch.autograd.Function):
    """The answers of an evaluation without gradient, whose looks leave out the rows that need none any more."""

    @staticmethod
    def forward(q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor, module: MeanFlowNet) -> Tensor:
        answer, rows, inputs, state = torch.empty_like(q), torch.arange(len(q)), (target_pose, r, t), module.start(q)
        begun = state[0]
        for shift in module.starts.shifts:
            state = module.starts(begun[rows], shift), *state[1:]
            for _ in range(module.config.passes + 1):
                at, best, least = module.judged_look(*state, *inputs)
                answer[rows] = best
                unsettled = ~(least == 0).squeeze(-1)
                rows, state = rows[unsettled], (at[unsettled], best[unsettled], least[unsettled])
                target_pose, r, t = inputs
                inputs = target_pose[unsettled], r[unsettled], t[unsettled]
        return answer

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        *tensors, module = inputs
        rows = (
            (x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
            for x, dim in zip(tensors, in_dims, strict=False)
        )
        return _UnsettledRows.apply(*rows, module).unflatten(0, (info.batch_size, -1)), 0


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
        bound = _GRADIENT_BOUND * norm.masked_fill(~finite, torch.inf).median()
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
