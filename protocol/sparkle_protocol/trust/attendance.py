"""Which workers whose answers count are there, and which of them are at work.

Who only asks is *there*; who reports on units that it holds, and is not late with all of them, *works*. A unit is
left to strangers only when nobody who counts works who could take it: however long it waits, and however many
strangers there are.
"""

from collections.abc import Callable, Container

from sparkle_protocol.ids import PeerId

SECOND_NS = 1_000_000_000
MAX_SEEN = 4096  # workers whose presence is noted; the one seen the longest ago is forgotten first
SILENT_NS = 15 * SECOND_NS  # one report and a half, as in ``work/lease.py``


class Attendance:
    """When workers that count were heard of last.

    Args:
        counts: whose answers count; nobody else is noted.
        me: this node, which is never waited for.
    """

    def __init__(self, counts: Callable[[PeerId], bool], me: PeerId) -> None:
        self._counts = counts
        self._me = me
        self._seen: dict[PeerId, int] = {}  # the longest ago first
        self._worked: dict[PeerId, int] = {}

    def saw(self, worker: PeerId, now_ns: int, *, works: bool) -> None:
        """The worker asked for work, or reported."""
        if worker == self._me or not self._counts(worker):
            return
        for noted in (self._seen, self._worked) if works else (self._seen,):
            noted.pop(worker, None)
            noted[worker] = now_ns
            if len(noted) > MAX_SEEN:
                del noted[next(iter(noted))]

    def left(self, worker: PeerId) -> None:
        """The worker's connection is gone."""
        self._seen.pop(worker, None)

    def is_there(self, worker: PeerId, now_ns: int) -> bool:
        """The worker would soon take what it may."""
        return now_ns - self._seen.get(worker, now_ns - SILENT_NS - 1) <= SILENT_NS

    def everybody(self, since_ns: int) -> list[PeerId]:
        """Who counts and was heard of since then."""
        return [worker for worker, at_ns in self._seen.items() if at_ns >= since_ns and self._counts(worker)]

    def are(self, many: int, since_ns: int) -> bool:
        """At least so many of those who count were heard of since then."""
        for worker in reversed(self._seen):
            if many <= 0 or self._seen[worker] < since_ns:
                break
            many -= self._counts(worker)
        return many <= 0

    def works(self, since_ns: int, besides: Container[PeerId]) -> bool:
        """Somebody who counts worked since then who is none of these."""
        for worker in reversed(self._worked):
            if self._worked[worker] < since_ns:
                break
            if worker not in besides and self._counts(worker):
                return True
        return False
