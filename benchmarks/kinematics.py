"""Time forward kinematics, Jacobians and a step of damped least squares on the CPU, beside Pinocchio and
pytorch-kinematics, in one run on one thread.

    python benchmarks/kinematics.py [--robot panda] [--json kinematics.json]

What C++ does is timed in C++: mfik's kernels by benchmarks/kinematics.cpp, built here, and Pinocchio, a loop over the
rows, by benchmarks/pinocchio_loop.cpp, both in float64. `ops` is the same kernel called from Python, so that
`ops` - `mfik` is what a call of a torch op costs. mfik's step ends with the errors of the new joints, Pinocchio's does
not. Programs take turns, and the table has medians.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from native import build
from report import report_header, write_report

from mfik import ops
from mfik.cli import run_script
from mfik.robots import Robot, load_robot

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
ROUNDS = 5
ROWS_A_ROUND = 60_000  # of each program and batch size


def time_op(op: Callable[[], Any], repeats: int) -> np.ndarray:
    """Return the time of each call [us], [repeats]."""
    op()
    times = np.empty(repeats)
    for repeat in range(repeats):
        begin = time.perf_counter()
        op()
        times[repeat] = 1e6 * (time.perf_counter() - begin)
    return times


def contestants(robot: Robot, program: Path, q: torch.Tensor, pose: torch.Tensor) -> dict[str, dict[str, Callable]]:
    """Return, by task and name, functions that take a number of repeats and return their times over all rows [us]."""
    rows, targets = q.numpy(), pose.numpy()

    def ours(mode: str, width: int, repeats: int) -> np.ndarray:
        return peers.run_program(program, robot, mode, rows, targets, str(repeats))[len(rows) * width :]

    step = dict(max_iterations=1, tol_pos=0.0, tol_rot=0.0)
    return {
        "fk": {
            "mfik": partial(ours, "fk", 7),
            "ops": partial(time_op, lambda: ops.fk(robot, q)),
            "Pinocchio": lambda repeats: peers.pinocchio_fk(robot, rows, repeats).time_us,
            "pytorch-kinematics": lambda repeats: peers.pytorch_kinematics_fk(robot, q, max(3, repeats // 50)).time_us,
        },
        "jacobian": {
            "mfik": partial(ours, "jacobian", 6 * robot.dof),
            "ops": partial(time_op, lambda: ops.jacobian(robot, q)),
        },
        "step": {
            "mfik": partial(ours, "step", robot.dof),
            "ops": partial(time_op, lambda: ops.refine(robot, q, pose, **step)),
            "Pinocchio": lambda repeats: peers.pinocchio_step(robot, rows, targets, repeats).time_us,
        },
    }


def measure(robot: Robot, program: Path, batch: int) -> list[dict[str, Any]]:
    """Time every contestant on one batch size."""
    generator = torch.Generator().manual_seed(batch)
    q, solution = (robot.sample(batch, generator, torch.float64) for _ in range(2))
    repeats = max(5, ROWS_A_ROUND // batch)
    results = []
    for task, entries in contestants(robot, program, q, robot.fk(solution)).items():
        times: dict[str, list[float]] = {name: [] for name in entries}
        for _ in range(ROUNDS):
            for name, run in entries.items():
                try:
                    times[name].append(float(np.median(run(repeats))))
                except peers.NotInstalled as error:
                    print(f"{name}: {error}", file=sys.stderr)
        us = {name: float(np.median(values)) / batch for name, values in times.items() if values}
        peer = min((value for name, value in us.items() if name not in ("mfik", "ops")), default=None)
        ratio = None if peer is None else peer / us["mfik"]
        results.append({"task": task, "batch": batch, "us_a_row": us, "ahead_of_fastest_peer": ratio})
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Format the results as a Markdown table."""
    names = ("mfik", "ops", "Pinocchio", "pytorch-kinematics")
    lines = [f"| task | batch | {' | '.join(names)} | mfik ahead of the fastest other |", "|---|" + "---:|" * 6]
    for row in results:
        cells = [f"{row['us_a_row'][name]:.3f}" if name in row["us_a_row"] else "-" for name in names]
        ahead = row["ahead_of_fastest_peer"]
        cells.append("-" if ahead is None else f"{ahead:.1f} times")
        lines.append(f"| {row['task']} | {row['batch']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="panda", help="preset (default: panda)")
    parser.add_argument("--batch", type=int, nargs="+", default=BATCHES, help="rows a call (default: 1 to 16384)")
    parser.add_argument("--json", type=Path, help="also write the report here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    robot = load_robot(args.robot)
    program = build("mfik_bench_kinematics", ROOT / "build" / "benchmarks" / "kinematics")
    report = {**report_header("cpu"), "robot": robot.name}
    report["results"] = [row for batch in args.batch for row in measure(robot, program, batch)]
    print(f"{report['hardware']}; 1 thread; torch {report['torch']}; commit {report['commit'][:12]}")
    print(f"{robot.name}, float64; median time a row [us]\n\n{table(report['results'])}")
    write_report(report, args.json)


if __name__ == "__main__":
    run_script(main)
