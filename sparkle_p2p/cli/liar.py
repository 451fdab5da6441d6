"""The demo's cheat: an executor that computes honestly and then alters every result a little.

What it returns passes every check of form; only another peer's result, or the truth, gives it away. Each lie is
drawn at random, so two liars do not agree by accident.
"""

import asyncio
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkle_worker.executor import Executor
from sparkle_worker.kernels.collatz import chain_steps
from sparkle_worker.kernels.registry import get_array_kernel

_COUNT = struct.Struct("<Q")
_CHAIN = struct.Struct("<QQ")


class LyingExecutor(Executor):
    """Computes units and never tells the truth about them."""

    async def run(
        self,
        kernel: str,
        version: int,
        unit: Mapping[str, Any],
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None = None,
    ) -> bytes:
        """A plausible result that is wrong."""
        return falsify(kernel, unit, await super().run(kernel, version, unit, on_progress, on_begin))

    async def run_arrays(
        self,
        kernel: str,
        version: int,
        unit: Mapping[str, Any],
        inputs: Sequence[Path],
        result: Path,
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None = None,
        *,
        checkpoint: Path | None = None,
        on_resume: Callable[[float], None] | None = None,
    ) -> None:
        """The right array with its last digits missing, as from a device that computes in bfloat16 to be faster."""
        await super().run_arrays(
            kernel, version, unit, inputs, result, on_progress, on_begin, checkpoint=checkpoint, on_resume=on_resume
        )
        dtype = get_array_kernel(kernel, version).result_type(unit).dtype
        await asyncio.to_thread(round_to_bfloat16, result, dtype)


def round_to_bfloat16(path: Path, dtype: str) -> None:
    """Leave eight significant bits of every number in a file of floating-point numbers."""
    import numpy as np

    numbers = np.memmap(path, dtype="<u4" if dtype == "float32" else "<u8", mode="r+")
    dropped = 16 if dtype == "float32" else 45
    numbers >>= dropped
    numbers <<= dropped
    numbers.flush()


def falsify(kernel: str, unit: Mapping[str, Any], result: bytes) -> bytes:
    """Another result of the same form: a count a little off, a pixel of another colour, a shorter chain."""
    draw = random.SystemRandom()
    if kernel in ("prime_count", "monte_carlo_pi"):
        (count,) = _COUNT.unpack(result)
        off = draw.randint(1, 9)
        return _COUNT.pack(count - off if count > off else count + off)
    if kernel == "mandelbrot":
        pixels = bytearray(result)
        at = 2 * draw.randrange(len(pixels) // 2)
        value = int.from_bytes(pixels[at : at + 2], "little")
        pixels[at : at + 2] = (value - 1 if value > 1 else 2).to_bytes(2, "little")
        return bytes(pixels)
    if kernel == "collatz" and unit["stop"] - unit["start"] > 1:
        (best, _) = _CHAIN.unpack(result)
        start = draw.choice([n for n in (unit["start"], unit["start"] + 1, unit["stop"] - 1) if n != best])
        return _CHAIN.pack(start, chain_steps(start))
    return bytes(result[:-1]) + bytes([result[-1] ^ 1])
