"""The submitter of jobs, which is also their keeper as long as it stays: publishes specs, hands out units, decides.

It answers ``LeaseRequest`` and ``Report``, pushes ``Notice`` and ``Offer``, and signs verdicts. Whatever it tells
anybody rests on facts that are durable: every message stands after a ``Persist``, an empty one if there is nothing
new, since a batch before it may still be on its way to the disk. ``restore`` continues a job from its stored facts.
"""

from collections.abc import Iterable, Iterator
from random import Random

from sparkle_protocol import messages
from sparkle_protocol.effects import (
    Effect,
    Effects,
    Notify,
    PeerDown,
    PeerUp,
    Persist,
    Provide,
    Publish,
    Record,
    Reply,
    Requested,
    Send,
    StoreFact,
    Tick,
    Value,
    Violation,
)
from sparkle_protocol.errors import ConfigError, LocalProtocolError, NotFound, RemoteProtocolError
from sparkle_protocol.facts import (
    MAX_BATCH,
    MAX_EPOCHS,
    MAX_FACT_BYTES,
    Cancel,
    Fact,
    FactCodec,
    JobSpec,
    KeeperSet,
    LeaseItem,
    Leases,
    Payload,
    Reset,
    Signer,
    VerdictItem,
    Verdicts,
    kernel_key,
)
from sparkle_protocol.ids import JobId, PeerId, key_from_peer_id
from sparkle_protocol.work.dead import failure_text
from sparkle_protocol.work.kept_job import CheckResult, Granted, KeptJob
from sparkle_protocol.work.lease import SECOND_NS, LeaseBook
from sparkle_protocol.work.state import JobState

MAX_JOBS = 1024  # unfinished ones
MAX_LEASES_PER_REQUEST = 32
MAX_SPECS_BYTES = 512 << 10  # of one reply
MAX_VERDICTS_BYTES = MAX_FACT_BYTES // 2
MAX_PEERS_OFFERED = 64
ANNOUNCE_EVERY_S = 30.0  # gossip budget: one delivery a second and node, so jobs are announced seldom
IDLE_WAIT_MS = 2_000  # a worker for whom there is nothing now asks again after this; offers come sooner
MAX_IDLE_KNOWN = 1_024


