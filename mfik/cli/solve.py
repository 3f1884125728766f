"""Find joints that bring the tool to a pose, or to every pose of a file; status 1 where one has none."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shlex
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mfik.cli import INTERRUPTED, NOT_DONE, Parser, program_words, thread_count
from mfik.cli.load import FREE_ROTATION, add_solver_arguments, joint_indices, load_solver
from mfik.collision import World
from mfik.errors import ArgumentError
from mfik.robots import Robot
from mfik.solve import BatchResult, Options, Result, Solver, Status

_ROUNDED = 0.01  # from 1, of the norm of a quaternion typed with few digits
_CHUNK = 20_000  # rows that are solved between two looks at Ctrl-C, and on one worker of a cluster


def add_arguments(parser: Parser) -> None:
    """Add the command's arguments."""
    add_solver_arguments(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--pose", type=float, nargs="+", metavar="X",
        help="T_base_tool: x y z [m] and qw qx qy qz, a unit quaternion to 1 %%; x y z alone: with any rotation",
    )  # fmt: skip
    target.add_argument(
        "--poses", type=Path, metavar="FILE", help="poses of mfik.path, .csv or .npz, to solve to --output"
    )
    parser.add_argument(
        "--q_ref", type=float, nargs="+", metavar="Q",
        help="joints to start from [rad or m]; default: q_ref [N, J] of an .npz file, else the midpoint of the limits",
    )  # fmt: skip
    parser.add_argument("--all", type=int, metavar="N", help="up to N different solutions of --pose")
    parser.add_argument("--nearest", action="store_true", help="the solution nearest to --q_ref")
    parser.add_argument("--tool", type=float, nargs=7, metavar="X", help="T_tip_tool: x y z [m], qw qx qy qz")
    parser.add_argument(
        "--slack",
        type=float,
        nargs=6,
        metavar="S",
        help="accepted along and about the pose's axes [m], [rad]; inf: free",
    )
    parser.add_argument("--locked", nargs="+", default=[], metavar="JOINT", help="names of joints that stay at --q_ref")
    parser.add_argument("--world", type=Path, metavar="FILE", help="shapes to keep clear of: YAML or JSON list")
    parser.add_argument("--margin", type=float, default=0.0, help="clearance to keep to them [m]")
    parser.add_argument(
        "--self_collision", action="store_true", help="keep links clear of each other; with --world they are anyhow"
    )
    parser.add_argument("--tol_pos", type=float, default=1e-5, help="largest error of the position [m]")
    parser.add_argument("--tol_rot", type=float, default=1e-5, help="largest error of the rotation [rad]")
    parser.add_argument("--output", type=Path, metavar="FILE", help=".npz file to write for --poses")
    parser.add_argument("--threads", type=thread_count, help="for --poses; default: one for each core")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="for --poses, a Ray cluster: auto for this machine's, local to start one"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, parser: Parser) -> int | None:
    """Solve, and print or write the answer."""
    if args.poses is None and (
        given := [name for name in ("output", "threads", "ray") if getattr(args, name) is not None]
    ):
        raise ArgumentError(f"--{given[0]}: expected it with --poses alone; leave it out, --json prints the answer")
    if args.poses is not None and args.all is not None:
        raise ArgumentError("--all: expected --pose, as of each of --poses one solution is found; leave it out")
    if args.poses is not None and (args.output is None or args.output.suffix != ".npz"):
        raise ArgumentError(f"--output: expected an .npz file for the joints of --poses, got {args.output}; give one")
    solver = load_solver(args)
    return _solve_one(solver, args) if args.poses is None else _solve_file(solver, args)


def options_of(args: argparse.Namespace, robot: Robot, slack: Any = None) -> Options:
    """Return the options that a command line gives.

    Args:
        args: The arguments.
        robot: The robot, whose joints --locked names.
        slack: In place of --slack.
    """
    asked = {"slack": args.slack if slack is None else slack, "tool": args.tool}
    return Options(
        tol_pos=args.tol_pos,
        tol_rot=args.tol_rot,
        nearest=args.nearest,
        locked=joint_indices("--locked", args.locked, robot),
        world=None if args.world is None else World.from_file(args.world),
        self_collision=True if args.self_collision else None,
        margin=args.margin,
        **{name: value for name, value in asked.items() if value is not None},
    )


