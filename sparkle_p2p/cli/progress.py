"""Following a job on stderr: one line that moves in a terminal, few plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.api.display import TerminalLine
from sparkle_p2p.api.words import ENDED as ENDED
from sparkle_p2p.api.words import clean, share
from sparkle_p2p.api.words import progress_text as progress_text

POLL_S = 0.25
_PLAIN_STEP = 0.1  # elsewhere than in a terminal: a line for every tenth of the job


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

    def show(self, job: dict[str, Any]) -> None:
        """Show where the job stands."""
        if self._line is not None:
            self._line.show(job)
        elif job["state"] in ENDED or share(job) >= self._said + _PLAIN_STEP or self._said < 0:
            self._said = share(job)
            self._stream.write(f"{clean(job['kernel'])} {progress_text(job)}{self._suffix()}\n")
            self._stream.flush()


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
