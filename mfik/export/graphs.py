"""The graphs of a bundle, TorchScript and ONNX: solvers of one robot that need no mfik.

Both map q_ref [N, J] [rad or m] and target_pose [N, 7] (T_base_tool [m], quaternion w, x, y, z of any length but 0) to
q_solution [N, J] and on request its errors, in float32. Within, layers compute in float32 and the robot's geometry in
float64, as in the built-in engine. What looks several times is a loop, which ends when no row needs another look; a
look computes the rows that need one.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import opset18
from torch import Tensor, nn

from mfik.model import Network, SingleStep
from mfik.model.v2 import Geometry, Judge, MeanFlowNet, ResidualBlock, Starts, Target
from mfik.robots import Robot

METADATA_KEY = "mfik"  # of the bundle's document, in every file
INPUTS = ("q_ref", "target_pose")
OUTPUTS = ("q_solution", "pos_error", "rot_error", "inside")  # the last three on request
_OPSET = 20
_SILU_IS_ONE = 1.2784645427610738  # x with silu(x) = 1
_IR_VERSION = 10


def torchscript(model: Network, robot: Robot, document: str, refine: int = 0, errors: bool = False) -> bytes:
    """Return a TorchScript file of a network.

    Args:
        model: Network in float32 on the CPU.
        robot: Its robot.
        document: Text that the file carries as its extra file `mfik`.
        refine: Steps of damped least squares after the network's answer, at most.
        errors: Also return pos_error [N] [m], rot_error [N] [rad], and inside [N], whether q_solution keeps the limits.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated and stays the requested format
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes are checked, and limits are constants
        solver = _Solver(model, robot, refine, errors).eval()
        q, *target = solver.start(*_example(robot))
        for i, loop in enumerate(solver.loops):
            assert isinstance(loop, _Loop)
            loop.starts = torch.jit.trace(loop.starts, (q, loop.shifts[0]), check_trace=False)
            loop.step = torch.jit.trace(loop.step, (q, q, _unknown(q), *target), check_trace=False)
            solver.loops[i] = torch.jit.script(loop)
        graph = torch.jit.freeze(torch.jit.trace(solver, _example(robot), check_trace=False))
        buffer = io.BytesIO()  # torch reports a full disk as a RuntimeError
        torch.jit.save(graph, buffer, _extra_files={METADATA_KEY: document})
    return buffer.getvalue()


def onnx_model(model: Network, robot: Robot, document: str, refine: int = 0, errors: bool = False) -> onnx.ModelProto:
    """Return an ONNX model of a network, with the document in its metadata; arguments as of `torchscript`."""
    solver = _Solver(model, robot, refine, errors).eval()
    start, dof = _FlatStart(solver.start), robot.dof
    with torch.no_grad():
        state, target = start(*_example(robot))
    parts = [
        _Part("start", start, _example(robot)),
        _Part("answer", _FlatAnswer(solver.answer, dof), (state, target)),
    ]
    for i, loop in enumerate(solver.loops):
        assert isinstance(loop, _Loop)
        assert isinstance(loop.starts, Starts)
        parts.append(_Part(f"begin{i}", _FlatBegin(loop.starts), (state, state[:, :dof]), (loop.shifts[0],)))
        parts.append(_Part(f"step{i}", _FlatStep(loop.step, dof), (state, target)))
    whole = ir.from_onnx_text(_onnx_text(robot.dof, solver.loops, OUTPUTS if errors else OUTPUTS[:1]))
    for name, part in _graphs(parts).items():
        whole.functions["mfik", name, ""] = ir.Function("mfik", name, graph=part, attributes=[])
    inline = (passes.InlinePass(), passes.RemoveUnusedFunctionsPass(), passes.RemoveUnusedOpsetsPass())
    lift = passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    tidy = (lift, passes.LiftSubgraphInitializersToMainGraphPass(), passes.DeduplicateInitializersPass())
    for apply in (*inline, *tidy, passes.IdentityEliminationPass(), passes.ClearMetadataAndDocStringPass()):
        apply(whole)  # that last one: stack traces, paths of this machine, and two thirds of the file
    proto = ir.to_proto(whole)
    onnx.helper.set_model_props(proto, {METADATA_KEY: document})
    onnx.checker.check_model(proto)
    return proto


class _Part(NamedTuple):
    """A module without loops and an example of its inputs: those with a row for each pose, then those of all."""

    name: str
    module: nn.Module
    rows: tuple[Tensor, ...]
    common: tuple[Tensor, ...] = ()


