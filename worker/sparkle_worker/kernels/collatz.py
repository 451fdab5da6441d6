"""Finds the longest Collatz chain in a range, exactly, many steps per table look-up.

``T(n)`` is ``n/2`` for even and ``(3n+1)/2`` for odd ``n``. For ``n = 2^k a + b`` with ``0 <= b < 2^k``, k
applications give ``T^k(n) = 3^c a + d`` where ``c`` (odd values met) and ``d = T^k(b)`` depend on ``b`` alone
(Terras 1976). Three rules follow:

- **Jump.** One look-up by ``b`` replaces k applications, which are ``k + c`` steps of the chain. It never
  jumps past 1 if ``n >= 2^k``: a step at most halves, so 1 can be reached at the k-th application at the
  earliest. Values below 2^16 are finished by a table of their own.
- **Sieve.** Within a block of 2^16 numbers (same ``a >= 1``) all ``b`` with the same ``(c, d)`` have chains
  of the same length; the smallest stands for them. 29 % remain.
- **No overflow.** The first jump gives at most ``3^16 (MAX_STOP / 2^16) + 3^16 < 2^60``. Further jumps are
  made only for ``n <= LIMIT``, where ``3^12 (n / 2^12) + 3^12 < 2^64``; a value above it is followed in
  Python integers, which have no bound. That is rare for small starts and costs a factor of 4 near 10^15.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from sparkle_protocol.errors import VerificationError
from sparkle_worker.kernels.base import Combined, Cost, Params, Progress
from sparkle_worker.kernels.parameters import check_names, whole_number
from sparkle_worker.kernels.splitting import UNIT_LIMIT, check_unit, cut, sensible_units

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_STOP = 10**15  # every chain from below 2^68 is known to end (Barina 2021); this also bounds the first jump
BLOCK_BITS = 16  # the block's arrays (about 19 000 values) stay in the second-level cache
JUMP_BITS = 12  # tables of 4096 entries stay near the first-level cache
LIMIT = ((2**64 - 1 - 3**JUMP_BITS) // 3**JUMP_BITS) << JUMP_BITS

_BLOCK = 1 << BLOCK_BITS
_RESULT = struct.Struct("<QQ")


class Collatz:
    """``collatz(start, stop)``: the longest chain that starts in ``[start, stop)``.

    Of equally long chains the one with the smallest start counts. A chain's steps are those of ``n/2``
    (even) and ``3n+1`` (odd) until 1: 27 has 111 (OEIS A006577).
    Result bytes: start, then steps, each a little-endian unsigned 64-bit integer.
    """

    name = "collatz"
    version = 1
    summary = "Finds the number with the longest Collatz chain in a range."
    parameters: Mapping[str, str] = MappingProxyType(
        {
            "start": "first number of the range, at least 1 (default 1)",
            "stop": "first number after the range, at most 1e15 (default 1e9)",
        }
    )
    verification: Literal["exact", "algebraic", "tolerance", "homogeneous"] = "exact"
    cost_law = "6 (stop - start) log2(stop)"
    example = "sparkle submit collatz -p stop=1e9 --wait"

    def validate(self, params: Params) -> dict[str, Any]:
        """``start`` and ``stop`` with ``1 <= start < stop <= 10^15``."""
        check_names(self.name, params, self.parameters)
        start = whole_number(self.name, params, "start", 1, 1, MAX_STOP - 1)
        stop = whole_number(self.name, params, "stop", 10**9, start + 1, MAX_STOP)
        return {"start": start, "stop": stop}

    def default_units(self, params: Params) -> int:
        """Units of a hundred million numbers (2 to 4 s); 64 as long as each keeps two blocks."""
        return sensible_units(params["stop"] - params["start"], 10**8, 2 * _BLOCK)

    def max_units(self, params: Params) -> int:
        """One unit for each number of the range."""
        return min(int(params["stop"] - params["start"]), UNIT_LIMIT)

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """The ``index``-th piece of the range, itself a ``start`` and ``stop``."""
        check_unit(self.name, units, index, self.max_units(params))
        start, stop = cut(params["start"], params["stop"], units, index)
        return {"start": start, "stop": stop}

    def cost(self, unit: Params) -> Cost:
        """A chain's expected length grows with the logarithm of its start."""
        work = float(6 * (unit["stop"] - unit["start"]) * unit["stop"].bit_length())
        return Cost(flops=work, bytes=work, memory_bytes=2**25)

    def compute(self, unit: Params, progress: Progress) -> bytes:
        """Follow every chain of the unit and keep the longest."""
        clean = self.validate(unit)
        start, stop = clean["start"], clean["stop"]
        best_steps, best_start = -1, start
        for block in range(start >> BLOCK_BITS, ((stop - 1) >> BLOCK_BITS) + 1):
            low, high = max(start, block << BLOCK_BITS), min(stop, (block + 1) << BLOCK_BITS)
            steps, number = _longest_in_block(block, low - (block << BLOCK_BITS), high - (block << BLOCK_BITS))
            if steps > best_steps:  # blocks come in rising order, so the smallest start stays on ties
                best_steps, best_start = steps, number
            if block & 15 == 15:
                progress((high - start) / (stop - start))
        progress(1.0)
        return _RESULT.pack(best_start, best_steps)

    def check_result(self, unit: Params, result: bytes) -> None:
        """A start inside the unit, and as many steps as that start really has (recomputed: 0.1 ms)."""
        if len(result) != _RESULT.size:
            raise VerificationError(f"a collatz result has {_RESULT.size} bytes, this one {len(result)}")
        start, steps = _RESULT.unpack(result)
        if not unit["start"] <= start < unit["stop"]:
            raise VerificationError(f"{start} is not in the unit's range")
        true_steps = chain_steps(start)
        if steps != true_steps:
            raise VerificationError(f"the chain of {start} has {true_steps} steps, not {steps}")

    def combine(self, params: Params, units: int, results: Sequence[bytes]) -> Combined:
        """``{"start": n, "steps": s}`` of the longest chain of all."""
        if not results or len(results) != units:
            raise VerificationError(f"the job has {units} units but {len(results)} results")
        pairs = [_RESULT.unpack(result) for result in results]
        start, steps = min(pairs, key=lambda pair: (-pair[1], pair[0]))
        return Combined({"start": start, "steps": steps})


