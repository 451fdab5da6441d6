"""The keeper of jobs: hands out their units, takes in what workers report, and keeps step with the other keepers.

It answers ``LeaseRequest`` and ``Report`` of workers, pushes ``Notice`` and ``Offer`` to them, and serves the
requests of other keepers (``co_keeping.py``). Of its own jobs it hands out everything; of others' what it has duty
for. ``restore`` continues a job from its stored facts.
"""

from collections.abc import Iterable
from random import Random

from sparkle_protocol import messages
from sparkle_protocol.effects import (
    DropJob,
    Effects,
    Gossiped,
    InputsHeld,
    PeerDown,
    PeerUp,
    Persist,
    Provide,
    Publish,
    Replied,
    Reply,
    Requested,
    ResultNotHeld,
    SendFailed,
    Tick,
    UnitChecked,
    Violation,
)
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Fact, FactCodec, Signer, Verdicts
from sparkle_protocol.ids import JobId, PeerId, ResultHash
from sparkle_protocol.work.co_keeping import CoKeeping
from sparkle_protocol.work.fairness import Weigh, equal_weight
from sparkle_protocol.work.judging import CheckResult
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.leasing import Leasing
from sparkle_protocol.work.line import Place
from sparkle_protocol.work.memory import fits
from sparkle_protocol.work.placement import network_prefix
from sparkle_protocol.work.rejection import Rejection
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_protocol.work.sealed import SealedRange

MAX_PEERS_OFFERED = 64
ANNOUNCE_GAP_S = 5.0  # new work waits that long for more, so that many small jobs share an announcement
ANNOUNCE_EVERY_S = 30.0  # so often a keeper with work to give says so to everybody
# Every node is to hear of work about once a second at most, whatever the number of keepers: each announces the more
# rarely the more of them it hears. A made-up crowd can make it no rarer than ``SELDOM_S``; lookups find keepers too.
HEARD_EVERY_S, SELDOM_S = 1.0, 300.0
MAX_ANNOUNCERS = 1024  # that are remembered; those heard of the longest ago go first
IDLE_WAIT_MS = 2_000  # a worker for whom there is nothing now asks again after this; offers come sooner
MAX_IDLE_KNOWN = 1_024
MAX_TEXT = 400  # of what a check found
MAX_WAITING = 1 << 20  # units named in a message
# Between two notices to a worker that has more units to compute. It is longer than such a worker lets us wait for its
# next report, if its units are short: then news go with the answer to that.
NOTICE_PACE_NS = 4 * SECOND_NS


