"""The graphs of a bundle, TorchScript and ONNX: solvers of one robot that need no mfik.

Both map q_ref [N, J] [rad or m] and target_pose [N, 7] (T_base_tool [m], quaternion w, x, y, z of any length but 0) to
q_solution [N, J] and on request its errors, in float32. Within, layers compute in float32 and the robot's geometry in
float64, as in the built-in engine. What looks several times is a loop, which ends when no row needs another look.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from typing import Any

import onnx
import torch
from onnxscript import opset18
from torch import Tensor, nn

from mfik.kinematics import fk, position_error_m, rotation_error_rad
from mfik.model import Network, SingleStep
from mfik.model.v2 import Geometry, MeanFlowNet, Starts, Target, judged
from mfik.robots import Robot

METADATA_KEY = "mfik"  # of the bundle's document, in every file
INPUTS = ("q_ref", "target_pose")
OUTPUTS = ("q_solution", "pos_error", "rot_error", "inside")  # the last three on request

_State = tuple[Tensor, Tensor, Tensor]  # where a look is, the best so far, its squared error


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
        state = solver.start(*_example(robot))[:-1]
        for i, loop in enumerate(solver.loops):
            assert isinstance(loop, _Loop)
            step = torch.jit.trace(loop.step, state, check_trace=False)
            solver.loops[i] = torch.jit.script(_ScriptedLoop(loop, step))
        graph = torch.jit.freeze(torch.jit.trace(solver, _example(robot), check_trace=False))
        buffer = io.BytesIO()  # torch reports a full disk as a RuntimeError
        torch.jit.save(graph, buffer, _extra_files={METADATA_KEY: document})
    return buffer.getvalue()


def onnx_model(model: Network, robot: Robot, document: str, refine: int = 0, errors: bool = False) -> onnx.ModelProto:
    """Return an ONNX model of a network, with the document in its metadata; arguments as of `torchscript`."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision, which nothing here uses, is not installed
    rows = {0: torch.export.Dim("N")}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Solver(model, robot, refine, errors).eval(),
            _example(robot),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS if errors else OUTPUTS[:1]),
            dynamic_shapes=(rows, rows),
            custom_translation_table={torch.ops.aten.atan2.default: _atan2},
            dynamo=True,
            verbose=False,
        )
    logger.setLevel(level)
    assert program is not None  # as dynamo=True gives one
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces: paths of this machine, and two thirds of the file
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {METADATA_KEY: document})
    onnx.checker.check_model(proto)
    return proto


def _example(robot: Robot) -> tuple[Tensor, Tensor]:
    return torch.zeros(2, robot.dof), torch.tensor([[0.5, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0]]).repeat(2, 1)


def _atan2(y: Any, x: Any) -> Any:
    """aten.atan2 for ONNX, of float64 and not both zero, by the tangent of half the angle.

    ONNX Runtime has Atan in float32 alone. Its relative error of 1e-7 is one of small angles, too.
    """
    op: Any = opset18  # whose types name every dtype that an operator takes
    radius = op.Sqrt(x * x + y * y)
    half = op.Where(x >= op.CastLike(0.0, x), y / (radius + x), (radius - x) / y)
    angle = op.Cast(op.Atan(op.Cast(half, to=onnx.TensorProto.FLOAT)), to=onnx.TensorProto.DOUBLE)
    return angle + angle


def _rounded_inwards(robot: Robot) -> tuple[Tensor, Tensor]:
    """Return the limits in float32, infinite for continuous joints."""
    (lower, upper), endless = robot.limits(), torch.tensor([kind == "continuous" for kind in robot.kinds])
    low, high = lower.float(), upper.float()
    low = torch.where(low.double() < lower, low.nextafter(torch.tensor(torch.inf)), low)
    high = torch.where(high.double() > upper, high.nextafter(torch.tensor(-torch.inf)), high)
    return low.masked_fill(endless, -torch.inf), high.masked_fill(endless, torch.inf)


