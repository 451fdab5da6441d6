"""The checks reject every cheat they are meant for, and never an honest result."""

import numpy as np
import pytest

from sparkle_protocol.errors import LocalProtocolError
from sparkle_worker.checks.check import check, drawn_from
from sparkle_worker.checks.projection import chi_square_limit, sums_in_orders
from sparkle_worker.kernels.registry import ARRAY_KERNELS
from tests.unit.worker.array_jobs import altered, bfloat16, cut_job, inputs_of, one_unit, random, rejected, seeds

GEMM, NBODY = ARRAY_KERNELS["gemm"], ARRAY_KERNELS["nbody"]
SIZE = 256


def in_order(a, b):
    total = np.zeros((len(a), b.shape[1]), a.dtype)
    for k in range(a.shape[1]):
        total += a[:, k : k + 1] * b[k]
    return total


def fused(a, b):
    """Sums in order with each product exact, as fused multiply-add has it."""
    total = np.zeros((len(a), b.shape[1]), a.dtype)
    for k in range(a.shape[1]):
        total = (total.astype(np.float64) + a[:, k : k + 1].astype(np.float64) * b[k]).astype(a.dtype)
    return total


def in_blocks(a, b, size=48):
    return sum(in_order(a[:, k : k + size], b[k : k + size]) for k in range(0, a.shape[1], size))


def in_lanes(a, b, lanes=8):
    return sum(in_order(a[:, lane::lanes], b[lane::lanes]) for lane in range(lanes))


HONEST = {
    "NumPy": lambda a, b: a @ b,
    "transposed NumPy": lambda a, b: np.ascontiguousarray((b.T @ a.T).T),
    "in order": in_order,
    "backwards": lambda a, b: in_order(a[:, ::-1], b[::-1]),
    "fused": fused,
    "in blocks": in_blocks,
    "in lanes": in_lanes,
    "in float64": lambda a, b: (a.astype(np.float64) @ b.astype(np.float64)).astype(a.dtype),
}


def one_row_of_another_kind(a, b, draw):
    a[7], b[:, 3] = 1.0, np.abs(b[:, 3])
    return a, b


def terms_badly_scaled(a, b, draw):
    scale = 10.0 ** draw.uniform(-12, 12, len(b))
    return a * scale, b / scale[:, None]


def cancelling(a, b, draw):
    a[:, 1::2] = a[:, ::2]
    b[1::2] = -b[::2] + 1e-3 * draw.standard_normal(b[::2].shape)
    return a, b