def _solve_one(solver: Solver, args: argparse.Namespace) -> int | None:
    pose, slack = args.pose, None
    if len(pose) == 3:
        if args.slack is not None:
            raise ArgumentError("--slack: expected --pose of 7 numbers, whose axes it is about, got 3; add a rotation")
        pose, slack = [*pose, 1.0, 0.0, 0.0, 0.0], FREE_ROTATION
    if len(pose) != 7:
        raise ArgumentError(
            f"--pose: expected x y z qw qx qy qz, or x y z alone, got {len(pose)} numbers; correct them"
        )
    norm = math.hypot(*pose[3:])
    if abs(norm - 1.0) <= _ROUNDED:
        pose = [*pose[:3], *(number / norm for number in pose[3:])]
    options = options_of(args, solver.robot, slack)
    q_ref = _midpoint(solver.robot) if args.q_ref is None else args.q_ref
    if args.all is None:
        result = solver.solve(pose, q_ref, options=options)
    else:
        result = solver.solve_all(pose, args.all, q_ref, options=options)
    if args.json:
        fields = result._asdict() | {"q": result.q.tolist(), "status": result.status.name}
        print(json.dumps({"robot": solver.robot.name, "joint_names": solver.robot.joint_names, **fields}, indent=1))
    else:
        print(_in_words(solver, result, args.all is not None))
    return None if result.status is Status.SOLVED else NOT_DONE


def _in_words(solver: Solver, result: Result, several: bool) -> str:
    """Return a result: what became of it, and a line for each joint."""
    robot, rows = solver.robot, np.atleast_2d(result.q)
    errors = f"off by {1e3 * result.pos_error:.2g} mm, {np.degrees(result.rot_error):.2g} deg at most"
    said = solver.explain(result._replace(q=rows[0])) if len(rows) else result.reason
    if result.status is Status.SOLVED and several:
        said = f"{len(rows)} solutions, {errors}"
    lines = [f"{said} ({result.time_us:.0f} us)"]
    if result.status is not Status.SOLVED and len(rows):
        lines.append("The best joints found, which do not solve the pose:")
    width = max(len(name) for name in robot.joint_names)
    for joint, (name, kind) in enumerate(zip(robot.joint_names, robot.kinds, strict=True)):
        unit, values = "m  " if kind == "prismatic" else "rad", rows[:, joint]
        also = [1e3 * values[0], "mm"] if kind == "prismatic" else [np.degrees(values[0]), "deg"]
        numbers = "  ".join(f"{value:10.6f}" for value in values)
        lines.append(f"{name:{width}}  {numbers} {unit}" + ("" if several else f" {also[0]:10.3f} {also[1]}"))
    return "\n".join(lines)


def _solve_file(solver: Solver, args: argparse.Namespace) -> int | None:
    from mfik.path import load_poses
    from mfik.writing import make_folder, whole_file

    poses, robot = load_poses(args.poses), solver.robot
    q_ref = _references(args, robot, len(poses))
    task = RowsTask(robot, poses, q_ref, options_of(args, robot), args.threads or os.cpu_count() or 1)
    make_folder(args.output.parent)  # before what takes long
    kept = args.output.with_name(f"{args.output.name}.{task.fingerprint()}.blocks")
    start = time.perf_counter()
    try:
        result = solve_rows(task, kept, args.ray)
    except KeyboardInterrupt:
        if kept.is_dir():
            words = shlex.join(["python", *program_words()])
            print(f"interrupted; {kept} keeps what is done; continue with: {words}", file=sys.stderr)
        return INTERRUPTED
    seconds = time.perf_counter() - start
    arrays = {name: value for name, value in result._asdict().items() if value is not None}
    with whole_file(args.output) as file:
        np.savez(file, joint_names=np.array(robot.joint_names), poses=poses, **arrays)
    shutil.rmtree(kept, ignore_errors=True)
    numbers = [int((result.status == status).sum()) for status in Status]
    counts = {status.name: number for status, number in zip(Status, numbers, strict=True) if number}
    solved = counts.get(Status.SOLVED.name, 0)
    if args.json:
        summary = {"poses": len(poses), "status": counts, "seconds": seconds, "output": str(args.output)}
        print(json.dumps({"robot": robot.name, **summary}, indent=1))
    else:
        others = "".join(f", {number:,} {name}" for name, number in counts.items() if name != Status.SOLVED.name)
        print(f"{args.output}: {solved:,} of {len(poses):,} poses solved{others}, in {seconds:.2f} s")
    return None if solved == len(poses) else NOT_DONE


