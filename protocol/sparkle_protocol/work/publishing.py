"""How a job gets its keepers: the nearest peers that took its spec, named by a keeper set that most of them hold.

::

    spec ──push──▶ candidates ──kept──▶ enough, or nobody left to ask ──▶ KeeperSet ──push──▶ held by ⌈5n/8⌉
                                                                                       with the job's inputs

Keepers have seconds to hold the set, and half an hour for the inputs, which they begin to fetch with the spec. A
candidate that refuses or does not answer in time is replaced by the next nearest, but by none of a suspicious cluster
(``placement.py``). The submitter's node is a keeper itself only when there are fewer than four others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sparkle_protocol.ids import FactId, JobId, PeerId
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.placement import (
    FEWEST_DECIDING,
    MAX_JOB_KEEPERS,
    Candidate,
    choose_keepers,
    holders_needed,
    suspiciously_dense,
)
from sparkle_protocol.work.views import View

ASK_NS = 3 * SECOND_NS  # for candidates to answer
HOLD_ACK_NS = 5 * SECOND_NS  # for keepers to hold the keeper set
INPUTS_NS = 1800 * SECOND_NS  # for keepers to hold the inputs as well, once enough hold the set
LOOK_UP_NS = SECOND_NS


@dataclass(slots=True)
class Publication:
    """A job that is being published."""

    job: JobId
    look_up: int | None  # tag of the search for near peers, until it is answered
    until_ns: int  # nobody is waited for any longer
    inputs: bool = False  # there are some
    candidates: list[PeerId] = field(default_factory=list)  # in order of preference, not asked yet
    asked: dict[int, PeerId] = field(default_factory=dict)
    took: list[PeerId] = field(default_factory=list)  # the spec
    set_ns: int | None = None  # when the keeper set was signed
    view: FactId | None = None  # that set, or the one by which it was replaced since
    replaced: bool = False
    hold: set[PeerId] = field(default_factory=set)  # the keeper set
    whole: set[PeerId] = field(default_factory=set)  # the inputs

    def choose(self, known: Sequence[Candidate], now_ns: int) -> None:
        """Ask these peers, the best first."""
        self.look_up = None
        self.until_ns = now_ns + ASK_NS
        first = choose_keepers(self.job, known, MAX_JOB_KEEPERS)
        dense = suspiciously_dense(self.job, [candidate.peer for candidate in known])
        rest = [one.peer for one in known if one.peer not in first and one.peer not in dense]
        self.candidates = [*first, *rest]

    def to_ask(self) -> list[PeerId]:
        """Peers to be asked now: as many as are still wanted."""
        room = MAX_JOB_KEEPERS - len(self.took) - len(self.asked)
        chosen, self.candidates = self.candidates[:room], self.candidates[room:]
        return chosen if room > 0 else []

    def named(self, view: View, me: PeerId, now_ns: int, *, replaced: bool) -> None:
        """These are the keepers from now on; ``replaced``: as others that care for the job would have it."""
        self.view, self.set_ns, self.replaced = view.fact.id, now_ns, replaced
        self.hold = {me} & set(view.keepers)
        self.asked.clear()

    def holding(self, view: View, me: PeerId) -> set[PeerId]:
        """Keepers that hold all of the job."""
        found = self.hold & set(view.keepers)
        return found & (self.whole | {me}) if self.inputs else found

    def _waits_for_inputs(self, view: View) -> bool:
        enough = len(self.hold & set(view.keepers)) >= holders_needed(len(view.keys))
        return self.inputs and (enough or self.replaced)

    def due_ns(self, view: View) -> int:
        """When others are named, unless enough hold the job by then."""
        return (self.set_ns or 0) + (INPUTS_NS if self._waits_for_inputs(view) else HOLD_ACK_NS)

    def staying(self, view: View, me: PeerId) -> list[PeerId]:
        """Who is named again then, without the submitter."""
        found = self.holding(view, me) if self._waits_for_inputs(view) else self.hold & set(view.keepers)
        return sorted(found - {me})

    def settled(self, now_ns: int) -> bool:
        """Nobody more will take the spec, or enough did."""
        if self.look_up is not None:
            return False
        return len(self.took) >= MAX_JOB_KEEPERS or now_ns >= self.until_ns or not (self.asked or self.candidates)


def with_submitter(peers: Sequence[PeerId], me: PeerId) -> list[PeerId]:
    """The keepers: these peers, and the submitter's own node if they are fewer than can certify."""
    return [*peers[:MAX_JOB_KEEPERS]] if len(peers) >= FEWEST_DECIDING else [*peers, me]
