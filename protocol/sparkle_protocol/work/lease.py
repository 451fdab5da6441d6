"""A keeper's own book of one job: who holds which unit until when, and what should be handed out next.

Nothing here is signed or shared: leases end by this keeper's monotonic clock. Rules:

- A unit goes to as many distinct workers as its votes so far require; never twice to one worker in an epoch
  unless its earlier lease ended without a commit.
- A lease lives ``ttl`` = clamp(3 · p95 of run time, 30 s, 24 h) and is renewed by every report that names it, but
  never beyond the job's execution deadline. One that lasts twice as long as a ttl is *slow*: the worker may go on,
  but the unit is wanted from somebody else as well, so that nobody can hold up a job by heartbeats alone. After each
  slow worker the patience with the next one doubles, so that a long unit costs few copies.
- A worker for whom nothing else is left may be given a *copy* of a straggler: a unit that has been out for twice the
  p95 of run times (at least 2 s), whose holder has said nothing for 15 s, or of which a result asked for has not been
  shown for 5 s; the oldest first and one copy per unit. So a frozen worker at the end of a job costs the others
  seconds, not a lease. Nothing is copied while there is other work. Who never answered in this job waits twice as
  long for a copy of what is merely slow: a peer that only says that it computes is always free to take one. Once the
  copy is answered and the unit wants more answers still, there may be another copy.
- A failed unit waits U(0, min(600 s, 2 · 2ⁿ s)) before its n-th retry (exponential back-off with full jitter); an
  expired lease is the worker's fault and waits for nothing.

Cost. Units that want another worker stand in one queue. A worker is shown each place of it once: what it may not
take at that place (it holds the unit, or has answered it) it may not take later either, unless the unit gets a new
place. So handing out costs the same per unit whatever the job's size. Every live lease has one alarm; once there are
twice as many as were needed when they were last sorted out, those that watch nothing any more are.
"""

import heapq
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.unit_set import UnitSet

SECOND_NS = 1_000_000_000
MIN_TTL_NS = 30 * SECOND_NS
MAX_TTL_NS = 24 * 3600 * SECOND_NS
LOST_PEER_GRACE_NS = 5 * SECOND_NS  # a broken connection often comes back at once
SLOW_TTLS = 2
MIN_RUN_TIMES = 3  # before that nobody knows what is slow, so it is assumed to be
SLOW_UNKNOWN_NS = 600 * SECOND_NS
STRAGGLER_P95S = 2
MIN_STRAGGLER_NS = 2 * SECOND_NS
SILENT_NS = 15 * SECOND_NS  # one report and a half
REVEAL_OVERDUE_NS = 10 * SECOND_NS
MAX_STRAGGLERS_SEEN = 512  # of each kind; more than a worker can have a part in, so none hides the others
RETRY_CAP_S = 600.0
RETRY_BASE_S = 2.0
REVEAL_DEADLINE_NS = 30 * SECOND_NS
MAX_WORKERS_TRACKED = 4096  # beyond that everybody is shown the queue from its start again


FEW_ALARMS = 1024
Alarm = tuple[int, int, PeerId, str]  # when, unit, worker, kind


@dataclass(slots=True)
class Lease:
    """One unit in one worker's hands."""

    counter: int
    granted_ns: int
    deadline_ns: int
    ttl_ns: int
    alarm_ns: int  # when the book looks at it next; never later than the deadline
    progress: float = 0.0
    slow: bool = False
    copy: bool = False  # given because another worker was slow


@dataclass(slots=True)
class UnitBook:
    """What the keeper remembers about a unit that was handed out at least once."""

    leases: dict[PeerId, Lease] = field(default_factory=dict)
    asked: dict[PeerId, int] = field(default_factory=dict)  # reveal wanted -> by when
    withheld: set[PeerId] = field(default_factory=set)  # committed, asked, not revealed in time
    copied: bool = False
    failures: int = 0
    not_before_ns: int = 0


_NO_BOOK = UnitBook()