def chain_steps(number: int) -> int:
    """Steps from ``number`` (at least 1) to 1, in unbounded integers."""
    steps = 0
    while number != 1:
        if number & 1:
            number = (3 * number + 1) >> 1
            steps += 2
        else:
            number >>= 1
            steps += 1
    return steps


@dataclass(frozen=True, slots=True)
class _Jump:
    """``T^k`` by the low k bits: ``n -> factor·(n >> k) + offset``, which is ``steps`` steps of the chain."""

    factor: "NDArray[np.uint64]"
    offset: "NDArray[np.uint64]"
    steps: "NDArray[np.int64]"


@dataclass(frozen=True, slots=True)
class _Tables:
    """Constants of the algorithm, about 4 MB, made once per process."""

    block: _Jump
    distinct: "NDArray[np.intp]"  # the smallest low bits of each different chain within a block
    jump: _Jump
    small: "NDArray[np.int64]"  # steps of every number below 2^16; 0 has none


@cache
def _tables() -> _Tables:
    """The tables of the module's docstring."""
    import numpy as np

    block = _jump_table(BLOCK_BITS)
    pair = block.factor * np.uint64(3**BLOCK_BITS) + block.offset  # offset < 3^16, so pairs do not collide
    _, distinct = np.unique(pair, return_index=True)
    small = np.zeros(_BLOCK, dtype=np.int64)
    place = np.arange(2, _BLOCK)
    value = place.copy()
    while len(place):
        small[place] += 1
        value = np.where(value & 1, 3 * value + 1, value >> 1)
        place, value = place[value != 1], value[value != 1]
    return _Tables(block, np.sort(distinct), _jump_table(JUMP_BITS), small)


def _jump_table(bits: int) -> _Jump:
    """``T^bits`` for every value of the low ``bits`` bits."""
    import numpy as np

    offset = np.arange(1 << bits, dtype=np.uint64)
    odd_met = np.zeros(1 << bits, dtype=np.uint64)
    for _ in range(bits):
        odd = offset & np.uint64(1)
        odd_met += odd
        offset = np.where(odd == 1, (3 * offset + np.uint64(1)) >> np.uint64(1), offset >> np.uint64(1))
    return _Jump(np.power(np.uint64(3), odd_met), offset, bits + odd_met.astype(np.int64))


def _longest_in_block(block: int, low: int, high: int) -> tuple[int, int]:
    """(steps, start) of the longest chain from ``block·2^16 + low`` up to, not including, ``+ high``."""
    import numpy as np

    tables = _tables()
    base = block << BLOCK_BITS
    if block == 0:
        index = int(tables.small[low:high].argmax()) + low
        return int(tables.small[index]), index
    whole = low == 0 and high == _BLOCK
    rest = tables.distinct if whole else np.arange(low, high)
    value = tables.block.factor[rest] * np.uint64(block) + tables.block.offset[rest]
    # One number orders by steps first and then by the smaller start.
    rank = (tables.block.steps[rest] << BLOCK_BITS) | (_BLOCK - 1 - rest)
    best = _best_rank(value, rank, tables)
    return best >> BLOCK_BITS, base + _BLOCK - 1 - (best & (_BLOCK - 1))


def _best_rank(value: "NDArray[np.uint64]", rank: "NDArray[np.int64]", tables: _Tables) -> int:
    """The greatest rank once every chain has reached 1; ``rank`` counts steps above its low 16 bits."""
    import numpy as np

    jump, jump_rank = tables.jump, tables.jump.steps << BLOCK_BITS
    best = -1
    while True:
        ended = value < _BLOCK
        if ended.any():
            best = max(best, int((rank[ended] + (tables.small[value[ended]] << BLOCK_BITS)).max()))
            value, rank = value[~ended], rank[~ended]
        if not len(value):
            return best
        if int(value.max()) > LIMIT:
            high = value > LIMIT
            for number, so_far in zip(value[high].tolist(), rank[high].tolist(), strict=True):
                best = max(best, so_far + (chain_steps(number) << BLOCK_BITS))
            value, rank = value[~high], rank[~high]
        bits = (value & np.uint64((1 << JUMP_BITS) - 1)).view(np.int64)
        value >>= np.uint64(JUMP_BITS)
        value *= jump.factor.take(bits)
        value += jump.offset.take(bits)
        rank += jump_rank.take(bits)
