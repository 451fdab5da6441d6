"""What keepers of the same job say to each other: pushes, beats, comparisons, fetches, releases.

- Whoever pushes must be the job's submitter or be named by one of its keeper sets; a job that is new here comes
  with its spec, and is kept if there is room for it.
- Every ``BEAT_NS`` keepers that share jobs exchange a sum over what they know of each. Two that differ twice in a row
  compare, and each gets what it lacks.
- Everything a keeper hears may be said again, late, or in another order.
"""

from abc import abstractmethod
from collections.abc import Iterable

from sparkle_protocol import messages
from sparkle_protocol.effects import DropJob, Persist, Record, Reply, Requested, StoreFact, StoreResult
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Cancel, Endorsements, Fact, JobSpec, KeeperSet, Reset
from sparkle_protocol.ids import JobId, PeerId, ResultHash, key_from_peer_id
from sparkle_protocol.messages import JobBeat
from sparkle_protocol.work.duty import Duty
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.placement import LOCAL, UNKNOWN
from sparkle_protocol.work.presence import BEAT_NS
from sparkle_protocol.work.replication import Channel
from sparkle_protocol.work.tally import SHORT_ID, short_id

OFFERED_NS = 60 * SECOND_NS  # for the keeper set that names us to follow a spec
RETAIN_NS = 72 * 3600 * SECOND_NS  # TRUST: results are kept that long beyond the job's time
DISMISSED_NS = 600 * SECOND_NS  # a job whose newest view does not name us is kept that much longer
MAX_RELEASED = 4096
FULL = "full"  # refuses more of a job for the moment
FULL_PAUSE_NS = 60 * SECOND_NS
ALWAYS_KEPT = (KeeperSet, Endorsements, Reset, Cancel)  # however full it is: who keeps the job, and its end


