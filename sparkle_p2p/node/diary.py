"""What happened on this node: a bounded log for people and an event stream for programs."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from sparkle_p2p.runtime.clock import wall_ms
from sparkle_p2p.view import Event, LogLine

log = logging.getLogger("sparkle.node")

LINES_KEPT = 300
EVENTS_PER_READER = 512  # a slow reader loses the oldest

Level = Literal["info", "good", "warning", "error"]
_LOG_LEVELS = {"info": logging.INFO, "good": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Diary:
    """Lines and events, newest last."""

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque(maxlen=LINES_KEPT)
        self._readers: set[asyncio.Queue[Event]] = set()

    def note(self, level: Level, text: str) -> None:
        """Write one line. Line breaks and control characters from elsewhere are taken out."""
        clean = "".join(char if char.isprintable() else " " for char in text)[:400]
        self.lines.append(LogLine(wall_ms() / 1000, level, clean))
        log.log(_LOG_LEVELS[level], "%s", clean)

    def publish(self, name: str, fields: Mapping[str, Any]) -> None:
        """Tell every reader of the event stream."""
        event = Event(name, wall_ms() / 1000, dict(fields))
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    async def read(self) -> AsyncIterator[Event]:
        """Events from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue(EVENTS_PER_READER)
        self._readers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._readers.discard(queue)
