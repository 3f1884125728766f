"""A bundle's graph as modules: a solver of one robot, whose parts become TorchScript and ONNX (mfik/export/graphs.py).

In TorchScript, `mfik/export/one_row.py` takes the place of all but the layers where there is one row.
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

INVERSE = "com.microsoft::Inverse"  # ONNX Runtime's operator; ONNX itself has none
_SILU_IS_ONE = 1.2784645427610738  # x with silu(x) = 1


def _rounded_inwards(robot: Robot) -> tuple[Tensor, Tensor]:
    """Return the limits in float32, infinite for continuous joints."""
    (lower, upper), endless = robot.limits(), torch.tensor([kind == "continuous" for kind in robot.kinds])
    low, high = lower.float(), upper.float()
    low = torch.where(low.double() < lower, low.nextafter(torch.tensor(torch.inf)), low)
    high = torch.where(high.double() > upper, high.nextafter(torch.tensor(-torch.inf)), high)
    return low.masked_fill(endless, -torch.inf), high.masked_fill(endless, torch.inf)


class ExactGeometry(Geometry):
    """`Geometry` in float64, with operations that ONNX has, too."""

    squares: Tensor
    quarters: Tensor
    halved: Tensor

    def __init__(self, robot: Robot) -> None:
        super().__init__(robot, torch.float64)
        self.register_buffer("squares", torch.zeros(10, 1, dtype=torch.float64))
        self.squares[[0, 4, 7, 9]] = 1  # of the products of two components
        each = torch.eye(robot.dof, dtype=torch.float64)
        zeros = 0 * each[:1]
        self.register_buffer("quarters", torch.pi / 2 * torch.cat((1 + zeros, zeros, each.new_ones(1, 1)), 1)[0])
        self.register_buffer("halved", 0.5 * torch.cat((each, each, zeros.T), 1))
        # Half an angle's tangent is sine / (1 + cosine), which is no less than 1e-12.
        self.difference[:, :3] *= 2
        self.difference[15, 7] += 1 + 1e-12

    def angle(self, sine: Tensor, cosine: Tensor) -> Tensor:
        """Return half the angles between 0 and pi [rad], [N, 1], of sines and of cosines plus 1; in ONNX to the seven
        digits of ONNX Runtime's Atan, which is of float32 alone, and within 1e-6 rad of pi no nearer than that."""
        if torch.jit.is_tracing():  # for TorchScript
            return super().angle(sine, cosine)
        return torch.atan(sine / cosine)

    def sines(self, q: Tensor) -> Tensor:
        """Return cosines, then sines of the joints, and a 1, [N, 2 J + 1], as one sine: cos q = sin(q + pi / 2). Older
        ONNX Runtimes have no cosine of float64."""
        return add_product(self.quarters, q, self.halved).sin()

    def transposed(self, x: Tensor) -> Tensor:
        """Return matrices, [N, n, m], transposed. ONNX Runtime before 1.26 makes one operator of a transposition and a
        product, and then has none of float64; a reshape between them keeps them apart."""
        y = super().transposed(x)
        return y.flatten(1).view(-1, *y.shape[1:]) if torch.compiler.is_compiling() else y

    def quadratic(self, products: Tensor) -> Tensor:
        """Return the products of the components of unit quaternions of those of quaternions of any length, [N, 10]."""
        return products / torch.mm(products, self.squares)

    def _solve(self, matrix: Tensor, wanted: Tensor) -> Tensor:
        if torch.jit.is_tracing():  # for TorchScript: two triangular solutions take less than cholesky_solve
            lower = torch.linalg.cholesky_ex(matrix)[0]
            half = torch.linalg.solve_triangular(lower, wanted.unsqueeze(-1), upper=False)
            return torch.linalg.solve_triangular(lower.transpose(1, 2), half, upper=True)
        if torch.compiler.is_compiling():  # for ONNX
            inverse = torch.onnx.ops.symbolic(INVERSE, [matrix], dtype=matrix.dtype, shape=matrix.shape, version=1)
            return torch.bmm(inverse, wanted.unsqueeze(-1))
        return super()._solve(matrix, wanted)


