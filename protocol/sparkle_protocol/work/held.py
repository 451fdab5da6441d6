"""The units in a worker's hands, each in one state, found by job, by keeper and by what they wait for."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sparkle_protocol.ids import JobId, PeerId

MAX_HELD = 1024  # in all: results wait here until they are settled
MAX_HELD_PER_KEEPER = 256  # so that no keeper can fill our hands by never deciding

UnitKey = tuple[JobId, int, int]  # job, unit, epoch
HeldState = Literal["queued", "running", "committing", "committed", "revealing", "revealed"]
COMMITTED: tuple[HeldState, ...] = ("committing", "committed", "revealing", "revealed")


@dataclass(slots=True)
class Held:
    """A unit this node holds. ``state`` is changed by ``Hands.move`` only."""

    keeper: PeerId
    state: HeldState
    since_ns: int
    deadline_ns: int
    ttl_ns: int = 0
    started_ns: int = 0
    progress: float = 0.0
    nonce: bytes = b""
    result: bytes = b""
    asked: bool = False  # its keeper wants to see the result


_EMPTY: Mapping[UnitKey, Held] = {}


class Hands:
    """All units held."""

    def __init__(self) -> None:
        self.all: dict[UnitKey, Held] = {}
        self.queued: dict[UnitKey, None] = {}
        self.running: dict[UnitKey, None] = {}
        self._by_job: dict[JobId, dict[UnitKey, Held]] = {}
        self._by_keeper: Counter[PeerId] = Counter()

    @property
    def busy(self) -> int:
        """Units that are computed or wait for it."""
        return len(self.queued) + len(self.running)

    def get(self, key: UnitKey) -> Held | None:
        """The unit, if it is held."""
        return self.all.get(key)

    def of_job(self, job: JobId) -> Mapping[UnitKey, Held]:
        """Units of one job."""
        return self._by_job.get(job, _EMPTY)

    def of_keeper(self, keeper: PeerId) -> int:
        """How many units come from a keeper."""
        return self._by_keeper[keeper]

    def add(self, key: UnitKey, held: Held) -> None:
        """Take a unit that is not held yet."""
        self.all[key] = held
        self._by_job.setdefault(key[0], {})[key] = held
        self._by_keeper[held.keeper] += 1
        self.move(key, held.state)

    def move(self, key: UnitKey, state: HeldState) -> None:
        """Put a unit into another state."""
        self.all[key].state = state
        for name, index in (("queued", self.queued), ("running", self.running)):
            if state == name:
                index[key] = None
            else:
                index.pop(key, None)

    def pop(self, key: UnitKey) -> Held | None:
        """Let a unit go."""
        held = self.all.pop(key, None)
        if held is None:
            return None
        self.queued.pop(key, None)
        self.running.pop(key, None)
        rest = self._by_job[key[0]]
        del rest[key]
        if not rest:
            del self._by_job[key[0]]
        self._by_keeper[held.keeper] -= 1
        if not self._by_keeper[held.keeper]:
            del self._by_keeper[held.keeper]
        return held

    def longest_waiting(self) -> UnitKey | None:
        """The oldest computed unit of the keeper that leaves most of them undecided."""
        waiting = [(key, held) for key, held in self.all.items() if held.state in COMMITTED]
        if not waiting:
            return None
        slowest = Counter(held.keeper for _, held in waiting).most_common(1)[0][0]
        return min((held.since_ns, key) for key, held in waiting if held.keeper == slowest)[1]
