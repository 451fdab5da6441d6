"""Which keeper of a job a worker talks to when one does not answer.

- A keeper *fails* when its connection has been down for ``DOWN_NS``, or when nothing that was reported to it for
  ``SILENT_NS`` (two heartbeats) was answered. An answer or a new connection ends that at once.
- The next one is the first of the job's keepers, in the order of the unit's range, that does not fail: the submitter,
  then by rendezvous hash. Connected ones come first.
- A silent keeper that was not tried for ``FORGIVE_NS`` may be tried again. So with all of them in trouble, units move
  from one to the next at most every ``SILENT_NS``.
"""

from collections.abc import Collection
from functools import lru_cache

from sparkle_protocol.ids import JobId, PeerId, peer_id_from_key
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.placement import primaries, range_of, ranges_of
from sparkle_protocol.work.state import JobState

SILENT_NS = 20 * SECOND_NS  # two heartbeats
DOWN_NS = 5 * SECOND_NS  # as long as a keeper waits for a worker whose connection broke
FORGIVE_NS = 90 * SECOND_NS  # longer than any pause between two attempts
MAX_TRACKED = 4096


class Reach:
    """Which peers answer our reports."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._connected: set[PeerId] = set()
        self._down_ns: dict[PeerId, int] = {}  # known to be away since when
        self._silent_ns: dict[PeerId, tuple[int, int]] = {}  # first and last report that was not answered

    def __contains__(self, peer: PeerId) -> bool:
        return peer == self._me or peer in self._connected

    def up(self, peer: PeerId) -> None:
        """A peer is connected."""
        self._connected.add(peer)
        self.heard(peer)

    def down(self, peer: PeerId, now_ns: int) -> None:
        """A peer's connection is gone."""
        self._connected.discard(peer)
        self._away(peer, now_ns)

    def sent(self, peer: PeerId, now_ns: int) -> None:
        """A report leaves."""
        first, _ = self._silent_ns.pop(peer, (now_ns, now_ns))
        self._silent_ns[peer] = (first, now_ns)
        if len(self._silent_ns) > MAX_TRACKED:
            del self._silent_ns[next(iter(self._silent_ns))]

    def lost(self, peer: PeerId, now_ns: int) -> None:
        """A report did not arrive."""
        if peer not in self:
            self._away(peer, now_ns)

    def _away(self, peer: PeerId, now_ns: int) -> None:
        self._down_ns.setdefault(peer, now_ns)
        if len(self._down_ns) > MAX_TRACKED:
            del self._down_ns[next(iter(self._down_ns))]

    def heard(self, peer: PeerId) -> None:
        """A report was answered."""
        self._down_ns.pop(peer, None)
        self._silent_ns.pop(peer, None)

    def fails_at(self, peer: PeerId) -> int | None:
        """When a peer counts as failing, unless it answers; None when nothing is open."""
        times = []
        if peer != self._me and peer in self._down_ns:
            times.append(self._down_ns[peer] + DOWN_NS)
        if peer in self._silent_ns:
            times.append(self._silent_ns[peer][0] + SILENT_NS)
        return min(times, default=None)

    def fails(self, peer: PeerId, now_ns: int) -> bool:
        """A peer does not answer."""
        if peer in self._silent_ns and now_ns - self._silent_ns[peer][1] > FORGIVE_NS:
            del self._silent_ns[peer]
        at_ns = self.fails_at(peer)
        return at_ns is not None and now_ns >= at_ns

    def first(self, order: Collection[PeerId], refused: Collection[PeerId], now_ns: int) -> PeerId | None:
        """The first of these peers that does not fail, a connected one if there is any."""
        usable = [peer for peer in order if peer not in refused and not self.fails(peer, now_ns)]
        return next((peer for peer in usable if peer in self), usable[0] if usable else None)


def keepers_of(state: JobState) -> tuple[PeerId, ...]:
    """Everybody who takes reports about a job: the submitter and the keepers of the newest view."""
    keepers = state.view.keepers if state.view is not None else ()
    return (state.submitter, *(peer for peer in keepers if peer != state.submitter))


def order_of(state: JobState, unit: int) -> tuple[PeerId, ...]:
    """The same, in the order in which they answer for a unit."""
    if state.view is None:
        return (state.submitter,)
    keys = tuple(state.view.keys)
    range_ = range_of(unit, state.spec.units, ranges_of(state.spec.units, len(keys)))
    ranked = _ranked(state.id, range_, keys)
    return (state.submitter, *(peer for peer in ranked if peer != state.submitter))


@lru_cache(maxsize=1024)
def _ranked(job: JobId, range_: int, keys: tuple[bytes, ...]) -> tuple[PeerId, ...]:
    return tuple(peer_id_from_key(key) for key in primaries(job, range_, keys))
