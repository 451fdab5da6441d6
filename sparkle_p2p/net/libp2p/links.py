"""The live links as the asyncio side sees them, from the thread's reports."""

import asyncio
import time
from collections import deque
from dataclasses import replace

from sparkle_p2p.net.libp2p.sink import CONNECTION_LOST, Direction
from sparkle_p2p.net.overlay import Link, OverlayEvents
from sparkle_protocol.ids import PeerId

DYING_S = 2.0  # a dying service takes its connections down at most this long before it is seen to be dead
MAX_REMEMBERED = 64


class Links:
    """Keeps the links and tells the node of changes."""

    def __init__(self, events: OverlayEvents) -> None:
        self._events = events
        self._links: dict[PeerId, Link] = {}
        self._lost: deque[tuple[float, Link]] = deque(maxlen=MAX_REMEMBERED)  # the oldest makes room

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._links

    def all(self) -> tuple[Link, ...]:
        """Live links in order of peer id."""
        return tuple(link for _, link in sorted(self._links.items()))

    def up(
        self,
        peer: PeerId,
        addresses: tuple[str, ...],
        direction: Direction,
        agent: str,
        latency_ms: float | None,
    ) -> None:
        """A peer is connected and greeted."""
        since_s = asyncio.get_running_loop().time()
        link = Link(peer, addresses, direction, latency_ms, agent, since_s)
        self._links[peer] = link
        self._events.peer_up(link)

    def down(self, peer: PeerId, reason: str) -> None:
        """A peer is gone."""
        link = self._links.pop(peer, None)
        if link is not None:
            if reason == CONNECTION_LOST:
                self._lost.append((time.monotonic(), link))
            self._events.peer_down(peer, reason)

    def latency(self, peer: PeerId, latency_ms: float) -> None:
        """A new estimate."""
        link = self._links.get(peer)
        if link is not None:
            self._links[peer] = replace(link, latency_ms=latency_ms)

    def all_down(self, reason: str) -> tuple[Link, ...]:
        """Every link is gone; those links, and the ones that went without a word just before."""
        since = time.monotonic() - DYING_S
        gone = {link.peer: link for at, link in self._lost if at >= since}
        self._lost.clear()
        gone.update(self._links)
        for peer in sorted(self._links):
            self.down(peer, reason)
        return tuple(link for _, link in sorted(gone.items()))
