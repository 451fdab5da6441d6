"""The stated error bounds hold against float64, on data of every kind."""

import re

import numpy as np
import pytest

from sparkle_worker.checks.check import check
from sparkle_worker.kernels.registry import ARRAY_KERNELS
from tests.unit.worker.array_jobs import one_unit, random

GEMM = ARRAY_KERNELS["gemm"]
SEED = bytes(range(32))


def kinds_of_data(shape, dtype):
    draw = np.random.default_rng(7)
    yield "random", draw.standard_normal(shape).astype(dtype)
    yield "positive", draw.random(shape).astype(dtype)
    yield "equal", np.full(shape, 0.1, dtype)
    yield "badly scaled", (draw.standard_normal(shape) * 10.0 ** draw.uniform(-9, 9, shape)).astype(dtype)
    cancelling = draw.standard_normal(shape)
    cancelling[..., 1::2] = -cancelling[..., : cancelling.shape[-1] // 2 * 2 : 2][
        ..., : cancelling[..., 1::2].shape[-1]
    ]
    yield "cancelling", (1e4 * cancelling + draw.standard_normal(shape)).astype(dtype)
    yield "whole numbers", draw.integers(-1000, 1000, shape).astype(dtype)
    yield "tiny", (draw.standard_normal(shape) * float(np.finfo(dtype).tiny)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["gemm", "conv2d", "reduce", "softmax", "layernorm"])
def test_results_are_within_the_stated_bound_and_pass_their_check(name, dtype):
    kernel = ARRAY_KERNELS[name]
    shapes = {"gemm": ((61, 300), (300, 47)), "conv2d": ((21, 19, 8), (3, 3, 8, 6))}.get(name, ((37, 300),))
    for kind, first in kinds_of_data(shapes[0], dtype):
        others = [array for _, array in kinds_of_data(shapes[1], dtype)] if len(shapes) > 1 else [None]
        for second in others:
            arrays = dict(zip(kernel.inputs, (first, second), strict=False))
            unit, tiles, result = one_unit(kernel, {"axis": 1} if name == "reduce" else {}, **arrays)
            exact, bound = kernel.reference(unit, tiles, np.arange(result.size))
            off = np.abs(result.ravel() - exact)
            assert (off <= bound).all(), (name, kind, float((off - bound).max()))
            check(kernel, unit, tiles, result, SEED)


def test_the_sentence_on_the_error_is_the_bound_that_is_used():
    unit, tiles, _ = one_unit(GEMM, {}, a=random(3, 200), b=random(200, 3))
    _, bound = GEMM.reference(unit, tiles, np.arange(9))
    size = (np.abs(tiles[0]).astype(float) @ np.abs(tiles[1]).astype(float)).ravel()
    share = 200 * 2.0**-24
    assert np.allclose(bound, share / (1 - share) * size, rtol=1e-6)
    assert re.match(r"k u / \(1 - k u\)", GEMM.error_law)
