"""Kernels and checks on one BLAS thread: one JSON line of processor seconds for each line on stdin.

    python -m tests.bench.one_core [PEAK_LIBRARY]

Started by ``arithmetic.py`` with a single BLAS thread, as worker processes are.
"""

import ctypes
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sparkle_worker.checks.check import check
from sparkle_worker.kernels.arrays import ArrayKernel, array_type
from sparkle_worker.kernels.registry import ARRAY_KERNELS

PEAK_ROUNDS = 4_000_000
# Layers of ResNet-50, each of another kind: height and width, channels, filters, filter size, stride.
LAYERS = ((224, 3, 64, 7, 2), (56, 64, 64, 3, 1), (56, 64, 256, 1, 1), (28, 128, 128, 3, 1), (14, 256, 256, 3, 1))


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds, of this process alone."""
    began = time.process_time()
    work()
    return time.process_time() - began


class Unit:
    """A job of one unit and its result."""

    def __init__(self, name: str, params: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        self.kernel: ArrayKernel = ARRAY_KERNELS[name]
        types = {key: array_type(key, array) for key, array in arrays.items()}
        job = self.kernel.with_arrays(params, types)
        self.unit = self.kernel.unit(job, 1, 0)
        self.tiles = tuple(self.kernel.tiles(job, 1, arrays))
        self.result = self.kernel.result_type(self.unit).empty()
        self.flops = self.kernel.cost(self.unit).flops
        self.seed = 0
        self.compute()

    def compute(self) -> None:
        """Once more."""
        self.kernel.compute_into(self.unit, self.tiles, self.result, lambda _: None)

    def check(self) -> None:
        """With a seed of its own each time."""
        self.seed += 1
        check(self.kernel, self.unit, self.tiles, self.result, self.seed.to_bytes(32, "little"))


def gemm(size: int) -> Unit:
    """A square product."""
    draw = np.random.default_rng(size)
    a, b = (draw.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    return Unit("gemm", {}, {"a": a, "b": b})


def convolution(size: int, channels: int, filters: int, window: int, stride: int) -> Unit:
    """One layer of a network."""
    draw = np.random.default_rng(channels)
    image = draw.standard_normal((size, size, channels), dtype=np.float32)
    weights = draw.standard_normal((window, window, channels, filters), dtype=np.float32)
    return Unit("conv2d", {"stride": stride}, {"image": image, "weights": weights})


def main() -> None:
    """Answer until stdin ends."""
    squares = {size: gemm(size) for size in (1024, 2048)}
    layers = [convolution(*layer) for layer in LAYERS]
    library = ctypes.CDLL(sys.argv[1]) if len(sys.argv) > 1 else None
    if library:
        library.fma_rounds.restype = ctypes.c_double
        library.fma_rounds.argtypes = [ctypes.c_long, ctypes.POINTER(ctypes.c_float)]
    for _ in sys.stdin:
        figures: dict[str, float | None] = {"peak": None}
        if library:
            kept, began = ctypes.c_float(), time.process_time()
            operations = library.fma_rounds(PEAK_ROUNDS, ctypes.byref(kept))
            figures["peak"] = operations / (time.process_time() - began)
        for size, unit in squares.items():
            times = 2 * 2048 // size - 1  # a short one is repeated
            figures[f"gemm_{size}_s"] = sum(seconds(unit.compute) for _ in range(times)) / times
            figures[f"gemm_{size}"] = unit.flops / figures[f"gemm_{size}_s"]
            figures[f"check_{size}_s"] = seconds(unit.check)
        figures["conv2d"] = sum(layer.flops for layer in layers) / sum(seconds(layer.compute) for layer in layers)
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
