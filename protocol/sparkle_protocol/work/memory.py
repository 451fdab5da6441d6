"""What a unit may use of this node's memory, and the open jobs that need more: they are never asked for.

A worker says its limit with every request, and a keeper leaves out what does not fit. It names some of what it left
out, so that the worker can tell its owner why it does nothing; it is told so again whenever it asks, which it does
when the keeper announces work: what was not said again for ``TOLD_NS`` is not true any more.
"""

from collections.abc import Iterable

from sparkle_protocol import messages
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.lease import SECOND_NS

TOLD_NS = 120 * SECOND_NS  # open work is announced every 30 s or so
MAX_TELLERS = 64  # who told longest ago is forgotten first


class MemoryLimit:
    """The limit of one worker.

    Args:
        size_bytes: what a unit may use; ``messages.UNSAID``: anything.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._told: dict[PeerId, tuple[int, list[messages.TooLarge]]] = {}

    def allows(self, spec: JobSpec) -> bool:
        """Whether units of the job may be computed here."""
        return fits(spec, self.size_bytes)

    def told(self, keeper: PeerId, jobs: Iterable[messages.TooLarge], now_ns: int) -> None:
        """What a keeper left out last."""
        self._told.pop(keeper, None)
        left_out = [job for job in jobs if 0 <= self.size_bytes < job.memory_bytes]
        if left_out:
            self._told[keeper] = now_ns, left_out
            while len(self._told) > MAX_TELLERS:
                del self._told[next(iter(self._told))]

    def too_large(self, now_ns: int) -> dict[JobId, int]:
        """Open jobs that need more, and how much their units need."""
        fresh = (jobs for told_ns, jobs in self._told.values() if now_ns - told_ns <= TOLD_NS)
        return {JobId(job.job): job.memory_bytes for jobs in fresh for job in jobs}


def fits(spec: JobSpec, memory_bytes: int) -> bool:
    """Whether a worker with this limit (``messages.UNSAID``: none that is known) can take units of the job."""
    return memory_bytes == messages.UNSAID or spec.resources.memory_bytes <= memory_bytes
