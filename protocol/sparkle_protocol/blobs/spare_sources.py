"""Decides when a transfer asks peers that may have a blob beside those that should.

They join it when one of its sources fails, before it could find that none is left, and when no chunk was stored for
``SPARE_S``. Until then they are left alone: keepers that all ask each other move every blob twice.
"""

from sparkle_protocol.blobs import transfer as tr
from sparkle_protocol.blobs.limits import SPARE_S
from sparkle_protocol.blobs.link import NS, LinkEstimate
from sparkle_protocol.ids import PeerId


class SpareSources:
    """A ``Transfer`` and the peers that it has in reserve; ``handle`` and ``next_deadline`` are as there."""

    def __init__(self, transfer: tr.Transfer, *, patience_s: float = SPARE_S) -> None:
        self.transfer = transfer
        self._patience_ns = round(patience_s * NS)
        self._spare: dict[PeerId, LinkEstimate | None] = {}
        self._look_ns: int | None = None  # when to look whether anything was stored
        self._stored = 0

    def add(self, peer: PeerId, link: LinkEstimate | None = None) -> None:
        """One more peer that may have the blob."""
        if peer not in self.transfer.sources and len(self._spare) < tr.MAX_SOURCES:
            self._spare[peer] = link

    def handle(self, event: tr.Event, now_ns: int) -> tuple[tr.Effect, ...]:
        """What to do now that this has happened."""
        effects: tuple[tr.Effect, ...] = ()
        if isinstance(event, tr.AskFailed | tr.ChunkWrong):
            effects += self._join(now_ns)
        effects += self.transfer.handle(event, now_ns)
        if self._look_ns is None or now_ns >= self._look_ns:
            stored = self.transfer.have.count
            if self._look_ns is not None and stored == self._stored:
                effects += self._join(now_ns)
            self._look_ns, self._stored = now_ns + self._patience_ns, stored
        return effects

    def _join(self, now_ns: int) -> tuple[tr.Effect, ...]:
        spare, self._spare = self._spare, {}
        joined = [self.transfer.handle(tr.SourceJoined(peer, link), now_ns) for peer, link in spare.items()]
        return tuple(effect for effects in joined for effect in effects)

    def next_deadline(self) -> int | None:
        """When to call ``handle(Tick())`` at the latest."""
        due = self.transfer.next_deadline()
        if due is None or not self._spare or self._look_ns is None:
            return due
        return min(due, self._look_ns)

    def reconsider_after_ns(self) -> int | None:
        """As of the transfer."""
        return self.transfer.reconsider_after_ns()