KINDS = {
    "random": lambda a, b, draw: (a, b),
    "positive": lambda a, b, draw: (np.abs(a), np.abs(b)),
    "equal": lambda a, b, draw: (np.full_like(a, 0.1), np.full_like(b, 0.7)),
    "one row of another kind": one_row_of_another_kind,
    "rows badly scaled": lambda a, b, draw: (a * 10.0 ** draw.uniform(-12, 12, (len(a), 1)), b),
    "columns badly scaled": lambda a, b, draw: (a, b * 10.0 ** draw.uniform(-12, 12, (1, b.shape[1]))),
    "terms badly scaled": terms_badly_scaled,
    "cancelling": cancelling,
    "alternating": lambda a, b, draw: (a + np.tile([1e6, -1e6], a.shape[1] // 2), np.ones_like(b)),
    "sparse": lambda a, b, draw: (a * (draw.random(a.shape) < 0.02), b),
    "mostly exact": lambda a, b, draw: (a * ((np.arange(len(a)) % 10 == 0)[:, None] | (np.arange(len(b)) == 0)), b),
    "whole numbers": lambda a, b, draw: (draw.integers(-99, 99, a.shape), draw.integers(-99, 99, b.shape)),
    "tiny": lambda a, b, draw: (a * 1e-22, b * 1e-20),
    "large": lambda a, b, draw: (a * 1e17, b * 1e17),
    "zeros": lambda a, b, draw: (a * 0, b),
}


def data(kind, m=96, k=SIZE, n=80, dtype="float32"):
    draw = np.random.default_rng(5)
    a, b = KINDS[kind](draw.standard_normal((m, k)), draw.standard_normal((k, n)), draw)
    return a.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_honest_products_pass_whatever_the_data_and_the_order_of_sums(kind):
    for dtype in ("float32", "float64"):
        a, b = data(kind, dtype=dtype)
        unit, tiles, _ = one_unit(GEMM, {}, a=a, b=b)
        for name, multiply in HONEST.items():
            with np.errstate(all="ignore"):
                result = multiply(a, b)
            for seed in seeds(4):
                assert rejected(GEMM, unit, tiles, result, seed) is None, (name, dtype)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 500, 1), (3, 1, 4), (1, 64, 900), (900, 64, 1), (5, 5000, 3)], ids=str
)
def test_honest_products_of_thin_shapes_pass_and_wrong_ones_do_not(shape):
    m, k, n = shape
    a, b = random(m, k), random(k, n, seed=2)
    unit, tiles, result = one_unit(GEMM, {}, a=a, b=b)
    for multiply in HONEST.values():
        for seed in seeds(10):
            assert rejected(GEMM, unit, tiles, multiply(a, b), seed) is None
    wrong = result.copy()
    wrong[-1, -1] += 0.02 * np.sqrt(k)
    assert all(rejected(GEMM, unit, tiles, wrong, seed) for seed in seeds(20))


@pytest.fixture(scope="module")
def product():
    unit, tiles, result = one_unit(GEMM, {}, a=random(512, 512), b=random(512, 512, seed=2))
    result.setflags(write=False)
    return unit, tiles, result


def test_one_element_that_is_off_by_a_two_thousandth_is_always_found_and_named(product):
    unit, tiles, result = product
    draw, rms = np.random.default_rng(3), float(np.sqrt(np.square(result).mean()))
    for seed in seeds(100):
        i, j = (int(index) for index in draw.integers(0, 512, 2))
        sentence = rejected(GEMM, unit, tiles, altered(result, [((i, j), 5e-4 * rms)]), seed)
        assert sentence
        assert sentence.startswith(f"element ({i}, {j}) is ")
        assert "it is off by" in sentence


@pytest.mark.parametrize("along", ["row", "column"])
def test_pairs_of_opposite_errors_are_always_found(product, along):
    unit, tiles, result = product
    draw, rms = np.random.default_rng(4), float(np.sqrt(np.square(result).mean()))
    for seed in seeds(100):
        i = int(draw.integers(0, 512))
        first, second = (int(index) for index in draw.choice(512, 2, replace=False))
        places = [(i, first), (i, second)] if along == "row" else [(first, i), (second, i)]
        wrong = altered(result, [(places[0], 5e-4 * rms), (places[1], -5e-4 * rms)])
        assert rejected(GEMM, unit, tiles, wrong, seed)