class _ExactGeometry(nn.Module):
    """`Geometry` of states and targets in float32, computed in float64."""

    def __init__(self, robot: Robot) -> None:
        super().__init__()
        self.geometry = Geometry(robot).double()
        for name, value in self.geometry.reference_constants(robot).items():
            setattr(self.geometry, name, value)

    def prepare(self, target_pose: Tensor) -> Target:
        return self.geometry.prepare(target_pose.double())

    def forward(self, q: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        features, error2 = self.geometry.reference(q.double(), target)
        return features.float(), error2.float()


class _Look(nn.Module):
    """One of the looks that a network of type v2 takes in an evaluation at (0, 1)."""

    def __init__(self, network: MeanFlowNet, geometry: _ExactGeometry) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.network.geometry = geometry  # type: ignore[assignment]  # the same function

    def forward(self, at: Tensor, best: Tensor, least: Tensor, *target: Tensor) -> _State:
        r = torch.zeros_like(least)
        return self.network.judged_look(at, best, least, Target(*target), r, torch.ones_like(r))


class _Step(nn.Module):
    """One step of damped least squares within the limits: a look without a network."""

    lower: Tensor
    upper: Tensor

    def __init__(self, geometry: _ExactGeometry, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        self.geometry = geometry
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)

    def forward(self, at: Tensor, best: Tensor, least: Tensor, *target: Tensor) -> _State:
        features, error2 = self.geometry(at, Target(*target))
        ahead = (at + features[:, -at.shape[1] :]).clamp(self.lower, self.upper)
        return ahead, *judged(at, error2, best, least)


class _Loop(nn.Module):
    """From each start up to `count` times a step of the rows that need another."""

    def __init__(self, step: nn.Module, count: int, starts: Starts) -> None:
        super().__init__()
        self.step, self.count, self.starts = step, count, starts

    def forward(self, at: Tensor, best: Tensor, least: Tensor, *target: Tensor) -> _State:
        begun, total = at, self.count * len(self.starts.shifts)

        def goes_on(done: Tensor, at: Tensor, best: Tensor, least: Tensor) -> Tensor:
            return (done < total) & ~(least == 0).all()

        def body(done: Tensor, at: Tensor, best: Tensor, least: Tensor) -> tuple[Tensor, ...]:
            rows = (least != 0).squeeze(-1).nonzero().squeeze(-1)
            if len(self.starts.shifts) > 1:
                shift = self.starts.shifts.index_select(0, (done // self.count).view(1))
                at = torch.where(done % self.count == 0, self.starts(begun, shift), at)
            state = at, best, least
            narrow = (x.index_select(0, rows) for x in (*state, *target))
            stepped = self.step(*narrow)
            return done + 1, *(x.index_copy(0, rows, y) for x, y in zip(state, stepped, strict=True))

        none = torch.zeros((), dtype=torch.int64)
        _, at, best, least = torch.while_loop(goes_on, body, (none, at.clone(), best.clone(), least))
        return at, best, least


class _ScriptedLoop(nn.Module):
    """`_Loop` of a traced step, for `torch.jit.script`."""

    def __init__(self, loop: _Loop, step: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.step, self.count = step, loop.count
        self.shifts, example = loop.starts.shifts, loop.starts.lower.unsqueeze(0)
        self.starts = torch.jit.trace(loop.starts, (example, self.shifts[0]), check_trace=False)

    def forward(
        self,
        at: Tensor,
        best: Tensor,
        least: Tensor,
        azimuth: Tensor,
        rotation: Tensor,
        position: Tensor,
        wanted: Tensor,
        wanted_position: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        begun, done = at, 0
        while done < self.count * len(self.shifts):
            rows = (least != 0).squeeze(-1).nonzero().squeeze(-1)
            if rows.numel() == 0:
                break
            if done % self.count == 0:
                at = self.starts(begun, self.shifts[done // self.count])
            stepped = self.step(
                at[rows], best[rows], least[rows],
                azimuth[rows], rotation[rows], position[rows], wanted[rows], wanted_position[rows],
            )  # fmt: skip
            at, best, least = (
                at.index_copy(0, rows, stepped[0]),
                best.index_copy(0, rows, stepped[1]),
                least.index_copy(0, rows, stepped[2]),
            )
            done += 1
        return at, best, least


class _Solver(nn.Module):
    """(q_ref, target_pose) -> q_solution, and with `errors` pos_error, rot_error, inside."""

    lower: Tensor
    upper: Tensor

    def __init__(self, model: Network, robot: Robot, refine: int, errors: bool) -> None:
        super().__init__()
        self.robot, self.errors = robot, errors
        self.geometry = _ExactGeometry(robot)
        self.network: nn.Module | None = None
        loops = []
        if isinstance(model, MeanFlowNet):
            lower, upper = model.lower, model.upper
            look, starts = _Look(model, self.geometry), copy.deepcopy(model.starts)
            loops.append(_Loop(look, model.config.passes + 1, starts))  # the last look of a start judges
        else:
            self.network = SingleStep(model)
            lower, upper = _rounded_inwards(robot)
        if refine > 0:
            loops.append(_Loop(_Step(self.geometry, lower, upper), refine + 1, Starts(lower, upper, 1)))
        self.loops = nn.ModuleList(loops)
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)

    def start(self, q_ref: Tensor, target_pose: Tensor) -> tuple[Tensor, ...]:
        """Return the state of looks, [3], the fields of `Target`, [5], and poses with unit quaternions."""
        quat = target_pose[:, 3:]
        pose = torch.cat((target_pose[:, :3], quat / quat.norm(dim=-1, keepdim=True)), -1)
        q = q_ref if self.network is None else self.network(q_ref, pose)
        if len(self.loops) > 0:
            q = q.clamp(self.lower, self.upper)
        return q, q, torch.full_like(q[:, :1], torch.inf), *self.geometry.prepare(pose), pose

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> Tensor | tuple[Tensor, ...]:
        _, best, least, *target, pose = self.start(q_ref, target_pose)
        for loop in self.loops:
            _, best, least = loop(best, best, least, *target)
        if not self.errors:
            return best
        reached, wanted = fk(self.robot.chain, best.double()), pose.double()
        inside = ((best >= self.lower) & (best <= self.upper)).all(-1)
        errors = position_error_m(reached, wanted), rotation_error_rad(reached, wanted)
        return best, *(error.float() for error in errors), inside
