"""Figures with their intervals: means, shares, ratios of sums and slopes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist, fmean

CONFIDENCE = 0.999
_TAIL = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and where it may be as well."""

    low: float
    value: float
    high: float

    @property
    def half_width(self) -> float:
        """The larger one of both sides."""
        return max(self.high - self.value, self.value - self.low)


def mean_of(values: Sequence[float]) -> Interval:
    """The mean of independent values, by Student's distribution."""
    mean = fmean(values)
    return _around(mean, sum((value - mean) ** 2 for value in values), len(values), len(values) - 1)


def ratio_of(parts: Sequence[tuple[float, float]]) -> Interval:
    """Sum over sum of independent pairs, each of them a run or a peer (Cochran 1977, Sampling techniques, 6.4)."""
    below = sum(base for _, base in parts)
    ratio = sum(part for part, _ in parts) / below
    spread = sum((part - ratio * base) ** 2 for part, base in parts)
    scale = len(parts) / below
    return _around(ratio, spread * scale * scale, len(parts), len(parts) - 1)


def share_of(hits: int, trials: int) -> Interval:
    """A probability from independent trials (Wilson 1927: right for small shares too)."""
    square = _TAIL * _TAIL
    middle = (hits + square / 2) / (trials + square)
    reach = _TAIL * sqrt(hits * (trials - hits) / trials + square / 4) / (trials + square)
    return Interval(max(0.0, middle - reach), hits / trials, min(1.0, middle + reach))


def slope_of(points: Sequence[tuple[float, float]]) -> Interval:
    """The slope of a straight line through independent values of one spread, by least squares."""
    middle_x, middle_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    width = sum((x - middle_x) ** 2 for x, _ in points)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in points) / width
    rest = sum((y - middle_y - slope * (x - middle_x)) ** 2 for x, y in points)
    free = len(points) - 2
    reach = student(free) * sqrt(rest / free / width) if free > 0 else inf
    return Interval(slope - reach, slope, slope + reach)


def student(freedom: int) -> float:
    """How many standard errors an interval reaches (Abramowitz and Stegun 1964, 26.7.5)."""
    if freedom < 5:
        return inf
    z = _TAIL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(float(term) / float(freedom**power) for power, term in enumerate(terms, 1))


def _around(value: float, squares: float, count: int, freedom: int) -> Interval:
    reach = student(freedom) * sqrt(squares / max(1, freedom) / count)
    return Interval(value - reach, value, value + reach)
