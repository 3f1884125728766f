"""A bundle's graph as modules: a solver of one robot, whose parts become TorchScript and ONNX (mfik/export/graphs.py).

What looks several times is a loop, which ends when no row needs another look; a look computes the rows that need one.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from mfik.model import Network, SingleStep
from mfik.model.v2 import NEAR2, Geometry, MeanFlowNet, ResidualBlock, Starts, Target, add_product, better
from mfik.robots import Robot

_SILU_IS_ONE = 1.2784645427610738  # x with silu(x) = 1


def _rounded_inwards(robot: Robot) -> tuple[Tensor, Tensor]:
    """Return the limits in float32, infinite for continuous joints."""
    (lower, upper), endless = robot.limits(), torch.tensor([kind == "continuous" for kind in robot.kinds])
    low, high = lower.float(), upper.float()
    low = torch.where(low.double() < lower, low.nextafter(torch.tensor(torch.inf)), low)
    high = torch.where(high.double() > upper, high.nextafter(torch.tensor(-torch.inf)), high)
    return low.masked_fill(endless, -torch.inf), high.masked_fill(endless, torch.inf)


class ExactGeometry(Geometry):
    """`Geometry` in float64."""

    above_one: Tensor

    def __init__(self, robot: Robot) -> None:
        super().__init__(robot, torch.float64)
        self.register_buffer("above_one", torch.tensor([1 + 1e-12], dtype=torch.float64), persistent=False)

    def angle(self, sine: Tensor, cosine: Tensor) -> Tensor:
        """Return angles between 0 and pi [rad]; in ONNX by the tangent of their half: to the seven digits that ONNX
        Runtime's Atan, of float32 alone, gives, and within 1e-6 rad of pi no nearer than that."""
        if torch.jit.is_tracing():  # for TorchScript
            return super().angle(sine, cosine)
        return 2 * torch.atan(sine / (cosine + self.above_one))

    def _solve(self, matrix: Tensor, wanted: Tensor) -> Tensor:
        if torch.jit.is_tracing():  # for TorchScript; ONNX has no solver
            lower = torch.linalg.cholesky_ex(matrix)[0]  # two triangular solutions take less than cholesky_solve
            half = torch.linalg.solve_triangular(lower, wanted.unsqueeze(-1), upper=False)
            return torch.linalg.solve_triangular(lower.mT, half, upper=True)
        return super()._solve(matrix, wanted)


class Start(nn.Module):
    """(q_ref, target_pose) -> where the looks begin, and the fields of `Target`; none in a graph that compares no pose
    with them."""

    def __init__(
        self, network: nn.Module | None, geometry: ExactGeometry | None, limits: tuple[Tensor, Tensor] | None
    ) -> None:
        super().__init__()
        self.network, self.geometry, self.limits = network, geometry, limits

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> tuple[Tensor, ...]:
        position, quat = target_pose.double().split((3, 4), -1)
        pose = torch.cat((position, quat / quat.norm(dim=-1, keepdim=True)), -1)
        q = q_ref if self.network is None else self.network(q_ref, pose.float())
        if self.limits is not None:
            q = q.clamp(*self.limits)
        return q, *(() if self.geometry is None else self.geometry.prepare(pose))


