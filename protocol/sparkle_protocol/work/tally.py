"""A running sum over fact ids, by which two keepers see that they know the same, and where they differ.

256 buckets by the first byte of an id; each holds the sum modulo 2⁶⁴ of the ids' first eight bytes. Whoever could
find facts that cancel out would hide nothing but its own: every keeper checks each fact it is given.
"""

from collections.abc import Iterable

from sparkle_protocol.ids import FactId

BUCKETS = 256
SHORT_ID = 8
_MASK = (1 << 64) - 1


def short_id(fact_id: FactId) -> bytes:
    """What a fact is called between keepers that compare what they know."""
    return fact_id[:SHORT_ID]


class Tally:
    """Sums over a set of fact ids."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums = [0] * BUCKETS

    def add(self, fact_id: FactId) -> None:
        """Count a fact in; it must not be counted twice."""
        self._sums[fact_id[0]] = (self._sums[fact_id[0]] + int.from_bytes(fact_id[:SHORT_ID], "big")) & _MASK

    def remove(self, fact_id: FactId) -> None:
        """Count a fact out."""
        self._sums[fact_id[0]] = (self._sums[fact_id[0]] - int.from_bytes(fact_id[:SHORT_ID], "big")) & _MASK

    def total(self) -> bytes:
        """The sum over all."""
        return (sum(self._sums) & _MASK).to_bytes(SHORT_ID, "big")

    def sums(self) -> list[bytes]:
        """The sums of all buckets."""
        return [one.to_bytes(SHORT_ID, "big") for one in self._sums]

    def differing(self, sums: Iterable[bytes]) -> list[int]:
        """The buckets in which another's sums differ from ours."""
        return [place for place, one in enumerate(sums) if int.from_bytes(one, "big") != self._sums[place]]
