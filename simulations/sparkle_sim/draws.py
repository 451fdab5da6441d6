"""Random numbers that do not depend on each other: one stream for each seed, peer and purpose.

If one fault is taken out of a run, everything else draws the same numbers as before, so that a failure can be
narrowed down. ``Draws`` is SplitMix64 (Steele, Lea and Flood 2014): a stream takes 60 bytes, where a ``Random`` takes
2.5 kB, and there are several for each of thousands of peers.
"""

from collections.abc import Sequence
from math import cos, log, pi, sqrt
from random import Random
from typing import TypeVar, cast

from sparkle_protocol.ids import digest

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_UNIT = 1.0 / (1 << 53)
Item = TypeVar("Item")


class Draws:
    """One stream of numbers."""

    __slots__ = ("_bytes", "_state")

    def __init__(self, state: int) -> None:
        self._state = state & _MASK
        self._bytes = 1  # what is left of one number, above it a one

    def bits(self) -> int:
        """64 random bits."""
        self._state = state = (self._state + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        return state ^ (state >> 31)

    def byte(self) -> int:
        """Uniform among 0 .. 255; seven of them cost as much as one number."""
        left = self._bytes
        if left == 1:
            left = self.bits() >> 8 | 1 << 56
        self._bytes = left >> 8
        return left & 255

    def random(self) -> float:
        """Uniform in [0, 1)."""
        return (self.bits() >> 11) * _UNIT

    def uniform(self, low: float, high: float) -> float:
        """Uniform between two numbers."""
        return low + (high - low) * self.random()

    def below(self, limit: int) -> int:
        """Uniform among 0 .. limit - 1; the bias is less than limit / 2⁶⁴."""
        return self.bits() * limit >> 64

    def exponential(self, mean: float) -> float:
        """Exponentially distributed."""
        return -mean * log(1.0 - self.random())

    def weibull(self, scale: float, shape: float) -> float:
        """Weibull distributed: S(t) = exp(-(t / scale)^shape)."""
        return float(scale * (-log(1.0 - self.random())) ** (1.0 / shape))

    def normal(self) -> float:
        """Standard normal (Box and Muller 1958, one of the pair)."""
        return sqrt(-2.0 * log(1.0 - self.random())) * cos(2.0 * pi * self.random())


class CoreDraws(Draws):
    """What the cores of production use of a ``random.Random``, on such a stream."""

    __slots__ = ()

    def randrange(self, stop: int) -> int:
        """Uniform among 0 .. stop - 1."""
        return self.below(stop)

    def choice(self, items: Sequence[Item]) -> Item:
        """One of them."""
        return items[self.below(len(items))]

    def shuffle(self, items: list[Item]) -> None:
        """Have them in any order (Fisher and Yates 1938; Durstenfeld 1964)."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """Some of them, in any order."""
        moved: dict[int, int] = {}  # places whose item was taken, and of which item each has that of instead
        chosen = []
        for left in range(len(items) - 1, len(items) - 1 - count, -1):
            place = self.below(left + 1)
            chosen.append(items[moved.get(place, place)])
            moved[place] = moved.get(left, left)
        return chosen


def draws(seed: int, *purpose: str | int) -> Draws:
    """The stream of a purpose."""
    return Draws(_state(seed, purpose))


def core_draws(seed: int, *purpose: str | int) -> Random:
    """A stream for the cores of a node, which name their source of chance a ``Random``: one takes 2.5 kB."""
    return cast("Random", CoreDraws(_state(seed, purpose)))


def generator(seed: int, *purpose: str | int) -> Random:
    """The same as a ``Random``, for what needs its distributions."""
    return Random(int.from_bytes(_key(seed, purpose), "big"))  # noqa: S311 - a run that can be repeated


def _state(seed: int, purpose: tuple[str | int, ...]) -> int:
    return int.from_bytes(_key(seed, purpose)[:8], "big")


def _key(seed: int, purpose: tuple[str | int, ...]) -> bytes:
    return digest("/".join(map(str, (seed, *purpose))).encode())