class _Layer(nn.Module):
    """A linear layer whose input holds a constant 1, or the silu of one, instead of a bias: TorchScript transposes the
    weights of nn.Linear in every call, and adds, in three operations."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.t().contiguous().detach())

    def forward(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.weight)


class _Block(nn.Module):
    """A residual block of layers, of a width to which the constant is added."""

    halved: Tensor

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.first = _Layer(_and_constant(block.linear1, _SILU_IS_ONE))
        self.register_buffer("halved", 0.5 * _Layer(_and_constant(block.linear2, 0.0)).weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(nn.functional.silu(x))
        return add_product(x, nn.functional.silu(h, inplace=True), self.halved)


def _and_constant(layer: nn.Linear, constant: float) -> Tensor:
    """Return the weights of a layer of inputs that end in 1, with one more output, the constant."""
    weight = torch.cat((layer.weight, layer.bias.unsqueeze(1)), 1)
    return torch.cat((weight, weight.new_tensor([[0.0] * layer.in_features + [constant]])))


class Look(nn.Module):
    """(at, best, least, fields of `Target`) -> at, best, least: one of the looks that a network of type v2 takes in an
    evaluation at (0, 1), from where it is, [N, J], with the best so far, [N, J], and its squared error, [N, 1]."""

    def __init__(self, network: MeanFlowNet, geometry: ExactGeometry) -> None:
        super().__init__()
        self.network, self.geometry, self.dof = copy.deepcopy(network), geometry, network.config.dof
        # The first layer takes what the features are taken from. Its bias contains r = 0 and t = 1; M's last entry, 1,
        # multiplies it.
        layer, size = self.network.input, 4 * self.dof + 35
        wanted, own, one = 3 * self.dof, 3 * self.dof + 16, 3 * self.dof + 31
        by_feature, (_, by_t) = layer.weight[:, : geometry.size], layer.weight[:, geometry.size :].unbind(1)
        weight = layer.weight.new_zeros(layer.out_features + 1, size + 16)
        weight[:-1].index_copy_(1, geometry.order, by_feature.detach())
        weight, difference = weight.split((size, 16), 1)
        weight[:, wanted:own] += difference
        weight[:, own : own + 16] -= difference
        weight[:-1, one] += (layer.bias + by_t).detach()
        weight[-1, one] = _SILU_IS_ONE
        self.network.input = cast(nn.Linear, _Layer(weight))
        self.network.blocks = nn.ModuleList(_Block(cast(ResidualBlock, block)) for block in network.blocks)
        self.network.head = cast(nn.Linear, _Layer(_and_constant(network.head, 0.0)[:-1]))

    def forward(self, at: Tensor, best: Tensor, least: Tensor, *target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts, error2 = self.geometry.parts(at.double(), Target(*target))
        seen, error2 = parts.float(), error2.float()
        ahead = self.network.step(at, seen, seen.narrow(-1, 3 * self.dof + 35, self.dof), error2)
        return ahead, *better(at, error2, best, least)


class Step(nn.Module):
    """A look without a network: one step of damped least squares within the limits. Takes and returns what `Look`
    does."""

    lower: Tensor
    upper: Tensor

    def __init__(self, geometry: ExactGeometry, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        self.geometry, self.dof = geometry, len(lower)
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)

    def forward(self, at: Tensor, best: Tensor, least: Tensor, *target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts, error2 = self.geometry.parts(at.double(), Target(*target))
        ahead = (at + parts.narrow(-1, 3 * self.dof + 35, self.dof).float()).clamp(self.lower, self.upper)
        return ahead, *better(at, error2.float(), best, least)


class LastLook(nn.Module):
    """A look that leads nowhere: it judges where the one before it led. Takes and returns what `Look` does."""

    def __init__(self, geometry: ExactGeometry) -> None:
        super().__init__()
        self.geometry = geometry

    def forward(self, at: Tensor, best: Tensor, least: Tensor, *target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        error2 = self.geometry.error2(at.double(), Target(*target))
        return at, *better(at, error2.float(), best, least)


class Answer(nn.Module):
    """(q, fields of `Target`) -> q_solution, and with `errors` pos_error, rot_error, inside."""

    lower: Tensor
    upper: Tensor

    def __init__(self, geometry: ExactGeometry, lower: Tensor, upper: Tensor, errors: bool) -> None:
        super().__init__()
        self.geometry, self.errors = geometry, errors
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)

    def forward(self, q: Tensor, *target: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.errors:
            return q
        inside = ((q >= self.lower) & (q <= self.upper)).all(-1)
        distance, angle = self.geometry.errors(q.double(), Target(*target))
        return q, distance.float(), angle.float(), inside


class Loop(nn.Module):
    """(best, least, fields of `Target`) -> best, least: from each start up to `count` steps of the rows that have not
    settled, and then a last look.

    As it is for `torch.jit.script`, once `starts`, `step` and `last` are traced.
    """

    def __init__(self, step: nn.Module, last: nn.Module, count: int, starts: Starts) -> None:
        super().__init__()
        self.starts: nn.Module = starts
        self.step, self.last, self.count, self.shifts = step, last, count, starts.shifts
        self.near2 = torch.tensor([NEAR2])

    def forward(self, best: Tensor, least: Tensor, target: list[Tensor]) -> tuple[Tensor, Tensor]:
        begun, rows = best, self.unsettled(least)
        for start in range(self.shifts.shape[0]):
            if rows.numel() == 0:
                break
            at = begun if start == 0 else self.starts(begun, self.shifts[start])
            started = rows
            for look in range(self.count + 1):
                last = look == self.count or rows.numel() == 0
                if last:
                    rows = started
                some = [at, best, least] + target
                if rows.numel() < best.shape[0]:
                    some = [each.index_select(0, rows) for each in some]
                here, kept, error2, azimuth, position, rotation, wanted = some
                if last:
                    here, kept, error2 = self.last(here, kept, error2, azimuth, position, rotation, wanted)
                else:
                    here, kept, error2 = self.step(here, kept, error2, azimuth, position, rotation, wanted)
                if rows.numel() < best.shape[0]:
                    at, best = at.index_copy(0, rows, here), best.index_copy(0, rows, kept)
                    least = least.index_copy(0, rows, error2)
                else:
                    at, best, least = here, kept, error2
                rows = self.unsettled(least)
                if last:
                    break
        return best, least

    def unsettled(self, least: Tensor) -> Tensor:
        """Return which rows have not come near to their pose yet, from their least squared errors, [N, 1]."""
        return (least > self.near2).nonzero().select(1, 0)


class SolverModule(nn.Module):
    """(q_ref, target_pose) -> q_solution, and with `errors` pos_error, rot_error, inside."""

    def __init__(self, model: Network, robot: Robot, refine: int, errors: bool) -> None:
        super().__init__()
        geometry, loops = ExactGeometry(robot), []
        if isinstance(model, MeanFlowNet):
            lower, upper = model.lower, model.upper
            look, starts = Look(model, geometry), copy.deepcopy(model.starts)
            loops.append(Loop(look, LastLook(geometry), model.config.passes, starts))
        else:
            lower, upper = _rounded_inwards(robot)
        if refine > 0:
            step, starts = Step(geometry, lower, upper), Starts(lower, upper, 1)
            loops.append(Loop(step, LastLook(geometry), refine, starts))
        network = None if isinstance(model, MeanFlowNet) else SingleStep(model)
        self.start = Start(network, geometry if loops or errors else None, (lower, upper) if loops else None)
        self.loops = nn.ModuleList(loops)
        self.answer = Answer(geometry, lower, upper, errors)

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> Tensor | tuple[Tensor, ...]:
        best, *target = self.start(q_ref, target_pose)
        least = unknown(best)
        for loop in self.loops:
            best, least = loop(best, least, target)
        return self.answer(best, *target)


def unknown(q: Tensor) -> Tensor:
    """Return the squared errors of joints that were not looked at yet, [N, 1]."""
    return torch.full_like(q[:, :1], torch.inf)
