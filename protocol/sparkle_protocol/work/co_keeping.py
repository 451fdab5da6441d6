"""What keepers of the same job say to each other: pushes, comparisons, fetches, releases (and ``beats.py``).

- Whoever pushes must be the job's submitter or be named by one of its keeper sets; a job that is new here comes
  with its spec, and is kept if there is room for it.
- Everything a keeper hears may be said again, late, or in another order.
"""

from abc import abstractmethod
from collections.abc import Iterable
from random import Random

from sparkle_protocol import messages
from sparkle_protocol.effects import (
    DropJob,
    Persist,
    Record,
    ReleaseResults,
    Reply,
    Requested,
    ResultNotHeld,
    StoreFact,
    StoreResult,
)
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Endorsements, Fact, FactCodec, JobSpec, KeeperSet, Signer
from sparkle_protocol.ids import JobId, PeerId, ResultHash, key_from_peer_id
from sparkle_protocol.work.allowance import Allowance
from sparkle_protocol.work.beats import Beats
from sparkle_protocol.work.judging import CheckResult
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.placement import LOCAL, UNKNOWN
from sparkle_protocol.work.replication import Channel
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.tally import SHORT_ID, short_id

OFFERED_NS = 60 * SECOND_NS  # for the keeper set that names us to follow a spec
RETAIN_NS = 72 * 3600 * SECOND_NS  # TRUST: results are kept that long beyond the job's time
DISMISSED_NS = 600 * SECOND_NS  # a job whose newest view does not name us is kept that much longer
MAX_RELEASED = 4096
FULL = "full"  # refuses more of a job for the moment
FULL_PAUSE_NS = 60 * SECOND_NS


