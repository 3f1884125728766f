"""A path of joints that the viewer plays: rows, their times, and the clearance along them."""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import ArrayLike

from mfik.collision import World
from mfik.errors import ArgumentError
from mfik.solve import Solver

_ROW_S = 0.05  # between two rows without times
_DRAWN = 500  # rows of a plot, at most


class Playback:
    """A path of joints over time; nothing of how it is shown.

    Args:
        solver: Of the robot.
        q: Joints [rad or m], finite, continuous joints need not be wrapped, [N, J], N >= 1.
        times: When each row is reached, increasing, [s], [N]; default: twenty rows a second.

    Attributes:
        q: The joints as the viewer shows them: continuous joints wrapped to [-pi, pi], [N, J].
        times: From 0 [s], [N].
        drawn: Rows that a plot shows, evenly spaced and at most 500, the last one among them.
        timed: Whether the times were given.

    Raises:
        ArgumentError: q or times have the wrong shape, are not finite, or the times do not increase.
    """

    def __init__(self, solver: Solver, q: ArrayLike, times: ArrayLike | None = None) -> None:
        self._solver = solver
        self.path = np.array(q, dtype=np.float64)
        if self.path.ndim != 2 or self.path.shape[1] != solver.dof or len(self.path) == 0:
            raise ArgumentError(
                f"q: expected [N, {solver.dof}], got {list(self.path.shape)}; give a row of joints for each waypoint"
            )
        self.timed = times is not None
        given = _ROW_S * np.arange(len(self.path)) if times is None else np.array(times, dtype=np.float64)
        if given.shape != (len(self.path),) or not (np.isfinite(self.path).all() and np.isfinite(given).all()):
            raise ArgumentError(f"times: expected one for each of {len(self.path)} finite rows; check the file")
        if (np.diff(given) <= 0).any():
            raise ArgumentError("times: expected them to increase; sort the rows by time")
        self.times = given - given[0]
        endless = np.array([kind == "continuous" for kind in solver.robot.kinds])
        wrapped = (self.path + np.pi) % (2.0 * np.pi) - np.pi
        self.q = np.where(endless, wrapped, self.path)
        self.drawn = np.unique(np.linspace(0, len(self.q) - 1, min(len(self.q), _DRAWN)).round().astype(int))

    @property
    def tool(self) -> np.ndarray:
        """Where the tool is at the rows drawn, T_base_tool, [K, 7]."""
        return self._solver.robot.fk(self.q[self.drawn])

    def row_at(self, elapsed_s: float) -> int:
        """Return the row that is shown so long after the first one."""
        return max(bisect.bisect_right(self.times, elapsed_s) - 1, 0)

    def clearance(self, world: World) -> tuple[np.ndarray, np.ndarray]:
        """Return the distance from the world, and of the links from each other, at the rows drawn [m], [K] each.

        Raises:
            RobotError: The robot has no spheres.
        """
        from_world = [self._solver.clearance(q, world, self_collision=False).distance for q in self.q[self.drawn]]
        of_links = [self._solver.clearance(q).distance for q in self.q[self.drawn]]
        return np.array(from_world), np.array(of_links)
