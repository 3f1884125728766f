"""The progress bar of everything that takes long."""

from __future__ import annotations

import sys
import time
from typing import Any

try:
    from tqdm import tqdm
except ImportError as error:
    raise ImportError("the progress bar needs tqdm; install it with: pip install tqdm") from error

_LINE_SECONDS = 5.0  # between two lines, where the output is no terminal
_LINE = "{desc}{percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class ProgressBar(tqdm):
    """A bar that redraws itself on a terminal; in a file or pipe, a line every few seconds and one at the end.

    Args:
        arguments: Of tqdm.
    """

    disable: bool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._terminal = (options.get("file") or sys.stderr).isatty()
        self._printed_s = time.monotonic()
        if not self._terminal:
            form = options.get("bar_format") or _LINE
            form = form.replace("{l_bar}{bar}|", "{percentage:3.0f}%")
            options = {"mininterval": _LINE_SECONDS, **options, "dynamic_ncols": False, "bar_format": form}
        super().__init__(*arguments, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Redraw the bar; elsewhere than on a terminal write a line, if the last one is old enough."""
        if self._terminal:
            return super().display(msg, pos)
        now = time.monotonic()
        if now - self._printed_s >= _LINE_SECONDS:
            self._printed_s = now
            self._print()
        return True

    def say(self, text: str) -> None:
        """Write a line of text that stays, to standard output."""
        if self._terminal:
            self.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Leave the last state."""
        if self._terminal or self.disable:
            super().close()
        else:
            self._print()
            self.leave = False
            self.disable = True
            self._decr_instances(self)

    def clear(self, nolock: bool = False) -> None:
        """Make room on a terminal."""
        if self._terminal:
            super().clear(nolock)

    def _print(self) -> None:
        print(str(self), file=self.fp, flush=True)
