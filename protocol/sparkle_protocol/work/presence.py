"""Which of the peers that we share jobs with are there.

A peer is *away* when nothing was heard of it for two heartbeats and a half, or for one since its connection broke.
Any word counts, whatever it is about. Wrong guesses cost double work, never a wrong result.
"""

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.lease import SECOND_NS

BEAT_NS = 10 * SECOND_NS
SILENT_AWAY_NS = 25 * SECOND_NS
LOST_AWAY_NS = 10 * SECOND_NS
MAX_PEERS = 1 << 16


class Presence:
    """When peers were last heard of."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._heard: dict[PeerId, int] = {}
        self._lost: dict[PeerId, int] = {}  # since when their connection is broken

    def expect(self, peer: PeerId, now_ns: int) -> None:
        """We begin to care about a peer: from now on its silence counts."""
        if peer not in self._heard and len(self._heard) < MAX_PEERS:
            self._heard[peer] = now_ns

    def heard(self, peer: PeerId, now_ns: int) -> None:
        """A peer said something."""
        if peer in self._heard:
            self._heard[peer] = now_ns
        self._lost.pop(peer, None)

    def lost(self, peer: PeerId, now_ns: int) -> None:
        """A peer's connection broke."""
        if peer in self._heard:
            self._lost[peer] = now_ns

    def away_since(self, peer: PeerId, now_ns: int) -> int | None:
        """Since when nothing was heard of a peer that is away; None of one that is there."""
        if peer == self._me:
            return None
        heard_ns, lost_ns = self._heard.get(peer), self._lost.get(peer)
        if heard_ns is None:
            return None
        if now_ns - heard_ns >= SILENT_AWAY_NS or (lost_ns is not None and now_ns - lost_ns >= LOST_AWAY_NS):
            return heard_ns
        return None

    def away(self, peer: PeerId, now_ns: int) -> bool:
        """Nothing was heard of a peer for too long."""
        return self.away_since(peer, now_ns) is not None

    def forget(self, keep: set[PeerId]) -> None:
        """Care about these peers only."""
        for peer in [peer for peer in self._heard if peer not in keep]:
            del self._heard[peer]
            self._lost.pop(peer, None)
