"""The queue: which units want another worker, what was voted about them, and when they are final.

The rules are those of ``sparkle_protocol.work``: a unit goes to as many distinct workers as its votes so far require,
the longest wanted first, then fresh ones in order; the submitter's own vote decides alone; whoever voted for another
result than the accepted one gets no more of that job.

Only *open* units have a row here (given to somebody, and not decided or still in somebody's hands), so that memory
follows the number of workers and not that of units. Rows are used again. A row is *held* by each lease and by each
place in the line; the last of them lets go of it.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sparkle_sim.population.order import NONE, Index, Later, Line, Times, distinct
from sparkle_sim.population.voting import AGREED, LONE, RIGHT, Decisions, decide
from sparkle_sim.scenario import JobPlan, Scenario

T = TypeVar("T", bound=np.generic)
FIRST_ROWS = 1024
MAX_REPLICAS = 8  # facts.Policy: more than that without agreement, and the unit is dead
DECIDES = 4  # a right vote of the submitter itself

Rows = NDArray[np.int32]
Kinds = NDArray[np.uint8]


@dataclass(slots=True)
class Job:
    """One job of the scenario."""

    plan: JobPlan
    at_s: float
    fresh: int = 0  # units that were handed out
    final: int = 0
    wrong: int = 0  # of these
    dead: int = 0
    last_s: float = 0.0  # when the latest of its units was decided
    barred: NDArray[np.bool_] | None = None  # who gets nothing more of it

    @property
    def left(self) -> int:
        """Units that nobody was given yet."""
        return self.plan.units - self.fresh

    @property
    def over(self) -> bool:
        """Every unit is final or dead."""
        return self.final + self.dead >= self.plan.units


@dataclass(slots=True)
class Totals:
    """Over all jobs."""

    final: int = 0
    wrong: int = 0
    dead: int = 0
    leases: int = 0
    results: int = 0  # that were shown
    votes: int = 0  # about units that are final now, before that
    late: int = 0  # after that
    outvoted: int = 0  # for another result than the accepted one
    lost: int = 0  # leases that ended without a result


class Units:
    """The units of all jobs of a scenario that were submitted so far."""

    def __init__(self, scenario: Scenario, step_s: float) -> None:
        self.jobs = [
            Job(plan, plan.at_s + repeat * plan.every_s) for plan in scenario.jobs for repeat in range(plan.repeat)
        ]
        self.jobs.sort(key=lambda job: job.at_s)
        self.totals = Totals()
        self._units = sum(job.plan.units for job in self.jobs)
        self.unit_s = np.array([job.plan.unit_s for job in self.jobs], np.float32)
        self._submitter = np.array([job.plan.submitter for job in self.jobs], np.int32)
        self._quorum = np.array([job.plan.quorum for job in self.jobs], np.uint8)
        self._most = np.maximum(self._quorum, MAX_REPLICAS).astype(np.uint8)
        self._peers = scenario.peers.count
        self._submitted = 0
        self._front = 0  # the first job that has fresh units
        self._wanted = Line()
        self._later = Later(step_s)
        self._free: Rows = NONE
        self._width = int(self._most.max(initial=MAX_REPLICAS))
        self.job: Index = np.zeros(0, np.int32)
        self._given: NDArray[np.uint8] = np.zeros(0, np.uint8)  # workers that hold it or voted
        self._need: NDArray[np.int16] = np.zeros(0, np.int16)  # workers that it is to have
        self._held: NDArray[np.int16] = np.zeros(0, np.int16)
        self._over: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._votes: NDArray[np.uint8] = np.zeros((0, DECIDES + 1), np.uint8)  # by kind
        self._members: NDArray[np.int32] = np.zeros((0, self._width), np.int32)
        self._ballots: NDArray[np.uint8] = np.zeros((0, self._width), np.uint8)
        self._place: Index = np.zeros(0, np.int32)
        self._grow(FIRST_ROWS)

    # --- jobs -------------------------------------------------------------------------------------------------

    def submit_until(self, now_s: float) -> list[Job]:
        """Jobs that are there from now on."""
        before = self._submitted
        while self._submitted < len(self.jobs) and self.jobs[self._submitted].at_s <= now_s:
            self._submitted += 1
        return self.jobs[before : self._submitted]

    @property
    def over(self) -> bool:
        """Every unit of every job is decided."""
        return self.totals.final + self.totals.dead >= self._units

    @property
    def open(self) -> int:
        """Rows in use."""
        return len(self.job) - len(self._free)

    @property
    def front(self) -> int:
        """The job that fresh units come from; changes when another one's turn comes."""
        while self._front < self._submitted and not self.jobs[self._front].left:
            self._front += 1
        return self._front

    def waiting(self) -> int:
        """How many more workers are wanted now."""
        fresh = sum(job.left * job.plan.quorum for job in self.jobs[self.front : self._submitted])
        return len(self._wanted) + fresh

    # --- handing out ------------------------------------------------------------------------------------------

    def draw(self, most: int) -> Rows:
        """Up to so many places in the line, whose holder is now the caller: ``give`` them or ``put_back``."""
        drawn = [self._still_wanted(self._wanted.take(most))]
        most -= len(drawn[0])
        while most > 0 and self.front < self._submitted:
            number = self.front
            job = self.jobs[number]
            quorum = job.plan.quorum
            count = min(job.left, -(-most // quorum))
            rows = self._open(number, count)
            job.fresh += count
            places = np.repeat(rows, quorum)
            drawn.append(places[:most])
            self._wanted.join(places[most:])
            most -= len(drawn[-1])
        return np.concatenate(drawn)

    def _still_wanted(self, rows: Rows) -> Rows:
        """Without those that were decided meanwhile."""
        over = self._over[rows]
        if not over.any():
            return rows
        useless = rows[over]
        for now in distinct(useless, self._place):
            self._let_go(useless[now])
        return rows[~over]

    def put_back(self, rows: Rows) -> None:
        """Nobody took them."""
        self._wanted.rejoin(rows)

    def give(self, rows: Rows, peers: Index) -> NDArray[np.bool_]:
        """Lease each of these to its peer, where it may have it; tells where that is."""
        may = np.zeros(len(rows), np.bool_)
        for now in distinct(rows, self._place):
            chosen, who = rows[now], peers[now]
            given = self._given[chosen]
            known = (self._members[chosen] == who[:, None]) & (np.arange(self._width) < given[:, None])
            fits = ~known.any(axis=1) & ~self._barred(chosen, who)
            chosen, who = chosen[fits], who[fits]
            self._members[chosen, self._given[chosen]] = who
            self._ballots[chosen, self._given[chosen]] = 0
            self._given[chosen] += 1
            may[now[fits]] = True
        self.totals.leases += int(may.sum())
        return may

    def _barred(self, rows: Rows, peers: Index) -> NDArray[np.bool_]:
        barred = np.zeros(len(rows), np.bool_)
        for number in range(self._submitted):
            whom = self.jobs[number].barred
            if whom is not None:
                barred |= (self.job[rows] == number) & whom[peers]
        return barred

    def barred_from_all(self, peers: Index) -> NDArray[np.bool_]:
        """Which of these get nothing of any job that has units to give."""
        barred = np.ones(len(peers), np.bool_)
        for job in self.jobs[: self._submitted]:
            if not job.over:
                barred &= False if job.barred is None else job.barred[peers]
        return barred

    def bar(self, rows: Rows, peers: Index) -> None:
        """These get nothing more of the jobs of these units."""
        for number in _occurring(self.job[rows]):
            job = self.jobs[number]
            if not job.over:
                if job.barred is None:
                    job.barred = np.zeros(self._peers, np.bool_)
                job.barred[peers[self.job[rows] == number]] = True

    # --- what becomes of them ---------------------------------------------------------------------------------

    def lose(self, rows: Rows, peers: Index, known_s: Times, step: int) -> None:
        """Leases that end without a result; others are wanted from ``known_s`` on."""
        for now in distinct(rows, self._place):
            self._remove(rows[now], peers[now])
        self.totals.lost += len(rows)
        self._later.add(rows, known_s, step)

    def wake(self, step: int) -> None:
        """Units whose loss is known now are wanted."""
        self._wanted.join(self._later.take(step))

    def _remove(self, rows: Rows, peers: Index) -> None:
        """Take each peer out of its unit's members; the last one takes its place."""
        last = self._given[rows].astype(np.int64) - 1
        place = (self._members[rows] == peers[:, None]).argmax(axis=1)
        self._members[rows, place] = self._members[rows, last]
        self._ballots[rows, place] = self._ballots[rows, last]
        self._given[rows] -= 1

    def are_over(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of these are decided, so that a further result is of no use."""
        return self._over[rows]

    def vote(self, rows: Rows, peers: Index, kinds: Kinds, when_s: Times) -> None:
        """Results of these units."""
        self.totals.results += len(rows)
        kinds = np.where(peers == self._submitter[self.job[rows]], DECIDES, kinds).astype(np.uint8)
        for now in distinct(rows, self._place):
            self._vote(rows[now], peers[now], kinds[now], when_s[now])
            self._let_go(rows[now])

    def _vote(self, rows: Rows, peers: Index, kinds: Kinds, when_s: Times) -> None:
        late = self._over[rows]
        self.totals.late += int(late.sum())
        rows, peers, kinds, when_s = rows[~late], peers[~late], kinds[~late], when_s[~late]
        if not len(rows):
            return
        place = (self._members[rows] == peers[:, None]).argmax(axis=1)
        self._ballots[rows, place] = kinds
        self._votes[rows, kinds] += 1
        accepted, wanted, dead = self._decide(rows)
        over = (accepted > 0) | dead
        self._want_more(rows[~over], wanted[~over])
        if over.any():
            self._end(rows[over], accepted[over], when_s[over])

    def _decide(self, rows: Rows) -> Decisions:
        """What their votes mean. Where nobody disagrees only their number counts: the law is for the others."""
        votes, job = self._votes[rows], self.job[rows]
        quorum, right = self._quorum[job], votes[:, RIGHT]
        accepted = np.where(right >= quorum, RIGHT, 0).astype(np.uint8)
        wanted, dead = quorum.astype(np.int16), np.zeros(len(rows), np.bool_)
        disputed = np.flatnonzero((votes[:, AGREED] > 0) | (votes[:, LONE] > 0))
        if len(disputed):
            few = votes[disputed]
            accepted[disputed], wanted[disputed], dead[disputed] = decide(
                few[:, RIGHT], few[:, AGREED], few[:, LONE], quorum[disputed], self._most[job[disputed]]
            )
        decides = votes[:, DECIDES] > 0
        accepted[decides], dead[decides] = RIGHT, False
        return Decisions(accepted, wanted, dead)

    def _want_more(self, rows: Rows, wanted: NDArray[np.int16]) -> None:
        """Disputes want further workers."""
        more = np.maximum(0, wanted - self._need[rows])
        self._need[rows] += more
        again = np.repeat(rows, more)
        self._held[rows] += more
        self._wanted.join(again)

    def _end(self, rows: Rows, accepted: NDArray[np.uint8], when_s: Times) -> None:
        self._over[rows] = True
        jobs = self.job[rows]
        self.totals.votes += int(self._votes[rows].sum())
        for number in _occurring(jobs):
            job, mine = self.jobs[number], jobs == number
            result = accepted[mine]
            job.dead += int((result == 0).sum())
            job.final += int((result > 0).sum())
            job.wrong += int((result > RIGHT).sum())
            job.last_s = max(job.last_s, float(when_s[mine].max()))
            if job.over:
                job.barred = None
        self.totals.dead += int((accepted == 0).sum())
        self.totals.final += int((accepted > 0).sum())
        self.totals.wrong += int((accepted > RIGHT).sum())
        self._reject(rows[accepted > 0], accepted[accepted > 0])

    def _reject(self, rows: Rows, accepted: NDArray[np.uint8]) -> None:
        """Whoever voted for something else gets nothing more of the job."""
        disputed = self._votes[rows, AGREED] + self._votes[rows, LONE] > 0
        rows, accepted = rows[disputed], accepted[disputed]
        if not len(rows):
            return
        ballots = np.where(self._ballots[rows] == DECIDES, RIGHT, self._ballots[rows])
        voted = (ballots > 0) & (np.arange(self._width) < self._given[rows][:, None])
        where, place = np.nonzero(voted & (ballots != accepted[:, None]))
        self.totals.outvoted += len(where)
        self.bar(rows[where], self._members[rows[where], place])

    # --- rows -------------------------------------------------------------------------------------------------

    def _open(self, job: int, count: int) -> Rows:
        """Rows for fresh units of a job, held by as many places as its quorum."""
        if count > len(self._free):
            self._grow(max(2 * len(self.job), len(self.job) + count))
        rows, self._free = self._free[-count:], self._free[:-count]
        quorum = self._quorum[job]
        self.job[rows] = job
        self._given[rows] = 0
        self._need[rows] = quorum
        self._held[rows] = quorum
        self._over[rows] = False
        self._votes[rows] = 0
        return rows.copy()

    def _let_go(self, rows: Rows) -> None:
        """One holder less for each of these different rows; those that nobody holds are free again."""
        self._held[rows] -= 1
        empty = rows[(self._held[rows] == 0) & self._over[rows]]
        if len(empty):
            self._free = np.concatenate([self._free, empty])

    def _grow(self, size: int) -> None:
        old = len(self.job)
        more = size - old
        self.job, self._place = _longer(self.job, more), _longer(self._place, more)
        self._given, self._need, self._held = (
            _longer(self._given, more), _longer(self._need, more), _longer(self._held, more)
        )  # fmt: skip
        self._over, self._votes = _longer(self._over, more), _longer(self._votes, more)
        self._members, self._ballots = _longer(self._members, more), _longer(self._ballots, more)
        self._free = np.concatenate([self._free, np.arange(size - 1, old - 1, -1, dtype=np.int32)])


def _longer(array: NDArray[T], more: int) -> NDArray[T]:
    """With so many more rows of zeros."""
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])


def _occurring(numbers: Index) -> list[int]:
    """The different ones, ascending; they are small."""
    return [int(number) for number in np.flatnonzero(np.bincount(numbers))]