def usual_ttl_ns(p95_ns: int) -> int:
    """Time to live of a lease, when 95 % of units took less than this."""
    return max(MIN_TTL_NS, min(MAX_TTL_NS, 3 * p95_ns))


class LeaseBook:
    """Leases of one job and the order in which its units are handed out."""

    def __init__(
        self,
        units: int,
        rng: Random,
        *,
        execution_ns: int = MAX_TTL_NS,
        counter: int = 0,
        is_done: Callable[[int], bool] = lambda _unit: False,
        ttl_ns: Callable[[int], int] = usual_ttl_ns,
    ) -> None:
        self.units = units
        self._is_done = is_done
        self._ttl_ns = ttl_ns
        self._spans: tuple[tuple[int, int], ...] = ((0, units),)  # of units that this keeper hands out now
        self._span = 0  # the one that fresh units are taken from
        self.books: dict[int, UnitBook] = {}
        self.live = 0  # leases out now
        self._new_needs = units > 0  # a unit became wanted since somebody last looked
        self._rng = rng
        self._execution_ns = execution_ns
        self._counter = counter
        self._fresh = 0  # below it there is no fresh unit
        self._given = UnitSet(units)  # units that were handed out once, or need no longer be
        self._queue: list[int | None] = []  # units that want another worker now; None: no longer
        self._place: dict[int, int] = {}  # unit -> index in the queue
        self._shown: dict[PeerId, int] = {}  # worker -> index up to which the queue holds nothing for it
        self._held_by: dict[PeerId, dict[int, None]] = {}
        self._slow: Counter[PeerId] = Counter()  # leases that are, by worker; nobody else is in it
        self._lost: set[PeerId] = set()  # workers whose connection broke
        # Of units without a copy, the oldest first: when leases were granted and reveals asked for.
        self._running: dict[tuple[int, PeerId], int] = {}
        self._asked: dict[tuple[int, PeerId], int] = {}
        self._heard: dict[PeerId, int] = {}  # when holders of leases last said something, the longest silent first
        self._alarms: list[Alarm] = []  # a heap
        self._most_alarms = FEW_ALARMS  # with more, the stale ones are removed
        self._run_times_ns: deque[int] = deque(maxlen=64)

    # --- handing out --------------------------------------------------------------------------------------

    def candidates(self, worker: PeerId) -> Iterator[int]:
        """Units to try for a worker, each to be taken or refused for good: the longest wanted, then fresh ones."""
        yield from self.wanted(worker)
        yield from self.fresh()

    def wanted(self, worker: PeerId) -> Iterator[int]:
        """Units that want another replica and were not shown to this worker yet, oldest first."""
        if len(self._queue) > 64 and len(self._queue) > 2 * len(self._place):
            self._compact()
        if worker not in self._shown and len(self._shown) >= MAX_WORKERS_TRACKED:
            self._shown.clear()
        place = self._shown.get(worker, 0)
        while place < len(self._queue):
            unit = self._queue[place]
            place = self._shown[worker] = place + 1
            if unit is not None and self.serves(unit):
                yield unit

    def fresh(self) -> Iterator[int]:
        """Units that nobody was given yet, in order."""
        while (unit := self._next_fresh()) is not None:
            yield unit
            if unit not in self._given:  # not taken by this worker: nor will later ones be
                return

    def _next_fresh(self) -> int | None:
        while self._span < len(self._spans):
            start, stop = self._spans[self._span]
            while (unit := self._given.first_missing(max(self._fresh, start), stop)) is not None:
                self._fresh = unit
                if not self._is_done(unit):
                    return unit
                self._fresh += 1
            self._span += 1
        return None

    def serve(self, spans: tuple[tuple[int, int], ...]) -> bool:
        """Hand out units of these spans (start, stop), ascending, and no others; True when that is a change."""
        if spans == self._spans:
            return False
        self._spans, self._span, self._fresh = spans, 0, 0
        self._shown.clear()
        self._new_needs = True
        return True

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The units that are handed out here, as (start, stop)."""
        return self._spans

    def serves(self, unit: int) -> bool:
        """The unit is one of those that are handed out here."""
        place = bisect_right(self._spans, (unit, self.units + 1)) - 1
        return place >= 0 and unit < self._spans[place][1]

    def forget(self, unit: int) -> None:
        """Nothing about a unit, which is final, need be remembered any more, unless somebody holds it or owes it."""
        self._given.add(unit)
        book = self.books.get(unit)
        if book is not None and not book.leases and not book.asked and not book.withheld:
            self.want_more(unit, more=False)
            del self.books[unit]

    def stragglers(self, now_ns: int, patience: int = 1) -> list[int]:
        """Units that a worker with nothing else to do may be given a copy of, those out for longest first.

        ``patience``: how many times as long as usual they must have been out, where nothing else is amiss.
        """
        found: dict[int, None] = {}
        p95_ns = self._p95_ns() if len(self._run_times_ns) >= MIN_RUN_TIMES else None
        if p95_ns is not None:
            _older_than(self._running, now_ns - patience * max(MIN_STRAGGLER_NS, STRAGGLER_P95S * p95_ns), found)
        _older_than(self._asked, now_ns - REVEAL_OVERDUE_NS, found)
        seen = 0
        for worker, heard_ns in self._heard.items():
            if heard_ns > now_ns - SILENT_NS or seen >= MAX_STRAGGLERS_SEEN:
                break
            units = [unit for unit in self._held_by[worker] if not self.books[unit].copied]
            seen += len(units)
            found.update(dict.fromkeys(units))
        return list(found)

    def book(self, unit: int) -> UnitBook:
        """The unit's page to write on."""
        book = self.books.get(unit)
        if book is None:
            book = self.books[unit] = UnitBook()
            self._given.add(unit)
        return book

    def _alarm(self, alarm: Alarm) -> None:
        """Look at something again at a time; alarms for what ended earlier go when they are the most."""
        heapq.heappush(self._alarms, alarm)
        if len(self._alarms) > self._most_alarms:
            self._alarms = [one for one in self._alarms if self._is_live(one)]
            heapq.heapify(self._alarms)
            self._most_alarms = max(FEW_ALARMS, 2 * len(self._alarms))

    def _is_live(self, alarm: Alarm) -> bool:
        when, unit, worker, kind = alarm
        book = self.known(unit)
        if kind == "look":
            return True
        if kind == "lease":
            lease = book.leases.get(worker)
            return lease is not None and lease.alarm_ns == when
        return (book.asked.get(worker) if kind == "reveal" else book.not_before_ns) == when

    def _compact(self) -> None:
        live = [unit for unit in self._queue if unit is not None]
        self._queue = [*live]
        self._place = {unit: index for index, unit in enumerate(live)}
        self._shown.clear()

    def grant(self, unit: int, worker: PeerId, now_ns: int, *, copy: bool = False) -> Lease:
        """Hand a unit to a worker; ``copy``: because others are slow with it."""
        ttl = self.ttl_ns()
        deadline = now_ns + ttl
        lease = Lease(self._counter, now_ns, deadline, ttl, deadline, copy=copy)
        self._counter += 1
        book = self.book(unit)
        if worker not in book.leases:
            self.live += 1
        else:
            self._is_slow(worker, book.leases[worker], slow=False)
        book.leases[worker] = lease
        self._held_by.setdefault(worker, {})[unit] = None
        self._running.pop((unit, worker), None)
        if copy:
            book.copied = True
            self._replaced_by_copy(book, worker)
            for other in (*book.leases, *book.asked):
                self._running.pop((unit, other), None)
                self._asked.pop((unit, other), None)
        elif not book.copied:
            self._running[unit, worker] = now_ns
        self.heard(worker, now_ns)
        self._alarm((deadline, unit, worker, "lease"))
        return lease

    def _replaced_by_copy(self, book: UnitBook, worker: PeerId) -> None:
        """The slowest of the others counts no more as somebody who will answer."""
        others = [
            (lease.counter, other) for other, lease in book.leases.items() if other != worker and not lease.slow
        ]
        if others:
            slowest = min(others)[1]
            self._is_slow(slowest, book.leases[slowest], slow=True)

    def _is_slow(self, worker: PeerId, lease: Lease, *, slow: bool) -> None:
        if lease.slow != slow:
            lease.slow = slow
            self._slow[worker] += 1 if slow else -1
            if not self._slow[worker]:
                del self._slow[worker]

    def known(self, unit: int) -> UnitBook:
        """The unit's page to read; an empty one when nothing was written yet."""
        return self.books.get(unit, _NO_BOOK)

    def copy_again(self, unit: int, now_ns: int) -> None:
        """The copy of a unit was answered, and the unit wants more answers than that: there may be another copy."""
        book = self.book(unit)
        book.copied = False
        for worker in book.leases:
            self._running[unit, worker] = now_ns

    def want_more(self, unit: int, *, more: bool, tell: bool = True) -> None:
        """State whether a unit wants another worker. A unit in back-off joins the queue when that ends.

        ``tell``: all that are idle should know.
        """
        self._given.add(unit)  # it stands in the queue or nowhere: as a fresh unit it would be in the way
        if not more or self.known(unit).not_before_ns:
            place = self._place.pop(unit, None)
            if place is not None:
                self._queue[place] = None
        elif unit not in self._place:
            self.book(unit)
            self._place[unit] = len(self._queue)
            self._queue.append(unit)
            self._new_needs |= tell

    def wants(self, unit: int) -> bool:
        """The unit wants another worker now."""
        return unit in self._place

    def show_again(self, worker: PeerId) -> None:
        """The worker may take units now that it might not when it was shown them."""
        self._shown.pop(worker, None)

    def show_to_all(self, unit: int, *, tell: bool = True) -> None:
        """Others may take the unit now than before; ``tell`` as in ``want_more``."""
        if unit in self._place:
            self.want_more(unit, more=False)
            self.want_more(unit, more=True, tell=tell)

    @property
    def has_work(self) -> bool:
        """Somebody could be given something now."""
        return bool(self._spans) and (bool(self._place) or self._next_fresh() is not None)

    @property
    def backlog(self) -> int:
        """About how many units could be handed out now; units that were handed out before their turn count twice."""
        if not self._spans:
            return 0
        unseen = sum(max(0, stop - max(start, self._fresh)) for start, stop in self._spans[self._span :])
        return len(self._place) + unseen

    def was_first(self, unit: int, worker: PeerId) -> bool:
        """The worker holds the unit, and not as a copy."""
        lease = self.known(unit).leases.get(worker)
        return lease is not None and not lease.copy

    def take_new_needs(self) -> bool:
        """A unit became wanted since the last call: idle workers should be told."""
        found, self._new_needs = self._new_needs, False
        return found

    # --- what happens to leases ---------------------------------------------------------------------------

    def held_by(self, worker: PeerId) -> tuple[int, ...]:
        """Units leased to a worker now."""
        return tuple(self._held_by.get(worker, ()))

    def holders(self) -> tuple[PeerId, ...]:
        """Workers that hold a lease now."""
        return tuple(self._held_by)

    def holds(self, worker: PeerId) -> int:
        """How many units are leased to a worker now."""
        return len(self._held_by.get(worker, ()))

    def slow(self, worker: PeerId) -> int:
        """How many of these are not waited for any more."""
        return self._slow[worker]

    def release(self, unit: int, worker: PeerId, *, unfinished: bool = True) -> Lease | None:
        """A worker no longer holds a unit. ``unfinished``: it may get the unit again some day."""
        lease = self.known(unit).leases.pop(worker, None)
        if lease is None:
            return None
        self._is_slow(worker, lease, slow=False)
        self.live -= 1
        self._running.pop((unit, worker), None)
        held = self._held_by[worker]
        del held[unit]
        if not held:
            del self._held_by[worker]
            self._heard.pop(worker, None)
        if unfinished:  # a new place, so that it is shown to this worker again
            self.show_to_all(unit)
        return lease

    def heard(self, worker: PeerId, now_ns: int) -> None:
        """A worker gave a sign of life."""
        if worker in self._held_by:
            self._heard.pop(worker, None)
            self._heard[worker] = now_ns

    def silences(self) -> dict[PeerId, int]:
        """When each holder of a lease last gave a sign of life."""
        return dict(self._heard)

    def keep_silences(self, heard: dict[PeerId, int]) -> None:
        """Leases were replaced by others for the same workers, which have said nothing meanwhile."""
        heard = {**heard, **{worker: at for worker, at in self._heard.items() if worker not in heard}}
        self._heard = {worker: at for worker, at in heard.items() if worker in self._held_by}

    def renew(self, unit: int, worker: PeerId, progress: float, now_ns: int) -> bool:
        """A worker reported that it runs a unit; False when it has no lease."""
        lease = self.known(unit).leases.get(worker)
        if lease is None:
            return False
        latest = lease.granted_ns + self._execution_ns
        lease.deadline_ns = max(lease.deadline_ns, min(now_ns + lease.ttl_ns, latest))
        lease.progress = progress
        return True

    def shorten(self, worker: PeerId, now_ns: int) -> None:
        """A worker's connection broke: its leases end soon unless it reports again."""
        soon = now_ns + LOST_PEER_GRACE_NS
        for unit in self.held_by(worker):
            lease = self.books[unit].leases[worker]
            lease.deadline_ns = min(lease.deadline_ns, soon)
            if lease.alarm_ns > soon:
                lease.alarm_ns = soon
                self._alarm((soon, unit, worker, "lease"))

    def lost(self, worker: PeerId, awaited: Collection[int], now_ns: int) -> None:
        """A worker's connection broke: its leases, and its time to show results (of ``awaited``), end soon."""
        if not awaited and not self.holds(worker):
            return
        self._lost.add(worker)
        self.shorten(worker, now_ns)
        for unit in awaited:
            if self.known(unit).asked.get(worker, 0) > now_ns + LOST_PEER_GRACE_NS:
                self.ask_reveal(unit, worker, now_ns)

    def returned(self, worker: PeerId) -> None:
        """A worker's connection is back."""
        self._lost.discard(worker)

    def delay(self, unit: int, now_ns: int) -> None:
        """A unit failed: it waits longer after every failure."""
        book = self.book(unit)
        book.failures += 1
        pause_s = self._rng.uniform(0.0, min(RETRY_CAP_S, RETRY_BASE_S * 2.0 ** min(book.failures, 16)))
        book.not_before_ns = now_ns + max(1, int(pause_s * SECOND_NS))
        self._alarm((book.not_before_ns, unit, PeerId(""), "retry"))
        self.want_more(unit, more=False)

    def postpone(self, unit: int, until_ns: int) -> None:
        """A unit is handed out no sooner: somebody may be at work on it for another keeper."""
        book = self.book(unit)
        if not book.leases and book.not_before_ns < until_ns:
            book.not_before_ns = until_ns
            self._alarm((until_ns, unit, PeerId(""), "retry"))
            self.want_more(unit, more=False)

    def remind(self, unit: int, when_ns: int) -> None:
        """Have ``expire`` name the unit at a time."""
        heapq.heappush(self._alarms, (when_ns, unit, PeerId(""), "look"))

    def ask_reveal(self, unit: int, worker: PeerId, now_ns: int) -> None:
        """A worker's result is wanted by a deadline."""
        deadline = now_ns + (LOST_PEER_GRACE_NS if worker in self._lost else REVEAL_DEADLINE_NS)
        book = self.book(unit)
        book.asked[worker] = deadline
        if not book.copied:
            self._asked.setdefault((unit, worker), now_ns)
        self._alarm((deadline, unit, worker, "reveal"))

    def shown(self, unit: int, worker: PeerId) -> bool:
        """A worker showed its result, or need not any more; True when that was overdue."""
        self._asked.pop((unit, worker), None)
        book = self.books.get(unit)
        if book is None:
            return False
        book.asked.pop(worker, None)
        overdue = worker in book.withheld
        book.withheld.discard(worker)
        return overdue

    def acquit(self, unit: int) -> set[PeerId]:
        """Nobody need show a result of the unit any more; returns the workers that were overdue with it."""
        book = self.books.get(unit)
        if book is None:
            return set()
        for worker in tuple(book.asked):
            self._asked.pop((unit, worker), None)
        book.asked.clear()
        owing, book.withheld = book.withheld, set()
        return owing

    def start_over(self, unit: int) -> None:
        """Forget everything about a unit: it begins a new epoch. Nobody holds it."""
        self.acquit(unit)
        self.books[unit] = UnitBook()
        self.want_more(unit, more=False)  # a place that workers have seen already counts for the epoch before

    def committed_after(self, elapsed_ns: int) -> None:
        """Learn from how long a unit took between grant and commit."""
        self._run_times_ns.append(max(0, elapsed_ns))

    def ttl_ns(self) -> int:
        """Time to live of a new lease."""
        return self._ttl_ns(self._p95_ns())

    def _p95_ns(self) -> int:
        if not self._run_times_ns:
            return 0
        ranked = sorted(self._run_times_ns)
        return ranked[min(len(ranked) - 1, int(len(ranked) * 0.95))]

    # --- time ---------------------------------------------------------------------------------------------

    def expire(self, now_ns: int) -> Iterator[tuple[int, PeerId, str]]:
        """What happened by now.

        A "lease" or "reveal" ran out, a lease is "slow", a back-off ended ("retry"), or it is time to "look" again.
        """
        while self._alarms and self._alarms[0][0] <= now_ns:
            when, unit, worker, kind = heapq.heappop(self._alarms)
            book = self.books.get(unit)
            if book is None:
                continue
            if kind == "lease":
                news = self._look_at_lease(book, unit, worker, when, now_ns)
                if news:
                    yield unit, worker, news
            elif kind == "reveal":
                if book.asked.get(worker) == when:
                    del book.asked[worker]
                    self._asked.pop((unit, worker), None)
                    book.withheld.add(worker)
                    yield unit, worker, kind
            elif kind == "look":
                yield unit, worker, kind
            elif book.not_before_ns == when:
                book.not_before_ns = 0
                yield unit, worker, kind

    def _look_at_lease(self, book: UnitBook, unit: int, worker: PeerId, when: int, now_ns: int) -> str:
        lease = book.leases.get(worker)
        if lease is None or lease.alarm_ns != when:  # given back, or another alarm watches it
            return ""
        if lease.deadline_ns <= now_ns:
            self.release(unit, worker)
            return "lease"
        lease.alarm_ns = lease.deadline_ns  # renewed since
        self._alarm((lease.alarm_ns, unit, worker, "lease"))
        known = len(self._run_times_ns) >= MIN_RUN_TIMES
        patience_ns = SLOW_TTLS * self.ttl_ns() if known else SLOW_UNKNOWN_NS
        patience_ns <<= min(16, sum(1 for other in book.leases.values() if other.slow))
        if lease.slow or now_ns - lease.granted_ns < patience_ns:
            return ""
        self._is_slow(worker, lease, slow=True)
        return "slow"

    def next_deadline(self) -> int | None:
        """When ``expire`` may next have something to say."""
        return self._alarms[0][0] if self._alarms else None


def _older_than(times: dict[tuple[int, PeerId], int], limit_ns: int, found: dict[int, None]) -> None:
    """Add the units of those entries, which stand in the order of their times, to what was found."""
    for (unit, _), since_ns in islice(times.items(), MAX_STRAGGLERS_SEEN):
        if since_ns > limit_ns:
            return
        found[unit] = None
