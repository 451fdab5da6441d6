"""What moves on stderr: a job's progress (elsewhere than in a terminal few plain lines), and a bar for work here."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.api.display import TerminalLine
from sparkle_p2p.api.words import ENDED as ENDED
from sparkle_p2p.api.words import accepted, bar, clean, duration, share, short_job
from sparkle_p2p.api.words import progress_text as progress_text

POLL_S = 0.25
_REDRAW_S = 0.1
_ESTIMATE_FROM_S, _ESTIMATE_FROM = 1.0, 0.02  # before that the pace says little
_PLAIN_STEP = 0.1  # elsewhere than in a terminal: a line for every tenth of the job
STANDSTILL_S = 5.0  # nobody at work and nothing accepted for so long: say why
_CAUSES = ("too_large", "wants_workers", "dead_units")  # what ``why`` may say of a job that nobody works for


class ProgressLine:
    """Shows a job's progress. Use as context manager: the moving line is gone afterwards."""

    def __init__(self, stream: TextIO | None = None, *, suffix: Callable[[], str] = lambda: "") -> None:
        self._stream = stream or sys.stderr
        self._line = TerminalLine(self._stream, suffix=suffix) if self._stream.isatty() else None
        self._suffix = suffix
        self._said = -1.0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove the moving line."""
        if self._line is not None:
            self._line.end()

    def say(self, sentence: str) -> None:
        """A line that stays."""
        self.clear()
        self._stream.write(clean(sentence) + "\n")
        self._stream.flush()

    def show(self, job: dict[str, Any]) -> None:
        """Show where the job stands."""
        if self._line is not None:
            self._line.show(job)
        elif job["state"] in ENDED or share(job) >= self._said + _PLAIN_STEP or self._said < 0:
            self._said = share(job)
            self._stream.write(f"{clean(job['kernel'])} {progress_text(job)}{self._suffix()}\n")
            self._stream.flush()


def follow(
    client: LocalClient,
    job: str,
    line: ProgressLine,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait until the job has ended, showing progress, and once for each standstill why it stands; its last document.

    There is no time limit: a job may take days, and every single question has its own.
    """
    told, moved, still_since = False, -1, clock()
    with line:
        while True:
            document = client.job(job)
            line.show(document)
            if document["state"] in ENDED:
                return document
            if document["units"]["leased"] or accepted(document) != moved:
                told, moved, still_since = False, accepted(document), clock()
            elif not told and clock() - still_since >= STANDSTILL_S:
                told = True
                line.say(_why_it_stands(client, job))
            sleep(POLL_S)


def _why_it_stands(client: LocalClient, job: str) -> str:
    """What has to happen before the job goes on; if that is only that somebody takes a unit, also why we do not."""
    told = client.why(job)
    cause = next((detail["sentence"] for detail in told["details"] if detail["code"] in _CAUSES), "")
    if not cause:
        here = client.status()
        cause = f"{told['headline']['sentence']} This node is {here['state']}: {here['reason']['sentence']}"
    return f"waiting: {cause} 'sparkle why {short_job(job)}' tells more"


class WorkBar:
    """A bar with the time left for each thing that this process does. Drawn in a terminal only; gone at the end."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, *, wanted: bool = True
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._shown = wanted and self._stream.isatty()
        self._began = 0.0
        self._what = ""
        self._drawn = float("-inf")

    def __enter__(self) -> "WorkBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._drawn > float("-inf"):
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def show(self, what: str, done: int, whole: int) -> None:
        """So much of it is done; ``whole`` 0: nobody can tell how much there is."""
        now = self._clock()
        if what != self._what:
            self._what, self._began = what, now
        if not self._shown or (now - self._drawn < _REDRAW_S and done < whole):
            return
        self._drawn = now
        self._stream.write("\r\x1b[K" + self._line(what, done, whole, now)[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()

    def _line(self, what: str, done: int, whole: int, now: float) -> str:
        if not whole:
            return f"{what}…"
        part, spent = min(1.0, done / whole), now - self._began
        left = "estimating"
        if spent >= _ESTIMATE_FROM_S and part >= _ESTIMATE_FROM:
            left = f"{duration(spent * (1 - part) / part)} left"
        return f"{what} {bar(part)} {part:.0%}, {left}"
