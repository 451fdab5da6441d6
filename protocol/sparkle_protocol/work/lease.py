"""A keeper's own book of one job: who holds which unit until when, and what should be handed out next.

Nothing here is signed or shared: leases end by this keeper's monotonic clock. Rules:

- A unit goes to as many distinct workers as its votes so far require; never twice to one worker in an epoch
  unless its earlier lease ran out without a commit.
- A lease lives ``ttl`` = clamp(3 · p95 of run time, 30 s, 24 h) and is renewed by every report that names it.
- A failed unit waits U(0, min(600 s, 2 · 2ⁿ s)) before its n-th retry (exponential back-off with full jitter); an
  expired lease is the worker's fault and waits for nothing.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from sparkle_protocol.ids import PeerId

SECOND_NS = 1_000_000_000
MIN_TTL_NS = 30 * SECOND_NS
MAX_TTL_NS = 24 * 3600 * SECOND_NS
LOST_PEER_GRACE_NS = 5 * SECOND_NS  # a broken connection often comes back at once
RETRY_CAP_S = 600.0
RETRY_BASE_S = 2.0
REVEAL_DEADLINE_NS = 30 * SECOND_NS


@dataclass(slots=True)
class Lease:
    """One unit in one worker's hands."""

    counter: int
    granted_ns: int
    deadline_ns: int
    ttl_ns: int
    progress: float = 0.0


@dataclass(slots=True)
class UnitBook:
    """What the keeper remembers about a unit that was handed out at least once."""

    leases: dict[PeerId, Lease] = field(default_factory=dict)
    asked: dict[PeerId, int] = field(default_factory=dict)  # reveal wanted -> by when
    withheld: set[PeerId] = field(default_factory=set)  # committed, asked, never revealed
    failures: int = 0
    not_before_ns: int = 0


