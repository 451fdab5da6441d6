"""What a law is, what we measured of it, and whether that agrees.

A figure of ours has an interval: 999 of 1000 such intervals contain what an endless run would give. So with ninety
figures less than one validation of ten shows a false alarm. A figure agrees if its interval meets what the law
allows there, and if it is narrow enough to have been able to disagree.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from sparkle_sim.laws.intervals import Interval

HOLDS, FAILS, UNCLEAR = "holds", "fails", "too few runs"


@dataclass(frozen=True, slots=True)
class Point:
    """One figure.

    Args:
        series: which curve of the law it belongs to.
        setting: of the experiment, for people.
        x: the same as a number for the plot; None: it belongs into the table only.
        expected: what the law says.
        least: the smallest value that agrees with the law.
        most: the largest.
        ours: what the simulator says.
        wide: the interval says nothing from this half width on.
    """

    series: str
    setting: str
    x: float | None
    expected: float
    least: float
    most: float
    ours: Interval
    wide: float

    @property
    def verdict(self) -> str:
        """One of HOLDS, FAILS and UNCLEAR."""
        if self.ours.high < self.least or self.ours.low > self.most:
            return FAILS
        return HOLDS if self.ours.half_width < self.wide else UNCLEAR


def exactly(series: str, setting: str, x: float, expected: float, ours: Interval, *, wide: float) -> Point:
    """A figure that the law gives as it is; ``wide`` as a share of it."""
    return Point(series, setting, x, expected, expected, expected, ours, wide * expected)


def about(series: str, setting: str, x: float | None, expected: float, slack: float, ours: Interval) -> Point:
    """A figure that the law gives up to terms that it leaves out."""
    return Point(series, setting, x, expected, expected - slack, expected + slack, ours, max(slack, expected / 10))


def at_most(series: str, setting: str, x: float, bound: float, ours: Interval) -> Point:
    """A figure that the law bounds. A wide interval below the bound is as good as a narrow one."""
    return Point(series, setting, x, bound, -inf, bound, ours, inf if ours.high <= bound else bound / 2)


@dataclass(frozen=True, slots=True)
class Axes:
    """How a plot of the law looks."""

    x: str
    y: str
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Law:
    """A law and the experiment that it is held against.

    Args:
        name: on the command line.
        title: for people.
        formula: what it says, in one line.
        source: where it was published.
        experiment: what is run, and on which parts of the simulator.
        criterion: when the simulator agrees with it.
        axes: of its plot.
        measure: takes a seed, and whether to be quick; gives each figure as soon as it is there.
    """

    name: str
    title: str
    formula: str
    source: str
    experiment: str
    criterion: str
    axes: Axes
    measure: Callable[[int, bool], Iterator[Point]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one law."""

    law: Law
    points: Sequence[Point]

    @property
    def agrees(self) -> bool:
        """The simulator agrees with the law at every figure, and there are some."""
        return bool(self.points) and all(point.verdict == HOLDS for point in self.points)

    @property
    def verdict(self) -> str:
        """One word or two for all figures together."""
        found = [point.verdict for point in self.points]
        return next((bad for bad in (FAILS, UNCLEAR) if bad in found), HOLDS if found else UNCLEAR)
