"""Measure what a network brings a solver at equal time: the models that ship, and chains that are trained here.

    python benchmarks/network.py panda ur10 tiago
    python benchmarks/network.py --chains 8 12 16 --ranges 2.5 0.6 --minutes 8 --output outputs/chains

A chain has revolute joints with arbitrary axes some 0.4 m apart, each of which turns by the given range to either side.
For a network and each set of poses (mfik.eval): one evaluation, and that of the same network before training, which is
as many steps of damped least squares; one attempt from its answer, and the attempts without it that take no longer in
the mean; `solve` with its defaults and with the network first; rows a second of `throughput`. All one after the other
in one run, on one core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import report_header, write_report

from mfik.cli import HelpFormatter, run_script
from mfik.eval import Targets, make_targets
from mfik.export import NATIVE_FILE, document, write_native
from mfik.fit import FitSettings, fit
from mfik.kinematics import Chain
from mfik.model import build_network
from mfik.robots import Robot
from mfik.solve import Seed, Solver, model_path

SETS = ("global", "near_limits")
_ATTEMPTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160)
_REFINEMENTS = 10  # of an attempt, as in the protocol


def make_chain(joints: int, half_range: float) -> Robot:
    """Return a serial chain whose joints turn by `half_range` [rad] to either side."""
    generator = torch.Generator().manual_seed(joints)
    origins = torch.randn(joints + 1, 3, 4, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(origins[..., :3])
    origins[..., :3] = rotation * torch.linalg.det(rotation)[:, None, None]
    origins[..., 3] *= 0.25
    names = tuple(f"joint{j}" for j in range(joints))
    limit = torch.full((joints,), half_range, dtype=torch.float64)
    kinds = ("revolute",) * joints
    return Robot(f"chain{joints}", "base", "tool", Chain(origins, kinds), names, -limit, limit)


def solvers(args: argparse.Namespace) -> dict[str, Solver]:
    """Return the solvers to measure by name; chains are trained first."""
    found = {name: Solver.load(model_path(name)) for name in args.models}
    for joints in args.chains:
        for half_range in args.ranges:
            name = f"{joints} joints, {half_range:g} rad"
            folder = args.output / f"{joints}_{half_range:g}"
            settings = FitSettings(minutes=args.minutes, num=args.num)
            fit(make_chain(joints, half_range), folder, settings, command=sys.argv)
            found[name] = Solver.load(folder / "bundle")
    return found


def untrained(solver: Solver) -> Solver:
    """Return a solver with the network as it was before training."""
    network = build_network(solver.metadata["model"], solver.robot)
    with tempfile.TemporaryDirectory() as folder:
        write_native(Path(folder) / NATIVE_FILE, network, document(network, solver.robot))
        return Solver.load(folder)


def solve(solver: Solver, targets: Targets, **options: Any) -> dict[str, float]:
    """Return success rate and times [us] of one call for each pose."""
    out = solver.solve_batch(targets.pose, targets.q_ref, **options)
    p50, p99 = np.quantile(out.time_us, (0.5, 0.99))
    return {"success": float((out.status == 0).mean()), "mean": float(out.time_us.mean()), "p50": p50, "p99": p99}


def equal_time(solver: Solver, targets: Targets, mean_us: float) -> dict[str, float]:
    """Return the row of the most attempts without the network that take `mean_us` at most in the mean."""
    best: dict[str, float] = {}
    for attempts in _ATTEMPTS:
        row = solve(solver, targets, max_attempts=attempts, max_iterations=_REFINEMENTS)
        if best and row["mean"] > mean_us:
            break
        best = {"attempts": attempts, **row}
    return best


def throughput(solver: Solver, targets: Targets, seed: Seed) -> float:
    """Return the rows a second that `throughput` solves."""
    out = solver.solve_batch(targets.pose, targets.q_ref, seed=seed, throughput=True)
    return float((out.status == 0).sum() / (1e-6 * out.time_us.sum()))


def measure(solver: Solver, kind: str, num: int) -> dict[str, Any]:
    """Return all rows of one solver on one set."""
    targets = make_targets(solver.robot, num, kind=kind)
    raw = {"seed": Seed.NETWORK, "max_attempts": 1, "max_iterations": 0, "tol_pos": 5e-3, "tol_rot": np.radians(5)}
    attempt = solve(solver, targets, seed=Seed.NETWORK, max_attempts=1, max_iterations=_REFINEMENTS)
    return {
        "answer": solve(solver, targets, **raw),
        "untrained": solve(untrained(solver), targets, **raw),
        "attempt": attempt,
        "equal_time": equal_time(solver, targets, attempt["mean"]),
        "solve": solve(solver, targets),
        "network_first": solve(solver, targets, seed=Seed.NETWORK),
        "rows": {seed.value: throughput(solver, targets, seed) for seed in (Seed.REFERENCE, Seed.NETWORK)},
    }


def line(name: str, row: dict[str, Any]) -> str:
    """Return a row of the table."""
    attempt, free, rows = row["attempt"], row["equal_time"], row["rows"]
    cells = [
        name,
        *(f"{x['success']:.1%}, {x['mean']:.0f}" for x in (row["answer"], row["untrained"])),
        f"{attempt['success']:.2%}, {attempt['mean']:.0f}",
        f"{free['success']:.2%}, {free['mean']:.0f} ({free['attempts']})",
        *(f"{x['success']:.2%}, {x['p50']:.1f}, {x['p99']:.0f}" for x in (row["solve"], row["network_first"])),
        f"{1e-3 * rows['reference']:.0f}, {1e-3 * rows['network']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="bundles, or names of models that ship")
    parser.add_argument("--chains", type=int, nargs="*", default=[], help="numbers of joints")
    parser.add_argument("--ranges", type=float, nargs="+", default=[2.5], help="of their joints, to either side [rad]")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for each training")
    parser.add_argument("--num", type=int, default=5_000, help="poses of each set")
    parser.add_argument("--output", type=Path, default=Path("outputs/chains"), help="folder of the trainings")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    ready = solvers(args)
    report = {**report_header("cpu"), "sets": {}}
    print(f"{report['hardware']}; {report['command']}")
    for kind in SETS:
        print(
            f"\n{kind}, {args.num:,} poses\n| robot | one evaluation: within 5 mm and 5 deg, us | untrained | one "
            "attempt from it: solved, us | without it, as long: solved, us (attempts) | `solve`: solved, p50, p99 us | "
            "network first | thousand rows/s: without, with |\n|---|---:|---:|---:|---:|---:|---:|---:|"
        )
        report["sets"][kind] = {}
        for name, solver in ready.items():
            row = report["sets"][kind][name] = measure(solver, kind, args.num)
            print(line(name, row), flush=True)
    write_report(report, args.json)


if __name__ == "__main__":
    run_script(main)
