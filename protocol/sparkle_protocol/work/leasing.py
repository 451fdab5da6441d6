"""What one request for work is answered with, and whose turn it is.

- Our own jobs come first, then other submitters by ``fairness.py``; of one submitter's jobs the one of the highest
  priority, and of those the oldest. Copies of stragglers only when there is nothing else at all.
- Every pick of a submitter gives it an equal part of what the worker still wants, but ``LEAST_PART`` units at least,
  as each job in a reply costs a signature. It is charged with the dominant share of what it got.
- How long a unit of a job occupies a worker is measured: from its lease, or from the worker's last answer if that
  came later, to its answer; averaged over the latest units. Until then the declared arithmetic alone counts.
- The capacity is that of ``WORKER`` times the peers there are. It says how the resources compare, not what the
  machines really have: two gigaflops of reference work weigh as much as a second of a worker.
- Guided self-scheduling: no request takes more of a job than half of one worker's part of what is unfinished, so
  that towards the end nobody has a long queue while others idle.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from random import Random

from sparkle_protocol import messages
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.fairness import Capacity, FairQueue, Round, Weigh, dominant_share, free_name
from sparkle_protocol.work.granting import Granted
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.line import Demand, Place, place_of
from sparkle_protocol.work.state import JobState

MAX_LEASES_PER_REQUEST = 128
MAX_SPECS_BYTES = 512 << 10  # of one reply
LEAST_PART = 8
MAX_WORKERS_TIMED = 4096  # the one that answered longest ago is forgotten first
WORKER = Capacity(flops_per_s=2e9, memory_bytes=4e9, bytes_per_s=10e6, slots=1.0)

NetworkOf = Callable[[JobId], str]


class Handout:
    """Units for one request, as they are found."""

    def __init__(self, worker: PeerId, message: messages.LeaseRequest, peers: int, now_ns: int) -> None:
        self.left = min(message.want, MAX_LEASES_PER_REQUEST)
        self.jobs: list[messages.JobFacts] = []
        self.grants: dict[KeptJob, list[Granted]] = {}
        self._worker = worker
        self._known = frozenset(message.known_jobs)
        self._parts = 2 * (peers + 1)
        self._room = MAX_SPECS_BYTES
        self._now_ns = now_ns

    def take(self, job: KeptJob, most: int) -> int:
        """Give the worker up to ``most`` units of a job; returns how many it got."""
        unfinished = job.state.spec.units - len(job.state.final_units)
        share = max(1, unfinished // self._parts) - len(self.grants.get(job, ()))
        most = min(most, share, self.left)
        return self._take(job, lambda: job.grant(self._worker, most, self._now_ns)) if most > 0 else 0

    def take_copy(self, job: KeptJob) -> int:
        """Give it a copy of what others are slow with."""
        return self._take(job, lambda: job.grant_copy(self._worker, self._now_ns))

    def _take(self, job: KeptJob, grant: Callable[[], list[Granted]]) -> int:
        new = None
        if job.state.id not in self._known and job not in self.grants:
            new = job_facts(job.state)
            if _size(new) > self._room:
                return 0
        granted = grant()
        if granted:
            self.grants.setdefault(job, []).extend(granted)
            self.left -= len(granted)
            if new is not None:
                self.jobs.append(new)
                self._room -= _size(new)
        return len(granted)


class Leasing:
    """Whose units workers get at one keeper."""

    def __init__(self, rng: Random, weigh: Weigh) -> None:
        self.queue = FairQueue(rng, weigh)
        self._answered_ns: dict[PeerId, int] = {}  # when each worker last answered, the longest ago first

    def hand_out(
        self,
        worker: PeerId,
        message: messages.LeaseRequest,
        offered: Sequence[KeptJob],
        others: Set[KeptJob],
        network_of: NetworkOf,
        peers: int,
        now_ns: int,
    ) -> Handout:
        """Find units for a worker.

        Args:
            worker: who asks.
            message: what it asks for.
            offered: jobs that it can compute and may have a part in.
            others: all jobs of others with units to hand out, to whomever.
            network_of: the network of a job's submitter.
            peers: how many workers there are.
            now_ns: monotonic time.
        """
        hand = Handout(worker, message, peers, now_ns)
        ranked = sorted(offered, key=_rank)
        for job in ranked:
            if not job.mine or hand.left <= 0:
                break
            hand.take(job, hand.left)
        if hand.left > 0:
            waiting = {_name(job): network_of(job.state.id) for job in others}
            if waiting or len(self.queue):
                able: dict[PeerId, list[KeptJob]] = {}
                for job in ranked:
                    if job in others:
                        able.setdefault(_name(job), []).append(job)
                self._in_turn(hand, self.queue.begin(waiting, able, now_ns), able, max(1, peers))
        for job in ranked if not hand.grants else ():
            if hand.take_copy(job):
                break
        return hand

    def _in_turn(self, hand: Handout, turns: Round, able: dict[PeerId, list[KeptJob]], workers: int) -> None:
        part = max(LEAST_PART, hand.left // max(1, len(able)))
        while hand.left > 0 and (submitter := turns.pick()) is not None:
            jobs = able[submitter]
            while jobs and not (got := hand.take(jobs[0], part)):
                jobs.pop(0)  # it has nothing more for this worker
            if jobs:
                turns.charge(submitter, got * unit_cost_s(jobs[0], workers))

    def place(self, job: KeptJob, jobs: Sequence[KeptJob], network_of: NetworkOf, peers: int, now_ns: int) -> Place:
        """Where a job stands in line.

        Args:
            job: one of ``jobs``.
            jobs: all that have units to hand out here.
            network_of: the network of a job's submitter.
            peers: how many workers there are.
            now_ns: monotonic time.
        """
        workers = max(1, peers)
        of_submitter: dict[PeerId, list[KeptJob]] = {}
        for one in sorted(jobs, key=_rank):
            of_submitter.setdefault(_name(one), []).append(one)
        siblings = of_submitter[_name(job)]
        before = siblings[: siblings.index(job)]
        before_s = sum(_backlog_s(one, workers) for one in before)
        others = {submitter: theirs for submitter, theirs in of_submitter.items() if not theirs[0].mine}
        if job.mine:
            return Place("own", None, len(others), 0, None, before_s, len(before))
        demands = {
            submitter: Demand(
                network_of(theirs[0].state.id),
                LEAST_PART * unit_cost_s(theirs[0], workers),
                sum(_backlog_s(one, workers) for one in theirs),
            )
            for submitter, theirs in others.items()
        }
        place = place_of(self.queue, _name(job), demands, now_ns, before_s)
        own_s = sum(_backlog_s(one, workers) for one in jobs if one.mine)
        start_s = place.start_s + own_s if place.start_s is not None else None
        return replace(place, start_s=start_s, jobs_before=len(before), pays=job.pays)

    def answered(self, job: KeptJob, worker: PeerId, now_ns: int) -> None:
        """A worker has reported: learn how long the units that it answered took."""
        for granted_ns in job.take_answered():
            since_ns = max(granted_ns, self._answered_ns.pop(worker, granted_ns))
            job.timed((now_ns - since_ns) / 1e9)
            self._answered_ns[worker] = now_ns
        while len(self._answered_ns) > MAX_WORKERS_TIMED:
            del self._answered_ns[next(iter(self._answered_ns))]

    def returned(self, job: KeptJob, units: int, peers: int) -> None:
        """Units of somebody else's job came back untouched."""
        if units and not job.mine:
            self.queue.refund(_name(job), units * unit_cost_s(job, max(1, peers)))


def _name(job: KeptJob) -> PeerId:
    """Under which name a job queues."""
    return job.state.submitter if job.pays or job.mine else free_name(job.state.submitter)


def _rank(job: KeptJob) -> tuple[bool, int, int]:
    """Our own first; of one submitter the highest priority, then the oldest."""
    return not job.mine, -job.state.spec.priority, job.started_ns


def _backlog_s(job: KeptJob, workers: int) -> float:
    """Seconds of all workers together that its units take that can be handed out now."""
    return job.leases.backlog * unit_cost_s(job, workers)


def unit_cost_s(job: KeptJob, workers: int) -> float:
    """Seconds of all workers together that a unit of the job takes."""
    return dominant_share(job.state.spec.resources, job.unit_s, WORKER) / workers


def job_facts(state: JobState) -> messages.JobFacts:
    """A job's spec and who keeps it, as the bytes they were signed in."""
    return messages.JobFacts(state.spec_fact.raw, [fact.raw for fact in state.view_facts()])


def _size(facts: messages.JobFacts) -> int:
    return len(facts.spec) + sum(map(len, facts.views))
