"""Counts primes in a range, by a segmented sieve over the residues coprime to 30.

The numbers ``30k + r`` of one residue ``r`` form a progression; a prime ``p > 5`` strikes every ``p``-th
index of it. So each residue is sieved as one row of bytes with NumPy slices, without ever touching
multiples of 2, 3 and 5. Base primes strike themselves too and are counted apart, which saves the
comparison with ``p²`` (Bays and Hudson 1977 describe the segmented sieve).
"""

import struct
from collections.abc import Mapping, Sequence
from math import isqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from sparkle_protocol.errors import VerificationError
from sparkle_worker.kernels.base import Combined, Cost, Params, Progress
from sparkle_worker.kernels.parameters import check_names, whole_number
from sparkle_worker.kernels.splitting import UNIT_LIMIT, check_unit, cut, sensible_units

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_STOP = 10**14  # base primes to 10^7: 664 579 of them, 30 ms and 40 MB; ten times more would cost 0.5 s a unit
SEGMENT = 2**19  # indexes of one row: half of a 1 MB second-level cache; 15.7 million numbers over all rows
DENSE = 64  # strikes per row above which a slice assignment (150 ns) is cheaper than listing the strikes
RESIDUES = (1, 7, 11, 13, 17, 19, 23, 29)

_RESULT = struct.Struct("<Q")


