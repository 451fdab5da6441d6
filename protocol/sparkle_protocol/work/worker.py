"""The worker side of every job this node helps with.

::

    leased ─▶ queued ─▶ running ─▶ committing ─▶ committed ─▶ revealing ─▶ revealed ─▶ settled (forgotten)

- Result and nonce are durable before the commit leaves; after a restart the same commit is stated again.
- A result is shown only when its keeper asks, and the keeper asks only when all wanted workers have committed.
- Each job has at most one report under way; what comes up meanwhile goes into the next. Lost reports are repeated
  unchanged; keepers treat repetitions as such.
- Heartbeats name every unit held, so that whatever news got lost is told again.
- Paused: nothing starts, what is queued goes back at once, what runs stays suspended for ``PAUSE_HOLD_S``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal, TypeVar

from sparkle_protocol import messages
from sparkle_protocol.effects import (
    Compute,
    Computed,
    ComputeFailed,
    ComputeProgress,
    Dial,
    DropCommits,
    Effect,
    Effects,
    FindProviders,
    Gossiped,
    Notify,
    PeerDown,
    PeerUp,
    Persist,
    Replied,
    Reply,
    Requested,
    Send,
    SendFailed,
    StopCompute,
    StoreCommit,
    StoreFact,
    Tick,
    Violation,
)
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import (
    MAX_RESULT_BYTES,
    NONCE_BYTES,
    CommitItem,
    Commits,
    Fact,
    FactCodec,
    FailureItem,
    Failures,
    JobSpec,
    KeeperSet,
    Leases,
    RevealItem,
    Reveals,
    Signer,
    commitment,
)
from sparkle_protocol.ids import JobId, PeerId, ResultHash, hash_result, key_from_peer_id
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.submitter import kernel_key, shard_key

QUEUE_PER_SLOT = 2  # one running, one waiting: a slot never idles during a round trip
MAX_HELD = 1024
MAX_KEEPERS = 256
MAX_BATCH = 256
HEARTBEAT_NS = 10 * SECOND_NS  # a third of the shortest lease
PAUSE_HOLD_NS = 300 * SECOND_NS
LOOKUP_EVERY_S = 30.0
ASK_PATIENCE_NS = 2 * SECOND_NS  # a keeper that has not answered by then does not keep us from asking another
RETRY_CAP_S = 60.0

T = TypeVar("T")
UnitKey = tuple[JobId, int, int]  # job, unit, epoch
HeldState = Literal["queued", "running", "committing", "committed", "revealing", "revealed"]


@dataclass(slots=True)
class Held:
    """A unit this node holds."""

    keeper: PeerId
    state: HeldState
    since_ns: int
    deadline_ns: int
    started_ns: int = 0
    progress: float = 0.0
    nonce: bytes = b""
    result: bytes = b""


@dataclass(slots=True)
class Keeper:
    """A peer that said it has open work."""

    ask_at_ns: int = 0
    asking: int | None = None  # tag of the request under way
    asked_ns: int = 0  # when it was sent
    failures: int = 0


@dataclass(slots=True)
class Outbox:
    """What is to be reported about one job."""

    keeper: PeerId
    commits: list[UnitKey] = field(default_factory=list)
    reveals: list[UnitKey] = field(default_factory=list)
    failures: list[FailureItem] = field(default_factory=list)
    returned: list[messages.UnitEpoch] = field(default_factory=list)
    flying: messages.Report | None = None  # unanswered; repeated unchanged when it got lost
    tag: int | None = None
    attempts: int = 0
    retry_at_ns: int = 0
    beat_at_ns: int = 0

    @property
    def urgent(self) -> bool:
        """There is more to say than a heartbeat."""
        return bool(self.commits or self.reveals or self.failures or self.returned or self.flying)


class WorkerAgent:
    """Decides what this node computes, and keeps its promises to keepers."""

    def __init__(self, signer: Signer, codec: FactCodec, rng: Random, kernels: Iterable[str], slots: int = 1) -> None:
        self.me = signer.peer_id
        self.kernels = sorted(kernels)
        self.slots = slots
        self.paused = False
        self.stopping = False
        self.held: dict[UnitKey, Held] = {}
        self.units_done = 0
        self.units_verified = 0
        self.units_rejected = 0
        self.jobs: dict[JobId, JobState] = {}
        self._signer = signer
        self._codec = codec
        self._rng = rng
        self._keepers: dict[PeerId, Keeper] = {}
        self._outboxes: dict[JobId, Outbox] = {}
        self._connected: set[PeerId] = set()
        self._tag = 0
        self._paused_ns = 0
        self._lookup_ns = 0
        self._now = 0
        self._out: list[Effect] = []

    # --- commands -----------------------------------------------------------------------------------------

    def pause(self, now_ns: int) -> Effects:
        """Take nothing more and give back what has not started."""
        self.paused, self._paused_ns = True, now_ns
        self._give_back(states=("queued",))
        return self._pump(now_ns)

    def resume(self, now_ns: int) -> Effects:
        """Work again."""
        self.paused = False
        for keeper in self._keepers.values():
            keeper.ask_at_ns = min(keeper.ask_at_ns, now_ns)
        return self._pump(now_ns)

    def stop(self, now_ns: int) -> Effects:
        """Give back all that is not committed; ``drained`` tells when keepers know."""
        self.stopping = True
        self._give_back(states=("queued", "running"))
        return self._pump(now_ns)

    @property
    def drained(self) -> bool:
        """Nothing is left to be reported."""
        return not any(box.urgent for box in self._outboxes.values())

    def restore(
        self, spec: Fact, keepers: Fact, commits: Iterable[tuple[int, int, bytes, bytes]], now_ns: int
    ) -> Effects:
        """Take up commits (unit, epoch, nonce, result) made before a restart."""
        self._learn_job(spec, keepers)
        deadline = now_ns + self.jobs[spec.job].spec.deadlines.total_s * SECOND_NS
        box = self._outbox(spec.job, keepers.author)
        for unit, epoch, nonce, result in commits:
            key = (spec.job, unit, epoch)
            self.held[key] = Held(keepers.author, "committing", now_ns, deadline, now_ns, 1.0, nonce, result)
            box.commits.append(key)
        return self._pump(now_ns)

    # --- events -------------------------------------------------------------------------------------------

    def handle(self, event: object, now_ns: int) -> Effects:
        """React to an event; events that do not concern a worker change nothing."""
        self._now = now_ns
        if isinstance(event, Computed):
            self._computed(event, now_ns)
        elif isinstance(event, ComputeFailed):
            self._compute_failed(event)
        elif isinstance(event, ComputeProgress):
            held = self.held.get((event.job, event.unit, event.epoch))
            if held is not None:
                held.progress = max(0.0, min(1.0, event.progress))
            return ()
        elif isinstance(event, Requested):
            self._requested(event, now_ns)
        elif isinstance(event, Replied):
            self._replied(event, now_ns)
        elif isinstance(event, SendFailed):
            self._send_failed(event, now_ns)
        elif isinstance(event, Gossiped):
            self._gossiped(event, now_ns)
        elif isinstance(event, PeerUp):
            self._connected.add(event.peer)
            self._retry_soon(event.peer, now_ns)
        elif isinstance(event, PeerDown):
            self._connected.discard(event.peer)
        elif isinstance(event, Tick):
            self._tick(now_ns)
        return self._pump(now_ns)

    def next_deadline(self) -> int | None:
        """When ``Tick`` is due."""
        times = self._ask_times() if self._hungry() else []
        for job, box in self._outboxes.items():
            if box.tag is None:
                if box.urgent:
                    times.append(box.retry_at_ns)
                elif any(True for _ in self._held_of(job)):
                    times.append(max(box.beat_at_ns, box.retry_at_ns))
        if not self.paused and not self.stopping:
            times.append(self._lookup_ns)
        if self.paused and any(h.state == "running" for h in self.held.values()):
            times.append(self._paused_ns + PAUSE_HOLD_NS)
        return min(times) if times else None

    # --- finding work -------------------------------------------------------------------------------------

    def _hungry(self) -> bool:
        busy = sum(1 for h in self.held.values() if h.state in ("queued", "running"))
        room = busy < self.slots * QUEUE_PER_SLOT and len(self.held) < MAX_HELD
        return room and not self.paused and not self.stopping and bool(self.kernels)

    def _requested(self, event: Requested, now_ns: int) -> None:
        message = event.message
        if isinstance(message, messages.Offer):
            if set(message.kernels) & set(self.kernels):
                self._know_keeper(event.peer, now_ns)
            self._out.append(Reply(event.token, messages.Ok()))
        elif isinstance(message, messages.Notice):
            box = self._outboxes.get(JobId(message.job))
            if box is not None and box.keeper == event.peer:
                self._hear(JobId(message.job), message)
            self._out.append(Reply(event.token, messages.Ok()))

    def _gossiped(self, event: Gossiped, now_ns: int) -> None:
        if event.topic != messages.jobs_topic(self._codec.network) or event.author == self.me:
            return
        try:
            announcement = messages.decode_announcement(event.payload)
        except RemoteProtocolError as error:
            self._out.append(Violation(event.author, str(error)))
            return
        if not set(announcement.kernels) & set(self.kernels):
            return
        if event.author not in self._connected:
            suffix = f"/p2p/{event.author}"
            for address in announcement.addresses:
                if address.endswith(suffix):
                    self._tag += 1
                    self._out.append(Dial(self._tag, address))
                    break
        self._know_keeper(event.author, now_ns)

    def _know_keeper(self, peer: PeerId, now_ns: int) -> None:
        keeper = self._keepers.get(peer)
        if keeper is None:
            if len(self._keepers) >= MAX_KEEPERS:
                return
            keeper = self._keepers[peer] = Keeper()
        keeper.failures = 0
        keeper.ask_at_ns = now_ns

    def _ask(self, now_ns: int) -> None:
        """Ask one keeper at a time for as much as there is room for; our own jobs come first."""
        if not self._hungry():
            return
        ready = [p for p, keeper in self._keepers.items() if keeper.asking is None and keeper.ask_at_ns <= now_ns]
        if not ready or now_ns < max(self._ask_times()):
            return
        peer = self.me if self.me in ready else min(ready, key=lambda p: (self._keepers[p].ask_at_ns, p))
        busy = sum(1 for h in self.held.values() if h.state in ("queued", "running"))
        want = self.slots * QUEUE_PER_SLOT - busy
        known: list[bytes] = [*sorted(self.jobs)[:64]]
        keeper = self._keepers[peer]
        keeper.asked_ns = now_ns
        keeper.asking = self._send(peer, messages.LeaseRequest(want, self.kernels, known))

    def _ask_times(self) -> list[int]:
        """When the next keeper may be asked (at most one time): one is due, and nobody was asked just now."""
        due = [keeper.ask_at_ns for keeper in self._keepers.values() if keeper.asking is None]
        asked = [keeper.asked_ns + ASK_PATIENCE_NS for keeper in self._keepers.values() if keeper.asking is not None]
        return [max([min(due), *asked])] if due else []

    def _leased(self, peer: PeerId, reply: messages.LeaseReply, now_ns: int) -> None:
        keeper = self._keepers[peer]
        keeper.failures = 0
        stored = []
        for facts in reply.jobs:
            spec, keepers = self._codec.open(facts.spec), self._codec.open(facts.keepers)
            self._learn_job(spec, keepers)
            stored += [StoreFact(spec), StoreFact(keepers)]
        if stored:
            self._out.append(Persist(tuple(stored)))
        for raw in reply.leases:
            self._take(peer, self._codec.open(raw), now_ns)
        if reply.open_jobs == 0:
            del self._keepers[peer]
        else:
            keeper.ask_at_ns = now_ns + reply.wait_ms * 1_000_000

    def _learn_job(self, spec: Fact, keepers: Fact) -> None:
        state = self.jobs.get(spec.job)
        if state is None:
            if not isinstance(spec.payload, JobSpec) or not isinstance(keepers.payload, KeeperSet):
                raise RemoteProtocolError("a lease came without a job spec and its keepers")
            state = JobState(spec, self._codec.network)
        state.add(keepers)
        self.jobs[state.id] = state

    def _take(self, peer: PeerId, fact: Fact, now_ns: int) -> None:
        leases = fact.payload
        state = self.jobs.get(fact.job)
        if not isinstance(leases, Leases) or state is None:
            raise RemoteProtocolError("a lease of an unknown job")
        if fact.author != peer or not state.is_keeper(peer):
            raise RemoteProtocolError("a lease that is not by a keeper of its job")
        if kernel_key(state.spec) not in self.kernels:
            raise RemoteProtocolError(f"a lease for kernel {kernel_key(state.spec)}, which was not asked for")
        mine = key_from_peer_id(self.me)
        for item in leases.items:
            key = (fact.job, item.unit, item.epoch)
            if item.worker != mine or item.unit >= state.spec.units:
                raise RemoteProtocolError("a lease for somebody else or for a unit that does not exist")
            if key not in self.held and len(self.held) < MAX_HELD:
                self.held[key] = Held(peer, "queued", now_ns, now_ns + item.ttl_ms * 1_000_000)
                box = self._outbox(fact.job, peer)
                box.beat_at_ns = box.beat_at_ns or now_ns + HEARTBEAT_NS

    # --- computing ----------------------------------------------------------------------------------------

    def _start(self, now_ns: int) -> None:
        if self.paused or self.stopping:
            return
        running = sum(1 for h in self.held.values() if h.state == "running")
        for key in [k for k, h in self.held.items() if h.state == "queued"][: max(0, self.slots - running)]:
            held = self.held[key]
            held.state, held.started_ns = "running", now_ns
            self._out.append(Compute(key[0], key[1], key[2], self.jobs[key[0]].spec))

    def _computed(self, event: Computed, now_ns: int) -> None:
        key = (event.job, event.unit, event.epoch)
        held = self.held.get(key)
        if held is None or held.state != "running":
            return
        if len(event.result) > MAX_RESULT_BYTES:
            text = f"the result has {len(event.result)} bytes, more than {MAX_RESULT_BYTES}"
            self._fail(key, "kernel", text)
            return
        held.state, held.progress = "committing", 1.0
        held.nonce, held.result = self._rng.randbytes(NONCE_BYTES), event.result
        self.units_done += 1
        self._out.append(Persist((StoreCommit(*key, held.nonce, held.result),)))
        self._outbox(event.job, held.keeper).commits.append(key)
        seconds = (now_ns - held.started_ns) / 1e9
        self._out.append(Notify("unit_computed", {"job": event.job.hex(), "unit": event.unit, "seconds": seconds}))

    def _compute_failed(self, event: ComputeFailed) -> None:
        key = (event.job, event.unit, event.epoch)
        if key not in self.held:
            return
        if event.blame:
            self._fail(key, event.code, event.text)
        else:
            self._return(key)

    def _fail(self, key: UnitKey, code: str, text: str) -> None:
        held = self.held.pop(key)
        self._outbox(key[0], held.keeper).failures.append(FailureItem(key[1], key[2], code, text[:400]))
        self._out.append(Notify("unit_failed", {"job": key[0].hex(), "unit": key[1], "text": text[:400]}))

    def _return(self, key: UnitKey) -> None:
        held = self.held.pop(key)
        self._outbox(key[0], held.keeper).returned.append(messages.UnitEpoch(key[1], key[2]))

    def _give_back(self, states: tuple[HeldState, ...]) -> None:
        for key in [k for k, h in self.held.items() if h.state in states]:
            if self.held[key].state == "running":
                self._out.append(StopCompute(*key))
            self._return(key)

    # --- reporting ----------------------------------------------------------------------------------------

    def _report_all(self, now_ns: int) -> None:
        for job, box in list(self._outboxes.items()):
            if box.tag is not None or now_ns < box.retry_at_ns:
                continue
            holds = any(True for _ in self._held_of(job))
            if not box.urgent and not (holds and now_ns >= box.beat_at_ns):
                if not holds:
                    del self._outboxes[job]
                continue
            if box.flying is None:
                box.flying = self._compose(job, box)
            box.tag = self._send(box.keeper, box.flying)
            box.beat_at_ns = now_ns + HEARTBEAT_NS

    def _compose(self, job: JobId, box: Outbox) -> messages.Report:
        facts: list[bytes] = []
        results: list[bytes] = []
        commits = [key for key in _take_some(box.commits, MAX_BATCH) if key in self.held]
        if commits:
            items = [CommitItem(key[1], key[2], self._commit_hash(key)) for key in commits]
            facts.append(self._codec.seal(self._signer, Commits(job, items)).raw)
        reveals = [key for key in _take_some(box.reveals, messages.MAX_RESULTS_PER_REPORT) if key in self.held]
        if reveals:
            held = [self.held[key] for key in reveals]
            opened = [
                RevealItem(key[1], key[2], hash_result(h.result), h.nonce)
                for key, h in zip(reveals, held, strict=True)
            ]
            facts.append(self._codec.seal(self._signer, Reveals(job, opened)).raw)
            results = [h.result for h in held]
        failures = _take_some(box.failures, MAX_BATCH)
        if failures:
            facts.append(self._codec.seal(self._signer, Failures(job, failures)).raw)
        running = [
            messages.Heartbeat(key[1], key[2], held.progress)
            for key, held in self._held_of(job)
            if held.state not in ("committing", "revealing")
        ]
        return messages.Report(job, facts, results, running[:MAX_BATCH], _take_some(box.returned, MAX_BATCH))

    def _commit_hash(self, key: UnitKey) -> bytes:
        held = self.held[key]
        mine = key_from_peer_id(self.me)
        digest = ResultHash(hash_result(held.result))
        return commitment(self._codec.network, key[0], key[1], key[2], mine, digest, held.nonce)

    def _reported(self, job: JobId, box: Outbox, reply: messages.ReportReply) -> None:
        report, box.flying, box.tag, box.attempts = box.flying, None, None, 0
        for raw in report.facts if report else ():
            payload = self._codec.open(raw).payload
            if isinstance(payload, Commits | Reveals):
                after: HeldState = "committed" if isinstance(payload, Commits) else "revealed"
                for item in payload.items:
                    held = self.held.get((job, item.unit, item.epoch))
                    if held is not None:
                        held.state = after
        self._hear(job, reply)

    def _hear(self, job: JobId, news: messages.ReportReply | messages.Notice) -> None:
        """Act on a keeper's news; repetitions change nothing."""
        for wanted in news.reveal:
            key = (job, wanted.unit, wanted.epoch)
            held = self.held.get(key)
            box = self._outboxes.get(job)
            if held is not None and box is not None and held.state in ("committed", "revealed"):
                held.state = "revealing"
                box.reveals.append(key)
        for gone in news.drop:
            self._drop((job, gone.unit, gone.epoch))
        for verdict in news.settled:
            key = (job, verdict.unit, verdict.epoch)
            if self.held.pop(key, None) is not None:
                self.units_verified += verdict.accepted
                self.units_rejected += not verdict.accepted
                event = "result_accepted" if verdict.accepted else "result_rejected"
                self._out.append(Notify(event, {"job": job.hex(), "unit": verdict.unit}))
        if news.ended:
            for key, held in list(self._held_of(job)):
                if held.state != "revealing":
                    self._drop(key)
            if not any(True for _ in self._held_of(job)):
                self._forget(job)

    def _drop(self, key: UnitKey) -> None:
        held = self.held.pop(key, None)
        if held is not None and held.state == "running":
            self._out.append(StopCompute(*key))

    def _forget(self, job: JobId) -> None:
        self.jobs.pop(job, None)
        self._outboxes.pop(job, None)
        self._out.append(Persist((DropCommits(job),)))

    # --- replies and time ---------------------------------------------------------------------------------

    def _replied(self, event: Replied, now_ns: int) -> None:
        message = event.message
        keeper = self._keepers.get(event.peer)
        if keeper is not None and keeper.asking == event.tag:
            keeper.asking = None
            try:
                if not isinstance(message, messages.LeaseReply):
                    raise RemoteProtocolError("a lease request was answered by something else")
                self._leased(event.peer, message, now_ns)
            except RemoteProtocolError as error:
                self._keepers.pop(event.peer, None)
                self._out.append(Violation(event.peer, str(error)))
            return
        for job, box in list(self._outboxes.items()):
            if box.tag == event.tag and box.keeper == event.peer:
                if isinstance(message, messages.ReportReply) and message.job == job:
                    self._reported(job, box, message)
                else:
                    self._refused(job, message)
                return

    def _refused(self, job: JobId, message: messages.Reply) -> None:
        """The keeper does not want to hear of the job: nothing we hold of it is of use to anybody."""
        text = message.text if isinstance(message, messages.Refusal) else "an unexpected answer"
        for key, _ in list(self._held_of(job)):
            self._drop(key)
        self._forget(job)
        self._out.append(Notify("report_refused", {"job": job.hex(), "text": text}))

    def _send_failed(self, event: SendFailed, now_ns: int) -> None:
        keeper = self._keepers.get(event.peer)
        if keeper is not None and keeper.asking == event.tag:
            keeper.asking = None
            keeper.failures += 1
            keeper.ask_at_ns = now_ns + self._backoff_ns(keeper.failures)
            if keeper.failures > 8:
                del self._keepers[event.peer]
        for job, box in self._outboxes.items():
            if box.tag == event.tag and box.keeper == event.peer:
                box.tag = None
                box.attempts += 1
                box.retry_at_ns = now_ns + self._backoff_ns(box.attempts)
                for key, held in list(self._held_of(job)):
                    if held.state == "queued" and now_ns > held.deadline_ns:
                        self._drop(key)

    def _backoff_ns(self, attempt: int) -> int:
        return int(self._rng.uniform(0.5, 1.0) * min(RETRY_CAP_S, 0.5 * 2 ** min(attempt, 10)) * SECOND_NS)

    def _retry_soon(self, peer: PeerId, now_ns: int) -> None:
        """A keeper is back: do not wait out the back-off."""
        for box in self._outboxes.values():
            if box.keeper == peer:
                box.retry_at_ns = now_ns
        keeper = self._keepers.get(peer)
        if keeper is not None:
            keeper.ask_at_ns = min(keeper.ask_at_ns, now_ns)

    def _tick(self, now_ns: int) -> None:
        if self.paused and now_ns >= self._paused_ns + PAUSE_HOLD_NS:
            self._give_back(states=("running",))
        idle = not self.paused and not self.stopping and now_ns >= self._lookup_ns
        if idle:
            self._lookup_ns = now_ns + int(LOOKUP_EVERY_S * self._rng.uniform(0.8, 1.2) * SECOND_NS)
            if self._hungry() and not self._keepers:
                kernel = self._rng.choice(self.kernels)
                self._out.append(FindProviders(shard_key(self._codec.network, kernel)))
        for job, state in list(self.jobs.items()):
            held = [h for _, h in self._held_of(job)]
            limit = state.spec.deadlines.total_s * SECOND_NS
            if held and all(now_ns - h.since_ns > limit for h in held):
                self._refused(job, messages.Refusal("deadline", "the job's time is over"))

    def _pump(self, now_ns: int) -> Effects:
        self._start(now_ns)
        self._ask(now_ns)
        self._report_all(now_ns)
        out, self._out = tuple(self._out), []
        return out

    def _send(self, peer: PeerId, message: messages.Request) -> int:
        self._tag += 1
        self._out.append(Send(self._tag, peer, message))
        return self._tag

    def _outbox(self, job: JobId, keeper: PeerId) -> Outbox:
        return self._outboxes.setdefault(job, Outbox(keeper))

    def _held_of(self, job: JobId) -> Iterator[tuple[UnitKey, Held]]:
        return ((key, held) for key, held in self.held.items() if key[0] == job)


def _take_some(queue: list[T], count: int) -> list[T]:
    """Remove and return the first ``count`` items."""
    taken, queue[:] = queue[:count], queue[count:]
    return taken
