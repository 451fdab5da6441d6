"""The part of a job's state that deals with sealed ranges: which roots are certain, and what a record replaces."""

from abc import ABC, abstractmethod

from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.facts import NO_RANGE, Endorsements, Fact, JobSpec, Seals, units_of, view_of
from sparkle_protocol.ids import FactId, PeerId, ResultHash, key_from_peer_id, peer_id_from_key
from sparkle_protocol.work.fact_set import FactSet
from sparkle_protocol.work.seal_votes import MAX_VOTERS, SealVotes
from sparkle_protocol.work.sealed import MAX_ACCEPTED, SealedJob, SealedRange, SealedUnit, range_units
from sparkle_protocol.work.unit_facts import NOTHING, UnitFacts
from sparkle_protocol.work.unit_set import UnitSet
from sparkle_protocol.work.views import View, Views


class Sealable(ABC):
    """What ``JobState`` says and does about sealed ranges."""

    __slots__ = ("_fresh_seals", "_seal_votes")

    spec: JobSpec
    submitter: PeerId
    checked: bool
    views: Views
    sealed: SealedJob
    final_units: UnitSet
    _facts: FactSet
    _units: dict[int, UnitFacts]
    _endorsers: dict[int, dict[FactId, set[PeerId]]]
    _disputed: set[tuple[int, int]]
    _fresh_finals: list[int]
    _fresh_seals: set[int]
    _seal_votes: SealVotes

    @abstractmethod
    def epoch(self, unit: int) -> int:
        """The epoch that counts for a unit."""

    @abstractmethod
    def final(self, unit: int) -> ResultHash | None:
        """The final result of a unit."""

    @abstractmethod
    def votes_in(self, unit: int, epoch: int) -> dict[PeerId, ResultHash]:
        """The votes of an epoch."""

    @abstractmethod
    def accepted_workers(self, unit: int) -> frozenset[PeerId]:
        """Everybody whose result is the final one."""

    def _are_sealed(self, ranges: frozenset[int]) -> bool:
        return bool(ranges) and all(self.sealed.range_at(index) is not None for index in ranges)

    def take_fresh_seals(self) -> list[int]:
        """Ranges not sealed yet about which keepers stated something since the last call."""
        fresh, self._fresh_seals = self._fresh_seals, set()
        return sorted(index for index in fresh if self.sealed.range_at(index) is None)

    def certified_root(self, index: int) -> tuple[bytes, View] | None:
        """The root of a range that the keepers of one view vouch for, of the newest such view."""
        for view in self.views.counting():
            keys = view.keys if view.certifying else [key_from_peer_id(self.submitter)]
            root = self._seal_votes.certified(index, keys, view.threshold if view.certifying else 1)
            if root is not None:
                return root, view
        return None

    def stating(self, index: int, root: bytes) -> list[PeerId]:
        """Keepers that say they hold the record of a range with that root."""
        return [peer_id_from_key(key) for key in self._seal_votes.keepers(index, root)]

    def _seal_voters(self) -> set[PeerId]:
        """Whose word on roots is heard: the submitter and the newest keepers, as many as are counted."""
        found = {self.submitter}
        for view in self.views.counting():
            if len(found | set(view.keepers)) > MAX_VOTERS:
                break
            found |= set(view.keepers)
        return found

    def _hear_seals_again(self) -> None:
        """Other keepers count than before."""
        voters = self._seal_voters()
        self._seal_votes = SealVotes(self.spec.units)
        for fact in self._facts.about(NO_RANGE):
            if type(fact.payload) is Seals:
                if fact.author in voters:
                    self._seal_votes.add(fact.author, fact.payload)
                self._fresh_seals.update(item.index for item in fact.payload.items)

    def pack(self, index: int) -> SealedRange:
        """The record of a range, all of whose units are final here.

        Of more workers than a unit can name, the first are named.

        Raises:
            LocalProtocolError: it has none: a unit is not final, nobody is known to have given its result, or more
                workers had a part in the range than a record can name.
        """
        units = range_units(index, self.spec.units)
        return SealedRange.pack(units.start, [self._end(unit) for unit in units])

    def _end(self, unit: int) -> SealedUnit:
        final = self.final(unit)
        if final is None:
            raise LocalProtocolError(f"unit {unit} is not final")
        return SealedUnit(self.epoch(unit), final, tuple(sorted(self.accepted_workers(unit))[:MAX_ACCEPTED]))

    def may_seal(self, sealed: SealedRange, view: View) -> bool:
        """A certain record may be taken. The submitter's word alone counts only for what it alone accepted."""
        if view.certifying:
            return True
        units = range(sealed.first, sealed.first + sealed.count)
        if any(view_of(sealed.epoch(unit)) > view.number for unit in units):
            return False
        ours = [unit for unit in units if unit in self.final_units]
        return all((self.epoch(u), self.final(u)) == (sealed.epoch(u), sealed.result_hash(u)) for u in ours)

    def seal(self, sealed: SealedRange) -> list[Fact]:
        """Let a record take the place of all facts about its range; returns those that may be forgotten.

        Raises:
            RemoteProtocolError: the job has no such range.
        """
        if not self.sealed.add(sealed):
            return []
        units = range(sealed.first, sealed.first + sealed.count)
        proofs: set[int] = set()
        for unit, end in zip(units, sealed, strict=True):
            proves = self._proves_something(unit, end)
            known = self._units.pop(unit, None)
            if known is None or known.final is None or known.final[1] != end.result_hash:
                self._fresh_finals.append(unit)
            if known is None:
                continue
            final = (end.epoch, end.result_hash)
            if proves:
                proofs.add(unit)
                self._units[unit] = known
                known.final, known.votes, known.binding = final, None, None
            elif known.resets:
                self._units[unit] = UnitFacts(resets=known.resets, reasons=known.reasons, final=final)
        self.final_units.add_all(units.start, units.stop)
        self._seal_votes.forget(sealed.index)
        return self._take_out(sealed.index, proofs)

    def _proves_something(self, unit: int, end: SealedUnit) -> bool:
        """What was stated about a unit shows that somebody gave a wrong result or said two things."""
        known = self._units.get(unit, NOTHING)
        return (
            any(len(commits) > 1 for commits in known.commits.values())
            or (not self.checked and self._disagrees(unit, end))
            or any((unit, epoch) in self._disputed for epoch in known.verdicts)
        )

    def _disagrees(self, unit: int, end: SealedUnit) -> bool:
        return any(given != end.result_hash for given in self.votes_in(unit, end.epoch).values())

    def _take_out(self, index: int, proofs: set[int]) -> list[Fact]:
        """Remove what speaks of nothing but sealed units; what speaks of ``proofs`` is kept aside."""
        gone: list[Fact] = []
        facts = [f for f in self._facts.about(index) if self._are_sealed(f.ranges)]
        for fact in sorted(facts, key=lambda one: type(one.payload) is Endorsements):  # after what they name
            if type(fact.payload) is Endorsements:
                aside = any(self._facts.is_aside(FactId(named)) for named in fact.payload.facts)
            else:  # of several ranges: those of earlier ones that prove something still have their facts
                aside = any(unit in proofs or unit in self._units for unit in units_of(fact.payload))
            self._facts.remove(fact, keep_aside=aside)
            if not aside:
                gone.append(fact)
        endorsers = self._endorsers.pop(index, {})
        kept = {named: by for named, by in endorsers.items() if self._facts.is_aside(named)}
        if kept:
            self._endorsers[index] = kept
        return gone
