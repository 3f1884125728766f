"""Find out which poses of a grid a robot reaches: share of orientations, manipulability, free of collision."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from mfik.cli import INTERRUPTED, Parser, claim_folder, program_words, thread_count
from mfik.cli.load import FREE_ROTATION, add_solver_arguments, joint_indices, load_solver
from mfik.collision import World
from mfik.errors import ArgumentError
from mfik.progress import ProgressBar
from mfik.reach import ReachMap, ReachSettings, map_reach
from mfik.reach.block import ReachTask
from mfik.reach.report import draw_map, save_picture
from mfik.reach.run import MAP_FILE, RECORD_FILE, Record, check_memory, needed_bytes, read_record
from mfik.report import Page, cpu_name, has_matplotlib
from mfik.robots import Robot

_PICTURE_FILE, _PAGE_FILE = "reach.png", "index.html"
_OWN_FILES = (RECORD_FILE, MAP_FILE, "blocks", _PICTURE_FILE, _PAGE_FILE, "pictures")
_WITH_RESUME = ("resume", "threads", "ray", "json")


def add_arguments(parser: Parser) -> None:
    """Add the command's arguments."""
    defaults = ReachSettings()
    add_solver_arguments(parser, required=False)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write: map, picture, page")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="continue the map in this folder where it stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier map in the folder")
    parser.add_argument(
        "--resolution", type=float, default=defaults.resolution, help="between neighbouring positions [m]"
    )
    orientations = parser.add_mutually_exclusive_group()
    orientations.add_argument(
        "--orientations", type=int, default=defaults.orientations, help="at each position, spread evenly"
    )
    orientations.add_argument(
        "--position_only", action="store_true", help="reach positions with any rotation: for arms of few joints"
    )
    parser.add_argument(
        "--box", type=float, nargs=6, metavar="X", help="lower and upper corner of the region; default: the arm's reach"
    )
    parser.add_argument("--world", type=Path, metavar="FILE", help="shapes to keep clear of: YAML or JSON list")
    parser.add_argument("--margin", type=float, default=defaults.margin, help="clearance to keep to them [m]")
    parser.add_argument(
        "--ignore_self_collision", action="store_true", help="let links collide; without spheres they may anyhow"
    )
    parser.add_argument("--tool", type=float, nargs=7, metavar="X", help="T_tip_tool: x y z [m], qw qx qy qz")
    parser.add_argument("--locked", nargs="+", default=[], metavar="JOINT", help="names of joints that do not move")
    parser.add_argument(
        "--attempts", type=int, default=defaults.attempts, help="seeds at the border of what is reached, or collides"
    )
    parser.add_argument("--tol_pos", type=float, default=defaults.tol_pos, help="largest error of the position [m]")
    parser.add_argument("--tol_rot", type=float, default=defaults.tol_rot, help="largest error of the rotation [rad]")
    parser.add_argument("--threads", type=thread_count, help="default: one for each core")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="Ray cluster to use instead: auto for this machine's, local to start one"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, parser: Parser) -> int | None:
    """Start or continue a map, and show it."""
    if args.resume is not None:
        given = [name for name, value in vars(args).items() if value != parser.get_default(name)]
        if other := [name for name in given if name not in _WITH_RESUME]:
            raise ArgumentError(
                f"--resume: expected none but {', '.join('--' + name for name in _WITH_RESUME[1:])} beside it, got "
                f"{other[0]}; the map goes on as it began"
            )
        return _map(read_record(args.resume), args.resume, args)
    if args.robot is None or args.output is None:
        raise ArgumentError("expected ROBOT and --output DIR, or --resume DIR; see --help")
    robot = load_solver(args).robot
    world = None if args.world is None else World.from_file(args.world)
    settings = _settings(args, robot)
    record = Record(robot, settings, world, ["python", *program_words()])
    check_memory(ReachTask(robot, settings, world).grid)  # before anything is removed
    claim_folder(args.output, _OWN_FILES, "map", args.overwrite)
    return _map(record, args.output, args)


def _settings(args: argparse.Namespace, robot: Robot) -> ReachSettings:
    given = {field.name: getattr(args, field.name) for field in fields(ReachSettings) if hasattr(args, field.name)}
    given["locked"] = tuple(joint_indices("--locked", args.locked, robot))
    if args.position_only:
        given |= {"orientations": 1, "slack": FREE_ROTATION}
    if args.ignore_self_collision:
        given["self_collision"] = False
    return ReachSettings(**{name: value for name, value in given.items() if value is not None})


def _map(record: Record, output: Path, args: argparse.Namespace) -> int | None:
    """Make the map; say how to continue when a signal comes."""
    robot, settings, world, command = record
    grid = ReachTask(robot, settings, world).grid
    says = (
        f"{robot.name}: {robot.base_link} -> {robot.tip_link}, {robot.dof} joints; {grid.poses:,} poses, "
        f"{grid.positions:,} positions with {grid.orientations} orientations, {needed_bytes(grid) / 1e6:,.0f} MB"
    )
    print(says, file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        with ProgressBar(total=grid.blocks, desc="reach: ", unit=" blocks") as bar:
            found = map_reach(
                robot,
                settings,
                world=world,
                output=output,
                command=command,
                threads=args.threads or 0,
                ray=args.ray,
                progress=lambda done, _: bar.update(done - bar.n),
            )
    except KeyboardInterrupt:
        words = shlex.join(["python", *program_words(["--resume", str(output)])])
        print(f"interrupted; continue with: {words}", file=sys.stderr)
        return INTERRUPTED
    seconds = time.perf_counter() - start
    summary = {"robot": robot.name, **found.counts(), "seconds": round(seconds, 3), "output": str(output)}
    said = _in_words(found, seconds)
    print(json.dumps(summary, indent=1) if args.json else said)
    if has_matplotlib():
        where = f"resolution {settings.resolution:g} m" + ("" if world is None else f", {len(world)} shapes around it")
        page = Page(
            f"Reach of {robot.name}", said, measured=f"{where}, {cpu_name()}", command=shlex.join(command)
        )  # fmt: skip
        draw_map(page, found)
        page.write(output)
        save_picture(found, output / _PICTURE_FILE)
    if not args.json:
        shown = f"{_PICTURE_FILE} and {_PAGE_FILE}" if has_matplotlib() else "no picture (pip install 'mfik[viz]')"
        print(f"{output}: {MAP_FILE}, {shown}")
    return None


def _in_words(found: ReachMap, seconds: float) -> str:
    counts: dict[str, Any] = found.counts()
    poses, reached = counts["poses"], counts["reached"]
    colliding = f", {counts['colliding'] / poses:.1%} by joints that collide alone" if counts["colliding"] else ""
    return (
        f"{reached:,} of {poses:,} poses are reached ({reached / poses:.1%}{colliding}), at "
        f"{(found.share > 0).sum():,} positions, at best {found.share.max():.0%} of the orientations; {seconds:.1f} s"
    )
