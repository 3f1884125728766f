"""One row in TorchScript: what `SolverModule` does, by numbers instead of tensors (mfik/export/numbers.py)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mfik.export.modules import Learned, Start
from mfik.export.numbers import Geometry, limits_source
from mfik.model import Network, SingleStep
from mfik.model.v2 import GATE2, NEAR2, MeanFlowNet
from mfik.robots import Robot


class OneRow(nn.Module):
    """(q_ref [1, J], target_pose [1, 7]) -> the answer's joints, and with `apart` how far that is off.

    As it is for `torch.jit.script`, once `start` and `learned` are traced.
    """

    def __init__(self, model: Network, robot: Robot, refine: int, limits: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.starts, self.passes, self.refine, self.near2, self.gate2 = 0, 0, refine, NEAR2, GATE2
        self.shapes = [1, robot.dof, 1, 7]
        self.shifts: list[list[float]] = [[0.0]]
        self.start: nn.Module = Start(None, None, None)
        self.learned: nn.Module = nn.Identity()
        if isinstance(model, MeanFlowNet):
            self.passes, self.shifts = model.config.passes, model.starts.shifts.tolist()
            self.starts = len(self.shifts)
            size, layer = model.geometry.size, model.input.weight
            self.learned = Learned(model, torch.cat((layer[:, :size], 0 * layer[:, :1]), 1), size)
        else:
            self.start = Start(SingleStep(model), None, None)
        source = Geometry(robot).source() + limits_source(*(limit.tolist() for limit in limits))
        unit = torch.jit.CompilationUnit(source)
        self.prepare, self.look, self.error2, self.errors = unit.prepare, unit.look, unit.error2, unit.errors
        self.limited, self.shifted = unit.limited, unit.shifted

    def takes(self, q_ref: Tensor, target_pose: Tensor) -> bool:
        """Return whether this is one row. What is of no size that fits is none: tensors refuse it."""
        return q_ref.shape + target_pose.shape == self.shapes

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> list[float]:
        q: list[float] = self.start(q_ref, target_pose)[0].view(-1).tolist()
        begun, target = self.limited(q), self.target(target_pose)
        best, least = begun, math.inf
        start = 0
        while start < self.starts and least > self.near2:  # a loop of known length would be unrolled
            at = self.shifted(begun, self.shifts[start])
            best, least = self.looks(at, best, least, target, self.passes, True)
            start += 1
        if self.refine > 0 and least > self.near2:
            best, least = self.looks(best, best, least, target, self.refine, False)
        return best

    def apart(self, q: list[float], target_pose: Tensor) -> tuple[float, float]:
        """Return position [m] and rotation errors [rad]."""
        return self.errors(q, self.target(target_pose))

    def target(self, target_pose: Tensor) -> list[float]:
        """Return what the looks compare with."""
        pose: list[float] = target_pose.double().view(-1).tolist()
        return self.prepare(pose)

    def looks(
        self, at: list[float], best: list[float], least: float, target: list[float], count: int, learns: bool
    ) -> tuple[list[float], float]:
        """Return the best of up to `count` looks from a start, a last one and those before, and its squared error."""
        for _ in range(count):
            seen, ahead, error2 = self.look(at, target)
            if not error2 >= least:  # what is no number is the best, too
                best, least = at, error2
            if learns:
                layers = self.learned(torch.tensor([seen], dtype=torch.float32))
                learned: list[float] = layers.double().view(-1).tolist()
                gate = error2 / (error2 + self.gate2)
                ahead = [ahead[joint] + gate * learned[joint] for joint in range(len(ahead))]
            at = self.limited(ahead)
            if not least > self.near2:
                break
        error2 = self.error2(at, target)
        if not error2 >= least:
            best, least = at, error2
        return best, least


class ByRows(nn.Module):
    """(q_ref, target_pose) -> q_solution: one row by numbers, several by tensors; as it is for `torch.jit.script`."""

    def __init__(self, one: nn.Module, several: nn.Module) -> None:
        super().__init__()
        self.one, self.several = one, several

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> Tensor:
        if self.one.takes(q_ref, target_pose):  # type: ignore[operator]
            return torch.tensor([self.one(q_ref, target_pose)], dtype=torch.float32)
        return self.several(q_ref, target_pose)


class ByRowsWithErrors(nn.Module):
    """(q_ref, target_pose) -> q_solution, pos_error, rot_error, inside, likewise."""

    def __init__(self, one: nn.Module, several: nn.Module, limits: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.one, self.several = one, several
        self.lower, self.upper = limits

    def forward(self, q_ref: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.one.takes(q_ref, target_pose):  # type: ignore[operator]
            answer = torch.tensor([self.one(q_ref, target_pose)], dtype=torch.float32)
            q: list[float] = answer.double().view(-1).tolist()
            distance, angle = self.one.apart(q, target_pose)  # type: ignore[operator]
            inside = ((answer >= self.lower) & (answer <= self.upper)).all(-1)
            return answer, torch.tensor([distance]).to(answer), torch.tensor([angle]).to(answer), inside
        return self.several(q_ref, target_pose)
