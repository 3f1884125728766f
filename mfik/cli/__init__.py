"""The command line: what `mfik`, its commands (a module each) and scripts/ share."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mfik.errors import ArgumentError, MfikError

ROBOT = "preset (panda, ur10), .urdf, .xacro or MJCF file, or name of robot_descriptions"  # what `load_robot` takes

# Exit statuses of every command and script; docs/how-to/command-line.md.
NOT_DONE = 1  # what was asked for was not found: a pose that was not solved, a path that ends early
ERROR = 2  # of the command line, an argument, a file or the installation: one line says which
INTERRUPTED = 130  # as shells have it for a program that SIGINT ended


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that ends with the default, where the default says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser that takes any negative number for an argument: Python before 3.14 takes `-5e-05` for an option."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": HelpFormatter, **options})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; `parse_args`, and the parser of which this one is a command, go through here as well."""
        words = sys.argv[1:] if args is None else args
        # What begins with a space is no option, and `float` and `int` pass over it.
        return super().parse_known_args([f" {word}" if _is_negative(word) else word for word in words], namespace)


def _is_negative(word: str) -> bool:
    if not word.startswith("-"):
        return False
    try:
        float(word)
    except ValueError:
        return False
    return True


def add_robot_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the arguments that say what to take of a robot's description; `robot_arguments` reads them."""
    parser.add_argument("--base_link", help="base frame; default: the group's, the preset's, or the file's root")
    parser.add_argument("--tip_link", help="tool frame; default: the group's, the preset's, or the file's only leaf")
    parser.add_argument("--group", help="planning group of the SRDF file, whose chain is taken")
    parser.add_argument("--srdf", metavar="FILE", help="SRDF file with groups and with pairs of links not to check")
    parser.add_argument("--spheres", metavar="FILE", help="file of the robot's spheres (scripts/fit_spheres.py)")
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
    own = {name: getattr(args, name) for name in ("base_link", "tip_link", "group", "srdf", "spheres")}
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


def program_words(arguments: Sequence[str] | None = None) -> list[str]:
    """Return what, after `python`, runs this command, a script or one of `mfik`.

    Args:
        arguments: Default those that it was given.
    """
    script = Path(sys.argv[0])
    of_mfik = script.suffix != ".py" or script.name == "__main__.py"
    own = 2 if of_mfik else 1
    words = ["-m", "mfik", *sys.argv[1:own]] if of_mfik else sys.argv[:own]
    return [*words, *(sys.argv[own:] if arguments is None else arguments)]


def thread_count(text: str) -> int:
    """Return the number of threads that an argument gives, at least 1; `type` of --threads."""
    if not (text.strip().isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text.strip()}; leave it out for all cores")
    return int(text)


def claim_folder(output: Path, names: Sequence[str], what: str, overwrite: bool) -> None:
    """See that a folder holds nothing of earlier work of a command.

    Args:
        output: The folder, which may not be there.
        names: Files and folders that the command writes to it.
        what: What they are together, for the message.
        overwrite: Whether to remove them.

    Raises:
        ArgumentError: There are some, and they are not to be removed.
    """
    held = [output / name for name in names if (output / name).exists()]
    if held and not overwrite:
        raise ArgumentError(
            f"--output {output}: holds a {what} already; continue it with --resume {output}, give another folder, or "
            "--overwrite"
        )
    for path in held:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def run_script(main: Callable[[], int | None]) -> None:
    """Run a command line and end with its exit status; what a user can act on is one line, not a traceback."""
    try:
        status = main()
        sys.stdout.flush()  # before the end, where nothing could handle a closed pipe
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `| head`: who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(NOT_DONE)
    except (MfikError, ImportError) as error:
        no_torch = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        _end("this command needs PyTorch: pip install 'mfik[train]'" if no_torch else str(error))
    except OSError as error:  # a file that no message foresaw
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror}")
    else:
        if status:
            sys.exit(status)


def _end(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(ERROR)
