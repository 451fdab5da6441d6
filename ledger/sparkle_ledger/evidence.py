"""What a job's signed facts prove about who is to be paid.

Rules
-----
- An execution is (unit, epoch, worker key). It is *accepted* when verdicts that name the worker, all for one result,
  have the support of the threshold of a keeper set of the epoch's view, or of the submitter where that result is
  certified; or when a sealed record names it whose root a threshold of one view states (under 4 keepers: the
  submitter).
- What was accepted stays accepted, whatever becomes known later: a reset, a later view, a second keeper set that the
  submitter signed for one view, a second result. All of these took signatures of the submitter, or of a threshold of
  the keepers that it chose. (``JobState`` asks what a unit's result is; here the question is who worked.)
- Of a unit the first ``max_replicas`` executions are *payable*, by epoch, then key: the spec agrees to so many.
  Those by the submitter's own key are not among them: it neither earns nor pays for them.
- An epoch after a reset counts if the submitter stated that reset.
- The job is *over* once every unit has a certified result, or the submitter cancelled it.

Commits and reveals are not needed: whoever is named by those that decide was seen to reveal. A worker that one keeper
alone names is not paid, though it may be credited on the job's board.

All of this is a function of the set of facts, and grows with it. Only counting facts are kept (``merge``), so that a
stranger's noise costs nothing.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from sparkle_ledger.entries import AccountId, account_of
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import (
    NO_RANGE,
    SEAL_UNITS,
    VIEWS_PER_GENERATION,
    Cancel,
    Endorsements,
    Fact,
    JobSpec,
    KeeperSet,
    Reset,
    Seals,
    Verdicts,
    resets_of,
    view_of,
)
from sparkle_protocol.ids import FactId, JobId, PeerId, key_from_peer_id
from sparkle_protocol.work.sealed import SealedRange, range_count, range_units
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.views import View

MAX_RECORD_FACTS = 1 << 16  # of one job; a million units take 1024 seals, or verdicts and as many endorsements
MAX_RECORD_BYTES = 256 << 20  # of these: verdicts on a million units take half of it
MAX_SEALED = 4 * 1024  # records: ``ROOTS_PER_KEEPER`` of each range
_TABLES = 8  # ranges whose executions are kept unpacked


class Execution(NamedTuple):
    """One accepted execution."""

    unit: int
    epoch: int
    worker: bytes


class _Range:
    """What is known about the units of one range: the facts, and what follows from them."""

    __slots__ = ("certified", "executions", "final", "roots", "table", "verdicts")

    def __init__(self) -> None:
        self.verdicts: dict[FactId, Fact] = {}
        self.roots: dict[bytes, SealedRange] = {}  # certified ones
        self.executions: int | None = None  # payable ones; None: to be worked out
        self.final = 0  # units with a certified result
        self.certified: frozenset[FactId] = frozenset()  # verdict facts that help to certify something
        self.table: dict[int, frozenset[tuple[int, bytes]]] | None = None


class JobRecord:
    """Evidence about one job. ``add`` facts that ``FactCodec`` opened."""

    __slots__ = (
        "_bytes", "_cancelled", "_endorsers", "_facts", "_fresh", "_ranges", "_resets", "_roots", "_sets", "_shape",
        "_unpacked", "_views", "_views_open", "account", "job", "network", "spec", "spec_fact", "submitter_key",
    )  # fmt: skip

    def __init__(self, spec_fact: Fact, network: str) -> None:
        if type(spec_fact.payload) is not JobSpec:
            raise LocalProtocolError("a job's record starts from its spec")
        self.network = network
        self.spec_fact = spec_fact
        self.spec: JobSpec = spec_fact.payload
        self.job: JobId = spec_fact.job
        self.submitter_key = key_from_peer_id(spec_fact.author)
        self.account: AccountId = account_of(network, self.submitter_key)  # the one that its key opens
        self._shape = JobState(spec_fact, network)  # knows which facts can be of this job; it is given none
        self._facts: dict[FactId, Fact] = {spec_fact.id: spec_fact}
        self._sets: dict[FactId, Fact] = {}
        self._views: dict[int, list[View]] = {}  # all sets that count, of each number; by ``_known_views`` only
        self._views_open = False  # they have to be worked out anew
        self._endorsers: dict[tuple[int, bytes], set[PeerId]] = {}  # (range, fact) -> by whom
        self._roots: dict[tuple[int, bytes], set[PeerId]] = {}  # (range, root) -> stated by whom
        self._resets: set[tuple[int, int]] = set()
        self._ranges: dict[int, _Range] = {}
        self._unpacked: dict[int, None] = {}  # ranges with a table, the oldest first
        self._fresh: set[int] = set()  # ranges about which something new counts since ``take_fresh``
        self._cancelled = False
        self._bytes = len(spec_fact.raw)

    # --- taking in ----------------------------------------------------------------------------------------

    @classmethod
    def of(cls, state: JobState) -> "JobRecord":
        """What a job's state proves."""
        record = cls(state.spec_fact, state.network)
        record.add_all(state.facts())
        for sealed in state.sealed.ranges():
            record.add_sealed(sealed)
        return record

    def add_all(self, facts: Iterable[Fact]) -> int:
        """Add many, leaving out those that cannot be of this job; returns how many were new."""
        count = 0
        for fact in facts:
            try:
                count += self.add(fact)
            except RemoteProtocolError:
                continue
        return count

    def add(self, fact: Fact) -> bool:
        """Add a verified fact; False when it is known or proves nothing about pay.

        Raises:
            RemoteProtocolError: it is of another job or not well formed, its author may not state it, or the record
                is full.
        """
        if fact.id in self._facts:
            return False
        payload = fact.payload
        if not isinstance(payload, KeeperSet | Verdicts | Endorsements | Reset | Seals | Cancel):
            return False
        self._shape.check(fact)
        self._bytes += len(fact.raw)
        if len(self._facts) >= MAX_RECORD_FACTS or self._bytes > MAX_RECORD_BYTES:
            self._bytes -= len(fact.raw)
            raise RemoteProtocolError(
                f"a job's record has at most {MAX_RECORD_FACTS} facts, {MAX_RECORD_BYTES} bytes"
            )
        self._facts[fact.id] = fact
        if isinstance(payload, KeeperSet):
            self._sets[fact.id] = fact
            self._views_open = True
        elif isinstance(payload, Verdicts):
            index = payload.items[0].unit // SEAL_UNITS
            self._range(index).verdicts[fact.id] = fact
            self._changed(index)
        elif isinstance(payload, Endorsements):
            self._endorse(fact.author, payload)
        elif isinstance(payload, Reset):
            self._resets.add((payload.unit, payload.resets))
            self._changed(payload.unit // SEAL_UNITS)
        elif isinstance(payload, Seals):
            for item in payload.items:
                self._roots.setdefault((item.index, item.root), set()).add(fact.author)
        else:
            self._cancelled = True
        return True

    def add_sealed(self, sealed: SealedRange) -> bool:
        """Add the record of a range; False when it is known, or when too few that are known here state its root.

        Raises:
            RemoteProtocolError: the job has no such range, or it has too many records.
        """
        if len(range_units(sealed.index, self.spec.units)) != sealed.count:
            raise RemoteProtocolError(f"{sealed.count} units from {sealed.first} on are no range of this job")
        found = self._range(sealed.index)
        if sealed.root in found.roots or not self._certifies_root(sealed.index, sealed.root):
            return False
        if sum(len(one.roots) for one in self._ranges.values()) >= MAX_SEALED:
            raise RemoteProtocolError(f"a job has no more than {MAX_SEALED} sealed records")
        found.roots[sealed.root] = sealed
        self._changed(sealed.index)
        return True

    def merge(self, other: "JobRecord") -> bool:
        """Take over what counts in another record of the job; False when that was nothing new."""
        if other.job != self.job:
            raise LocalProtocolError("records of two jobs do not merge")
        self._known_views()
        before, fresh = len(self._facts), len(self._fresh)
        self.add_all(other.counting())
        taken = [self.add_sealed(sealed) for sealed in other.sealed()]
        self._known_views()
        return len(self._facts) > before or any(taken) or len(self._fresh) > fresh

    def take_fresh(self) -> set[int]:
        """Ranges about which something that counts was added since the last call."""
        self._known_views()
        fresh, self._fresh = self._fresh, set()
        return fresh

    # --- what is kept and shown ---------------------------------------------------------------------------

    def counting(self, ranges: Collection[int] | None = None) -> Iterator[Fact]:
        """The facts on which anything rests: the spec, then in such an order that each can be judged at once.

        ``ranges``: of verdicts only those about these.
        """
        yield self.spec_fact
        indices = self._ranges.keys() if ranges is None else self._ranges.keys() & set(ranges)
        views = [view.fact.id for one in self._known_views().values() for view in one]
        certified = {fact_id for index in indices for fact_id in self._certified_facts(index)}
        named = {*views, *certified}
        rest: list[Fact] = []
        for fact in self._facts.values():
            payload = fact.payload
            if isinstance(payload, Verdicts):
                if fact.id in certified:
                    rest.append(fact)
            elif isinstance(payload, Endorsements):
                if any(FactId(one) in named for one in payload.facts):
                    yield fact
            elif isinstance(payload, KeeperSet):
                if fact.id in views:
                    yield fact
            elif isinstance(payload, Seals):
                if any(item.root in self._range(item.index).roots for item in payload.items):
                    yield fact
            elif not isinstance(payload, JobSpec):
                yield fact
        yield from rest

    def ranges(self) -> list[int]:
        """Ranges of units of which anything is known."""
        return sorted(self._ranges)

    def sealed(self, ranges: Collection[int] | None = None) -> Iterator[SealedRange]:
        """The certified records, of all ranges or of these."""
        for index, found in list(self._ranges.items()):
            if ranges is None or index in ranges:
                yield from found.roots.values()

    # --- what it proves -----------------------------------------------------------------------------------

    @property
    def price_micro(self) -> int:
        """Of one execution."""
        return self.spec.price_micro

    @property
    def units(self) -> int:
        """How many units the job has."""
        return self.spec.units

    @property
    def cover_micro(self) -> int:
        """The most that the job can come to cost: what one ``Hold`` has to cover before it pays for anything."""
        return self.spec.price_micro * self.spec.units * self.spec.policy.max_replicas

    @property
    def cancelled(self) -> bool:
        """The submitter stated once that it wants no further work."""
        return self._cancelled

    @property
    def complete(self) -> bool:
        """Every unit has a certified result."""
        if len(self._ranges) < range_count(self.spec.units):
            return False
        self._count()
        return sum(one.final for one in self._ranges.values()) == self.spec.units

    @property
    def over(self) -> bool:
        """No further work is wanted."""
        return self._cancelled or self.complete

    @property
    def executions(self) -> int:
        """How many executions are payable."""
        self._count()
        return sum(one.executions or 0 for one in self._ranges.values())

    @property
    def owed_micro(self) -> int:
        """The price of all payable executions."""
        return self.spec.price_micro * self.executions

    def accepted(self, unit: int, epoch: int) -> frozenset[bytes]:
        """Keys of the workers whose execution of a unit in an epoch is payable."""
        return frozenset(key for known, key in self.payable(unit) if known == epoch)

    def payable(self, unit: int) -> frozenset[tuple[int, bytes]]:
        """Epoch and worker's key of the payable executions of a unit."""
        index = unit // SEAL_UNITS
        return self._table(index).get(unit, frozenset()) if index in self._ranges else frozenset()

    def all_payable(self) -> Iterator[Execution]:
        """All payable executions, ascending."""
        for index in sorted(self._ranges):
            table = self._table(index)
            for unit in sorted(table):
                yield from (Execution(unit, epoch, key) for epoch, key in sorted(table[unit]))

    # --- judging ------------------------------------------------------------------------------------------

    def _range(self, index: int) -> _Range:
        found = self._ranges.get(index)
        if found is None:
            found = self._ranges[index] = _Range()
        return found

    def _changed(self, index: int) -> None:
        found = self._range(index)
        found.executions = found.table = None
        self._unpacked.pop(index, None)
        self._fresh.add(index)

    def _endorse(self, by: PeerId, payload: Endorsements) -> None:
        sets = False
        for named in payload.facts:
            self._endorsers.setdefault((payload.range, named), set()).add(by)
            sets = sets or named in self._sets
        if payload.range != NO_RANGE:
            self._changed(payload.range)
        elif sets:
            self._views_open = True

    def _known_views(self) -> dict[int, list[View]]:
        """The sets that count. Worked out when they are asked for, once for all facts that were added before."""
        if self._views_open:
            self._views_open = False
            self._refresh_views()
        return self._views

    def _refresh_views(self) -> None:
        """Work out which keeper sets count: those of the submitter's own word, and those agreed in one that does."""
        counts: dict[int, list[View]] = {}
        ranked = sorted(
            (
                (fact.payload.view, fact.id, fact)
                for fact in self._sets.values()
                if isinstance(fact.payload, KeeperSet)
            ),
            key=lambda one: one[:2],
        )
        for number, _, fact in ranked:
            if isinstance(fact.payload, KeeperSet) and self._set_counts(fact, fact.payload, counts):
                counts.setdefault(number, []).append(View(fact, fact.payload))
        if {view.fact.id for one in counts.values() for view in one} != {
            view.fact.id for one in self._views.values() for view in one
        }:
            self._views = counts
            for index in self._ranges:
                self._changed(index)

    def _set_counts(self, fact: Fact, keepers: KeeperSet, counts: dict[int, list[View]]) -> bool:
        if keepers.view % VIEWS_PER_GENERATION == 0:
            return fact.author == self.spec_fact.author
        words = self._endorsers.get((NO_RANGE, fact.id), set())
        return any(
            before.fact.id == keepers.previous
            and before.certifying
            and (fact.author == self.spec_fact.author or before.holds(fact.author))
            and before.suffices(words, self.spec_fact.author)
            for before in counts.get(keepers.view - 1, ())
        )

    def _certifies_root(self, index: int, root: bytes) -> bool:
        by = self._roots.get((index, root), set())
        return any(view.suffices(by, self.spec_fact.author) for one in self._known_views().values() for view in one)

    def _supporters(self, index: int, fact: Fact) -> set[PeerId]:
        return self._endorsers.get((index, fact.id), set()) | {fact.author}

    def _certified_facts(self, index: int) -> frozenset[FactId]:
        """The verdict facts of a range that help to certify something in it."""
        self._known_views()
        if self._ranges[index].executions is None:
            self._table(index)
        return self._ranges[index].certified

    def _words(self, index: int) -> dict[tuple[int, int, bytes], list[tuple[FactId, list[bytes], set[PeerId]]]]:
        """What is said of each (unit, epoch, result): the fact, whom it names, who stands by it."""
        words: dict[tuple[int, int, bytes], list[tuple[FactId, list[bytes], set[PeerId]]]] = {}
        for fact in self._ranges[index].verdicts.values():
            by = self._supporters(index, fact)
            for item in fact.payload.items if isinstance(fact.payload, Verdicts) else ():
                if self._may_judge(fact.author, item.epoch):
                    words.setdefault((item.unit, item.epoch, item.result_hash), []).append(
                        (fact.id, item.accepted, by)
                    )
        return words

    def _may_judge(self, peer: PeerId, epoch: int) -> bool:
        return peer == self.spec_fact.author or any(
            view.holds(peer) for view in self._known_views().get(view_of(epoch), ())
        )

    def _suffices(self, unit: int, epoch: int, by: set[PeerId]) -> View | None:
        """The view in which the word of these peers decides on a unit in an epoch."""
        resets = resets_of(epoch)
        if resets and (unit, resets) not in self._resets:
            return None
        views = self._known_views().get(view_of(epoch), ())
        return next((view for view in views if view.suffices(by, self.spec_fact.author)), None)

    def _table(self, index: int) -> dict[int, frozenset[tuple[int, bytes]]]:
        """The payable executions of a range by unit; the last few are kept."""
        self._known_views()
        found = self._ranges[index]
        if found.table is None:
            found.table = self._judge(index)
            self._unpacked[index] = None
            while len(self._unpacked) > _TABLES:
                oldest = next(iter(self._unpacked))
                del self._unpacked[oldest]
                self._ranges[oldest].table = None
        return found.table

    def _count(self) -> None:
        self._known_views()
        for index, found in self._ranges.items():
            if found.executions is None:
                self._table(index)

    def _judge(self, index: int) -> dict[int, frozenset[tuple[int, bytes]]]:
        found = self._ranges[index]
        accepted: dict[int, set[tuple[int, bytes]]] = {}
        certified: set[FactId] = set()
        for (unit, epoch, _), named in self._words(index).items():
            if self._suffices(unit, epoch, set().union(*(by for _, _, by in named))) is None:
                continue
            certified.update(fact_id for fact_id, _, _ in named)
            final = accepted.setdefault(unit, set())
            backers: dict[bytes, set[PeerId]] = {}
            for _, keys, by in named:
                for key in keys:
                    backers.setdefault(key, set()).update(by)
            for key, by in backers.items():
                if self.spec_fact.author in by or self._suffices(unit, epoch, by) is not None:
                    final.add((epoch, key))
        for sealed in found.roots.values():
            for unit, end in enumerate(sealed, sealed.first):
                accepted.setdefault(unit, set()).update((end.epoch, key_from_peer_id(one)) for one in end.accepted)
        most, own = self.spec.policy.max_replicas, self.submitter_key
        table = {
            unit: frozenset(sorted(one for one in given if one[1] != own)[:most]) for unit, given in accepted.items()
        }
        found.final = len(table)
        found.executions = sum(map(len, table.values()))
        found.certified = frozenset(certified)
        return table
