"""Ctrl-C ends a run between two events, so that what it came to can be kept; a second one ends the program."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sparkle_sim.running import Stop


@contextmanager
def stopping() -> Iterator[Stop]:
    """Turns SIGINT and SIGTERM into a wish to stop, for as long as it lasts."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.wanted:
            raise KeyboardInterrupt
        stop.request()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
