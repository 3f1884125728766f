"""Time for a path of joints: as fast as the bounds of velocity and acceleration allow, by toppra."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfik.errors import ArgumentError
from mfik.path.lines import rows_at
from mfik.robots import Robot
from mfik.solve.checks import as_joints, as_positive, as_steps

_SAME = 1e-6  # [rad or m] waypoints nearer than this have no direction, but the rounding of whoever found them
_STEPS = 4  # of toppra between two waypoints
_LEAST_STEPS = 400  # on the whole path; a motion from rest to rest over fewer would be coarse
_CHECKS = 9  # places of each step where the bounds are checked
_FINE_CHECKS = 201  # of the steps that break them most
_COARSE = 0.01  # a step within which a bound is exceeded by a larger share is divided in four
_REFINEMENTS = 5
_ROOM = 1e-6  # by which all is slower than need be, as the checks leave gaps
_ROUNDING = 1e-12  # [rad or m] beyond a limit, which is then clipped
_MOST_SAMPLES = 10_000_000


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Joints over time, from rest to rest.

    Attributes:
        t: Times [s], from 0 in steps of dt, [M].
        q: Joints [rad or m], [M, J].
        dq: Their velocities [rad/s or m/s], [M, J].
        ddq: Their accelerations [rad/s^2 or m/s^2], [M, J]; they jump, as jerk is not bounded.
        waypoint: Where on the path each sample is: 2.5 is halfway between waypoints 2 and 3, as the joints go, [M].
        departure: Largest distance of any joint from the straight line between two waypoints [rad or m].
    """

    t: np.ndarray
    q: np.ndarray
    dq: np.ndarray
    ddq: np.ndarray
    waypoint: np.ndarray
    departure: float


