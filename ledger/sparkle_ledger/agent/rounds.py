"""Looks through old things now and then, a step at a time, so that a node can do others in between."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from sparkle_ledger.agent.desk import SECOND_NS, Desk

MS_NS = 1_000_000
ROUND_NS = 3600 * SECOND_NS  # from one to the next
ROUNDS = 7 * 24  # of the time after which something is old, where that is shorter than a week
STEP_NS = SECOND_NS // 4


class Rounds(ABC):
    """Rounds through what may be old; ``keep_ms``: it is after so long."""

    def __init__(self, desk: Desk, keep_ms: int) -> None:
        self._desk = desk
        self._pause_ns = min(max(keep_ms * MS_NS // ROUNDS, SECOND_NS), ROUND_NS)
        self._steps: Iterator[None] | None = None  # of the round that is under way
        self.due_ns: int | None = None

    @abstractmethod
    def _round(self) -> Iterator[None]:
        """One round; it does a step each time that it is asked for the next."""

    def tick(self) -> None:
        """Go one step on, if it is time."""
        now_ns = self._desk.now_ns
        if self.due_ns is None:  # a life begins with other things
            self.due_ns = now_ns + self._pause_ns
        if self.due_ns > now_ns:
            return
        if self._steps is None:
            self._steps = self._round()
        for _ in self._steps:
            self.due_ns = now_ns + STEP_NS
            return
        self._steps = None
        self.due_ns = now_ns + self._pause_ns