class Start(nn.Module):
    """(q_ref, target_pose) -> where the looks begin, in float64, and the fields of `Target`; q_ref or the network's
    answer and none in a graph that compares no pose with them."""

    def __init__(
        self, network: nn.Module | None, geometry: ExactGeometry | None, limits: tuple[Tensor, Tensor] | None
    ) -> None:
        super().__init__()
        self.network, self.geometry, self.limits = network, geometry, limits

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> tuple[Tensor, ...]:
        q = q_ref
        if self.network is not None:
            position, quat = target_pose.split((3, 4), -1)
            q = self.network(q_ref, torch.cat((position, quat / quat.norm(dim=-1, keepdim=True)), -1))
        if self.limits is not None:
            q = q.clamp(*self.limits)
        return q.double(), *(() if self.geometry is None else self.geometry.prepare(target_pose.double()))


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


class Learned(nn.Module):
    """What the layers of a network of type v2 see, [N, size] -> what they add to a step in an evaluation at (0, 1),
    [N, J].

    Args:
        network: The network.
        weight: Of the first layer, by what it sees, [width, size].
        one: Which entry of that is a 1, the bias's.
    """

    def __init__(self, network: MeanFlowNet, weight: Tensor, one: int) -> None:
        super().__init__()
        self.network, self.size, layer = copy.deepcopy(network), weight.shape[1], network.input
        weight = torch.cat((weight, weight.new_zeros(1, weight.shape[1]))).detach()
        weight[:-1, one] += (layer.bias + layer.weight[:, -1]).detach()  # r = 0 and t = 1
        weight[-1, one] = _SILU_IS_ONE
        self.network.input = cast(nn.Linear, _Layer(weight))
        self.network.blocks = nn.ModuleList(_Block(cast(ResidualBlock, block)) for block in network.blocks)
        self.network.head = cast(nn.Linear, _Layer(_and_constant(network.head, 0.0)[:-1]))

    def forward(self, seen: Tensor) -> Tensor:
        return self.network.head(self.network.layers(seen))


class Look(nn.Module):
    """(at, fields of `Target`) -> where one of the looks leads that a network of type v2 takes in an evaluation at
    (0, 1), both [N, J], and the squared error of where it is, [N, 1]; all of it float64."""

    lower: Tensor
    upper: Tensor
    gate2: Tensor

    def __init__(self, network: MeanFlowNet, geometry: ExactGeometry) -> None:
        super().__init__()
        # The first layer takes what the features are taken from.
        dof, by_feature = network.config.dof, network.input.weight[:, : geometry.size].detach()
        size, one, own = 4 * dof + 52, 3 * dof, 3 * dof + 17
        weight = by_feature.new_zeros(len(by_feature), size + 16).index_copy_(1, geometry.order, by_feature)
        weight, difference = weight.split((size, 16), 1)
        weight[:, own : own + 16] -= difference
        weight[:, own + 16 : own + 32] += difference
        self.geometry, self.learned = geometry, Learned(network, weight, one)
        for name in ("lower", "upper", "gate2"):
            self.register_buffer(name, getattr(network, name).double())

    def forward(self, at: Tensor, *target: Tensor) -> tuple[Tensor, Tensor]:
        parts, step, error2 = self.geometry.parts(at, Target(*target))
        learned = self.learned(parts.float()).double()
        ahead = torch.addcmul(at + step, error2 / (error2 + self.gate2), learned)
        return ahead.clamp(self.lower, self.upper), error2


