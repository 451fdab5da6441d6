"""Random numbers that do not depend on each other: one stream for each seed, peer and purpose.

If one fault is taken out of a run, everything else draws the same numbers as before, so that a failure can be
narrowed down. ``Draws`` is SplitMix64 (Steele, Lea and Flood 2014): a stream takes 60 bytes, where a ``Random`` takes
2.5 kB, and there are several for each of thousands of peers.
"""

from math import cos, log, pi, sqrt
from random import Random

from sparkle_protocol.ids import digest

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_UNIT = 1.0 / (1 << 53)


class Draws:
    """One stream of numbers."""

    __slots__ = ("_state",)

    def __init__(self, state: int) -> None:
        self._state = state & _MASK

    def bits(self) -> int:
        """64 random bits."""
        self._state = state = (self._state + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        return state ^ (state >> 31)

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


def draws(seed: int, *purpose: str | int) -> Draws:
    """The stream of a purpose."""
    return Draws(int.from_bytes(_key(seed, purpose)[:8], "big"))


def generator(seed: int, *purpose: str | int) -> Random:
    """The same for the production cores, which take a ``Random``."""
    return Random(int.from_bytes(_key(seed, purpose), "big"))  # noqa: S311 - a run that can be repeated


def _key(seed: int, purpose: tuple[str | int, ...]) -> bytes:
    return digest("/".join(map(str, (seed, *purpose))).encode())
