"""Straight lines and slerps between waypoints, and how far the tool departs from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mfik.errors import ArgumentError
from mfik.robots import Robot
from mfik.solve.checks import as_joints, as_poses, as_positive

_MOST_POSES = 10_000_000  # 560 MB; a spacing that asks for more is a wrong unit
_SAMPLES = 16  # of a segment: the largest departure, of a parabola, is then seen to 0.4 %
IDENTITY = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


class Deviation(NamedTuple):
    """How far the tool departs from the straight line and the slerp between waypoints.

    Attributes:
        translation: Largest distance [m].
        rotation: Largest angle [rad].
        translation_at: Where that distance is: 2.5 is halfway between waypoints 2 and 3.
        rotation_at: Where that angle is, likewise.
    """

    translation: float
    rotation: float
    translation_at: float
    rotation_at: float


def interpolate(poses: ArrayLike, max_translation: float, max_rotation: float) -> np.ndarray:
    """Put poses between sparse waypoints: on the straight line, turning at a constant rate about one axis (slerp).

    Each segment is divided evenly into as few steps as both bounds allow. Of the two arcs that join two rotations the
    shorter one is taken, whatever the signs of their quaternions; at exactly half a turn, that of the signs given.

    Args:
        poses: Waypoints T_base_tool [x, y, z, qw, qx, qy, qz], [m], [N, 7], N >= 1; or transforms, [N, 4, 4].
        max_translation: Largest distance from one pose to the next [m].
        max_rotation: Largest angle from one pose to the next [rad].

    Returns:
        Poses, [M, 7], M >= N: every waypoint as it was given, repeated ones too, and between them unit quaternions of
        the sign of the waypoint before.

    Raises:
        ArgumentError: A pose is not finite or its quaternion no unit quaternion, or a bound is not above 0, or so small
            that there would be more than ten million poses.
    """
    waypoints = as_waypoints(poses)
    max_translation = as_positive("max_translation", max_translation)
    max_rotation = as_positive("max_rotation", max_rotation)
    if len(waypoints) == 1:
        return waypoints.copy()
    lengths = np.linalg.norm(np.diff(waypoints[:, :3], axis=0), axis=1)
    angles = angle_between(waypoints[:-1, 3:], waypoints[1:, 3:])
    # 1e-12: a length of exactly so many steps must not get one more by rounding.
    exact = np.maximum(lengths / max_translation, angles / max_rotation)
    counts = np.maximum(np.ceil(exact * (1.0 - 1e-12)), 1.0)
    if counts.sum() >= _MOST_POSES:
        wide = (lengths / max_translation).sum() > (angles / max_rotation).sum()
        name, value = ("max_translation", max_translation) if wide else ("max_rotation", max_rotation)
        raise ArgumentError(
            f"{name}: expected a spacing that gives at most {_MOST_POSES:,} poses, got {value:g}, which gives "
            f"{counts.sum():.3g}; check its unit ([m] and [rad])"
        )
    parts = [first + np.arange(count) / count for first, count in enumerate(counts.astype(int))]
    result = poses_at(waypoints, np.concatenate([*parts, [len(waypoints) - 1.0]]))
    result[np.concatenate([[0], np.cumsum(counts.astype(int))])] = waypoints
    return result


def deviation(
    robot: Robot, q: ArrayLike, poses: ArrayLike, *, at: ArrayLike | None = None, tool: ArrayLike = IDENTITY
) -> Deviation:
    """Measure how far the tool departs from the straight line and the slerp between waypoints.

    Joints move linearly from one waypoint to the next, as a controller moves them between its commands. The tool is
    compared with the pose at the same fraction of the way, so that being early or late on the line counts, too. Every
    segment is sampled at 17 places.

    Args:
        robot: Whose kinematics are asked.
        q: Joints at the waypoints [rad or m], [N, J]; or anywhere on the path, in which case `at` says where, [M, J].
        poses: Waypoints T_base_tool, [N, 7] or [N, 4, 4].
        at: Where each row of q is on the path, as `Trajectory.waypoint` has it: 2.5 is halfway between waypoints 2
            and 3, [M]. Only the rows are compared then. Default: row i is waypoint i.
        tool: T_tip_tool, as of `Solver.solve_path`, [7].

    Raises:
        ArgumentError: A shape or a value does not fit.
    """
    if not isinstance(robot, Robot):
        raise ArgumentError(f"robot: expected a Robot, got {robot!r:.60}; a solver's is solver.robot")
    waypoints = as_waypoints(poses)
    q = as_joints("q", q, (None, robot.dof))
    last = len(waypoints) - 1
    if at is not None:
        places = as_joints("at", at, (len(q),))
        if len(q) == 0 or places.min() < 0 or places.max() > last:
            raise ArgumentError(f"at: expected places from 0 to {last}, one at least, got {at!r:.60}; check its length")
    else:
        if len(q) != len(waypoints):
            raise ArgumentError(
                f"q: expected a row for each of the {len(waypoints)} poses, got {len(q)}; give as many poses, or say "
                "by `at` where the rows are"
            )
        places = np.arange(last * _SAMPLES + 1) / _SAMPLES
        q = rows_at(q, places)
    reached = _times(robot.fk(q), as_poses("tool", tool, (7,)))
    wanted = poses_at(waypoints, places)
    away = np.linalg.norm(reached[:, :3] - wanted[:, :3], axis=1)
    turned = angle_between(reached[:, 3:], wanted[:, 3:])
    i, j = int(away.argmax()), int(turned.argmax())
    return Deviation(float(away[i]), float(turned[j]), float(places[i]), float(places[j]))


def as_waypoints(poses: ArrayLike) -> np.ndarray:
    """Return poses [N, 7], N >= 1, as `Solver.solve_batch` takes them."""
    waypoints = as_poses("poses", poses, (None, 7))
    if len(waypoints) == 0:
        raise ArgumentError("poses: expected at least one pose, got none; check where they come from")
    return waypoints


def rows_at(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return what lies linearly between rows [N, K] at fractional indices [M]."""
    first = np.minimum(places.astype(int), max(len(rows) - 2, 0))
    then = np.minimum(first + 1, len(rows) - 1)
    share = (places - first)[:, None]
    return (1.0 - share) * rows[first] + share * rows[then]


