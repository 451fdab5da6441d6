"""The units in a worker's hands, each in one state, found by job, by keeper and by what they wait for.

A unit is held in one epoch at a time. When the keepers of its job change it is carried into a new one: what is
computed goes on under the name by which the executor knows it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sparkle_protocol.effects import StopCompute
from sparkle_protocol.facts import Fact
from sparkle_protocol.ids import JobId, PeerId

MAX_HELD = 4096  # in all: results wait here until they are settled
MAX_HELD_PER_KEEPER = 1024  # so that no keeper can fill our hands by never deciding

UnitKey = tuple[JobId, int, int]  # job, unit, epoch
HeldState = Literal["queued", "running", "committing", "committed", "revealing", "revealed"]
COMMITTED: tuple[HeldState, ...] = ("committing", "committed", "revealing", "revealed")


@dataclass(slots=True)
class Held:
    """A unit this node holds. ``state`` and ``keeper`` are changed by ``Hands`` only."""

    keeper: PeerId  # who hears about it from us
    state: HeldState
    since_ns: int
    deadline_ns: int
    lease: Fact | None = None  # by which it was given to us; without it no other keeper would believe that
    run: UnitKey | None = None  # what the shell knows it as, once it prepares for it or runs it
    started_ns: int = 0
    progress: float = 0.0
    nonce: bytes = b""
    result: bytes = b""
    asked: bool = False  # its keeper wants to see the result
    stored_as: UnitKey | None = None  # its commit on disk


_NONE: Mapping[int, UnitKey] = {}


class Hands:
    """All units held."""

    def __init__(self) -> None:
        self.all: dict[UnitKey, Held] = {}
        self.queued: dict[UnitKey, None] = {}
        self.running: dict[UnitKey, None] = {}  # handed to the executors, in this order
        self._busy: Counter[JobId] = Counter()
        self._runs: dict[UnitKey, UnitKey] = {}  # what the executor knows it as -> what it is now
        self._by_job: dict[JobId, dict[int, UnitKey]] = {}
        self._by_box: dict[tuple[JobId, PeerId], dict[UnitKey, None]] = {}
        self._by_keeper: Counter[PeerId] = Counter()

    @property
    def busy(self) -> int:
        """Units that are computed or wait for it."""
        return len(self.queued) + len(self.running)

    @property
    def busy_jobs(self) -> Iterable[JobId]:
        """The jobs of these units."""
        return self._busy

    def get(self, key: UnitKey) -> Held | None:
        """The unit, if it is held in that epoch."""
        return self.all.get(key)

    def of_unit(self, job: JobId, unit: int) -> UnitKey | None:
        """The key by which a unit is held, in whatever epoch."""
        return self._by_job.get(job, _NONE).get(unit)

    def of_run(self, run: UnitKey) -> UnitKey | None:
        """The unit that the executor knows by this name."""
        return self._runs.get(run)

    def of_job(self, job: JobId) -> Iterable[UnitKey]:
        """Units of one job."""
        return self._by_job.get(job, _NONE).values()

    def of_box(self, job: JobId, keeper: PeerId) -> Mapping[UnitKey, None]:
        """Units of one job that one keeper hears about."""
        return self._by_box.get((job, keeper), {})

    def of_keeper(self, keeper: PeerId) -> int:
        """How many units a keeper hears about."""
        return self._by_keeper[keeper]

    def add(self, key: UnitKey, held: Held) -> None:
        """Take a unit that is not held yet in any epoch."""
        self.all[key] = held
        self._by_job.setdefault(key[0], {})[key[1]] = key
        self._join(key, held.keeper)
        self.move(key, held.state)

    def start(self, key: UnitKey, now_ns: int) -> None:
        """The executor gets a unit, under the name that it has now."""
        held = self.all[key]
        held.run, held.started_ns = held.run or key, now_ns
        self._runs[held.run] = key
        self.move(key, "running")

    def to_stop(self, key: UnitKey, *, resumes: bool = False) -> tuple[StopCompute, ...]:
        """What the shell must hear when a unit that it has is let go, for good unless it ``resumes``."""
        held = self.all[key]
        if held.run is None or held.state not in ("queued", "running"):
            return ()
        return (StopCompute(*held.run, resumes),)

    def move(self, key: UnitKey, state: HeldState) -> None:
        """Put a unit into another state."""
        held = self.all[key]
        held.state = state
        self._rest(key)
        if state in ("queued", "running"):
            (self.queued if state == "queued" else self.running)[key] = None
            self._busy[key[0]] += 1
        if state != "running":
            self._forget_run(held)

    def hand_to(self, key: UnitKey, keeper: PeerId) -> None:
        """Another keeper hears about a unit from now on."""
        held = self.all[key]
        self._leave(key, held.keeper)
        held.keeper = keeper
        self._join(key, keeper)

    def carry(self, key: UnitKey, new: UnitKey) -> Held:
        """Hold a unit in another epoch; it keeps its state, its place and its run."""
        held = self.all.pop(key)
        self.all[new] = held
        self._by_job[key[0]][key[1]] = new
        self._leave(key, held.keeper)
        self._join(new, held.keeper)
        if key in self.queued:
            self.queued = {new if one == key else one: None for one in self.queued}
        if key in self.running:
            self.running = {new if one == key else one: None for one in self.running}
        if held.run is not None and held.state == "running":
            self._runs[held.run] = new
        return held

    def pop(self, key: UnitKey) -> Held | None:
        """Let a unit go."""
        held = self.all.pop(key, None)
        if held is None:
            return None
        self._rest(key)
        self._forget_run(held)
        rest = self._by_job[key[0]]
        del rest[key[1]]
        if not rest:
            del self._by_job[key[0]]
        self._leave(key, held.keeper)
        return held

    def longest_waiting(self) -> UnitKey | None:
        """The oldest computed unit of the keeper that leaves most of them undecided."""
        waiting = [(key, held) for key, held in self.all.items() if held.state in COMMITTED]
        if not waiting:
            return None
        slowest = Counter(held.keeper for _, held in waiting).most_common(1)[0][0]
        return min((held.since_ns, key) for key, held in waiting if held.keeper == slowest)[1]

    def _rest(self, key: UnitKey) -> None:
        """A unit is not computed, nor does it wait for that."""
        if self.queued.pop(key, self) is None or self.running.pop(key, self) is None:
            self._busy[key[0]] -= 1
            if not self._busy[key[0]]:
                del self._busy[key[0]]

    def _forget_run(self, held: Held) -> None:
        if held.run is not None:
            self._runs.pop(held.run, None)

    def _join(self, key: UnitKey, keeper: PeerId) -> None:
        self._by_box.setdefault((key[0], keeper), {})[key] = None
        self._by_keeper[keeper] += 1

    def _leave(self, key: UnitKey, keeper: PeerId) -> None:
        rest = self._by_box[key[0], keeper]
        del rest[key]
        if not rest:
            del self._by_box[key[0], keeper]
        self._by_keeper[keeper] -= 1
        if not self._by_keeper[keeper]:
            del self._by_keeper[keeper]