class PrimeCount:
    """``prime_count(start, stop)``: how many primes ``p`` satisfy ``start <= p < stop``.

    Result bytes: the count as one little-endian unsigned 64-bit integer.
    """

    name = "prime_count"
    version = 1
    summary = "Counts the primes in a range."
    parameters: Mapping[str, str] = MappingProxyType(
        {
            "start": "first number of the range (default 0)",
            "stop": "first number after the range, at most 1e14 (default 1e9)",
        }
    )
    verification: Literal["exact", "algebraic", "tolerance", "homogeneous"] = "exact"
    cost_law = "2/5 (stop - start) + 120 √stop / log2 √stop for each 15.7 million numbers"
    example = "sparkle submit prime_count -p stop=1e9 --wait"

    def validate(self, params: Params) -> dict[str, Any]:
        """``start`` and ``stop`` with ``0 <= start <= stop <= 10^14``."""
        check_names(self.name, params, self.parameters)
        start = whole_number(self.name, params, "start", 0, 0, MAX_STOP)
        stop = whole_number(self.name, params, "stop", 10**9, start, MAX_STOP)
        return {"start": start, "stop": stop}

    def default_units(self, params: Params) -> int:
        """Units of four thousand million numbers (2 to 4 s); 64 as long as each keeps a million."""
        return sensible_units(params["stop"] - params["start"], 4 * 10**9, 10**6)

    def max_units(self, params: Params) -> int:
        """One unit for each number of the range."""
        return min(max(int(params["stop"] - params["start"]), 1), UNIT_LIMIT)

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """The ``index``-th piece of the range, itself a ``start`` and ``stop``."""
        check_unit(self.name, units, index, self.max_units(params))
        start, stop = cut(params["start"], params["stop"], units, index)
        return {"start": start, "stop": stop}

    def cost(self, unit: Params) -> Cost:
        """Strikes on the sieve, and the set-up of each row for every base prime."""
        size, root = unit["stop"] - unit["start"], isqrt(unit["stop"])
        segments = -(-size // (30 * SEGMENT))
        base = root // max(root.bit_length() - 1, 1)
        flops = 2 * size // 5 + 120 * base * segments
        return Cost(flops=float(flops), bytes=float(flops), memory_bytes=2**24 + SEGMENT + root + 24 * 8 * base)

    def compute(self, unit: Params, progress: Progress) -> bytes:
        """Count the primes of the unit."""
        clean = self.validate(unit)
        start, stop = clean["start"], clean["stop"]
        if stop <= 2:
            return _RESULT.pack(0)
        base = base_primes(isqrt(stop - 1))
        total = sum(1 for prime in (2, 3, 5) if start <= prime < stop)
        primes = base[base > 5]
        total += int(((primes >= start) & (primes < stop)).sum())
        total += _count_unstruck(max(start, 7), stop, primes, progress)
        progress(1.0)
        return _RESULT.pack(total)

    def check_result(self, unit: Params, result: bytes) -> None:
        """Eight bytes, and no more primes than there are numbers coprime to 30 (and 2, 3, 5 themselves)."""
        if len(result) != _RESULT.size:
            raise VerificationError(f"a prime count has {_RESULT.size} bytes, this one {len(result)}")
        (count,) = _RESULT.unpack(result)
        start, stop = unit["start"], unit["stop"]
        most = sum(1 for prime in (2, 3, 5) if start <= prime < stop)
        most += sum((stop - r + 29) // 30 - (start - r + 29) // 30 for r in RESIDUES)
        if count > most:
            raise VerificationError(f"at most {most} primes fit between {start} and {stop}, not {count}")

    def combine(self, params: Params, units: int, results: Sequence[bytes]) -> Combined:
        """The sum of the counts, as a JSON number."""
        if len(results) != units:
            raise VerificationError(f"the job has {units} units but {len(results)} results")
        return Combined(sum(_RESULT.unpack(result)[0] for result in results))


def base_primes(limit: int) -> "NDArray[np.int64]":
    """All primes up to ``limit``, by the plain sieve of Eratosthenes."""
    import numpy as np

    alive = np.ones(limit + 1, dtype=bool)
    alive[:2] = False
    alive[4::2] = False
    for number in range(3, isqrt(limit) + 1, 2):
        if alive[number]:
            alive[number * number :: 2 * number] = False
    return np.flatnonzero(alive).astype(np.int64, copy=False)


def _count_unstruck(start: int, stop: int, primes: "NDArray[np.int64]", progress: Progress) -> int:
    """Numbers of ``[start, stop)``, ``start >= 7``, coprime to 30 and to every one of ``primes``."""
    import numpy as np

    # 30⁻¹ mod p = (1 + p·t) / 30 with t = -p⁻¹ mod 30. Products stay under 10^7 · 30 · 29 < 2^63.
    negative_inverse = np.array([-pow(r, -1, 30) % 30 if r in RESIDUES else 0 for r in range(30)])
    inverse = (1 + primes * negative_inverse[primes % 30]) // 30
    first, end = start // 30, (stop - 1) // 30 + 1
    row = np.empty(min(SEGMENT, max(end - first, 0)), dtype=bool)
    total = 0
    for low in range(first, end, SEGMENT):
        for residue in RESIDUES:
            # p divides 30k + r exactly where k ≡ -r · 30⁻¹ (mod p)
            begin = max(low, (start - residue + 29) // 30)
            length = min(low + SEGMENT, (stop - residue + 29) // 30) - begin
            if length > 0:
                piece = row[:length]
                _strike(piece, primes, (-residue * inverse - begin) % primes)
                total += int(np.count_nonzero(piece))
        progress(min(1.0, (low + SEGMENT - first) / (end - first)))
    return total


def _strike(row: "NDArray[np.bool_]", primes: "NDArray[np.int64]", offsets: "NDArray[np.int64]") -> None:
    """Leave True in ``row`` only where no prime strikes; ``offsets`` are the primes' first strikes."""
    row.fill(True)
    dense = int(primes.searchsorted(len(row) // DENSE))
    for prime, offset in zip(primes[:dense].tolist(), offsets[:dense].tolist(), strict=True):
        row[offset::prime] = False
    # Large primes strike a row a few times each: all of them strike once per round, until none hits any more.
    primes, offsets = primes[dense:], offsets[dense:]
    while True:
        inside = offsets < len(row)
        offsets = offsets[inside]
        if not len(offsets):
            return
        row[offsets] = False
        primes = primes[inside]
        offsets = offsets + primes
