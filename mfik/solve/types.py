"""What a solve is asked with, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mfik.errors import ArgumentError
from mfik.kinematics.chain import MAX_JOINTS
from mfik.native import load_native
from mfik.solve.checks import as_array, as_integer, as_joints, as_number, as_poses, as_world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

    from mfik.collision import World
    from mfik.robots import Robot


class Status(IntEnum):
    """Outcome of a solve. The numbers are those of `mfik::Status`, `mfik._native.STATUSES`."""

    SOLVED = 0  #: both errors within tolerance, every joint within its limits
    NOT_CONVERGED = 1  #: the error was still falling when the iterations ran out
    UNREACHABLE = 2  #: out of the arm's reach, or the best attempt ended where no joint motion lessens the error
    AT_LIMITS = 3  #: joint limits hold the best attempt back, or the raw network answer violates one
    JUMP_BOUND = 4  #: Solver.track only: no answer within max_step of q_prev
    INVALID_INPUT = 5  #: C++ and CUDA: elsewhere invalid input raises ArgumentError
    IN_COLLISION = 6  #: reached only with less clearance than the margin; Solver.track: held back to keep it


class Seed(str, Enum):
    """Where `Solver.solve` begins; later attempts begin at q_ref and at stored configurations that suit the target.

    The C++ solver knows a seed by its value, `mfik._native.SEEDS`.
    """

    REFERENCE = "reference"  #: q_ref: the default, because it measured fastest (docs/explanation/solving.md)
    NETWORK = "network"  #: q_ref + u(q_ref, 0, 1), the network's answer
    MIDPOINT = "midpoint"  #: the midpoint of the limits
    AZIMUTH = "azimuth"  #: the midpoint with the first joint turned to the target's azimuth


@dataclass(frozen=True)
class Options:
    """Options of `Solver.solve`, `track`, `solve_all` and `solve_batch`: they take these fields as keywords, or one
    object of them as `options`, which is checked once however often it is used.

    Vectors are copied to tuples.

    Attributes:
        tol_pos: Largest accepted position error [m].
        tol_rot: Largest accepted rotation error [rad].
        max_iterations: Refinement steps of each attempt; 0 returns the first seed as it is.
        max_attempts: Seeds to try; 1: the first alone.
        seed: First seed, a `Seed` or its value.
        nearest: Go on after a solution, to the one nearest to q_ref.
        joint_weights: Weights of the joints in the distance from q_ref, which is the root of the sum of their squared
            weighted differences [rad] or [m], above 0, [J]; None: 1 each. Only their ratios matter.
        tool: T_tip_tool, the tool that the target speaks of in the robot's tip frame, [7] like a pose.
        slack: Error accepted along and about the axes of the target frame beyond the tolerances, [6]: x, y, z [m] and
            rotation vector x, y, z [rad]; infinity frees an axis. With one turn free, the others bound the swing that
            is left after the best such turn; with two, the third bounds the twist about its own axis, which may point
            anywhere.
        locked: Indices of the joints that stay at q_ref.
        q_preferred: Null-space posture: where the motion that the target leaves free leads to, [J]; None: nowhere, but
            while a target moves, tracking leads redundant joints out of the outer 30 % of their ranges.
        preference_gain: Share of the way there taken in each step, 0 to 1; 0: no such motion.
        world: Shapes to keep clear of; needs a robot with spheres.
        self_collision: Whether links keep clear of each other; None: where a world is given.
        margin: Clearance that an answer keeps to the world [m]. Links keep as much from each other where it is
            negative, else 0: some are never far apart.

    Raises:
        ArgumentError: A value is out of its range.
        ImportError: The native extension is missing.
    """

    tol_pos: float = 1e-5
    tol_rot: float = 1e-5
    max_iterations: int = 12
    max_attempts: int = 160
    seed: Seed | str = Seed.REFERENCE
    nearest: bool = False
    joint_weights: ArrayLike | None = None
    tool: ArrayLike = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    slack: ArrayLike = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    locked: Sequence[int] = ()
    q_preferred: ArrayLike | None = None
    preference_gain: float = 0.1
    world: World | None = None
    self_collision: bool | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        native = load_native()
        checked = {
            "tol_pos": as_number("tol_pos", self.tol_pos, 0.0, math.inf, "1e-5"),
            "tol_rot": as_number("tol_rot", self.tol_rot, 0.0, math.inf, "1e-5"),
            "preference_gain": as_number("preference_gain", self.preference_gain, 0.0, 1.0, "0.1"),
            "max_iterations": as_integer("max_iterations", self.max_iterations, 0, native.MAX_ITERATIONS),
            "max_attempts": as_integer("max_attempts", self.max_attempts, 1, native.MAX_ATTEMPTS),
            "seed": _as_seed(self.seed),
            "nearest": _as_bool("nearest", self.nearest),
            "slack": _as_slack(self.slack),
            "tool": _as_tool(self.tool),
            "locked": _as_joint_indices(self.locked),
            "world": as_world(self.world),
            "margin": as_number("margin", self.margin, -math.inf, math.inf, "0.0"),
        }
        if self.self_collision is not None:
            checked["self_collision"] = _as_bool("self_collision", self.self_collision)
        if self.joint_weights is not None:
            checked["joint_weights"] = _as_weights(self.joint_weights)
        if self.q_preferred is not None:
            checked["q_preferred"] = tuple(as_joints("q_preferred", self.q_preferred, (None,)).tolist())
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the fields, not what was built from them."""
        return Options, self._fields()

    @cached_property
    def native(self) -> Any:
        """The options as the C++ solver reads them, `mfik._native.Options`."""
        return load_native().Options(self._fields())

    @property
    def asks_for_collision(self) -> bool:
        """Whether an answer has to keep clear of anything."""
        return self.world is not None or self.self_collision is True

    def check_for(self, dof: int) -> None:
        """Raise ArgumentError unless the options suit a robot of `dof` joints."""
        for joint in self.locked:
            as_integer("locked", joint, 0, dof - 1)
        if self.joint_weights is not None:
            as_array("joint_weights", self.joint_weights, (dof,))
        if self.q_preferred is not None:
            as_array("q_preferred", self.q_preferred, (dof,))

    def check_locked(self, robot: Robot, name: str, q_ref: np.ndarray) -> None:
        """Raise ArgumentError where a locked joint of q_ref, [J] or [N, J], is outside its limits."""
        for joint in self.locked:
            if robot.kinds[joint] == "continuous":
                continue
            lower, upper, q = robot.lower[joint], robot.upper[joint], q_ref[..., joint]
            outside = (q < lower) | (q > upper)
            if outside.any():
                row = [int(i) for i in np.argwhere(outside)[0]]
                raise ArgumentError(
                    f"{name}{[*row, joint]}: expected locked joints within their limits, got {q[tuple(row)]:.6g} for "
                    f"'{robot.joint_names[joint]}', limited to [{lower:.6g}, {upper:.6g}]; clamp it with robot.clamp, "
                    "or do not lock it"
                )

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def _as_seed(value: Any) -> Seed:
    if value not in list(Seed):
        raise ArgumentError(f"seed: expected one of {[seed.value for seed in Seed]}, got {value!r}")
    return Seed(value)


