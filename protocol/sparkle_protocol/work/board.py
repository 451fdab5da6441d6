"""The jobs that this node keeps, its own and others', and what every change of one leads to.

Whatever is told to anybody rests on facts that are durable: every message stands after a ``Persist``, an empty one
if there is nothing new, since a batch before it may still be on its way to the disk.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import groupby
from random import Random

from sparkle_protocol import messages
from sparkle_protocol.effects import CheckUnit, Effect, Notify, Persist, Record, Send, StoreFact, Value, Violation
from sparkle_protocol.facts import (
    MAX_BATCH,
    SEAL_UNITS,
    AuditCalls,
    CallItem,
    Cancel,
    Endorsements,
    Fact,
    FactCodec,
    KeeperSet,
    LeaseItem,
    Leases,
    Payload,
    Reset,
    Seals,
    Signer,
    VerdictItem,
    Verdicts,
    lot_of,
)
from sparkle_protocol.ids import FactId, JobId, PeerId, ResultHash, key_from_peer_id
from sparkle_protocol.messages import MAX_PUSHED_RESULTS
from sparkle_protocol.trust.coin import Coin, audit_secret
from sparkle_protocol.trust.job_trust import JobTrust, Judges
from sparkle_protocol.trust.judges import PERMILLE, DeviceOf, OwnJudgement, StatedJudgement
from sparkle_protocol.trust.standing import TrustBook
from sparkle_protocol.work.checking import CheckQueue
from sparkle_protocol.work.endorsing import consider
from sparkle_protocol.work.failover import keepers_of
from sparkle_protocol.work.granting import Granted
from sparkle_protocol.work.intake import LEARNING_ORDER
from sparkle_protocol.work.judging import CheckResult
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS, LeaseBook
from sparkle_protocol.work.presence import Presence
from sparkle_protocol.work.rejection import Rejection
from sparkle_protocol.work.replication import LAZIEST_NS, LAZY_NS, Channels
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_protocol.work.sealed import SealedRange
from sparkle_protocol.work.state import JobState

MAX_VERDICTS_BYTES = 64 << 10
URGENT = (KeeperSet, Reset, Cancel, AuditCalls)  # whoever keeps the job should know at once


class Board(ABC):
    """Jobs by id, each at one ``KeptJob``, and the channels to those who keep them too."""

    def __init__(
        self, signer: Signer, codec: FactCodec, rng: Random, check_result: CheckResult, rules: Rules = PRODUCTION
    ) -> None:
        self.me = signer.peer_id
        self.trust = TrustBook()
        self.jobs: dict[JobId, KeptJob] = {}  # our own
        self.kept: dict[JobId, KeptJob] = {}  # others'
        self.presence = Presence(self.me)
        self._signer = signer
        self._codec = codec
        self._rng = rng
        self._check_result = check_result
        self._rules = rules
        self._channels = Channels(rng, self._send)
        self._touched: dict[JobId, KeptJob] = {}  # jobs that may have something to store or to tell
        self._spread: dict[JobId, dict[FactId, tuple[Fact, PeerId | None]]] = {}  # new facts, and who keeps them
        self._checks = CheckQueue()
        self._tag = 0
        self._out: list[Effect] = []

    def believe(self, book: TrustBook) -> None:
        """Judge workers by what is known of them from earlier lives. Before there are any jobs."""
        self.trust = book

    def job(self, job_id: JobId) -> KeptJob | None:
        """A job that is kept here."""
        return self.jobs.get(job_id) or self.kept.get(job_id)

    def all_jobs(self) -> Iterator[KeptJob]:
        """All jobs that are kept here."""
        yield from self.jobs.values()
        yield from self.kept.values()

    def partners(self, job: KeptJob) -> tuple[PeerId, ...]:
        """Who keeps the job besides us, and its submitter."""
        view = job.state.view
        peers = {job.state.submitter: None, **dict.fromkeys(view.keepers if view is not None else ())}
        peers.pop(self.me, None)
        return tuple(peers)

    def _targets(self, job: KeptJob, now_ns: int) -> tuple[PeerId, ...]:
        """Whom to tell what comes up here: the submitter, which tells the others, or those if it is away."""
        if not job.mine and not self.presence.away(job.state.submitter, now_ns):
            return (job.state.submitter,)
        return tuple(peer for peer in self.partners(job) if peer != job.state.submitter)

    # --- making jobs --------------------------------------------------------------------------------------

    def _take_up(
        self,
        spec: Fact,
        facts: Iterable[Fact],
        now_ns: int,
        results: Iterable[ResultHash] = (),
        sealed: Iterable[SealedRange] = (),
        rejections: Iterable[Rejection] = (),
    ) -> KeptJob:
        state = JobState(spec, self._codec.network)
        state.restore(sorted(facts, key=lambda one: LEARNING_ORDER.get(type(one.payload), 0)))
        state.take_two_faced()  # was told in an earlier life
        limit_ns = state.spec.deadlines.execution_s * SECOND_NS
        counter = state.next_counter(self.me)
        job = KeptJob(
            state,
            lambda is_done: LeaseBook(
                state.spec.units, self._rng, execution_ns=limit_ns, counter=counter, is_done=is_done,
                ttl_ns=self._rules.lease_ttl_ns,
            ),
            self.me, self._check_result, now_ns, results, sealed, rejections, self._rules,
            lambda device_of: self._trust_of(state, device_of, now_ns),
        )  # fmt: skip
        (self.jobs if job.mine else self.kept)[state.id] = self._touched[state.id] = job
        return job

    def _trust_of(self, state: JobState, device_of: DeviceOf, now_ns: int) -> JobTrust | None:
        """How answers of a job are weighed; None where all count the same."""
        spec = state.spec
        floor, flops = spec.policy.audit_permille / PERMILLE, spec.resources.flops
        if not floor or state.checked or spec.policy.level != "final":
            return None  # the other levels say how many must agree, whoever they are
        own = OwnJudgement(self.trust, self.me, spec.verification, flops, floor, device_of)
        secret = audit_secret(self._signer, spec.nonce)  # of a job of others: nobody else's draws follow from it
        mine = state.submitter == self.me
        judges: Judges = own if mine else StatedJudgement(own, state.submitter, state.standings, flops)

        def keepers() -> tuple[PeerId, ...]:
            return state.view.keepers if state.view is not None else ()

        coin = Coin(secret, state.id)
        return JobTrust(
            spec.policy, judges, coin, self.trust.rules, self.me, now_ns, mine=mine, readers=keepers
        )  # fmt: skip

    def _forget(self, job_id: JobId) -> None:
        for jobs in (self.jobs, self.kept, self._touched):
            jobs.pop(job_id, None)
        self._spread.pop(job_id, None)
        self._channels.drop(job_id)

    # --- stating facts ------------------------------------------------------------------------------------

    def _state(self, job: KeptJob, payload: Payload) -> Fact:
        """Sign a fact of ours about a job, to be stored with this step and told to the other keepers."""
        fact = self._codec.seal(self._signer, payload)
        if job.state.add(fact):
            job.records.append(StoreFact(fact))
            self._pass_on(job, [fact], self.me)
        self._touched[job.state.id] = job
        return fact

    def _pass_on(self, job: KeptJob, facts: Iterable[Fact], source: PeerId | None) -> None:
        """Have the other keepers told; ``source`` is the one that told us, if it was one of them."""
        self._spread.setdefault(job.state.id, {}).update({fact.id: (fact, source) for fact in facts})

    def _conclude(self, job: KeptJob, now_ns: int) -> None:
        """Sign what was decided, stand by what others decided, carry over, and tell what came of it."""
        self._touched[job.state.id] = job
        job.seal_certain(now_ns)
        job.heed(now_ns)
        while True:
            while job.verdicts:
                for batch in _batches(job.verdicts):
                    self._state(job, Verdicts(job.state.id, batch))
                job.signed(now_ns)
            whole, parts = consider(job, bound=self._bound(job))
            for index, facts in _by_range(job, whole).items():
                self._state(job, Endorsements(job.state.id, facts, index))
            for batch in _batches(parts):
                self._state(job, Verdicts(job.state.id, batch))
            if not whole and not parts:
                break
            job.take_finals((), now_ns)
        ready = job.seals_to_state()
        if ready:
            self._state(job, Seals(job.state.id, ready))
            job.seal_certain(now_ns)
        for calls in _of_one_range(job.calls):
            self._state(job, AuditCalls(job.state.id, calls))
        job.calls.clear()
        self._sign_carried(job)
        self._tell(job)
        for key in job.checks.take_wanted() if job.checks is not None else ():
            self._checks.want(job.state.id, key)

    def _start_checks(self) -> None:
        """Have results checked that wait for it, as many as may be under way."""
        while (found := self._checks.next()) is not None:
            job_id, key = found
            job = self.job(job_id)
            result = job.to_check(key) if job is not None else None
            if job is None or result is None:
                continue
            self._checks.started(job_id, key)
            unit, epoch, worker = key
            holders = dict.fromkeys((worker, *keepers_of(job.state)))
            holders.pop(self.me, None)
            self._out.append(CheckUnit(job_id, unit, epoch, worker, result, job.state.spec, tuple(holders)))

    def _bound(self, job: KeptJob) -> bool:
        """We agreed to a successor of the job's view, so we endorse nothing in this one any more."""
        view = job.state.view
        if view is None:
            return False
        return any(self.me in job.state.endorsers(fact.id) for fact in job.state.views.successors(view))

    def _sign_carried(self, job: KeptJob) -> None:
        by_worker: dict[PeerId, list[Granted]] = {}
        for worker, granted in job.carried:
            by_worker.setdefault(worker, []).append(granted)
        job.carried.clear()
        for worker, grants in by_worker.items():
            for start in range(0, len(grants), MAX_BATCH):
                job.news.of(worker).leases.append(self._lease_fact(job, worker, grants[start : start + MAX_BATCH]))

    def _lease_fact(self, job: KeptJob, worker: PeerId, granted: list[Granted]) -> Fact:
        key = key_from_peer_id(worker)
        items = [LeaseItem(counter, unit, epoch, key, ttl) for counter, unit, epoch, ttl in granted]
        payload = Leases(job.state.id, items)
        if all(job.state.was_leased(item.unit, item.epoch, worker) for item in items):
            return self._codec.seal(self._signer, payload)  # says nothing new: not worth storing
        return self._state(job, payload)

    def _tell(self, job: KeptJob) -> None:
        """Notify of what happened to a job. Nobody hears of anything that a crash could undo."""
        two_faced = job.state.take_two_faced()
        if job.finalized or job.proven.fresh or job.died or two_faced:
            self._persist()
        name = job.state.id.hex()
        for unit in job.finalized:
            workers = len(job.state.accepted_workers(unit))
            self._notify("unit_final", job=name, unit=unit, workers=workers, own=job.mine)
        for unit in job.died:
            self._notify("unit_dead", job=name, unit=unit, reason=job.dead.get(unit, ""))
        for class_, why in job.devices.fresh:
            self._notify("class_excluded", job=name, device=class_, reason=why)
        for one in job.proven.fresh:
            said: dict[str, Value] = {"text": one.text} if one.text else {}
            self._notify("worker_rejected", job=name, unit=one.unit, peer=one.worker, code=one.code, **said)
        for peer, (unit, epoch) in two_faced.items():
            self._notify("keeper_two_faced", job=name, unit=unit, epoch=epoch, peer=peer)
            self._out.append(Violation(peer, f"it signed for two results of unit {unit} of job {name[:12]}"))
        for told in (job.finalized, job.died, job.proven.fresh, job.devices.fresh):
            told.clear()

    def _notify(self, event: str, **fields: Value) -> None:
        self._out.append(Notify(event, fields))

    # --- sending ------------------------------------------------------------------------------------------

    def _send(self, peer: PeerId, message: messages.Request, attach: tuple[ResultHash, ...] = ()) -> int:
        self._tag += 1
        self._out.append(Send(self._tag, peer, message, attach))
        return self._tag

    def _persist(self) -> None:
        """Store what is new; whatever stands after this waits for that and for all that was stored before."""
        records: list[Record] = []
        for job in self._touched.values():
            records += job.records
            self._stored(job, job.records)
            job.records.clear()
        self._out.append(Persist(tuple(records)))

    @abstractmethod
    def _stored(self, job: KeptJob, records: Iterable[Record]) -> None:
        """More is kept for a job."""

    def _queue_spread(self, now_ns: int) -> None:
        """Put new facts into the channels of those who should know them."""
        for job_id, facts in self._spread.items():
            job = self.job(job_id)
            certifying = job is not None and job.state.view is not None and job.state.view.certifying
            lazy_ns = LAZY_NS if certifying else LAZIEST_NS
            for peer in self._targets(job, now_ns) if job is not None else ():
                news = [fact for fact, source in facts.values() if source != peer]
                urgent = job is not None and any(self._is_urgent(job, fact, peer) for fact in news)
                self._channels.to(job_id, peer).queue(
                    (fact.id for fact in news), now_ns if urgent else now_ns + lazy_ns
                )
        self._spread.clear()

    def _is_urgent(self, job: KeptJob, fact: Fact, peer: PeerId) -> bool:
        """Somebody waits for the fact."""
        if type(fact.payload) in URGENT:
            return True
        view = job.state.view
        if view is None or not view.certifying:
            return not job.mine and peer == job.state.submitter
        if peer == job.state.submitter:
            return type(fact.payload) is not Leases
        return type(fact.payload) is Verdicts or (type(fact.payload) is Endorsements and not job.mine)


