"""The graphs of a bundle, TorchScript and ONNX: solvers of one robot that need no mfik.

Both map q_ref [N, J] [rad or m] and target_pose [N, 7] (T_base_tool [m], quaternion w, x, y, z of any length but 0) to
q_solution [N, J] and on request its errors, in float32. Within, layers compute in float32 and the robot's geometry in
float64, as in the built-in engine. What looks several times is a loop, which ends when no row needs another look; a
look computes the rows that need one. In TorchScript a single row has code of its own (mfik/export/one_row.py).

ONNX has no operator that inverts matrices. ONNX Runtime does, `com.microsoft.Inverse`, and the graph calls it; with it
comes a function of this name in ONNX's own operators, for every other runtime.
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
from onnxscript import opset18, rewriter
from torch import Tensor, nn

from mfik.export.modules import INVERSE, Answer, ExactGeometry, Learned, Loop, SolverModule, Start
from mfik.export.one_row import ByRows, ByRowsWithErrors, OneRow
from mfik.model import Network
from mfik.model.v2 import NEAR2, Geometry, Starts, Target, better
from mfik.robots import Robot

METADATA_KEY = "mfik"  # of the bundle's document, in every file
INPUTS = ("q_ref", "target_pose")
OUTPUTS = ("q_solution", "pos_error", "rot_error", "inside")  # the last three on request
_OPSET = 18
_IR_VERSION = 8


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
            loop.step = torch.jit.trace(loop.step, (q, *target), check_trace=False)
            loop.last = torch.jit.trace(loop.last, (q, *target), check_trace=False)
            solver.loops[i] = torch.jit.script(loop)
        graph = torch.jit.trace(solver, _example(robot), check_trace=False)
        if solver.loops:
            graph = torch.jit.script(_by_rows(model, robot, refine, graph, solver.answer))
        graph = torch.jit.freeze(graph.eval())
        buffer = io.BytesIO()  # torch reports a full disk as a RuntimeError
        torch.jit.save(graph, buffer, _extra_files={METADATA_KEY: document})
    return buffer.getvalue()


def _by_rows(model: Network, robot: Robot, refine: int, several: nn.Module, answer: Answer) -> nn.Module:
    """Return a solver of any number of rows: of one it takes numbers instead of tensors, in half the time."""
    limits = answer.lower, answer.upper
    one = OneRow(model, robot, refine, limits)
    one.start = torch.jit.trace(one.start, [x[:1] for x in _example(robot)], check_trace=False)
    if isinstance(one.learned, Learned):
        seen = torch.zeros(1, one.learned.size)
        one.learned = torch.jit.trace(one.learned, (seen,), check_trace=False)
    return ByRowsWithErrors(one, several, limits) if answer.errors else ByRows(one, several)


def onnx_model(model: Network, robot: Robot, document: str, refine: int = 0, errors: bool = False) -> onnx.ModelProto:
    """Return an ONNX model of a network, with the document in its metadata; arguments as of `torchscript`."""
    solver, outputs = SolverModule(model, robot, refine, errors).eval(), OUTPUTS if errors else OUTPUTS[:1]
    loops = [] if solver.single else [loop for loop in solver.loops if isinstance(loop, Loop)]
    parts = _loop_parts(solver, loops, robot) if loops else [_Part("solver", solver, _example(robot))]
    domain, inverse = INVERSE.split("::")
    parts.append(_Part(inverse, _Inverse(robot), (torch.eye(6, dtype=torch.float64).repeat(2, 1, 1),)))
    whole = ir.from_onnx_text(_onnx_text(robot.dof, loops, outputs))
    for name, part in _graphs(parts).items():
        owner = domain if name == inverse else "mfik"
        whole.functions[owner, name, ""] = ir.Function(owner, name, graph=part, attributes=[])
    parts_of_text = passes.InlinePass(lambda function: function.domain == "mfik")
    inline = (parts_of_text, passes.RemoveUnusedFunctionsPass(), passes.RemoveUnusedOpsetsPass())
    lift = passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    once = passes.DeduplicateInitializersPass(size_limit=1 << 30)  # each step of a loop brings the weights
    tidy = (lift, passes.LiftSubgraphInitializersToMainGraphPass(), once)
    used = (passes.IdentityEliminationPass(), _SQUARES, passes.RemoveUnusedNodesPass())
    for apply in (*inline, *tidy, *used, passes.ClearMetadataAndDocStringPass()):
        apply(whole)  # that last one: stack traces, paths of this machine, and two thirds of the file
    proto = ir.to_proto(whole)
    onnx.helper.set_model_props(proto, {METADATA_KEY: document})
    onnx.checker.check_model(proto)
    return proto


def _loop_parts(solver: SolverModule, loops: Sequence[Loop], robot: Robot) -> list[_Part]:
    """Return what the text of a solver with loops calls."""
    start, dof = _FlatStart(solver.start, loops[0].step), robot.dof
    with torch.no_grad():
        state, target = start(*_example(robot))
    parts = [
        _Part("start", start, _example(robot)),
        _Part("last", _FlatStep(solver.last, dof), (state, target)),
        _Part("answer", _FlatAnswer(solver.answer, dof), (state, target)),
    ]
    for i, loop in enumerate(loops):
        assert isinstance(loop.starts, Starts)
        parts.append(_Part(f"step{i}", _FlatStep(loop.step, dof), (state, target)))
        if len(loop.shifts) > loop.begun:
            parts.append(_Part(f"begin{i}", _FlatBegin(loop.starts), (state, state[:, :dof]), (loop.shifts[0],)))
    return parts


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
            custom_translation_table={torch.ops.aten.atan.default: _atan},
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


def _onnx_text(dof: int, loops: Sequence[Loop], outputs: Sequence[str]) -> str:
    """Return a solver that calls its parts, in ONNX's text format: it does what `SolverModule` and `Loop` do.

    Every row takes its first look, and each start's last one judges all that took part in it; what lies between is for
    the rows that need it. Most rows need one start, so the others are a loop of their own.
    """
    types = dict(zip(OUTPUTS, (f"float[N, {dof}]", "float[N]", "float[N]", "bool[N]"), strict=True))
    head = f"""<ir_version: {_IR_VERSION}, opset_import: ["": {_OPSET}, "mfik": 1, "{INVERSE.split("::")[0]}": 1]>
        solver (float[N, {dof}] q_ref, float[N, 7] target_pose)
            => ({", ".join(f"{types[name]} {name}" for name in outputs)}) {{"""
    if not loops:
        return f"{head} {', '.join(outputs)} = mfik.solver(q_ref, target_pose) }}"
    text = [head, "state0, target = mfik.start(q_ref, target_pose)"]
    for i, loop in enumerate(loops):
        shifts, end = loop.shifts[loop.begun :], f"state{i + 1}"
        begin = f"unsettled{i}, rows{i}, state{i}"
        text.append(f"""
            rows{i}, unsettled{i} = mfik.unsettled(state{i})
            begun{i} = mfik.best(state{i})""")
        if loop.begun:
            judged = f"judged{i}" if len(shifts) > 0 else end
            text.append(f"""
            {_looks_text(i, dof, loop.count - 1, begin, f"looked{i}")}
            {judged} = mfik.last(looked{i}, target)
            rows_left{i}, left{i} = mfik.unsettled({judged})""")
            begin = f"left{i}, rows_left{i}, {judged}"
        if len(shifts) > 0:
            values = ", ".join(map(str, shifts.flatten().tolist()))
            state = f"double[N, {2 * dof + 1}]"
            text.append(f"""
            starts{i} = Constant<value_int: int = {len(shifts)}>()
            shifts{i} = Constant<value: tensor = double[{len(shifts)}, {dof}] {{{values}}}>()
            last_rows{i}, {end} = Loop<body = each_start (
                int64 start{i}, bool go_on{i}, int64[M, 1] started{i}, {state} before{i}
            ) => (bool unsettled_after{i}, int64[M, 1] rows_after{i}, {state} after{i}) {{
                shift{i} = Gather<axis = 0>(shifts{i}, start{i})
                again{i} = mfik.begin{i}(before{i}, begun{i}, shift{i})
                {_looks_text(i, dof, loop.count, f"go_on{i}, started{i}, again{i}", f"looked_again{i}")}
                judging{i} = GatherND(looked_again{i}, started{i})
                judging_target{i} = GatherND(target, started{i})
                judged_again{i} = mfik.last(judging{i}, judging_target{i})
                after{i} = ScatterND(looked_again{i}, started{i}, judged_again{i})
                rows_after{i}, unsettled_after{i} = mfik.unsettled(after{i})
            }}>(starts{i}, {begin})""")
    text.append(f"{', '.join(outputs)} = mfik.answer(state{len(loops)}, target)\n}}")
    text.append(f"""
        <domain: "mfik", opset_import: ["": {_OPSET}]>
        best (state) => (q) {{
            sizes = Constant<value_ints: ints = [{dof}, {dof}, 1]>()
            at, q, least = Split<axis = 1>(state, sizes)
        }}
        <domain: "mfik", opset_import: ["": {_OPSET}]>
        unsettled (state) => (rows, some) {{
            last = Constant<value_int: int = {2 * dof}>()
            least = Gather<axis = 1>(state, last)
            near = Constant<value: tensor = double {{{NEAR2}}}>()
            far = Greater(least, near)
            row = NonZero(far)
            rows = Transpose(row)
            count = Size(rows)
            none = Constant<value_int: int = 0>()
            some = Greater(count, none)
        }}""")
    return "\n".join(text)


def _looks_text(i: int, dof: int, count: int, begin: str, end: str) -> str:
    """Return a loop of looks from `begin`, (whether there are rows to look, which rows, the state), to the state `end`,
    which also begins its other names."""
    state = f"double[N, {2 * dof + 1}]"
    return f"""
            {end}_count = Constant<value_int: int = {count}>()
            {end}_rows, {end} = Loop<body = each_look (
                int64 {end}_look, bool {end}_on, int64[M, 1] {end}_open, {state} {end}_at
            ) => (bool {end}_unsettled, int64[M, 1] {end}_left, {state} {end}_ahead) {{
                {end}_narrow = GatherND({end}_at, {end}_open)
                {end}_target = GatherND(target, {end}_open)
                {end}_stepped = mfik.step{i}({end}_narrow, {end}_target)
                {end}_ahead = ScatterND({end}_at, {end}_open, {end}_stepped)
                {end}_left, {end}_unsettled = mfik.unsettled({end}_ahead)
            }}>({end}_count, {begin})"""


def _example(robot: Robot) -> tuple[Tensor, Tensor]:
    return torch.zeros(2, robot.dof), torch.tensor([[0.5, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0]]).repeat(2, 1)


def _atan(x: Any) -> Any:
    """aten.atan of float64 for ONNX, to single precision: ONNX Runtime has Atan in float32 alone."""
    op: Any = opset18
    return op.Cast(op.Atan(op.Cast(x, to=onnx.TensorProto.FLOAT)), to=onnx.TensorProto.DOUBLE)


class _Inverse(nn.Module):
    """Symmetric, positive definite matrices [N, 6, 6] -> their inverses: what a runtime without `Inverse` computes."""

    def __init__(self, robot: Robot) -> None:
        super().__init__()
        self.geometry = ExactGeometry(robot)

    def forward(self, matrix: Tensor) -> Tensor:
        unit = (0 * matrix + torch.eye(6, dtype=matrix.dtype)).view(-1, 6)
        each = matrix.unsqueeze(1).expand(-1, 6, -1, -1).reshape(-1, 6, 6)
        return Geometry._solve(self.geometry, each, unit).view(-1, 6, 6)


class _SumOfSquares(rewriter.RewriteRuleClassBase):
    """One operator instead of two."""

    def pattern(self, op: Any, x: Any, axes: Any) -> Any:
        return op.ReduceSum(op.Mul(x, x), axes, keepdims=1)

    def rewrite(self, op: Any, x: Any, axes: Any) -> Any:
        return op.ReduceSumSquare(x, axes, keepdims=1)


class _Norm(rewriter.RewriteRuleClassBase):
    """ONNX Runtime before 1.20 has no ReduceL2 of float64."""

    def pattern(self, op: Any, x: Any, axes: Any) -> Any:
        return op.ReduceL2(x, axes, keepdims=1)

    def rewrite(self, op: Any, x: Any, axes: Any) -> Any:
        return op.Sqrt(op.ReduceSumSquare(x, axes, keepdims=1))


_SQUARES = rewriter.RewritePass(rewriter.RewriteRuleSet([_SumOfSquares.rule(), _Norm.rule()]))

# ONNX's loops carry one tensor for all rows' state, which is gathered and scattered at once: `at`, `best` and `least`,
# [N, 2 J + 1]. The fields of `Target` are one tensor, too, [N, 51].


class _FlatStart(nn.Module):
    """(q_ref, target_pose) -> state after a first look, target."""

    def __init__(self, start: Start, step: nn.Module) -> None:
        super().__init__()
        self.start, self.step = start, step

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
        q, *target = self.start(q_ref, target_pose)
        ahead, error2 = self.step(q, *target)
        return torch.cat((ahead, q, error2), -1), torch.cat([field.flatten(1) for field in target], -1)


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
        at, best, least = state.split((self.dof, self.dof, 1), -1)
        ahead, error2 = self.step(at, *_fields(target))
        return torch.cat((ahead, *better(at, error2, best, least)), -1)


class _FlatAnswer(nn.Module):
    """(state, target) -> what `Answer` returns."""

    def __init__(self, answer: Answer, dof: int) -> None:
        super().__init__()
        self.answer, self.dof = answer, dof

    def forward(self, state: Tensor, target: Tensor) -> Tensor | tuple[Tensor, ...]:
        best = state.narrow(-1, self.dof, self.dof)
        return self.answer(best, *_fields(target))


def _fields(target: Tensor) -> Target:
    turn, rotation, wanted, position = target.split((16, 16, 16, 3), -1)
    return Target(turn.view(-1, 4, 4), rotation.view(-1, 4, 4), wanted.view(-1, 4, 4), position)
