"""The solver that a command line names: of a robot's description, a bundle or a pretrained model."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mfik.cli import ROBOT, add_robot_arguments, robot_arguments
from mfik.errors import ArgumentError
from mfik.robots import Robot, load_robot
from mfik.robots.source import is_robot
from mfik.solve import Solver, pretrained_names

FREE_ROTATION = (0.0, 0.0, 0.0, math.inf, math.inf, math.inf)  # slack that leaves a position alone
_MODELS = Path(__file__).resolve().parents[1] / "models"


def add_solver_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ROBOT and the arguments that say how to read it; `load_solver` reads them."""
    number = None if required else "?"
    parser.add_argument(
        "robot", metavar="ROBOT", nargs=number, help=f"{ROBOT}; or a bundle, or the name of a pretrained model"
    )
    add_robot_arguments(parser)


def load_solver(args: argparse.Namespace) -> Solver:
    """Return the solver that a command line names: with a network where ROBOT is a bundle or a pretrained model.

    A preset that has a pretrained model is that model, unless other arguments say how to read the preset.

    Raises:
        ArgumentError: ROBOT is nothing of these, or an argument does not fit it.
        BundleError: The bundle cannot be used.
        RobotError: The robot cannot be used.
    """
    description: dict[str, Any] = robot_arguments(args)
    given = [name for name, value in description.items() if value]
    if args.robot in pretrained_names() and not given:
        return Solver.pretrained(args.robot)
    if is_robot(args.robot):
        return Solver.from_robot(load_robot(args.robot, **description))
    if args.robot not in pretrained_names() and not Path(args.robot).exists():
        raise ArgumentError(
            f"ROBOT: expected a {ROBOT}, a bundle, or one of the models {', '.join(pretrained_names())}, got "
            f"'{args.robot}'; check the spelling"
        )
    if given:
        raise ArgumentError(f"--{given[0]}: expected none with '{args.robot}', as a bundle has its own; leave it out")
    return Solver.load(args.robot)


def bundle_path(name: str) -> Path:
    """Return the path of the bundle that ROBOT means; only where `load_solver` found a network."""
    return _MODELS / name if name in pretrained_names() else Path(name)


def joint_indices(flag: str, names: Sequence[str], robot: Robot) -> list[int]:
    """Return the places of joints in a robot, by their names.

    Raises:
        ArgumentError: It has no joint of a name; the message names the flag.
    """
    for name in names:
        if name not in robot.joint_names:
            raise ArgumentError(
                f"{flag}: expected joints of {robot.name}, got '{name}'; use {', '.join(robot.joint_names)}"
            )
    return [robot.joint_names.index(name) for name in names]
