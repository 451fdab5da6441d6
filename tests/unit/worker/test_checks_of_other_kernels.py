"""The checks of conv2d and of the tolerance class reject cheats, and never an honest result."""

import tracemalloc

import numpy as np
import pytest

from sparkle_protocol.errors import VerificationError
from sparkle_worker.checks.recompute import agree
from sparkle_worker.kernels.registry import ARRAY_KERNELS
from tests.unit.worker.array_jobs import altered, bfloat16, one_unit, random, rejected, seeds

CONV, REDUCE = ARRAY_KERNELS["conv2d"], ARRAY_KERNELS["reduce"]
SOFTMAX, LAYERNORM = ARRAY_KERNELS["softmax"], ARRAY_KERNELS["layernorm"]

# --- conv2d ---

PICTURE = np.random.default_rng(8).random((40, 50, 3)).astype(np.float32)
CONVOLUTIONS = {
    "a layer": {"image": random(2, 24, 20, 16), "weights": random(3, 3, 16, 32, seed=3)},
    "a blur": {"image": PICTURE, "weights": np.full((5, 5), 0.04)},
    "bytes": {"image": (PICTURE * 255).astype(np.uint8), "weights": random(3, 3, 3, 8, dtype="float64")},
    "one by one": {"image": random(30, 20, 16), "weights": random(1, 1, 16, 24, seed=3)},
    "float64": {"image": random(20, 20, 4, dtype="float64"), "weights": random(3, 3, 4, 8, dtype="float64")},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_pass_and_wrong_ones_do_not(name, stride):
    unit, tiles, result = one_unit(CONV, {"stride": stride}, **CONVOLUTIONS[name])
    rms = float(np.sqrt(np.square(result.astype(np.float64)).mean()))
    draw = np.random.default_rng(9)
    for seed in seeds(20):
        assert rejected(CONV, unit, tiles, result, seed) is None
        place = tuple(int(draw.integers(0, size)) for size in result.shape)
        sentence = rejected(CONV, unit, tiles, altered(result, [(place, 5e-4 * rms)]), seed)
        assert sentence
        assert sentence.startswith(f"channel {place[3]} of pixel ({place[1]}, {place[2]}) of image {place[0]} is ")
    wrongs = [bfloat16(result), result.astype(np.float16), np.zeros_like(result), result[:, ::-1], result[..., ::-1]]
    for wrong in wrongs:
        assert rejected(CONV, unit, tiles, np.ascontiguousarray(wrong, dtype=result.dtype))


def test_convolutions_by_another_order_of_sums_pass():
    unit, tiles, _ = one_unit(CONV, {}, **CONVOLUTIONS["a layer"])
    image, weights = tiles
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    result = np.zeros((2, 24, 20, 32), np.float32)
    for c in range(16):
        for i in range(3):
            for j in range(3):
                result += padded[:, i : i + 24, j : j + 20, c : c + 1] * weights[i, j, c]
    for seed in seeds(20):
        assert rejected(CONV, unit, tiles, result, seed) is None


def test_a_nan_pixel_reaches_its_neighbours_and_no_others():
    image = PICTURE.copy()
    image[10, 12, 1] = np.nan
    for weights in (np.full((3, 3), 1 / 9), random(3, 3, 3, 4)):
        unit, tiles, result = one_unit(CONV, {}, image=image, weights=weights)
        assert np.isnan(result).any(axis=(0, 3)).sum() == 9
        assert rejected(CONV, unit, tiles, result) is None
        assert rejected(CONV, unit, tiles, np.nan_to_num(result))
        wrong = result.copy()
        wrong[0, 30, 30, 0] = np.nan
        assert rejected(CONV, unit, tiles, wrong)


# --- the tolerance class ---

TOLERANT = {
    "sum": (REDUCE, {"axis": 1}),
    "mean": (REDUCE, {"axis": 0, "op": "mean"}),
    "max": (REDUCE, {"axis": 1, "op": "max"}),
    "softmax": (SOFTMAX, {}),
    "layernorm": (LAYERNORM, {}),
}


@pytest.mark.parametrize("name", TOLERANT)
def test_results_of_the_tolerance_class_pass_and_shortcuts_do_not(name):
    kernel, params = TOLERANT[name]
    x = 3 * random(400, 200)
    unit, tiles, result = one_unit(kernel, params, x=x)
    other = one_unit(kernel, params, x=x[::-1] + 1)[2]
    for seed in seeds(20):
        assert rejected(kernel, unit, tiles, result, seed) is None
        shortcuts = (bfloat16(result), result.astype(np.float16), np.zeros_like(result), other, -result)
        for wrong in shortcuts:
            sentence = rejected(kernel, unit, tiles, wrong.astype(result.dtype), seed)
            assert sentence
            assert sentence.startswith("element (")
    assert rejected(kernel, unit, tiles, np.full_like(result, np.nan))


@pytest.mark.parametrize("name", TOLERANT)
def test_special_values_of_the_tolerance_class_are_kept(name):
    kernel, params = TOLERANT[name]
    x = random(20, 30)
    x[3, 4], x[5, 6], x[7, 8], x[9, 10], x[9, 11] = np.nan, np.inf, -np.inf, np.inf, -np.inf
    x[11] = -np.inf
    unit, tiles, result = one_unit(kernel, params, x=x)
    assert not np.isfinite(result).all()
    assert rejected(kernel, unit, tiles, result) is None
    agree(kernel, unit, tiles, result, result.copy())
    for wrong in (
        np.nan_to_num(result, nan=0.0, posinf=1.0, neginf=-1.0),
        np.where(np.isnan(result), np.inf, result),
    ):
        assert rejected(kernel, unit, tiles, wrong.astype(result.dtype))
        with pytest.raises(VerificationError, match="element"):
            agree(kernel, unit, tiles, result, wrong.astype(result.dtype))


@pytest.mark.parametrize("name", TOLERANT)
def test_replicas_agree_up_to_their_rounding_and_any_wrong_element_is_named(name):
    kernel, params = TOLERANT[name]
    unit, tiles, result = one_unit(kernel, params, x=3 * random(60, 50))
    exact, bound = kernel.reference(unit, tiles, np.arange(result.size))
    replica = (exact + 0.5 * bound * np.resize([1, -1], exact.shape)).reshape(result.shape).astype(result.dtype)
    agree(kernel, unit, tiles, result, replica)
    place = (result.shape[0] // 2, result.shape[1] // 2)
    wrong = result.copy()
    wrong[place] = wrong[place] * 1.001 + 1e-4
    for pair in ((result, wrong), (wrong, result)):
        with pytest.raises(VerificationError, match=rf"element \({place[0]}, {place[1]}\) is"):
            agree(kernel, unit, tiles, *pair)


def test_one_long_sum_is_checked_with_little_memory_beside_its_terms():
    x = random(2**23 + 5, dtype="float32")
    x[-1] = 1e6
    for op, wrong in (("sum", 1.0), ("max", -1.0)):
        unit, tiles, result = one_unit(REDUCE, {"op": op}, x=x)
        tracemalloc.start()
        try:
            assert rejected(REDUCE, unit, tiles, result, b"s" * 32) is None
            assert tracemalloc.get_traced_memory()[1] < x.nbytes
        finally:
            tracemalloc.stop()
        assert rejected(REDUCE, unit, tiles, result + result.dtype.type(wrong), b"s" * 32)
    x[7] = np.nan
    unit, tiles, result = one_unit(REDUCE, {"op": "sum"}, x=x)
    assert np.isnan(result).all()
    assert rejected(REDUCE, unit, tiles, result, b"s" * 32) is None
