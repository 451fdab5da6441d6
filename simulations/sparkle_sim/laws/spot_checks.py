"""Spot-checks with blacklisting: what saboteurs achieve who lie now and then."""

from collections.abc import Iterator
from math import e

from sparkle_sim.draws import draws
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.laws.intervals import ratio_of
from sparkle_sim.laws.law import Axes, Law, Point, at_most, exactly
from sparkle_sim.laws.parties import Everybody, seed_of, wires
from sparkle_sim.network import Network, Place

WORKERS, UNITS = 400, 100
CHECKED = 0.1  # q
BAD = 0.2  # f
RATES, QUICK_RATES = (0.02, 0.05, 0.1, 0.2, 0.3), (0.05, 0.1, 0.2)  # s; the worst is 1 / (q (n + 1)), nearly 0.1
RUNS, QUICK_RUNS = 25, 8
MASTER = 0


def error_rate(q: float, n: int, f: float, s: float) -> float:
    """Share of wrong results among accepted ones, when everybody has given n results."""
    left = f * (1.0 - q * s) ** n
    return s * left / (1.0 - f + left)


def bound(q: float, n: int, f: float) -> float:
    """What no rate of lies exceeds."""
    return f / ((1.0 - f) * q * n * e)


class Project:
    """A master and its workers. It knows the results of some units beforehand and hands them out like others.

    Who is caught is trusted no more: all its results are thrown away, and it gets nothing further.
    """

    def __init__(self, seed: int, s: float, *, blacklists: bool = True) -> None:
        self._kernel = Kernel()
        self._network = Network(self._kernel, Everybody(), [Place()] * (WORKERS + 1), wires(), seed)
        self._checks = draws(seed, MASTER, "checks")
        self._lies = [draws(seed, worker, "lies") for worker in range(WORKERS + 1)]
        self._s = s
        self._blacklists = blacklists
        self._handed = [0] * (WORKERS + 1)
        self._given: list[list[bool]] = [[] for _ in range(WORKERS + 1)]  # of units that are not known: is it wrong?
        self._caught = [False] * (WORKERS + 1)

    def run(self) -> tuple[int, int]:
        """Let all work; returns wrong and all results that were accepted."""
        for worker in range(1, WORKERS + 1):
            self._hand_out(worker)
        self._kernel.run(UNITS * 100 * SECOND)
        kept = [given for given, caught in zip(self._given, self._caught, strict=True) if not caught]
        return sum(map(sum, kept)), sum(map(len, kept))

    def _hand_out(self, worker: int) -> None:
        self._handed[worker] += 1
        known = self._checks.random() < CHECKED
        self._network.send(MASTER, worker, self._compute, worker, known)

    def _compute(self, worker: int, known: bool) -> None:
        wrong = worker <= WORKERS * BAD and self._lies[worker].random() < self._s
        self._kernel.after(SECOND, self._network.send, worker, MASTER, self._take, worker, known, wrong)

    def _take(self, worker: int, known: bool, wrong: bool) -> None:
        if not known:
            self._given[worker].append(wrong)
        elif wrong and self._blacklists:
            self._caught[worker] = True
            return
        if self._handed[worker] < UNITS:
            self._hand_out(worker)


def measure(seed: int, quick: bool) -> Iterator[Point]:
    """The share of wrong results for several rates of lies, against the formula and the bound."""
    most = bound(CHECKED, UNITS, BAD)
    for s in QUICK_RATES if quick else RATES:
        seeds = [seed_of(seed, "spot checks", str(s), run) for run in range(QUICK_RUNS if quick else RUNS)]
        ours = ratio_of([Project(one, s).run() for one in seeds])
        setting = f"lies at {s:g} of the units"
        yield exactly("formula", setting, s, error_rate(CHECKED, UNITS, BAD, s), ours, wide=0.8 if quick else 0.4)
        yield at_most("bound", setting, s, most, ours)


LAW = Law(
    "spot-checks",
    "Spot-checks with blacklisting",
    "ε = s f (1 - q s)ⁿ / (1 - f + f (1 - q s)ⁿ) ≤ f / ((1 - f) q n e)",
    "L. F. G. Sarmenta, Sabotage-tolerance mechanisms for volunteer computing systems, Future Generation Computer "
    "Systems 18(4), 561-572, 2002",
    f"A master and {WORKERS} workers on Kernel, Network and Draws: of the units handed out, q = {CHECKED} are known "
    f"to the master; f = {BAD} of the workers lie at rate s; whoever is caught loses all its results. Each does "
    f"n = {UNITS} units, the known ones among them.",
    "At every rate of lies the formula is in our interval, and the bound is not exceeded.",
    Axes("rate of lies s", "share of wrong results", log_x=True, log_y=True),
    measure,
)
