"""The graphs of a bundle, TorchScript and ONNX: solvers of one robot that need no mfik.

Both map q_ref [N, J] [rad or m] and target_pose [N, 7] (T_base_tool [m], quaternion w, x, y, z of any length but 0) to
q_solution [N, J] and on request its errors, in float32. Within, layers compute in float32 and the robot's geometry in
float64, as in the built-in engine. What looks several times is a loop, which ends when no row needs another look; a
look computes the rows that need one.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import opset18
from torch import Tensor, nn

from mfik.export.modules import Answer, Loop, SolverModule, Start, unknown
from mfik.model import Network
from mfik.model.v2 import NEAR2, Starts, Target
from mfik.robots import Robot

METADATA_KEY = "mfik"  # of the bundle's document, in every file
INPUTS = ("q_ref", "target_pose")
OUTPUTS = ("q_solution", "pos_error", "rot_error", "inside")  # the last three on request
_OPSET = 20
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
        solver = SolverModule(model, robot, refine, errors).eval()
        q, *target = solver.start(*_example(robot))
        for i, loop in enumerate(solver.loops):
            assert isinstance(loop, Loop)
            loop.starts = torch.jit.trace(loop.starts, (q, loop.shifts[0]), check_trace=False)
            loop.step = torch.jit.trace(loop.step, (q, q, unknown(q), *target), check_trace=False)
            loop.last = torch.jit.trace(loop.last, (q, q, unknown(q), *target), check_trace=False)
            solver.loops[i] = torch.jit.script(loop)
        graph = torch.jit.freeze(torch.jit.trace(solver, _example(robot), check_trace=False))
        buffer = io.BytesIO()  # torch reports a full disk as a RuntimeError
        torch.jit.save(graph, buffer, _extra_files={METADATA_KEY: document})
    return buffer.getvalue()


def onnx_model(model: Network, robot: Robot, document: str, refine: int = 0, errors: bool = False) -> onnx.ModelProto:
    """Return an ONNX model of a network, with the document in its metadata; arguments as of `torchscript`."""
    solver = SolverModule(model, robot, refine, errors).eval()
    start, dof = _FlatStart(solver.start), robot.dof
    with torch.no_grad():
        state, target = start(*_example(robot))
    parts = [
        _Part("start", start, _example(robot)),
        _Part("answer", _FlatAnswer(solver.answer, dof), (state, target)),
    ]
    for i, loop in enumerate(solver.loops):
        assert isinstance(loop, Loop)
        assert isinstance(loop.starts, Starts)
        parts.append(_Part(f"begin{i}", _FlatBegin(loop.starts), (state, state[:, :dof]), (loop.shifts[0],)))
        parts.append(_Part(f"step{i}", _FlatStep(loop.step, dof), (state, target)))
        parts.append(_Part(f"last{i}", _FlatStep(loop.last, dof), (state, target)))
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
    """Return a solver that calls its parts, in ONNX's text format: it does what `SolverModule` and `Loop` do."""
    types = dict(zip(OUTPUTS, (f"float[N, {dof}]", "float[N]", "float[N]", "bool[N]"), strict=True))
    state = f"float[N, {2 * dof + 1}]"
    text = [
        f'<ir_version: {_IR_VERSION}, opset_import: ["": {_OPSET}, "mfik": 1]>',
        f"solver (float[N, {dof}] q_ref, float[N, 7] target_pose)",
        f"    => ({', '.join(f'{types[name]} {name}' for name in outputs)}) {{",
        "state0, target = mfik.start(q_ref, target_pose)",
    ]
    for i, loop in enumerate(loops):
        assert isinstance(loop, Loop)
        shifts = ", ".join(f"{x:.9g}" for x in loop.shifts.flatten().tolist())
        text.append(f"""
            begun{i} = mfik.best(state{i})
            rows{i}, unsettled{i} = mfik.unsettled(state{i})
            starts{i} = Constant<value_int: int = {len(loop.shifts)}>()
            looks{i} = Constant<value_int: int = {loop.count}>()
            shifts{i} = Constant<value: tensor = float[{len(loop.shifts)}, {dof}] {{{shifts}}}>()
            last_rows{i}, state{i + 1} = Loop<body = each_start (
                int64 start{i}, bool go_on{i}, int64[M, 1] started{i}, {state} before{i}
            ) => (bool unsettled_after{i}, int64[M, 1] rows_after{i}, {state} after{i}) {{
                shift{i} = Gather<axis = 0>(shifts{i}, start{i})
                begin{i} = mfik.begin{i}(before{i}, begun{i}, shift{i})
                looked_rows{i}, looked{i} = Loop<body = each_look (
                    int64 look{i}, bool look_on{i}, int64[M, 1] rows_at{i}, {state} at{i}
                ) => (bool unsettled_at{i}, int64[M, 1] rows_ahead{i}, {state} ahead{i}) {{
                    narrow{i} = GatherND(at{i}, rows_at{i})
                    narrow_target{i} = GatherND(target, rows_at{i})
                    stepped{i} = mfik.step{i}(narrow{i}, narrow_target{i})
                    ahead{i} = ScatterND(at{i}, rows_at{i}, stepped{i})
                    rows_ahead{i}, unsettled_at{i} = mfik.unsettled(ahead{i})
                }}>(looks{i}, go_on{i}, started{i}, begin{i})
                judging{i} = GatherND(looked{i}, started{i})
                judging_target{i} = GatherND(target, started{i})
                judged{i} = mfik.last{i}(judging{i}, judging_target{i})
                after{i} = ScatterND(looked{i}, started{i}, judged{i})
                rows_after{i}, unsettled_after{i} = mfik.unsettled(after{i})
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
            near = Constant<value: tensor = float {{{NEAR2:.9g}}}>()
            far = Greater(least, near)
            row = NonZero(far)
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


# ONNX's loops carry one tensor for all rows' state, which is gathered and scattered at once: `at`, `best` and `least`,
# [N, 2 J + 1]. The fields of `Target` are one tensor, too, [N, J + 35], or [N, 0] where there are none.


class _FlatStart(nn.Module):
    """(q_ref, target_pose) -> state, target."""

    def __init__(self, start: Start) -> None:
        super().__init__()
        self.start = start

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
        q, *target = self.start(q_ref, target_pose)
        state = torch.cat((q, q, unknown(q)), -1)
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
    """(state, target) -> what `Answer` returns."""

    def __init__(self, answer: Answer, dof: int) -> None:
        super().__init__()
        self.answer, self.dof = answer, dof

    def forward(self, state: Tensor, target: Tensor) -> Tensor | tuple[Tensor, ...]:
        best = state.narrow(-1, self.dof, self.dof)
        return self.answer(best, *(_fields(target, self.dof) if target.shape[1] > 0 else ()))


def _fields(target: Tensor, dof: int) -> Target:
    azimuth, position, rotation, wanted = target.split((dof, 3, 16, 16), -1)
    return Target(azimuth, position, rotation.view(-1, 4, 4), wanted.view(-1, 4, 4))
