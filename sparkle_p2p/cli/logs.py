"""Where log lines go: stderr for a daemon, a file beside the key for a node with a screen."""

import logging
import logging.handlers
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TextIO

LOG_FILE = "node.log"
_FILE_BYTES = 2 * 1024 * 1024
# libp2p and its neighbours log every stream; what matters to a user we say ourselves.
_NOISY = ("libp2p", "async_service", "multiaddr", "trio", "zeroconf", "asyncio", "aiohttp")


def set_up_logging(level: str, file: Path | None = None) -> None:
    """Send log lines of ``level`` and above to ``file`` (bounded, one predecessor kept) or to stderr."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
        form = "%(asctime)s %(levelname)-7s %(message)s"
    else:
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=_FILE_BYTES, backupCount=1, encoding="utf-8")
        form = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(form, datefmt=None if file else "%H:%M:%S"))
    logging.raiseExceptions = False  # a closed terminal is no reason for tracebacks
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR if level != "debug" else logging.WARNING)


class LineWriter:
    """Writes lines from a thread of its own, so that a reader who stops reading never stops the node.

    At most ``LIMIT`` lines wait; beyond that the oldest are lost. A closed pipe ends the writing silently.
    """

    LIMIT = 1024
    PAUSE_S = 0.02  # between two writes: many lines become few writes, and the node is seldom interrupted by them

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=self.LIMIT)
        self._news = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sparkle-stdout", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue a line (without its end)."""
        self._lines.append(line)
        if not self._news.is_set():
            self._news.set()

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for at most so long."""
        self._closed.set()
        self._news.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while self._lines or not self._closed.is_set():
                self._news.wait()
                self._news.clear()  # before we look: what comes later sets it again
                text = "".join(f"{self._lines.popleft()}\n" for _ in range(len(self._lines)))
                if text:
                    self._stream.write(text)
                    self._stream.flush()
                self._closed.wait(self.PAUSE_S)
        except (OSError, ValueError):
            pass  # nobody reads; what is written from now on pushes itself out of the queue