class Keeper(CoKeeping):
    """The part of a keeper that workers talk to."""

    def __init__(
        self,
        signer: Signer,
        codec: FactCodec,
        rng: Random,
        check_result: CheckResult,
        weigh: Weigh = equal_weight,
        rules: Rules = PRODUCTION,
    ) -> None:
        super().__init__(signer, codec, rng, check_result, rules)
        self._leasing = Leasing(rng, weigh)
        self.addresses: tuple[str, ...] = ()  # ours, as the shell knows them; they go into announcements
        self._peers: dict[PeerId, tuple[str, ...]] = {}  # connected ones
        self._idle: dict[PeerId, None] = {}  # asked and got nothing; an offer goes to them first
        self._announcers: dict[PeerId, int] = {}  # others that announce, and when they did last
        self._announce_ns: int | None = None  # when the next announcement is due
        self._quiet_until_ns: int | None = None  # none is sent before
        self._provided: set[tuple[str, int]] = set()  # kernels and shards of the latest one
        self._told_ns: dict[PeerId, int] = {}  # when workers last heard news
        self._unsaid: dict[JobId, KeptJob] = {}  # jobs with news that wait a moment
        self._unsaid_ns: int | None = None

    # --- commands -----------------------------------------------------------------------------------------

    def restore(
        self,
        spec: Fact,
        facts: Iterable[Fact],
        now_ns: int,
        results: Iterable[ResultHash] = (),
        result_bytes: int = 0,
        sealed: Iterable[SealedRange] = (),
        age_ns: int = 0,
        rejections: Iterable[Rejection] = (),
    ) -> Effects:
        """Continue a job from its stored facts; ``results`` (in so many bytes) and the others are stored with it.

        Somebody else's job that was let go before is not taken up again: its facts may still be stored for the sake
        of our worker. ``age_ns``: how long such a job was kept in earlier lives, so that restarts do not prolong it.
        """
        results = tuple(results)
        job = self._take_up(spec, facts, now_ns, results, sealed, rejections)
        if not job.mine and _was_let_go(job, results):
            self._forget(job.state.id)
            return (Persist((DropJob(job.state.id),)),)
        if not job.mine:
            job.started_ns = now_ns - age_ns
            self._count(job, self._network_of(job.state.submitter), result_bytes)
        self._end_if_over(job, now_ns)
        if not job.outcome:
            self._hold(job, now_ns)
            self._out += self._inputs.hold(job.state, self.quota.sizes) if not job.mine else ()
        elif not job.mine:
            self._beat_soon(now_ns)  # its results may still be wanted, and some day nothing of it is
        self._set_duty(job, now_ns)
        self._resumed(job, now_ns)
        return self._flush(now_ns)

    def _resumed(self, job: KeptJob, now_ns: int) -> None:
        """A job was restored: tell of its work if it is ours."""
        if job.mine and not job.outcome:
            self._announce_soon(now_ns)
            self._offer([self.me])

    # --- questions ----------------------------------------------------------------------------------------

    def waiting_submitters(self) -> dict[PeerId, str]:
        """Whoever else has units of jobs that pay to be handed out here now, each with its network."""
        return {
            job.state.submitter: self.quota.network_of(job.state.id)
            for job in self._open()
            if not job.mine and job.pays and job.leases.has_work
        }

    def place_of(self, job_id: JobId, now_ns: int) -> Place | None:
        """Where a job stands in line here; None when this node has nothing of it to hand out."""
        jobs = [job for job in self._open() if job.leases.has_work]
        job = self.job(job_id)
        if job is None or job not in jobs:
            return None
        return self._leasing.place(job, jobs, self.quota.network_of, len(self._peers), now_ns)

    # --- events -------------------------------------------------------------------------------------------

    def handle(self, event: object, now_ns: int) -> Effects:
        """React to an event; events that do not concern a keeper change nothing."""
        if isinstance(event, Requested):
            self._requested(event, now_ns)
        elif isinstance(event, Replied):
            self._replied(event, now_ns)
        elif isinstance(event, SendFailed):
            self._beats.pop(event.tag, None)
            self._channels.failed(event.tag, event.peer, now_ns)
        elif isinstance(event, PeerUp):
            self._up(event, now_ns)
        elif isinstance(event, PeerDown):
            self._peers.pop(event.peer, None)
            self._idle.pop(event.peer, None)
            self.presence.lost(event.peer, now_ns)
            for job in self._open():
                job.lost(event.peer, now_ns)
        elif isinstance(event, Tick):
            self._tick(now_ns)
        elif isinstance(event, UnitChecked):
            self._unit_checked(event, now_ns)
        elif isinstance(event, Gossiped):
            self._heard(event, now_ns)
        elif isinstance(event, InputsHeld):
            self._inputs_held(event.job, now_ns)
        elif isinstance(event, ResultNotHeld):
            self._result_not_held(event, now_ns)
        return self._flush(now_ns)

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        open_ = self._open()
        times = [self._beat_ns, self._unsaid_ns, self._channels.next_deadline()]
        if any(job.leases.spans for job in open_):
            times.append(self._announce_ns)
        for job in open_:
            times += [job.leases.next_deadline(), self._next_fetch_ns(job), job.next_heed_ns()]
        times += list(self._held_until.values())
        return min((time for time in times if time is not None), default=None)

    def _open(self) -> list[KeptJob]:
        return [job for job in (*self.jobs.values(), *self.kept.values()) if not job.outcome]

    def _up(self, event: PeerUp, now_ns: int) -> None:
        self._peers[event.peer] = event.addresses
        self._channels.connected(event.peer, now_ns)
        for job in self._open():
            job.leases.returned(event.peer)
        serving = {job.state.kernel for job in self._open() if job.leases.spans}
        if serving:  # though all be handed out: it may copy what others are slow with, or be wanted soon
            self._send(event.peer, messages.Offer(sorted(serving)[:64]))

    def _requested(self, event: Requested, now_ns: int) -> None:
        message = event.message
        try:
            if type(message) is messages.LeaseRequest:
                self._lease(event, message, now_ns)
            elif type(message) is messages.Report:
                self._report(event, message, now_ns)
            else:
                self._from_keeper(event, now_ns)
        except RemoteProtocolError as error:
            self._out.append(Violation(event.peer, str(error)))
            self._out.append(Reply(event.token, messages.Refusal("protocol", str(error)[:400])))

    def _replied(self, event: Replied, now_ns: int) -> None:
        self._meet(event.peer, now_ns)
        try:
            peer, asked = self._beats.pop(event.tag, ("", frozenset()))
            if peer == event.peer:
                if type(event.message) is messages.BeatReply:
                    self._beat_answered(event.peer, event.message, asked, now_ns)
                return
            channel = self._channels.answered(event.tag, event.peer)
            if channel is not None:
                self._channel_answered(channel, event.message, now_ns)
        except RemoteProtocolError as error:
            self._out.append(Violation(event.peer, str(error)))

    # --- workers ------------------------------------------------------------------------------------------

    def _lease(self, event: Requested, message: messages.LeaseRequest, now_ns: int) -> None:
        worker, kernels, unwanted = event.peer, frozenset(message.kernels), frozenset(message.unwanted)
        offered: list[KeptJob] = []
        others: set[KeptJob] = set()
        too_large: list[messages.TooLarge] = []
        works = any(job.works(worker) for job in self._open())
        for job in self._open():
            if not job.leases.spans:
                continue
            if not job.mine and job.leases.has_work:
                others.add(job)
            if job.state.kernel in kernels and job.state.id not in unwanted:
                if not fits(job.state.spec, message.memory_bytes):
                    too_large.append(messages.TooLarge(job.state.id, job.state.spec.resources.memory_bytes))
                    continue
                if job.devices.asks(worker, message.device, now_ns):
                    job.revalue(worker, now_ns)
                job.saw(worker, now_ns, works=works)
                if not job.refuses(worker, now_ns):
                    offered.append(job)
        peers = len(self._peers)
        hand = self._leasing.hand_out(worker, message, offered, others, self.quota.network_of, peers, now_ns)
        leases: list[bytes] = []
        for job, granted in hand.grants.items():
            self._touched[job.state.id] = job
            leases.append(self._lease_fact(job, worker, granted).raw)
        self._idle.pop(worker, None)
        if not leases and (offered or not too_large) and len(self._idle) < MAX_IDLE_KNOWN:
            self._idle[worker] = None
        wait_ms = 0 if leases else int(IDLE_WAIT_MS * self._rng.uniform(0.75, 1.25))
        waiting = self._waiting_units(offered)
        left_out = too_large[: messages.MAX_TOO_LARGE]
        self._reply(event.token, messages.LeaseReply(hand.jobs, leases, wait_ms, len(offered), waiting, left_out))

    @staticmethod
    def _waiting_units(jobs: Iterable[KeptJob]) -> int:
        return min(MAX_WAITING, sum(job.leases.backlog for job in jobs))

    def _report(self, event: Requested, message: messages.Report, now_ns: int) -> None:
        job = self.job(JobId(message.job))
        if job is None:
            self._refuse(event.token, "unknown_job", "this peer keeps no such job")
            return
        self._touched[job.state.id] = job
        if job.outcome not in ("cancelled", "failed"):
            over = self.quota.over(job.state.id)
            if over and message.results:
                self._refuse(event.token, "busy", over)
                return
            facts = [self._codec.open(raw) for raw in message.facts]
            if job.is_behind(facts):  # its bearer did nothing wrong: whoever gave it the unit knows more than we do
                self._refuse(event.token, "busy", "this keeper does not know yet who keeps the job now")
                return
            returned = sum(job.leases.was_first(back.unit, event.peer) for back in message.returned)
            new = job.report(event.peer, message, facts, now_ns)
            self._leasing.answered(job, event.peer, now_ns)
            self._leasing.returned(job, returned, len(self._peers))
            self._pass_on(job, new, None)  # what its worker states, a node's keeper has not heard of
            self._conclude(job, now_ns)
            self._after_news(job, now_ns)
        self._told_ns[event.peer] = now_ns
        self._reply(event.token, job.reply(event.peer))
        if message.results and self.quota.over(job.state.id):
            self._set_duty(job, now_ns)

    def _unit_checked(self, event: UnitChecked, now_ns: int) -> None:
        key, job = (event.unit, event.epoch, event.worker), self.job(event.job)
        self._checks.answered(event.job, key)
        if job is not None:
            job.checked(key, event.passed, event.text[:MAX_TEXT], now_ns)
            self._conclude(job, now_ns)
            self._after_news(job, now_ns)

    def _inputs_held(self, job_id: JobId, now_ns: int) -> None:
        job = self.kept.get(job_id)
        if self._inputs.came(job_id) and job is not None:
            self._tell_of_inputs(job, now_ns)

    def _tick(self, now_ns: int) -> None:
        for job in self._open():
            for unit, worker, kind in job.expire(now_ns):
                self._notify("lease_expired", job=job.state.id.hex(), unit=unit, peer=worker, kind=kind)
            self._conclude(job, now_ns)
            self._end_if_over(job, now_ns)
            self._fetch_results(job, now_ns)
        if self._held_until:
            self._look_around(now_ns)
        if self._beat_ns is not None and now_ns >= self._beat_ns:
            self._beat(now_ns)
            self._drop_what_is_over(now_ns)
            self._keep_spares(now_ns)
        if self._announce_ns is not None and now_ns >= self._announce_ns:
            self._announce(now_ns)

    # --- consequences -------------------------------------------------------------------------------------

    def _after_news(self, job: KeptJob, now_ns: int) -> None:
        self._set_duty(job, now_ns)
        self._fetch_results(job, now_ns)
        self._end_if_over(job, now_ns)

    def _end_if_over(self, job: KeptJob, now_ns: int) -> None:
        """Others' jobs are over here as their facts say; they are kept until they are released."""
        if job.outcome == "failed" and not job.mine and job.state.cancel is None:  # units were begun anew
            job.go_on(now_ns)
            self._set_duty(job, now_ns)
        if job.outcome or job.mine:
            return
        cancel = job.state.cancel
        if job.state.finished:
            job.end("done", "", now_ns)
        elif cancel is not None:
            job.end("failed" if cancel.failed else "cancelled", cancel.reason, now_ns)
        if job.outcome:
            self._conclude(job, now_ns)  # ranges may be sealed now that nobody is waited for
        if job.outcome in ("done", "cancelled"):
            self._persist()  # what was said before, that they be held, may stand after one
            self._out += self._inputs.release(job.state)

    def _offer(self, peers: Iterable[PeerId]) -> None:
        kernels = self._open_kernels()
        if kernels:
            waiting = self._waiting_units(self._open())
            for peer in peers:
                self._send(peer, messages.Offer(kernels, waiting))

    def _open_kernels(self) -> list[str]:
        wanting = (job for job in self._open() if job.leases.has_work)
        return sorted({job.state.kernel for job in wanting})[:64]

    def _open_shards(self) -> list[tuple[str, int]]:
        wanting = (job.state for job in self._open() if job.leases.has_work)
        return sorted({(state.kernel, messages.shard_of(state.id)) for state in wanting})[:64]

    def _announce_soon(self, now_ns: int) -> None:
        """There is new work: announce it now, or with all else that comes up until the next announcement."""
        due_ns = max(now_ns, self._quiet_until_ns or 0)
        if self._announce_ns is None or due_ns < self._announce_ns:
            self._announce_ns = due_ns
        if due_ns <= now_ns:
            self._announce(now_ns)
        else:
            self._provide()

    def _announce(self, now_ns: int) -> None:
        self._announce_ns = None
        if not any(job.leases.spans for job in self._open()):
            return
        every_s = min(SELDOM_S, max(ANNOUNCE_EVERY_S, HEARD_EVERY_S * self._count_announcers(now_ns)))
        self._announce_ns = now_ns + int(every_s * self._rng.uniform(1.0, 1.2) * SECOND_NS)
        kernels = self._open_kernels()
        if not kernels:
            return
        self._quiet_until_ns = now_ns + int(ANNOUNCE_GAP_S * SECOND_NS)
        addresses = [a for a in self.addresses if len(a) <= messages.MAX_ADDRESS_CHARS][: messages.MAX_ADDRESSES]
        announcement = messages.Announcement(1, kernels, addresses)
        self._out.append(Publish(messages.jobs_topic(self._codec.network), messages.encode_message(announcement)))
        self._provided.clear()
        self._provide()

    def _heard(self, event: Gossiped, now_ns: int) -> None:
        """Somebody announces work."""
        if event.topic == messages.jobs_topic(self._codec.network) and event.author != self.me:
            self._announcers.pop(event.author, None)
            self._announcers[event.author] = now_ns
            if len(self._announcers) > MAX_ANNOUNCERS:
                del self._announcers[next(iter(self._announcers))]

    def _count_announcers(self, now_ns: int) -> int:
        """How many others still announce."""
        silent_ns = now_ns - int(1.5 * SELDOM_S * SECOND_NS)
        while self._announcers and next(iter(self._announcers.values())) < silent_ns:
            del self._announcers[next(iter(self._announcers))]
        return len(self._announcers)

    def _provide(self) -> None:
        """Be found under the shards of what we hand out, those that we did not say since the last announcement."""
        for kernel, shard in self._open_shards():
            if (kernel, shard) not in self._provided:
                self._provided.add((kernel, shard))
                self._out.append(Provide(messages.shard_key(self._codec.network, kernel, shard)))

    def _set_duty(self, job: KeptJob, now_ns: int) -> None:
        before = job.leases.spans
        super()._set_duty(job, now_ns)
        if job.leases.spans and not before:
            self._offer([self.me, *list(self._peers)[:MAX_PEERS_OFFERED]])
            self._announce_soon(now_ns)

    def _waits(self, job: KeptJob, worker: PeerId, now_ns: int) -> bool:
        """News for a worker that heard some just now and has enough to do can wait a moment for more."""
        due_ns = self._told_ns.get(worker, -NOTICE_PACE_NS) + NOTICE_PACE_NS
        if job.outcome or now_ns >= due_ns or not job.leases.holds(worker):
            self._told_ns.pop(worker, None)
            self._told_ns[worker] = now_ns
            while len(self._told_ns) > MAX_IDLE_KNOWN:
                del self._told_ns[next(iter(self._told_ns))]
            return False
        self._unsaid[job.state.id] = job
        self._unsaid_ns = due_ns if self._unsaid_ns is None else min(self._unsaid_ns, due_ns)
        return True

    @staticmethod
    def _has_news_for_idle(job: KeptJob) -> bool:
        """A worker that got nothing when it asked might get something now."""
        freed, job.freed = job.freed, False
        needs = job.leases.take_new_needs()
        return not job.outcome and (needs or (freed and job.leases.has_work)) and bool(job.leases.spans)

    def _network_of(self, peer: PeerId) -> str:
        return network_prefix(self._peers.get(peer, ()))

    def _flush(self, now_ns: int) -> Effects:
        """Everything to do now: persist first, then tell workers their news, idle ones of new work, and keepers."""
        self._queue_spread(now_ns)
        self._start_checks()
        touched = list(self._touched.values())
        told: list[tuple[KeptJob, PeerId]] = []
        if self._unsaid_ns is not None and now_ns >= self._unsaid_ns:
            unsaid, self._unsaid, self._unsaid_ns = list(self._unsaid.values()), {}, None
            touched += [job for job in unsaid if job.state.id not in self._touched]
            told += [(job, w) for job in unsaid for w in job.news.waiting() if not self._waits(job, w, now_ns)]
        for job in touched:  # whoever waits with older news does so until it is time
            pages = job.news.waiting() if job.outcome else job.news.take_opened()
            told += [(job, w) for w in pages if not self._waits(job, w, now_ns)]
        due = self._channels.due(now_ns)
        if any(job.records for job in touched) or told or due:
            self._persist()
        for job, worker in told:
            if job.news.says_something(worker) or job.outcome:
                news = job.reply(worker)
                self._send(
                    worker,
                    messages.Notice(
                        news.job, news.reveal, news.drop, news.settled, news.ended, news.views, news.leases
                    ),
                )
            else:
                job.news.forget(worker)
        fresh = [job for job in touched if self._has_news_for_idle(job)]  # asks all of them: each forgets its news
        if fresh and self._idle:
            idle, self._idle = list(self._idle), {}
            self._offer(idle[:MAX_PEERS_OFFERED])
            self._idle.update(dict.fromkeys(idle[MAX_PEERS_OFFERED:]))
        called = {worker: None for job in touched for worker in job.take_called() if worker in self._idle}
        if called:
            self._idle = {worker: None for worker in self._idle if worker not in called}
            self._offer(called)
        for job_id in due:
            kept = self.job(job_id)
            if kept is not None:
                self._channels.pump(kept, now_ns)
        self._touched.clear()
        out, self._out = tuple(self._out), []
        return out


def _was_let_go(job: KeptJob, results: Iterable[ResultHash]) -> bool:
    """We stand by a result that is not here: as it was stored before we said so, it was dropped with the job."""
    state, kept = job.state, set(results)
    return any(
        item.result_hash not in kept and state.may_keep(job.me, item.epoch)
        for fact in state.facts()
        if type(fact.payload) is Verdicts and job.me in state.supporters(fact.id)
        for item in fact.payload.items
    )
