"""Virtual time: events in the order of their time and, at one time, in the order they were made.

Nothing else makes anything happen, so that a run is the same whenever and wherever it is made.

What is soon is in a heap; what is later lies unsorted in slots of time (R. Brown, Calendar queues, 1988), each of
which becomes the heap when it begins. One heap of a million events would be looked at all over with each of them.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, TypeAlias

MS = 1_000_000
SECOND = 1_000_000_000
SLOT_BITS = 22  # a slot is 2²² ns, 4.2 ms

_Event: TypeAlias = tuple[int, int, Callable[..., None], tuple[Any, ...]]  # the second is the number of its making


class Kernel:
    """The clock and what is to happen. Times are nanoseconds since the beginning of the run.

    An event cannot be taken back: whoever is called sees whether it still means something.
    """

    __slots__ = ("_heap", "_later", "_sequence", "_slot", "_slots", "_stopped", "events", "now")

    def __init__(self) -> None:
        self.now = 0
        self.events = 0  # that happened
        self._heap: list[_Event] = []  # up to the end of a slot
        self._slot = 0  # that one
        self._later: dict[int, list[_Event]] = {}  # by slot
        self._slots: list[int] = []  # of these, as a heap
        self._sequence = 0
        self._stopped = False

    def at(self, when_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call at a time; at once, after what is due already, if that is over."""
        self._sequence += 1
        if when_ns < self.now:
            when_ns = self.now
        event = when_ns, self._sequence, call, arguments
        slot = when_ns >> SLOT_BITS
        if slot <= self._slot:
            heappush(self._heap, event)
            return
        later = self._later.get(slot)
        if later is None:
            self._later[slot] = [event]
            heappush(self._slots, slot)
        else:
            later.append(event)

    def after(self, delay_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call after a while."""
        self.at(self.now + delay_ns, call, *arguments)

    @property
    def pending(self) -> int:
        """Events that have not happened yet."""
        return len(self._heap) + sum(len(later) for later in self._later.values())

    @property
    def next_ns(self) -> int | None:
        """When the next event happens; None if there is none."""
        if self._heap:
            return self._heap[0][0]
        return min(event[0] for event in self._later[self._slots[0]]) if self._slots else None

    def stop(self) -> None:
        """Let ``run`` return after the present event."""
        self._stopped = True

    def run(self, until_ns: int) -> bool:
        """Let everything happen up to this time; False if it was stopped before."""
        self._stopped = False
        while self._heap or (self._slots and self._slots[0] <= until_ns >> SLOT_BITS):
            heap = self._heap or self._next_slot()
            while heap and heap[0][0] <= until_ns:
                self.now, _, call, arguments = heappop(heap)
                self.events += 1
                call(*arguments)
                if self._stopped:
                    return False
            if heap:
                break
        self.now = max(self.now, until_ns)
        return True

    def _next_slot(self) -> list[_Event]:
        """What is first among what is later becomes the heap."""
        self._slot = heappop(self._slots)
        self._heap = heap = self._later.pop(self._slot)
        heapify(heap)
        return heap
