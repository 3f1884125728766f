"""The program `mfik`: its commands, each of which is a module of this package, imported when it is asked for.

A command's module has a docstring, which is its description, and two functions: `add_arguments(parser)`, and
`run(args, parser)`, which returns the exit status, None for 0.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mfik.cli import Parser, run_script
from mfik.errors import ArgumentError

COMMANDS = {
    "solve": "find joints for a pose, or for a file of poses",
    "info": "show a robot or bundle: joints, reach, spheres, network",
    "reach": "find out which poses of a grid a robot reaches",
    "fit": "train a network for a robot",
    "evaluate": "measure a model: accuracy and time",
    "export": "write a bundle for C++, TorchScript and ONNX",
    "view": "show a robot and its solver in a browser",
    "completion": "print what completes this program's command lines in a shell",
}
_PACKAGE = Path(__file__).resolve().parents[1]
_PREFIX = _PACKAGE / "_cpp"  # filled by setup.py with cmake --install
_FOLDERS = {
    "--cmake-dir": (_PREFIX / "lib/cmake/mfik", "mfikConfig.cmake, for mfik_DIR or CMAKE_PREFIX_PATH"),
    "--include-dir": (_PREFIX / "include", "the headers, mfik/solver.hpp and mfik/mfik.h"),
    "--lib-dir": (_PREFIX / "lib", "libmfik_solver.a (C++), libmfik.so (C) and pkgconfig"),
    "--models-dir": (_PACKAGE / "models", "the pretrained models, for Solver::load(folder/NAME)"),
}


class Command(Parser):
    """The parser of a command, whose module is imported when it parses.

    Args:
        command: Name of the module.
    """

    def __init__(self, *arguments: Any, command: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._command: str | None = command

    def read_module(self) -> None:
        """Take description, arguments and what to run from the module, once."""
        if self._command is None:
            return
        module = importlib.import_module(f"mfik.cli.{self._command}")
        self._command = None
        self.description = (module.__doc__ or "").split("\n\n")[0]
        module.add_arguments(self)
        self.set_defaults(run=partial(module.run, parser=self))

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse what follows the command."""
        self.read_module()
        return super().parse_known_args(args, namespace)


def make_parser() -> tuple[Parser, list[Command]]:
    """Return the parser of the program, and those of its commands."""
    parser = Parser(
        prog="mfik",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Inverse kinematics from the command line, and where this installation's C++ library lies.",
        epilog="""\
CMake, find_package(mfik REQUIRED), link mfik::solver (C++) or mfik::c (C):
  cmake -S . -B build -Dmfik_DIR=$(mfik --cmake-dir)
pkg-config, mfik (C++) or mfik-c (C):
  PKG_CONFIG_PATH=$(mfik --lib-dir)/pkgconfig pkg-config --cflags --libs mfik
Other languages load libmfik.so, the C API, from --lib-dir. Solver::load reads a pretrained model:
  $(mfik --models-dir)/panda""",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Command)
    parsers = [commands.add_parser(name, help=text, command=name) for name, text in COMMANDS.items()]
    parser.add_argument("--version", action="store_true", help="print the version")
    for flag, (folder, text) in _FOLDERS.items():
        parser.add_argument(
            flag, dest="folders", action="append_const", const=folder, default=[], help=f"print the folder of {text}"
        )
    return parser, parsers


def run() -> int | None:
    """Run the command that the command line names; return the exit status."""
    parser, _ = make_parser()
    args = parser.parse_args()
    run, version, folders = (vars(args).pop(name, None) for name in ("run", "version", "folders"))
    if run is not None:
        return run(args)
    if version:
        from mfik import __version__

        print(__version__)
    elif not folders:
        parser.error(f"expected a command, one of {', '.join(COMMANDS)}, or another option; see --help")
    for folder in folders:
        if not folder.is_dir():
            raise ArgumentError(f"{folder}: not there, this mfik was not built; install it with: pip install .")
        print(folder)
    return None


def main() -> None:
    """Run `mfik`."""
    run_script(run)


def run_command(name: str) -> None:
    """Run one command as a program of its own, as scripts/ do."""
    parser = Command(command=name, prog=Path(sys.argv[0]).name)

    def run() -> int | None:
        args = parser.parse_args()
        return vars(args).pop("run")(args)

    run_script(run)
