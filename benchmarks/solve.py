"""Measure inverse kinematics solvers on the same poses in one run: mfik's and those of other people.

    python benchmarks/solve.py --robot panda --bundle outputs/panda/bundle --json panda.json --plot panda.png

Four sets of reachable poses with a fixed seed (mfik.eval): any reference, poses near joint limits, poses near
singularities (both from any reference), and a path of 1 to 3 degrees a step, each step from the joints before it.
Success is judged by Pinocchio's forward kinematics of the URDF file: both errors within 1e-5 m and rad, joints within
the limits. Every solve is timed by itself; failed ones count as well. Solvers take turns set by set, on this process's
cores: `taskset -c 1` gives all the same one. "call" is the median time of a call with nothing left to do (q_ref solves
the pose): one forward kinematics, and what Python and the binding cost. mfik is timed in C++; "from Python" is what a
call of its `Solver.solve` takes beyond that, beside the whole call of the others that are called from Python.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pinocchio
from peers import PACKAGES, SOLVERS, TOLERANCE, Answers, NotInstalled, Peer, timed, urdf_path
from report import commit, hardware, write_report

from mfik.cli import run_script
from mfik.errors import ArgumentError
from mfik.eval import Targets, make_path, make_targets
from mfik.robots import PRESETS, Robot, load_robot
from mfik.solve import Options, Seed, Solver

SETS = {
    "any q_ref": lambda robot, n, seed: make_targets(robot, n, kind="global", seed=seed),
    "near limits": lambda robot, n, seed: make_targets(robot, n, kind="near_limits", seed=seed),
    "near singular": lambda robot, n, seed: make_targets(robot, n, kind="near_singular", seed=seed),
    "tracking": lambda robot, n, seed: make_path(robot, n, seed=seed),
}
MAX_STEP = 0.2  # largest joint step of mfik while tracking [rad]; the path takes 0.05
TIMES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def mfik_solvers(robot: Robot, bundle: Path | None) -> dict[str, Peer]:
    """Return mfik's rows: the same solver with different seeds, timed in C++ one solve at a time."""
    solver = Solver.from_robot(robot) if bundle is None else Solver.load(bundle, robot)
    rows: dict[str, dict[str, Any]] = {"mfik": {}}
    for seed in Seed:
        if seed is not Seed.NETWORK or bundle is not None:
            rows[f"mfik, one attempt: {seed.value}"] = {"seed": seed, "max_attempts": 1}
    if bundle is not None:
        rows["mfik, network first"] = {"seed": Seed.NETWORK}

    def row(options: dict[str, Any]) -> Peer:
        def solve(pose: np.ndarray, q_ref: np.ndarray, tracking: bool) -> Answers:
            if not tracking:
                out = solver.solve_batch(pose, q_ref, tol_pos=TOLERANCE, tol_rot=TOLERANCE, **options)
                return Answers(out.q, out.time_us)
            steps = [
                solver.track(one, prev, MAX_STEP, tol_pos=TOLERANCE, tol_rot=TOLERANCE)
                for one, prev in zip(pose, q_ref, strict=True)
            ]
            return Answers(np.array([step.q for step in steps]), np.array([step.time_us for step in steps]))

        def around(pose: np.ndarray, q_ref: np.ndarray) -> np.ndarray:
            reused = Options(tol_pos=TOLERANCE, tol_rot=TOLERANCE, **options)
            inside: list[float] = []

            def call(target: np.ndarray, start: np.ndarray) -> np.ndarray:
                result = solver.solve(target, start, options=reused)
                inside.append(result.time_us)
                return result.q

            whole = timed(call, list(pose), list(q_ref), robot.dof).time_us
            return whole - np.array(inside[-len(whole) :])

        return Peer("C++, Solver.solve and Solver.track", True, solve, around)

    return {name: row(options) for name, options in rows.items()}


