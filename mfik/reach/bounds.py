"""How far a chain can get at most and at least: the first look at a pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfik.robots import Robot

_ROUNDS = 200  # of the iteration that shortens the chain; any number of them gives a bound


@dataclass(frozen=True)
class DistanceBound:
    """Distances between a point of the base and a point of the tool that no joints lead beyond.

    Attributes:
        base_point: In the base frame [m], [3].
        tool_point: In the tool frame [m], [3]; the origin where the bound holds whatever the orientation.
        least: Smallest distance [m].
        most: Largest distance [m].
    """

    base_point: np.ndarray
    tool_point: np.ndarray
    least: float
    most: float

    def allows(self, positions: np.ndarray, rotation: np.ndarray, slop: float) -> np.ndarray:
        """Tell which poses keep to the bound.

        Args:
            positions: Of the tool [m], [N, 3].
            rotation: Of the tool in all of them, [3, 3], or in each, [N, 3, 3].
            slop: Error that the tool's point may have [m].
        Returns:
            Whether each does, [N].
        """
        distance = np.linalg.norm(positions + (rotation @ self.tool_point - self.base_point), axis=1)
        return (distance <= self.most + slop) & (distance >= self.least - slop)


def distance_bounds(robot: Robot, T_tip_tool: np.ndarray) -> list[DistanceBound]:
    """Return bounds of the distance from a point on the first joint's axis to the tool's origin, then to points on
    the last joint's axis, which the tool's pose places.

    Along the chain stand points, one on each joint's axis: two neighbours are on one link, and sliding joints aside
    their distance is the same at all joint values. Its ends are then no farther apart than the sum of these distances,
    nor nearer than the largest less all others (the triangle inequality); a sliding joint adds half its stroke to
    both. Any points give a bound, those with the shortest sum a tight one. Limits of turning joints do not enter.

    Args:
        robot: The robot.
        T_tip_tool: The tool in the tip's frame, [4, 4].
    """
    return [
        _bound(robot, T_tip_tool, to_origin, shortened)
        for to_origin in (True, False)
        for shortened in (True, False)
    ]  # fmt: skip


def _bound(robot: Robot, T_tip_tool: np.ndarray, to_origin: bool, shortened: bool) -> DistanceBound:
    """Return the bound of a chain of points at the frames' origins, or of the shortest."""
    origins = np.tile(np.eye(4), (len(robot.chain.origins), 1, 1))
    origins[:, :3] = robot.chain.origins
    origins[-1] = origins[-1] @ T_tip_tool
    frames = len(origins) - 1
    middle, half = _strokes(robot)
    # Point f is (0, 0, t[f]) in frame f. The segment to point f + 1, in frame f, is columns[f] @ t + offsets[f].
    segments = frames if to_origin else frames - 1
    columns, offsets = np.zeros((segments, 3, frames)), np.zeros((segments, 3))
    for f in range(segments):
        offsets[f] = origins[f + 1, :3, 3]
        columns[f, 2, f] -= 1.0
        if f + 1 < frames:
            columns[f, :, f + 1] += origins[f + 1, :3, 2]
            offsets[f] += origins[f + 1, :3, 2] * middle[f + 1]
    t = _shortest(columns, offsets) if shortened else np.zeros(frames)
    length = np.linalg.norm(columns @ t + offsets, axis=1)
    half_of = np.zeros(segments)  # a stroke moves the end of a segment, the first one that of the base
    half_of[: frames - 1] = half[1:]
    most = float((length + half_of).sum() + half[0])
    least = float(2.0 * length.max(initial=0.0) - length.sum() - half_of.sum() - half[0])
    base_point = origins[0, :3, :3] @ (0.0, 0.0, t[0] + middle[0]) + origins[0, :3, 3]
    T_tool_last = np.linalg.inv(origins[-1])
    tool_point = np.zeros(3) if to_origin else T_tool_last[:3, :3] @ (0.0, 0.0, t[-1]) + T_tool_last[:3, 3]
    return DistanceBound(base_point, tool_point, max(0.0, least), most)


def _strokes(robot: Robot) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle and the half of each frame's stroke [m], 0 for turning ones, [F] each."""
    frames = len(robot.chain.kinds)
    middle, half = np.zeros(frames), np.zeros(frames)
    joint = 0
    for f, kind in enumerate(robot.chain.kinds):
        mimic = robot.chain.mimics[f] if robot.chain.mimics else None
        at, factor = (joint, 1.0) if mimic is None else mimic
        joint += mimic is None
        if kind == "prismatic":
            middle[f] = 0.5 * factor * (robot.lower[at] + robot.upper[at])
            half[f] = 0.5 * abs(factor) * (robot.upper[at] - robot.lower[at])
    return middle, half


def _shortest(columns: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return t that makes the sum of |columns @ t + offsets| small: Weiszfeld's iteration of weighted least squares."""
    t = np.zeros(columns.shape[2])
    scale = np.linalg.norm(offsets, axis=1).sum() or 1.0
    for _ in range(_ROUNDS if len(offsets) else 0):
        weight = 1.0 / np.maximum(np.linalg.norm(columns @ t + offsets, axis=1), 1e-6 * scale)
        normal = np.einsum("s,sij,sik->jk", weight, columns, columns)
        normal[np.diag_indices_from(normal)] += 1e-9 * weight.max()  # parallel axes leave a common shift open
        t = np.linalg.solve(normal, -np.einsum("s,sij,si->j", weight, columns, offsets))
    return t