class Submitter:
    """All jobs of this node, each at one ``KeptJob``."""

    def __init__(self, signer: Signer, codec: FactCodec, rng: Random, check_result: CheckResult) -> None:
        self.me = signer.peer_id
        self.jobs: dict[JobId, KeptJob] = {}
        self.addresses: tuple[str, ...] = ()  # ours, as the shell knows them; they go into announcements
        self._signer = signer
        self._codec = codec
        self._rng = rng
        self._check_result = check_result
        self._open: dict[JobId, KeptJob] = {}  # jobs without an outcome
        self._touched: dict[JobId, KeptJob] = {}  # jobs that may have something to store or to tell
        self._peers: dict[PeerId, None] = {}
        self._idle: dict[PeerId, None] = {}  # asked and got nothing; an offer goes to them first
        self._tag = 0
        self._announce_ns: int | None = None
        self._out: list[Effect] = []

    # --- commands -----------------------------------------------------------------------------------------

    def submit(self, spec: JobSpec, now_ns: int) -> tuple[JobId, Effects]:
        """Publish a job; acknowledged once its effects (the first is a Persist) are performed.

        Raises:
            ConfigError: the node keeps as many jobs as it may, or no peer would take this one.
        """
        if len(self._open) >= MAX_JOBS:
            raise ConfigError(f"this node keeps {MAX_JOBS} unfinished jobs already; wait for some to end")
        if spec.policy.quorum > spec.policy.max_replicas:
            raise ConfigError(
                f"{spec.policy.quorum} workers cannot agree among at most {spec.policy.max_replicas}; ask for fewer"
            )
        try:
            fact = self._codec.seal(self._signer, spec)
            self._codec.open(fact.raw)  # as its workers will
        except (LocalProtocolError, RemoteProtocolError) as error:
            raise ConfigError(
                f"no peer would take this job ({error}); give it fewer or smaller parameters"
            ) from error
        keepers = self._codec.seal(
            self._signer, KeeperSet(fact.job, view=0, keys=[self._signer.public_key], threshold=1)
        )
        job = self._keep(fact, [keepers], now_ns)
        self._out.append(Persist((StoreFact(fact), StoreFact(keepers))))
        self._out.append(Notify("job_submitted", {"job": fact.job.hex(), "kernel": spec.kernel, "units": spec.units}))
        self._offer([self.me, *list(self._peers)[:MAX_PEERS_OFFERED]])
        self._announce(now_ns)
        return job.state.id, self._flush(now_ns)

    def restore(self, spec: Fact, facts: Iterable[Fact], now_ns: int) -> Effects:
        """Continue a job of ours from its stored facts."""
        job = self._keep(spec, facts, now_ns)
        self._sign_verdicts(job)
        self._end_if_over(job, now_ns)
        if not job.outcome:
            self._announce_ns = now_ns
            self._offer([self.me])
        return self._flush(now_ns)

    def withdraw(self, job_id: JobId) -> None:
        """Forget a job that could not be stored: nobody was promised anything about it."""
        for jobs in (self.jobs, self._open, self._touched):
            jobs.pop(job_id, None)

    def cancel(self, job_id: JobId, reason: str, now_ns: int) -> Effects:
        """End a job; one that is over stays as it is."""
        job = self.jobs.get(job_id)
        if job is None:
            raise NotFound(f"no job '{job_id.hex()[:12]}' of this node")
        if not job.outcome:
            self._state(job, Cancel(job_id, reason[:400]))
            self._end_if_over(job, now_ns)
        return self._flush(now_ns)

    def requeue(self, job_id: JobId, unit: int | None, now_ns: int) -> tuple[tuple[int, ...], Effects]:
        """Begin a dead unit (None: all of a job) anew; a job that failed goes on. Returns the units that were dead.

        Raises:
            NotFound: there is no such job.
            ConfigError: nothing of that name is dead.
        """
        job = self.jobs.get(job_id)
        if job is None:
            raise NotFound(f"no job '{job_id.hex()[:12]}' of this node")
        name = job_id.hex()[:12] if unit is None else f"{job_id.hex()[:12]}/{unit}"
        if job.outcome == "cancelled":
            raise ConfigError(f"job {job_id.hex()[:12]} was cancelled; submit it again")
        units = job.to_start_over(unit)
        if not units or not job.dead:
            what = "no unit is dead" if unit is None else "that unit is not dead"
            raise ConfigError(f"nothing to requeue in {name}: {what}; 'sparkle dead' lists those that are")
        if job.outcome and len(self._open) >= MAX_JOBS:
            raise ConfigError(f"this node keeps {MAX_JOBS} unfinished jobs already; wait for some to end")
        if any(job.state.epoch(again) + 1 >= MAX_EPOCHS for again in units):
            raise ConfigError(f"{name} was requeued {MAX_EPOCHS - 1} times; submit the job again")
        dead = tuple(again for again in units if again in job.dead)
        for again in units:
            reason = job.dead.get(again) or "its workers had dropped it when the job failed"
            job.start_over(again)
            self._state(job, Reset(job_id, again, job.state.epoch(again) + 1, reason[:400]))
        job.go_on(now_ns)
        self._open[job_id] = self._touched[job_id] = job
        self._persist()
        fields: dict[str, Value] = {"job": job_id.hex(), "units": len(dead)}
        self._out.append(Notify("units_requeued", fields))
        self._end_if_over(job, now_ns)  # others may be dead still
        self._offer([self.me, *list(self._peers)[:MAX_PEERS_OFFERED]])
        self._announce(now_ns)
        return dead, self._flush(now_ns)

    def _keep(self, spec: Fact, facts: Iterable[Fact], now_ns: int) -> KeptJob:
        state = JobState(spec, self._codec.network)
        state.merge(facts)
        limit_ns = state.spec.deadlines.execution_s * SECOND_NS
        counter = state.next_counter(self.me)
        book = LeaseBook(state.spec.units, self._rng, execution_ns=limit_ns, counter=counter)
        job = KeptJob(state, book, self.me, self._check_result, now_ns)
        self.jobs[state.id] = self._open[state.id] = self._touched[state.id] = job
        return job

    def _state(self, job: KeptJob, payload: Payload) -> Fact:
        """Sign a fact of ours about a job, to be stored with this step."""
        fact = self._codec.seal(self._signer, payload)
        job.state.add(fact)
        job.records.append(StoreFact(fact))
        self._touched[job.state.id] = job
        return fact

    # --- events -------------------------------------------------------------------------------------------

    def handle(self, event: object, now_ns: int) -> Effects:
        """React to an event; events that do not concern a submitter change nothing."""
        if isinstance(event, Requested):
            self._requested(event, now_ns)
        elif isinstance(event, PeerUp):
            self._peers[event.peer] = None
            for job in self._open.values():
                job.leases.returned(event.peer)
            if any(job.leases.has_work for job in self._open.values()):
                self._offer([event.peer])
        elif isinstance(event, PeerDown):
            self._peers.pop(event.peer, None)
            self._idle.pop(event.peer, None)
            for job in self._open.values():
                job.lost(event.peer, now_ns)
        elif isinstance(event, Tick):
            self._tick(now_ns)
        return self._flush(now_ns)

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        times = [self._announce_ns] if self._announce_ns is not None else []
        for job in self._open.values():
            times.append(self._deadline(job)[0])
            head = job.leases.next_deadline()
            if head is not None:
                times.append(head)
        return min(times) if times else None

    def _requested(self, event: Requested, now_ns: int) -> None:
        message = event.message
        try:
            if isinstance(message, messages.LeaseRequest):
                self._lease(event, message, now_ns)
            elif isinstance(message, messages.Report):
                self._report(event, message, now_ns)
        except RemoteProtocolError as error:
            self._out.append(Violation(event.peer, str(error)))
            self._out.append(Reply(event.token, messages.Refusal("protocol", str(error)[:400])))

    def _lease(self, event: Requested, message: messages.LeaseRequest, now_ns: int) -> None:
        worker = event.peer
        kernels, known = frozenset(message.kernels), frozenset(message.known_jobs)
        mine = [
            job for job in self._open.values() if kernel_key(job.state.spec) in kernels and worker not in job.rejected
        ]
        jobs: list[messages.JobFacts] = []
        leases: list[bytes] = []
        left, room = min(message.want, MAX_LEASES_PER_REQUEST), MAX_SPECS_BYTES
        mine.sort(key=lambda j: (-j.state.spec.priority, j.started_ns))
        for job, copies in [*((job, False) for job in mine), *((job, True) for job in mine)]:
            if left <= 0 or (copies and leases):  # copies of stragglers only when there is nothing else
                break
            new = [] if job.state.id in known else [_job_facts(job.state)]
            size = sum(len(facts.spec) + len(facts.keepers) for facts in new)
            if size > room:
                continue
            granted = job.grant_copy(worker, now_ns) if copies else self._grant(job, worker, left, now_ns)
            if granted:
                self._touched[job.state.id] = job
                left, room = left - len(granted), room - size
                leases.append(self._lease_fact(job, worker, granted).raw)
                jobs += new
        self._idle.pop(worker, None)
        if not leases and len(self._idle) < MAX_IDLE_KNOWN:
            self._idle[worker] = None
        wait_ms = 0 if leases else int(IDLE_WAIT_MS * self._rng.uniform(0.75, 1.25))
        self._persist()
        self._out.append(Reply(event.token, messages.LeaseReply(jobs, leases, wait_ms, len(mine))))

    def _grant(self, job: KeptJob, worker: PeerId, left: int, now_ns: int) -> list[Granted]:
        # Guided self-scheduling: towards the end nobody gets a long queue while others idle.
        unfinished = job.state.spec.units - len(job.state.final_units)
        share = max(1, unfinished // (2 * (len(self._peers) + 1)))
        return job.grant(worker, min(left, share), now_ns)

    def _lease_fact(self, job: KeptJob, worker: PeerId, granted: list[Granted]) -> Fact:
        key, keepers = key_from_peer_id(worker), job.state.keeper_set
        items = [LeaseItem(counter, unit, epoch, key, ttl) for counter, unit, epoch, ttl in granted]
        payload = Leases(job.state.id, keepers.view if keepers is not None else 0, items)
        if all(job.state.was_leased(item.unit, item.epoch, worker) for item in items):
            return self._codec.seal(self._signer, payload)  # says nothing new: not worth storing
        return self._state(job, payload)

    def _report(self, event: Requested, message: messages.Report, now_ns: int) -> None:
        job = self.jobs.get(JobId(message.job))
        if job is None:
            self._out.append(Reply(event.token, messages.Refusal("unknown_job", "this peer keeps no such job")))
            return
        self._touched[job.state.id] = job
        if job.outcome not in ("cancelled", "failed"):
            job.report(event.peer, message, [self._codec.open(raw) for raw in message.facts], now_ns)
            self._sign_verdicts(job)
            self._end_if_over(job, now_ns)
        self._persist()
        self._out.append(Reply(event.token, job.reply(event.peer)))

    def _tick(self, now_ns: int) -> None:
        for job in list(self._open.values()):
            for unit, worker, kind in job.expire(now_ns):
                fields: dict[str, Value] = {
                    "job": job.state.id.hex(), "unit": unit, "peer": worker, "kind": kind,
                }  # fmt: skip
                self._out.append(Notify("lease_expired", fields))
            self._touched[job.state.id] = job
            self._sign_verdicts(job)
            self._end_if_over(job, now_ns)
        if self._announce_ns is not None and now_ns >= self._announce_ns:
            self._announce(now_ns)

    # --- consequences -------------------------------------------------------------------------------------

    def _sign_verdicts(self, job: KeptJob) -> None:
        for batch in _batches(job.verdicts):
            self._state(job, Verdicts(job.state.id, batch))
        if job.verdicts or job.proven.fresh or job.died:
            self._persist()  # nobody hears of a verdict that a crash could undo
        for verdict in job.verdicts:
            fields: dict[str, Value] = {
                "job": job.state.id.hex(), "unit": verdict.unit, "workers": len(verdict.accepted),
            }  # fmt: skip
            self._out.append(Notify("unit_final", fields))
        job.signed()
        for unit in job.died:
            death: dict[str, Value] = {"job": job.state.id.hex(), "unit": unit, "reason": job.dead[unit]}
            self._out.append(Notify("unit_dead", death))
        job.died.clear()
        for rejection in job.proven.fresh:
            refused: dict[str, Value] = {
                "job": job.state.id.hex(), "unit": rejection.unit, "peer": rejection.worker, "code": rejection.code,
            }  # fmt: skip
            self._out.append(Notify("worker_rejected", refused))
        job.proven.fresh.clear()

    def _end_if_over(self, job: KeptJob, now_ns: int) -> None:
        if job.outcome:
            return
        cancel, (deadline_ns, too_late) = job.state.cancel, self._deadline(job)
        if job.state.finished:
            job.end("done", "", now_ns)
        elif cancel is not None:
            job.end("failed" if cancel.failed else "cancelled", cancel.reason if cancel.failed else "", now_ns)
        elif job.has_failed or now_ns >= deadline_ns:
            error = (failure_text(job.dead) if job.has_failed else too_late)[:400]
            self._state(job, Cancel(job.state.id, error, failed=True, restarts=job.state.restarts))
            job.end("failed", error, now_ns)
        if job.outcome:
            self._open.pop(job.state.id, None)
            if not self._open:
                self._announce_ns = None
            self._persist()
            end: dict[str, Value] = {"job": job.state.id.hex(), "error": job.error or None}
            self._out.append(Notify(f"job_{job.outcome}", end))

    @staticmethod
    def _deadline(job: KeptJob) -> tuple[int, str]:
        """When the job fails unless it got on, and in what words."""
        limits = job.state.spec.deadlines
        if limits.queue_s < limits.total_s and not job.leases.books:
            text = f"nobody took a unit of the job within its {limits.queue_s} seconds"
            return job.started_ns + limits.queue_s * SECOND_NS, text
        text = f"the job did not finish within its {limits.total_s} seconds"
        return job.started_ns + limits.total_s * SECOND_NS, text

    def _offer(self, peers: Iterable[PeerId]) -> None:
        kernels = self._open_kernels()
        if kernels:
            for peer in peers:
                self._send(peer, messages.Offer(kernels))

    def _open_kernels(self) -> list[str]:
        wanting = (job for job in self._open.values() if job.leases.has_work)
        return sorted({kernel_key(job.state.spec) for job in wanting})[:64]

    def _announce(self, now_ns: int) -> None:
        self._announce_ns = None
        if not self._open:
            return
        self._announce_ns = now_ns + int(ANNOUNCE_EVERY_S * self._rng.uniform(0.8, 1.2) * SECOND_NS)
        kernels = self._open_kernels()
        if not kernels:
            return
        addresses = [a for a in self.addresses if len(a) <= messages.MAX_ADDRESS_CHARS][: messages.MAX_ADDRESSES]
        announcement = messages.Announcement(1, kernels, addresses)
        self._out.append(Publish(messages.jobs_topic(self._codec.network), messages.encode_message(announcement)))
        for kernel in kernels:
            self._out.append(Provide(messages.shard_key(self._codec.network, kernel)))

    def _send(self, peer: PeerId, message: messages.Request) -> None:
        self._tag += 1
        self._out.append(Send(self._tag, peer, message))

    def _persist(self) -> None:
        """Store what is new; whatever stands after this waits for that and for all that was stored before."""
        records: list[Record] = []
        for job in self._touched.values():
            records += job.records
            job.records.clear()
        self._out.append(Persist(tuple(records)))

    def _flush(self, now_ns: int) -> Effects:
        """Everything to do now: persist first, then tell workers their news and idle ones of new work."""
        touched = list(self._touched.values())
        told = [(job, worker) for job in touched for worker in job.news.waiting()]
        if any(job.records for job in touched) or told:
            self._persist()
        for job, worker in told:
            if job.news.says_something(worker) or job.outcome:
                news = job.reply(worker)
                self._send(worker, messages.Notice(news.job, news.reveal, news.drop, news.settled, news.ended))
            else:
                job.news.forget(worker)
        wanted = [job for job in touched if not job.outcome and job.leases.take_new_needs()]
        if wanted and self._idle:
            idle, self._idle = list(self._idle), {}
            self._offer(idle[:MAX_PEERS_OFFERED])
            self._idle.update(dict.fromkeys(idle[MAX_PEERS_OFFERED:]))
        self._touched.clear()
        out, self._out = tuple(self._out), []
        return out


def _batches(verdicts: list[VerdictItem]) -> Iterator[list[VerdictItem]]:
    """Verdicts in lots that fit into a fact."""
    lot: list[VerdictItem] = []
    size = 0
    for verdict in verdicts:
        bytes_ = 64 + 34 * (len(verdict.accepted) + len(verdict.rejected))
        if lot and (size + bytes_ > MAX_VERDICTS_BYTES or len(lot) >= MAX_BATCH):
            yield lot
            lot, size = [], 0
        lot.append(verdict)
        size += bytes_
    if lot:
        yield lot


def _job_facts(state: JobState) -> messages.JobFacts:
    """A job's spec and newest keeper set, as the bytes they were signed in."""
    keepers = state.keeper_fact
    if keepers is None:
        raise LocalProtocolError("a kept job has no keeper set")
    return messages.JobFacts(state.spec_fact.raw, keepers.raw)
