"""What the command lines share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from mfik.errors import MfikError


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that ends with the default, where the default says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


def run_script(main: Callable[[], None]) -> None:
    """Run a command line; what a user can act on ends it with one line, not with a traceback."""
    try:
        main()
    except MfikError as error:
        sys.exit(f"error: {error}")
    except OSError as error:  # a file that no message foresaw
        if error.filename is None:
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}")
