"""How long a short job waits for its audits: one job, event by event, with honest workers.

The time is counted from the last commit of a first execution until everything is FINAL, in the time of the longest
unit. Workers take audits before units, never of a result of their own; who is free and finds nothing waits.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil

from sparkle_sim.draws import Draws, draws
from sparkle_sim.population.trust import Audits, Policy, Timing

UNITS = 64
SLOWEST = 4.0  # times the fastest, where they are unequal


@dataclass(slots=True)
class _Job:
    """One job under way."""

    policy: Policy
    draws: Draws
    times: list[float]  # of a unit, by worker
    fresh: int = UNITS
    audits: deque[int] = field(default_factory=deque)  # whose results are audited next
    seconds: deque[int] = field(default_factory=deque)  # units of these want a second worker
    open: list[int] = field(default_factory=list)  # results of each worker in its open window
    running: list[int] = field(default_factory=list)  # units and audits of each worker that it has not finished
    free: list[int] = field(default_factory=list)  # who waits
    ends: list[tuple[float, int, int]] = field(default_factory=list)  # when, who, what: a unit (0), anything else (1)
    last_commit: float = 0.0
    last: float = 0.0

    def run(self) -> float:
        """To its end; returns what came after the last commit."""
        count = len(self.times)
        self.open, self.running = [0] * count, [0] * count
        for worker in range(count):
            self._take(worker, 0.0)
        while self.ends:
            now, worker, what = heappop(self.ends)
            self.last = now
            if what == 0:
                self.last_commit = now
                self._committed(worker)
            self._close(worker)
            waiting, self.free = [worker, *self.free], []
            for one in waiting:
                self._take(one, now)
        return (self.last - self.last_commit) / max(self.times)

    def _take(self, worker: int, now: float) -> None:
        """The next thing for a worker that is free."""
        what = 1
        other = next((whose for whose in (*self.audits, *self.seconds) if whose != worker), None)
        if other is not None:
            (self.audits if other in self.audits else self.seconds).remove(other)
        elif self.fresh:
            self.fresh -= 1
            what = 0
        else:
            self.free.append(worker)
            return
        heappush(self.ends, (now + self.times[worker], worker, what))

    def _committed(self, worker: int) -> None:
        policy = self.policy
        self.open[worker] += 1
        if not isinstance(policy, Audits):
            if not policy.valid:
                self.seconds.append(worker)
            return
        if policy.timing is not Timing.WINDOWS and self.draws.random() < policy.least:
            self.audits.append(worker)
        if policy.timing is not Timing.COIN and self.open[worker] >= ceil(1.0 / policy.least):
            self._draw(worker)

    def _close(self, worker: int) -> None:
        """No units are left: whoever has an open window has it closed."""
        policy = self.policy
        if self.fresh or not isinstance(policy, Audits) or policy.timing is Timing.COIN or not self.open[worker]:
            return
        if not policy.short_drawn or self.draws.random() < self.open[worker] * policy.least:
            self._draw(worker)
        self.open[worker] = 0

    def _draw(self, worker: int) -> None:
        self.audits.append(worker)
        self.open[worker] = 0


def waits(policy: Policy, workers: int, runs: int, seed: int, *, unequal: bool = False) -> list[float]:
    """From the last commit to FINAL in units of the longest unit, for so many jobs with seniors as workers."""
    found = []
    for run in range(runs):
        chance = draws(seed, "finishing", policy.name, workers, run)
        slowest = SLOWEST if unequal else 1.0 + 1e-3
        times = [chance.uniform(1.0, slowest) for _ in range(workers)]
        found.append(_Job(policy, chance, times).run())
    return found
