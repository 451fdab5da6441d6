"""What a process said, one JSON document per line, for tests that wait until it says something."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]
WAIT_S = 20.0  # what is waited for takes milliseconds, gossip up to two heartbeats; a busy machine needs longer


class EventLog:
    """All documents so far; ``wait`` returns the first one that fits, be it past or future."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[Document] = []
        self.ended = False
        self._news = asyncio.Event()

    async def read(self, lines: asyncio.StreamReader, on_document: Callable[[Document], None] | None = None) -> None:
        """Take in lines to their end."""
        try:
            async for line in lines:
                document = json.loads(line)
                self.seen.append(document)
                if on_document is not None:
                    on_document(document)
                self._wake()
        finally:
            self.ended = True
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def wait(self, event: str, *, within_s: float = WAIT_S, **fields: object) -> Document:
        """The first document of this event with these fields."""
        found = await self.came(within_s, event, **fields)
        if found is None:
            why = "ended before it said" if self.ended else f"in {within_s:g} s did not say"
            raise AssertionError(f"{self.name} {why} {event} {fields}; {self._tail()}")
        return found

    async def came(self, within_s: float, event: str, **fields: object) -> Document | None:
        """The same, or None if it does not come in time."""
        wanted = {"event": event, **fields}
        position = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    for document in self.seen[position:]:
                        if wanted.items() <= document.items():
                            return document
                    position = len(self.seen)
                    if self.ended:
                        return None
                    await self._news.wait()
        return None

    def all(self, event: str, **fields: object) -> list[Document]:
        """Every document of this event with these fields so far."""
        wanted = {"event": event, **fields}
        return [document for document in self.seen if wanted.items() <= document.items()]

    def _tail(self) -> str:
        return "\n  ".join(["it said last:", *(json.dumps(document)[:300] for document in self.seen[-8:])])
