"""One block of the grid: which of its poses are reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from mfik.collision import World
from mfik.reach.bounds import distance_bounds
from mfik.reach.grid import Grid
from mfik.reach.orientations import rotation_matrix
from mfik.reach.settings import ReachSettings
from mfik.robots import Robot
from mfik.solve import BatchResult, Options, Solver

_FIRST_ATTEMPTS = 4  # of the poses that a search begins with
_NEAR_ATTEMPTS, _NEAR_ITERATIONS = 2, 8  # from the joints of a neighbour, from which most converge in three steps
_NEAR_TRIES = 3  # of a pose, from three neighbours: half of what one leaves is reached from the others


class ReachStatus(IntEnum):
    """What is known of a pose."""

    BEYOND = 0  #: farther from the base than the links are long, or nearer than they let it: it cannot be reached
    NOT_FOUND = 1  #: no attempt reached it
    COLLIDING = 2  #: reached, and every answer that was found collides
    REACHED = 3  #: reached within the tolerances and limits, free of collision where that is asked for


class Block(NamedTuple):
    """Answer to a block, by layers of x, y and z.

    Attributes:
        status: `ReachStatus` values, [X, Y, Z] uint8.
        manipulability: Of the joints found, 0 where the status is below COLLIDING, [X, Y, Z] float32.
    """

    status: np.ndarray
    manipulability: np.ndarray


class ReachTask:
    """A map's work, block by block: a function of robot, settings, world and the block's number alone, the same on
    every machine with the same instruction set.

    Raises:
        ArgumentError: The settings do not suit the robot.
        RobotError: Collision is asked for, and the robot has no spheres.
    """

    def __init__(self, robot: Robot, settings: ReachSettings, world: World | None = None) -> None:
        self.robot, self.settings, self.world = robot, settings, world
        self.options = settings.options(robot, world)
        self._first = replace(self.options, max_attempts=min(_FIRST_ATTEMPTS, settings.attempts))
        self._near = _kinematic(replace(self.options, max_attempts=_NEAR_ATTEMPTS, max_iterations=_NEAR_ITERATIONS))
        self._solver = Solver.from_robot(robot)
        tool = np.eye(4)
        tool[:3, :3], tool[:3, 3] = rotation_matrix(np.asarray(settings.tool)[3:]), np.asarray(settings.tool)[:3]
        bounds = distance_bounds(robot, tool)
        slack = np.asarray(settings.slack)
        self._slop = settings.tol_pos + float(np.linalg.norm(slack[:3]))
        self._bounds = [bound for bound in bounds if not (slack[3:].any() and bound.tool_point.any())]
        self.grid = Grid.of(settings, bounds[0], self._slop)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what the task is made of."""
        return ReachTask, (self.robot, self.settings, self.world)

    def __call__(self, index: int) -> Block:
        """Return the answer to a block; `solve` is the same with the joints."""
        return self.solve(index)[0]

    def solve(self, index: int) -> tuple[Block, np.ndarray]:
        """Solve a block.

        Args:
            index: From 0 to `grid.blocks` - 1.
        Returns:
            The answer, and the joints found [rad or m], 0 where the status is below COLLIDING, [X, Y, Z, J].
        """
        orientation, layers = self.grid.block(index)
        x, y, z = self.grid.axes()
        x = x[layers]
        shape = len(x), len(y), len(z)
        quat = self.settings.quaternions[orientation]
        R = rotation_matrix(quat)
        positions = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).reshape(-1, 3)
        within = np.ones(len(positions), bool)
        for bound in self._bounds:
            slop = self._slop + self.settings.tol_rot * float(np.linalg.norm(bound.tool_point))
            within &= bound.allows(positions, R, slop)
        search = _Search(self._solver, positions, quat, shape, within)
        search.reach(_kinematic(self._first), self._near, _kinematic(self.options))
        status = np.where(within, ReachStatus.NOT_FOUND, ReachStatus.BEYOND).astype(np.uint8)
        status[search.solved] = ReachStatus.REACHED
        if self.options.asks_for_collision:
            free = search.clear(self._first, self._near, self.options)
            status[search.solved & ~free] = ReachStatus.COLLIDING
        manipulability = np.zeros(len(positions), np.float32)
        manipulability[search.solved] = self._manipulability(search.q[search.solved], R)
        return Block(status.reshape(shape), manipulability.reshape(shape)), search.q.reshape(*shape, -1)

    def _manipulability(self, q: np.ndarray, R: np.ndarray) -> np.ndarray:
        """Return Yoshikawa's measure (1985), the product of the singular values of the Jacobian's rows of the axes
        that are not free and columns of the joints that move, [N]."""
        moving = [joint for joint in range(self.robot.dof) if joint not in self.settings.locked]
        bound = np.isfinite(np.asarray(self.settings.slack))
        J = self.robot.jacobian(q)
        if not bound.all() and bound[3:].any():  # axes are those of the pose
            J = np.concatenate([R.T @ J[:, :3], R.T @ J[:, 3:]], axis=1)
        J = J[:, bound][:, :, moving]
        rows, columns = J.shape[1:]
        if rows == columns:
            return np.abs(np.linalg.det(J))
        gram = J @ J.swapaxes(1, 2) if rows < columns else J.swapaxes(1, 2) @ J
        return np.sqrt(np.maximum(np.linalg.det(gram), 0.0))