def poses_at(poses: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the poses on the lines between poses [N, 7] at fractional indices [M]."""
    first = np.minimum(places.astype(int), max(len(poses) - 2, 0))
    then = np.minimum(first + 1, len(poses) - 1)
    share = (places - first)[:, None]
    a, b = _unit(poses[first, 3:]), _unit(poses[then, 3:])
    b = np.where((a * b).sum(1, keepdims=True) < 0, -b, b)
    # Shoemake, "Animating rotation with quaternion curves" (1985): sin((1 - s) h) / sin(h) and sin(s h) / sin(h), h the
    # angle of the two in four dimensions, at most pi / 2. np.sinc(x) = sin(pi x) / (pi x) has the limit h -> 0.
    half = 0.5 * angle_between(a, b)[:, None] / np.pi
    quat = ((1.0 - share) * np.sinc((1.0 - share) * half) * a + share * np.sinc(share * half) * b) / np.sinc(half)
    return np.concatenate([(1.0 - share) * poses[first, :3] + share * poses[then, :3], _unit(quat)], axis=1)


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the angles between rotations [rad], [N], of quaternions [N, 4] of either sign; exact for small ones."""
    a, b = _unit(a), _unit(b)
    apart, together = np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1)
    return 4.0 * np.arctan2(np.minimum(apart, together), np.maximum(apart, together))


def _unit(quat: np.ndarray) -> np.ndarray:
    return quat / np.linalg.norm(quat, axis=1, keepdims=True)


def _times(poses: np.ndarray, tool: np.ndarray) -> np.ndarray:
    """Return T_base_tool [N, 7] of T_base_tip [N, 7] and T_tip_tool [7]."""
    w, v = poses[:, 3:4], poses[:, 4:]
    turned = tool[:3] + 2.0 * np.cross(v, np.cross(v, tool[:3]) + w * tool[:3])
    real = w * tool[3] - v @ tool[4:, None]
    imaginary = w * tool[4:] + tool[3] * v + np.cross(v, tool[4:])
    return np.concatenate([poses[:, :3] + turned, real, imaginary], axis=1)
