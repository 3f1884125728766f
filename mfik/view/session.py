"""What the viewer knows: target, joints, mode, answers and the recorded trajectory; nothing of how it is shown."""

from __future__ import annotations

import bisect
import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfik.collision import World
from mfik.errors import ArgumentError
from mfik.solve import Clearance, Result, Solver, Status
from mfik.view.bodies import frames

_SAME = 0.1  # [rad or m] solutions with every joint nearer than this are shown as one
_RESTS = 1e-6  # [rad or m] an arm whose joints move less an update rests
_PATIENCE = 20  # updates without a smaller error after which tracking an unchanged target rests


class Mode(str, Enum):
    """How the target is solved."""

    ANY = "any seed"  # Solver.solve from the joints shown, then from stored configurations
    NETWORK = "network first"  # Solver.solve from the network's answer, so that the solution is that answer refined
    TRACK = "tracking"  # Solver.track from the joints shown: no joint moves further than the jump bound an update


@dataclass(frozen=True)
class State:
    """One update, as shown.

    Attributes:
        time_s: Since the session began, [s].
        target: T_base_tool asked for, [7].
        q: Joints shown [rad or m], [J].
        result: The solver's answer; its q is q.
        explanation: The answer's status in words.
        step: Largest change of a joint since the update before [rad or m].
        manipulability: Yoshikawa's measure at q, the product of the Jacobian's singular values.
        one_step: The network's answer before refinement; None without a network, or when not asked for.
        ghosts: Other solutions, whether they collide or not, [M, J].
        clearance: From the world, of the joints shown; None where the robot has no spheres.
        self_clearance: Of its links from each other; likewise.
        collide: Whether the joints shown, then the ghosts, are nearer to something than the margin, [1 + M].
        shape_poses: T_base_shape of the world's shapes, [S, 7].
    """

    time_s: float
    target: np.ndarray
    q: np.ndarray
    result: Result
    explanation: str
    step: float
    manipulability: float
    one_step: Result | None
    ghosts: np.ndarray
    clearance: Clearance | None
    self_clearance: Clearance | None
    collide: np.ndarray
    shape_poses: np.ndarray


