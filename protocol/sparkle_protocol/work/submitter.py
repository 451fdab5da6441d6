"""The submitter of jobs, which is also their keeper as long as it stays: publishes specs, hands out units, decides.

It answers ``LeaseRequest`` and ``Report``, pushes ``Notice`` and ``Offer``, and signs verdicts. Everything that it
acknowledges is persisted before the reply leaves. ``restore`` continues a job from its stored facts.
"""

from collections.abc import Iterable
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
from sparkle_protocol.errors import LocalProtocolError, NotFound, RemoteProtocolError
from sparkle_protocol.facts import (
    Cancel,
    Fact,
    FactCodec,
    JobSpec,
    KeeperSet,
    LeaseItem,
    Leases,
    Signer,
    Verdicts,
)
from sparkle_protocol.ids import JobId, PeerId, key_from_peer_id
from sparkle_protocol.work.kept_job import CheckResult, KeptJob
from sparkle_protocol.work.lease import SECOND_NS, LeaseBook
from sparkle_protocol.work.state import JobState

MAX_JOBS = 1024
MAX_LEASES_PER_REQUEST = 32
MAX_PEERS_OFFERED = 64
ANNOUNCE_EVERY_S = 30.0  # gossip budget: one delivery a second and node, so jobs are announced seldom
IDLE_WAIT_MS = 2_000  # a worker for whom there is nothing now asks again after this; offers come sooner
MAX_IDLE_KNOWN = 1_024


def kernel_key(spec: JobSpec) -> str:
    """What workers match their kernels against: results only compare within one version."""
    return f"{spec.kernel}@{spec.kernel_version}"