class CoKeeping(Beats):
    """The part of a keeper that other keepers talk to."""

    def __init__(
        self, signer: Signer, codec: FactCodec, rng: Random, check_result: CheckResult, rules: Rules = PRODUCTION
    ) -> None:
        super().__init__(signer, codec, rng, check_result, rules)
        self._allowance = Allowance()
        self._released: dict[JobId, None] = {}  # jobs we were told to forget, lest somebody brings them back
        self._dismissed_ns: dict[JobId, int] = {}

    # --- requests of other keepers ------------------------------------------------------------------------

    def _from_keeper(self, event: Requested, now_ns: int) -> None:
        """Serve a request. Raises RemoteProtocolError when it breaks a rule."""
        message, peer = event.message, event.peer
        self._meet(peer, now_ns)
        if type(message) is messages.Push:
            self._pushed(event.token, peer, message, now_ns)
        elif type(message) is messages.Beat:
            self._reply(event.token, messages.BeatReply(self._beats_for(peer, message.jobs, now_ns)))
        elif type(message) is messages.Release:
            self._release(event.token, peer, JobId(message.job))
        elif type(message) is messages.Compare or type(message) is messages.Fetch:
            job = self.job(JobId(message.job))
            if job is None or not self._shares(job, peer):
                self._refuse(event.token, "unknown_job", "this peer keeps no such job")
            elif isinstance(message, messages.Compare):
                self._reply(event.token, _compared(job, message))
            else:
                self._invitations.moved(job.state.id, peer, now_ns)
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

    def _pushed(self, token: int, peer: PeerId, message: messages.Push, now_ns: int) -> None:
        job_id = JobId(message.job)
        job = self.job(job_id)
        known = job.state if job is not None else ()
        facts = self._codec.open_new(message.facts, known)
        if job is None:
            spec = next((fact for fact in facts if type(fact.payload) is JobSpec), None)
            reason = self._why_not_kept(job_id, spec, peer, facts)
            if spec is None or reason:
                self._refuse(token, *(reason or ("unknown_job", "this peer keeps no such job")))
                return
            job = self._adopt(spec, peer, now_ns)
        if not (self._shares(job, peer) or any(_names(fact, peer) for fact in facts)):
            self._refuse(token, "stranger", "this peer knows of no keeper set of the job that names you")
            return
        facts = [fact for fact in facts if fact.id != job.state.spec_fact.id]
        over = self.quota.over(job_id)
        if over and (message.results or not self._allowance.fits(job.state, facts)):
            self._refuse(token, FULL, over)
            return
        self._still_wanted(job, peer, now_ns)
        new = job.learn(self._allowance.select(job.state, facts), message.results, now_ns)
        if job.mine:
            self._pass_on(job, new, peer)
        self._conclude(job, now_ns)
        own = self._own_words(job)
        self._after_news(job, now_ns)
        self._reply(token, messages.PushReply(job_id, [fact.raw for fact in own]))

    def _own_words(self, job: KeptJob) -> list[Fact]:
        """What we stated in consequence: it goes with the reply, and whoever pushed passes it on to the others.

        But a keeper passes on nothing to them while our own job's submitter is there, which is us: we do it.
        """
        fresh = self._spread.get(job.state.id, {})
        own = [fact for fact, source in fresh.values() if source == self.me][: messages.MAX_PUSHED_FACTS]
        for fact in own if not job.mine else ():
            del fresh[fact.id]
        return own

    def _why_not_kept(
        self, job_id: JobId, spec: Fact | None, peer: PeerId, facts: Iterable[Fact]
    ) -> tuple[str, str] | None:
        if job_id in self._released:
            return "released", "the submitter has what it wanted of this job"
        if spec is None or spec.job != job_id or type(spec.payload) is not JobSpec:
            return "unknown_job", "this peer keeps no such job"
        if spec.author == self.me:
            return "unknown_job", "this peer no longer knows that job of its own"
        if peer != spec.author and not self._is_brought_by_a_keeper(spec, facts, peer):
            return "not_yours", "a job comes from its submitter or from one of its keepers"
        network = self._charged_network(spec, peer)
        refused = self.quota.admit(spec.author, network, spec.payload, len(spec.raw))
        return ("quota", refused) if refused else None

    def _is_brought_by_a_keeper(self, spec: Fact, facts: Iterable[Fact], peer: PeerId) -> bool:
        """Keeper sets of a job that is new here show that a peer keeps it, or once did."""
        shown = [fact for fact in facts if isinstance(fact.payload, KeeperSet | Endorsements)]
        if any(_names(fact, peer) and fact.author == spec.author for fact in shown):
            return True
        state = JobState(spec, self._codec.network)
        state.merge(fact for fact in shown if fact.job == spec.job)
        return state.view is not None and state.view.holds(peer)

    @abstractmethod
    def _network_of(self, peer: PeerId) -> str:
        """The network that a peer is in."""

    def _charged_network(self, spec: Fact, pusher: PeerId) -> str:
        """The network that a job counts for: its submitter's, or of whoever brings it while that is not connected."""
        network = self._network_of(spec.author)
        return self._network_of(pusher) if network == UNKNOWN else network

    def _adopt(self, spec: Fact, pusher: PeerId, now_ns: int) -> KeptJob:
        """Begin to keep somebody else's job."""
        job = self._take_up(spec, (), now_ns)
        self._count(job, self._charged_network(spec, pusher))
        job.records.append(StoreFact(spec))
        job.set_duty((), leads=False, now_ns=now_ns)
        self._out += self._inputs.hold(job.state, self.quota.sizes)
        self.presence.expect(spec.author, now_ns)
        self._dismissed_ns[job.state.id] = now_ns + OFFERED_NS
        self._beat_soon(now_ns)
        return job

    def _count(self, job: KeptJob, network: str, result_bytes: int = 0) -> None:
        """Count a job with all that is stored of it already."""
        submitter, spec = job.state.submitter, job.state.spec_fact
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
        job = self.kept[job_id]
        self._out += self._inputs.release(job.state)
        if self.quota.sizes.result_bytes(job.state.spec, 0):
            self._out.append(ReleaseResults(job_id))
        self._forget(job_id)
        self._out.append(Persist((DropJob(job_id),)))

    def _forget(self, job_id: JobId) -> None:
        super()._forget(job_id)
        for left in (self._held_until, self._dismissed_ns, self._fetching, self._in_vain, self._spans):
            left.pop(job_id, None)
        self.quota.remove(job_id)
        self._spares.release(job_id)
        self._allowance.forget(job_id)
        self._invitations.forget(job_id)

    def _fetched(self, token: int, job: KeptJob, message: messages.Fetch) -> None:
        wanted = {message.facts[at : at + SHORT_ID] for at in range(0, len(message.facts), SHORT_ID)}
        buckets = {one[0] for one in wanted}
        facts: list[bytes] = []
        size = 0
        for fact in job.state.facts() if wanted else ():
            if fact.id[0] not in buckets or short_id(fact.id) not in wanted:
                continue
            if not facts or size + len(fact.raw) <= messages.PUSH_BYTES:
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
        if type(message) is not messages.Refusal:
            channel.introduced, channel.refused = False, ""
            self._invitations.moved(job.state.id, channel.peer, now_ns)
        if type(message) is messages.PushReply:
            facts = self._codec.open_new(message.facts, job.state)
            channel.owed.difference_update(channel.sent)
            channel.refusals = 0
            self._learn(job, facts, (), channel.peer, now_ns, pass_on=True)
            self._kept_by(job, channel.peer, asked, now_ns)
        elif type(message) is messages.CompareReply:
            self._channels.compared(channel, job, message, now_ns)
            self._kept_by(job, channel.peer, asked, now_ns)
        elif type(message) is messages.FetchReply and type(asked) is messages.Fetch:
            self._take_fetched(channel, job, asked, message, now_ns)
        elif type(message) is messages.Refusal:
            self._channel_refused(channel, job, message, now_ns)
        self._ask_guest(channel, job, now_ns)

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
        if message.results or any(sealed):  # what did not fit into this answer is asked for at once
            self._fetching.pop(job.state.id, None)
            self._in_vain.pop(job.state.id, None)
        self._learn(job, facts, message.results, channel.peer, now_ns)

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
        new = job.learn(self._allowance.select(job.state, facts), results, now_ns)
        if job.mine or pass_on:
            self._pass_on(job, new, source)
        self._conclude(job, now_ns)
        self._after_news(job, now_ns)

    def _channel_refused(self, channel: Channel, job: KeptJob, refusal: messages.Refusal, now_ns: int) -> None:
        if refusal.code == "unknown_job" and channel.peer != job.state.submitter and _may_give(job):
            self._channels.start_from_nothing(channel, job, now_ns)
        elif refusal.code == "stranger" and not channel.introduced:
            channel.introduced = True
            self._channels.introduce(channel, job, now_ns)
        elif refusal.code == FULL:
            channel.synced, channel.retry_at_ns = False, now_ns + FULL_PAUSE_NS
        else:
            over = refusal.code == "released" or (job.mine and not _may_give(job))
            self._channels.refused(channel, refusal.text or refusal.code, now_ns, for_good=over)
            let_go = refusal.code == "released" and bool(job.outcome)  # as it should, once the job is over
            if channel.refusals == 1 and not let_go:
                self._notify("keeper_refused", job=job.state.id.hex(), peer=channel.peer, reason=channel.refused)

    @abstractmethod
    def _kept_by(self, job: KeptJob, peer: PeerId, asked: messages.Request | None, now_ns: int) -> None:
        """A peer has stored what we sent it."""

    # --- what is looked after -----------------------------------------------------------------------------

    def _still_wanted(self, job: KeptJob, peer: PeerId, now_ns: int) -> None:
        until_ns, view = self._dismissed_ns.get(job.state.id), job.state.view
        if until_ns is not None and (peer == job.state.submitter or (view is not None and view.holds(peer))):
            self._dismissed_ns[job.state.id] = max(until_ns, now_ns + OFFERED_NS)

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

    # --- blobs of results ---------------------------------------------------------------------------------

    def _keep_spares(self, now_ns: int) -> None:
        """Have the blobs of results kept that it is for us to keep; see ``spares.py``."""
        for job in self.kept.values():
            if job.outcome != "cancelled":
                self._out += self._spares.look(job, self.presence, self.quota, now_ns)

    def _result_not_held(self, event: ResultNotHeld, now_ns: int) -> None:
        size = self._spares.not_held(event.job, event.unit, now_ns, full=event.full)
        self.quota.grow(event.job, blob_bytes=-size)


def _may_give(job: KeptJob) -> bool:
    """Others take the job from us: it is ours and not over, or we keep it, not only may come to."""
    if job.mine:
        return job.outcome not in ("done", "cancelled")
    return job.state.view is not None and job.state.view.holds(job.me)


def _names(fact: Fact, peer: PeerId) -> bool:
    return type(fact.payload) is KeeperSet and key_from_peer_id(peer) in fact.payload.keys


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
