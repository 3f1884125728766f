"""Accuracy and time of a solver after 0..K refinements."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from mfik.eval.targets import Targets
from mfik.robots import Robot
from mfik.solve import BatchResult, Seed, Solver

_SHARES = {
    "within_5mm_5deg": (5e-3, np.deg2rad(5)),
    "within_1mm_0.1deg": (1e-3, np.deg2rad(0.1)),
    "within_1e-5": (1e-5, 1e-5),
}
_TOLERANCE = 1e-6  # [m] and [rad]: refinement goes on past every share that is reported


def evaluate(solver: Solver, targets: Targets, *, refine: int = 10) -> dict[str, Any]:
    """Solve every target with at most k = 0..`refine` refinements, in C++.

    Args:
        solver: Loaded bundle.
        targets: Poses and references.
        refine: Largest number of refinements K.

    Returns:
        The JSON document of `scripts/evaluate.py --json`: robot, n and, for each k, errors (mm, deg), shares within
        tolerances (counted only inside the joint limits), rows outside the limits, time a solve (us).
    """
    one: dict[str, Any] = {"seed": Seed.NETWORK, "max_attempts": 1, "max_iterations": 0}
    solve_rows(solver, targets.pose, targets.q_ref, **one)  # warms caches before the timed call
    stages = []
    for k in range(refine + 1):
        options = {**one, "max_iterations": k, "tol_pos": _TOLERANCE, "tol_rot": _TOLERANCE}
        out = solve_rows(solver, targets.pose, targets.q_ref, **options)
        stage: dict[str, Any] = {
            "refine": k,
            "pos_mm": summary(1e3 * out.pos_error),
            "rot_deg": summary(np.rad2deg(out.rot_error)),
        }
        for name, (tol_pos, tol_rot) in _SHARES.items():
            stage[name] = float(within(solver.robot, out, tol_pos, tol_rot).mean())
        stage["limit_violations"] = int(outside_limits(solver.robot, out.q).sum())
        stage["us"] = time_quantiles(times_us(out))
        stages.append(stage)
    return {"robot": solver.robot.name, "n": len(targets.pose), "stages": stages}


def solve_rows(solver: Solver, pose: np.ndarray, q_ref: Any, **options: Any) -> BatchResult:
    """`solve_batch` of arrays, which gives arrays."""
    return cast(BatchResult, solver.solve_batch(pose, q_ref, **options))


def times_us(out: BatchResult) -> np.ndarray:
    """Return the times of solves that were timed [us], [N]."""
    assert out.time_us is not None
    return out.time_us


def time_quantiles(time_us: np.ndarray) -> dict[str, float]:
    """Return median and 99th percentile of the times of solves [us]."""
    return {"p50": float(np.quantile(time_us, 0.5)), "p99": float(np.quantile(time_us, 0.99))}


def outside_limits(robot: Robot, q: np.ndarray) -> np.ndarray:
    """Tell which rows of joints [N, J] violate a limit, [N]."""
    limited = np.array([kind != "continuous" for kind in robot.kinds])
    return (((q < robot.lower) | (q > robot.upper)) & limited).any(axis=1)


def within(robot: Robot, out: BatchResult, tol_pos: float, tol_rot: float) -> np.ndarray:
    """Tell which answers have both errors within a tolerance ([m], [rad]) and no joint outside its limits, [N]."""
    return (out.pos_error <= tol_pos) & (out.rot_error <= tol_rot) & ~outside_limits(robot, out.q)


def summary(values: np.ndarray) -> dict[str, float]:
    """Return mean, median, 95th percentile and maximum."""
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "max": float(values.max()),
    }


def format_table(report: dict[str, Any]) -> str:
    """Return `evaluate`'s report as a table for people."""
    head = f"{'refine':>6} | {'position error [mm]':^31} | {'rotation error [deg]':^31} | {'share within':^23} | "
    head += f"{'outside':>7} | {'us a solve':^13}"
    names = " ".join(f"{name:>7}" for name in ("mean", "median", "p95", "max"))
    sub = f"{'':>6} | {names} | {names} | {'5mm/5d':>7} {'1mm/.1d':>7} {'1e-5':>7} | "
    sub += f"{'limits':>7} | {'p50':>6} {'p99':>6}"
    lines = [f"{report['robot']}: {report['n']:,} poses", head, sub, "-" * len(sub)]
    for stage in report["stages"]:
        errors = " | ".join(" ".join(f"{x:7.{digits(x)}f}" for x in stage[k].values()) for k in ("pos_mm", "rot_deg"))
        shares = " ".join(f"{stage[name]:7.1%}" for name in _SHARES)
        us = stage["us"]
        lines.append(
            f"{stage['refine']:>6} | {errors} | {shares} | {stage['limit_violations']:>7} | "
            f"{us['p50']:6.1f} {us['p99']:6.1f}"
        )
    return "\n".join(lines)


def digits(value: float) -> int:
    """Return how many digits after the point tell a value of a table."""
    return 1 if value >= 100 else 2 if value >= 0.01 else 5
