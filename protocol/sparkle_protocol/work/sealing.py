"""When a keeper vouches for a range of final units, and what it forgets once the range is sealed.

- It states a range's root (``Seals``) when all units of it are final here, all their results are here, and no lease
  or result asked for is open in it. If one more worker turns out to be accepted before the range is sealed, it states
  the new root as well.
- Once a root is certain (``Sealable.certified_root``) the record takes the place of the facts: made here if the root
  is the same, else fetched from a keeper that states it.
- A job of one range is left as it is: nothing is gained by sealing it. So is one that was called off.
"""

from collections.abc import Iterable
from contextlib import suppress

from sparkle_protocol.effects import DropFact, SealRange
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import SEAL_UNITS, Fact, SealItem, Seals, is_reported, lot_of
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.work.seal_votes import ROOTS_PER_KEEPER
from sparkle_protocol.work.sealed import SealedRange, range_count, range_units
from sparkle_protocol.work.trusting import Trusting


class Sealing(Trusting):
    """The part of a kept job that seals its ranges."""

    wanted: dict[int, bytes]  # ranges that are certain and not sealed here -> root
    freed_bytes: int  # of facts that were forgotten since this was last looked at

    def _init_sealing(self, records: Iterable[SealedRange]) -> None:
        """Take up records of an earlier life; what they make superfluous goes from the disk."""
        for record in records:
            try:
                dropped = self.state.seal(record)
            except RemoteProtocolError:
                continue  # no range of this job: it is fetched again once it is wanted
            self.records += [DropFact(self.state.id, lot_of(fact.payload), fact.id) for fact in dropped]
        self.wanted = {}
        self.freed_bytes = 0
        self._packed: dict[int, SealedRange] = {}  # records of complete ranges that are not sealed yet
        self._stated: dict[int, set[bytes]] = {}  # roots that we stated for them
        self._lacked: set[int] = set()  # ranges that wait for results
        self._in_use: set[int] = set()  # ranges that wait for workers which still have a part in them
        for fact in self.state.facts():
            if fact.author == self.me and type(fact.payload) is Seals:
                self._note_stated(fact.payload.items)
        self._to_seal.update(range(range_count(self.state.spec.units)))

    def _note_stated(self, items: list[SealItem]) -> None:
        for item in items:
            if self.state.sealed.range_at(item.index) is None:
                self._stated.setdefault(item.index, set()).add(item.root)

    @property
    def _vouches(self) -> bool:
        """Our word on this job's ranges counts, and there is something to gain."""
        view = self.state.view
        if view is None or self.state.spec.units <= SEAL_UNITS or self.outcome in ("cancelled", "failed"):
            return False
        return view.holds(self.me) if view.certifying else self.mine

    def seals_to_state(self) -> list[SealItem]:
        """Roots of ranges that became complete, or changed since we stated one; each is returned once."""
        if not self._to_seal or not self._vouches or (self.mine and self.outcome):
            return []
        looked_at, self._to_seal = self._to_seal, set()
        items = [item for index in sorted(looked_at) if (item := self._seal_of(index)) is not None]
        self._note_stated(items)
        return items

    def _seal_of(self, index: int) -> SealItem | None:
        units = range_units(index, self.state.spec.units)
        if self.state.sealed.range_at(index) is not None:
            return None
        if not self.state.final_units.complete(units.start, units.stop):
            return None
        books = [self.leases.books.get(unit) for unit in units]
        if not self.outcome and any(book is not None and (book.leases or book.asked) for book in books):
            self._in_use.add(index)
            return None
        if self.lacking and any(self.state.final(unit) in self.lacking for unit in units):
            self._lacked.add(index)
            return None
        record = self._pack(index)
        if record is None:
            return None
        self._packed[index] = record
        stated = self._stated.get(index, set())
        if record.root in stated or len(stated) >= ROOTS_PER_KEEPER:
            return None
        return SealItem(index, record.root)

    def _pack(self, index: int) -> SealedRange | None:
        """The record of a range that is final here, unless it has none (yet): its facts are kept then."""
        with suppress(LocalProtocolError):
            return self.state.pack(index)
        return None

    def look_for_seals(self) -> None:
        """A result that was lacking has come."""
        self._to_seal |= self._lacked
        self._lacked.clear()

    def _nobody_has_a_part(self) -> None:
        """The job is over, so that nothing more is waited for."""
        self._to_seal |= self._in_use
        self._in_use.clear()

    def seal_certain(self, now_ns: int) -> None:
        """Seal the ranges whose root became certain, or want their records from others."""
        for index in self.state.take_fresh_seals():
            certain = self.state.certified_root(index)
            if certain is None:
                continue
            own = self._packed.get(index)
            if own is not None and own.root == certain[0] and self.state.may_seal(own, certain[1]):
                self.seal(own, now_ns)
            else:
                self.wanted[index] = certain[0]

    def take_record(self, raw: bytes, now_ns: int) -> bool:
        """Seal a range by a record of another keeper; False when it is not the one wanted.

        Raises:
            RemoteProtocolError: it is malformed.
        """
        record = SealedRange.decode(raw)
        certain = self.state.certified_root(record.index)
        if self.wanted.get(record.index) is None or certain is None or certain[0] != record.root:
            return False
        if self.mine and self._contradicts(record):
            del self.wanted[record.index]
            return False
        if not self.state.may_seal(record, certain[1]):
            return False
        self.seal(record, now_ns)
        return True

    def _contradicts(self, record: SealedRange) -> bool:
        """Some unit of the range is final here with another result: what our user was told stands."""
        units = range(record.first, record.first + record.count)
        return any(self.state.final(unit) not in (None, record.result_hash(unit)) for unit in units)

    def record_of(self, index: int) -> SealedRange | None:
        """The record of a range that we sealed or vouched for."""
        return self.state.sealed.range_at(index) or self._packed.get(index)

    def seal(self, record: SealedRange, now_ns: int) -> None:
        """From now on there is nothing but the record of these units."""
        dropped = self.state.seal(record)
        drop = tuple((lot_of(fact.payload), fact.id) for fact in dropped)
        raw = record.encode()
        self.records.append(SealRange(self.state.id, record.index, raw, drop))
        self.freed_bytes += sum(len(fact.raw) for fact in dropped) - len(raw)
        self._forget_verdicts(dropped)
        for left in (self.wanted, self._packed, self._stated):
            left.pop(record.index, None)
        for waiting in (self._lacked, self._in_use, self._to_seal):
            waiting.discard(record.index)
        units = range(record.first, record.first + record.count)
        self._end_all(units)
        self.take_finals((), now_ns)
        for name in set(record.result_hashes()).difference(self.lacking, self._in_votes()):
            self._results.pop(name, None)

    def seal_all(self, now_ns: int) -> None:
        """The job is done and over: keep the records of all its ranges and nothing finer."""
        for index in range(range_count(self.state.spec.units)):
            record = self._packed.get(index) or self._pack(index)
            if record is not None and self.state.sealed.range_at(index) is None:
                self.seal(record, now_ns)

    def _forget_verdicts(self, dropped: list[Fact]) -> None:
        """These facts are gone."""

    def _end_all(self, units: range) -> None:
        """Nobody need do anything about these units any more."""
        for unit in units:
            book = self.leases.books.get(unit)
            if book is not None:
                for worker in tuple(book.leases):
                    self.leases.release(unit, worker, unfinished=False)
                    self.news.of(worker).drop[unit] = self.state.epoch(unit)
                for worker in (*book.asked, *book.withheld):
                    if self.leases.shown(unit, worker):
                        self._conduct.of(worker).withheld -= 1
                self.leases.forget(unit)
            for left in (self.dead, self._supports, self._deciding, self._disputed):
                left.pop(unit, None)
            self._dirty.discard(unit)
            if self.checks is not None:
                self.checks.forget(unit)
        for worker in list(self._unsettled):
            for unit in [one for one in self._unsettled[worker] if one in units]:
                self._tell_how_it_ended(unit, self.state.epoch(unit), worker)
                self._forget_unsettled(unit, worker)

    def _tell_how_it_ended(self, unit: int, epoch: int, worker: PeerId) -> None:
        """Tell a worker that holds a sealed unit whether its result was accepted."""
        end, news = self.state.sealed.get(unit), self.news.of(worker)
        if end is not None and end.epoch == epoch and worker in end.accepted:
            news.settled[unit] = (epoch, True)
        else:
            news.drop[unit] = epoch

    def _too_late(self, worker: PeerId, facts: list[Fact]) -> None:
        """Tell a worker what became of the sealed units that it reports on."""
        for fact in facts if len(self.state.sealed) else ():
            payload = fact.payload
            if is_reported(payload):
                for item in payload.items:
                    if item.unit in self.state.sealed:
                        self._tell_how_it_ended(item.unit, item.epoch, worker)

    def _take_stock(self, results: Iterable[ResultHash]) -> None:
        """These results are on disk: remember those of open units, and see which of sealed ones are missing."""
        stored, needed = set(results), self._in_votes()
        gone: set[ResultHash] = set()
        for record in self.state.sealed.ranges():
            gone.update(record.result_hashes())
        self.lacking.update(dict.fromkeys(sorted(gone - stored)))
        for name in sorted(stored):
            if name in needed or name not in gone:
                self.got_result(name)

    def _in_votes(self) -> set[ResultHash]:
        """Results that open units may come to have."""
        units = (unit for unit in self.state.touched_units() if unit not in self.state.final_units)
        return {name for unit in units for name in self.state.votes(unit).values()}

    def _restore_sealed(self) -> None:
        """Count what sealed units tell of their workers."""
        for worker, count in self.state.sealed.accepted_by.items():
            self.accepted_by[worker] += count
            self.replicas += count
            conduct = self._conduct.of(worker)
            conduct.accepted += count
            conduct.commits += count