class _SideBySide(nn.Module):
    """The inputs of several modules, one after the other -> their outputs, likewise."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part.module for part in parts)
        self.counts = [len(part.rows + part.common) for part in parts]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(output for outputs in self.each(inputs) for output in outputs)

    def each(self, inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        for part, count in zip(self.parts, self.counts, strict=True):
            outputs = part(*inputs[:count])
            yield outputs if isinstance(outputs, tuple) else (outputs,)
            inputs = inputs[count:]


def _graphs(parts: Sequence[_Part]) -> dict[str, ir.Graph]:
    """Return modules as ONNX graphs, whose constants are nodes: a function has no initializers.

    They are exported as one, as the exporter reads its whole library each time, and then taken apart.
    """
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision, which nothing here uses, is not installed
    example: list[Tensor] = []
    dims: list[dict[int, Any] | None] = []
    for i, part in enumerate(parts):  # of different numbers of rows, or their sizes would count as the same
        example += [*(x.repeat(1 + i, *[1] * (x.dim() - 1)) for x in part.rows), *part.common]
        dims += [*({0: torch.export.Dim(f"N{i}")} for _ in part.rows), *(None for _ in part.common)]
    module = _SideBySide(parts).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        num_outputs = [len(outputs) for outputs in module.each(example)]
        program = torch.onnx.export(
            module,
            tuple(example),
            dynamic_shapes=(tuple(dims),),
            custom_translation_table={torch.ops.aten.atan2.default: _atan2, torch.ops.aten.atan.default: _atan},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    logger.setLevel(level)
    assert program is not None  # as dynamo=True gives one
    whole = program.model.graph
    inputs, outputs, graphs = list(whole.inputs), list(whole.outputs), {}
    for part, num_inputs, num in zip(parts, module.counts, num_outputs, strict=True):
        graph = ir.convenience.extract(whole, inputs[:num_inputs], outputs[:num])
        inputs, outputs = inputs[num_inputs:], outputs[num:]
        for value in sorted(graph.initializers.values(), key=lambda value: str(value.name)):  # extract keeps no order
            constant = ir.node("Constant", [], attributes={"value": value.const_value})
            graph.insert_before(graph[0], constant)
            ir.convenience.replace_all_uses_with(value, constant.outputs[0])
        graph.initializers.clear()
        graphs[part.name] = graph
    return graphs


def _onnx_text(dof: int, loops: nn.ModuleList, outputs: Sequence[str]) -> str:
    """Return a solver that calls its parts, in ONNX's text format: what `_Solver.forward` and `_Loop.forward` do."""
    types = dict(zip(OUTPUTS, (f"float[N, {dof}]", "float[N]", "float[N]", "bool[N]"), strict=True))
    state = f"float[N, {2 * dof + 1}]"
    text = [
        f'<ir_version: {_IR_VERSION}, opset_import: ["": {_OPSET}, "mfik": 1]>',
        f"solver (float[N, {dof}] q_ref, float[N, 7] target_pose)",
        f"    => ({', '.join(f'{types[name]} {name}' for name in outputs)}) {{",
        "state0, target = mfik.start(q_ref, target_pose)",
    ]
    for i, loop in enumerate(loops):
        assert isinstance(loop, _Loop)
        shifts = ", ".join(f"{x:.9g}" for x in loop.shifts.flatten().tolist())
        text.append(f"""
            begun{i} = mfik.best(state{i})
            rows{i}, unsettled{i} = mfik.unsettled(state{i})
            starts{i} = Constant<value_int: int = {len(loop.shifts)}>()
            looks{i} = Constant<value_int: int = {loop.count}>()
            shifts{i} = Constant<value: tensor = float[{len(loop.shifts)}, {dof}] {{{shifts}}}>()
            last_rows{i}, state{i + 1} = Loop<body = each_start (
                int64 start{i}, bool go_on{i}, int64[M, 1] rows_before{i}, {state} before{i}
            ) => (bool unsettled_after{i}, int64[M, 1] rows_after{i}, {state} after{i}) {{
                shift{i} = Gather<axis = 0>(shifts{i}, start{i})
                begin{i} = mfik.begin{i}(before{i}, begun{i}, shift{i})
                rows_after{i}, after{i} = Loop<body = each_look (
                    int64 look{i}, bool look_on{i}, int64[M, 1] rows_at{i}, {state} at{i}
                ) => (bool unsettled_at{i}, int64[M, 1] rows_ahead{i}, {state} ahead{i}) {{
                    narrow{i} = GatherND(at{i}, rows_at{i})
                    narrow_target{i} = GatherND(target, rows_at{i})
                    stepped{i} = mfik.step{i}(narrow{i}, narrow_target{i})
                    ahead{i} = ScatterND(at{i}, rows_at{i}, stepped{i})
                    rows_ahead{i}, unsettled_at{i} = mfik.unsettled(ahead{i})
                }}>(looks{i}, go_on{i}, rows_before{i}, begin{i})
                size{i} = Size(rows_after{i})
                zero{i} = Constant<value_int: int = 0>()
                unsettled_after{i} = Greater(size{i}, zero{i})
            }}>(starts{i}, unsettled{i}, rows{i}, state{i})""")
    text.append(f"{', '.join(outputs)} = mfik.answer(state{len(loops)}, target)\n}}")
    text.append(f"""
        <domain: "mfik", opset_import: ["": {_OPSET}]>
        best (state) => (q) {{
            begin = Constant<value_ints: ints = [{dof}]>()
            end = Constant<value_ints: ints = [{2 * dof}]>()
            axis = Constant<value_ints: ints = [1]>()
            q = Slice(state, begin, end, axis)
        }}
        <domain: "mfik", opset_import: ["": {_OPSET}]>
        unsettled (state) => (rows, some) {{
            last = Constant<value_int: int = {2 * dof}>()
            least = Gather<axis = 1>(state, last)
            row = NonZero(least)
            rows = Transpose(row)
            count = Size(rows)
            none = Constant<value_int: int = 0>()
            some = Greater(count, none)
        }}""")
    return "\n".join(text)


