"""A job's progress while somebody waits for it: one line in a terminal, one output in a notebook, else nothing."""

import contextlib
import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TextIO

from sparkle_p2p.api.words import progress_line

NOTEBOOK_WIDTH = 100

Show = Callable[[dict[str, Any]], None]


class Line(Protocol):
    """Where progress is drawn."""

    def show(self, job: dict[str, Any]) -> None:
        """Draw where the job stands."""
        ...

    def end(self) -> None:
        """Nothing more comes."""
        ...


class TerminalLine:
    """A line that moves, and is gone at the end."""

    def __init__(self, stream: TextIO, *, suffix: Callable[[], str] = lambda: "") -> None:
        self._stream = stream
        self._suffix = suffix
        self._drawn = False

    def show(self, job: dict[str, Any]) -> None:
        """Draw the line anew."""
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[K" + progress_line(job, width, self._suffix()))
        self._stream.flush()
        self._drawn = True

    def end(self) -> None:
        """Remove the line."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


class NotebookLine:
    """An output of the cell that is replaced, and stays as it was last."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._text = ""

    def show(self, job: dict[str, Any]) -> None:
        """Replace the output."""
        text = progress_line(job, NOTEBOOK_WIDTH)
        if text == self._text:
            return
        self._text = text
        if self._handle is None:
            display = importlib.import_module("IPython.display").display
            self._handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)

    def end(self) -> None:
        """The last output stays."""


class Progress:
    """Shows one job at a time: the line is only one, so of jobs that are waited for together the first has it.

    Args:
        wanted: False to show nothing unless a call asks for it.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted
        self._taken = False

    @contextlib.contextmanager
    def shown(self, wanted: bool | None = None) -> Iterator[Show]:
        """What to call with the job's documents; ``wanted`` overrides the setting for this time."""
        line = _line() if (self._wanted if wanted is None else wanted) and not self._taken else None
        if line is None:
            yield lambda job: None
            return
        self._taken = True
        try:
            yield line.show
        finally:
            self._taken = False
            line.end()


def _line() -> Line | None:
    if _in_notebook():
        return NotebookLine()
    stream: TextIO | None = sys.stderr
    return TerminalLine(stream) if stream is not None and stream.isatty() else None


def _in_notebook() -> bool:
    """Whether IPython runs this under a kernel, whose front end can replace outputs; its terminal shell has none."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and getattr(shell, "kernel", None) is not None
