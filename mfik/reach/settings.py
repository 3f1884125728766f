"""What a map of reach is asked with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfik.collision import World
from mfik.errors import ArgumentError
from mfik.reach.orientations import super_fibonacci
from mfik.robots import Robot
from mfik.solve import Options
from mfik.solve.checks import as_array, as_integer, as_poses, as_positive
from mfik.solve.clearance import check_body

MAX_ORIENTATIONS = 100_000


@dataclass(frozen=True)
class ReachSettings:
    """Grid of poses and what an answer has to keep to. Vectors are copied to tuples.

    Attributes:
        resolution: Distance between two neighbours of the grid [m]; positions are its multiples in the base frame.
        orientations: Number of orientations at each position, of `super_fibonacci`; or unit quaternions [qw, qx, qy,
            qz], [K, 4].
        box: Corners of the region [x, y, z, x, y, z], [m], [6]; None: all that the arm might get to.
        attempts: Seeds to try for a pose at the border of what is reached, and for one that collides.
        self_collision: Whether links keep clear of each other; None: where the robot has spheres.
        margin: Clearance that an answer keeps to the world [m], as of `mfik.solve.Options`; so are the following.
        tool: T_tip_tool, [7].
        slack: Error accepted along and about the axes of the pose, [6]; infinity frees an axis, of rotation alone.
        locked: Indices of the joints that stay at the midpoint of their limits.
        tol_pos: Largest accepted position error [m].
        tol_rot: Largest accepted rotation error [rad].

    Raises:
        ArgumentError: A value is out of its range.
        ImportError: The native extension is missing.
    """

    resolution: float = 0.05
    orientations: int | ArrayLike = 64
    box: ArrayLike | None = None
    attempts: int = 8
    self_collision: bool | None = None
    margin: float = 0.0
    tool: ArrayLike = Options.tool
    slack: ArrayLike = Options.slack
    locked: tuple[int, ...] = ()
    tol_pos: float = 1e-5
    tol_rot: float = 1e-5

    def __post_init__(self) -> None:
        options = Options(
            max_attempts=self.attempts, self_collision=self.self_collision,
            margin=self.margin, tool=self.tool, slack=self.slack, locked=self.locked, tol_pos=self.tol_pos,
            tol_rot=self.tol_rot,
        )  # fmt: skip
        if not np.isfinite(options.slack[:3]).all():  # type: ignore[index]
            raise ArgumentError(f"slack: expected finite lengths for x, y and z, got {options.slack}; free turns alone")
        checked = {
            "resolution": as_positive("resolution", self.resolution),
            "orientations": _as_orientations(self.orientations),
            "box": _as_box(self.box),
            **{name: getattr(options, name) for name in ("margin", "tool", "slack", "locked", "tol_pos", "tol_rot")},
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def quaternions(self) -> np.ndarray:
        """The orientations, [K, 4]."""
        if isinstance(self.orientations, int):
            return super_fibonacci(self.orientations)
        return np.array(self.orientations, dtype=np.float64)

    def options(self, robot: Robot, world: World | None) -> Options:
        """Return the solver's options for a robot in a world.

        Raises:
            ArgumentError: A joint to lock does not exist.
            RobotError: Collision is asked for, and the robot has no spheres.
        """
        self_collision = robot.body is not None if self.self_collision is None else self.self_collision
        options = Options(
            max_attempts=self.attempts, self_collision=self_collision, world=world, margin=self.margin, tool=self.tool,
            slack=self.slack, locked=self.locked, tol_pos=self.tol_pos, tol_rot=self.tol_rot,
        )  # fmt: skip
        options.check_for(robot.dof)
        if options.asks_for_collision:
            check_body(robot, robot.body is not None)
        return options

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them; `ReachSettings(**fields)` is made of them again."""
        return asdict(self)


def _as_orientations(value: Any) -> int | tuple[tuple[float, ...], ...]:
    if np.ndim(value) == 0:
        return as_integer("orientations", value, 1, MAX_ORIENTATIONS)
    quats = as_array("orientations", value, (None, 4))
    as_poses("orientations", np.concatenate([np.zeros((len(quats), 3)), quats], axis=1), (None, 7))
    as_integer("orientations", len(quats), 1, MAX_ORIENTATIONS)
    return tuple(tuple(quat) for quat in quats.tolist())


def _as_box(value: ArrayLike | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    box = as_array("box", value, (6,))
    if not (np.isfinite(box).all() and (box[:3] <= box[3:]).all()):
        raise ArgumentError(
            f"box: expected the lower and then the upper corner, x y z x y z [m], got {box.tolist()}; order them"
        )
    return tuple(box.tolist())