class CoKeeping(Duty):
    """The part of a keeper that other keepers talk to."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._released: dict[JobId, None] = {}  # jobs we were told to forget, lest somebody brings them back
        self._dismissed_ns: dict[JobId, int] = {}
        self._beats: dict[int, PeerId] = {}  # requests under way
        self._beat_heard: dict[PeerId, int] = {}
        self._beat_ns: int | None = None

    # --- requests of other keepers ------------------------------------------------------------------------

    def _from_keeper(self, event: Requested, now_ns: int) -> None:
        """Serve a request. Raises RemoteProtocolError when it breaks a rule."""
        message, peer = event.message, event.peer
        self._meet(peer, now_ns)
        if isinstance(message, messages.Push):
            self._pushed(event.token, peer, message, now_ns)
        elif isinstance(message, messages.Beat):
            self._reply(event.token, messages.BeatReply(self._beats_for(peer, message.jobs, now_ns)))
        elif isinstance(message, messages.Release):
            self._release(event.token, peer, JobId(message.job))
        elif isinstance(message, messages.Compare | messages.Fetch):
            job = self.job(JobId(message.job))
            if job is None or not self._shares(job, peer):
                self._refuse(event.token, "unknown_job", "this peer keeps no such job")
            elif isinstance(message, messages.Compare):
                self._reply(event.token, _compared(job, message))
            else:
                self._fetched(event.token, job, message)

    def _meet(self, peer: PeerId, now_ns: int) -> None:
        """A peer is there; what it leads to if it was away is found out by ``_look_around``."""
        was_away = self.presence.away(peer, now_ns)
        self.presence.heard(peer, now_ns)
        if was_away:
            self._look_around(now_ns)

    def _reply(self, token: int, message: messages.Reply, attach: tuple[ResultHash, ...] = ()) -> None:
        self._persist()
        self._out.append(Reply(token, message, attach))

    def _refuse(self, token: int, code: str, text: str) -> None:
        self._out.append(Reply(token, messages.Refusal(code, text[:400])))

    @staticmethod
    def _shares(job: KeptJob, peer: PeerId) -> bool:
        return peer == job.state.submitter or job.state.views.ever_kept(peer)

    def _pushed(self, token: int, peer: PeerId, message: messages.Push, now_ns: int) -> None:
        job_id = JobId(message.job)
        job = self.job(job_id)
        known = job.state if job is not None else ()
        facts = [self._codec.open(raw) for raw in message.facts if self._codec.id_of(raw) not in known]
        if job is None:
            spec = next((fact for fact in facts if isinstance(fact.payload, JobSpec)), None)
            reason = self._why_not_kept(job_id, spec, peer, facts)
            if spec is None or reason:
                self._refuse(token, *(reason or ("unknown_job", "this peer keeps no such job")))
                return
            job = self._adopt(spec, now_ns)
        if not (self._shares(job, peer) or any(_names(fact, peer) for fact in facts)):
            self._refuse(token, "stranger", "this peer knows of no keeper set of the job that names you")
            return
        over = self.quota.over(job_id)
        if over and (message.results or not all(isinstance(fact.payload, ALWAYS_KEPT) for fact in facts)):
            self._refuse(token, FULL, over)
            return
        new = job.learn((fact for fact in facts if fact.id != job.state.spec_fact.id), message.results, now_ns)
        if job.mine:
            self._pass_on(job, new, peer)
        self._conclude(job, now_ns)
        own = self._own_words(job)
        self._after_news(job, now_ns)
        self._reply(token, messages.PushReply(job_id, [fact.raw for fact in own]))

    def _own_words(self, job: KeptJob) -> list[Fact]:
        """What we stated in consequence: it goes with the reply, and whoever pushed passes it on to the others."""
        fresh = self._spread.get(job.state.id, {})
        own = [fact for fact, source in fresh.values() if source == self.me][: messages.MAX_PUSHED_FACTS]
        for fact in own:
            del fresh[fact.id]
        return own

    def _why_not_kept(
        self, job_id: JobId, spec: Fact | None, peer: PeerId, facts: Iterable[Fact]
    ) -> tuple[str, str] | None:
        if job_id in self._released:
            return "released", "the submitter has what it wanted of this job"
        if spec is None or spec.job != job_id or not isinstance(spec.payload, JobSpec):
            return "unknown_job", "this peer keeps no such job"
        if spec.author == self.me:
            return "unknown_job", "this peer no longer knows that job of its own"
        named = any(_names(fact, peer) and fact.author == spec.author for fact in facts)
        if peer != spec.author and not named:
            return "not_yours", "a job comes from its submitter or from a keeper that its submitter named"
        refused = self.quota.admit(spec.author, self._network_of(spec.author), spec.payload, len(spec.raw))
        return ("quota", refused) if refused else None

    @abstractmethod
    def _network_of(self, peer: PeerId) -> str:
        """The network that a peer is in."""

    def _adopt(self, spec: Fact, now_ns: int) -> KeptJob:
        """Begin to keep somebody else's job."""
        job = self._take_up(spec, (), now_ns)
        self._count(job)
        job.records.append(StoreFact(spec))
        job.set_duty((), leads=False, now_ns=now_ns)
        self.presence.expect(spec.author, now_ns)
        self._dismissed_ns[job.state.id] = now_ns + OFFERED_NS
        self._beat_soon(now_ns)
        return job

    def _count(self, job: KeptJob, result_bytes: int = 0) -> None:
        """Count a job with all that is stored of it already."""
        submitter, spec = job.state.submitter, job.state.spec_fact
        network = self._network_of(submitter)
        if network == UNKNOWN:  # as after a restart: such jobs have nothing in common
            network = LOCAL
        self.quota.add(job.state.id, submitter, network, job.state.spec, len(spec.raw))
        size = sum(len(fact.raw) for fact in job.state.facts() if fact.id != spec.id)
        self.quota.grow(job.state.id, fact_bytes=size, result_bytes=result_bytes)

    def _stored(self, job: KeptJob, records: Iterable[Record]) -> None:
        if job.mine or not records:
            return
        facts = results = 0
        for record in records:
            if isinstance(record, StoreResult):
                results += len(record.result)
            elif isinstance(record, StoreFact) and record.fact.id != job.state.spec_fact.id:
                facts += len(record.fact.raw)
        self.quota.grow(job.state.id, fact_bytes=facts, result_bytes=results)

    def _conclude(self, job: KeptJob, now_ns: int) -> None:
        super()._conclude(job, now_ns)
        if job.freed_bytes:
            self.quota.grow(job.state.id, fact_bytes=-job.freed_bytes)
            job.freed_bytes = 0

    @abstractmethod
    def _after_news(self, job: KeptJob, now_ns: int) -> None:
        """A job's facts or results changed."""

    def _release(self, token: int, peer: PeerId, job_id: JobId) -> None:
        job = self.kept.get(job_id)
        if job is not None:
            if peer != job.state.submitter:
                raise RemoteProtocolError("only the submitter releases a job")
            self._let_go(job_id)
            self._released[job_id] = None
            while len(self._released) > MAX_RELEASED:
                del self._released[next(iter(self._released))]
            self._notify("job_released", job=job_id.hex(), peer=peer)
        self._out.append(Reply(token, messages.Ok()))

    def _let_go(self, job_id: JobId) -> None:
        """Keep somebody else's job no longer."""
        self._persist()
        self._forget(job_id)
        for left in (self._held_until, self._dismissed_ns, self._fetching, self._spans):
            left.pop(job_id, None)
        self.quota.remove(job_id)
        self._out.append(Persist((DropJob(job_id),)))

    def _fetched(self, token: int, job: KeptJob, message: messages.Fetch) -> None:
        wanted = {message.facts[at : at + SHORT_ID] for at in range(0, len(message.facts), SHORT_ID)}
        facts: list[bytes] = []
        size = 0
        for fact in job.state.facts() if wanted else ():
            if short_id(fact.id) in wanted and (not facts or size + len(fact.raw) <= messages.PUSH_BYTES):
                facts.append(fact.raw)
                size += len(fact.raw)
        ranges: list[bytes] = []
        for index in message.ranges:
            record = job.record_of(index)
            raw = record.encode() if record is not None else b""
            if raw and (not (facts or ranges) or size + len(raw) <= messages.PUSH_BYTES):
                ranges.append(raw)
                size += len(raw)
        results = tuple(ResultHash(name) for name in message.results)
        reply = messages.FetchReply(job.state.id, facts[: messages.MAX_PUSHED_FACTS], ranges=ranges)
        self._reply(token, reply, results)

    # --- answers of other keepers -------------------------------------------------------------------------

    def _channel_answered(self, channel: Channel, message: messages.Reply, now_ns: int) -> None:
        job, asked = self.job(channel.job), channel.under_way
        channel.under_way = None
        if job is None:
            return
        channel.introduced = channel.introduced and isinstance(message, messages.Refusal)
        if isinstance(message, messages.PushReply):
            facts = [self._codec.open(raw) for raw in message.facts if self._codec.id_of(raw) not in job.state]
            self._learn(job, facts, (), channel.peer, now_ns, pass_on=True)
            self._kept_by(job, channel.peer, asked, now_ns)
        elif isinstance(message, messages.CompareReply):
            self._channels.compared(channel, job, message, now_ns)
            self._kept_by(job, channel.peer, asked, now_ns)
        elif isinstance(message, messages.FetchReply) and isinstance(asked, messages.Fetch):
            self._take_fetched(channel, job, asked, message, now_ns)
        elif isinstance(message, messages.Refusal):
            self._channel_refused(channel, job, message, now_ns)

    def _take_fetched(
        self, channel: Channel, job: KeptJob, asked: messages.Fetch, message: messages.FetchReply, now_ns: int
    ) -> None:
        for at in range(0, len(asked.facts), SHORT_ID):
            channel.fetch.pop(asked.facts[at : at + SHORT_ID], None)
        for name in asked.results:
            channel.results.pop(ResultHash(name), None)
        for index in asked.ranges:
            channel.ranges.pop(index, None)
        came = {self._codec.id_of(raw): raw for raw in message.facts}
        if came:  # what did not fit is asked for once more
            known = {short_id(fact_id) for fact_id in came}
            for at in range(0, len(asked.facts), SHORT_ID):
                if asked.facts[at : at + SHORT_ID] not in known:
                    channel.fetch[asked.facts[at : at + SHORT_ID]] = None
        facts = [self._codec.open(raw) for fact_id, raw in came.items() if fact_id not in job.state]
        sealed = [job.take_record(raw, now_ns) for raw in message.ranges]
        self._learn(job, facts, message.results, channel.peer, now_ns)
        if message.results or any(sealed):
            self._fetching.pop(job.state.id, None)

    def _learn(
        self,
        job: KeptJob,
        facts: Iterable[Fact],
        results: Iterable[bytes],
        source: PeerId,
        now_ns: int,
        *,
        pass_on: bool = False,
    ) -> None:
        new = job.learn(facts, results, now_ns)
        if job.mine or pass_on:
            self._pass_on(job, new, source)
        self._conclude(job, now_ns)
        self._after_news(job, now_ns)

    def _channel_refused(self, channel: Channel, job: KeptJob, refusal: messages.Refusal, now_ns: int) -> None:
        if refusal.code == "unknown_job" and channel.peer != job.state.submitter:
            self._channels.start_from_nothing(channel, job, now_ns)
        elif refusal.code == "stranger" and not channel.introduced:
            channel.introduced = True
            self._channels.introduce(channel, job, now_ns)
        elif refusal.code == FULL:
            channel.synced, channel.retry_at_ns = False, now_ns + FULL_PAUSE_NS
        else:
            channel.refused = refusal.text or refusal.code
            self._notify("keeper_refused", job=job.state.id.hex(), peer=channel.peer, reason=channel.refused)

    @abstractmethod
    def _kept_by(self, job: KeptJob, peer: PeerId, asked: messages.Request | None, now_ns: int) -> None:
        """A peer has stored what we sent it."""

    # --- beats --------------------------------------------------------------------------------------------

    def _shared_jobs(self) -> dict[PeerId, list[KeptJob]]:
        """The jobs that we share with each peer and that are not over."""
        found: dict[PeerId, list[KeptJob]] = {}
        for job in self.all_jobs():
            if not job.outcome or not job.mine:
                for peer in self.partners(job):
                    found.setdefault(peer, []).append(job)
        return found

    def _beat_soon(self, now_ns: int) -> None:
        if self._beat_ns is None and self._shared_jobs():
            self._beat_ns = now_ns + int(BEAT_NS * self._rng.uniform(0.8, 1.2))

    def _beat(self, now_ns: int) -> None:
        """Say that we are here to everybody who has not just said so, and see who is away."""
        shared = self._shared_jobs()
        self._beat_ns = None
        if not shared:
            return
        self._beat_soon(now_ns)
        self.presence.forget(set(shared))
        for peer, jobs in shared.items():
            self.presence.expect(peer, now_ns)
            if now_ns - self._beat_heard.get(peer, -BEAT_NS) >= BEAT_NS * 3 // 4:
                self._beats[self._send(peer, messages.Beat([_job_beat(j) for j in jobs[: messages.MAX_BEATS]]))] = (
                    peer
                )
        self._beat_heard = {peer: at for peer, at in self._beat_heard.items() if peer in shared}
        self._look_around(now_ns)

    def _beats_for(self, peer: PeerId, beats: list[JobBeat], now_ns: int) -> list[JobBeat]:
        """What we know of the jobs that a peer says it keeps."""
        self._beat_heard[peer] = now_ns
        own: list[JobBeat] = []
        for beat in beats:
            job = self.job(JobId(beat.job))
            if job is None or not self._shares(job, peer):
                continue
            if job.mine and job.outcome in ("done", "cancelled"):
                self._persist()
                self._send(peer, messages.Release(job.state.id))
                continue
            own.append(_job_beat(job))
            self._sums_of(job, peer, beat)
        return own

    def _beat_answered(self, peer: PeerId, reply: messages.BeatReply) -> None:
        by_job = {JobId(beat.job): beat for beat in reply.jobs}
        for job in self._shared_jobs().get(peer, ()):
            beat = by_job.get(job.state.id)
            channel = self._channels.to(job.state.id, peer)
            if beat is not None:
                self._sums_of(job, peer, beat)
            elif peer != job.state.submitter and not channel.refused:
                channel.synced = False  # it should keep the job and does not: it will be told all of it

    def _sums_of(self, job: KeptJob, peer: PeerId, beat: JobBeat) -> None:
        channel = self._channels.to(job.state.id, peer)
        channel.complete = beat.complete
        if beat.sum == job.state.tally.total():
            channel.differed = False
        elif channel.differed and channel.idle:
            channel.synced, channel.differed = False, False
        else:
            channel.differed = True

    # --- what is looked after -----------------------------------------------------------------------------

    def _drop_what_is_over(self, now_ns: int) -> None:
        """Forget jobs of others that nobody needs from us any more."""
        for job_id, job in list(self.kept.items()):
            view = job.state.view
            if view is not None and view.holds(self.me):
                self._dismissed_ns.pop(job_id, None)
            else:
                self._dismissed_ns.setdefault(job_id, now_ns + DISMISSED_NS)
            limit_ns = job.started_ns + job.state.spec.deadlines.total_s * SECOND_NS + RETAIN_NS
            if now_ns >= min(limit_ns, self._dismissed_ns.get(job_id, limit_ns)):
                self._let_go(job_id)


def _names(fact: Fact, peer: PeerId) -> bool:
    return isinstance(fact.payload, KeeperSet) and key_from_peer_id(peer) in fact.payload.keys


def _job_beat(job: KeptJob) -> JobBeat:
    return JobBeat(job.state.id, job.state.tally.total(), not (job.lacking or job.wanted))


def _compared(job: KeptJob, message: messages.Compare) -> messages.CompareReply:
    differing = job.state.tally.differing(message.sums)
    by_bucket: dict[int, list[bytes]] = {bucket: [] for bucket in differing}
    for fact in job.state.facts():
        if fact.id[0] in by_bucket:
            by_bucket[fact.id[0]].append(short_id(fact.id))
    buckets: list[int] = []
    ids: list[bytes] = []
    for bucket in differing:
        if buckets and len(ids) + len(by_bucket[bucket]) > messages.MAX_COMPARED:
            break
        buckets.append(bucket)
        ids += by_bucket[bucket][: messages.MAX_COMPARED]
    return messages.CompareReply(job.state.id, bytes(buckets), b"".join(ids))