def _by_range(job: KeptJob, verdicts: Iterable[FactId]) -> dict[int, list[bytes]]:
    """Verdict facts by the range of units that each speaks of."""
    found: dict[int, list[bytes]] = {}
    for fact_id in verdicts:
        fact = job.state.fact(fact_id)
        if fact is not None:
            found.setdefault(lot_of(fact.payload), []).append(bytes(fact_id))
    return found


def _of_one_range(calls: list[CallItem]) -> Iterator[list[CallItem]]:
    """Calls in lots that fit into a fact."""
    for _, lot in groupby(sorted(calls, key=lambda one: one.unit), lambda one: one.unit // SEAL_UNITS):
        yield list(lot)


def _batches(verdicts: list[VerdictItem]) -> Iterator[list[VerdictItem]]:
    """Verdicts in lots of one range that fit into a fact, and whose results fit into a push."""
    lot: list[VerdictItem] = []
    size = 0
    for verdict in sorted(verdicts, key=lambda one: one.unit // SEAL_UNITS):
        bytes_ = 64 + 34 * (len(verdict.accepted) + len(verdict.rejected))
        full = size + bytes_ > MAX_VERDICTS_BYTES or len(lot) >= MAX_PUSHED_RESULTS
        if lot and (full or lot[0].unit // SEAL_UNITS != verdict.unit // SEAL_UNITS):
            yield lot
            lot, size = [], 0
        lot.append(verdict)
        size += bytes_
    if lot:
        yield lot
