"""Train a network for any robot: online data, training, export, evaluation and model card in one command."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from dataclasses import fields
from pathlib import Path

from mfik.cli import HelpFormatter
from mfik.data import COUPLINGS
from mfik.errors import ArgumentError, MfikError
from mfik.eval import format_protocol
from mfik.fit import PRESETS, FitSettings, fit
from mfik.robots import load_robot

_OWN_FILES = ("checkpoints", "logs", "bundle", "bad_batches")


def main() -> None:
    defaults = FitSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("robot", metavar="ROBOT_OR_URDF", help="preset (panda, ur10) or URDF file")
    parser.add_argument("--base_link", help="base frame; default: the preset's, or the URDF's root")
    parser.add_argument("--tip_link", help="tool frame; default: the preset's, or the URDF's only leaf")
    parser.add_argument("--output", type=Path, required=True, help="folder to write: checkpoints, logs, bundle")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in the folder")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="time for the training")
    parser.add_argument("--preset", choices=PRESETS, default=defaults.preset, help="size of the network")
    parser.add_argument(
        "--coupling", choices=COUPLINGS, default=defaults.coupling,
        help="references to train on: seeding for answers to any pose, local for precise ones near by",
    )  # fmt: skip
    parser.add_argument("--sigma", type=float, default=defaults.sigma, help="spread of local references [rad]")
    parser.add_argument("--batch_size", type=int, default=defaults.batch_size, help="rows a step of each process")
    parser.add_argument("--learning_rate", type=float, default=defaults.learning_rate, help="0: by the width")
    parser.add_argument("--processes", type=int, default=defaults.processes, help="on a CPU; 0: one for each core")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the training")
    parser.add_argument("--num", type=int, default=defaults.num, help="poses of each set of the evaluation")
    args = parser.parse_args()

    robot = load_robot(args.robot, base_link=args.base_link, tip_link=args.tip_link)
    settings = FitSettings(**{field.name: getattr(args, field.name) for field in fields(FitSettings)})
    held = [name for name in _OWN_FILES if (args.output / name).exists()]
    if held and not args.overwrite:
        raise ArgumentError(f"--output {args.output}: holds a run already; give another folder, or --overwrite")
    for name in held:
        shutil.rmtree(args.output / name)
    command = shlex.join(["python", *sys.argv])
    print(f"{robot.name}: {robot.base_link} -> {robot.tip_link}, {robot.dof} joints; {args.minutes:g} min of training")
    report = fit(robot, args.output, settings, command=command)
    print(f"\n{format_protocol(report)}\n\n{args.output / 'bundle'}: bundle and card, README.md")


if __name__ == "__main__":
    try:
        main()
    except MfikError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the last checkpoint is in OUTPUT/checkpoints")
