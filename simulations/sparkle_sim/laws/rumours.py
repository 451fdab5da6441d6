"""Rumours that peers tell at random: rounds until everybody knows."""

from collections.abc import Iterator
from math import ceil, floor, log, log2

from sparkle_sim.draws import draws
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.laws.intervals import Interval, mean_of, slope_of
from sparkle_sim.laws.law import Axes, Law, Point
from sparkle_sim.laws.parties import Everybody, seed_of, wires
from sparkle_sim.network import Network, Place

ROUND_NS = SECOND  # much longer than a message or two take
MOST_ROUNDS = 1000
SIZES, QUICK_SIZES = (64, 256, 1024, 4096, 16384), (64, 256, 1024)
PEER_RUNS, QUICK_PEER_RUNS = 150_000, 40_000  # so many peers times runs at each N
RUNS = 12, 200  # at least and at most
SLOPE_SLACK = 0.1  # rounds are whole numbers, and the left-out terms still change a little over these N


def push_rounds(peers: int) -> float:
    """Rounds of push, without the constant."""
    return log2(peers) + log(peers)


def push_bounds(peers: int) -> tuple[float, float]:
    """Between what the expected rounds of push are (Doerr and Künnemann 2014)."""
    return floor(log2(peers)) + log(peers) - 1.116, ceil(log2(peers)) + log(peers) + 2.765


def push_pull_rounds(peers: int) -> float:
    """Rounds of push and pull, without the constant."""
    return log(peers, 3) + log2(log(peers))


class Rumour:
    """Peers with timers of their own. What one hears in a round it passes on from the next one on.

    Args:
        seed: decides who calls whom.
        peers: how many.
        fanout: whom a peer calls in a round: so many others.
        pulls: those who do not know call as well, and are told by whoever knew before the round.
    """

    def __init__(self, seed: int, peers: int, *, fanout: int = 1, pulls: bool = False) -> None:
        self._kernel = Kernel()
        self._network = Network(self._kernel, Everybody(), [Place()] * peers, wires(), seed)
        self._draws = [draws(seed, peer, "partners") for peer in range(peers)]
        self._heard: list[int | None] = [None] * peers  # in which round
        self._know = 0
        self._fanout = fanout
        self._pulls = pulls
        for peer in range(peers if pulls else 0):
            self._kernel.at(ROUND_NS, self._call, peer)
        self._hear(0)

    def spread(self) -> int:
        """Let it spread; returns the rounds until all know."""
        done = not self._kernel.run((MOST_ROUNDS + 1) * ROUND_NS)
        return self._round if done else MOST_ROUNDS

    @property
    def _round(self) -> int:
        return self._kernel.now // ROUND_NS

    def _knew(self, peer: int) -> bool:
        heard = self._heard[peer]
        return heard is not None and heard < self._round

    def _hear(self, peer: int) -> None:
        if self._heard[peer] is not None:
            return
        self._heard[peer] = self._round
        self._know += 1
        if self._know == len(self._heard):
            self._kernel.stop()
        elif not self._pulls:
            self._kernel.at((self._round + 1) * ROUND_NS, self._call, peer)

    def _call(self, peer: int) -> None:
        """A peer's round begins."""
        for _ in range(self._fanout):
            partner = self._draws[peer].below(len(self._heard) - 1)
            partner += partner >= peer
            if self._knew(peer):
                self._network.send(peer, partner, self._hear, partner)
            else:
                self._network.send(peer, partner, self._asked, partner, peer)
        self._kernel.after(ROUND_NS, self._call, peer)

    def _asked(self, peer: int, asker: int) -> None:
        if self._knew(peer):
            self._network.send(peer, asker, self._hear, asker)


def _rounds(seed: int, quick: bool, *, fanout: int = 1, pulls: bool = False) -> Iterator[tuple[int, list[int]]]:
    for peers in QUICK_SIZES if quick else SIZES:
        runs = sorted((RUNS[0], (QUICK_PEER_RUNS if quick else PEER_RUNS) // peers, RUNS[1]))[1]
        seeds = [seed_of(seed, "rumour", peers, run) for run in range(runs)]
        yield peers, [Rumour(one, peers, fanout=fanout, pulls=pulls).spread() for one in seeds]


def measure_push(seed: int, quick: bool, *, fanout: int = 1) -> Iterator[Point]:
    """Mean rounds by N, and how they grow."""
    seen: list[tuple[float, float]] = []
    for peers, rounds in _rounds(seed, quick, fanout=fanout):
        seen += [(push_rounds(peers), value) for value in rounds]
        least, most = push_bounds(peers)
        yield Point("rounds", f"N = {peers}", peers, push_rounds(peers), least, most, mean_of(rounds), 2.0)
    yield _growth(slope_of(seen), "rounds per (log₂ N + ln N)")


def measure_push_pull(seed: int, quick: bool) -> Iterator[Point]:
    """The same for push and pull."""
    seen: list[tuple[float, float]] = []
    for peers, rounds in _rounds(seed, quick, pulls=True):
        expected = push_pull_rounds(peers)
        seen += [(expected, value) for value in rounds]
        yield Point("rounds", f"N = {peers}", peers, expected, expected - 2, expected + 2, mean_of(rounds), 2.0)
    yield _growth(slope_of(seen), "rounds per (log₃ N + log₂ ln N)")


def _growth(slope: Interval, setting: str) -> Point:
    return Point("growth", setting, None, 1.0, 1.0 - SLOPE_SLACK, 1.0 + SLOPE_SLACK, slope, 2 * SLOPE_SLACK)


_AXES = Axes("peers N", "rounds until all know", log_x=True)
_EXPERIMENT = "A rumour among N peers with timers of their own, on Kernel, Network and Draws, message by message"

PUSH = Law(
    "push",
    "Push gossip",
    "E[rounds] = log₂ N + ln N + O(1)",
    "B. Pittel, On spreading a rumor, SIAM Journal on Applied Mathematics 47(1), 213-223, 1987; the constant: B. "
    "Doerr and M. Künnemann, Tight analysis of randomized rumor spreading in complete graphs, ANALCO 2014: between "
    "⌊log₂ N⌋ + ln N - 1.116 and ⌈log₂ N⌉ + ln N + 2.765",
    f"{_EXPERIMENT}: in each round, everyone who knew it before tells one other, drawn at random.",
    "The mean rounds are within Doerr and Künnemann's bounds at every N, and grow with log₂ N + ln N at a slope of "
    "0.9 to 1.1.",
    _AXES,
    measure_push,
)

PUSH_PULL = Law(
    "push-pull",
    "Push-pull gossip",
    "E[rounds] = log₃ N + O(log log N)",
    "R. Karp, C. Schindelhauer, S. Shenker and B. Vöcking, Randomized rumor spreading, FOCS 2000; the second term is "
    "log₂ ln N ± O(1): B. Doerr and A. Kostrygin, Randomized rumor spreading revisited, ICALP 2017",
    f"{_EXPERIMENT}: in each round, everyone calls one other, drawn at random, and whoever of both knew it before "
    "tells the other.",
    "The mean rounds are within 2 of log₃ N + log₂ ln N at every N, and grow with that at a slope of 0.9 to 1.1.",
    _AXES,
    measure_push_pull,
)
