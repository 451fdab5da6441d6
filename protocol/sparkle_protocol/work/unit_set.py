"""A set of a job's units as a bitmap: 128 kB for the largest job, whatever is in it."""

import re
from collections.abc import Iterable, Iterator, MutableSet
from collections.abc import Set as AbstractSet
from typing import TypeVar

from sparkle_protocol.errors import LocalProtocolError

T = TypeVar("T")

# Regular expressions over bytes are the standard library's fastest way to skip empty, or full, stretches.
_SOME = re.compile(rb"[^\x00]+")
_GAP = re.compile(rb"[^\xff]")
_BITS = tuple(tuple(bit for bit in range(8) if value >> bit & 1) for value in range(256))


class UnitSet(MutableSet[int]):
    """Units 0 … ``units``−1 of a job, each in or out; equal to any set with the same members.

    Iteration is in ascending order. It sees changes made meanwhile to units that it has not come to yet, and
    never fails because of them.
    """

    __slots__ = ("_bits", "_count", "units")

    def __init__(self, units: int, members: Iterable[int] = ()) -> None:
        if units < 0:
            raise LocalProtocolError(f"a job has no {units} units")
        self.units = units
        self._bits = bytearray(units + 7 >> 3)
        self._count = 0
        for unit in members:
            self.add(unit)

    @classmethod
    def _from_iterable(cls, it: Iterable[T]) -> AbstractSet[T]:
        """What ``&``, ``|`` and ``-`` make is an ordinary set: it need not be about the same job."""
        return set(it)

    def add(self, value: int) -> None:
        """Put a unit in.

        Raises:
            LocalProtocolError: the job has no such unit.
        """
        if not 0 <= value < self.units:
            raise LocalProtocolError(f"unit {value} is beyond the job's {self.units}")
        bit = 1 << (value & 7)
        if not self._bits[value >> 3] & bit:
            self._bits[value >> 3] |= bit
            self._count += 1

    def add_all(self, start: int, stop: int) -> None:
        """Put all of ``start`` … ``stop``−1 in, at the cost of one bitmap operation.

        Raises:
            LocalProtocolError: the job has not all of these units.
        """
        if not 0 <= start <= stop <= self.units:
            raise LocalProtocolError(f"units {start} to {stop} are not all of the job's {self.units}")
        first, last = start >> 3, stop + 7 >> 3
        added = (1 << stop - start) - 1 << (start & 7)
        found = int.from_bytes(self._bits[first:last], "little")
        self._count += (added & ~found).bit_count()
        self._bits[first:last] = (found | added).to_bytes(last - first, "little")

    def discard(self, value: int) -> None:
        """Take a unit out, if it is in."""
        if value in self:
            self._bits[value >> 3] &= ~(1 << (value & 7))
            self._count -= 1

    def clear(self) -> None:
        """Take all units out."""
        self._bits[:] = bytes(len(self._bits))
        self._count = 0

    def __contains__(self, unit: object) -> bool:
        return isinstance(unit, int) and 0 <= unit < self.units and self._bits[unit >> 3] >> (unit & 7) & 1 == 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        bits = self._bits
        for stretch in _SOME.finditer(bits):
            for place in range(stretch.start(), stretch.end()):
                for bit in _BITS[bits[place]]:
                    yield place << 3 | bit

    def __eq__(self, other: object) -> bool:
        if isinstance(other, UnitSet) and other.units == self.units:
            return self._bits == other._bits
        return super().__eq__(other)

    def __repr__(self) -> str:
        return f"UnitSet({self._count} of {self.units})"

    def count(self, start: int, stop: int) -> int:
        """How many of the units ``start`` … ``stop``−1 are in."""
        start, stop = max(0, start), min(stop, self.units)
        if start >= stop:
            return 0
        found = int.from_bytes(self._bits[start >> 3 : stop + 7 >> 3], "little") >> (start & 7)
        return (found & (1 << stop - start) - 1).bit_count()

    def first_missing(self, start: int, stop: int) -> int | None:
        """The lowest of the job's units from ``start`` to ``stop``−1 that is not in; None when all are."""
        start, stop = max(0, start), min(stop, self.units)
        if start >= stop:
            return None
        place = start >> 3
        present = self._bits[place] | (1 << (start & 7)) - 1  # as if those before the first were in
        if present == 0xFF:
            gap = _GAP.search(self._bits, place + 1, stop + 7 >> 3)
            if gap is None:
                return None
            place = gap.start()
            present = self._bits[place]
        unit = (place << 3) + (~present & present + 1).bit_length() - 1
        return unit if unit < stop else None

    def complete(self, start: int, stop: int) -> bool:
        """All of the job's units from ``start`` to ``stop``−1 are in."""
        return self.first_missing(start, stop) is None