def prepare(robot: Robot, bundle: Path | None, names: list[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the solvers of that name ("mfik" for all of mfik's rows) that are here, and why the others are not."""
    ready: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    if "mfik" in names:
        ready.update(mfik_solvers(robot, bundle))
        if bundle is None:
            missing["mfik, network"] = "not measured: give --bundle (scripts/export.py)"
    for name in names:
        if name != "mfik":
            try:
                ready[name] = SOLVERS[name](robot)
            except NotInstalled as error:
                missing[name] = str(error)
    return ready, missing


def judge(robot: Robot) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function of pose [N, 7] and q [N, J] that tells which rows Pinocchio finds solved, [N] bool."""
    model = pinocchio.buildModelFromUrdf(str(urdf_path(robot)))
    data = model.createData()
    base, tip = model.getFrameId(robot.base_link), model.getFrameId(robot.tip_link)
    lower, upper = model.lowerPositionLimit, model.upperPositionLimit

    def solved(pose: np.ndarray, q: np.ndarray) -> np.ndarray:
        result = np.zeros(len(q), dtype=bool)
        for row in np.flatnonzero(np.isfinite(q).all(1) & (q >= lower).all(1) & (q <= upper).all(1)):
            pinocchio.framesForwardKinematics(model, data, q[row])
            tool = data.oMf[base].actInv(data.oMf[tip])
            x, y, z, qw, qx, qy, qz = pose[row]
            target = pinocchio.XYZQUATToSE3(np.array([x, y, z, qx, qy, qz, qw]))
            result[row] = (
                np.linalg.norm(tool.translation - target.translation) <= TOLERANCE
                and np.linalg.norm(pinocchio.log3(tool.rotation.T @ target.rotation)) <= TOLERANCE
            )
        return result

    return solved


def measure(peer: Peer, targets: Targets, tracking: bool, solved: Callable) -> dict[str, float]:
    """Return one solver's numbers on one set: success share, times [us], and the largest joint step [rad] or [m]."""
    q, time_us = peer.solve(targets.pose, targets.q_ref, tracking)
    success = solved(targets.pose, q)
    numbers = {"success": float(success.mean()), "mean": float(time_us.mean())}
    numbers.update({name: float(np.quantile(time_us, share)) for name, share in TIMES.items()})
    if tracking and success.any():
        numbers["largest_step"] = float(np.abs(q - targets.q_ref)[success].max())
    return numbers


def call_costs(peer: Peer, robot: Robot) -> dict[str, float | None]:
    """Return what a call costs [us], the median of solves that start at their solution.

    Returns:
        call_us: As timed; None where the start means nothing.
        python_us: Of a call from Python, mfik's beyond the time that C++ reports; None where there is none.
    """
    q = robot.sample(500, np.random.default_rng(7))
    pose = robot.fk(q)
    times = peer.solve(pose, q, False).time_us
    from_python = times if peer.called.startswith("Python") else None
    if peer.around is not None:
        from_python = peer.around(pose, q)
    return {
        "call_us": float(np.median(times)) if peer.iterates else None,
        "python_us": None if from_python is None else float(np.median(from_python)),
    }


def versions() -> dict[str, str]:
    """Return the versions of everything measured."""
    found = {"python": platform.python_version(), "mfik": importlib.metadata.version("mfik")}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def table(report: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [
        f"{report['robot']}, {report['n']:,} poses a set; {report['hardware']}",
        f"{report['command']}; commit {report['commit'][:12]}",
        ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
    ]
    width = max(len(name) for name in (*report["solvers"], *report["missing"], "solver"))
    for name, rows in report["sets"].items():
        step = "tracking" in name
        head = f"{'p50':>8} {'mean':>8} {'p99':>8} {'p99.9':>8} {'max':>9}"
        lines += ["", f"{name + ' [us]':<{width}} {'success':>9} {head}" + ("  largest step [deg]" if step else "")]
        for solver, row in rows.items():
            times = f"{row['p50']:8.1f} {row['mean']:8.1f} {row['p99']:8.1f} {row['p99.9']:8.1f} {row['max']:9.1f}"
            end = f"{np.rad2deg(row['largest_step']):20.2f}" if "largest_step" in row else ""
            lines.append(f"{solver:<{width}} {row['success']:9.2%} {times}{end}")
        lines += [f"{solver:<{width}} {reason}" for solver, reason in report["missing"].items()]
    lines += ["", f"{'Cost of a call [us]':<{width}} {'call':>9} {'from Python':>12}  called"]
    for name, row in report["solvers"].items():
        costs = ["-" if row[key] is None else f"{row[key]:.2f}" for key in ("call_us", "python_us")]
        lines.append(f"{name:<{width}} {costs[0]:>9} {costs[1]:>12}  {row['called']}")
    return "\n".join(lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the times of every solver on every set into a PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ArgumentError("--plot: expected matplotlib to be installed; pip install matplotlib") from error
    names = list(report["solvers"])
    figure = Figure(figsize=(12, 1.5 + 0.8 * len(names)), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    figure.suptitle(
        f"{report['robot']}: time of a solve, {report['n']:,} poses a set\n"
        "line: p50 to max; bar: p50; mark: mean; right: p99.9; number: success"
    )
    for axis, (title, rows) in zip(axes.flat, report["sets"].items(), strict=True):
        axis.set_title(title)
        axis.set_xscale("log")
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="x", alpha=0.3)
        for y, name in enumerate(names):
            row = rows[name]
            color = "tab:red" if name.startswith("mfik") else "tab:blue"
            axis.plot([row["p50"], row["max"]], [y, y], color=color, alpha=0.4)
            axis.plot([row["p50"]], [y], "|", color=color, markersize=16, markeredgewidth=3)
            axis.plot([row["mean"]], [y], "o", color=color)
            axis.plot([row["p99.9"]], [y], ">", color=color)
            axis.annotate(f"{row['success']:.2%}", (row["p50"], y), (0, 9), textcoords="offset points", fontsize=8)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.8)
    figure.supxlabel("time [us]")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    choices = ["mfik", *SOLVERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=PRESETS, default="panda", help="robot (default: panda)")
    parser.add_argument("--bundle", type=Path, help="mfik's bundle for this robot; without it no network is measured")
    parser.add_argument("--num", type=int, default=10_000, help="poses a set (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the poses (default: 0)")
    parser.add_argument("--solvers", nargs="+", choices=choices, default=choices, help="solvers (default: all)")
    parser.add_argument("--json", type=Path, help="also write the report here")
    parser.add_argument("--plot", type=Path, help="also draw it here, as PNG")
    args = parser.parse_args()

    robot = load_robot(args.robot)
    ready, missing = prepare(robot, args.bundle, args.solvers)
    solved = judge(robot)
    sets = {name: targets(robot, args.num, args.seed) for name, targets in SETS.items()}
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions(),
        "robot": robot.name,
        "n": args.num,
        "missing": missing,
        "solvers": {name: {"called": peer.called, **call_costs(peer, robot)} for name, peer in ready.items()},
        "sets": {
            name: {solver: measure(peer, targets, name == "tracking", solved) for solver, peer in ready.items()}
            for name, targets in sets.items()
        },
    }
    print(table(report))
    if args.plot is not None:
        draw(report, args.plot)
    write_report(report, args.json)


if __name__ == "__main__":
    run_script(main)
