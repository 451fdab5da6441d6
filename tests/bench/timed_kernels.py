"""A kernel for worker processes that says how long it took itself, given to them by their ``--kernels`` option."""

import time
from typing import TYPE_CHECKING, Any

from sparkle_worker.kernels.arrays import ArrayType
from sparkle_worker.kernels.base import Cost, Params, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 1024


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


TIMED = {TimedSum.name: TimedSum()}