def _example(robot: Robot) -> tuple[Tensor, Tensor]:
    return torch.zeros(2, robot.dof), torch.tensor([[0.5, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0]]).repeat(2, 1)


def _atan2(y: Any, x: Any) -> Any:
    """aten.atan2 for ONNX, of float64 and not both zero, by the tangent of half the angle.

    ONNX Runtime has Atan in float32 alone, so that its angle is turned by what is left, a small one.
    """
    op: Any = opset18  # whose types name every dtype that an operator takes
    radius = op.Sqrt(x * x + y * y)
    half = op.Where(x >= op.CastLike(0.0, x), y / (radius + x), (radius - x) / y)
    angle = op.Cast(op.Atan(op.Cast(half, to=onnx.TensorProto.FLOAT)), to=onnx.TensorProto.DOUBLE)
    angle = angle + angle
    sin, cos = op.Sin(angle), op.Cos(angle)
    return angle + (y * cos - x * sin) / radius


def _atan(x: Any) -> Any:
    """aten.atan of float64 for ONNX, to single precision: ONNX Runtime has Atan in float32 alone."""
    op: Any = opset18
    return op.Cast(op.Atan(op.Cast(x, to=onnx.TensorProto.FLOAT)), to=onnx.TensorProto.DOUBLE)


def _rounded_inwards(robot: Robot) -> tuple[Tensor, Tensor]:
    """Return the limits in float32, infinite for continuous joints."""
    (lower, upper), endless = robot.limits(), torch.tensor([kind == "continuous" for kind in robot.kinds])
    low, high = lower.float(), upper.float()
    low = torch.where(low.double() < lower, low.nextafter(torch.tensor(torch.inf)), low)
    high = torch.where(high.double() > upper, high.nextafter(torch.tensor(-torch.inf)), high)
    return low.masked_fill(endless, -torch.inf), high.masked_fill(endless, torch.inf)


class _ExactGeometry(Geometry):
    """`Geometry` in float64."""

    above_one: Tensor

    def __init__(self, robot: Robot) -> None:
        super().__init__(robot, torch.float64)
        self.register_buffer("above_one", torch.tensor([1 + 1e-12], dtype=torch.float64), persistent=False)

    def angle(self, sine: Tensor, cosine: Tensor) -> Tensor:
        """Return angles between 0 and pi [rad]. In ONNX they are those of the tangent of their half: to the seven digits
        that ONNX Runtime's Atan, of float32 alone, gives; within 1e-6 rad of pi no nearer than that."""
        if torch.jit.is_tracing():  # for TorchScript
            return super().angle(sine, cosine)
        return 2 * torch.atan(sine / (cosine + self.above_one))

    def _solve(self, matrix: Tensor, wanted: Tensor) -> Tensor:
        if torch.jit.is_tracing():  # for TorchScript; ONNX has no solver
            return torch.linalg.solve_ex(matrix, wanted.unsqueeze(-1))[0]
        return super()._solve(matrix, wanted)