def shard_key(network: str, kernel: str) -> bytes:
    """Routing key under which keepers with open work for a kernel are found."""
    return f"sparkle/{network}/jobs/{kernel}".encode()


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
        self._peers: dict[PeerId, None] = {}
        self._idle: dict[PeerId, None] = {}  # asked and got nothing; an offer goes to them first
        self._tag = 0
        self._announce_ns: int | None = None
        self._out: list[Effect] = []

    # --- commands -----------------------------------------------------------------------------------------

    def submit(self, spec: JobSpec, now_ns: int) -> tuple[JobId, Effects]:
        """Publish a job; acknowledged once its effects (the first is a Persist) are performed.

        Raises:
            LocalProtocolError: the node keeps as many jobs as it may.
        """
        if sum(1 for job in self.jobs.values() if not job.outcome) >= MAX_JOBS:
            raise LocalProtocolError(f"this node keeps {MAX_JOBS} unfinished jobs already; wait for some to end")
        fact = self._codec.seal(self._signer, spec)
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
        self._end_if_over(job, now_ns)
        if not job.outcome:
            self._announce_ns = now_ns
            self._offer([self.me])
        return self._flush(now_ns)

    def cancel(self, job_id: JobId, reason: str, now_ns: int) -> Effects:
        """End a job; one that is over stays as it is."""
        job = self.jobs.get(job_id)
        if job is None:
            raise NotFound(f"no job '{job_id.hex()[:12]}' of this node")
        if not job.outcome:
            fact = self._codec.seal(self._signer, Cancel(job_id, reason[:400]))
            job.state.add(fact)
            job.records.append(StoreFact(fact))
            self._end_if_over(job, now_ns)
        return self._flush(now_ns)

    def _keep(self, spec: Fact, facts: Iterable[Fact], now_ns: int) -> KeptJob:
        state = JobState(spec, self._codec.network)
        state.merge(facts)
        book = LeaseBook(state.spec.units, self._rng)
        job = KeptJob(state, book, self.me, self._check_result, now_ns)
        self.jobs[state.id] = job
        return job

    # --- events -------------------------------------------------------------------------------------------

    def handle(self, event: object, now_ns: int) -> Effects:
        """React to an event; events that do not concern a submitter change nothing."""
        if isinstance(event, Requested):
            self._requested(event, now_ns)
        elif isinstance(event, PeerUp):
            self._peers[event.peer] = None
            if any(job.leases.has_work for job in self._open_jobs()):
                self._offer([event.peer])
        elif isinstance(event, PeerDown):
            self._peers.pop(event.peer, None)
            self._idle.pop(event.peer, None)
            for job in self._open_jobs():
                job.leases.shorten(event.peer, now_ns)
        elif isinstance(event, Tick):
            self._tick(now_ns)
        return self._flush(now_ns)

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        times = [self._announce_ns] if self._announce_ns is not None else []
        for job in self._open_jobs():
            times.append(self._total_deadline(job))
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
        kernels = frozenset(message.kernels)
        known = frozenset(message.known_jobs)
        open_jobs = [job for job in self._open_jobs() if kernel_key(job.state.spec) in kernels]
        jobs: list[messages.JobFacts] = []
        leases: list[bytes] = []
        left = min(message.want, MAX_LEASES_PER_REQUEST)
        for job in sorted(open_jobs, key=lambda j: (-j.state.spec.priority, j.started_ns)):
            if left <= 0 or worker in job.rejected:
                continue
            fact, count = self._grant(job, worker, left, now_ns)
            if fact is None:
                continue
            left -= count
            leases.append(fact.raw)
            if job.state.id not in known:
                jobs.append(_job_facts(job.state))
        self._idle.pop(worker, None)
        if not leases and len(self._idle) < MAX_IDLE_KNOWN:
            self._idle[worker] = None
        wait_ms = 0 if leases else int(IDLE_WAIT_MS * self._rng.uniform(0.75, 1.25))
        reply = messages.LeaseReply(jobs, leases, wait_ms, len(open_jobs))
        self._persist_then(Reply(event.token, reply))

    def _grant(self, job: KeptJob, worker: PeerId, left: int, now_ns: int) -> tuple[Fact | None, int]:
        # Guided self-scheduling: towards the end nobody gets a long queue while others idle.
        unfinished = job.state.spec.units - len(job.state.final_units)
        share = max(1, unfinished // (2 * (len(self._peers) + 1)))
        granted = job.grant(worker, min(left, share), now_ns)
        if not granted:
            return None, 0
        key = key_from_peer_id(worker)
        items = [LeaseItem(counter, unit, epoch, key, ttl) for counter, unit, epoch, ttl in granted]
        fact = self._codec.seal(self._signer, Leases(job.state.id, 0, items))
        job.state.add(fact)
        job.records.append(StoreFact(fact))
        return fact, len(granted)

    def _report(self, event: Requested, message: messages.Report, now_ns: int) -> None:
        job = self.jobs.get(JobId(message.job))
        if job is None:
            self._out.append(Reply(event.token, messages.Refusal("unknown_job", "this peer keeps no such job")))
            return
        facts = [self._codec.open(raw) for raw in message.facts]
        if job.outcome == "cancelled":
            job.news.pop(event.peer, None)
        else:
            job.report(event.peer, message, facts, now_ns)
            self._sign_verdicts(job)
            self._end_if_over(job, now_ns)
        self._persist_then(Reply(event.token, job.reply(event.peer)))

    def _tick(self, now_ns: int) -> None:
        for job in list(self._open_jobs()):
            for unit, worker, kind in job.leases.expire(now_ns):
                if worker:
                    self._out.append(
                        Notify(
                            "lease_expired",
                            {"job": job.state.id.hex(), "unit": unit, "peer": worker, "kind": kind},
                        )
                    )
                job.settle(unit, now_ns)
            job.settle_dirty(now_ns)
            self._sign_verdicts(job)
            self._end_if_over(job, now_ns)
        if self._announce_ns is not None and now_ns >= self._announce_ns:
            self._announce(now_ns)

    # --- consequences -------------------------------------------------------------------------------------

    def _sign_verdicts(self, job: KeptJob) -> None:
        for start in range(0, len(job.verdicts), 1024):
            fact = self._codec.seal(self._signer, Verdicts(job.state.id, job.verdicts[start : start + 1024]))
            job.state.add(fact)
            job.records.append(StoreFact(fact))
        for verdict in job.verdicts:
            fields: dict[str, Value] = {
                "job": job.state.id.hex(), "unit": verdict.unit, "workers": len(verdict.accepted),
            }  # fmt: skip
            self._out.append(Notify("unit_final", fields))
        job.signed()
        for rejection in job.fresh_rejections:
            refused: dict[str, Value] = {
                "job": job.state.id.hex(), "unit": rejection.unit, "peer": rejection.worker, "code": rejection.code,
            }  # fmt: skip
            self._out.append(Notify("worker_rejected", refused))
        job.fresh_rejections.clear()

    def _end_if_over(self, job: KeptJob, now_ns: int) -> None:
        if job.outcome:
            return
        if job.state.finished:
            job.end("done", "", now_ns)
        elif job.state.cancelled:
            job.end("cancelled", "", now_ns)
        elif job.dead:
            job.end("failed", next(iter(job.dead.values())), now_ns)
        elif now_ns >= self._total_deadline(job):
            limit = job.state.spec.deadlines.total_s
            job.end("failed", f"the job did not finish within its {limit} seconds", now_ns)
        if job.outcome:
            end: dict[str, Value] = {"job": job.state.id.hex(), "error": job.error or None}
            self._out.append(Notify(f"job_{job.outcome}", end))

    @staticmethod
    def _total_deadline(job: KeptJob) -> int:
        return job.started_ns + job.state.spec.deadlines.total_s * SECOND_NS

    def _open_jobs(self) -> Iterable[KeptJob]:
        return (job for job in self.jobs.values() if not job.outcome)

    def _offer(self, peers: Iterable[PeerId]) -> None:
        kernels = self._open_kernels()
        if kernels:
            for peer in peers:
                self._send(peer, messages.Offer(kernels))

    def _open_kernels(self) -> list[str]:
        wanting = (job for job in self._open_jobs() if job.leases.has_work)
        return sorted({kernel_key(job.state.spec) for job in wanting})[:64]

    def _announce(self, now_ns: int) -> None:
        self._announce_ns = None
        if not any(True for _ in self._open_jobs()):
            return
        self._announce_ns = now_ns + int(ANNOUNCE_EVERY_S * self._rng.uniform(0.8, 1.2) * SECOND_NS)
        kernels = self._open_kernels()
        if not kernels:
            return
        announcement = messages.Announcement(1, kernels, list(self.addresses[:8]))
        self._out.append(Publish(messages.jobs_topic(self._codec.network), messages.encode_message(announcement)))
        for kernel in kernels:
            self._out.append(Provide(shard_key(self._codec.network, kernel)))

    def _send(self, peer: PeerId, message: messages.Request) -> None:
        self._tag += 1
        self._out.append(Send(self._tag, peer, message))

    def _persist_then(self, reply: Reply) -> None:
        self._persist()
        self._out.append(reply)

    def _persist(self) -> None:
        records: list[Record] = []
        for job in self.jobs.values():
            if job.records:
                records += job.records
                job.records = []
        if records:
            self._out.append(Persist(tuple(records)))

    def _flush(self, now_ns: int) -> Effects:
        """Everything to do now: persist first, then tell workers their news and idle ones of new work."""
        self._persist()
        for job in self.jobs.values():
            for worker in list(job.news):
                if job.news[worker] or job.outcome:
                    reply = job.reply(worker)
                    self._send(
                        worker,
                        messages.Notice(reply.job, reply.reveal, reply.drop, reply.settled, reply.ended),
                    )
                else:
                    del job.news[worker]
        wanted = [job for job in self._open_jobs() if job.leases.take_new_needs()]
        if wanted and self._idle:
            idle, self._idle = list(self._idle), {}
            self._offer(idle[:MAX_PEERS_OFFERED])
        out, self._out = tuple(self._out), []
        return out


def _job_facts(state: JobState) -> messages.JobFacts:
    """A job's spec and newest keeper set, as the bytes they were signed in."""
    keepers = state.keeper_fact
    if keepers is None:
        raise LocalProtocolError("a kept job has no keeper set")
    return messages.JobFacts(state.spec_fact.raw, keepers.raw)
