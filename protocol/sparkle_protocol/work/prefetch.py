"""How many units a worker wants in its queue, and how long a report waits for more, by how long units take.

The queue holds about three seconds of work: enough to outlast a round trip and a busy keeper, so little that other
workers are not kept from it. A slot has at least one unit running and one waiting, so that it never idles during a
round trip; a kernel that was not seen yet gets no more. It is filled up again when half of it is left, so that
leases travel in batches. A keeper that gives less than was asked for keeps something for others: then it is asked
again when half of what there is by now is left. Who asked at once, over and over, would have everything after all.

While there is more to compute, reports leave no faster than every three units: commits and reveals then share a
signature, a message and a write to disk, which costs more than short units do, and shows beside those of a second.
Results that are files are reported at once: to move and check them takes so long that it had better begin.

An executor is handed a tenth of a second of work: it need not wait for us between short units, and what it was
handed is hardly ever in its hands for nothing. Of units that take longer it gets one at a time; two if their tiles
and results are files, for it would wait while one's result is read and hashed and the next one's file is made.
"""

from collections.abc import Iterable
from math import ceil

from sparkle_protocol.work.lease import SECOND_NS

MIN_DEPTH = 2
MAX_DEPTH = 64  # per slot; as many as one request may ask for
QUEUE_S = 3.0
HANDED_S = 0.1
MAX_HANDED = 32  # per slot; as many as an executor takes
MAX_QUEUED = 256  # in all; half of what we hold of one keeper, the rest being results that wait for their verdict
RECENT = 16  # run times that count for the mean
MAX_KERNELS = 256
MIN_PACE_NS = SECOND_NS // 20
MAX_PACE_NS = 3 * SECOND_NS  # a result shall not wait longer for company


class Prefetch:
    """Mean run times by kernel."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._means: dict[str, tuple[float, int]] = {}  # seconds, how many run times
        self._content: int | None = None  # units that have to do where fewer were given than asked for

    def ran(self, kernel: str, seconds: float) -> None:
        """A unit of the kernel took so long."""
        mean, count = self._means.pop(kernel, (0.0, 0))
        count = min(count + 1, RECENT)
        self._means[kernel] = (mean + (max(0.0, seconds) - mean) / count, count)  # the latest last
        if len(self._means) > MAX_KERNELS:
            del self._means[next(iter(self._means))]

    def depth(self, kernel: str) -> int:
        """Units per slot that last for ``QUEUE_S``."""
        mean, count = self._means.get(kernel, (0.0, 0))
        if not count:
            return MIN_DEPTH
        return MAX_DEPTH if mean * MAX_DEPTH <= QUEUE_S else max(MIN_DEPTH, ceil(QUEUE_S / mean))

    def pace_ns(self, kernel: str, *, files: bool = False) -> int:
        """Between two reports about units of the kernel, with files or without, while there are more to compute."""
        mean, count = self._means.get(kernel, (0.0, 0))
        if files or not count:
            return MIN_PACE_NS
        return min(max(MIN_PACE_NS, int(3 * mean / self._slots * SECOND_NS)), MAX_PACE_NS)

    def handed(self, kernels: Iterable[str], *, files: bool = False) -> int:
        """Units that all slots together are handed at a time; the slowest of the kernels decides.

        Args:
            kernels: of the units in hand.
            files: some of these units have files.
        """
        return self._slots * max(MIN_DEPTH if files else 1, min(map(self._handed, kernels), default=1))

    def _handed(self, kernel: str) -> int:
        mean, count = self._means.get(kernel, (0.0, 0))
        if not count:
            return 1
        return MAX_HANDED if mean * MAX_HANDED <= HANDED_S else max(1, int(HANDED_S / mean))

    def room(self, busy: int, kernels: Iterable[str]) -> int:
        """How many more units are wanted, given how many are in hand and of which kernels.

        The slowest of these kernels decides; with nothing in hand, the kernel that ran last.
        """
        in_hand = set(kernels) or set(list(self._means)[-1:])
        depth = min((self.depth(kernel) for kernel in in_hand), default=MIN_DEPTH)
        least = self._slots * MIN_DEPTH
        target = min(self._slots * depth, max(MAX_QUEUED, least))
        full = target if self._content is None else min(target, max(self._content, least))
        return target - busy if 2 * busy <= full else 0

    def given(self, count: int, want: int, busy: int) -> None:
        """A keeper gave so many of the units that it was asked for; ``busy`` are in hand now."""
        if count:
            self._content = busy if count < want else None