class _Start(nn.Module):
    """(q_ref, target_pose) -> where the looks begin, and the fields of `Target`; none in a graph that compares no pose
    with them."""

    def __init__(
        self, network: nn.Module | None, geometry: _ExactGeometry | None, limits: tuple[Tensor, Tensor] | None
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


class _Block(nn.Module):
    """A residual block whose second layer takes its bias from a constant 1, one more output of the first one.

    TorchScript transposes the weights of nn.Linear in every call. (addmm with constant weights would be one operation
    for product and sum, but its shape is mistaken for that of the weights when a frozen graph is optimized.)
    """

    second: Tensor

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        first, second = block.linear1, block.linear2
        self.first = nn.Linear(first.in_features, first.out_features + 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.cat((first.weight, torch.zeros_like(first.weight[:1]))))
            self.first.bias.copy_(torch.cat((first.bias, first.bias.new_tensor([_SILU_IS_ONE]))))
        self.register_buffer("second", torch.cat((second.weight.t(), second.bias.unsqueeze(0))).detach())

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.silu(self.first(nn.functional.silu(x))) @ self.second


class _Look(nn.Module):
    """(at, best, least, fields of `Target`) -> at, best, least: one of the looks that a network of type v2 takes in an
    evaluation at (0, 1), from where it is, [N, J], with the best so far, [N, J], and its squared error, [N, 1]."""

    def __init__(self, network: MeanFlowNet, geometry: _ExactGeometry) -> None:
        super().__init__()
        self.network, self.geometry, self.dof = copy.deepcopy(network), geometry, network.config.dof
        # The first layer takes what the features are taken from, in that order, and its bias contains r = 0 and t = 1.
        layer = self.network.input
        weight, (_, by_t) = layer.weight[:, : geometry.size], layer.weight[:, geometry.size :].unbind(1)
        size = 4 * self.dof + 51
        self.network.input = nn.Linear(size, network.config.width)
        with torch.no_grad():
            self.network.input.weight.copy_(weight.new_zeros(len(weight), size).index_copy(1, geometry.order, weight))
            self.network.input.bias.copy_(layer.bias + by_t)
        self.network.blocks = nn.ModuleList(_Block(cast(ResidualBlock, block)) for block in network.blocks)

    def forward(self, at: Tensor, best: Tensor, least: Tensor, *target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts, error2 = self.geometry.parts(at.double(), Target(*target))
        seen, error2 = parts.float(), error2.float()
        ahead = self.network.step(at, seen, seen.narrow(-1, 3 * self.dof + 51, self.dof), error2)
        return ahead, *self.network.judge(at, error2, best, least)


class _Step(nn.Module):
    """A look without a network: one step of damped least squares within the limits. Takes and returns what `_Look`
    does."""

    lower: Tensor
    upper: Tensor

    def __init__(self, geometry: _ExactGeometry, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        self.geometry, self.judge, self.dof = geometry, Judge(lower.device), len(lower)
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)

    def forward(self, at: Tensor, best: Tensor, least: Tensor, *target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts, error2 = self.geometry.parts(at.double(), Target(*target))
        ahead = (at + parts.narrow(-1, 3 * self.dof + 51, self.dof).float()).clamp(self.lower, self.upper)
        return ahead, *self.judge(at, error2.float(), best, least)


class _Answer(nn.Module):
    """(q, fields of `Target`) -> q_solution, and with `errors` pos_error, rot_error, inside."""

    lower: Tensor
    upper: Tensor

    def __init__(self, geometry: _ExactGeometry, lower: Tensor, upper: Tensor, errors: bool) -> None:
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


class _Loop(nn.Module):
    """(best, least, fields of `Target`) -> best, least: from each start up to `count` steps of the rows that need
    another, whose least squared error is not 0.

    As it is for `torch.jit.script`, once `starts` and `step` are traced.
    """

    def __init__(self, step: nn.Module, count: int, starts: Starts) -> None:
        super().__init__()
        self.starts: nn.Module = starts
        self.step, self.count, self.shifts = step, count, starts.shifts

    def forward(self, best: Tensor, least: Tensor, target: list[Tensor]) -> tuple[Tensor, Tensor]:
        begun = best
        rows = least.nonzero().select(1, 0)
        for start in range(self.shifts.shape[0]):
            if rows.numel() == 0:
                break
            at = self.starts(begun, self.shifts[start])
            for _ in range(self.count):
                if rows.numel() == 0:
                    break
                if rows.numel() == best.shape[0]:
                    at, best, least = self.step(at, best, least, target[0], target[1], target[2], target[3])
                else:
                    some = [each.index_select(0, rows) for each in [at, best, least] + target]
                    ahead, kept, error2 = self.step(some[0], some[1], some[2], some[3], some[4], some[5], some[6])
                    at, best = at.index_copy(0, rows, ahead), best.index_copy(0, rows, kept)
                    least = least.index_copy(0, rows, error2)
                rows = least.nonzero().select(1, 0)
        return best, least


class _Solver(nn.Module):
    """(q_ref, target_pose) -> q_solution, and with `errors` pos_error, rot_error, inside."""

    def __init__(self, model: Network, robot: Robot, refine: int, errors: bool) -> None:
        super().__init__()
        geometry, loops = _ExactGeometry(robot), []
        if isinstance(model, MeanFlowNet):
            lower, upper = model.lower, model.upper
            look, starts = _Look(model, geometry), copy.deepcopy(model.starts)
            loops.append(_Loop(look, model.config.passes + 1, starts))  # the last look of a start judges
        else:
            lower, upper = _rounded_inwards(robot)
        if refine > 0:
            loops.append(_Loop(_Step(geometry, lower, upper), refine + 1, Starts(lower, upper, 1)))
        network = None if isinstance(model, MeanFlowNet) else SingleStep(model)
        self.start = _Start(network, geometry if loops or errors else None, (lower, upper) if loops else None)
        self.loops = nn.ModuleList(loops)
        self.answer = _Answer(geometry, lower, upper, errors)

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> Tensor | tuple[Tensor, ...]:
        best, *target = self.start(q_ref, target_pose)
        least = _unknown(best)
        for loop in self.loops:
            best, least = loop(best, least, target)
        return self.answer(best, *target)


def _unknown(q: Tensor) -> Tensor:
    """Return the squared errors of joints that were not looked at yet, [N, 1]."""
    return torch.full_like(q[:, :1], torch.inf)


# ONNX's loops carry one tensor for all rows' state, which is gathered and scattered at once: `at`, `best` and `least`,
# [N, 2 J + 1]. The fields of `Target` are one tensor, too, [N, J + 35], or [N, 0] where there are none.


class _FlatStart(nn.Module):
    """(q_ref, target_pose) -> state, target."""

    def __init__(self, start: _Start) -> None:
        super().__init__()
        self.start = start

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
        q, *target = self.start(q_ref, target_pose)
        state = torch.cat((q, q, _unknown(q)), -1)
        return state, torch.cat([field.flatten(1) for field in target], -1) if target else target_pose[:, :0]


class _FlatBegin(nn.Module):
    """(state, begun, shift) -> the state at the start of a row of `Starts.shifts`."""

    def __init__(self, starts: Starts) -> None:
        super().__init__()
        self.starts = starts

    def forward(self, state: Tensor, begun: Tensor, shift: Tensor) -> Tensor:
        return torch.cat((self.starts(begun, shift), state[:, begun.shape[1] :]), -1)


class _FlatStep(nn.Module):
    """(state, target) -> state."""

    def __init__(self, step: nn.Module, dof: int) -> None:
        super().__init__()
        self.step, self.dof = step, dof

    def forward(self, state: Tensor, target: Tensor) -> Tensor:
        return torch.cat(self.step(*state.split((self.dof, self.dof, 1), -1), *_fields(target, self.dof)), -1)


class _FlatAnswer(nn.Module):
    """(state, target) -> what `_Answer` returns."""

    def __init__(self, answer: _Answer, dof: int) -> None:
        super().__init__()
        self.answer, self.dof = answer, dof

    def forward(self, state: Tensor, target: Tensor) -> Tensor | tuple[Tensor, ...]:
        best = state.narrow(-1, self.dof, self.dof)
        return self.answer(best, *(_fields(target, self.dof) if target.shape[1] > 0 else ()))


def _fields(target: Tensor, dof: int) -> Target:
    azimuth, position, rotation, wanted = target.split((dof, 3, 16, 16), -1)
    return Target(azimuth, position, rotation.view(-1, 4, 4), wanted.view(-1, 4, 4))