def retime(
    q: ArrayLike,
    velocity: ArrayLike | None = None,
    acceleration: ArrayLike | None = None,
    *,
    robot: Robot | None = None,
    dt: float = 1e-3,
) -> Trajectory:
    """Pass through the waypoints as fast as the bounds allow, from rest to rest.

    A cubic spline over the length of the path in joints goes through every waypoint. Where it would leave the robot's
    limits, its slopes are lessened until it does not: acceleration then jumps there. Waypoints within 1e-6 rad or m of
    the one before are passed over, so repeated ones are no stop.

    toppra (Pham and Pham, "A new approach to time-optimal path parameterization based on reachability analysis", 2018)
    holds the bounds at the points of its grid. What is exceeded between them is found by sampling, and all of the
    motion is slowed down by as much, which is a percent or two: the bounds hold between the samples as well.

    Args:
        q: Waypoints [rad or m], within the robot's limits, continuous joints not wrapped, [N, J], N >= 1.
        velocity: Largest velocity of each joint [rad/s or m/s], or one for all, [J]; default `robot.velocity`, as the
            URDF file states.
        acceleration: Largest acceleration of each joint [rad/s^2 or m/s^2], or one for all, [J]; it has no default.
        robot: Whose limits hold, and whose velocities are the default; None: no limits.
        dt: Time between two samples [s]; the motion takes a whole number of them.

    Raises:
        ArgumentError: An argument has the wrong shape or value, the robot has no velocity bounds, or toppra finds no
            timing.
        ImportError: toppra or SciPy is not installed (extra `motion`).
    """
    if robot is not None and not isinstance(robot, Robot):
        raise ArgumentError(f"robot: expected a Robot or None, got {robot!r:.60}; a solver's is solver.robot")
    waypoints = as_joints("q", q, (None, None if robot is None else robot.dof))
    if waypoints.size == 0:
        raise ArgumentError(f"q: expected at least one waypoint, got shape {list(waypoints.shape)}; check the path")
    dof = waypoints.shape[1]
    dt = as_positive("dt", dt)
    speeds, accelerations = _velocity(velocity, robot, dof), _each("acceleration", acceleration, dof)
    lower, upper = _limits(waypoints, robot)

    kept = _distinct(waypoints)
    if len(kept) == 1:
        still = np.zeros((1, dof))
        return Trajectory(np.zeros(1), waypoints[:1].copy(), still, still.copy(), np.zeros(1), 0.0)
    rows = waypoints[kept]
    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(rows, axis=0), axis=1))])
    curve = _spline(s, rows, lower, upper)
    steps = max(_STEPS, -(-_LEAST_STEPS // (len(rows) - 1)))
    grid = np.append((s[:-1, None] + np.diff(s)[:, None] * np.arange(steps) / steps).ravel(), s[-1])
    for refinement in range(_REFINEMENTS + 1):
        speed = _path_speed(curve, grid, speeds, accelerations)  # ds/dt at the points of the grid
        excess = _excess(curve, grid, speed, speeds, accelerations, np.arange(len(grid) - 1), _CHECKS)
        coarse = excess > 1.0 + _COARSE
        if not coarse.any() or refinement == _REFINEMENTS:
            break
        finer = [grid[:-1][coarse] + np.diff(grid)[coarse] * part for part in (0.25, 0.5, 0.75)]
        grid = np.unique(np.concatenate([grid, *finer]))
    worst = np.flatnonzero(excess > (1.0 - _COARSE) * excess.max())  # where the largest excess may hide between checks
    excess = _excess(curve, grid, speed, speeds, accelerations, worst, _FINE_CHECKS)
    slower = max(float(excess.max()), 1e-12) * (1.0 + _ROOM)
    times = np.concatenate([[0.0], np.cumsum(2.0 * np.diff(grid) / (speed[:-1] + speed[1:]))])
    if not np.isfinite(times).all():
        raise _no_timing()
    places = (grid[:-1, None] + np.diff(grid)[:, None] * _shares(_CHECKS)).ravel()
    departure = float(np.abs(curve(places) - rows_at(rows, _fraction(s, places))).max())
    count = np.ceil(times[-1] * slower / dt * (1.0 - 1e-12))
    if count > _MOST_SAMPLES:
        raise ArgumentError(
            f"dt: expected at most {_MOST_SAMPLES:,} samples of the {times[-1] * slower:.4g} s that the path takes, "
            f"got {dt:g} s; check the units of dt, velocity and acceleration"
        )
    t = dt * np.arange(int(count) + 1)
    stretch = t[-1] / times[-1]
    position, first, second, where = _at_times(curve, grid, speed, times, np.minimum(t / stretch, times[-1]))
    place = np.interp(_fraction(s, where), np.arange(len(kept)), kept)
    position[[0, -1]], first[[0, -1]] = waypoints[[0, -1]], 0.0  # to the last bit
    return Trajectory(t, np.clip(position, lower, upper), first / stretch, second / stretch**2, place, departure)


def _each(name: str, value: Any, dof: int) -> np.ndarray:
    if value is None:
        raise ArgumentError(f"{name}: expected a bound for each joint, got None; it has no default, as URDF has none")
    return np.broadcast_to(np.asarray(as_steps(name, value, dof), dtype=np.float64), (dof,))


def _velocity(velocity: Any, robot: Robot | None, dof: int) -> np.ndarray:
    if velocity is not None:
        return _each("velocity", velocity, dof)
    if robot is None:
        raise ArgumentError("velocity: expected a bound for each joint, got None and no robot; give one of them")
    if not np.isfinite(robot.velocity).all():
        name = robot.joint_names[int(np.isfinite(robot.velocity).argmin())]
        raise ArgumentError(f"velocity: expected bounds, as '{robot.name}' has none for joint '{name}'; give them")
    return robot.velocity


def _limits(waypoints: np.ndarray, robot: Robot | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits that hold, after checking the waypoints; endless joints have none."""
    if robot is None:
        return np.full(waypoints.shape[1], -np.inf), np.full(waypoints.shape[1], np.inf)
    endless = np.array([kind == "continuous" for kind in robot.kinds])
    lower, upper = np.where(endless, -np.inf, robot.lower), np.where(endless, np.inf, robot.upper)
    outside = (waypoints < lower - _ROUNDING) | (waypoints > upper + _ROUNDING)
    if outside.any():
        row, joint = (int(i) for i in np.argwhere(outside)[0])
        raise ArgumentError(
            f"q[{row}, {joint}]: expected '{robot.joint_names[joint]}' within [{lower[joint]:.6g}, "
            f"{upper[joint]:.6g}], got {waypoints[row, joint]:.6g}; clamp it with robot.clamp"
        )
    return lower, upper


def _distinct(waypoints: np.ndarray) -> np.ndarray:
    """Return the indices of waypoints that differ from the one kept before; of the last two the last one."""
    kept = [0]
    for row in range(1, len(waypoints)):
        if np.abs(waypoints[row] - waypoints[kept[-1]]).max() > _SAME:
            kept.append(row)
    if len(kept) > 1:
        kept[-1] = len(waypoints) - 1 if np.abs(waypoints[-1] - waypoints[kept[-1]]).max() <= _SAME else kept[-1]
    return np.array(kept)


def _spline(s: np.ndarray, rows: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Any:
    """Return a cubic spline within limits: natural ends, continuous curvature but where a slope is lessened."""
    try:
        from scipy.interpolate import CubicHermiteSpline, CubicSpline
    except ImportError as error:
        raise _missing(error) from None
    slopes = CubicSpline(s, rows, bc_type="natural")(s, 1)
    lengths = np.diff(s)[:, None]
    chords = np.diff(rows, axis=0) / lengths
    while True:
        curve = CubicHermiteSpline(s, rows, slopes)
        least, most = _extremes(curve.c, lengths)
        outside = (least < lower - _ROUNDING) | (most > upper + _ROUNDING)
        if not outside.any():
            return curve
        # Slopes of up to three times the chord's, of its sign, keep the segment monotone (Fritsch and Carlson,
        # "Monotone piecewise cubic interpolation", 1980), and so between its ends. A neighbour may then overshoot.
        for end in (slopes[:-1], slopes[1:]):
            mild = np.where(end * chords > 0, np.sign(end) * np.minimum(np.abs(end), 3.0 * np.abs(chords)), 0.0)
            end[outside] = mild[outside]


def _extremes(c: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest value of cubics c [4, N, J], highest power first, from 0 to lengths [N, 1]."""
    cubic, square, linear, _ = c
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(square**2 - 3.0 * cubic * linear)
        # Both forms of a quadratic's roots, so that neither cancels; NaN and infinity are no places.
        sum_ = -(square + np.where(square < 0, -1.0, 1.0) * root)
        found = np.stack([sum_ / (3.0 * cubic), linear / sum_])
    places = np.clip(np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), 0.0, lengths)
    places = np.concatenate([places, np.zeros((1, *linear.shape)), np.broadcast_to(lengths, (1, *linear.shape))])
    values = ((cubic * places + square) * places + linear) * places + c[3]
    return values.min(axis=0), values.max(axis=0)


def _path_speed(curve: Any, grid: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
    """Return ds/dt at the points of a grid, by toppra."""
    try:
        from toppra.algorithm import TOPPRA
        from toppra.constraint import JointAccelerationConstraint, JointVelocityConstraint
        from toppra.interpolator import AbstractGeometricPath
    except ImportError as error:
        raise _missing(error) from None

    class Path(AbstractGeometricPath):
        def __call__(self, path_positions: Any, order: int = 0) -> np.ndarray:
            return curve(path_positions, order)

        @property
        def dof(self) -> int:
            return len(velocity)

        @property
        def path_interval(self) -> np.ndarray:
            return grid[[0, -1]]

    logging.getLogger("toppra").setLevel(logging.ERROR)  # what it warns of is what is raised below
    bounds = [JointVelocityConstraint(velocity), JointAccelerationConstraint(acceleration)]
    speed = TOPPRA(bounds, Path(), gridpoints=grid).compute_parameterization(0.0, 0.0)[1]
    if speed is None or not np.isfinite(speed).all():
        raise _no_timing()
    return speed


def _shares(count: int) -> np.ndarray:
    """Return places from 0 to 1, the ends just inside: they belong to the step on either side."""
    return np.clip(np.linspace(0.0, 1.0, count), 1e-9, 1.0 - 1e-9)


def _excess(
    curve: Any,
    grid: np.ndarray,
    speed: np.ndarray,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    steps: np.ndarray,
    count: int,
) -> np.ndarray:
    """Return by what factor the motion is too fast in each of some steps of the grid; 1: a bound is just met."""
    s = grid[steps, None] + np.diff(grid)[steps, None] * _shares(count)
    pull = 0.5 * (np.diff(speed**2) / np.diff(grid))[steps, None]  # d2s/dt2, constant in a step
    rate2 = np.maximum(speed[steps, None] ** 2 + 2.0 * pull * (s - grid[steps, None]), 0.0)[..., None]
    first, second = curve(s, 1), curve(s, 2)
    fast = np.abs(first) * np.sqrt(rate2) / velocity
    hard = np.abs(second * rate2 + first * pull[..., None]) / acceleration
    return np.maximum(fast, np.sqrt(hard)).max(axis=(1, 2))


def _at_times(
    curve: Any, grid: np.ndarray, speed: np.ndarray, times: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return joints, velocities, accelerations and s at times."""
    step = np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(grid) - 2)
    pull = 0.5 * (np.diff(speed**2) / np.diff(grid))[step]
    elapsed = t - times[step]
    rate = np.maximum(speed[step] + pull * elapsed, 0.0)
    s = np.minimum(grid[step] + (speed[step] + 0.5 * pull * elapsed) * elapsed, grid[step + 1])
    rate, pull = rate[:, None], pull[:, None]
    first = curve(s, 1)
    return curve(s), first * rate, curve(s, 2) * rate**2 + first * pull, s


def _fraction(s: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return places as fractional indices of waypoints."""
    return np.interp(places, s, np.arange(len(s)))


def _no_timing() -> ArgumentError:
    return ArgumentError(
        "q: toppra found no timing for this path; check velocity and acceleration, whose ratio may be extreme, and "
        "thin out waypoints that are next to each other"
    )


def _missing(error: ImportError) -> ImportError:
    return ImportError(f"retiming needs toppra and SciPy ({error}): pip install 'mfik[motion]'")