class Session:
    """A target and a robot that follows it; every change, and every `step`, solves once.

    Attributes:
        solver: The solver.
        target: T_base_tool to reach, [7].
        q: Joints shown [rad or m], [J].
        world: What is around the robot.
        keep_clear: Whether answers keep the margin to the world, and links keep clear of each other.
        margin: Clearance that is kept to the world [m].
        max_step: Jump bound of tracking [rad or m].
        num_ghosts: Number of other solutions wanted.
        show_one_step: Whether the network's answer before refinement is wanted.
        recording: Whether updates are being recorded.
        recorded: The recorded updates.
        state: The last update.
    """

    def __init__(self, solver: Solver, world: World | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.solver = solver
        self.world = World() if world is None else world
        self.keep_clear = world is not None
        self.margin = 0.0
        self.max_step = 0.05
        self.num_ghosts = 5
        self.show_one_step = True
        self.recording = False
        self.recorded: list[State] = []
        self._clock = clock
        self._start = clock()
        self._rng = np.random.default_rng(0)
        self._mode = Mode.ANY
        self._least_error = np.inf  # since the target, mode or jump bound changed
        self._idle_updates = 0
        self.home()

    @property
    def has_network(self) -> bool:
        """Whether the solver has a network, which gives the answer before refinement."""
        return self.solver.num_parameters > 0

    @property
    def has_body(self) -> bool:
        """Whether the robot has spheres, without which nothing is known of collision."""
        return self.solver.robot.body is not None

    @property
    def mode(self) -> Mode:
        """How the target is solved."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode | str) -> None:
        mode = Mode(mode)
        if mode is Mode.NETWORK and not self.has_network:
            raise ArgumentError("mode: expected another than 'network first', because no model is loaded; give --model")
        self._mode = mode

    @property
    def moving(self) -> bool:
        """Whether another `step` may bring the joints nearer to the target, as in tracking."""
        rests = self.state.result.status is Status.SOLVED or self._idle_updates >= _PATIENCE
        return self._mode is Mode.TRACK and not rests

    def home(self) -> State:
        """Return to a posture away from singularities: the midpoint of the limits, or one drawn near it."""
        robot = self.solver.robot
        low, high = robot.lower, robot.upper
        midpoint, half = 0.5 * (low + high), np.minimum(0.25 * (high - low), 0.5 * np.pi)
        drawn = midpoint + half * np.random.default_rng(0).uniform(-1.0, 1.0, (200, robot.dof))
        above = frames(robot, drawn)[..., 2, 3].min(axis=-1) >= 0.0  # nothing below the ground, where there is one
        drawn = drawn[above] if above.any() else drawn
        measure = self._manipulability(drawn)
        good = self._manipulability(midpoint[None])[0] > 0.2 * measure.max()
        return self.set_joints(midpoint if good else drawn[measure.argmax()])

    def random_target(self) -> State:
        """Take the pose of joints drawn within the limits for the target, and solve it."""
        self.target = self.solver.robot.fk(self.solver.robot.sample(1, self._rng)[0])
        return self.update()

    def set_joints(self, q: ArrayLike) -> State:
        """Move the joints themselves; the target follows (forward kinematics).

        Args:
            q: Joints [rad or m], clamped to the limits, [J].
        """
        robot = self.solver.robot
        self.q = robot.clamp(q)
        self.target = self.solver.robot.fk(self.q)
        return self.update(as_they_are=True)

    def set_target(self, pose: ArrayLike) -> State:
        """Move the target and solve.

        Args:
            pose: T_base_tool [x, y, z, qw, qx, qy, qz], unit quaternion to rounding, [7].
        """
        pose = np.array(pose, dtype=np.float64)
        pose[3:] /= np.linalg.norm(pose[3:])
        self.target = pose
        return self.update()

    def move_shape(self, name: str, pose: ArrayLike) -> State:
        """Move a shape of the world and solve.

        Args:
            name: The shape's name.
            pose: T_base_shape [x, y, z, qw, qx, qy, qz], unit quaternion to rounding, [7].
        Raises:
            ArgumentError: There is no such shape.
        """
        pose = np.array(pose, dtype=np.float64)
        pose[3:] /= np.linalg.norm(pose[3:])
        self.world.set_pose(name, pose)
        return self.update()

    def show(self, state: State) -> None:
        """Return to an update: its target and joints, and the shapes where they were."""
        self.state, self.q, self.target = state, state.q, state.target
        for name, pose in zip(self.world.names, state.shape_poses, strict=True):
            self.world.set_pose(name, pose)

    def update(self, as_they_are: bool = False) -> State:
        """Solve once for the target, starting at the joints shown.

        Args:
            as_they_are: The joints reach the target: show them, whether they collide or not.
        """
        self._least_error, self._idle_updates = np.inf, 0
        return self.step(as_they_are)

    def step(self, as_they_are: bool = False) -> State:
        """Do what `update` does while nothing was asked for anew, so that `moving` can tell when the arm rests."""
        solver, target, q_ref = self.solver, self.target, self.q
        clear: dict[str, Any] = {}
        if self.keep_clear:
            clear = {"world": self.world, "self_collision": True, "margin": self.margin}
        one_step = None
        if self.has_network and self.show_one_step:
            one_step = solver.solve(target, q_ref, seed="network", max_iterations=0, max_attempts=1)
        if as_they_are:
            result = solver.solve(target, q_ref, max_iterations=0, max_attempts=1, **clear)
        elif self._mode is Mode.TRACK:
            result = solver.track(target, q_ref, self.max_step, **clear)
        else:
            seed = "network" if self._mode is Mode.NETWORK else "reference"
            result = solver.solve(target, q_ref, seed=seed, **clear)
        self.q = result.q
        ghosts = self._ghosts(target, result.q)
        shown = np.concatenate([result.q[None], ghosts])
        collide = np.zeros(len(shown), bool)
        if self.has_body:
            collide = ~solver.is_free(shown, self.world, margin=self.margin)
        self.state = State(
            time_s=self._clock() - self._start,
            target=target,
            q=result.q,
            result=result,
            explanation=solver.explain(result),
            step=float(np.abs(result.q - q_ref).max()),
            manipulability=float(self._manipulability(result.q[None])[0]),
            one_step=one_step,
            ghosts=ghosts,
            clearance=solver.clearance(result.q, self.world, self_collision=False) if self.has_body else None,
            self_clearance=solver.clearance(result.q) if self.has_body else None,
            collide=collide,
            shape_poses=np.array([shape.pose for shape in self.world.shapes], dtype=np.float64).reshape(-1, 7),
        )
        error = result.pos_error + result.rot_error
        gains = error < self._least_error or (collide[0] and self.state.step > _RESTS)  # or is on the way out
        self._idle_updates = 0 if gains else self._idle_updates + 1
        self._least_error = min(error, self._least_error)
        if self.recording:
            self.recorded.append(self.state)
        return self.state

    def record(self, on: bool) -> None:
        """Begin a new recording, or end the one under way."""
        if on and not self.recording:
            self.recorded = []
        self.recording = on

    def recorded_at(self, elapsed_s: float) -> State:
        """Return what was shown so long after the first update of the recording, which must not be empty."""
        times = [state.time_s - self.recorded[0].time_s for state in self.recorded]
        return self.recorded[max(bisect.bisect_right(times, elapsed_s) - 1, 0)]

    def csv(self) -> str:
        """Return the recording: time [s], joints [rad or m], target, status and errors, a row an update."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        pose = ("x_m", "y_m", "z_m", "qw", "qx", "qy", "qz")
        writer.writerow(("time_s", *self.solver.robot.joint_names, *pose, "status", "pos_error_m", "rot_error_rad"))
        for state in self.recorded:
            errors = (state.result.status.name, state.result.pos_error, state.result.rot_error)
            elapsed = state.time_s - self.recorded[0].time_s
            writer.writerow((f"{elapsed:.6f}", *state.q.tolist(), *state.target.tolist(), *errors))
        return text.getvalue()

    def _manipulability(self, q: np.ndarray) -> np.ndarray:
        """Return Yoshikawa's measure of rows of joints, [B]."""
        return np.linalg.svd(self.solver.robot.jacobian(q), compute_uv=False).prod(-1)

    def _ghosts(self, target: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Return up to `num_ghosts` solutions that differ from q, [M, J]."""
        if not self.num_ghosts:
            return np.empty((0, self.solver.dof))
        result = self.solver.solve_all(target, self.num_ghosts + 1, q)
        found = result.q.reshape(-1, self.solver.dof) if result.status is Status.SOLVED else np.empty((0, len(q)))
        return found[np.abs(found - q).max(axis=-1, initial=0.0) > _SAME][: self.num_ghosts]