class Step(nn.Module):
    """A look without a network: one step of damped least squares within the limits. Takes and returns what `Look`
    does."""

    lower: Tensor
    upper: Tensor

    def __init__(self, geometry: ExactGeometry, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        self.geometry = geometry
        self.register_buffer("lower", lower.double())
        self.register_buffer("upper", upper.double())

    def forward(self, at: Tensor, *target: Tensor) -> tuple[Tensor, Tensor]:
        step, error2 = self.geometry.step(at, Target(*target))
        return (at + step).clamp(self.lower, self.upper), error2


class LastLook(nn.Module):
    """A look that leads nowhere: it judges where the one before it led. Takes and returns what `Look` does."""

    def __init__(self, geometry: ExactGeometry) -> None:
        super().__init__()
        self.geometry = geometry

    def forward(self, at: Tensor, *target: Tensor) -> tuple[Tensor, Tensor]:
        return at, self.geometry.error2(at, Target(*target))


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
        q = q.float()
        if not self.errors:
            return q
        inside = ((q >= self.lower) & (q <= self.upper)).all(-1)
        distance, angle = self.geometry.errors(q.double(), Target(*target))
        return q, distance.float(), angle.float(), inside


class Loop(nn.Module):
    """(at, best, least, fields of `Target`) -> best, least: from each start up to `count` steps of the rows that have
    not settled, and then a last look of those that began there. With `begun`, every row took its first step before.

    As it is for `torch.jit.script`, once `starts`, `step` and `last` are traced.
    """

    def __init__(self, step: nn.Module, last: nn.Module, count: int, starts: Starts, begun: bool) -> None:
        super().__init__()
        self.starts: nn.Module = starts
        self.step, self.last, self.count, self.begun, self.shifts = step, last, count, begun, starts.shifts
        self.near2 = torch.tensor([NEAR2], dtype=torch.float64)

    def forward(self, at: Tensor, best: Tensor, least: Tensor, target: list[Tensor]) -> tuple[Tensor, Tensor]:
        begin, rows = best, self.unsettled(least)
        for start in range(self.shifts.shape[0]):
            begun = self.begun and start == 0
            if rows.numel() == 0 and not begun:
                break
            if start > 0:
                at = self.starts(begin, self.shifts[start])
            started = torch.arange(best.shape[0]) if begun else rows
            for look in range(1 if begun else 0, self.count + 1):
                last = look == self.count or rows.numel() == 0
                if last:
                    rows = started
                some = [at, best, least] + target
                if rows.numel() < best.shape[0]:
                    some = [each.index_select(0, rows) for each in some]
                here, kept, error2, turn, rotation, wanted, position = some
                if last:
                    ahead, now2 = self.last(here, turn, rotation, wanted, position)
                else:
                    ahead, now2 = self.step(here, turn, rotation, wanted, position)
                kept, error2 = better(here, now2, kept, error2)
                if rows.numel() < best.shape[0]:
                    at, best = at.index_copy(0, rows, ahead), best.index_copy(0, rows, kept)
                    least = least.index_copy(0, rows, error2)
                else:
                    at, best, least = ahead, kept, error2
                rows = self.unsettled(least)
                if last:
                    break
        return best, least

    def unsettled(self, least: Tensor) -> Tensor:
        """Return which rows have not come near to their pose yet, from their least squared errors, [N, 1]."""
        return (least > self.near2).nonzero().select(1, 0)


class SolverModule(nn.Module):
    """(q_ref, target_pose) -> q_solution, and with `errors` pos_error, rot_error, inside.

    Attributes:
        loops: Of looks, one after the other.
        single: Whether there is one look in all, so that nothing is left to loop after it.
    """

    def __init__(self, model: Network, robot: Robot, refine: int, errors: bool) -> None:
        super().__init__()
        geometry, loops = ExactGeometry(robot), []
        self.last = LastLook(geometry)
        if isinstance(model, MeanFlowNet):
            lower, upper = model.lower, model.upper
            look, starts = Look(model, geometry), copy.deepcopy(model.starts).double()
            loops.append(Loop(look, self.last, model.config.passes, starts, begun=True))
        else:
            lower, upper = _rounded_inwards(robot)
        if refine > 0:
            step, starts = Step(geometry, lower, upper), Starts(lower, upper, 1).double()
            loops.append(Loop(step, self.last, refine, starts, begun=not loops))
        network = None if isinstance(model, MeanFlowNet) else SingleStep(model)
        self.start = Start(network, geometry if loops or errors else None, (lower, upper) if loops else None)
        self.first = loops[0].step if loops else None
        self.single = [loop.count * len(loop.shifts) for loop in loops] == [1]
        self.loops = nn.ModuleList(loops)
        self.answer = Answer(geometry, lower, upper, errors)

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> Tensor | tuple[Tensor, ...]:
        best, *target = self.start(q_ref, target_pose)
        if self.first is not None:
            at, least = self.first(best, *target)
            if self.single:
                at, error2 = self.last(at, *target)
                best, _ = better(at, error2, best, least)
            else:
                for loop in self.loops:
                    best, least = loop(at, best, least, target)
                    at = best
        return self.answer(best, *target)
