"""Signals that end a run with a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ending(request_stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM request that a run stops after the current step; a second one acts as it did before."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in ENDING}

    def stop(number: int, frame: Any) -> None:
        request_stop()
        signal.signal(number, before[number])

    with handled(ENDING, stop):
        yield


@contextmanager
def handled(numbers: tuple[int, ...], handler: Any) -> Iterator[None]:
    """Handle signals within a block; elsewhere than in the main thread they stay as they are."""
    previous: dict[int, Any] = {}
    try:
        for number in numbers:
            previous[number] = signal.signal(number, handler)
    except ValueError:
        pass
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
