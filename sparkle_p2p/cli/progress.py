"""Following a job on stderr: one line that moves in a terminal, few plain lines elsewhere."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.cli import output

POLL_S = 0.25
ENDED = ("done", "cancelled", "failed")
_BAR_WIDTH = 24
_NARROW_BAR_WIDTH = 8
_PLAIN_STEP = 0.1  # elsewhere than in a terminal: a line for every tenth of the job


class ProgressLine:
    """Shows a job's progress. Use as context manager: the moving line is gone afterwards."""

    def __init__(self, stream: TextIO | None = None, *, suffix: Callable[[], str] = lambda: "") -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._colour = output.wants_colour(self._stream)
        self._suffix = suffix
        self._said = -1.0
        self._drawn = False

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove the moving line."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

    def show(self, job: dict[str, Any]) -> None:
        """Show where the job stands."""
        fraction = accepted(job) / max(job["units"]["total"], 1)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[K" + self._fitting(job, fraction, width))
            self._stream.flush()
            self._drawn = True
        elif job["state"] in ENDED or fraction >= self._said + _PLAIN_STEP or self._said < 0:
            self._said = fraction
            self._stream.write(f"{output.clean(job['kernel'])} {progress_text(job)}{self._suffix()}\n")
            self._stream.flush()

    def _fitting(self, job: dict[str, Any], fraction: float, width: int) -> str:
        """The line with as much of a bar as there is room for."""
        name, words = output.clean(job["kernel"]), progress_text(job) + self._suffix()
        for drawn in (bar(fraction), bar(fraction, _NARROW_BAR_WIDTH)):
            if len(line := f"{name} {drawn} {words}") <= width:
                return line
        return f"{name} {words}"[:width]


def accepted(job: dict[str, Any]) -> int:
    """Units that need no further work: final ones, and provisional ones of a job that asked for no more."""
    return int(job["units"]["final"] + job["units"].get("provisional", 0))


def bar(fraction: float, width: int = _BAR_WIDTH) -> str:
    """A bar of block characters, an eighth of a cell fine."""
    eighths = round(max(0.0, min(1.0, fraction)) * width * 8)
    full, part = divmod(eighths, 8)
    return "▕" + ("█" * full + (" ▏▎▍▌▋▊▉"[part] if full < width else "")).ljust(width) + "▏"


def progress_text(job: dict[str, Any]) -> str:
    """Units, rejections and the time left, in words."""
    units = job["units"]
    parts = [f"{accepted(job)}/{units['total']} units"]
    if job["rejected"]:
        parts.append(f"{job['rejected']} rejected")
    if job["state"] in ("queued", "running"):
        left = job["eta_s"]
        parts.append("estimating" if left is None else f"{output.duration(left)} left")
    else:
        parts.append(job["state"])
    return ", ".join(parts)


def follow(client: LocalClient, job: str, line: ProgressLine) -> dict[str, Any]:
    """Wait until the job has ended, showing progress; its last document.

    There is no time limit: a job may take days, and every single question has its own.
    """
    with line:
        while True:
            document = client.job(job)
            line.show(document)
            if document["state"] in ENDED:
                return document
            time.sleep(POLL_S)
