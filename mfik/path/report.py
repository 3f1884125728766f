"""What is measured of a path and its motion, and how a page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mfik.collision import World
from mfik.path.lines import IDENTITY, deviation
from mfik.path.timing import Trajectory
from mfik.report import Page
from mfik.solve import PathResult, Solver


class Bounds(NamedTuple):
    """What a path and its motion kept to: a number for all joints or one for each, [J]."""

    max_step: float  # [rad or m] between two poses
    margin: float  # [m]
    velocity: ArrayLike | None  # None: the robot's
    acceleration: ArrayLike | None  # None: not timed


def measured(
    solver: Solver,
    poses: np.ndarray,
    result: PathResult,
    trajectory: Trajectory | None,
    world: World | None,
    *,
    tool: Sequence[float] = IDENTITY,
    slack: Sequence[float] = (0.0,) * 6,
) -> dict[str, float]:
    """Return what the answer measures: lengths, deviations where there is no slack, clearance, time."""

    def deviations(prefix: str, q: np.ndarray, at: np.ndarray | None) -> dict[str, float]:
        away = deviation(solver.robot, q, poses[: result.reached], at=at, tool=tool)
        found = {} if any(slack[:3]) else {f"{prefix}mm": 1e3 * away.translation}
        return found if any(slack[3:]) else {**found, f"{prefix}deg": float(np.degrees(away.rotation))}

    facts = {
        "length": result.length,
        "largest_step": float(result.largest_step.max(initial=0.0)),
        "time_ms": 1e-3 * result.time_us,
    }
    if result.reached:
        facts |= deviations("deviation_", result.q, None)
        if solver.robot.body is not None:
            facts["clearance_mm"] = 1e3 * min(solver.clearance(q, world).distance for q in result.q)
    if trajectory is not None:
        facts |= {"duration_s": float(trajectory.t[-1])}
        facts |= deviations("motion_deviation_", trajectory.q, trajectory.waypoint)
        if solver.robot.body is not None and world is not None:
            facts["samples_in_collision"] = int((~solver.is_free(trajectory.q, world)).sum())
    return facts


def draw_path(
    page: Page,
    solver: Solver,
    result: PathResult,
    trajectory: Trajectory | None,
    world: World | None,
    facts: dict[str, float],
    bounds: Bounds,
    num_poses: int,
) -> None:
    """Put the facts and plots of a path of so many poses, and of its motion, on a page."""
    robot = solver.robot
    page.tiles({name.replace("_", " "): f"{value:.4g}" for name, value in facts.items()})
    q, at = result.q, np.arange(result.reached)

    def failed(axes: Any) -> None:
        axes.set_xlabel("pose")
        if result.reached < num_poses:
            axes.axvline(result.reached, color="#D55E00", linestyle=":", label="cannot be done")
        axes.legend()

    def draw_joints(axes: Any) -> None:
        for name, column in zip(robot.joint_names, q.T, strict=True):
            axes.plot(at, column, label=name, linewidth=1)
        axes.set_ylabel("rad or m")
        failed(axes)

    def draw_steps(axes: Any) -> None:
        axes.plot(at[1:], np.abs(np.diff(q, axis=0)).max(axis=1), label="largest step of a joint")
        axes.axhline(bounds.max_step, color="C1", linestyle="--", label="bound")
        axes.set(ylabel="rad or m", ylim=(0, 1.1 * bounds.max_step))
        failed(axes)

    def draw_clearance(axes: Any) -> None:
        if world is not None:
            distances = [1e3 * solver.clearance(row, world, self_collision=False).distance for row in q]
            axes.plot(at, distances, label="to the world")
            axes.axhline(1e3 * bounds.margin, color="C1", linestyle="--", label="margin")
        axes.plot(at, [1e3 * solver.clearance(row).distance for row in q], label="of links")
        axes.set_ylabel("mm")
        failed(axes)

    def draw_motion(axes: Any) -> None:
        assert trajectory is not None
        speed = np.broadcast_to(robot.velocity if bounds.velocity is None else bounds.velocity, robot.dof)
        shares = {"velocity": trajectory.dq / speed, "acceleration": trajectory.ddq / np.asarray(bounds.acceleration)}
        for name, share in shares.items():
            axes.plot(trajectory.t, np.abs(share).max(axis=1), label=f"{name} of the nearest joint", linewidth=1)
        axes.axhline(1.0, color="C2", linestyle="--", label="bound")
        axes.set(xlabel="time [s]", ylabel="share of the bound", ylim=(0, 1.1))
        axes.legend()

    if result.reached > 1:
        page.heading("The path")
        pictures = {"Joints": draw_joints, "Steps": draw_steps}
        if robot.body is not None:
            pictures["Clearance"] = draw_clearance
        page.figure("Joints, their largest step and the clearance at the poses that were reached.", pictures)
    if trajectory is not None and len(trajectory.t) > 1:
        page.heading("The motion")
        page.figure("How much of the bounds is used over time.", {"Bounds": draw_motion})
