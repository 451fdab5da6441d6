"""How far a run is, on stderr: one line that moves in a terminal, a plain line for every tenth elsewhere."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from sparkle_p2p.api.words import duration

if TYPE_CHECKING:
    from sparkle_sim.running import Progress

DRAW_EVERY_S = 0.2
_PLAIN_STEP = 0.1


class MovingLine:
    """Use as context manager: the line is gone afterwards.

    Args:
        stream: stderr, if none is given.
        clock: the real one; taken here, since a run refuses whoever asks for it.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._moves = self._stream.isatty()
        self._clock = clock
        self._width = shutil.get_terminal_size().columns - 1
        self._drawn_s = float("-inf")
        self._said = -1.0

    def __enter__(self) -> "MovingLine":
        return self

    def __exit__(self, *_: object) -> None:
        if self._moves:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def draw(self, share: float, text: Callable[[], str]) -> None:
        """Show a text, if it is time to."""
        if self._moves:
            now_s = self._clock()
            if now_s < self._drawn_s + DRAW_EVERY_S:
                return
            self._drawn_s = now_s
            self._stream.write("\r\x1b[K" + text()[: self._width])
        elif share >= self._said + _PLAIN_STEP:
            self._said = share
            self._stream.write(text() + "\n")
        else:
            return
        self._stream.flush()

    def say(self, text: str) -> None:
        """Lines that stay, above the one that moves."""
        self._stream.write(("\r\x1b[K" if self._moves else "") + text + "\n")
        self._stream.flush()
        self._drawn_s = float("-inf")


class ProgressLine(MovingLine):
    """The progress of one run."""

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._name = name

    def __enter__(self) -> "ProgressLine":
        return self

    def show(self, progress: "Progress") -> None:
        """Show how far it is."""
        self.draw(progress.virtual_s / progress.end_s, lambda: f"{self._name}  {progress_text(progress)}")


def progress_text(progress: "Progress") -> str:
    """``2 min 05 s of 10 min 00 s  120 of 200 units  31.2 × real time  145 000 events/s  ETA at most 15 s``."""
    wall_s = max(progress.wall_s, 1e-9)
    factor = progress.virtual_s / wall_s
    left_s = (progress.end_s - progress.virtual_s) / factor if factor else None
    rate = f"  {progress.events / wall_s:,.0f} events/s".replace(",", " ") if progress.events else ""
    done = f"{duration(progress.virtual_s)} of {duration(progress.end_s)}"
    units = "  {} of {} units".format(*progress.units) if progress.units and progress.units[1] else ""
    return f"{done}{units}  {factor:.3g} × real time{rate}  ETA at most {duration(left_s)}"
