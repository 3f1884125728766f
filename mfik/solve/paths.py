"""Whole paths: what `Solver.solve_path` asks the C++ solver, and what it answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mfik.errors import ArgumentError
from mfik.solve.checks import as_integer, as_joints, as_number, as_poses, as_positive, as_steps
from mfik.solve.types import Options, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from mfik.robots import Robot

_NONE = np.empty(0)
_LEAST_EDGE_CHECK = 1e-5  # [rad or m]: less is no finer check, but takes for ever


class PathResult(NamedTuple):
    """Outcome of `Solver.solve_path`.

    Attributes:
        q: Joints of the first waypoints [rad or m], [reached, J], float64; continuous joints are not wrapped. Each row
            solves its pose, within the limits and with the margin, and no row is further from the one before than
            max_step.
        status: SOLVED: every waypoint. UNREACHABLE, AT_LIMITS, IN_COLLISION: a waypoint has no solution, or what lies
            between two of them collides. JUMP_BOUND: every connection of two waypoints needs more than max_step.
            NOT_CONVERGED: time or progress ended the search.
        reached: Number of waypoints of the longest prefix that was found.
        reason: Why it ended so: names waypoints, counted from 0, joints, and what collides.
        length: Sum of the changes of all joints over q [rad and m].
        largest_step: Largest change of each joint from one row of q to the next [rad or m], [J].
        attempts: Configurations from which solutions were looked for.
        time_us: Wall time, measured in C++, [us].
    """

    q: np.ndarray
    status: Status
    reached: int
    reason: str
    length: float
    largest_step: np.ndarray
    attempts: int
    time_us: float


def solve_path(
    native: Any,
    robot: Robot,
    poses: ArrayLike,
    ends: dict[str, ArrayLike | None],
    max_step: float | ArrayLike,
    options: Options,
    *,
    edge_check: float,
    time_limit: float,
    random_seed: int,
    progress: Callable[[float], object] | None,
) -> PathResult:
    """Do what `Solver.solve_path` says, with options that are checked, and `ends`: q_start, q_goal and q_ref."""
    poses = as_poses("poses", poses, (None, 7))
    if len(poses) == 0:
        raise ArgumentError("poses: expected at least one, got none; give the path's waypoints, [N, 7]")
    given = {name: None if q is None else as_joints(name, q, (robot.dof,)) for name, q in ends.items()}
    for name in ("q_ref", "q_start", "q_goal"):
        if (q := given[name]) is not None:
            options.check_locked(robot, name, q)
    steps = np.atleast_1d(as_steps("max_step", max_step, robot.dof)).astype(np.float64)
    edge_check = as_number("edge_check", edge_check, _LEAST_EDGE_CHECK, math.inf, "0.02")
    random_seed = as_integer("random_seed", random_seed, 0, 2**63 - 1)
    time_limit = as_positive("time_limit", time_limit)
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress: expected a callable or None, got {progress!r:.60}")
    q_start, q_goal, q_ref = (_NONE if q is None else q for q in map(given.get, ("q_start", "q_goal", "q_ref")))
    try:
        q, status, *rest = native.solve_path(
            poses, options.native, steps, q_start, q_goal, q_ref, edge_check, time_limit, random_seed, progress
        )
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    return PathResult(q, Status(status), *rest)
