"""What a worker has to say to one keeper about one job, and how a report is made of it.

- One report is under way at a time; what comes up meanwhile goes into the next.
- A unit that was leased by somebody else is named only beside the signed lease, the first time that this keeper
  hears of it.
- While there is more to compute, reports leave no faster than ``prefetch.py`` says, so that many units share one.
- All units in hand are named about every ten seconds, so that leases live on and news that got lost is told again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sparkle_protocol import messages
from sparkle_protocol.effects import Record, StoreCommit, StoreFact
from sparkle_protocol.facts import (
    CommitItem,
    Commits,
    Fact,
    FactCodec,
    FailureItem,
    Failures,
    Payload,
    RevealItem,
    Reveals,
    Signer,
)
from sparkle_protocol.ids import FactId, JobId, PeerId, hash_result
from sparkle_protocol.work.held import Hands, Held, HeldState, UnitKey
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.shelf import Pledges, Shelf
from sparkle_protocol.work.state import JobState

MAX_COMMITS = 256  # of one report
MAX_FAILURES = 64
MAX_PROOFS = messages.MAX_REPORT_FACTS - 3  # beside Commits, Reveals and Failures
PROOF_BYTES = 128 << 10  # of one report
MAX_LEASE_BYTES = 64 << 10  # of one Leases fact: 1024 items fit
MAX_SHOWN = 256  # before those of units that are gone are forgotten
HEARTBEAT_NS = 10 * SECOND_NS  # a third of the shortest lease
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit that could not be computed, and the lease that let us try."""

    item: FailureItem
    lease: Fact | None


@dataclass(frozen=True, slots=True)
class Flight:
    """A report under way, and what must be durable before it leaves."""

    report: messages.Report
    commits: tuple[UnitKey, ...]
    reveals: tuple[UnitKey, ...]
    failures: tuple[Failed, ...]
    proofs: tuple[FactId, ...]
    records: tuple[Record, ...]

    @property
    def is_empty(self) -> bool:
        """There was nothing to say after all."""
        return not (self.report.facts or self.report.running or self.report.returned)

    def repeated(self, hands: Hands) -> "Flight":
        """The same report once more, with what must be durable in case that it did not become so.

        What was dropped stays dropped: units that went meanwhile are not put on disk again, and nothing is dropped
        twice that may have been stored between.
        """
        stores = tuple(
            record
            for record in self.records
            if isinstance(record, StoreFact)
            or (isinstance(record, StoreCommit) and hands.get((record.job, record.unit, record.epoch)) is not None)
        )
        return replace(self, records=stores)


@dataclass(slots=True)
class Outbox:
    """What is to be reported to one keeper about one job."""

    job: JobId
    keeper: PeerId
    beat_at_ns: int
    commits: list[UnitKey] = field(default_factory=list)
    reveals: list[UnitKey] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    returned: list[messages.UnitEpoch] = field(default_factory=list)
    shown: set[FactId] = field(default_factory=set)  # leases of others that this keeper has seen
    flight: Flight | None = None  # unanswered
    tag: int | None = None
    sent_ns: int | None = None
    attempts: int = 0
    retry_at_ns: int = 0
    named: int = 0  # where the next heartbeat goes on when there are too many units for one

    @property
    def urgent(self) -> bool:
        """There is more to say than a heartbeat."""
        return bool(self.commits or self.reveals or self.failures or self.returned or self.flight)

    @property
    def all_failures(self) -> list[Failed]:
        """Failures to be said, those under way first."""
        return [*(self.flight.failures if self.flight is not None else ()), *self.failures]


