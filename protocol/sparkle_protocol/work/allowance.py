"""What is taken of a job though there is no room, and what never is, though there be.

Who keeps a job, which units began anew and how it ended must be known however full a node is. These facts are few and
small; each job has a little room of its own for them (``SPARE_BYTES``).

Some facts cost more than their bytes: every keeper set is weighed against all others, every cancel too, and what was
endorsed and is not known has to be remembered. No honest job comes near the bounds on them. What is beyond is left
out, which harms nobody but whoever floods: its job, or the weight of its own word.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sparkle_protocol.facts import NO_RANGE, Cancel, Endorsements, Fact, KeeperSet, Reset
from sparkle_protocol.ids import FactId, JobId, PeerId
from sparkle_protocol.work.state import JobState

SPARE_BYTES = 256 << 10
MAX_ALL_SETS = 1536
MAX_CANCELS = 1024
MAX_UNKNOWN = 4096  # facts that one keeper endorsed and that are not known here
FEW_SETS = 8  # named by one fact


@dataclass(slots=True)
class _Used:
    cancels: int
    spare_bytes: int = 0
    unknown: Counter[PeerId] = field(default_factory=Counter)


class Allowance:
    """What was taken beyond the rule, by job."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, _Used] = {}

    def fits(self, state: JobState, facts: Iterable[Fact]) -> bool:
        """Facts that came while there is no room are taken all the same; counts them then."""
        facts = list(facts)
        used, size = self._of(state), sum(len(fact.raw) for fact in facts)
        if not all(_matters(fact) for fact in facts) or used.spare_bytes + size > SPARE_BYTES:
            return False
        used.spare_bytes += size
        return True

    def select(self, state: JobState, facts: Iterable[Fact]) -> list[Fact]:
        """Those of the facts, new to the job, that are not too many of their kind."""
        taken: list[Fact] = []
        sets = len(state.views)
        for fact in facts:
            if type(fact.payload) is KeeperSet:
                sets += 1
                if sets > MAX_ALL_SETS:
                    continue
            elif type(fact.payload) is Cancel:
                self._of(state).cancels += 1
                if self._of(state).cancels > MAX_CANCELS:
                    continue
            elif type(fact.payload) is Endorsements and not self._may_endorse(state, fact, fact.payload):
                continue
            taken.append(fact)
        return taken

    def forget(self, job: JobId) -> None:
        """The job is not kept any more."""
        self._jobs.pop(job, None)

    def _of(self, state: JobState) -> _Used:
        used = self._jobs.get(state.id)
        if used is None:
            stated = sum(type(fact.payload) is Cancel for fact in state.facts())
            used = self._jobs[state.id] = _Used(stated)
        return used

    def _may_endorse(self, state: JobState, fact: Fact, stated: Endorsements) -> bool:
        unknown = _unknown(state, stated)
        counts = self._of(state).unknown
        if counts[fact.author] + unknown > MAX_UNKNOWN:  # most of them came since, if the author means well
            own = (one.payload for one in state.facts() if one.author == fact.author)
            counts[fact.author] = sum(_unknown(state, one) for one in own if type(one) is Endorsements)
        if counts[fact.author] + unknown > MAX_UNKNOWN:
            return False
        counts[fact.author] += unknown
        return True


def _unknown(state: JobState, stated: Endorsements) -> int:
    return sum(FactId(named) not in state for named in stated.facts)


def _matters(fact: Fact) -> bool:
    """The fact says who keeps the job, what began anew, or that it is over."""
    if type(fact.payload) is Endorsements:
        return fact.payload.range == NO_RANGE and len(fact.payload.facts) <= FEW_SETS
    return isinstance(fact.payload, KeeperSet | Reset | Cancel)
