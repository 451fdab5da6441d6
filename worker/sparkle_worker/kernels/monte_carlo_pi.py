"""Estimates π by counting random points within a quarter circle, exactly the same points on every machine.

The points come from the counter-based generator Philox4x64-10 (Salmon et al. 2011): the k-th block of four 64-bit
words is a function of the seed and k alone, so a unit starts anywhere in the stream at no cost. Words and the test
are integers, and a count has nothing to round.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import VerificationError
from sparkle_worker.kernels.base import Combined, Cost, Params, Progress, Verification
from sparkle_worker.kernels.parameters import check_names, whole_number
from sparkle_worker.kernels.splitting import UNIT_LIMIT, check_unit, cut, sensible_units

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SAMPLES = 10**15
MAX_SEED = 2**64 - 1
BLOCK_SAMPLES = 2**16  # three arrays of 512 kB
BITS = 31  # of a coordinate: its square has 62, so the sum of two fits
_RESULT = struct.Struct("<Q")
_SURE = 8.0  # standard deviations: beyond them less than one honest count in 10^15 lies


class MonteCarloPi:
    """``monte_carlo_pi(samples, seed)``: how many of the first ``samples`` points lie within the quarter circle.

    Result bytes of a unit: the count as one little-endian unsigned 64-bit integer.
    """

    name = "monte_carlo_pi"
    version = 1
    summary = "Estimates pi from random points, reproducibly."
    parameters: Mapping[str, str] = MappingProxyType(
        {
            "samples": "number of points, at most 1e15 (default 1e9)",
            "seed": "whole number that chooses the points, below 2^64 (default 0)",
        }
    )
    verification: Verification = "exact"
    cost_law = "40 samples"
    example = "sparkle submit monte_carlo_pi -p samples=1e9 -p seed=7 --wait"

    def validate(self, params: Params) -> dict[str, Any]:
        """``samples`` from 1 to 10^15, ``seed`` of 64 bits."""
        check_names(self.name, params, self.parameters)
        samples = whole_number(self.name, params, "samples", 10**9, 1, MAX_SAMPLES)
        return {"samples": samples, "seed": whole_number(self.name, params, "seed", 0, 0, MAX_SEED)}

    def default_units(self, params: Params) -> int:
        """Units of 2.5·10^8 points (1 to 3 s); 64 as long as each keeps a million."""
        return sensible_units(params["samples"], 25 * 10**7, 10**6)

    def max_units(self, params: Params) -> int:
        """One for each point."""
        return min(int(params["samples"]), UNIT_LIMIT)

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """Points ``start`` to ``stop`` of the stream."""
        check_unit(self.name, units, index, self.max_units(params))
        start, stop = cut(0, params["samples"], units, index)
        return {"start": start, "stop": stop, "seed": params["seed"]}

    def cost(self, unit: Params) -> Cost:
        """Ten rounds for each four words, and the test."""
        work = float(40 * (unit["stop"] - unit["start"]))
        return Cost(flops=work, bytes=8.0, memory_bytes=2**23)

    def compute(self, unit: Params, progress: Progress) -> bytes:
        """Count the unit's points within the circle."""
        start, stop, seed = _unit(unit)
        import numpy as np

        # NumPy increments the counter before each block of four words; see worker/README.md.
        generator = np.random.Philox(key=seed, counter=start // 4)
        generator.random_raw(start % 4)
        hits = 0
        for first in range(start, stop, BLOCK_SAMPLES):
            hits += _hits(generator.random_raw(min(BLOCK_SAMPLES, stop - first)))
            progress((min(first + BLOCK_SAMPLES, stop) - start) / (stop - start))
        return _RESULT.pack(hits)

    def check_result(self, unit: Params, result: bytes) -> None:
        """Eight bytes, and a count that random points can have."""
        if len(result) != _RESULT.size:
            raise VerificationError(f"a count of points has {_RESULT.size} bytes, this one {len(result)}")
        (hits,) = _RESULT.unpack(result)
        points = unit["stop"] - unit["start"]
        if hits > points:
            raise VerificationError(f"{hits} of {points} points cannot lie within the circle")
        expected = points * math.pi / 4
        if abs(hits - expected) > _SURE * (math.sqrt(expected * (1 - math.pi / 4)) + 1):
            raise VerificationError(
                f"about {expected:.0f} of {points} random points lie within the circle, not {hits}"
            )

    def combine(self, params: Params, units: int, results: Sequence[bytes]) -> Combined:
        """Points, hits, the estimate of π and its standard error."""
        if len(results) != units:
            raise VerificationError(f"the job has {units} units but {len(results)} results")
        samples = int(params["samples"])
        hits = sum(_RESULT.unpack(result)[0] for result in results)
        spread = 4 * math.sqrt(hits * (samples - hits) / samples) / samples
        return Combined({"samples": samples, "hits": hits, "estimate": 4 * hits / samples, "standard_error": spread})


def _hits(words: "NDArray[np.uint64]") -> int:
    """How many words are points within the circle: ``(2x+1)² + (2y+1)² < 4·2^62``, in whole numbers."""
    import numpy as np

    x = words >> np.uint64(64 - BITS)
    y = words & np.uint64(2**BITS - 1)
    x *= x + np.uint64(1)
    y *= y + np.uint64(1)
    x += y
    return int(np.count_nonzero(x < np.uint64(2 ** (2 * BITS))))


def _unit(unit: Params) -> tuple[int, int, int]:
    """``start``, ``stop`` and ``seed`` of a unit, checked."""
    name = "a monte_carlo_pi unit"
    check_names(name, unit, ("start", "stop", "seed"))
    start = whole_number(name, unit, "start", None, 0, MAX_SAMPLES - 1)
    stop = whole_number(name, unit, "stop", None, start + 1, MAX_SAMPLES)
    return start, stop, whole_number(name, unit, "seed", None, 0, MAX_SEED)
