"""What a worker reports to keepers about the units in its hands, and what it hears in return.

- Each job has at most one report under way; what comes up meanwhile goes into the next. A lost report is repeated
  unchanged, with growing pauses; keepers treat repetitions as such.
- Result and nonce are made durable in the very batch that sends their commit, so that a restart states the same
  commit again: a second one would be proof of cheating.
- A result is shown only when its keeper asks. That question may overtake the answer to our commit.
- Heartbeats name every unit held, so that whatever news got lost is told again.
- A job is given up, with all we hold of it, when its keeper says that it is over or unknown, when its keeper was
  not heard of for ``PATIENCE_NS``, and a unit when the job's whole time has passed since it was leased.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from sparkle_protocol import messages
from sparkle_protocol.effects import (
    DropCommit,
    DropCommits,
    Effect,
    Notify,
    Persist,
    Record,
    StopCompute,
    StoreCommit,
    StoreFact,
)
from sparkle_protocol.facts import (
    NONCE_BYTES,
    CommitItem,
    Commits,
    Fact,
    FactCodec,
    FailureItem,
    Failures,
    RevealItem,
    Reveals,
    Signer,
    commitment,
)
from sparkle_protocol.ids import JobId, PeerId, hash_result, key_from_peer_id
from sparkle_protocol.work.held import Hands, Held, UnitKey
from sparkle_protocol.work.keepers import backoff_ns
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.state import JobState

MAX_COMMITS = 256  # of one report
MAX_FAILURES = 64
MAX_FAILURE_CHARS = 200
HEARTBEAT_NS = 10 * SECOND_NS  # a third of the shortest lease
PATIENCE_NS = 24 * 3600 * SECOND_NS
MAX_JOBS_KEPT = 64  # specs of jobs that we hold nothing of, in case their keeper comes back
T = TypeVar("T")
TRANSIENT = ("busy", "storage", "internal", "unserved")  # refusals that say nothing about the report


@dataclass(frozen=True, slots=True)
class Flight:
    """A report under way, and what must be durable before it leaves."""

    report: messages.Report
    commits: tuple[UnitKey, ...]
    reveals: tuple[UnitKey, ...]
    records: tuple[Record, ...]


@dataclass(slots=True)
class Outbox:
    """What is to be reported about one job."""

    keeper: PeerId
    heard_ns: int
    beat_at_ns: int
    commits: list[UnitKey] = field(default_factory=list)
    reveals: list[UnitKey] = field(default_factory=list)
    failures: list[FailureItem] = field(default_factory=list)
    returned: list[messages.UnitEpoch] = field(default_factory=list)
    flight: Flight | None = None  # unanswered
    tag: int | None = None
    attempts: int = 0
    retry_at_ns: int = 0

    @property
    def urgent(self) -> bool:
        """There is more to say than a heartbeat."""
        return bool(self.commits or self.reveals or self.failures or self.returned or self.flight)


class Reporter:
    """Outboxes of all jobs that this node works for. Appends its effects to ``out``."""

    def __init__(
        self,
        signer: Signer,
        codec: FactCodec,
        rng: Random,
        hands: Hands,
        out: list[Effect],
        send: Callable[[PeerId, messages.Request], int],
    ) -> None:
        self.jobs: dict[JobId, JobState] = {}
        self.verified = 0
        self.rejected = 0
        self._signer = signer
        self._codec = codec
        self._rng = rng
        self._hands = hands
        self._out = out
        self._send = send
        self._boxes: dict[JobId, Outbox] = {}
        self._by_tag: dict[int, JobId] = {}
        self._stored: set[JobId] = set()  # jobs of which something of ours is on disk
        self._settled: list[Record] = []  # commits that need be kept no longer; they go with the next Persist

    # --- what is to be said -------------------------------------------------------------------------------

    def expect(self, job: JobId, keeper: PeerId, now_ns: int) -> None:
        """Units of a job are in our hands: its keeper will hear of them."""
        if job not in self._boxes:
            self._boxes[job] = Outbox(keeper, now_ns, now_ns + HEARTBEAT_NS)

    def commit(self, key: UnitKey) -> None:
        """A unit is computed."""
        self._hands.move(key, "committing")
        self._boxes[key[0]].commits.append(key)

    def fail(self, key: UnitKey, code: str, text: str) -> None:
        """A unit cannot be computed."""
        self._hands.pop(key)
        self._boxes[key[0]].failures.append(FailureItem(key[1], key[2], code, text[:MAX_FAILURE_CHARS]))

    def give_back(self, key: UnitKey) -> None:
        """A unit will not be computed here."""
        self._hands.pop(key)
        self._boxes[key[0]].returned.append(messages.UnitEpoch(key[1], key[2]))

    def restored(self, job: JobId) -> None:
        """Commits of the job are on disk from an earlier life."""
        self._stored.add(job)

    def backlog(self, keeper: PeerId) -> int:
        """Things waiting to be said to a keeper besides the units held."""
        return sum(len(box.failures) + len(box.returned) for box in self._boxes.values() if box.keeper == keeper)

    @property
    def drained(self) -> bool:
        """Nothing is left to be reported."""
        return not any(box.urgent for box in self._boxes.values())

    def next_deadline(self) -> int | None:
        """When ``send_due`` has something to send."""
        times = [
            box.retry_at_ns if box.urgent else max(box.beat_at_ns, box.retry_at_ns)
            for job, box in self._boxes.items()
            if box.tag is None and (box.urgent or self._hands.of_job(job))
        ]
        return min(times, default=None)

    # --- saying it ----------------------------------------------------------------------------------------

    def send_due(self, now_ns: int) -> None:
        """Send what is due; forget jobs of which there is nothing to say."""
        for job, box in list(self._boxes.items()):
            if box.tag is not None or now_ns < box.retry_at_ns:
                continue
            if not box.urgent and not self._hands.of_job(job):
                self._rest(job)
            elif box.urgent or now_ns >= box.beat_at_ns:
                if box.flight is None:
                    box.flight = self._compose(job, box)
                if box.flight.records:
                    self._persist(box.flight.records)
                box.tag = self._send(box.keeper, box.flight.report)
                self._by_tag[box.tag] = job
                box.beat_at_ns = now_ns + HEARTBEAT_NS

    def _rest(self, job: JobId) -> None:
        """We hold nothing of a job."""
        del self._boxes[job]
        self._unstore(job)
        self._keep_spec(job)

    def _keep_spec(self, job: JobId) -> None:
        """Keep a job's spec in memory for a while: its keeper was told that we have it, and may send leases of it."""
        self.jobs[job] = self.jobs.pop(job)  # the latest last
        idle = [known for known in self.jobs if known not in self._boxes]
        for known in idle[: max(0, len(idle) - MAX_JOBS_KEPT)]:
            del self.jobs[known]

    def _unstore(self, job: JobId) -> None:
        if job in self._stored:
            self._stored.remove(job)
            self._persist((DropCommits(job),))

    def _persist(self, records: Iterable[Record]) -> None:
        self._out.append(Persist((*self._settled, *records)))
        self._settled.clear()

    def _compose(self, job: JobId, box: Outbox) -> Flight:
        facts: list[Fact] = []
        results: list[bytes] = []
        records: list[Record] = []
        commits = self._held(_take(box.commits, MAX_COMMITS))
        if commits:
            items = [CommitItem(key[1], key[2], self._commit_hash(key, held)) for key, held in commits]
            facts.append(self._codec.seal(self._signer, Commits(job, items)))
            records = self._commit_records(job, commits)
        reveals = self._held(_take(box.reveals, messages.MAX_RESULTS_PER_REPORT))
        if reveals:
            opened = [RevealItem(key[1], key[2], hash_result(h.result), h.nonce) for key, h in reveals]
            facts.append(self._codec.seal(self._signer, Reveals(job, opened)))
            results = [held.result for _, held in reveals]
        failures = _take(box.failures, MAX_FAILURES)
        if failures:
            facts.append(self._codec.seal(self._signer, Failures(job, failures)))
        running = [
            messages.Heartbeat(key[1], key[2], held.progress)
            for key, held in self._hands.of_job(job).items()
            if held.state not in ("committing", "revealing")
        ]
        returned = _take(box.returned, messages.MAX_HEARTBEATS)
        raws = [fact.raw for fact in facts]
        report = messages.Report(job, raws, results, running[: messages.MAX_HEARTBEATS], returned)
        return Flight(report, tuple(k for k, _ in commits), tuple(k for k, _ in reveals), tuple(records))

    def _held(self, keys: list[UnitKey]) -> list[tuple[UnitKey, Held]]:
        return [(key, held) for key in dict.fromkeys(keys) if (held := self._hands.get(key)) is not None]

    def _commit_records(self, job: JobId, commits: list[tuple[UnitKey, Held]]) -> list[Record]:
        """What a restart needs to state these commits again."""
        state = self.jobs[job]
        records: list[Record] = []
        if job not in self._stored and state.keeper_fact is not None:
            records += [StoreFact(state.spec_fact), StoreFact(state.keeper_fact)]
        self._stored.add(job)
        return records + [StoreCommit(*key, held.nonce, held.result) for key, held in commits]

    def _commit_hash(self, key: UnitKey, held: Held) -> bytes:
        if not held.nonce:
            held.nonce = self._rng.randbytes(NONCE_BYTES)
        mine = key_from_peer_id(self._signer.peer_id)
        return commitment(self._codec.network, *key, mine, hash_result(held.result), held.nonce)

    # --- hearing ------------------------------------------------------------------------------------------

    def replied(self, tag: int, peer: PeerId, message: messages.Reply, now_ns: int) -> None:
        """The answer to one of our reports."""
        job = self._by_tag.pop(tag, None)
        box = self._boxes.get(job) if job is not None else None
        if job is None or box is None or box.tag != tag or box.keeper != peer:
            return
        if isinstance(message, messages.Refusal) and message.code in TRANSIENT:
            self._again(box, now_ns)
        elif isinstance(message, messages.ReportReply) and message.job == job:
            flight, box.flight, box.tag, box.attempts = box.flight, None, None, 0
            box.heard_ns = now_ns
            for key in flight.commits if flight else ():
                held = self._hands.get(key)
                if held is not None and held.state == "committing":
                    self._hands.move(key, "committed")
                    self._reveal_if_asked(key, held, box)
            for key in flight.reveals if flight else ():
                if self._hands.get(key) is not None:
                    self._hands.move(key, "revealed")
            self._hear(job, box, message)
        else:
            text = message.text if isinstance(message, messages.Refusal) else "an unexpected answer"
            self.abandon(job, text)

    def send_failed(self, tag: int, peer: PeerId, now_ns: int) -> None:
        """One of our reports got lost: it is said again, but units we have not begun go once their lease is over."""
        job = self._by_tag.pop(tag, None)
        box = self._boxes.get(job) if job is not None else None
        if job is None or box is None or box.tag != tag or box.keeper != peer:
            return
        self._again(box, now_ns)
        for key, held in list(self._hands.of_job(job).items()):
            if held.state == "queued" and now_ns > held.deadline_ns:
                self._hands.pop(key)

    def _again(self, box: Outbox, now_ns: int) -> None:
        box.tag = None
        box.attempts += 1
        box.retry_at_ns = now_ns + backoff_ns(self._rng, box.attempts)

    def connected(self, peer: PeerId, now_ns: int) -> None:
        """A keeper is back: do not wait out the back-off."""
        for box in self._boxes.values():
            if box.keeper == peer:
                box.retry_at_ns = now_ns

    def notice(self, peer: PeerId, message: messages.Notice, now_ns: int) -> None:
        """News that a keeper sent unasked."""
        job = JobId(message.job)
        box = self._boxes.get(job)
        if box is not None and box.keeper == peer:
            box.heard_ns = now_ns
            self._hear(job, box, message)

    def _hear(self, job: JobId, box: Outbox, news: messages.ReportReply | messages.Notice) -> None:
        """Act on a keeper's news; repetitions change nothing."""
        for wanted in news.reveal:
            key = (job, wanted.unit, wanted.epoch)
            held = self._hands.get(key)
            if held is not None and held.nonce:
                held.asked = True
                self._reveal_if_asked(key, held, box)
        for gone in news.drop:
            self.drop((job, gone.unit, gone.epoch))
        for verdict in news.settled:
            key = (job, verdict.unit, verdict.epoch)
            if self._let_go(key) is not None:
                self.verified += verdict.accepted
                self.rejected += not verdict.accepted
                event = "result_accepted" if verdict.accepted else "result_rejected"
                self._out.append(Notify(event, {"job": job.hex(), "unit": verdict.unit}))
        if news.ended:
            for key, held in list(self._hands.of_job(job).items()):
                if held.state != "revealing":
                    self.drop(key)
            if not self._hands.of_job(job):
                self._close(job)

    def _reveal_if_asked(self, key: UnitKey, held: Held, box: Outbox) -> None:
        if held.asked and held.state in ("committed", "revealed"):
            held.asked = False
            self._hands.move(key, "revealing")
            box.reveals.append(key)

    def _let_go(self, key: UnitKey) -> Held | None:
        held = self._hands.pop(key)
        if held is not None and held.nonce:
            self._settled.append(DropCommit(*key))
        return held

    def drop(self, key: UnitKey) -> None:
        """A unit is of use to nobody."""
        held = self._let_go(key)
        if held is not None and held.state == "running":
            self._out.append(StopCompute(*key))

    # --- giving up ----------------------------------------------------------------------------------------

    def abandon(self, job: JobId, text: str) -> None:
        """Nothing we hold of a job is of use to anybody."""
        for key in list(self._hands.of_job(job)):
            self.drop(key)
        self._close(job)
        del self.jobs[job]
        self._out.append(Notify("report_refused", {"job": job.hex(), "text": text}))

    def _close(self, job: JobId) -> None:
        """There is nothing more to be said about a job."""
        box = self._boxes.pop(job, None)
        if box is not None and box.tag is not None:
            self._by_tag.pop(box.tag, None)
        self._unstore(job)
        self._keep_spec(job)

    def give_up_hopeless(self, now_ns: int) -> None:
        """Let go of what nobody will ask for any more."""
        for job, box in list(self._boxes.items()):
            if now_ns - box.heard_ns > PATIENCE_NS:
                self.abandon(job, "its keeper was not heard of for a day")
                continue
            limit_ns = self.jobs[job].spec.deadlines.total_s * SECOND_NS
            late = [key for key, held in self._hands.of_job(job).items() if now_ns - held.since_ns > limit_ns]
            for key in late:
                self.drop(key)
            if late and not self._hands.of_job(job):
                self.abandon(job, "the job's time is over")


def _take(queue: list[T], count: int) -> list[T]:
    taken, queue[:] = queue[:count], queue[count:]
    return taken