CHEATS = {
    "bf16 result": lambda a, b: bfloat16(a @ b),
    "bf16 inputs": lambda a, b: bfloat16(a) @ bfloat16(b),
    "fp16 result": lambda a, b: (a @ b).astype(np.float16).astype(np.float32),
    "fp16 inputs": lambda a, b: a.astype(np.float16).astype(np.float32) @ b.astype(np.float16).astype(np.float32),
    "zeros": lambda a, b: np.zeros((len(a), b.shape[1]), np.float32),
    "noise": lambda a, b: a @ b + 1e-2 * random(len(a), b.shape[1]),
    "one row of zeros": lambda a, b: (a @ b) * (np.arange(len(a)) != 17)[:, None].astype(np.float32),
    "half the rows in bf16": lambda a, b: np.where(np.arange(len(a))[:, None] % 2, bfloat16(a @ b), a @ b),
    "a term left out": lambda a, b: a[:, :-1] @ b[:-1],
    "sign": lambda a, b: -(a @ b),
    "one NaN": lambda a, b: altered(a @ b, [((3, 4), np.nan)]),
    "one infinity": lambda a, b: altered(a @ b, [((3, 4), np.inf)]),
    "all NaN": lambda a, b: np.full((len(a), b.shape[1]), np.nan, np.float32),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_shortcuts_are_always_found(product, cheat):
    unit, tiles, _ = product
    wrong = np.asarray(CHEATS[cheat](*tiles), dtype=np.float32)
    for seed in seeds(10):
        sentence = rejected(GEMM, unit, tiles, wrong, seed)
        assert sentence
        assert "nan" in sentence or "inf" in sentence or "off by" in sentence


def test_a_transposed_result_and_the_right_result_of_another_unit_are_found(product):
    unit, tiles, result = product
    assert rejected(GEMM, unit, tiles, np.ascontiguousarray(result.T))
    params, units, blobs = cut_job(GEMM, {}, {"a": random(64, 50), "b": random(50, 64)}, 4)
    each = [inputs_of(GEMM, params, units, index, blobs) for index in range(units)]
    results = [tiles[0] @ tiles[1] for _, tiles in each]
    for index, (unit, tiles) in enumerate(each):
        for other, result in enumerate(results):
            assert (rejected(GEMM, unit, tiles, result) is None) == (other == index)


def test_float32_work_sold_as_float64_is_found():
    a, b = random(80, 300, dtype="float64"), random(300, 90, dtype="float64", seed=2)
    unit, tiles, result = one_unit(GEMM, {}, a=a, b=b)
    assert rejected(GEMM, unit, tiles, result) is None
    assert rejected(GEMM, unit, tiles, (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_error_is_found_in_any_data(kind):
    a, b = data(kind)
    unit, tiles, result = one_unit(GEMM, {}, a=a, b=b)
    size = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    draw = np.random.default_rng(6)
    for seed in seeds(20):
        i, j = (int(index) for index in draw.integers(0, (len(a), b.shape[1])))
        off = 1e-3 * size[i, j] if size[i, j] > 1e-30 else 1e-3
        assert rejected(GEMM, unit, tiles, altered(result, [((i, j), off)]), seed)


# --- NaN and infinities ---


def special_products():
    a, b = random(40, 30), random(30, 50, seed=2)
    for name, place, value in (("NaN in a", (0, (3, 5)), np.nan), ("infinity in b", (1, (7, 9)), np.inf)):
        arrays = [a.copy(), b.copy()]
        arrays[place[0]][place[1]] = value
        yield name, *arrays
    both = a.copy(), b.copy()
    both[0][3, 5], both[0][4, 6], both[1][7, 9], both[1][5, 9] = np.inf, -np.inf, -np.inf, np.nan
    yield "several", *both
    opposite = a.copy(), b.copy()
    opposite[0][3, 5], opposite[0][3, 6] = np.inf, -np.inf
    yield "opposite infinities", *opposite
    zero = a.copy(), b.copy()
    zero[0][3, 5], zero[1][5] = np.inf, 0
    yield "infinity times zero", *zero
    yield "all of a", np.full_like(a, np.nan), b
    yield (
        "a row and a column",
        np.where(np.arange(40)[:, None] == 3, np.nan, a),
        np.where(np.arange(50) == 4, np.inf, b),
    )
    yield "overflow", a * np.float32(1e20), b * np.float32(1e20)
    yield "overflow that cancels", np.abs(a) * np.float32(1e19), np.where(np.arange(30)[:, None] % 2, 1e19, -1e19)
    yield "overflow in one row", np.where(np.arange(40)[:, None] == 3, 1e30, a), b * np.float32(1e9)


@pytest.mark.parametrize(("name", "a", "b"), special_products(), ids=[name for name, *_ in special_products()])
def test_honest_special_values_are_kept_and_false_ones_found(name, a, b):
    a, b = a.astype(np.float32), b.astype(np.float32)
    unit, tiles, _ = one_unit(GEMM, {}, a=a, b=b)
    with np.errstate(all="ignore"):
        results = {key: multiply(a, b) for key, multiply in HONEST.items()}
        size = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    for key, result in results.items():
        for seed in seeds(4):
            assert rejected(GEMM, unit, tiles, result, seed) is None, key
    result = results["NumPy"]
    assert not np.isfinite(result).all()
    swallowed = np.nan_to_num(result, nan=0.0, posinf=1.0, neginf=-1.0)
    assert rejected(GEMM, unit, tiles, swallowed)
    plain = np.flatnonzero(np.isfinite(size) & (size < 1e30))
    for place in plain[:: max(1, len(plain) // 5)]:
        for value in (np.nan, np.inf, -np.inf):
            wrong = result.copy()
            wrong.ravel()[place] = value
            assert rejected(GEMM, unit, tiles, wrong)
        wrong = result.copy()
        wrong.ravel()[place] += 0.02 * size.ravel()[place]
        assert rejected(GEMM, unit, tiles, wrong), "a wrong number beside a NaN"
    if "overflow" not in name:
        for place in np.flatnonzero(np.isinf(result))[:3]:
            for value in (np.nan, -result.ravel()[place]):
                wrong = result.copy()
                wrong.ravel()[place] = value
                assert rejected(GEMM, unit, tiles, wrong)


def test_enormous_float64_numbers_are_checked_too():
    a, b = random(30, 20, dtype="float64") * 1e200, random(20, 40, dtype="float64") * 1e-180
    for left, right in ((a, b), (a, b.copy() * 1e80), (b.T.copy(), a.T.copy())):
        unit, tiles, result = one_unit(GEMM, {}, a=left, b=right)
        assert np.isfinite(result).all()
        assert rejected(GEMM, unit, tiles, result) is None
        wrong = result.copy()
        wrong[3, 4] *= 1.001
        assert rejected(GEMM, unit, tiles, wrong)
    unit, tiles, result = one_unit(GEMM, {}, a=a, b=b * 1e300)
    assert not np.isfinite(result).all()
    assert rejected(GEMM, unit, tiles, result) is None


# --- form, and parts ---


@pytest.mark.parametrize("kernel", ARRAY_KERNELS.values(), ids=ARRAY_KERNELS)
def test_results_of_another_form_are_rejected(kernel):
    arrays = {
        "gemm": {"a": random(4, 5), "b": random(5, 6)},
        "conv2d": {"image": random(8, 9), "weights": np.ones((3, 3))},
        "nbody": {"state": random(2, 3, 7, dtype="float64")},
    }.get(kernel.name, {"x": random(6, 7)})
    unit, tiles, result = one_unit(kernel, {"steps": 1} if kernel is NBODY else {}, **arrays)
    check(kernel, unit, tiles, result, bytes(32))
    for wrong in (result[:-1], result.astype(np.float16), result.ravel(), result[None]):
        if wrong.shape != result.shape or wrong.dtype != result.dtype:
            assert "the result is" in rejected(kernel, unit, tiles, wrong)
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        check(kernel, unit, tiles, result, b"short")


def test_the_same_seed_draws_the_same_vector_and_another_seed_another():
    first, again, other = (drawn_from(seed).standard_normal(4) for seed in (bytes(32), bytes(32), b"\1" * 32))
    assert (first == again).all()
    assert (first != other).all()


def test_the_limit_of_chi_square_is_the_one_in_tables():
    assert chi_square_limit(0.05) == pytest.approx(9.488, abs=1e-3)
    assert chi_square_limit(0.001) == pytest.approx(18.467, abs=1e-3)


def test_sums_in_any_order_are_sums():
    for length in (1, 2, 3, 63, 64, 65, 400):
        terms = np.random.default_rng(length).integers(-50, 50, (length, 5)).astype(np.float32)
        for total in sums_in_orders(terms):
            assert (total == terms.sum(axis=0)).all()
