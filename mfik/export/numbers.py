"""One pose in TorchScript by numbers instead of tensors.

TorchScript takes a microsecond for an operation on tensors, whatever their size, and a thirtieth of that for one on
numbers. So what looks at a single row is straight-line code of numbers, written for the robot: it does what `Geometry`
does in float64, without the zeros and ones of the robot's transforms. Layers stay products of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfik.model.v2.constants import ANGLE_FLOOR, AT_LIMIT, AXIS_RADIUS, DAMPING_FLOOR, DAMPING_GAIN
from mfik.robots import Robot

Number = Any  # a float, which is known, or a `Variable`
Array = np.ndarray[Any, Any]  # of numbers


class Variable:
    """A number that code computes; zeros and ones that it meets leave no code."""

    def __init__(self, code: Code, name: str) -> None:
        self.code, self.name = code, name

    def __str__(self) -> str:
        return self.name

    def __neg__(self) -> Number:
        return self.code.let(f"-{self}")

    def __add__(self, other: Number) -> Number:
        return self if _is(other, 0.0) else self.code.let(f"{self} + {other}")

    def __radd__(self, other: Number) -> Number:
        return self + other

    def __sub__(self, other: Number) -> Number:
        return self if _is(other, 0.0) else self.code.let(f"{self} - {other}")

    def __rsub__(self, other: Number) -> Number:
        return -self if _is(other, 0.0) else self.code.let(f"{other} - {self}")

    def __mul__(self, other: Number) -> Number:
        if _is(other, 0.0):
            return 0.0
        if _is(other, 1.0):
            return self
        return -self if _is(other, -1.0) else self.code.let(f"{self} * {other}")

    def __rmul__(self, other: Number) -> Number:
        return self * other

    def __truediv__(self, other: Number) -> Number:
        return self.code.let(f"{self} / {other}")


def _is(number: Number, value: float) -> bool:
    return isinstance(number, (int, float)) and number == value


class Code:
    """The body of a function of TorchScript, of which each line names a number."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.known: dict[str, Variable] = {}

    def let(self, expression: str) -> Variable:
        """Return the value of an expression of variables, which is computed once."""
        if expression not in self.known:
            self.known[expression] = Variable(self, f"v{len(self.known)}")
            self.lines.append(f"{self.known[expression]} = {expression}")
        return self.known[expression]

    def unpack(self, name: str, count: int) -> list[Variable]:
        """Return the entries of a list."""
        return [self.let(f"{name}[{i}]") for i in range(count)]

    def call(self, function: str, *numbers: Number) -> Variable:
        return self.let(f"{function}({', '.join(map(str, numbers))})")

    def function(self, head: str, result: str) -> str:
        return "\n    ".join((f"def {head}:", *self.lines, f"return {result}")) + "\n"


def listed(numbers: Sequence[Number]) -> str:
    return f"[{', '.join(map(str, numbers))}]"


