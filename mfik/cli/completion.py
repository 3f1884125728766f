"""Print the script that completes the command lines of mfik in a shell: `mfik completion bash > FILE`, read by it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mfik.cli import Parser
from mfik.cli.program import make_parser

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: Parser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Print the script."""
    try:
        import shtab
    except ImportError as error:
        raise ImportError(f"completion needs shtab ({error}): pip install 'mfik[completion]'") from None
    program, commands = make_parser()
    for command in commands:
        command.read_module()
        for action in command._actions:
            if action.type is Path or action.dest == "robot":
                described: Any = action  # shtab reads an attribute of its own
                described.complete = shtab.FILE
    print(shtab.complete(program, shell=args.shell))
