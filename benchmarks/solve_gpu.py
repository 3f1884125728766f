"""Measure batched solving on a GPU: checked solves a second and success of `Solver.solve_batch` on CUDA tensors.

Poses are those of joints drawn within the limits, and so are the references. A pose counts as solved when the joints
are within the limits and forward kinematics in float64, outside the solver, meets the tolerance. Each time is one call:
copy of the inputs, graph, copy of the outputs.

    python benchmarks/solve_gpu.py --json solve_gpu.json                       # seeds without a network
    python benchmarks/solve_gpu.py --bundle outputs/panda/bundle               # and the network's
    python benchmarks/solve_gpu.py --preset tiny                               # what an untrained network costs
    python benchmarks/solve_gpu.py --device cpu --rows 1000                    # the same functions, without a graph
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from report import report_header, write_report

from mfik.cli import run_script
from mfik.errors import ArgumentError
from mfik.export import NATIVE_FILE, document, write_native
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import Robot, load_robot
from mfik.solve import Options, Solver, Status, TensorResult

SEEDS = ("reference", "midpoint", "azimuth", "network")
# What others publish, solves a second, for comparison: other hardware, targets and tolerances.
PUBLISHED = {
    "cuRobo, RTX 4090, 2,000 poses": 40_000,
    "PyRoki, RTX 4090, 2,000 poses": 67_000,
    "closed form for UR arms alone, A100": 15_000_000,
}
GOAL = 10_000_000  # on one H100: Panda, random seeds, 1e-4 m and rad


def seconds(call: Any, repeats: int, device: torch.device) -> list[float]:
    """Time `repeats` calls after three that do not count: the first captures the graph."""
    times = []
    for repeat in range(3 + repeats):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            elapsed = begin.elapsed_time(end) / 1e3
        else:
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
        if repeat >= 3:
            times.append(elapsed)
    return times


def measure(solver: Solver, rows: int, seed: str, options: dict[str, Any], repeats: int, device: torch.device) -> dict:
    """Time one batch size and first seed, and judge its answers."""
    robot, generator = solver.robot, torch.Generator().manual_seed(rows)
    solution, q_ref = (robot.sample(rows, generator) for _ in range(2))
    pose = robot.fk(solution.double()).to(device, torch.float32)
    q_ref = q_ref.to(device)

    def call(pose: torch.Tensor, q_ref: torch.Tensor, **options: Any) -> TensorResult:
        if device.type == "cuda":
            return solver.solve_batch(pose, q_ref, **options)
        return solver._solve_tensors(pose, q_ref, solver._checked(Options(**options)))

    times = seconds(lambda: call(pose, q_ref, seed=seed, **options), repeats, device)
    result = call(pose, q_ref, seed=seed, **options)
    q = result.q.double().cpu()
    reached, wanted = robot.fk(q), pose.double().cpu()
    solved = (position_error_m(reached, wanted) <= options["tol_pos"]) & robot.within_limits(q)
    solved &= rotation_error_rad(reached, wanted) <= options["tol_rot"]
    quartiles = statistics.quantiles(times, n=4, method="inclusive")
    return {
        "rows": rows,
        "seed": seed,
        "seconds": statistics.median(times),
        "quartiles_s": [quartiles[0], quartiles[2]],
        "solved": solved.double().mean().item(),
        "reported_solved": (result.status == Status.SOLVED).double().mean().item(),
        "checked_solves_per_s": solved.sum().item() / statistics.median(times),
        "attempts_mean": result.attempts.double().mean().item(),
        "attempts_max": int(result.attempts.max()),
    }


def make_solver(robot: Robot, bundle: str | None, preset: str | None, folder: Path) -> Solver:
    """Return the solver of a bundle, of an untrained network (written to `folder`), or without a network."""
    if bundle:
        return Solver.load(bundle)
    if preset is None:
        return Solver.from_robot(robot)
    model = MeanFlowNet(ModelConfig.preset(robot.dof, preset))
    write_native(folder / NATIVE_FILE, model, document(model, robot))
    return Solver.load(folder)


def table(results: list[dict[str, Any]]) -> str:
    """Format the results as a Markdown table."""
    lines = [
        "| rows | first seed | time [ms] | checked solves [1/s] | success rate | attempts, mean | most |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in results:
        half = 50 * (row["quartiles_s"][1] - row["quartiles_s"][0]) / row["seconds"]
        lines.append(
            f"| {row['rows']} | {row['seed']} | {1e3 * row['seconds']:.3g} ± {half:.0f} % | "
            f"{row['checked_solves_per_s']:,.0f} | {100 * row['solved']:.3f} % | {row['attempts_mean']:.2f} | "
            f"{row['attempts_max']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="torch device (default: cuda)")
    parser.add_argument("--robot", default="panda", help="preset, where there is no bundle (default: panda)")
    parser.add_argument("--bundle", help="bundle with a network, for the first seed 'network'")
    parser.add_argument("--preset", choices=ModelConfig.SIZES, help="size of an untrained network, if no bundle")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 1000, 100_000, 1_000_000], help="poses a call (default: 1 to 1M)"
    )
    parser.add_argument("--tolerance", type=float, default=1e-4, help="[m] and [rad] (default: 1e-4)")
    parser.add_argument("--max_attempts", type=int, default=64, help="seeds of a pose (default: 64)")
    parser.add_argument("--repeats", type=int, default=20, help="times of each (default: 20)")
    parser.add_argument("--json", type=Path, help="also write the report here")
    args = parser.parse_args()
    if min(args.rows) < 1 or args.repeats < 2:
        raise ArgumentError(f"--rows, --repeats: expected at least 1 and 2, got {args.rows}, {args.repeats}")
    device = torch.empty(0, device=args.device).device
    options = dict(tol_pos=args.tolerance, tol_rot=args.tolerance, max_attempts=args.max_attempts)
    with tempfile.TemporaryDirectory() as folder:
        solver = make_solver(load_robot(args.robot), args.bundle, args.preset, Path(folder))
        seeds = SEEDS if solver.num_parameters else SEEDS[:-1]
        results = [measure(solver, rows, seed, options, args.repeats, device) for rows in args.rows for seed in seeds]
    report = {**report_header(args.device), "robot": solver.robot.name, **options, "published": PUBLISHED, "goal": GOAL}
    report |= {"bundle": args.bundle, "network_parameters": solver.num_parameters, "results": results}
    print(f"{report['hardware']}; torch {report['torch']}; commit {report['commit'][:12]}")
    print(f"{solver.robot.name}, {args.tolerance:g} m and rad, at most {args.max_attempts} attempts")
    print(f"median of {args.repeats} calls ± half the interquartile range\n")
    print(table(report["results"]))
    published = "; ".join(f"{name}: {value:,}" for name, value in PUBLISHED.items())
    print(f"\nGoal on one H100: {GOAL:,}. Published, under other conditions: {published}.")
    write_report(report, args.json)


if __name__ == "__main__":
    run_script(main)
