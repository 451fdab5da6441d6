"""Reports from the trio thread, delivered on the asyncio loop in bounded memory.

Peers coming and going are never dropped (there are at most as many as connections). Gossip and violations
can be flooded by strangers: each has a queue of fixed length that drops its oldest entry and counts it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sparkle_p2p.net.libp2p.sink import Answer, Direction
from sparkle_protocol.ids import PeerId

logger = logging.getLogger("sparkle.net")

MAX_GOSSIP_WAITING = 1024
MAX_VIOLATIONS_WAITING = 256
BATCH = 32  # delivered per turn of the loop, so that a flood leaves room for everything else


class Inbox:
    """A ``Sink`` that calls its owner's methods on the loop."""

    def __init__(
        self,
        *,
        up: Callable[[PeerId, tuple[str, ...], Direction, str, float | None], None],
        down: Callable[[PeerId, str], None],
        latency: Callable[[PeerId, float], None],
        violation: Callable[[PeerId | None, str], None],
        gossip: Callable[[str, PeerId, bytes], None],
        request: Callable[[PeerId, bytes, Answer], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._up = up
        self._down = down
        self._latency = latency
        self._request = request
        self._gossip = _Queue(self._loop, gossip, MAX_GOSSIP_WAITING)
        self._violation = _Queue(self._loop, violation, MAX_VIOLATIONS_WAITING)

    @property
    def dropped(self) -> int:
        """Gossip messages and violations lost because the loop did not keep up."""
        return self._gossip.dropped + self._violation.dropped

    def close(self) -> None:
        """Report nothing more, whatever a thread that was given up still says."""
        self._closed = True

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        if self._closed:
            return
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(function, *args)

    def up(
        self,
        peer: PeerId,
        addresses: tuple[str, ...],
        direction: Direction,
        agent: str,
        latency_ms: float | None,
    ) -> None:
        """See Sink."""
        self._post(self._up, peer, addresses, direction, agent, latency_ms)

    def down(self, peer: PeerId, reason: str) -> None:
        """See Sink."""
        self._post(self._down, peer, reason)

    def latency(self, peer: PeerId, latency_ms: float) -> None:
        """See Sink."""
        self._post(self._latency, peer, latency_ms)

    def violation(self, peer: PeerId | None, reason: str) -> None:
        """See Sink."""
        if not self._closed:
            self._violation.put(peer, reason)

    def gossip(self, topic: str, author: PeerId, payload: bytes) -> None:
        """See Sink."""
        if not self._closed:
            self._gossip.put(topic, author, payload)

    def request(self, peer: PeerId, payload: bytes, answer: Answer) -> None:
        """See Sink. Bounded by the answerers: so many requests per peer at a time."""
        self._post(self._request, peer, payload, answer)


class _Queue:
    """From one thread to the loop: fixed length, the oldest entry makes room."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[..., None], length: int) -> None:
        self._loop = loop
        self._deliver = deliver
        self._entries: deque[tuple[Any, ...]] = deque(maxlen=length)
        self._scheduled = False
        self.dropped = 0

    def put(self, *entry: Any) -> None:
        """Called in the thread."""
        if len(self._entries) == self._entries.maxlen:
            self.dropped += 1
        self._entries.append(entry)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        """Called on the loop. The flag goes down first: what is put meanwhile schedules the next round."""
        self._scheduled = False
        for _ in range(BATCH):
            if not self._entries:
                return
            self._deliver(*self._entries.popleft())
        self._schedule()
