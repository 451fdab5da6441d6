"""What is told to the other keepers of a job, and what is asked of them.

There is one channel for each job and peer, with one request under way at a time; what comes up meanwhile goes into
the next. So the busier a job is, the more facts share a message.

- New facts are pushed, at once if somebody waits for them, else within ``LAZY_NS``; within ``LAZIEST_NS`` where too
  few keep the job to certify anything, so that nobody decides or seals by what the others say.
- A channel that is not *synced* (after a restart, after a peer was away, when sums kept differing) compares
  first: each side then gets what it lacks.
- Results travel with the verdicts that accept them, and with the reveals that are forwarded to a submitter.
  A keeper that lacks one fetches it.
- Whoever refuses is left alone for a while, longer each time, and then compared with. Whoever says that it does not
  know the job is told everything, at once only the first time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from sparkle_protocol import messages
from sparkle_protocol.facts import Fact, Reveals, Verdicts, lot_of
from sparkle_protocol.ids import FactId, JobId, PeerId, ResultHash
from sparkle_protocol.work.intake import named_results
from sparkle_protocol.work.keepers import backoff_ns
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.tally import SHORT_ID, short_id

LAZY_NS = SECOND_NS // 2
LAZIEST_NS = 5 * SECOND_NS
MAX_QUEUED = 8192  # facts of one channel; beyond that it compares when its peer is back
PUSHED_FACT_BYTES = 384 << 10  # of one push; the rest of the message is for results
FETCHED_RESULTS = 64
REFUSED_NS = 60 * SECOND_NS  # a peer that refused is left alone that long, twice as long each time it does it again
MAX_REFUSED_NS = 3600 * SECOND_NS
ANEW_NS = 10 * SECOND_NS  # the same for one that lost the job again
MAX_ANEW_NS = 3600 * SECOND_NS

SendWith = Callable[[PeerId, messages.Request, tuple[ResultHash, ...]], int]


@dataclass(slots=True)
class Channel:
    """What one keeper of one job is still to be told and asked."""

    job: JobId
    peer: PeerId
    synced: bool = True
    facts: dict[FactId, None] = field(default_factory=dict)
    due_ns: int | None = None  # when the facts should go
    fetch: dict[bytes, None] = field(default_factory=dict)  # short ids of facts that it has and we lack
    results: dict[ResultHash, None] = field(default_factory=dict)  # to be fetched from it
    ranges: dict[int, None] = field(default_factory=dict)  # records of sealed ranges to be fetched from it
    tag: int | None = None
    under_way: messages.Request | None = None
    sent: tuple[FactId, ...] = ()
    attempts: int = 0
    retry_at_ns: int = 0
    refused: str = ""  # why it takes nothing of the job at the moment
    refusals: int = 0  # in a row
    anew: int = 0  # how often it was told everything, and the last time
    anew_ns: int | None = None
    checked: bool = False  # compared since it was told everything
    owed: set[FactId] = field(default_factory=set)  # what it turned out to lack, and did not take yet
    caught_up: bool = False  # since it was told everything it has held all facts, results and records that we do
    introduced: bool = False  # it did not know that we keep the job and was shown
    differed: int = 0  # so many beats in a row its sum was another than ours, which was
    our_sum: bytes = b""  # this the last time

    @property
    def idle(self) -> bool:
        """There is nothing more to say."""
        return self.tag is None and self.synced and not (self.facts or self.fetch or self.results or self.ranges)

    def queue(self, facts: Iterable[FactId], due_ns: int) -> None:
        """Have facts pushed by a time."""
        if self.refused:
            return  # it is compared with when it is asked again
        before = len(self.facts)
        self.facts.update(dict.fromkeys(facts))
        if len(self.facts) > MAX_QUEUED and self.attempts:
            self.facts.clear()
            self.synced = False
        if len(self.facts) > before:
            self.due_ns = due_ns if self.due_ns is None else min(self.due_ns, due_ns)

    def next_ns(self) -> int | None:
        """When there is something to send."""
        if self.tag is not None:
            return None
        if not self.synced or self.fetch or self.results or self.ranges:
            return self.retry_at_ns
        return max(self.retry_at_ns, self.due_ns or 0) if self.facts else None


class Channels:
    """All channels of a node."""

    def __init__(self, rng: Random, send: SendWith) -> None:
        self._rng = rng
        self._send = send
        self._all: dict[JobId, dict[PeerId, Channel]] = {}
        self._awake: dict[tuple[JobId, PeerId], Channel] = {}  # those that may have something to send; no others do
        self._by_tag: dict[int, Channel] = {}

    def to(self, job: JobId, peer: PeerId, *, synced: bool = True) -> Channel:
        """The channel for a job and peer, made when there is none."""
        channels = self._all.setdefault(job, {})
        found = channels.get(peer)
        if found is None:
            found = channels[peer] = Channel(job, peer, synced)
        self._awake[job, peer] = found
        return found

    def of_job(self, job: JobId) -> list[Channel]:
        """All channels of a job."""
        return list(self._all.get(job, {}).values())

    def drop(self, job: JobId, keep: Iterable[PeerId] = ()) -> None:
        """Close a job's channels but those to some peers."""
        kept = set(keep)
        for channel in self.of_job(job):
            if channel.peer not in kept:
                self.drop_one(job, channel.peer)

    def drop_one(self, job: JobId, peer: PeerId) -> None:
        """Close the channel for a job and peer."""
        channels = self._all.get(job, {})
        channel = channels.pop(peer, None)
        self._awake.pop((job, peer), None)
        if not channels:
            self._all.pop(job, None)
        if channel is not None and channel.tag is not None:
            self._by_tag.pop(channel.tag, None)

    def connected(self, peer: PeerId, now_ns: int) -> None:
        """A peer is back: do not wait any longer before what got lost is said again."""
        for channels in self._all.values():
            channel = channels.get(peer)
            if channel is not None and channel.attempts:
                channel.retry_at_ns = now_ns

    def next_deadline(self) -> int | None:
        """When ``pump`` has something to send."""
        return min([at for _, at in self._waiting()], default=None)

    def _waiting(self) -> list[tuple[Channel, int]]:
        """Channels that have something to send, and when."""
        found = []
        for name, channel in list(self._awake.items()):
            at = channel.next_ns()
            if at is None:
                del self._awake[name]
            else:
                found.append((channel, at))
        return found

    def pump(self, job: KeptJob, now_ns: int) -> None:
        """Send what is due about a job."""
        for channel in self.of_job(job.state.id):
            at = channel.next_ns()
            if at is not None and at <= now_ns:
                self._next(job, channel)

    def due(self, now_ns: int) -> list[JobId]:
        """Jobs about which something should be sent now, in an order that is the same in every process."""
        return list(dict.fromkeys(channel.job for channel, at in self._waiting() if at <= now_ns))

    def _next(self, job: KeptJob, channel: Channel) -> None:
        attach: tuple[ResultHash, ...] = ()
        message: messages.Request
        if not channel.synced:
            message = messages.Compare(channel.job, job.state.tally.sums())
        elif channel.ranges:
            message = messages.Fetch(channel.job, ranges=list(channel.ranges)[: messages.MAX_RECORDS])
        elif channel.fetch:
            wanted = list(channel.fetch)[: messages.MAX_PUSHED_FACTS]
            message = messages.Fetch(channel.job, b"".join(wanted))
        elif channel.results:
            message = messages.Fetch(
                channel.job, results=[bytes(name) for name in list(channel.results)[:FETCHED_RESULTS]]
            )
        else:
            message, attach = self._push(job, channel)
        channel.under_way = message
        channel.tag = self._send(channel.peer, message, attach)
        self._by_tag[channel.tag] = channel

    def _push(self, job: KeptJob, channel: Channel) -> tuple[messages.Push, tuple[ResultHash, ...]]:
        taken: list[Fact] = []
        attach: dict[ResultHash, None] = {}
        size = 0
        for fact_id in list(channel.facts):
            fact = job.state.fact(fact_id)
            if fact is not None:
                names = self._attached(job, channel, fact)
                full = len(taken) >= messages.MAX_PUSHED_FACTS or size + len(fact.raw) > PUSHED_FACT_BYTES
                if taken and (full or len(attach) + len(names) > messages.MAX_PUSHED_RESULTS):
                    break
                taken.append(fact)
                attach.update(dict.fromkeys(names))
                size += len(fact.raw)
            else:
                channel.owed.discard(fact_id)  # it is sealed by now
            del channel.facts[fact_id]
        channel.sent = tuple(fact.id for fact in taken)
        if not channel.facts:
            channel.due_ns = None
        push = messages.Push(channel.job, [fact.raw for fact in taken])
        return push, tuple(attach)[: messages.MAX_PUSHED_RESULTS]

    @staticmethod
    def _attached(job: KeptJob, channel: Channel, fact: Fact) -> list[ResultHash]:
        wanted = type(fact.payload) is Verdicts or (
            type(fact.payload) is Reveals and channel.peer == job.state.submitter
        )
        return named_results(fact) if wanted else []

    # --- answers ------------------------------------------------------------------------------------------

    def answered(self, tag: int, peer: PeerId) -> Channel | None:
        """The channel whose request got an answer; it may send the next one."""
        channel = self._by_tag.pop(tag, None)
        if channel is None or channel.peer != peer:
            return None
        channel.tag, channel.attempts = None, 0
        self._awake[channel.job, peer] = channel
        return channel

    def failed(self, tag: int, peer: PeerId, now_ns: int) -> bool:
        """A request got lost: what it said is said again after a pause. False when it is none of ours."""
        channel = self._by_tag.pop(tag, None)
        if channel is None or channel.peer != peer:
            return False
        self._awake[channel.job, peer] = channel
        again, channel.sent = channel.sent, ()
        channel.facts = {**dict.fromkeys(again), **channel.facts}
        channel.tag, channel.under_way = None, None
        channel.attempts += 1
        channel.retry_at_ns = now_ns + backoff_ns(self._rng, channel.attempts)
        channel.due_ns = channel.retry_at_ns if channel.facts else None
        channel.ranges.clear()
        channel.results.clear()  # another keeper is asked
        return True

    def compared(self, channel: Channel, job: KeptJob, reply: messages.CompareReply, now_ns: int) -> None:
        """Work out who lacks what."""
        theirs = {reply.ids[at : at + SHORT_ID] for at in range(0, len(reply.ids), SHORT_ID)}
        buckets = set(reply.buckets)
        ours = {short_id(fact.id): fact.id for fact in job.state.facts() if fact.id[0] in buckets}
        channel.fetch.update(dict.fromkeys(sorted(theirs - ours.keys())))
        channel.synced = True
        lacked = (fact_id for short, fact_id in ours.items() if short not in theirs)
        owed = [fact_id for fact_id in lacked if not self._is_over(job, fact_id)]
        channel.queue(owed, now_ns)
        channel.checked, channel.owed = True, set(owed)

    @staticmethod
    def _is_over(job: KeptJob, fact_id: FactId) -> bool:
        """The fact speaks of a range that others sealed, of which we want the record as well."""
        fact = job.state.fact(fact_id)
        return fact is None or (bool(job.wanted) and lot_of(fact.payload) in job.wanted)

    def introduce(self, channel: Channel, job: KeptJob, now_ns: int) -> None:
        """The peer does not know that we keep the job: show the keeper sets first, then say again what we said."""
        first = [fact.id for fact in job.state.view_facts()]
        channel.facts = dict.fromkeys([*first, *channel.sent, *channel.facts])
        channel.due_ns = now_ns

    def start_from_nothing(self, channel: Channel, job: KeptJob, now_ns: int) -> None:
        """The peer does not know the job: it needs everything, first the spec and who keeps it."""
        again = channel.anew_ns is not None and now_ns - channel.anew_ns < 2 * MAX_ANEW_NS
        channel.anew = channel.anew + 1 if again else 0
        pause_ns = min(MAX_ANEW_NS, ANEW_NS << min(channel.anew, 16) >> 1) if channel.anew else 0
        channel.retry_at_ns = max(channel.retry_at_ns, now_ns + pause_ns)
        channel.anew_ns = channel.retry_at_ns
        channel.synced, channel.checked, channel.caught_up, channel.refused = True, False, False, ""
        channel.fetch.clear()
        channel.owed.clear()
        first = (job.state.spec_fact, *job.state.view_facts())
        channel.facts = dict.fromkeys(fact.id for fact in (*first, *job.state.facts()))
        channel.due_ns = now_ns

    def refused(self, channel: Channel, reason: str, now_ns: int, *, for_good: bool = False) -> None:
        """A peer takes nothing of the job at the moment: leave it alone for a while, longer each time."""
        channel.refused, channel.synced, channel.due_ns = reason, for_good, None
        for left in (channel.facts, channel.fetch, channel.results, channel.ranges):
            left.clear()
        pause_ns = min(MAX_REFUSED_NS, REFUSED_NS << min(channel.refusals, 16))
        channel.refusals += 1
        channel.retry_at_ns = now_ns + int(pause_ns * self._rng.uniform(1.0, 1.25))