class RowsTask:
    """The poses of a file, block by block: a function of robot, poses, joints to start from, options and the block's
    number alone.

    Args:
        robot: The robot.
        poses: T_base_tool [x, y, z, qw, qx, qy, qz], [N, 7].
        q_ref: Joints to start from [rad or m], [N, J].
        options: What `Solver.solve_batch` takes.
        threads: Threads to use for a block.
    """

    def __init__(self, robot: Robot, poses: np.ndarray, q_ref: np.ndarray, options: Options, threads: int = 1) -> None:
        self._solver = Solver.from_robot(robot)
        self._given = robot, poses, q_ref, options
        self._threads = threads

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what the task is made of; a worker has one core."""
        return RowsTask, self._given

    def __call__(self, block: int) -> BatchResult:
        """Solve the rows of a block."""
        _, poses, q_ref, options = self._given
        rows = slice(block * _CHUNK, (block + 1) * _CHUNK)
        result = self._solver.solve_batch(
            poses[rows], q_ref[rows], options=options, threads=self._threads, throughput=True, time_each=False
        )
        assert isinstance(result, BatchResult)
        return result

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self._given[1]) // _CHUNK)

    def rows_of(self, blocks: int) -> int:
        """Return the number of rows of so many blocks, at most all."""
        return min(blocks * _CHUNK, len(self._given[1]))

    def fingerprint(self) -> str:
        """Return text that differs where the task does."""
        robot, poses, q_ref, options = self._given
        world = None if options.world is None else options.world.to_dicts()
        asked = [robot.to_dict(), world, repr(replace(options, world=None))]
        return hashlib.sha256(json.dumps(asked).encode() + poses.tobytes() + q_ref.tobytes()).hexdigest()[:12]


def solve_rows(task: RowsTask, folder: Path, ray: str | None) -> BatchResult:
    """Solve many poses, with a bar of progress.

    Args:
        task: The poses.
        folder: Keeps what is done until all is, where there are several blocks.
        ray: Address of a Ray cluster, None for this process.
    """
    from mfik.cluster import all_blocks
    from mfik.progress import ProgressBar

    kept = folder if task.blocks > 1 else None
    with ProgressBar(total=task.rows_of(task.blocks), unit="pose", unit_scale=True) as bar:
        parts = list(
            all_blocks(
                task,
                task.blocks,
                BatchResult,
                folder=kept,
                threads=1,
                ray=ray,
                progress=lambda done, _: bar.update(task.rows_of(done) - bar.n),
            )
        )
    names = [name for name in BatchResult._fields if name != "time_us"]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return BatchResult(**columns, time_us=None)


def _references(args: argparse.Namespace, robot: Robot, rows: int) -> np.ndarray:
    """Return the joints to start from, [N, J]: of the command line, of the file, or the midpoint of the limits."""
    own = None
    if args.poses.suffix.lower() == ".npz":
        with np.load(args.poses, allow_pickle=False) as arrays:  # load_poses has read it already
            own = arrays["q_ref"] if "q_ref" in arrays else None
    if own is not None and args.q_ref is not None:
        raise ArgumentError(f"--q_ref: expected none, as {args.poses} has q_ref; leave one of them out")
    if own is not None:
        if own.shape != (rows, robot.dof):
            raise ArgumentError(
                f"{args.poses}: q_ref: expected [{rows}, {robot.dof}], got {list(own.shape)}; correct it"
            )
        return own
    given = _midpoint(robot) if args.q_ref is None else np.array(args.q_ref)
    if given.shape != (robot.dof,):
        raise ArgumentError(f"--q_ref: expected {robot.dof} joints, got {len(given)}; give one number for each")
    return np.tile(given, (rows, 1))


def _midpoint(robot: Robot) -> np.ndarray:
    return 0.5 * (robot.lower + robot.upper)
