"""Which newcomers get units of a job to be compared, and how many.

- One for each known worker at a time, those with the most passes first: were all served alike, nobody would get to
  sixty for a long time, and then all at once. Who was proven wrong comes last.
- A few units of each job, and then a share of what known workers did. The share falls with newcomers' answers that
  prove wrong (``TrustBook.vetting_share``): each of those costs two further answers.
"""

from collections.abc import Set
from typing import Protocol

from sparkle_protocol.ids import PeerId
from sparkle_protocol.trust.parameters import TrustRules

MAX_SEEN = 1024  # newcomers whose presence is noted; the one seen the longest ago is forgotten first


class Opinion(Protocol):
    """What is thought of newcomers."""

    def counts(self, worker: PeerId) -> bool:
        """It is none any more."""
        ...

    def turn(self, worker: PeerId) -> tuple[int, int]:
        """Those for whom this is less come first."""
        ...

    def vetting_share(self) -> float:
        """How many of their answers are wanted for each unit of known workers."""
        ...


class Newcomers:
    """The newcomers of one job."""

    def __init__(self, opinion: Opinion, rules: TrustRules) -> None:
        self.known_units = 0  # that became final by the answer of somebody who counts
        self.given = 0  # units that were given to newcomers
        self._opinion = opinion
        self._rules = rules
        self._seen: dict[PeerId, int] = {}  # the longest ago first
        self._turns: Set[PeerId] = frozenset()
        self._fresh: list[PeerId] = []

    def saw(self, worker: PeerId, now_ns: int) -> None:
        """A newcomer asked for work, or reported."""
        self._seen.pop(worker, None)
        self._seen[worker] = now_ns
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]

    def line_up(self, known: int, since_ns: int) -> None:
        """See whose turn it is, where so many known workers are there."""
        there = [one for one, at_ns in self._seen.items() if at_ns >= since_ns and not self._opinion.counts(one)]
        there.sort(key=lambda one: (self._opinion.turn(one), one))
        turns = there[: max(1, known)]
        self._fresh += [one for one in turns if one not in self._turns]
        self._turns = frozenset(turns)

    def take_fresh(self) -> list[PeerId]:
        """Those whose turn has come since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def may_take(self, worker: PeerId) -> bool:
        """A newcomer may be given a unit now."""
        room = self._rules.first_vettings + self._opinion.vetting_share() * self.known_units
        return worker in self._turns and self.given < room