class Geometry:
    """Writes functions of TorchScript that do what `mfik.model.v2.Geometry` does, for one row and in float64.

    A target is what `prepare` makes of a pose: cosine and sine of the azimuth of F, where it does not depend on the
    joints; the target [3, 4] and M* before the last joint turns it back, [3, 4], in F; lengths / L.
    """

    def __init__(self, robot: Robot) -> None:
        transforms = robot.chain.transforms().numpy()
        self.kinds, self.dof = robot.kinds, robot.dof
        self.scale = 2.0 / float(np.linalg.norm(transforms[..., 3], axis=-1).sum())
        origins = np.concatenate((transforms, np.broadcast_to([[[0.0, 0.0, 0.0, 1.0]]], (self.dof + 1, 1, 4))), 1)
        origins[:, :3, 3] *= self.scale
        self.origins = np.round(origins, 15)  # a rotation's zeros and ones are these
        self.to_first, self.from_tool = (np.round(np.linalg.inv(origins[i]), 15)[:3] for i in (0, -1))
        lower, upper = (limit.numpy() for limit in robot.limits())
        limited = np.array([kind != "continuous" for kind in self.kinds])
        self.per_range = np.where(limited, 2.0 / (upper - lower), 0.0)
        self.middle = np.where(limited, 0.5 * (lower + upper), 0.0)
        self.turns_first = self.kinds[0] != "prismatic" and self.dof > 1
        self.slides_last = self.kinds[-1] == "prismatic"

    def source(self) -> str:
        """Return the functions."""
        return "\n".join((self._prepare(), self._look(), self._error2(), self._errors()))

    def _prepare(self) -> str:
        code = Code()
        x, y, z, *quat = code.unpack("pose", 7)
        length = code.call("torch.sqrt", sum(part * part for part in quat))
        w, i, j, k = (part / length for part in quat)
        pose = np.array(
            [
                [1.0 - 2.0 * (j * j + k * k), 2.0 * (i * j - w * k), 2.0 * (i * k + w * j), x * self.scale],
                [2.0 * (i * j + w * k), 1.0 - 2.0 * (i * i + k * k), 2.0 * (j * k - w * i), y * self.scale],
                [2.0 * (i * k - w * j), 2.0 * (j * k + w * i), 1.0 - 2.0 * (i * i + j * j), z * self.scale],
            ],
            object,
        )
        target = _moved(self.to_first, pose)
        wanted = _moved(target, self.from_tool)
        cosine, sine = (1.0, 0.0) if self.slides_last else self._azimuth(code, wanted)
        target, wanted = (_turned(frame, cosine, sine) for frame in (target, wanted))
        return code.function(
            "prepare(pose: List[float]) -> List[float]", listed((cosine, sine, *target.flat, *wanted.flat))
        )

    def _azimuth(self, code: Code, wanted: Array) -> tuple[Number, Number]:
        """Return cosine and sine of the azimuth of M*, 1 and 0 where F has none."""
        if not self.turns_first:
            return 1.0, 0.0
        x, y = wanted[:2, 3]
        length = code.call("torch.sqrt", x * x + y * y)
        apart = f"if {length} >= {AXIS_RADIUS} else"
        return code.let(f"{x} / {length} {apart} 1.0"), code.let(f"{y} / {length} {apart} 0.0")

    def _posed(self, code: Code) -> _Posed:
        """Write where joints and target are in F."""
        q, target = code.unpack("at", self.dof), code.unpack("target", 26)
        cosine, sine = target[:2]
        goal, wanted = (np.array(target[i : i + 12], object).reshape(3, 4) for i in (2, 14))
        sines = [(code.call("torch.cos", angle), code.call("torch.sin", angle)) for angle in q]
        if self.slides_last:
            wanted[:, 3] = wanted[:, 3] - wanted[:, 2] * (q[-1] * self.scale)
            cosine, sine = self._azimuth(code, wanted)
            goal, wanted = (_turned(frame, cosine, sine) for frame in (goal, wanted))
        else:
            wanted = _spun(wanted, sines[-1][0], -sines[-1][1])
        if self.turns_first:
            (c, s), *others = sines
            sines = [(c * cosine + s * sine, s * cosine - c * sine), *others]
        frame, frames = np.eye(3, 4).astype(object), []
        for joint, kind in enumerate(self.kinds):
            own = frame = frame if joint == 0 else _moved(frame, self.origins[joint])
            if kind == "prismatic":
                frame = frame.copy()
                frame[:, 3] = frame[:, 3] + frame[:, 2] * (q[joint] * self.scale)
            else:
                frame = _spun(frame, *sines[joint])
            frames.append(frame)
        return _Posed(q, sines, frames, own, _moved(frame, self.origins[-1]), goal, wanted)

    def _error(self, code: Code, posed: _Posed) -> tuple[list[Number], Number]:
        """Write the pose error, position and rotation vector, [6], and its square."""
        apart = posed.goal[:, :3] @ posed.tool[:, :3].T
        axis = [0.5 * (apart[(i + 2) % 3, (i + 1) % 3] - apart[(i + 1) % 3, (i + 2) % 3]) for i in range(3)]
        cosine = 0.5 * (apart[0, 0] + apart[1, 1] + apart[2, 2]) - 0.5
        sine = code.call("torch.sqrt", sum(part * part for part in axis) + ANGLE_FLOOR)
        stretch = code.call("torch.atan2", sine, cosine) / sine
        error = [*(posed.goal[:, 3] - posed.tool[:, 3]), *(stretch * part for part in axis)]
        return error, sum(part * part for part in error)

    def _error2(self) -> str:
        code = Code()
        _, error2 = self._error(code, self._posed(code))
        return code.function("error2(at: List[float], target: List[float]) -> float", str(error2))

    def _errors(self) -> str:
        code = Code()
        error, _ = self._error(code, self._posed(code))
        distance, angle = (code.call("torch.sqrt", sum(x * x for x in part)) for part in (error[:3], error[3:]))
        head = "errors(at: List[float], target: List[float]) -> Tuple[float, float]"
        return code.function(head, f"{distance / self.scale}, {angle}")

    def _look(self) -> str:
        code = Code()
        posed = self._posed(code)
        error, error2 = self._error(code, posed)
        place = [(q - middle) * per for q, middle, per in zip(posed.q, self.middle, self.per_range, strict=True)]
        columns, moving = [], []
        for kind, frame, at in zip(self.kinds, posed.frames, place, strict=True):
            axis, arm = frame[:, 2], posed.tool[:, 3] - frame[:, 3]
            if kind == "prismatic":
                column = [*(axis * self.scale), 0.0, 0.0, 0.0]
            else:
                column = [
                    *(axis[(i + 1) % 3] * arm[(i + 2) % 3] - axis[(i + 2) % 3] * arm[(i + 1) % 3] for i in range(3)),
                    *axis,
                ]
            columns.append(column)
            free: Number = 1.0
            if isinstance(at, Variable):  # at its limit it stays there if the error pulls it beyond
                pull = sum(x * y for x, y in zip(column, error, strict=True))
                free = code.let(f"0.0 if {at} * {pull} > {AT_LIMIT} * abs({pull}) else 1.0")
            moving.append([free * x for x in column])
        matrix = np.array(moving, object).T @ np.array(columns, object)
        damping = DAMPING_GAIN * error2 + DAMPING_FLOOR
        for i in range(6):
            matrix[i, i] = matrix[i, i] + damping
        solved = _solve(code, matrix, error)
        raw = [sum(x * y for x, y in zip(column, solved, strict=True)) for column in moving]
        square = sum(part * part for part in raw)
        stretch = 1.0 + square * square
        step = [part / stretch for part in raw]
        turning = [pair for pair, kind in zip(posed.sines[:-1], self.kinds, strict=False) if kind != "prismatic"]
        seen = [
            *place,
            *(sine for _, sine in turning),
            *(cosine for cosine, _ in turning),
            *(x for frame in (posed.wanted, posed.own) for x in (*frame[:, 3], *frame[:, :3].flat)),
            *(posed.wanted[:, 3] - posed.own[:, 3]),
            *error[3:],
            *step,
            1.0,
        ]
        ahead = [q + part for q, part in zip(posed.q, step, strict=True)]
        head = "look(at: List[float], target: List[float]) -> Tuple[List[float], List[float], float]"
        return code.function(head, f"{listed(seen)}, {listed(ahead)}, {error2}")


