"""Train several sizes of network for the same time and draw their accuracy against their time on one core.

python benchmarks/pareto.py --robot panda --minutes 2 --output outputs/pareto
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mfik.cli import HelpFormatter, run_script
from mfik.eval import evaluate, make_targets
from mfik.fit import PRESETS, FitSettings, fit
from mfik.report import cpu_name
from mfik.robots import load_robot
from mfik.solve import Solver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=HelpFormatter)
    parser.add_argument("--robot", default="panda", help="preset or URDF file")
    parser.add_argument(
        "--presets", nargs="+", choices=PRESETS, default=["nano", "tiny", "mini", "small"], help="sizes"
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="time for each training")
    parser.add_argument("--num", type=int, default=10_000, help="poses of each set of the evaluation")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    robot = load_robot(args.robot)
    rows = []
    for preset in args.presets:
        settings = FitSettings(minutes=args.minutes, preset=preset, num=args.num)
        report = fit(robot, args.output / preset, settings, command=sys.argv)
        solver = Solver.load(args.output / preset / "bundle")
        one_step = evaluate(solver, make_targets(robot, args.num), refine=0)["stages"][0]
        network = report["one_attempt"]["global"]["network"]
        rows.append(
            {
                "preset": preset,
                "parameters": solver.num_parameters,
                "samples_seen": solver.metadata["training"]["samples_seen"],
                "one_step_us": one_step["us"]["p50"],
                "mm": network["pos_mm"]["mean"],
                "deg": network["rot_deg"]["mean"],
                "within": network["within_5mm_5deg"],
                "local_mm": report["one_attempt"]["local 0.1"]["network"]["pos_mm"]["mean"],
                "attempt_us": network["us"]["p50"],
                "solved": network["solved"]["1e-5"]["10"],
            }
        )
    bar = report["one_attempt"]["global"]
    free = {s: (bar[s]["us"]["p50"], bar[s]["solved"]["1e-5"]["10"]) for s in bar if s != "network"}
    print(f"{robot.name}, {args.minutes:g} minutes each, {cpu_name()}")
    print("preset  parameters  samples | one step us     mm    deg  within  local mm | attempt us success")
    for r in rows:
        print(
            f"{r['preset']:7} {r['parameters']:10,} {r['samples_seen'] / 1e6:6.1f} M | {r['one_step_us']:11.1f} "
            f"{r['mm']:6.1f} {r['deg']:6.2f} {r['within']:7.1%} {r['local_mm']:9.2f} | {r['attempt_us']:10.1f} "
            f"{r['solved']:7.2%}"
        )
    for start, (us, solved) in free.items():
        print(f"{start:43} without a network {'':19} | {us:10.1f} {solved:7.2%}")
    (args.output / "pareto.json").write_text(json.dumps({"networks": rows, "free": free}, indent=2) + "\n")
    draw(args.output / "pareto.png", rows, free)


def draw(path: Path, rows: list[dict[str, Any]], free: dict[str, tuple[float, float]]) -> None:
    """Draw error of one step, and failures of one attempt, against time."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    error, failed = figure.subplots(1, 2)
    error.plot([r["one_step_us"] for r in rows], [r["mm"] for r in rows], "o-", label="any reference")
    error.plot([r["one_step_us"] for r in rows], [r["local_mm"] for r in rows], "s--", label="reference at 0.1 rad")
    error.set(xlabel="one step [us]", ylabel="mean position error [mm]", xscale="log", yscale="log")
    failed.plot([r["attempt_us"] for r in rows], [100 * (1 - r["solved"]) for r in rows], "o-", label="network")
    for name, (us, solved) in free.items():
        failed.plot([us], [100 * (1 - solved)], "x", label=name)
    failed.set(xlabel="one attempt [us]", ylabel="attempts that fail [%]", xscale="log", yscale="log")
    for row in rows:
        error.annotate(row["preset"], (row["one_step_us"], row["mm"]))
        failed.annotate(row["preset"], (row["attempt_us"], 100 * (1 - row["solved"])))
    for axes in (error, failed):
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FormatStrFormatter("%g"))
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_script(main)
