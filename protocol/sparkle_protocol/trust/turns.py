"""Who may give the next answer to a unit about which one answer is not enough: by lot, in turns.

Whoever comes first would be a peer that does nothing but wait: those who lie together would have one of them ready
for each audit and for each dispute. So workers are drawn, and the first who is there has the time in which a busy one
comes by once; then the next may take the unit as well. Once all were named, anybody may who counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparkle_protocol.ids import PeerId


@dataclass(slots=True)
class Turn:
    """The order for one answer, and how far it has come."""

    order: Sequence[PeerId]
    answers: int  # that there were when it was drawn
    since_ns: int
    named: frozenset[PeerId] | None = frozenset()  # None: anybody


class Turns:
    """Units whose next answer was drawn for."""

    def __init__(self) -> None:
        self._turns: dict[int, Turn] = {}
        self._called: dict[PeerId, None] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def of(self, unit: int) -> Turn | None:
        """Whose turn it is, if anybody's."""
        return self._turns.get(unit)

    def begin(self, unit: int, turn: Turn, is_there: Callable[[PeerId], bool]) -> None:
        """Name the first one; what was drawn for the unit before is replaced."""
        self._turns[unit] = turn
        self._advance(turn, turn.since_ns, 1, is_there)

    def end(self, unit: int) -> None:
        """No further answer is wanted."""
        self._turns.pop(unit, None)

    def advance(self, now_ns: int, turn_ns: int, is_there: Callable[[PeerId], bool]) -> list[int]:
        """Let time pass; returns the units that others may take than before."""
        return [unit for unit, turn in self._turns.items() if self._advance(turn, now_ns, turn_ns, is_there)]

    def take_called(self) -> list[PeerId]:
        """Whose turn has come since the last call."""
        called, self._called = list(self._called), {}
        return called

    def _advance(self, turn: Turn, now_ns: int, turn_ns: int, is_there: Callable[[PeerId], bool]) -> bool:
        if turn.named is None:
            return False
        many = 1 + (now_ns - turn.since_ns) // turn_ns
        named: list[PeerId] = []
        for worker in turn.order:
            if len(named) >= many:
                break
            if is_there(worker):
                named.append(worker)
        before, turn.named = turn.named, frozenset(named) if len(named) >= many else None
        self._called.update((worker, None) for worker in named if worker not in before)
        return turn.named != before
