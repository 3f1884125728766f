"""Time of checking configurations for collision: spheres of one robot, a world of boxes, a point cloud.

One core. Take the folder of the problems as --problems: its Panda has 59 spheres.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from report import report_header

from mfik.cli import HelpFormatter, run_script
from mfik.collision import Box, PointCloud, World
from mfik.robots import load_robot
from mfik.solve import Solver

ROUNDS = 15  # of which the median counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, help="folder with robots/panda_spherized.urdf")
    parser.add_argument("--rows", type=int, default=4096, help="configurations a round")
    parser.add_argument("--output", type=Path, help="JSON to write")
    args = parser.parse_args()
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
    if args.output is not None:
        args.output.write_text(json.dumps({**report_header("cpu"), "results": rows}, indent=1))


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
