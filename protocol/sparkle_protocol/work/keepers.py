"""The peers that said they have open work, and whom to ask next.

- Our own jobs come first. Then of two keepers drawn at random the one with more units to hand out, one that has not
  said how many before all others: the power of two choices (Mitzenmacher 2001), which loads keepers nearly as evenly
  as asking the best of all, but without all workers running to the same. Both draws may name the same keeper, so
  that one with few units is asked as well. Who did not answer last time comes after all who did.
- One keeper is asked at a time, but none is waited for longer than ``ASK_PATIENCE_NS`` before the next is tried.
- A keeper that does not answer is asked ever more rarely and in the end forgotten; one that has open work but
  nothing for us is asked again when it said, never sooner than ``EMPTY_PAUSE_NS``.
"""

from dataclasses import dataclass
from random import Random

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.lease import SECOND_NS

MAX_KEEPERS = 256
MAX_FAILURES = 8
ASK_PATIENCE_NS = 2 * SECOND_NS
EMPTY_PAUSE_NS = SECOND_NS // 10
MAX_PAUSE_NS = 60 * SECOND_NS
RETRY_CAP_S = 60.0
CHOICES = 2
UNKNOWN_WAITING = 1 << 62  # more than anybody says


def backoff_ns(rng: Random, attempt: int) -> int:
    """A pause before the next attempt: 0.5 · 2ⁿ s up to a minute, with jitter."""
    return int(rng.uniform(0.5, 1.0) * min(RETRY_CAP_S, 0.5 * 2 ** min(attempt, 10)) * SECOND_NS)


@dataclass(slots=True)
class Keeper:
    """A peer that said it has open work."""

    ask_at_ns: int = 0
    earliest_ns: int = 0  # it answered with nothing: no news of its own bring it forward further than this
    tag: int | None = None  # of the request under way
    asked_ns: int = 0
    want: int = 0
    failures: int = 0
    waiting: int | None = None  # units that it could hand out, as it said last
    offered: bool = False  # it said so again while our request was under way


class Keepers:
    """Keepers by peer."""

    def __init__(self, me: PeerId, rng: Random) -> None:
        self._me = me
        self._rng = rng
        self._known: dict[PeerId, Keeper] = {}
        self._asking: dict[int, PeerId] = {}  # tag -> peer

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._known

    def answering(self) -> bool:
        """There is somebody to ask who has not failed lately."""
        return any(not keeper.failures for keeper in self._known.values())

    def learn(self, peer: PeerId, now_ns: int, waiting: int = 0) -> None:
        """A peer says that it has open work, and perhaps how many units."""
        keeper = self._known.get(peer)
        if keeper is None:
            if len(self._known) >= MAX_KEEPERS and not self._evict():
                return
            keeper = self._known[peer] = Keeper()
        keeper.ask_at_ns = max(now_ns, keeper.earliest_ns)
        keeper.offered = True
        keeper.waiting = waiting or keeper.waiting

    def _evict(self) -> bool:
        """Make room: the keeper that failed most goes."""
        spare = [(keeper.failures, peer) for peer, keeper in self._known.items() if keeper.failures]
        if spare:
            self.forget(max(spare)[1])
        return bool(spare)

    def connected(self, peer: PeerId, now_ns: int) -> None:
        """A peer is back: do not wait out the back-off."""
        keeper = self._known.get(peer)
        if keeper is not None:
            keeper.failures = 0
            keeper.ask_at_ns = min(keeper.ask_at_ns, max(now_ns, keeper.earliest_ns))

    def retry_all(self, now_ns: int) -> None:
        """Ask everybody again."""
        for keeper in self._known.values():
            keeper.ask_at_ns = min(keeper.ask_at_ns, now_ns)

    def due(self, now_ns: int) -> PeerId | None:
        """Whom to ask now, if anybody."""
        if self._blocked_until() > now_ns:
            return None
        ready = [peer for peer, keeper in self._known.items() if keeper.tag is None and keeper.ask_at_ns <= now_ns]
        if not ready:
            return None
        if self._me in ready:
            return self._me
        least = min(self._known[peer].failures for peer in ready)
        equal = [peer for peer in ready if self._known[peer].failures == least]
        return max((self._rng.choice(equal) for _ in range(CHOICES)), key=self._worth)

    def _worth(self, peer: PeerId) -> int:
        waiting = self._known[peer].waiting
        return UNKNOWN_WAITING if waiting is None else waiting

    def _blocked_until(self) -> int:
        """Until when the request under way keeps others from being made."""
        return max((self._known[peer].asked_ns + ASK_PATIENCE_NS for peer in self._asking.values()), default=0)

    def next_ask_ns(self) -> int | None:
        """When ``due`` next names somebody."""
        times = [keeper.ask_at_ns for keeper in self._known.values() if keeper.tag is None]
        return max(min(times), self._blocked_until()) if times else None

    def asked(self, peer: PeerId, tag: int, want: int, now_ns: int) -> None:
        """A request is under way."""
        keeper = self._known[peer]
        keeper.tag, keeper.want, keeper.asked_ns, keeper.offered = tag, want, now_ns, False
        self._asking[tag] = peer

    def answered(self, peer: PeerId, tag: int) -> int | None:
        """The request of this tag is over; how many units it asked for, None when it is no request of ours."""
        if self._asking.get(tag) != peer:
            return None
        del self._asking[tag]
        keeper = self._known[peer]
        keeper.tag = None
        return keeper.want

    def gave(self, peer: PeerId, units: int, wait_ns: int, now_ns: int, waiting: int = 0) -> None:
        """A keeper with open work answered."""
        keeper = self._known[peer]
        keeper.waiting = waiting
        keeper.failures = 0
        keeper.earliest_ns = now_ns if units else now_ns + EMPTY_PAUSE_NS
        wait_ns = 0 if keeper.offered else min(wait_ns, MAX_PAUSE_NS)
        keeper.ask_at_ns = max(keeper.earliest_ns, now_ns + wait_ns)

    def finished(self, peer: PeerId, now_ns: int) -> None:
        """A keeper has no open work, unless it said meanwhile that it has."""
        if self._known[peer].offered:
            self.gave(peer, 0, 0, now_ns)
        else:
            self.forget(peer)

    def postpone(self, peer: PeerId, pause_ns: int, now_ns: int) -> None:
        """Leave a keeper alone for a while."""
        self._known[peer].ask_at_ns = now_ns + pause_ns

    def failed(self, peer: PeerId, now_ns: int) -> None:
        """A keeper did not answer."""
        keeper = self._known[peer]
        keeper.failures += 1
        keeper.ask_at_ns = now_ns + backoff_ns(self._rng, keeper.failures)
        if keeper.failures > MAX_FAILURES:
            self.forget(peer)

    def forget(self, peer: PeerId) -> None:
        """A keeper has no open work, does not answer, or broke a rule."""
        keeper = self._known.pop(peer, None)
        if keeper is not None and keeper.tag is not None:
            self._asking.pop(keeper.tag, None)
