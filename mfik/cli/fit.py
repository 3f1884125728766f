"""Train a network for any robot: online data, training, export, evaluation and model card in one command."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from mfik.cli import INTERRUPTED, ROBOT, Parser, add_robot_arguments, claim_folder, program_words, robot_arguments
from mfik.data import COUPLINGS
from mfik.errors import ArgumentError
from mfik.eval import format_protocol
from mfik.fit import PRESETS, FitSettings, fit, read_fit
from mfik.robots import Robot, load_robot

_OWN_FILES = (
    "run.json", "metrics.csv", "checkpoints", "logs", "plots", "report", "evaluation.json", "bundle", "bad_batches"
)  # fmt: skip


def add_arguments(parser: Parser) -> None:
    """Add the command's arguments."""
    defaults = FitSettings()
    parser.add_argument("robot", metavar="ROBOT", nargs="?", help=ROBOT)
    add_robot_arguments(parser)
    parser.add_argument("--output", type=Path, help="folder to write: checkpoints, logs, report, bundle")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="continue the run in this folder where it stopped",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in the folder")
    parser.add_argument(
        "--minutes", type=float, default=defaults.minutes, help="from the first step of training to the last"
    )
    parser.add_argument("--preset", choices=PRESETS, default=defaults.preset, help="size of the network")
    parser.add_argument(
        "--coupling", choices=COUPLINGS, default=defaults.coupling,
        help="references to train on: seeding for answers to any pose, local for precise ones near by",
    )  # fmt: skip
    parser.add_argument("--sigma", type=float, default=defaults.sigma, help="spread of local references [rad]")
    parser.add_argument("--collision_free", action="store_true", help="train towards solutions free of self-collision")
    parser.add_argument("--batch_size", type=int, default=defaults.batch_size, help="rows a step of each process")
    parser.add_argument("--learning_rate", type=float, default=defaults.learning_rate, help="0: by the width")
    parser.add_argument("--processes", type=int, default=defaults.processes, help="on a CPU; 0: one for each core")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the training")
    parser.add_argument("--num", type=int, default=defaults.num, help="poses of each set of the evaluation")


def run(args: argparse.Namespace, parser: Parser) -> int | None:
    """Start or continue a run."""
    if args.resume is not None:
        given = [name for name, value in vars(args).items() if value != parser.get_default(name)]
        given.remove("resume")
        if given:
            raise ArgumentError(f"--resume: expected no other argument, got {given[0]}; the run goes on as it began")
        return _resume(args.resume)
    if args.robot is None or args.output is None:
        raise ArgumentError("expected ROBOT and --output DIR, or --resume DIR; see --help")
    robot = load_robot(args.robot, **robot_arguments(args))
    settings = FitSettings(**{field.name: getattr(args, field.name) for field in fields(FitSettings)})
    claim_folder(args.output, _OWN_FILES, "run", args.overwrite)
    return _fit(robot, args.output, settings, command=program_words())


def _resume(output: Path) -> int | None:
    """Continue a run where it stopped."""
    robot, settings, command = read_fit(output)
    return _fit(robot, output, settings, command=command, resume=True)


def _fit(robot: Robot, output: Path, settings: FitSettings, **options: Any) -> int | None:
    """Train, measure and export; say how to continue when a signal comes."""
    print(
        f"{robot.name}: {robot.base_link} -> {robot.tip_link}, {robot.dof} joints; {settings.minutes:g} min", flush=True
    )
    try:
        report = fit(robot, output, settings, **options)
    except KeyboardInterrupt:
        command = shlex.join(["python", *program_words(["--resume", str(output)])])
        print(f"interrupted; continue with: {command}", file=sys.stderr)
        return INTERRUPTED
    print(f"\n{format_protocol(report)}\n\n{output / 'bundle'}: bundle and card, README.md")
    page = output / "report" / "index.html"
    print(f"{page}: the training" if page.is_file() else "no report of the training (pip install mfik[viz])")
    return None
