"""conv2d by onnxruntime, where that is installed: the same as by NumPy, in the memory that a unit states."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from sparkle_worker.executor import Executor
from sparkle_worker.kernels import conv2d_numpy, conv2d_onnx
from sparkle_worker.kernels.arrays import gamma
from sparkle_worker.kernels.conv2d import Conv2d
from sparkle_worker.kernels.conv2d_shape import Shape
from tests.unit.worker.array_jobs import one_unit, quiet, random

CONV = Conv2d()


@pytest.mark.parametrize("params", [{}, {"stride": 2, "padding": 1}, {"border": "edge"}])
def test_both_ways_agree_within_the_stated_tolerance(params):
    unit, tiles, _ = one_unit(CONV, params, image=random(2, 33, 40, 16), weights=random(3, 3, 16, 24, seed=2))
    shape = Shape.of(unit)
    by_onnx, by_numpy = (CONV.result_type(unit).empty() for _ in range(2))
    conv2d_onnx.convolve(shape, *tiles, by_onnx, quiet)
    conv2d_numpy.convolve(shape, *tiles, by_numpy, quiet)
    sizes = CONV.result_type(unit).empty()
    conv2d_numpy.convolve(shape, *map(np.abs, tiles), sizes, quiet)
    assert np.all(np.abs(by_onnx - by_numpy) <= 2 * gamma(9 * 16, "float32") * sizes)


async def test_a_unit_has_room_for_it_in_the_memory_that_it_states(tmp_path: Path):
    """It is large enough for onnxruntime to be chosen."""
    unit, tiles, expected = one_unit(CONV, {}, image=random(4, 112, 112, 64), weights=random(3, 3, 64, 64, seed=2))
    assert conv2d_onnx.suits(Shape.of(unit))
    paths = [tmp_path / f"tile{number}" for number in range(len(tiles))]
    for path, tile in zip(paths, tiles, strict=True):
        tile.tofile(path)
    (tmp_path / "result").touch()
    memory_mb = -(-CONV.cost(unit).memory_bytes // 2**20)
    executor = Executor(memory_mb=memory_mb, idle_priority=False)
    try:
        await executor.run_arrays(CONV.name, CONV.version, unit, paths, tmp_path / "result", quiet)
        assert await executor.check(CONV.name, CONV.version, unit, paths, tmp_path / "result", bytes(32)) == ""
    finally:
        await executor.stop()
    found = np.fromfile(tmp_path / "result", "<f4").reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-3)
