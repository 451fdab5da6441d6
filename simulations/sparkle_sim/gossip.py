"""Gossip between simulated peers: every message goes over every connection once.

An upper bound on what gossipsub does, which sends over a mesh of six to twelve of them.
"""

from collections import OrderedDict
from typing import Protocol

from sparkle_sim.network import Network

SEEN = 256  # messages that a peer remembers


class Listeners(Protocol):
    """Who hears what is said."""

    def gossiped(self, peer: int, topic: str, author: int, payload: bytes) -> None:
        """A message came."""
        ...

    def is_up(self, peer: int) -> bool:
        """Whether its process runs."""
        ...


class Gossip:
    """Peers are numbers here; everybody hears every topic."""

    def __init__(self, network: Network, listeners: Listeners) -> None:
        self._network = network
        self._listeners = listeners
        self._seen: dict[int, OrderedDict[int, None]] = {}
        self._count = 0

    def link_up(self, peer: int, other: int) -> None:
        """A connection stands."""

    def link_down(self, peer: int, other: int) -> None:
        """A connection is gone."""

    def publish(self, peer: int, topic: str, payload: bytes) -> None:
        """Say something to all."""
        self._count += 1
        self._is_new(peer, self._count)
        self._forward(peer, peer, self._count, peer, topic, payload)

    def _forward(self, peer: int, source: int, message: int, author: int, topic: str, payload: bytes) -> None:
        for other in self._network.links[peer]:
            if other not in (source, author):
                self._network.send(peer, other, self._arrive, other, peer, message, author, topic, payload)

    def _arrive(self, peer: int, source: int, message: int, author: int, topic: str, payload: bytes) -> None:
        if self._listeners.is_up(peer) and self._is_new(peer, message):
            self._listeners.gossiped(peer, topic, author, payload)
            self._forward(peer, source, message, author, topic, payload)

    def _is_new(self, peer: int, message: int) -> bool:
        seen = self._seen.setdefault(peer, OrderedDict())
        if message in seen:
            return False
        seen[message] = None
        if len(seen) > SEEN:
            seen.popitem(last=False)
        return True