class Composer:
    """Makes reports."""

    def __init__(self, signer: Signer, codec: FactCodec, hands: Hands, shelf: Shelf, device: str) -> None:
        self._device = device
        self._signer = signer
        self._codec = codec
        self._hands = hands
        self._shelf = shelf
        self._pledges = Pledges(signer, codec.network)

    def compose(self, state: JobState, box: Outbox, now_ns: int) -> Flight:
        """The next report of ``box``. What does not fit stays in it."""
        proofs = _Proofs(box)
        commits, items = self._commitments(box, proofs)
        reveals = self._reveals(box, proofs)
        failures = _take(box.failures, MAX_FAILURES, lambda failed: proofs.covers(failed.lease))
        running = self._heartbeats(box, proofs, now_ns)
        returned = _take(box.returned, messages.MAX_HEARTBEATS)
        opened = [RevealItem(key[1], key[2], hash_result(held.result), held.nonce) for key, held in reveals]
        payloads: list[Payload] = []
        if items:
            payloads.append(Commits(box.job, items, self._device))
        if opened:
            payloads.append(Reveals(box.job, opened))
        if failures:
            payloads.append(Failures(box.job, [failed.item for failed in failures]))
        own = [self._codec.seal(self._signer, payload).raw for payload in payloads]
        raws = [*(fact.raw for fact in proofs.facts.values()), *own]
        return Flight(
            messages.Report(box.job, raws, [held.result for _, held in reveals], running, returned),
            tuple(key for key, _ in commits),
            tuple(key for key, _ in reveals),
            tuple(failures),
            tuple(proofs.facts),
            tuple(self._shelf.store(state, commits)) if commits else (),
        )

    def _commitments(self, box: Outbox, proofs: "_Proofs") -> tuple[list[tuple[UnitKey, Held]], list[CommitItem]]:
        commits: list[tuple[UnitKey, Held]] = []
        items: list[CommitItem] = []
        for key, held in self._due(box, box.commits, "committing", MAX_COMMITS, proofs):
            commit = self._pledges.commit(key, held)
            if commit is None:  # this machine gave two results for one unit: somebody else shall compute it
                self._hands.pop(key)
                self._shelf.let_go(held)
                box.returned.append(messages.UnitEpoch(key[1], key[2]))
                continue
            commits.append((key, held))
            items.append(CommitItem(key[1], key[2], commit))
        return commits, items

    def _reveals(self, box: Outbox, proofs: "_Proofs") -> list[tuple[UnitKey, Held]]:
        due = self._due(box, box.reveals, "revealing", messages.MAX_RESULTS_PER_REPORT, proofs)
        size = 0
        for place, (_, held) in enumerate(due):
            size += len(held.result)
            if place and size > messages.REPORT_RESULT_BYTES:
                box.reveals[:0] = [key for key, _ in due[place:]]
                return due[:place]
        return due

    def _due(
        self, box: Outbox, queue: list[UnitKey], state: HeldState, most: int, proofs: "_Proofs"
    ) -> list[tuple[UnitKey, Held]]:
        """Units taken from a queue of the box, which forgets those that are in another state or its own no more."""
        queue[:] = [key for key in dict.fromkeys(queue) if self._is(box, key, state)]
        keys = _take(queue, most, lambda key: proofs.covers(self._hands.all[key].lease))
        return [(key, self._hands.all[key]) for key in keys]

    def _is(self, box: Outbox, key: UnitKey, state: HeldState) -> bool:
        held = self._hands.get(key)
        return held is not None and held.state == state and held.keeper == box.keeper

    def _heartbeats(self, box: Outbox, proofs: "_Proofs", now_ns: int) -> list[messages.Heartbeat]:
        """Units in hand, each about every ten seconds; more often would cost more than the news it brings."""
        if now_ns < box.beat_at_ns - HEARTBEAT_NS // 2:
            return []
        box.beat_at_ns = now_ns + HEARTBEAT_NS
        held = [(key, self._hands.all[key]) for key in self._hands.of_box(box.job, box.keeper)]
        silent = ("committing", "revealing")  # the report says more than that about them
        named = [(key, one) for key, one in held if one.state not in silent and proofs.covers(one.lease)]
        if len(named) > messages.MAX_HEARTBEATS:
            start = box.named % len(named)
            box.named = start + messages.MAX_HEARTBEATS
            named = [*named[start:], *named[:start]][: messages.MAX_HEARTBEATS]
            box.beat_at_ns = now_ns + HEARTBEAT_NS // 2
        return [messages.Heartbeat(key[1], key[2], one.progress) for key, one in named]


class _Proofs:
    """The leases of others that go with one report."""

    def __init__(self, box: Outbox) -> None:
        self._box = box
        self._bytes = 0
        self.facts: dict[FactId, Fact] = {}

    def covers(self, lease: Fact | None) -> bool:
        """The keeper can see that a unit is ours: from its own lease, from an earlier report or from this one."""
        if lease is None or lease.author == self._box.keeper or lease.id in self._box.shown or lease.id in self.facts:
            return True
        if len(self.facts) >= MAX_PROOFS or self._bytes + len(lease.raw) > PROOF_BYTES:
            return False
        self.facts[lease.id] = lease
        self._bytes += len(lease.raw)
        return True


def _take(queue: list[T], most: int, fits: Callable[[T], bool] = lambda _: True) -> list[T]:
    """Up to ``most`` of a queue's items that fit, in order; the others stay."""
    taken: list[T] = []
    left: list[T] = []
    for item in queue:
        (taken if len(taken) < most and fits(item) else left).append(item)
    queue[:] = left
    return taken


def prune_shown(box: Outbox, leases: Iterable[Fact | None]) -> None:
    """Forget which leases a keeper has seen once none of our units rests on them."""
    if len(box.shown) > MAX_SHOWN:
        box.shown &= {lease.id for lease in leases if lease is not None}
