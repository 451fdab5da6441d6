"""Virtual time: one heap of events, in the order of their time and, at one time, in the order they were made.

Nothing else makes anything happen, so that a run is the same whenever and wherever it is made.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

MS = 1_000_000
SECOND = 1_000_000_000


class Kernel:
    """The clock and what is to happen. Times are nanoseconds since the beginning of the run.

    An event cannot be taken back: whoever is called sees whether it still means something.
    """

    __slots__ = ("_heap", "_sequence", "_stopped", "events", "now")

    def __init__(self) -> None:
        self.now = 0
        self.events = 0  # that happened
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._stopped = False

    def at(self, when_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call at a time; at once, after what is due already, if that is over."""
        self._sequence += 1
        heappush(self._heap, (when_ns if when_ns > self.now else self.now, self._sequence, call, arguments))

    def after(self, delay_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call after a while."""
        self.at(self.now + delay_ns, call, *arguments)

    @property
    def pending(self) -> int:
        """Events that have not happened yet."""
        return len(self._heap)

    @property
    def next_ns(self) -> int | None:
        """When the next event happens; None if there is none."""
        return self._heap[0][0] if self._heap else None

    def stop(self) -> None:
        """Let ``run`` return after the present event."""
        self._stopped = True

    def run(self, until_ns: int) -> bool:
        """Let everything happen up to this time; False if it was stopped before."""
        heap, self._stopped = self._heap, False
        while heap and heap[0][0] <= until_ns:
            self.now, _, call, arguments = heappop(heap)
            self.events += 1
            call(*arguments)
            if self._stopped:
                return False
        self.now = max(self.now, until_ns)
        return True
