"""A job's state as a pure function of a grow-only set of signed facts.

Rules
-----
- Facts are only ever added. Two copies merge by union, in any order, any number of times, and then say the same.
- A fact counts by who signed it: resets and cancels only from the submitter, leases and verdicts from it or from a
  keeper of the view that their epoch belongs to, commits, reveals and failures for their own author.
- A worker's single commit for a unit and epoch binds. Two different ones are proof of cheating and void its vote.
- A vote is a reveal that opens the author's binding commit. Only it counts for a quorum.
- A unit's epoch is made of the newest view and of how often the submitter reset the unit; what was stated in other
  epochs does not count for it. Failures alone count in every view, until the unit is reset.
- That the job failed counts until a unit starts over that had not when it was stated; a cancellation counts for ever.
- A keeper *supports* a result by a verdict of its own or by endorsing another's. A unit is final once the threshold
  of its epoch's view supports one result; with fewer than four keepers, once the submitter does. What was made final
  in an older view stays final unless the unit was reset; of several such epochs the lowest counts, so that all copies
  agree. Should that one become known late and hold another result, the unit is told anew (``take_fresh_finals``); the
  job's submitter does not let it become known (``replaces_final``).
- A worker is rejected by its own commits and reveals only: two commits, or a vote for another result than the final
  one. It is credited with a final result when a verdict names it and its vote is known, or by the submitter's word,
  or that of the threshold.
- Once a range is sealed, its record says how its units ended; facts about them are no longer taken in. What proves
  that somebody broke a rule is kept aside (``fact_set.py``).
- Were there two final results in one epoch, that of the lower hash counts, so that all copies agree. Whoever supports
  two results of one epoch is ``two_faced``, which its signatures prove.

What time decides (leases that ran out) is not here: it is the keeper's own business (``lease.py``).
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import (
    NO_RANGE,
    SEAL_UNITS,
    AuditCalls,
    AuditSecret,
    Cancel,
    Commits,
    Endorsements,
    Fact,
    Failures,
    JobSpec,
    KeeperSet,
    Leases,
    Reported,
    Reset,
    Reveals,
    Seals,
    Standings,
    VerdictItem,
    Verdicts,
    commitment,
    epoch_of,
    is_checked,
    is_reported,
    kernel_key,
    resets_of,
    view_of,
)
from sparkle_protocol.ids import FactId, JobId, PeerId, ResultHash, key_from_peer_id, peer_id_from_key
from sparkle_protocol.trust.stated import StatedStandings, check_secret
from sparkle_protocol.work.disputable import Disputable
from sparkle_protocol.work.fact_set import FactSet
from sparkle_protocol.work.seal_votes import SealVotes
from sparkle_protocol.work.sealed import SealedJob, range_units
from sparkle_protocol.work.tally import Tally
from sparkle_protocol.work.unit_facts import NOTHING, Failed, ItemT, UnitFacts, range_of_verdicts, with_one
from sparkle_protocol.work.unit_set import UnitSet
from sparkle_protocol.work.views import View, Views, check_keeper_set


class JobState(Disputable):
    """Everything known about one job. Build it from its spec, then ``add`` facts."""

    __slots__ = (
        "_base_epoch", "_cancels", "_endorsers", "_facts", "_fresh_finals",
        "_units", "checked", "final_units", "id", "kernel", "network", "restarts",
        "sealed", "spec", "spec_fact", "standings", "submitter", "views",
    )  # fmt: skip

    def __init__(self, spec_fact: Fact, network: str) -> None:
        if type(spec_fact.payload) is not JobSpec:
            raise LocalProtocolError("a job's state starts from its spec")
        self.id: JobId = spec_fact.job
        self.spec: JobSpec = spec_fact.payload
        self.kernel = kernel_key(spec_fact.payload)
        self.submitter: PeerId = spec_fact.author
        self.checked = is_checked(spec_fact.payload)
        self.network = network
        self._facts = FactSet()
        self._facts.add(spec_fact)
        self.spec_fact = spec_fact
        self.views = Views(self.submitter)
        self._base_epoch = 0  # of the newest view
        self._endorsers: dict[int, dict[FactId, set[PeerId]]] = {}  # of verdicts on a range, or of keeper sets
        self._cancels: dict[FactId, Cancel] = {}
        self.standings = StatedStandings(self.spec.units)
        self._units: dict[int, UnitFacts] = {}
        self.final_units = UnitSet(self.spec.units)
        self._fresh_finals: list[int] = []
        self.sealed = SealedJob(self.spec.units)
        self._seal_votes = SealVotes(self.spec.units)
        self._fresh_seals: set[int] = set()  # ranges of which a root may have become certain
        self.restarts = 0  # sum of all units' resets
        self._init_disputes()

    # --- the set ------------------------------------------------------------------------------------------

    def add(self, fact: Fact) -> bool:
        """Add a verified fact; False when it was known already, or speaks of nothing but sealed units.

        Raises:
            RemoteProtocolError: it belongs to another job, names a unit that the job lacks, is not well formed, or
                its author may not state such a thing.
        """
        if fact.id in self._facts:
            return False
        self.check(fact)
        if self._are_sealed(fact.ranges):
            return False
        self._facts.add(fact)
        self._index(fact)
        return True

    @property
    def tally(self) -> Tally:
        """The sum over all facts but those that are kept aside."""
        return self._facts.tally

    def merge(self, facts: Iterable[Fact]) -> int:
        """Add many; returns how many were new."""
        return sum(self.add(fact) for fact in facts)

    def restore(self, facts: Iterable[Fact]) -> None:
        """Add stored facts, but those that may not be stated (any more)."""
        for fact in facts:
            with suppress(RemoteProtocolError):
                self.add(fact)

    def facts(self) -> Iterator[Fact]:
        """All facts, the spec first, but for those that are kept aside."""
        return iter(self._facts)

    def fact(self, fact_id: FactId) -> Fact | None:
        """A fact by its id."""
        return self._facts.get(fact_id)

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, fact_id: object) -> bool:
        return fact_id in self._facts

    def check(self, fact: Fact) -> None:
        """Return when the fact can be one of this job, else raise RemoteProtocolError."""
        payload = fact.payload
        if fact.job != self.id:
            raise RemoteProtocolError("a fact of another job")
        if fact.highest_unit >= self.spec.units:
            raise RemoteProtocolError(f"a fact names a unit beyond the job's {self.spec.units}")
        if type(payload) is Verdicts or type(payload) is AuditCalls:
            if len(fact.ranges) > 1:
                raise RemoteProtocolError(f"{type(payload).__name__} on several ranges of units in one fact")
        elif type(payload) is Reset or type(payload) is Cancel or type(payload) is Standings:
            if fact.author != self.submitter:
                raise RemoteProtocolError(f"only the submitter may state {type(payload).__name__}")
        elif type(payload) is AuditSecret:
            check_secret(payload, self.spec, by_submitter=fact.author == self.submitter)
        elif type(payload) is KeeperSet:
            check_keeper_set(payload)
        elif type(payload) is Seals and any(not range_units(i.index, self.spec.units) for i in payload.items):
            raise RemoteProtocolError("a seal of a range that the job does not have")

    def _index(self, fact: Fact) -> None:
        payload = fact.payload
        if type(payload) is Leases:
            for lease in self._open_items(payload.items):
                holder = (lease.epoch, peer_id_from_key(lease.worker))
                unit = self._touch(lease.unit)
                unit.leased[holder] = with_one(unit.leased.get(holder, ()), fact.author)
        elif is_reported(payload):
            self._index_work(fact.author, payload)
        elif type(payload) is Verdicts:
            self._index_verdicts(fact.id, payload)
        elif type(payload) is Endorsements:
            for named in payload.facts:
                self._endorse(fact.author, FactId(named), payload.range)
        elif type(payload) is AuditCalls:
            self.standings.called(fact.author, len(payload.items))
            for call in self._open_items(payload.items):
                unit = self._touch(call.unit)
                unit.calls = with_one(unit.calls, (call.epoch, fact.author))
        else:
            self._index_terms(fact)

    def _index_terms(self, fact: Fact) -> None:
        """What is said about the job itself."""
        payload = fact.payload
        if type(payload) is Reset:
            unit = self._touch(payload.unit)
            self.restarts += max(0, payload.resets - unit.resets)
            unit.resets = max(unit.resets, payload.resets)
            unit.reasons[payload.resets] = min(unit.reasons.get(payload.resets, payload.reason), payload.reason)
            unit.votes = None
            self._refresh_final(payload.unit, unit)
        elif type(payload) is KeeperSet:
            self.views.add(fact)
            self._refresh_views()
        elif type(payload) is Cancel:
            self._cancels[fact.id] = payload
        elif type(payload) is Standings:
            self.standings.add(fact.id, payload)
        elif type(payload) is AuditSecret:
            self.standings.secret = payload.secret
        elif type(payload) is Seals and fact.author in self._seal_voters():
            self._fresh_seals.update(self._seal_votes.add(fact.author, payload))

    def _index_work(self, author: PeerId, payload: Reported) -> None:
        if type(payload) is Commits:
            for commit in self._open_items(payload.items):
                unit = self._touch(commit.unit)
                unit.votes = unit.binding = None
                key = (commit.epoch, author)
                unit.commits[key] = with_one(unit.commits.get(key, ()), commit.commit)
        elif type(payload) is Reveals:
            for reveal in self._open_items(payload.items):
                unit = self._touch(reveal.unit)
                unit.votes = None
                key = (reveal.epoch, author)
                unit.openings[key] = with_one(unit.openings.get(key, ()), (reveal.result_hash, reveal.nonce))
        elif type(payload) is Failures:
            for failure in self._open_items(payload.items):
                known = self._touch(failure.unit).failures
                key = (failure.epoch, author)
                stated = (failure.code, failure.text)
                known[key] = min(known.get(key, stated), stated)

    def _index_verdicts(self, fact_id: FactId, payload: Verdicts) -> None:
        for place, verdict in enumerate(payload.items):
            unit = self._touch(verdict.unit)
            stated = unit.verdicts.setdefault(verdict.epoch, {})
            if any(other.result_hash != verdict.result_hash for other in stated.values()):
                self._disputed.add((verdict.unit, verdict.epoch))
                self._fresh_disputes.add((verdict.unit, verdict.epoch))
            stated[fact_id, place] = verdict
            self._refresh_final(verdict.unit, unit, verdict.epoch)

    def _open_items(self, items: list[ItemT]) -> Iterable[ItemT]:
        """Those about units that are not sealed."""
        return [item for item in items if item.unit not in self.sealed] if len(self.sealed) else items

    def _endorse(self, keeper: PeerId, named: FactId, index: int) -> None:
        self._endorsers.setdefault(index, {}).setdefault(named, set()).add(keeper)
        if named in self.views:
            self._refresh_views()
            return
        fact = self._facts.get(named)
        if fact is not None and type(fact.payload) is Verdicts and range_of_verdicts(fact) == index:
            for verdict in fact.payload.items:
                self._refresh_final(verdict.unit, self._units[verdict.unit], verdict.epoch)
            self._fresh_disputes |= self._disputed & {(item.unit, item.epoch) for item in fact.payload.items}

    def _refresh_views(self) -> None:
        if self.views.refresh(self._endorsers.get(NO_RANGE, {})):
            self._hear_seals_again()
            self._base_epoch = epoch_of(self.views.newest.number if self.views.newest is not None else 0, 0)
            for index, unit in self._units.items():
                if unit.verdicts:
                    self._refresh_final(index, unit)

    def _touch(self, unit: int) -> UnitFacts:
        found = self._units.get(unit)
        if found is None:
            found = self._units[unit] = UnitFacts()
            sealed = self.sealed.get(unit)
            found.final = (sealed.epoch, sealed.result_hash) if sealed is not None else None
        return found

    # --- what is final ------------------------------------------------------------------------------------

    def supporters(self, fact_id: FactId) -> set[PeerId]:
        """Who stands by a verdict fact: its author and those who endorsed it."""
        fact = self._facts.get(fact_id)
        if fact is None:
            return set()
        return self._endorsers.get(range_of_verdicts(fact), {}).get(fact_id, set()) | {fact.author}

    def endorsers(self, fact_id: FactId) -> set[PeerId]:
        """Who endorsed a keeper set."""
        return self._endorsers.get(NO_RANGE, {}).get(fact_id, set())

    def support(self, unit: int, epoch: int) -> dict[ResultHash, set[PeerId]]:
        """Who supports which result of a unit in an epoch, whether or not they may."""
        found: dict[ResultHash, set[PeerId]] = {}
        for (fact_id, _), verdict in self._units.get(unit, NOTHING).verdicts.get(epoch, {}).items():
            found.setdefault(ResultHash(verdict.result_hash), set()).update(self.supporters(fact_id))
        return found

    def _refresh_final(self, index: int, unit: UnitFacts, said: int | None = None) -> None:
        """See what is final now that more was said in one epoch, or (None) that other epochs count."""
        before = unit.final
        if said is not None and before is not None:
            alone = said == before[0] and (index, said) not in self._disputed  # no other result was stated in it
            if alone or said > before[0]:
                return
        if index in self.sealed:
            return
        final = None
        for epoch in sorted(unit.verdicts) if said is None else (said,):
            certified = self._certified(index, unit, epoch)
            if certified is not None:
                final = (epoch, certified)
                break
        if final is None and said is not None:
            return
        if final != before:
            if before is None or (final is not None and final[1] != before[1]):
                self._fresh_finals.append(index)
            unit.final, unit.votes = final, None
        if final is not None:
            self.final_units.add(index)
        else:
            self.final_units.discard(index)

    def _certified(self, index: int, unit: UnitFacts, epoch: int) -> ResultHash | None:
        """The result of an epoch that enough keepers of its view stand by."""
        view = self.views.get(view_of(epoch))
        if view is None or resets_of(epoch) != unit.resets:
            return None
        support = self.support(index, epoch).items()
        return min((result for result, peers in support if view.suffices(peers, self.submitter)), default=None)

    def replaces_final(self, fact: Fact) -> bool:
        """With this fact, some unit would be final with another result than it is."""
        if type(fact.payload) is Verdicts:
            words = self._endorsers.get(range_of_verdicts(fact), {}).get(fact.id, set())
            return any(self._would_replace(item, words | {fact.author}) for item in fact.payload.items)
        if type(fact.payload) is not Endorsements:
            return False
        named = (self._facts.get(FactId(name)) for name in fact.payload.facts)
        return any(
            self._would_replace(item, {fact.author})
            for one in named
            if one is not None and type(one.payload) is Verdicts and range_of_verdicts(one) == fact.payload.range
            for item in one.payload.items
        )

    def _would_replace(self, item: VerdictItem, by: set[PeerId]) -> bool:
        known, view = self._units.get(item.unit, NOTHING), self.views.get(view_of(item.epoch))
        if known.final is None or item.result_hash == known.final[1] or item.unit in self.sealed or view is None:
            return False
        if (item.epoch, item.result_hash) > known.final or resets_of(item.epoch) != known.resets:
            return False
        support = self.support(item.unit, item.epoch).get(ResultHash(item.result_hash), set())
        return view.suffices(support | by, self.submitter)

    # --- what follows from it -----------------------------------------------------------------------------

    @property
    def cancel(self) -> Cancel | None:
        """The submitter's statement that it wants no further work, if one counts."""
        standing = [
            (cancel.failed, fact_id, cancel)
            for fact_id, cancel in self._cancels.items()
            if not cancel.failed or cancel.restarts >= self.restarts
        ]
        return min(standing)[2] if standing else None

    @property
    def view(self) -> View | None:
        """Who keeps the job now."""
        return self.views.newest

    @property
    def keeper_set(self) -> KeeperSet | None:
        """The keepers of the newest view."""
        return self.views.newest.set if self.views.newest is not None else None

    def view_facts(self) -> list[Fact]:
        """The facts that show who keeps the job now: what ``JobFacts.views`` carries."""
        return self.views.shown(self._facts.about(NO_RANGE))

    def may_keep(self, peer: PeerId, epoch: int) -> bool:
        """``peer`` may hand out and judge units of this epoch: the submitter, or a keeper of its view."""
        view = self.views.get(view_of(epoch))
        return peer == self.submitter or (view is not None and view.holds(peer))

    def is_keeper(self, peer: PeerId) -> bool:
        """``peer`` keeps the job in the newest view, or is its submitter."""
        return peer == self.submitter or (self.view is not None and self.view.holds(peer))

    def epoch(self, unit: int) -> int:
        """The epoch that counts for a unit: the one it became final in, else that of the newest view."""
        known = self._units.get(unit)
        if known is None:
            sealed = self.sealed.range_at(unit // SEAL_UNITS)
            return sealed.epoch(unit) if sealed is not None else self._base_epoch
        return known.final[0] if known.final is not None else self._base_epoch | known.resets

    def reset_count(self, unit: int) -> int:
        """How often a unit started over."""
        return self._units.get(unit, NOTHING).resets

    def touched_units(self) -> Iterator[int]:
        """Units about which anything was stated."""
        return iter(self._units)

    def leased(self, unit: int) -> frozenset[PeerId]:
        """Workers to which a keeper gave the unit in its epoch."""
        known, now = self._units.get(unit, NOTHING), self.epoch(unit)
        return frozenset(
            worker
            for (epoch, worker), keepers in known.leased.items()
            if epoch == now and any(self.may_keep(keeper, epoch) for keeper in keepers)
        )

    def was_leased(self, unit: int, epoch: int, worker: PeerId) -> bool:
        """A keeper gave the unit to a worker in that epoch, whether or not it is the one that counts now."""
        keepers = self._units.get(unit, NOTHING).leased.get((epoch, worker), ())
        return any(self.may_keep(keeper, epoch) for keeper in keepers)

    def next_counter(self, keeper: PeerId) -> int:
        """A lease counter that a keeper has not used yet."""
        used = (
            item.counter
            for fact in self._facts
            if fact.author == keeper and type(fact.payload) is Leases
            for item in fact.payload.items
        )
        return max(used, default=-1) + 1

    def committed(self, unit: int) -> dict[PeerId, bytes]:
        """Binding commits of the unit's epoch, by worker."""
        known, now = self._units.get(unit), self.epoch(unit)
        if known is None:
            return {}
        if known.binding is None or known.binding[0] != now:
            known.binding = (now, known.binding_in(now))
        return known.binding[1]

    def equivocators(self, unit: int) -> frozenset[PeerId]:
        """Workers that signed two different commits for the unit's epoch."""
        known, now = self._units.get(unit, NOTHING), self.epoch(unit)
        return frozenset(
            worker for (epoch, worker), commits in known.commits.items() if epoch == now and len(commits) > 1
        )

    def votes(self, unit: int) -> dict[PeerId, ResultHash]:
        """Result hashes that open their worker's binding commit."""
        known, now = self._units.get(unit), self.epoch(unit)
        if known is None:
            return {}
        if known.votes is None or known.votes[0] != now:
            known.votes = (now, self.votes_in(unit, now))
        return known.votes[1]

    def votes_in(self, unit: int, epoch: int) -> dict[PeerId, ResultHash]:
        """The votes of an epoch, whether or not it counts."""
        known = self._units.get(unit, NOTHING)
        if known.votes is not None and known.votes[0] == epoch:
            return known.votes[1]
        found: dict[PeerId, ResultHash] = {}
        for worker, commit in known.binding_in(epoch).items():
            for result_hash, nonce in known.openings.get((epoch, worker), ()):
                if self._opens(unit, epoch, worker, commit, ResultHash(result_hash), nonce):
                    found[worker] = ResultHash(result_hash)
        return found

    def has_shown(self, unit: int, worker: PeerId, result: ResultHash) -> bool:
        """A worker committed to a result in the unit's epoch and showed it, whatever else it committed to."""
        known, now = self._units.get(unit, NOTHING), self.epoch(unit)
        return any(
            name == result and self._opens(unit, now, worker, commit, result, nonce)
            for name, nonce in known.openings.get((now, worker), ())
            for commit in known.commits.get((now, worker), ())
        )

    def opens(self, unit: int, worker: PeerId, commit: bytes, result_hash: ResultHash, nonce: bytes) -> bool:
        """A hash and nonce open a worker's commit in the epoch that counts."""
        return self._opens(unit, self.epoch(unit), worker, commit, result_hash, nonce)

    def _opens(
        self, unit: int, epoch: int, worker: PeerId, commit: bytes, result_hash: ResultHash, nonce: bytes
    ) -> bool:
        key = key_from_peer_id(worker)
        return commit == commitment(self.network, self.id, unit, epoch, key, result_hash, nonce)

    def callers(self, unit: int) -> list[PeerId]:
        """Keepers that want a second answer for the unit in the epoch that counts.

        One that wants that for too many is not heard at all: it would have everything computed twice.
        """
        known, now = self._units.get(unit, NOTHING), self.epoch(unit)
        return [
            keeper
            for epoch, keeper in known.calls
            if epoch == now and self.may_keep(keeper, epoch) and self.standings.hears(keeper)
        ]

    def failures(self, unit: int) -> dict[PeerId, str]:
        """Failure codes of the unit since it was last reset, by worker."""
        return {worker: failed.code for worker, failed in self.failures_since_reset(unit).items()}

    def failures_since_reset(self, unit: int) -> dict[PeerId, Failed]:
        """Each worker's latest failure of the unit since it was last reset, whoever kept the job then."""
        resets = self.reset_count(unit)
        counting = [failed for failed in self.all_failures(unit) if resets_of(failed.epoch) == resets]
        return {failed.worker: failed for failed in reversed(counting)}

    def all_failures(self, unit: int) -> list[Failed]:
        """Failures of all epochs, the latest epoch first."""
        known = self._units.get(unit, NOTHING).failures
        stated = [Failed(epoch, worker, code, text) for (epoch, worker), (code, text) in known.items()]
        return sorted(stated, key=lambda failed: (-failed.epoch, failed.worker))

    def resets(self, unit: int) -> list[tuple[int, str]]:
        """Each time the unit started over, with the reason, the latest first."""
        return sorted(self._units.get(unit, NOTHING).reasons.items(), reverse=True)

    def final(self, unit: int) -> ResultHash | None:
        """The final result of a unit."""
        known = self._units.get(unit)
        if known is None:
            return self.sealed.result_hash(unit)
        return known.final[1] if known.final is not None else None

    def agreeing(self, unit: int, result: ResultHash | None) -> list[tuple[FactId, VerdictItem]]:
        """Verdicts for a result in the epoch that counts, of those who may judge it, each with its fact."""
        known, now = self._units.get(unit, NOTHING), self.epoch(unit)
        return [
            (fact_id, verdict)
            for (fact_id, _), verdict in known.verdicts.get(now, {}).items()
            if verdict.result_hash == result
            and (fact := self._facts.get(fact_id)) is not None
            and self.may_keep(fact.author, now)
        ]

    def verdict(self, unit: int) -> VerdictItem | None:
        """The verdict that makes the unit final, if there is one."""
        sealed = self.sealed.get(unit)
        if sealed is not None:
            keys = [key_from_peer_id(worker) for worker in sealed.accepted]
            return VerdictItem(unit, sealed.epoch, sealed.result_hash, keys, [])
        final = self.final(unit)
        agreeing = self.agreeing(unit, final) if final is not None else []
        return min(agreeing, key=lambda one: one[0])[1] if agreeing else None

    def accepted_workers(self, unit: int) -> frozenset[PeerId]:
        """Everybody who is credited with the final result."""
        sealed, final = self.sealed.get(unit), self.final(unit)
        if sealed is not None:
            return frozenset(sealed.accepted)
        return self._credited(unit, final) if final is not None else frozenset()

    def rejected_workers(self, unit: int) -> frozenset[PeerId]:
        """Everybody who showed another result than the final one, also after it was sealed.

        Their own commits and reveals prove it. That a verdict names somebody proves nothing. In a job whose results
        are checked, another result proves nothing either.
        """
        final = self.final(unit) if not self.checked else None
        given = self.votes(unit).items() if final is not None else ()
        return frozenset(worker for worker, result in given if result != final)

    def judged(self, unit: int, result: ResultHash) -> set[PeerId]:
        """Everybody whom verdicts for ``result`` in the epoch that counts rightly name, one way or the other."""
        votes = self.votes(unit) if not self.checked else {}
        named = {peer_id_from_key(key) for _, verdict in self.agreeing(unit, result) for key in verdict.rejected}
        return {worker for worker in named if votes.get(worker, result) != result} | self._credited(unit, result)

    def _credited(self, unit: int, result: ResultHash) -> frozenset[PeerId]:
        """Whom verdicts for a result name as having given it, and who shows so or is named by those who decide."""
        view, votes = self.views.get(view_of(self.epoch(unit))), self.votes(unit)
        found: set[PeerId] = set()
        unseen: dict[PeerId, set[PeerId]] = {}  # whose votes are not known here -> who says that they gave it
        for fact_id, verdict in self.agreeing(unit, result):
            for worker in map(peer_id_from_key, verdict.accepted):
                if worker not in votes:
                    unseen.setdefault(worker, set()).update(self.supporters(fact_id))
                elif votes[worker] == result:
                    found.add(worker)
        for worker, by in unseen.items():
            if self.submitter in by or (view is not None and view.suffices(by, self.submitter)):
                found.add(worker)
        return frozenset(found)

    def take_fresh_finals(self) -> list[int]:
        """Units that became final, or final with another result, since the last call."""
        fresh, self._fresh_finals = list(dict.fromkeys(self._fresh_finals)), []
        return fresh

    @property
    def finished(self) -> bool:
        """Every unit is final."""
        return len(self.final_units) == self.spec.units
