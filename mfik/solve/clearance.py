"""Clearance: the answer of `Solver.clearance`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mfik.errors import RobotError
from mfik.robots import Robot
from mfik.solve.checks import as_world


@dataclass(frozen=True, eq=False)
class Clearance:
    """The nearest two.

    Attributes:
        distance: Signed distance [m], negative in collision; infinite where there is nothing to compare.
        first: Link or attached object; None where there is nothing to compare.
        second: Another one, or shape of the world.
        gradient: d distance / d q [m/rad or m/m], [J]; where several pairs are equally near, that of one of them.
    """

    distance: float
    first: str | None
    second: str | None
    gradient: np.ndarray


def native_world(robot: Robot, has_body: bool, world: Any) -> Any:
    """Return the native world, or None, after checking that the robot has spheres.

    Raises:
        ArgumentError: `world` is no `mfik.collision.World`.
        RobotError: The robot has no spheres.
    """
    world = as_world(world)
    check_body(robot, has_body)
    return None if world is None else world.native


def check_body(robot: Robot, has_body: bool) -> None:
    """Raise RobotError unless the robot has spheres."""
    if not has_body:
        raise RobotError(
            f"robot '{robot.name}': expected spheres on its links, for collision, got none; fit them with "
            "scripts/fit_spheres.py, load the robot with load_robot(..., spheres='spheres.yml'), and make the solver "
            "with Solver.from_robot, or export the bundle again"
        )