def _kinematic(options: Options) -> Options:
    return replace(options, world=None, self_collision=False)


class _Search:
    """Poses of one orientation on a grid, and the joints found for them.

    What is reached is found from neighbour to neighbour: the joints of a solved pose are the seed of those beside it.
    """

    def __init__(
        self, solver: Solver, positions: np.ndarray, quat: np.ndarray, shape: tuple[int, int, int], within: np.ndarray
    ) -> None:
        self._solver = solver
        self._poses = np.concatenate([positions, np.broadcast_to(quat, (len(positions), 4))], axis=1)
        self._midpoint = 0.5 * (solver.robot.lower + solver.robot.upper)
        self._within = within
        place = np.indices(shape).reshape(3, -1)
        self._coarse = (place % 2 == 0).all(0)  # one pose of eight
        self._beside = []  # distance in the arrays of each of the six neighbours, and who has it
        for axis, step in enumerate((shape[1] * shape[2], shape[2], 1)):
            self._beside += [(step, place[axis] < shape[axis] - 1), (-step, place[axis] > 0)]
        self.solved = np.zeros(len(positions), bool)
        self.q = np.zeros((len(positions), solver.dof))

    def reach(self, first: Options, near: Options, thorough: Options) -> None:
        """Find joints without regard to collision, from seeds of its own for one pose of eight."""

        def attempt(rows: np.ndarray, q_ref: np.ndarray, options: Options) -> np.ndarray:
            result = self._solve(rows, q_ref, options)
            return self._keep(self.solved, rows, result.q, result.status == 0)

        def seeds(rows: np.ndarray) -> np.ndarray:
            return np.broadcast_to(self._midpoint, (len(rows), len(self._midpoint)))

        rows = np.flatnonzero(self._coarse & self._within)
        self._grow(
            self._within,
            self.solved,
            attempt(rows, seeds(rows), first),
            lambda rows, beside: attempt(rows, self.q[beside], near),
            lambda rows: attempt(rows, seeds(rows), thorough),
        )

    def clear(self, first: Options, near: Options, thorough: Options) -> np.ndarray:
        """Find joints free of collision where those found are not, and tell where there are any, [N].

        Args:
            first: Of one pose of eight, with collision; so is `thorough`.
            near: From a neighbour's joints; without, as what is found there is seldom far from these.
        """
        free = np.zeros_like(self.solved)

        def attempt(rows: np.ndarray, options: Options) -> np.ndarray:
            result = self._solve(rows, self.q[rows], options)
            return self._keep(free, rows, result.q, result.status == 0)

        def attempt_near(rows: np.ndarray, beside: np.ndarray) -> np.ndarray:
            result = self._solve(rows, self.q[beside], near)
            found = result.status == 0
            found[found] = self._is_free(result.q[found], first)
            return self._keep(free, rows, result.q, found)

        rows = np.flatnonzero(self.solved)
        free[rows] = self._is_free(self.q[rows], first)
        attempt(np.flatnonzero(self._coarse & self.solved & ~free), first)
        self._grow(self.solved, free, np.flatnonzero(free), attempt_near, lambda rows: attempt(rows, thorough))
        return free

    def _grow(
        self,
        wanted: np.ndarray,
        done: np.ndarray,
        front: np.ndarray,
        near: Callable[[np.ndarray, np.ndarray], np.ndarray],
        thorough: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """Spread from rows to the wanted ones beside them until nothing is gained.

        Args:
            wanted: Who may be tried, [N].
            done: Who has succeeded, [N]; the following two add to it.
            front: Rows to begin with.
            near: Tries rows, each from the joints of another; returns those that succeeded. Each row is tried
                _NEAR_TRIES times at most.
            thorough: Tries rows that are left at the border of what is done, likewise, each once.
        """
        tries, left = np.where(wanted & ~done, _NEAR_TRIES, 0), wanted.copy()
        while len(front):
            while len(front):
                source = np.full(len(done), -1)
                for step, has in self._beside:
                    rows = front[has[front]]
                    source[rows + step] = rows
                rows = np.flatnonzero((source >= 0) & (tries > 0) & ~done)
                tries[rows] -= 1
                front = near(rows, source[rows])
            border = np.zeros_like(done)
            rows = np.flatnonzero(done)
            for step, has in self._beside:
                border[rows[has[rows]] + step] = True
            rows = np.flatnonzero(border & left & ~done)
            left[rows] = False
            front = thorough(rows)

    def _solve(self, rows: np.ndarray, q_ref: np.ndarray, options: Options) -> BatchResult:
        result = self._solver.solve_batch(self._poses[rows], q_ref, time_each=False, throughput=True, options=options)
        assert isinstance(result, BatchResult)
        return result

    def _keep(self, done: np.ndarray, rows: np.ndarray, q: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Take over the joints that were found, and return their rows."""
        rows = rows[found]
        self.q[rows], done[rows] = q[found], True
        return rows

    def _is_free(self, q: np.ndarray, options: Options) -> np.ndarray:
        return self._solver.is_free(
            q, options.world, margin=options.margin, self_collision=bool(options.self_collision)
        )  # fmt: skip
