"""Which keepers of a job hold it up: they answer, and endorse nothing that most others endorsed a minute ago.

A keeper that lies so cannot be told from one that has no room, or cannot fetch a result. Nor need it be: whoever does
not endorse is of no use, and where fewer than the threshold do nothing becomes final. So its submitter names others,
and does not ask these for this job again. As it goes by what more than half of the keepers signed, no three of eight
can have others taken for such by endorsing something that nobody else does.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.state import JobState
from sparkle_protocol.work.views import View

SECOND_NS = 1_000_000_000
PATIENCE_NS = 60 * SECOND_NS  # in which nothing becomes final; the largest result is fetched in less
MAX_WAITING = 256  # units that are looked at


@dataclass(slots=True)
class Endorsers:
    """What one job's submitter sees of its keepers' endorsements."""

    silent: set[PeerId] = field(default_factory=set)
    _view: int | None = None
    _final: int = 0
    _since_ns: int = 0  # when a unit last became final, or others came to keep the job
    _waiting: dict[tuple[int, int], int] = field(
        default_factory=dict
    )  # units and epochs that most endorsed; since when

    def look(self, state: JobState, view: View, supported: Iterable[int], me: PeerId, now_ns: int) -> set[PeerId]:
        """Keepers that turn out to be silent now.

        Args:
            state: of the job.
            view: who keeps it.
            supported: units that we accepted a result of.
            me: the submitter.
            now_ns: monotonic clock.
        """
        if (view.number, len(state.final_units)) != (self._view, self._final):
            self._view, self._final, self._since_ns = view.number, len(state.final_units), now_ns
            self._waiting = {}
            return set()
        keepers = set(view.keepers)
        waiting = dict(islice(_waiting(state, keepers, supported), MAX_WAITING))
        self._waiting = {place: self._waiting.get(place, now_ns) for place in waiting}
        overdue = [place for place, since_ns in self._waiting.items() if now_ns - since_ns >= PATIENCE_NS]
        if not overdue or now_ns - self._since_ns < PATIENCE_NS:
            return set()
        idle = keepers.difference(self.silent, {me}, *(waiting[place] for place in overdue))
        self.silent |= idle
        return idle


def _waiting(
    state: JobState, keepers: set[PeerId], supported: Iterable[int]
) -> Iterator[tuple[tuple[int, int], set[PeerId]]]:
    """Units that are not final though more than half of the keepers endorsed the same result, and who did."""
    for unit in supported:
        epoch = state.epoch(unit)
        for by in state.support(unit, epoch).values() if unit not in state.final_units else ():
            if 2 * len(by & keepers) > len(keepers):
                yield (unit, epoch), by