class LeaseBook:
    """Leases of one job and the order in which its units are handed out."""

    def __init__(self, units: int, rng: Random) -> None:
        self.units = units
        self.books: dict[int, UnitBook] = {}
        self._rng = rng
        self._fresh = 0
        self._needy: dict[int, None] = {}  # insertion-ordered: units that want another worker now
        self._delayed: list[tuple[int, int]] = []  # heap of (not_before_ns, unit)
        self._deadlines: list[tuple[int, int]] = []  # heap of (earliest possible expiry, unit), lazily cleaned
        self._run_times_ns: deque[int] = deque(maxlen=64)
        self._counter = 0
        self._lost: set[PeerId] = set()  # workers whose connection broke
        self.live = 0  # leases out now
        self.new_needs = units > 0  # a unit became wanted since somebody last looked

    # --- handing out --------------------------------------------------------------------------------------

    def candidates(self, limit: int = 512) -> Iterator[int]:
        """Units to try for a worker: those that want another replica, oldest first, then fresh ones.

        At most ``limit`` of the former are looked at, so that a request costs little whatever the job's size.
        """
        for position, unit in enumerate(list(self._needy)):
            if position >= limit:
                break
            yield unit
        yield from self.fresh()

    def fresh(self) -> Iterator[int]:
        """Units that nobody was given yet, in order."""
        while self._fresh < self.units:
            unit = self._fresh
            if unit in self.books:
                self._fresh += 1
                continue
            yield unit
            if unit not in self.books:  # not taken by this worker: nor will later ones be
                return

    def grant(self, unit: int, worker: PeerId, now_ns: int) -> Lease:
        """Hand a unit to a worker."""
        ttl = self.ttl_ns()
        lease = Lease(self._counter, now_ns, now_ns + ttl, ttl)
        self._counter += 1
        book = self.book(unit)
        if worker not in book.leases:
            self.live += 1
        book.leases[worker] = lease
        heapq.heappush(self._deadlines, (lease.deadline_ns, unit))
        return lease

    def book(self, unit: int) -> UnitBook:
        """The unit's page, made at first use."""
        found = self.books.get(unit)
        if found is None:
            found = self.books[unit] = UnitBook()
        return found

    def want_more(self, unit: int, *, more: bool) -> None:
        """State whether a unit wants another worker."""
        if not more:
            self._needy.pop(unit, None)
            return
        book = self.book(unit)
        if book.not_before_ns:
            heapq.heappush(self._delayed, (book.not_before_ns, unit))
        elif unit not in self._needy:
            self._needy[unit] = None
            self.new_needs = True

    @property
    def has_work(self) -> bool:
        """Somebody could be given something now."""
        return bool(self._needy) or self._fresh < self.units

    def take_new_needs(self) -> bool:
        """A unit became wanted since the last call: idle workers should be told."""
        found, self.new_needs = self.new_needs, False
        return found

    # --- what happens to leases ---------------------------------------------------------------------------

    def release(self, unit: int, worker: PeerId) -> Lease | None:
        """A worker no longer holds a unit (committed, failed, returned, lost)."""
        lease = self.book(unit).leases.pop(worker, None)
        if lease is not None:
            self.live -= 1
        return lease

    def renew(self, unit: int, worker: PeerId, progress: float, now_ns: int) -> bool:
        """A worker reported that it runs a unit; False when it has no lease."""
        book = self.books.get(unit)
        lease = book.leases.get(worker) if book else None
        if lease is None:
            return False
        lease.deadline_ns = now_ns + lease.ttl_ns
        lease.progress = progress
        heapq.heappush(self._deadlines, (lease.deadline_ns, unit))
        return True

    def shorten(self, worker: PeerId, now_ns: int) -> None:
        """A worker's connection broke: its leases and its time to reveal end soon unless it is back."""
        self._lost.add(worker)
        for unit, book in self.books.items():
            lease = book.leases.get(worker)
            if lease is not None:
                lease.deadline_ns = min(lease.deadline_ns, now_ns + LOST_PEER_GRACE_NS)
                heapq.heappush(self._deadlines, (lease.deadline_ns, unit))
            if worker in book.asked:
                book.asked[worker] = min(book.asked[worker], now_ns + LOST_PEER_GRACE_NS)
                heapq.heappush(self._deadlines, (book.asked[worker], unit))

    def returned(self, worker: PeerId) -> None:
        """A worker's connection is back."""
        self._lost.discard(worker)

    def delay(self, unit: int, now_ns: int) -> None:
        """A unit failed: it waits longer after every failure."""
        book = self.book(unit)
        book.failures += 1
        pause_s = self._rng.uniform(0.0, min(RETRY_CAP_S, RETRY_BASE_S * 2**book.failures))
        book.not_before_ns = now_ns + int(pause_s * SECOND_NS)

    def ask_reveal(self, unit: int, worker: PeerId, now_ns: int) -> None:
        """A worker's result is wanted by a deadline."""
        deadline = now_ns + (LOST_PEER_GRACE_NS if worker in self._lost else REVEAL_DEADLINE_NS)
        self.book(unit).asked[worker] = deadline
        heapq.heappush(self._deadlines, (deadline, unit))

    def committed_after(self, elapsed_ns: int) -> None:
        """Learn from how long a unit took between grant and commit."""
        self._run_times_ns.append(max(0, elapsed_ns))

    def ttl_ns(self) -> int:
        """Time to live of a new lease."""
        if not self._run_times_ns:
            return MIN_TTL_NS
        ranked = sorted(self._run_times_ns)
        p95 = ranked[min(len(ranked) - 1, int(len(ranked) * 0.95))]
        return max(MIN_TTL_NS, min(MAX_TTL_NS, 3 * p95))

    # --- time ---------------------------------------------------------------------------------------------

    def expire(self, now_ns: int) -> Iterator[tuple[int, PeerId, str]]:
        """Leases ("lease") and reveals ("reveal") that ran out, and units whose back-off ended (no worker)."""
        while self._delayed and self._delayed[0][0] <= now_ns:
            _, unit = heapq.heappop(self._delayed)
            book = self.book(unit)
            if book.not_before_ns and book.not_before_ns <= now_ns:
                book.not_before_ns = 0
                yield unit, PeerId(""), "retry"
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            _, unit = heapq.heappop(self._deadlines)
            book = self.book(unit)
            for worker, lease in list(book.leases.items()):
                if lease.deadline_ns <= now_ns:
                    self.release(unit, worker)
                    yield unit, worker, "lease"
            for worker, deadline in list(book.asked.items()):
                if deadline <= now_ns:
                    del book.asked[worker]
                    book.withheld.add(worker)
                    yield unit, worker, "reveal"

    def next_deadline(self) -> int | None:
        """When ``expire`` may next have something to say."""
        heads = [heap[0][0] for heap in (self._delayed, self._deadlines) if heap]
        return min(heads) if heads else None
