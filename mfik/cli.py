"""What the command lines share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from mfik.errors import ArgumentError, MfikError

ROBOT = "preset (panda, ur10), .urdf, .xacro or MJCF file, or name of robot_descriptions"  # what `load_robot` takes


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that ends with the default, where the default says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


def add_robot_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the arguments that say what to take of a robot's description; `robot_arguments` reads them."""
    parser.add_argument("--base_link", help="base frame; default: the group's, the preset's, or the file's root")
    parser.add_argument("--tip_link", help="tool frame; default: the group's, the preset's, or the file's only leaf")
    parser.add_argument("--group", help="planning group of the SRDF file, whose chain is taken")
    parser.add_argument("--srdf", metavar="FILE", help="SRDF file with groups and with pairs of links not to check")
    add_source_arguments(parser)


def add_source_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the arguments that say how to read a robot's description; `source_arguments` reads them."""
    parser.add_argument(
        "--xacro_args", nargs="+", metavar="NAME:=VALUE", help="arguments of a .xacro file, as xacro takes them"
    )
    parser.add_argument(
        "--package_paths", nargs="+", metavar="DIR", help="folders that hold the packages that the file names"
    )


def robot_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of `load_robot` that a command line gives.

    Raises:
        ArgumentError: --xacro_args has another form.
    """
    own = {name: getattr(args, name) for name in ("base_link", "tip_link", "group", "srdf")}
    return own | source_arguments(args)


def source_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return those of them that say how to read the description; errors as of `robot_arguments`."""
    pairs = [argument.partition(":=") for argument in args.xacro_args or ()]
    for name, sign, value in pairs:
        if not name or not sign:
            raise ArgumentError(f"--xacro_args: expected NAME:=VALUE, got '{name}{sign}{value}'; write it so")
    return {
        "xacro_args": {name: value for name, _, value in pairs} if pairs else None,
        "package_paths": args.package_paths or (),
    }


def run_script(main: Callable[[], None]) -> None:
    """Run a command line; what a user can act on ends it with one line, not with a traceback."""
    try:
        main()
    except (MfikError, ImportError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:  # a file that no message foresaw
        if error.filename is None:
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}")