def _as_weights(value: ArrayLike) -> tuple[float, ...]:
    weights = as_joints("joint_weights", value, (None,))
    if not (weights > 0).all():
        raise ArgumentError(
            f"joint_weights: expected numbers above 0, got {weights.tolist()}; a small one lets a joint move freely"
        )
    return tuple(weights.tolist())


def _as_slack(value: ArrayLike) -> tuple[float, ...]:
    slack = as_array("slack", value, (6,))
    if not (slack >= 0).all():
        raise ArgumentError(f"slack: expected 6 numbers of at least 0, got {slack.tolist()}; inf frees an axis")
    return tuple(slack.tolist())


def _as_tool(value: ArrayLike) -> tuple[float, ...]:
    tool = as_poses("tool", value, (7,))
    if np.abs(tool[:3]).max() > (longest := load_native().MAX_TOOL_LENGTH):
        raise ArgumentError(
            f"tool: expected coordinates of up to {longest:g} m, got {tool[:3].tolist()}; check its unit"
        )
    return tuple(tool.tolist())


def _as_bool(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_, int)) or value not in (0, 1):
        raise ArgumentError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def _as_joint_indices(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not np.iterable(value):
        raise ArgumentError(f"locked: expected indices of joints, such as [2], got {value!r}")
    return tuple(as_integer("locked", joint, 0, MAX_JOINTS - 1) for joint in value)


class Result(NamedTuple):
    """Outcome of `Solver.solve`, `track` and `solve_all`.

    Attributes:
        q: Best joints found [rad or m], [J], float64; from `solve_all` the solutions, [M, J]. Of all equivalent turns
            of a joint the one nearest to the reference within the limits. Check `status` before moving.
        status: Whether q solves the pose.
        pos_error: Distance between the target and FK(q) beyond the slack, [m]; the largest of all solutions.
        rot_error: Angle between the target and FK(q) beyond the slack, [rad]; likewise.
        iterations: Refinement steps taken one after the other.
        attempts: Seeds begun.
        time_us: Wall time, measured in C++, [us].
        reason: Why it ended so, in words; `Solver.explain` adds numbers.
        pair: Names of the nearest two, as of `Clearance`, where the status is IN_COLLISION; else None.
    """

    q: np.ndarray
    status: Status
    pos_error: float
    rot_error: float
    iterations: int
    attempts: int
    time_us: float
    reason: str
    pair: tuple[str, str] | None = None


class BatchResult(NamedTuple):
    """Outcome of `Solver.solve_batch`: `Result` by rows.

    Attributes:
        q: Best joints found [rad or m], [N, J], float64.
        status: `Status` values, [N], int64.
        pos_error: Distance between the target and FK(q) beyond the slack, [m], [N].
        rot_error: Angle between the target and FK(q) beyond the slack, [rad], [N].
        iterations: Refinement steps taken one after the other, [N], int64.
        attempts: Seeds begun, [N], int64.
        time_us: Wall time of each solve, measured in C++, [us], [N]; None when not asked for.
    """

    q: np.ndarray
    status: np.ndarray
    pos_error: np.ndarray
    rot_error: np.ndarray
    iterations: np.ndarray
    attempts: np.ndarray
    time_us: np.ndarray | None


class TensorResult(NamedTuple):
    """Outcome of `Solver.solve_batch` on CUDA: tensors there, in the dtype of `pose`.

    Attributes:
        q: Best joints found [rad or m], within the limits; NaN where the input is invalid. [N, J].
        status: `Status` values SOLVED, NOT_CONVERGED or INVALID_INPUT, [N], int64.
        pos_error: Distance between the target and FK(q) in float64, [m], [N].
        rot_error: Angle between the target and FK(q) in float64, [rad], [N].
        iterations: Refinement steps of the attempt that q comes from, [N], int32.
        attempts: Seeds begun, [N], int32.
    """

    q: Tensor
    status: Tensor
    pos_error: Tensor
    rot_error: Tensor
    iterations: Tensor
    attempts: Tensor
