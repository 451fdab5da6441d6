"""Finding peers near a key, and who provides one: an oracle with the delay of a lookup."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Protocol

import base58

from sparkle_protocol.ids import PeerId
from sparkle_sim.draws import Draws, draws
from sparkle_sim.kernel import SECOND, Kernel

LOOKUP_S = (0.05, 0.6)
PROVIDED_NS = 600 * SECOND
MAX_PROVIDERS = 8


class Present(Protocol):
    """Who is there."""

    def is_up(self, peer: int) -> bool:
        """Whether its process runs."""
        ...


class Routing:
    """Peers are numbers here."""

    def __init__(self, kernel: Kernel, present: Present, ids: Sequence[PeerId], seed: int) -> None:
        self._kernel = kernel
        self._present = present
        self._places = [int.from_bytes(sha256(base58.b58decode(peer)).digest(), "big") for peer in ids]
        self._records: dict[bytes, dict[int, int]] = {}
        self._draws: list[Draws] = [draws(seed, peer, "routing") for peer in range(len(ids))]

    def closest(self, peer: int, key: bytes, count: int, found: Callable[[list[int]], None]) -> None:
        """Tell the peers nearest to a key, nearest first."""
        place = int.from_bytes(sha256(key).digest(), "big")
        known = (other for other in range(len(self._places)) if self._present.is_up(other))
        near = sorted(known, key=lambda other: self._places[other] ^ place)[:count]
        self._later(peer, found, near)

    def provide(self, peer: int, key: bytes) -> None:
        """Announce that a peer provides a key."""
        self._records.setdefault(key, {})[peer] = self._kernel.now + PROVIDED_NS

    def providers(self, peer: int, key: bytes, found: Callable[[list[int]], None]) -> None:
        """Tell who provides a key."""
        now = self._kernel.now
        records = self._records.get(key, {})
        there = [other for other, until_ns in records.items() if until_ns > now][:MAX_PROVIDERS]
        self._later(peer, found, there)

    def _later(self, peer: int, found: Callable[[list[int]], None], answer: list[int]) -> None:
        self._kernel.after(int(self._draws[peer].uniform(*LOOKUP_S) * SECOND), found, answer)
