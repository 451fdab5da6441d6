"""What leaves a node rests on what is on its disk, so that no crash can make it a lie."""

from sparkle_protocol import messages
from sparkle_protocol.effects import DropCommit, DropJob, Record, Reply, SealRange, Send, StoreCommit, StoreFact
from sparkle_protocol.facts import (
    NO_RANGE,
    Commits,
    Endorsements,
    Fact,
    KeeperSet,
    Seals,
    Verdicts,
    is_checked,
    view_of,
)
from sparkle_protocol.ids import FactId, JobId
from sparkle_protocol.work.sealed import SealedRange
from sparkle_sim.checkers.base import Checker, named
from sparkle_sim.checkers.evidence import Evidence
from sparkle_sim.disk import JobRecords
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import Scenario
from sparkle_sim.world import World

Place = tuple[int, int, JobId, int, int]  # peer, its life, job, unit, epoch
BINDING = (KeeperSet, Verdicts, Endorsements, Seals)  # a keeper's own words that it must not forget


class _Kept:
    """What one peer made durable in all its lives."""

    def __init__(self) -> None:
        self.decided: set[tuple[JobId, int]] = set()
        self.committed: set[tuple[JobId, int, int]] = set()
        self.said: dict[tuple[JobId, int, int], bytes] = {}  # commits that left
        self.facts: set[FactId] = set()
        self.released: set[JobId] = set()  # their results need not be kept any longer


