"""Collision on one core: configurations checked, a point cloud, and scenes that the solver has to keep clear of.

Take the folder of the problems as --problems: its Panda has 59 spheres. A scene counts as feasible where the
configuration that its author gives is free. Answers are judged in NumPy.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import report_header

from mfik.cli import HelpFormatter, run_script
from mfik.collision import Box, Cylinder, PointCloud, Sphere, World
from mfik.robots import load_robot
from mfik.solve import Solver, Status

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from clearance_judge import clearance

REFERENCES = 20  # random ones, of each scene
ROUNDS = 15  # of which the median counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, help="folder with robots/panda_spherized.urdf")
    parser.add_argument("--rows", type=int, default=4096, help="configurations a round")
    parser.add_argument("--only", choices=["checks", "scenes"], help="one part; default all")
    parser.add_argument("--output", type=Path, help="JSON to write")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    if args.only != "scenes":
        results["checks"] = checks(args)
    if args.only != "checks":
        results["scenes"] = [scenes(args.problems, path) for path in sorted(args.problems.glob("scenes-*.json.gz"))]
        results["scenes"].append(summary(results["scenes"]))
    if args.output is not None:
        args.output.write_text(json.dumps({**report_header("cpu"), "results": results}, indent=1))


def checks(args: argparse.Namespace) -> dict[str, float]:
    """Time checks of configurations, and the making of a cloud."""
    robot = load_robot(args.problems / "robots" / "panda_spherized.urdf", "panda_link0", "panda_hand")
    rng = np.random.default_rng(0)
    q = robot.sample(args.rows, rng)
    around = rng.uniform(-np.pi, np.pi, 10)  # off the first links, which no configuration could free
    places = np.stack([0.7 * np.cos(around), 0.7 * np.sin(around), rng.uniform(0.0, 0.9, 10)], axis=-1)
    boxes = World([Box([0.2, 0.3, 0.1], [*place, 1, 0, 0, 0]) for place in places])
    solver = Solver.from_robot(robot)
    points = rng.normal(size=(100_000, 3))
    points *= 0.8 / np.linalg.norm(points, axis=-1, keepdims=True)  # a shell: surfaces are what cameras see
    prepared = median(lambda: World([PointCloud(points, 0.005)]))
    cloud = World([PointCloud(points, 0.005)])
    rows: dict[str, float] = {
        "free, self and 10 boxes [us]": per_row(lambda: solver.is_free(q, boxes), q),
        "free, self alone [us]": per_row(lambda: solver.is_free(q), q),
        "free, 10 boxes alone [us]": per_row(lambda: solver.is_free(q, boxes, self_collision=False), q),
        "free, cloud of 100,000 points alone [us]": per_row(lambda: solver.is_free(q, cloud, self_collision=False), q),
        "cloud of 100,000 points prepared [ms]": 1e3 * prepared,
        "clearance with gradient, self and 10 boxes, from Python [us]": per_row(
            lambda: [solver.clearance(row, boxes) for row in q[:500]], q[:500]
        ),
    }
    body = robot.body
    print(f"{robot.name}: {body.num_spheres} spheres, {body.num_sphere_pairs} pairs")
    for name, value in rows.items():
        print(f"{name:62} {value:9.3f}")
    print(f"free of collision: {solver.is_free(q, boxes).mean():.1%}")
    return rows


def scenes(folder: Path, path: Path) -> dict[str, Any]:
    """Solve every scene of a file from random references."""
    with gzip.open(path) as stream:
        file = json.load(stream)
    robot = load_robot(folder / "robots" / file["urdf"], file["base"], file["tip"])
    solver = Solver.from_robot(robot)
    rng = np.random.default_rng(0)
    feasible = solved = collide = missed = 0
    times: list[float] = []
    plain: list[float] = []
    attempts: list[int] = []
    for problem in file["problems"]:
        shapes = shapes_of(problem["world"])
        world = World(shapes)
        goal = np.array([problem["q_goal"][name] for name in robot.joint_names])
        if not solver.is_free(goal[None], world)[0]:
            continue
        feasible += 1
        references = robot.sample(REFERENCES, rng)
        # The judge comes last: it would take the caches from the solver.
        results = [solver.solve(problem["pose"], q_ref, world=world) for q_ref in references]
        plain += [solver.solve(problem["pose"], q_ref).time_us for q_ref in references]
        times += [result.time_us for result in results]
        attempts += [result.attempts for result in results]
        found = [result.q for result in results if result.status is Status.SOLVED]
        solved += len(found)
        missed += len(results) - len(found)
        collide += sum(bool(clearance(robot, q, shapes) < -1e-9) for q in found)
    p50, p99, p999 = np.percentile(times, [50, 99, 99.9])
    row = {
        "family": path.name.removeprefix("scenes-").removesuffix(".json.gz"),
        "feasible": feasible,
        "solved": solved,
        "missed": missed,
        "collide": collide,
        "p50_us": p50,
        "p99_us": p99,
        "p999_us": p999,
        "plain_p50_us": float(np.median(plain)),
        "attempts": float(np.mean(attempts)),
        "times": times,
    }
    report(row)
    return row


def report(row: dict[str, Any]) -> None:
    """Print a family's row."""
    tries = row["solved"] + row["missed"]
    print(
        f"{row['family']:24} {row['feasible']:4} feasible, {row['solved'] / max(tries, 1):8.3%} of {tries} solved, "
        f"{row['collide']} collide, p50 {row['p50_us']:6.1f} p99 {row['p99_us']:6.1f} p99.9 {row['p999_us']:6.1f} us, "
        f"without the world p50 {row['plain_p50_us']:5.1f} us, {row['attempts']:5.1f} attempts"
    )


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all families' scenes in one row, and leave the single times out."""
    times = np.concatenate([row.pop("times") for row in rows])
    p50, p99, p999 = np.percentile(times, [50, 99, 99.9])
    total = {key: sum(row[key] for row in rows) for key in ("feasible", "solved", "missed", "collide")}
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("plain_p50_us", "attempts")}
    row = {"family": "all", **total, "p50_us": p50, "p99_us": p99, "p999_us": p999, **means}
    report(row)
    return row


def shapes_of(dicts: list[dict[str, Any]]) -> list[Any]:
    """Return a scene's shapes, for the judge too."""
    kinds = {"box": Box, "cylinder": Cylinder, "sphere": Sphere}
    return [kinds[entry["type"]](**{k: v for k, v in entry.items() if k != "type"}) for entry in dicts]


def median(call: Callable[[], object]) -> float:
    """Return the median time of a call [s]."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def per_row(call: Callable[[], object], q: np.ndarray) -> float:
    """Return the median time of a call for each row of q [us]."""
    return 1e6 * median(call) / len(q)


if __name__ == "__main__":
    run_script(main)