@dataclass
class _Posed:
    """Where joints and their target are in F; transforms [3, 4] of numbers, lengths / L.

    Attributes:
        q: The joints.
        sines: Cosine and sine of each, of the first one from the azimuth.
        frames: Of the joints after their motion.
        own: M.
        tool: The tool.
        goal: The target.
        wanted: M*.
    """

    q: list[Variable]
    sines: list[tuple[Number, Number]]
    frames: list[Array]
    own: Array
    tool: Array
    goal: Array
    wanted: Array


def _moved(one: Array, other: Array) -> Array:
    """Return the product of two transforms."""
    whole = np.concatenate((other[:3], [[0.0, 0.0, 0.0, 1.0]])).astype(object)
    return one.astype(object) @ whole


def _spun(frame: Array, cosine: Number, sine: Number) -> Array:
    """Return a transform that turns about its own z first."""
    x, y, z, position = frame.T
    return np.array([x * cosine + y * sine, y * cosine - x * sine, z, position], object).T


def _turned(frame: Array, cosine: Number, sine: Number) -> Array:
    """Return a transform from a frame that is turned about z."""
    x, y, z = frame
    return np.array([x * cosine + y * sine, y * cosine - x * sine, z], object)


def _solve(code: Code, matrix: Array, wanted: list[Number]) -> list[Number]:
    """Write the solution of a symmetric, positive definite system by Cholesky's factor."""
    size = len(wanted)
    factor, solution = np.zeros((size, size), object), [0.0] * size
    forward: list[Number] = []
    for i in range(size):
        for j in range(i):
            factor[i, j] = (matrix[i, j] - sum(factor[i, k] * factor[j, k] for k in range(j))) * factor[j, j]
        pivot = matrix[i, i] - sum(factor[i, k] * factor[i, k] for k in range(i))
        factor[i, i] = code.let(f"1.0 / {code.call('torch.sqrt', pivot)}")  # the reciprocal
        forward.append((wanted[i] - sum(factor[i, k] * forward[k] for k in range(i))) * factor[i, i])
    for i in reversed(range(size)):
        later = sum(factor[k, i] * solution[k] for k in range(i + 1, size))
        solution[i] = (forward[i] - later) * factor[i, i]
    return solution


def limits_source(lower: Sequence[float], upper: Sequence[float]) -> str:
    """Return functions that put joints within limits, infinite for continuous joints, and that begin elsewhere, as
    `Starts` does. What is no number stays none: of two values TorchScript takes the second if they do not compare."""
    limited, shifted = Code(), Code()
    ends = list(zip(lower, upper, strict=True))
    at, begun, shift = limited.unpack("at", len(ends)), shifted.unpack("at", len(ends)), shifted.unpack("by", len(ends))
    kept, moved = [], []
    for joint, (low, high) in enumerate(ends):
        there = begun[joint] + shift[joint]
        if math.isinf(low):
            kept.append(at[joint])
            moved.append(there)
            continue
        span = high - low
        there = shifted.let(
            f"{there} - {span} if {there} > {high} else ({there} + {span} if {there} < {low} else {there})"
        )
        kept.append(limited.let(f"min({high}, max({low}, {at[joint]}))"))
        moved.append(shifted.let(f"min({high}, max({low}, {there}))"))
    return "\n".join(
        (
            limited.function("limited(at: List[float]) -> List[float]", listed(kept)),
            shifted.function("shifted(at: List[float], by: List[float]) -> List[float]", listed(moved)),
        )
    )