class Promises(Checker):
    """Nothing is told before it is kept.

    - A worker's commit left after it was stored, there is one of each unit and epoch, and after a restart the worker
      goes on with what it committed to.
    - A worker is told what became of its result after the verdict was stored. That a check refused it rests on no
      verdict: such a result is checked again after a restart.
    - A keeper's own words (verdicts, endorsements, keeper sets, seals) leave after they were stored, and it has the
      results that it says it holds.

    Adversaries promise what they like.
    """

    name = "promises"
    listens = True

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._kept = [_Kept() for _ in world.peers]
        self._opened: dict[bytes, Fact] = {}  # commits and words of keepers, by their bytes
        self._forgotten: dict[Place, None] = {}  # as they were at the scan before

    # --- what is kept -----------------------------------------------------------------------------------------

    def wrote(self, peer: Peer, record: Record) -> None:
        """Remember what a peer has made durable."""
        kept = self._kept[peer.number]
        if isinstance(record, StoreFact):
            payload = record.fact.payload
            if record.fact.author == peer.id and isinstance(payload, BINDING):
                kept.facts.add(record.fact.id)
            if isinstance(payload, Verdicts):
                kept.decided.update((record.fact.job, item.unit) for item in payload.items)
        elif isinstance(record, DropJob):
            kept.released.add(record.job)
        elif isinstance(record, StoreCommit):
            kept.committed.add((record.job, record.unit, record.epoch))
        elif isinstance(record, SealRange):
            sealed = SealedRange.decode(record.raw)
            kept.decided.update((record.job, unit) for unit in range(sealed.first, sealed.first + sealed.count))

    # --- what is said -----------------------------------------------------------------------------------------

    def said(self, peer: Peer, effect: Send | Reply) -> None:
        """Hold a message against what its sender has kept."""
        if peer.number in self.world.adversaries:
            return
        message = effect.message
        if isinstance(message, messages.ReportReply | messages.Notice):
            decided = self._kept[peer.number].decided
            for one in message.settled:
                refused = not one.accepted and self._is_checked(JobId(message.job))
                if (message.job, one.unit) not in decided and not refused:
                    unit = named(JobId(message.job), one.unit)
                    self.found(peer.number, f"it told of a verdict on unit {unit} that was not stored")
        elif isinstance(message, messages.Report):
            for raw in message.facts:
                fact = self._open(raw)
                if isinstance(fact.payload, Commits) and fact.author == peer.id:
                    self._check_commits(peer, fact.job, fact.payload)
        elif isinstance(message, messages.Push | messages.PushReply | messages.FetchReply):
            for raw in message.facts:
                self._check_own(peer, self._open(raw))

    def _is_checked(self, job: JobId) -> bool:
        known = self.evidence.jobs.get(job)
        return known is not None and known.spec is not None and is_checked(known.spec)

    def _open(self, raw: bytes) -> Fact:
        fact = self._opened.get(raw)
        if fact is None:
            fact = self._opened[raw] = self.world.codec.open(raw)
        return fact

    def _check_commits(self, peer: Peer, job: JobId, commits: Commits) -> None:
        kept = self._kept[peer.number]
        for item in commits.items:
            key = (job, item.unit, item.epoch)
            if key not in kept.committed:
                self.found(peer.number, f"its commit of unit {named(job, item.unit)} left before it was stored")
            if kept.said.setdefault(key, item.commit) != item.commit:
                self.found(peer.number, f"it committed to two results of unit {named(job, item.unit)}")

    def _check_own(self, peer: Peer, fact: Fact) -> None:
        if fact.author != peer.id or not isinstance(fact.payload, BINDING):
            return
        if fact.id not in self._kept[peer.number].facts:
            kind = type(fact.payload).__name__
            self.found(peer.number, f"its {kind} on job {named(fact.job)} left before it was stored")

    # --- what is there ----------------------------------------------------------------------------------------

    def scan(self) -> None:
        """Workers have in hand what they committed to, and keepers the results that they say they hold."""
        before, self._forgotten = self._forgotten, {}
        for peer in self.world.peers:
            if peer.lost or peer.life is None or peer.frozen or peer.number in self.world.adversaries:
                continue
            self._look_for_commits(peer, before)
            for job, records in peer.disk.jobs.items():
                if job not in self._kept[peer.number].released:
                    self._check_words(peer, job, records)

    def _look_for_commits(self, peer: Peer, before: dict[Place, None]) -> None:
        """A commit on disk is in the worker's hands, or about to be dropped. One scan later it is not on its way."""
        dropped = [record for record in peer.worker._reporter.shelf.gone if isinstance(record, DropCommit)]
        carried = [
            held.stored_as for held in peer.worker.held.values()
        ]  # into another epoch, not committed there yet
        known = {*peer.worker.held, *carried, *((record.job, record.unit, record.epoch) for record in dropped)}
        for job, records in peer.disk.jobs.items():
            for unit, epoch in records.commits:
                place = (peer.number, peer.lives, job, unit, epoch)
                if (job, unit, epoch) in known:
                    continue
                self._forgotten[place] = None
                if place in before:
                    self.found(peer.number, f"it forgot that it committed to unit {named(job, unit)}")

    def _check_words(self, peer: Peer, job: JobId, records: JobRecords) -> None:
        """A keeper has the verdicts that it stands by, and their results."""
        for fact in list(records.facts.values()):
            if fact.author != peer.id:
                continue
            if isinstance(fact.payload, Verdicts):
                self._check_results(peer, job, records, fact.payload)
            elif isinstance(fact.payload, Endorsements) and fact.payload.range != NO_RANGE:
                for name in fact.payload.facts:
                    verdicts = records.facts.get(FactId(name))
                    if verdicts is not None and isinstance(verdicts.payload, Verdicts):
                        self._check_results(peer, job, records, verdicts.payload)
                    elif fact.payload.range not in records.sealed:
                        self.found(peer.number, f"it stands by a verdict on job {named(job)} that it does not have")

    def _check_results(self, peer: Peer, job: JobId, records: JobRecords, verdicts: Verdicts) -> None:
        known = self.evidence.jobs[job]
        for item in verdicts.items:
            kept = peer.id == known.submitter or peer.id in known.keepers(view_of(item.epoch))
            if kept and item.result_hash not in records.results:
                self.found(
                    peer.number, f"it stands by a result of unit {named(job, item.unit)} that it does not have"
                )
