"""Where a job stands in line at one keeper, for whoever asks why it is not its turn.

What is said of the fair lane is the fair queue itself, played on from a copy (``FairQueue.copy``); so the order said
is the order in which it then serves. Of the lottery lane only chances can be said. Both assume that

- nobody else comes, and no unit comes back;
- every worker can compute every kernel, and asks as soon as it is free for as much as one grant;
- a unit occupies a worker as long as those before it did; until one was seen, as its declared work on the
  reference machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.fairness import LEAST_COST_S, LOTTERY_SHARE, FairQueue

MOST_PICKS = 10_000  # that are played on; what is further off is not foreseen


@dataclass(frozen=True, slots=True)
class Demand:
    """What a submitter still wants, in seconds of all workers together."""

    network: str
    grant_s: float  # of what it gets at a time
    backlog_s: float  # of all that it has to hand out


@dataclass(frozen=True, slots=True)
class Place:
    """A submitter's place in line, and that of one of its jobs.

    Attributes:
        lane: ``own`` jobs of the node come before the queue.
        weight: in the queue; None for our own.
        waiting: submitters in the queue, this one included.
        ahead: those of them that are served before it; None in the lottery lane, where chance decides.
        chance: in the lottery lane, of being served next.
        jobs_before: jobs of the same submitter that come first.
        pays: the job offers what its work is worth; otherwise it is in the lottery lane whoever submitted it.
        start_s: when it is probably given to a worker next; None when that is too far off to tell.
    """

    lane: Literal["own", "fair", "lottery"]
    weight: float | None
    waiting: int
    ahead: int | None
    chance: float | None
    start_s: float | None
    jobs_before: int = 0
    pays: bool = True


def place_of(
    queue: FairQueue, submitter: PeerId, demands: Mapping[PeerId, Demand], now_ns: int, after_s: float = 0.0
) -> Place:
    """A submitter's place among all that wait, of which it is one. The queue stays as it is.

    ``after_s``: so much of its own comes before what is asked about.
    """
    weight = queue.weight(submitter)
    fair = {peer for peer in demands if queue.weight(peer) > 0}
    if weight <= 0:
        return _in_lottery(submitter, demands, fair, after_s)
    game = _Game(queue.copy(Random(0)), submitter, demands, fair, now_ns)  # noqa: S311 - nothing is drawn
    start_s = game.play(after_s)
    poor = [demand.grant_s for peer, demand in demands.items() if peer not in fair]
    if start_s is not None and poor:  # of the picks, this part goes to the lottery lane in between
        start_s += game.picks * LOTTERY_SHARE / (1 - LOTTERY_SHARE) * _mean(poor)
    return Place("fair", weight, len(demands), game.ahead, None, start_s)


class _Game:
    """The fair lane, played on until a submitter has got what it is to get."""

    def __init__(
        self, queue: FairQueue, submitter: PeerId, demands: Mapping[PeerId, Demand], fair: set[PeerId], now_ns: int
    ) -> None:
        self.picks = 0
        self._submitter = submitter
        self._grant_s = {peer: demands[peer].grant_s for peer in fair}
        self._left_s = {peer: demands[peer].backlog_s for peer in fair}
        self._served: set[PeerId] = set()
        self._ahead: int | None = None
        self._turns = queue.begin({peer: demand.network for peer, demand in demands.items()}, fair, now_ns)

    @property
    def ahead(self) -> int:
        """How many others were served before it."""
        return len(self._served) if self._ahead is None else self._ahead

    def play(self, after_s: float) -> float | None:
        """How long until it has got so much and is next; None when that is too far off."""
        passed_s = 0.0
        while self.picks < MOST_PICKS:
            peer = self._turns.pick()
            if peer is None:
                return passed_s
            if peer == self._submitter:
                self._ahead = self.ahead
                if after_s <= 0:
                    return passed_s
            got_s = min(self._grant_s[peer], after_s if peer == self._submitter else self._left_s[peer])
            self.picks += 1
            passed_s += got_s
            self._take(peer, got_s)
            after_s -= got_s if peer == self._submitter else 0.0
        return None

    def _take(self, peer: PeerId, got_s: float) -> None:
        self._served.add(peer)
        self._left_s[peer] -= got_s
        if self._left_s[peer] > 0:  # otherwise it is out of the round
            self._turns.charge(peer, got_s)
            self._turns.wait_anew(peer)  # as each grant here stands for a request of its own


def _in_lottery(submitter: PeerId, demands: Mapping[PeerId, Demand], fair: set[PeerId], after_s: float) -> Place:
    lottery = {peer: demand for peer, demand in demands.items() if peer not in fair}
    networks = {demand.network for demand in lottery.values()}
    mine = demands[submitter]
    names = sum(demand.network == mine.network for demand in lottery.values())
    share = LOTTERY_SHARE if fair else 1.0
    chance = share / (len(networks) * names)
    pick_s = share * _mean([demand.grant_s for demand in lottery.values()])
    if fair:
        pick_s += (1 - share) * _mean([demands[peer].grant_s for peer in fair])
    picks = 1 / chance - 1 + after_s / max(mine.grant_s, LEAST_COST_S) / chance
    return Place("lottery", 0.0, len(demands), None, chance, picks * pick_s)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
