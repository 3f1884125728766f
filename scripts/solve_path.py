"""Find joints for a path of poses, time them, and report (docs/how-to/paths.md). Exit status 1: not the whole path."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mfik.cli import NOT_DONE, Parser, run_script
from mfik.cli.load import add_solver_arguments, joint_indices, load_solver
from mfik.collision import World
from mfik.path import interpolate, load_poses, retime, save_joints, save_poses
from mfik.path.report import Bounds, draw_path, measured
from mfik.progress import ProgressBar
from mfik.report import Page, cpu_name, has_matplotlib
from mfik.solve import PathResult
from mfik.writing import make_folder, whole_file


def main() -> int | None:
    parser = Parser(description=__doc__)
    add_solver_arguments(parser)
    parser.add_argument("--poses", type=Path, required=True, help="waypoints of the tool: .csv or .npz of mfik.path")
    parser.add_argument("--output", type=Path, required=True, help="folder for the path, the motion and the report")
    parser.add_argument("--world", type=Path, help="shapes around the robot: YAML or JSON list (World.from_dicts)")
    parser.add_argument("--margin", type=float, default=0.0, help="clearance to keep to the world [m]")
    parser.add_argument("--max_translation", type=float, help="put poses between waypoints, so far apart at most [m]")
    parser.add_argument("--max_rotation", type=float, default=0.1, help="turned so far at most, likewise [rad]")
    parser.add_argument("--max_step", type=float, default=0.12, help="largest step of a joint between poses [rad or m]")
    parser.add_argument("--q_start", type=float, nargs="+", metavar="Q", help="joints at the first pose [rad or m]")
    parser.add_argument("--q_goal", type=float, nargs="+", metavar="Q", help="joints at the last pose, likewise")
    parser.add_argument("--q_ref", type=float, nargs="+", metavar="Q", help="where locked joints stay, likewise")
    parser.add_argument("--locked", nargs="+", default=[], metavar="JOINT", help="names of joints that do not move")
    parser.add_argument(
        "--slack", type=float, nargs=6, metavar="S", help="of each pose, along and about its axes [m], [rad]; inf: free"
    )
    parser.add_argument("--tool", type=float, nargs=7, metavar="X", help="T_tip_tool: x y z [m], qw qx qy qz")
    parser.add_argument(
        "--velocity", type=float, nargs="+", help="bound of all joints, or of each; default: the URDF's"
    )
    parser.add_argument("--acceleration", type=float, nargs="+", help="likewise; given, the path is timed as well")
    parser.add_argument("--dt", type=float, default=1e-3, help="time between two samples of the motion [s]")
    parser.add_argument("--time_limit", type=float, default=10.0, help="longest time to search [s]")
    parser.add_argument("--random_seed", type=int, default=0, help="of the search")
    args = parser.parse_args()

    solver = load_solver(args)
    world = None if args.world is None else World.from_file(args.world)
    locked = joint_indices("--locked", args.locked, solver.robot)
    asked = {name: value for name in ("slack", "tool") if (value := getattr(args, name)) is not None}
    given = load_poses(args.poses)
    poses = given if args.max_translation is None else interpolate(given, args.max_translation, args.max_rotation)
    make_folder(args.output)

    with ProgressBar(total=100, desc="path: ", unit="%") as bar:
        result = solver.solve_path(
            poses,
            args.q_start,
            q_goal=args.q_goal,
            q_ref=args.q_ref,
            locked=locked,
            max_step=args.max_step,
            world=world,
            margin=args.margin,
            time_limit=args.time_limit,
            random_seed=args.random_seed,
            progress=lambda share: bool(bar.update(round(100 * share) - bar.n)) and False,
            **asked,
        )
        bar.update(bar.total - bar.n)
    said = explain(result, place_in_file(given, args))
    print(said)

    names = solver.robot.joint_names
    save_poses(args.output / "poses.csv", poses)
    trajectory = None
    if result.reached:
        for ending in ("csv", "npz"):
            save_joints(args.output / f"joints.{ending}", result.q, names)
        if args.acceleration is not None:
            trajectory = retime(
                result.q, one_or_each(args.velocity), one_or_each(args.acceleration), robot=solver.robot, dt=args.dt
            )
            for ending in ("csv", "npz"):
                save_joints(args.output / f"trajectory.{ending}", trajectory, names)
            print(f"{trajectory.t[-1]:.3f} s, {len(trajectory.t)} samples")
    facts = measured(solver, poses, result, trajectory, world, **asked)
    summary = {"status": result.status.name, "reached": result.reached, "poses": len(poses), "said": said, **facts}
    with whole_file(args.output / "result.json") as file:
        file.write(json.dumps(summary, indent=1).encode())
    if has_matplotlib():
        bounds = Bounds(args.max_step, args.margin, one_or_each(args.velocity), one_or_each(args.acceleration))
        page = Page(
            f"Path of {solver.robot.name}",
            said,
            measured=f"{len(poses)} poses, {cpu_name()}",
            command="python scripts/solve_path.py " + shlex.join(sys.argv[1:]),
        )
        draw_path(page, solver, result, trajectory, world, facts, bounds, len(poses))
        print(page.write(args.output))
    else:
        print("no report: it needs matplotlib, pip install 'mfik[viz]'")
    if result.reached < len(poses) or result.status != 0:
        return NOT_DONE
    return None


def one_or_each(values: list[float] | None) -> Any:
    """Return one bound for all joints as a number."""
    return values[0] if values is not None and len(values) == 1 else values


def place_in_file(given: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    """Return the number in the file of each pose that stands there, and of what was put between them a fraction."""
    if args.max_translation is None or len(given) == 1:
        return np.arange(len(given), dtype=float)
    pairs = (given[i : i + 2] for i in range(len(given) - 1))
    counts = [len(interpolate(pair, args.max_translation, args.max_rotation)) - 1 for pair in pairs]
    return np.concatenate([*(i + np.arange(n) / n for i, n in enumerate(counts)), [len(given) - 1.0]])


def explain(result: PathResult, places: np.ndarray) -> str:
    """Return the outcome in words."""
    if result.reached == len(places) and result.status == 0:
        return f"{len(places)} of {len(places)} poses: {result.reason}"
    last = result.reached - 1
    ends = "none" if last < 0 else f"the last is {last}"
    if last >= 0 and places[-1] != len(places) - 1:
        ends += f", {places[last]:.2f} in the file"
    return f"{result.reached} of {len(places)} poses ({ends}): {result.reason}"


if __name__ == "__main__":
    run_script(main)
