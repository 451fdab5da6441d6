"""Kernels for worker processes that say how long they took, given to them by their ``--kernels`` option."""

import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkle_worker.kernels.arrays import ArrayType
from sparkle_worker.kernels.base import Cost, Params, Progress
from sparkle_worker.kernels.gemm import Gemm

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 1024
SECONDS_FILE = "BENCH_KERNEL_SECONDS"
_SECONDS = struct.Struct("<d")


class TimedSum:
    """The sum of two square matrices. The result's first element is how many microseconds it took."""

    name = "timed_sum"
    version = 1

    def input_types(self, unit: Params) -> tuple[ArrayType, ...]:
        """Both alike."""
        return (self.result_type(unit),) * 2

    def result_type(self, _unit: Params) -> ArrayType:
        """One of them."""
        return ArrayType("float32", (SIZE, SIZE))

    def cost(self, _unit: Params) -> Cost:
        """One addition an element."""
        size = self.result_type({}).nbytes
        return Cost(float(SIZE**2), 3.0 * size, 3 * size)

    def compute_into(
        self, _unit: Params, arrays: "tuple[NDArray[Any], ...]", out: "NDArray[Any]", _progress: Progress
    ) -> None:
        """Add, and say how long that took."""
        import numpy as np

        began = time.perf_counter()
        np.add(arrays[0], arrays[1], out=out)
        out[0, 0] = (time.perf_counter() - began) * 1e6


class TimedGemm(Gemm):
    """gemm; what it took of the processor is appended to the file that the environment names."""

    def compute_into(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", out: "NDArray[Any]", progress: Progress
    ) -> None:
        """Multiply, and note how long that took."""
        began = time.process_time()
        super().compute_into(unit, arrays, out, progress)
        took = time.process_time() - began
        with open(os.environ[SECONDS_FILE], "ab", buffering=0) as file:
            file.write(_SECONDS.pack(took))


def kernel_seconds(path: Path) -> float:
    """What all kernels took that wrote to this file."""
    return sum(seconds for (seconds,) in _SECONDS.iter_unpack(path.read_bytes()))


TIMED = {TimedSum.name: TimedSum()}
PRODUCTS = {TimedGemm.name: TimedGemm()}
