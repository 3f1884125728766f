"""Maps of reach: poses a minute, and the share of what is reached that they miss.

Of the poses that are not reached, a sample is solved again with all attempts that the solver takes by default, those
that are reached with collision alone with collision. The floor is 5 cm below the base, beside a box of half a metre.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report import report_header, write_report

from mfik.cli import HelpFormatter, run_script
from mfik.collision import Box, HalfSpace, World
from mfik.reach import ReachMap, ReachSettings, ReachStatus, map_reach
from mfik.robots import PRESETS, Robot, load_robot
from mfik.solve import Options, Solver, Status

FLOOR = World([HalfSpace((0, 0, -0.05, 1, 0, 0, 0)), Box((0.5, 0.5, 0.5), (0.6, 0.2, 0.25, 1, 0, 0, 0))])
CASES = {
    "without collision": (ReachSettings(self_collision=False), None),
    "self-collision": (ReachSettings(), None),
    "and a world, margin 2 cm": (ReachSettings(margin=0.02), FLOOR),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--robot", default="panda", choices=PRESETS)
    parser.add_argument("--resolution", type=float, default=0.05, help="[m]")
    parser.add_argument("--sample", type=int, default=5_000, help="poses that are solved again, of each status")
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core")
    parser.add_argument("--output", type=Path, help="JSON to write")
    args = parser.parse_args()
    robot, results = load_robot(args.robot), {}
    print(f"{args.robot}: {os.getloadavg()[0]:.1f} programs run on the machine")
    for name, (settings, world) in CASES.items():
        settings = replace(settings, resolution=args.resolution)
        wall, cpu = time.perf_counter(), time.process_time()
        found = map_reach(robot, settings, world=world, threads=args.threads)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        counts = found.counts()
        there = counts["reached"] + counts["colliding"]
        row: dict[str, Any] = {
            **counts,
            "seconds": wall,
            "reached a minute": 60 * there / wall,
            "processor time of one that is reached [us]": 1e6 * cpu / there,
            **missed(robot, found, settings.options(robot, world), args.sample),
        }
        results[name] = row
        print(f"{name}: " + ", ".join(f"{key} {value:,.6g}" for key, value in row.items()), flush=True)
    write_report({**report_header("cpu"), "results": results}, args.output)


def missed(robot: Robot, found: ReachMap, asked: Options, sample: int) -> dict[str, float]:
    """Return the shares of what is reached that the map has under another status, as a sample tells."""
    solver, rng, shares = Solver.from_robot(robot), np.random.default_rng(0), {}
    counts, flat = found.counts(), found.status.ravel()
    for status in (ReachStatus.BEYOND, ReachStatus.NOT_FOUND, ReachStatus.COLLIDING):
        places = np.flatnonzero(flat == status)
        if not len(places):
            continue
        rows = rng.choice(places, min(sample, len(places)), replace=False)
        k, x, y, z = np.unravel_index(rows, found.status.shape)
        poses = np.concatenate([np.stack([found.x[x], found.y[y], found.z[z]], axis=1), found.orientations[k]], axis=1)
        options = replace(asked, max_attempts=Options.max_attempts)
        if status < ReachStatus.COLLIDING:
            options = replace(options, world=None, self_collision=False)
        q_ref = np.tile(0.5 * (robot.lower + robot.upper), (len(rows), 1))
        solved = solver.solve_batch(poses, q_ref, throughput=True, options=options, threads=os.cpu_count() or 1).status
        reached = counts["reached"] + (counts["colliding"] if status < ReachStatus.COLLIDING else 0)
        shares[f"missed as {status.name} [%]"] = 100 * float((solved == Status.SOLVED).mean()) * len(places) / reached
    return shares


if __name__ == "__main__":
    run_script(main)
