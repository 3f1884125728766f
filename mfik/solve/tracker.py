"""Following a path with bounds of velocity and acceleration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mfik.errors import ArgumentError
from mfik.native import load_native
from mfik.solve.checks import as_joints, as_poses, as_positive
from mfik.solve.solver import Solver, _as_result
from mfik.solve.types import Options, Status

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from mfik.solve.types import Result

_NOWHERE = [np.nan] * 7


class Tracker:
    """Follow a path with bounds of velocity and acceleration for each joint.

    What is commanded, sample by sample, keeps to both and to the joint limits, whatever the target does, because each
    command leaves room to brake before a limit. Velocity is the difference of two commands per sample time,
    acceleration that of two velocities; jerk is not bounded (`ruckig` is the library for that).

    A path within the bounds is followed without delay. Where they bind, all joints are slowed down together, so that
    they go straight to the target; while they still move elsewhere, each turns as fast as it can. Behind a target that
    speeds up harder than they can they keep the distance to stop in. They come to rest at a target that rests.

    With a `world` in the options, or `self_collision=True`, each command also leaves room to come to rest clear of all
    that stands: the joints slow down towards obstacles as those of `Solver.track` do, and no command comes nearer than
    the margin, whatever the target does. A millimetre before it they stop. From an obstacle that comes nearer they go
    away as fast as the bounds let them.

    Args:
        solver: Of the robot.
        q: Joints now, at rest [rad or m], within the limits, [J].
        dt: Time between two commands [s].
        velocity: Largest velocity of each joint [rad/s or m/s], [J]; default `robot.velocity`, as the URDF file states.
        acceleration: Largest acceleration of each joint [rad/s^2 or m/s^2], [J].

    Raises:
        ArgumentError: An argument has the wrong shape or value, or the robot has no velocity bounds.
    """

    def __init__(
        self, solver: Solver, q: ArrayLike, dt: float, *, velocity: ArrayLike | None = None, acceleration: ArrayLike
    ) -> None:
        if not isinstance(solver, Solver):
            raise ArgumentError(f"solver: expected a Solver, got {solver!r:.60}; make it with Solver.load(...)")
        shape = (solver.dof,)
        bounds = None if velocity is None else as_joints("velocity", velocity, shape)
        self._solver, self._defaults = solver, Options()
        self._native: Any = load_native().Tracker(
            solver._native,
            as_joints("q", q, shape),
            as_positive("dt", dt),
            bounds,
            as_joints("acceleration", acceleration, shape),
        )

    @property
    def q(self) -> np.ndarray:
        """Joints to command [rad or m], [J]."""
        return self._native.q

    @property
    def dq(self) -> np.ndarray:
        """Their velocities [rad/s or m/s], [J]."""
        return self._native.dq

    def step(self, pose: ArrayLike, options: Options | None = None) -> Result:
        """Move the joints on by one sample towards a pose.

        Args:
            pose: T_base_tool, see `Solver.solve`, [7].
            options: As of `Solver.track`; default `Options()`.

        Returns:
            The joints, as `q`, and their errors. JUMP_BOUND: the pose can be reached, and the joints are on their way.
            IN_COLLISION: obstacles hold them back, the nearest of them in `pair`.

        Raises:
            ArgumentError: An argument has the wrong shape or value. The joints go on to the last pose, as a sudden stop
                would break the bounds, or, where the last step kept clear of obstacles, come to rest: command `q`.
        """
        try:
            asked = self._defaults if options is None else self._solver._checked(options)
            try:
                fields = self._native.step(pose, asked.native)
            except ValueError:
                fields = self._native.step(as_poses("pose", pose, (7,)), asked.native)
        except ArgumentError:
            self._native.step(_NOWHERE, self._defaults.native)
            raise
        if fields[1] == Status.INVALID_INPUT:
            as_poses("pose", pose, (7,))
            raise ArgumentError(fields[-2])
        return _as_result(fields)
