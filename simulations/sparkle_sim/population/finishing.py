"""How long results wait for their audits: one job, event by event, with honest seniors as workers.

Two times matter, both in units of the longest unit: from the last commit of a first execution until everything is
FINAL, and on average from the commit of a result until it is. Workers take audits before units, and never of a result
of their own; who is free and finds nothing waits.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil
from statistics import fmean

from sparkle_sim.draws import Draws, draws
from sparkle_sim.population.trust import Audits, Policy, Timing

SHORT, LONG = 64, 2000  # units of a job
SLOWEST = 4.0  # times the fastest, where they are unequal
UNIT, COIN, WINDOW = range(3)  # what somebody computes: a unit, an audit that a coin asked for, one of a window


@dataclass(slots=True)
class _Worker:
    """A worker's results in the job."""

    time: float  # of a unit
    open: list[float] = field(default_factory=list)  # commits that no window was closed about
    closed: deque[list[float]] = field(default_factory=deque)  # windows whose audit is under way or holds them
    coins: int = 0  # audits under way that its coins asked for


@dataclass(slots=True)
class _Job:
    """One job under way."""

    policy: Policy
    draws: Draws
    workers: list[_Worker]
    fresh: int
    asked: deque[tuple[int, int]] = field(default_factory=deque)  # whose result is computed again, and why
    free: list[int] = field(default_factory=list)
    ends: list[tuple[float, int, int, int]] = field(default_factory=list)  # when, who, what, whose
    waits: list[float] = field(default_factory=list)  # of each result that is FINAL
    last_commit: float = 0.0
    last: float = 0.0

    def run(self) -> tuple[float, float]:
        """To its end; returns what came after the last commit, and the mean wait of a result."""
        for worker in range(len(self.workers)):
            self._take(worker, 0.0)
        while self.ends:
            now, worker, what, whose = heappop(self.ends)
            self.last = now
            if what == UNIT:
                self.last_commit = now
                self._committed(worker, now)
            else:
                self._audited(whose, what, now)
            if not self.fresh:
                self._close(worker, now)
            waiting, self.free = [worker, *self.free], []
            for one in waiting:
                self._take(one, now)
        for held in self.workers:
            self._final([commit for window in held.closed for commit in window], self.last)
        longest = max(each.time for each in self.workers)
        return (self.last - self.last_commit) / longest, fmean(self.waits) / longest

    def _take(self, worker: int, now: float) -> None:
        """The next thing for a worker that is free."""
        other = next((one for one in self.asked if one[0] != worker), None)
        if other is not None:
            self.asked.remove(other)
            whose, what = other
        elif self.fresh:
            self.fresh -= 1
            whose, what = worker, UNIT
        else:
            self.free.append(worker)
            return
        heappush(self.ends, (now + self.workers[worker].time, worker, what, whose))

    def _committed(self, worker: int, now: float) -> None:
        policy, mine = self.policy, self.workers[worker]
        mine.open.append(now)
        if not isinstance(policy, Audits):
            if not policy.valid:
                self._ask(worker, WINDOW)
            else:
                self._final(mine.open, now)
            return
        if policy.timing is not Timing.WINDOWS and self.draws.random() < policy.least:
            mine.coins += 1
            self.asked.append((worker, COIN))
        if policy.timing is Timing.COIN:
            if not mine.coins:
                self._final(mine.open, now)
        elif len(mine.open) >= ceil(1.0 / policy.least):
            self._ask(worker, WINDOW)

    def _ask(self, worker: int, why: int) -> None:
        """Have one of its open results computed again, for all of them."""
        mine = self.workers[worker]
        mine.closed.append(mine.open)
        mine.open = []
        self.asked.append((worker, why))

    def _audited(self, whose: int, what: int, now: float) -> None:
        policy, one = self.policy, self.workers[whose]
        if what == COIN:
            one.coins -= 1
            if not one.coins and isinstance(policy, Audits) and policy.timing is Timing.COIN:
                self._final(one.open, now)
        elif len(one.closed) > (policy.hold if isinstance(policy, Audits) else 0):
            self._final(one.closed.popleft(), now)

    def _close(self, worker: int, now: float) -> None:
        """No units are left: a worker that comes back has its open window closed."""
        policy, mine = self.policy, self.workers[worker]
        if not isinstance(policy, Audits) or policy.timing is Timing.COIN or not mine.open:
            return
        if policy.short_drawn and self.draws.random() >= len(mine.open) * policy.least:
            self._final(mine.open, now)
        else:
            self._ask(worker, WINDOW)

    def _final(self, commits: list[float], now: float) -> None:
        self.waits += [now - commit for commit in commits]
        commits.clear()


def waits(
    policy: Policy, workers: int, runs: int, seed: int, *, units: int = SHORT, unequal: bool = False
) -> list[tuple[float, float]]:
    """For so many jobs: from the last commit until all is FINAL, and of a result on average, in longest units."""
    found = []
    for run in range(runs):
        chance = draws(seed, "finishing", policy.name, workers, run)
        slowest = SLOWEST if unequal else 1.0 + 1e-3
        job = _Job(policy, chance, [_Worker(chance.uniform(1.0, slowest)) for _ in range(workers)], units)
        found.append(job.run())
    return found
