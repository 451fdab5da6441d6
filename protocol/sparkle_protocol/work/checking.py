"""Results that are checked instead of compared: verification classes ``algebraic`` and ``tolerance``.

Their bits differ between machines, so that two different results prove nothing. One keeper, which leads the unit,
has each revealed result checked by its shell:

::

    revealed ──bytes here──▶ wanted ──▶ under way ──▶ right: accepted, the first one of a unit
                              ▲             ├───────▶ wrong: its worker is rejected, on this node's own evidence
                              └── pause ────┴───────▶ in vain: it could not be had; somebody else is wanted too

- A result is right or wrong whoever shows it and in whatever epoch: the same bytes are not checked twice.
- After a check in vain the worker counts as one that withholds, until a later check has an answer. The pause before
  that doubles. Nobody is accused.
- A unit is dead when the results of ``max_replicas`` workers were wrong.
- Of all this only who was refused is stored: after a restart, what else is revealed and not decided is checked anew.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import JobId, PeerId, ResultHash
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.quorum import Decision

MAX_CHECKS = 64  # of one node under way; others wait in their order
AGAIN_NS = 30 * SECOND_NS  # after a check in vain; doubled each time
MAX_AGAIN_NS = 600 * SECOND_NS
MAX_BYTES_REMEMBERED = 4096  # results of one job; one that was forgotten is asked for again
LONGEST_RESULT = 64  # results of checked jobs are names of blobs

Key = tuple[int, int, PeerId]  # unit, epoch, worker


@dataclass(slots=True)
class UnitChecks:
    """What is known of one unit that is not final."""

    right: set[ResultHash] = field(default_factory=set)
    wrong: dict[PeerId, tuple[ResultHash, str]] = field(default_factory=dict)  # what each gave, and why it is wrong
    pending: dict[tuple[int, PeerId], tuple[ResultHash, bytes]] = field(default_factory=dict)
    vain: dict[tuple[int, PeerId], tuple[int, int]] = field(default_factory=dict)  # how often, not before when


_NOTHING = UnitChecks()


class Checks:
    """The checks of one job."""

    def __init__(self) -> None:
        self._units: dict[int, UnitChecks] = {}
        self._bytes: dict[ResultHash, bytes] = {}  # the latest last
        self._wanted: list[Key] = []

    # --- what is known ------------------------------------------------------------------------------------

    def of(self, unit: int) -> UnitChecks:
        """What is known of a unit, to be read."""
        return self._units.get(unit, _NOTHING)

    def why_wrong(self, unit: int, result: ResultHash) -> str | None:
        """What a check found about a result that it refused; None for any other."""
        return next((text for given, text in self.of(unit).wrong.values() if given == result), None)

    def decide(
        self,
        policy: Policy,
        unit: int,
        votes: Mapping[PeerId, ResultHash],
        trusted: Set[PeerId],
        supporters: Callable[[ResultHash], int],
    ) -> Decision:
        """Accept a trusted worker's result or one that was found right, of several the one that most stand by."""
        known = self.of(unit)
        good = known.right.intersection(votes.values()) | {votes[peer] for peer in trusted & votes.keys()}
        if good:
            return Decision(min(good, key=lambda given: (-supporters(given), given)), len(votes))
        return Decision(None, 1, dead=len(known.wrong) >= policy.max_replicas)

    def why_dead(self, unit: int) -> str:
        """Why nothing right can be had of a unit."""
        wrong = self.of(unit).wrong
        first = next((text for _, text in wrong.values() if text), "")
        return f"unit {unit}: the results of {len(wrong)} workers failed the check" + (first and f"; {first}")

    # --- wanting ------------------------------------------------------------------------------------------

    def remember(self, name: ResultHash, result: bytes) -> None:
        """A result came: whoever checks it needs its bytes."""
        if len(result) <= LONGEST_RESULT:
            self._bytes.pop(name, None)
            self._bytes[name] = result
            if len(self._bytes) > MAX_BYTES_REMEMBERED:
                del self._bytes[next(iter(self._bytes))]

    def has_bytes(self, name: ResultHash) -> bool:
        """A result can be given to the shell."""
        return name in self._bytes

    def is_due(self, unit: int, epoch: int, worker: PeerId, name: ResultHash, now_ns: int) -> bool:
        """A result that is neither right nor wrong should be checked, and is not already, in whatever epoch."""
        known = self.of(unit)
        if any(one == worker and given == name for (_, one), (given, _) in known.pending.items()):
            return False
        return now_ns >= known.vain.get((epoch, worker), (0, now_ns))[1]

    def want(self, unit: int, epoch: int, worker: PeerId, name: ResultHash) -> None:
        """Have a result checked whose bytes are here."""
        self._write(unit).pending[epoch, worker] = (name, self._bytes[name])
        self._wanted.append((unit, epoch, worker))

    def take_wanted(self) -> list[Key]:
        """What is to be checked, said once."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def pending(self, unit: int, epoch: int, worker: PeerId) -> bytes | None:
        """The bytes of a result that waits for its check."""
        found = self.of(unit).pending.get((epoch, worker))
        return found[1] if found is not None else None

    # --- answers ------------------------------------------------------------------------------------------

    def answered(self, unit: int, epoch: int, worker: PeerId) -> ResultHash | None:
        """A check came to its end, or is not needed any more: the result that it was about."""
        found = self.of(unit).pending.pop((epoch, worker), None)
        return found[0] if found is not None else None

    def found_right(self, unit: int, name: ResultHash) -> None:
        """A result passed its check."""
        self._write(unit).right.add(name)

    def found_wrong(self, unit: int, worker: PeerId, name: ResultHash, text: str) -> None:
        """A worker's result failed its check."""
        self._write(unit).wrong[worker] = (name, text)

    def in_vain(self, unit: int, epoch: int, worker: PeerId, now_ns: int) -> int:
        """A result could not be checked; returns when that is tried again."""
        vain = self._write(unit).vain
        times = vain.get((epoch, worker), (0, 0))[0]
        again_ns = now_ns + min(MAX_AGAIN_NS, AGAIN_NS << min(times, 16))
        vain[epoch, worker] = (times + 1, again_ns)
        return again_ns

    def forget(self, unit: int) -> None:
        """The unit is final, or starts over."""
        self._units.pop(unit, None)

    def _write(self, unit: int) -> UnitChecks:
        return self._units.setdefault(unit, UnitChecks())


class CheckQueue:
    """All checks of a node: so many under way at once, the others in the order in which they were wanted."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[JobId, Key], None] = {}  # no more than units that workers hold undecided
        self._under_way: set[tuple[JobId, Key]] = set()

    def want(self, job: JobId, key: Key) -> None:
        """Add one, unless it is there already."""
        if (job, key) not in self._under_way:
            self._waiting[job, key] = None

    def next(self) -> tuple[JobId, Key] | None:
        """Take out the next one if there is room for it; ``started`` says that it was not superfluous."""
        if not self._waiting or len(self._under_way) >= MAX_CHECKS:
            return None
        first = next(iter(self._waiting))
        del self._waiting[first]
        return first

    def started(self, job: JobId, key: Key) -> None:
        """The shell was told to check it."""
        self._under_way.add((job, key))

    def answered(self, job: JobId, key: Key) -> None:
        """The shell has answered."""
        self._under_way.discard((job, key))
