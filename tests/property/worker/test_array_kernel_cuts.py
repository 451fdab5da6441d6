"""However an array job is cut, its units cover it exactly once, and honest results pass their check."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from sparkle_protocol.errors import ConfigError, SparkleError, VerificationError
from sparkle_worker.checks.check import check
from sparkle_worker.kernels.arrays import ArrayType
from sparkle_worker.kernels.registry import ARRAY_KERNELS
from tests.unit.worker.array_jobs import cut_job, one_unit, quiet, run_job

GEMM, CONV, REDUCE = ARRAY_KERNELS["gemm"], ARRAY_KERNELS["conv2d"], ARRAY_KERNELS["reduce"]
ROWWISE = [ARRAY_KERNELS["softmax"], ARRAY_KERNELS["layernorm"]]
SIZE = st.integers(1, 12)
SEED = st.binary(min_size=32, max_size=32)


def whole(shape, seed, dtype="float32"):
    """Small whole numbers: sums of their products are exact in any order."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


@settings(max_examples=150)
@given(SIZE, SIZE, SIZE, st.integers(0, 99), SEED, st.data())
def test_any_cut_of_a_product_gives_the_product(m, k, n, seed, check_seed, data):
    a, b = whole((m, k), seed), whole((k, n), seed + 1)
    units = data.draw(st.integers(1, m * n))
    try:
        c = run_job(GEMM, {}, {"a": a, "b": b}, units, lambda *unit: check(GEMM, *unit, check_seed))
    except ConfigError:
        assert not any(units % p == 0 and p <= m and units // p <= n for p in range(1, units + 1))
        return
    assert (c == a @ b).all()


LAYERS = st.tuples(
    *(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),  # images
    *(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)),  # filters
    *(st.integers(1, 3), st.integers(0, 3)),  # stride and padding
)


@settings(max_examples=150)
@given(LAYERS, st.integers(0, 99), SEED, st.data())
def test_any_cut_of_a_convolution_gives_the_same(layer, seed, check_seed, data):
    images, height, width, channels, high, wide, filters, stride, padding = layer
    image = whole((images, height, width, channels), seed)
    weights = whole((high, wide, channels, filters) if filters else (high, wide), seed + 1)
    border = data.draw(st.sampled_from(["zeros", "edge"]))
    params = {"stride": stride, "padding": padding, "border": border}
    inputs = {"image": image, "weights": weights}
    try:
        one = run_job(CONV, params, inputs, 1, lambda *unit: check(CONV, *unit, check_seed))
    except ConfigError as error:
        assert "as large as the filter" in str(error) or "does not fit" in str(error)  # noqa: PT017 - or no error
        return
    rows = one.shape[1]
    units = data.draw(st.sampled_from([*range(1, images + 1), *range(images, images * rows + 1, images)]))
    assert (run_job(CONV, params, inputs, units, lambda *unit: check(CONV, *unit, check_seed)) == one).all()
    y, x = (data.draw(st.integers(0, size - 1)) for size in one.shape[1:3])
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(image, around, mode="edge" if border == "edge" else "constant")
    window = padded[:, y * stride : y * stride + high, x * stride : x * stride + wide]
    terms = "nijc,ijcf->nf" if filters else "nijc,ij->nc"
    assert (one[:, y, x] == np.einsum(terms, window, weights)).all()


@settings(max_examples=100)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from(["sum", "mean", "max", "min"]),
       st.integers(0, 99), SEED, st.data())  # fmt: skip
def test_any_cut_of_a_reduction_gives_numpys(shape, op, seed, check_seed, data):
    x = whole(shape, seed)
    axis = data.draw(st.sampled_from(["all", *range(-len(shape), len(shape))]))
    where = None if axis == "all" else axis
    most = REDUCE.max_units(REDUCE.with_arrays({"axis": axis}, {"x": ArrayType("float32", tuple(shape))}))
    units = data.draw(st.integers(1, most))
    out = run_job(REDUCE, {"op": op, "axis": axis}, {"x": x}, units, lambda *unit: check(REDUCE, *unit, check_seed))
    assert np.array_equal(out, getattr(x.astype(np.float64), op)(axis=where).astype(np.float32))


@settings(max_examples=60)
@given(
    st.sampled_from(ROWWISE), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 99), SEED, st.data()
)
def test_any_cut_of_rows_gives_the_same_rows(kernel, shape, seed, check_seed, data):
    x = whole(shape, seed)
    units = data.draw(st.integers(1, int(np.prod(shape[:-1]))))
    out = run_job(kernel, {}, {"x": x}, units, lambda *unit: check(kernel, *unit, check_seed))
    assert out.tobytes() == run_job(kernel, {}, {"x": x}, 1).tobytes()


ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, -1.0, 3e38, 1e-45])


@settings(max_examples=300)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), SEED, st.data())
def test_honest_products_of_any_numbers_pass_and_a_gross_error_does_not(m, k, n, seed, data):
    a = data.draw(arrays_of.arrays("float32", (m, k), elements=ANY_FLOAT))
    b = data.draw(arrays_of.arrays("float32", (k, n), elements=ANY_FLOAT))
    unit, tiles, result = one_unit(GEMM, {}, a=a, b=b)
    check(GEMM, unit, tiles, result, seed)
    with np.errstate(all="ignore"):
        terms = a.astype(np.float64)[:, :, None] * b.astype(np.float64)
        size = np.abs(terms).sum(axis=1)
        row, column = (data.draw(st.integers(0, extent - 1)) for extent in result.shape)
        wrong = result.copy()
        largest = float(np.abs(a[row]).max()) * float(np.abs(b[:, column]).max())
        if not np.isfinite(size[row, column]):
            wrong[row, column] = 1.0  # a NaN or infinity swallowed
        elif 1e-30 < largest < 1e36:
            wrong[row, column] += np.float32(0.1 * largest)
        else:
            return
    with pytest.raises(VerificationError):
        check(GEMM, unit, tiles, wrong, seed)


@settings(max_examples=150)
@given(st.sampled_from([REDUCE, *ROWWISE]), st.integers(1, 6), st.integers(1, 6), SEED, st.data())
def test_honest_results_of_any_numbers_pass(kernel, rows, length, seed, data):
    x = data.draw(arrays_of.arrays("float32", (rows, length), elements=ANY_FLOAT))
    params = {"op": data.draw(st.sampled_from(["sum", "max", "min"])), "axis": 1} if kernel is REDUCE else {}
    unit, tiles, result = one_unit(kernel, params, x=x)
    check(kernel, unit, tiles, result, seed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SOUND = {
    "gemm": {"a": ArrayType("float32", (9, 8)), "b": ArrayType("float32", (8, 7))},
    "conv2d": {"image": ArrayType("uint8", (9, 8, 3)), "weights": ArrayType("float32", (3, 3))},
    "reduce": {"x": ArrayType("float64", (9, 8))},
    "softmax": {"x": ArrayType("float32", (9, 8))},
    "layernorm": {"x": ArrayType("float32", (9, 8))},
    "nbody": {},
}


@settings(max_examples=200)
@given(st.sampled_from(sorted(SOUND)), st.data())
def test_parameters_from_a_stranger_are_read_or_refused_with_config_error(name, data):
    kernel = ARRAY_KERNELS[name]
    sound = kernel.with_arrays({}, SOUND[name])
    changed = data.draw(st.dictionaries(st.sampled_from([*sound, "x"]), JSON, min_size=1, max_size=3) | JSON)
    params = {**sound, **changed} if isinstance(changed, dict) else changed
    try:
        clean = kernel.validate(params)
        units = kernel.default_units(clean)
        unit = kernel.unit(clean, units, units - 1)
    except ConfigError as error:
        assert len(str(error)) < 400  # noqa: PT017 - or no error
        return
    assert kernel.validate(clean) == clean
    assert kernel.cost(unit).memory_bytes > 0
    assert len(kernel.input_types(unit)) == len(kernel.unit_inputs(clean, units, units - 1))


@settings(max_examples=200)
@given(st.sampled_from(sorted(SOUND)), st.data())
def test_a_forged_unit_is_refused_or_computed_but_never_fails_otherwise(name, data):
    kernel = ARRAY_KERNELS[name]
    full, _, _ = cut_job(kernel, {"steps": 1} if name == "nbody" else {}, examples(name), 1)
    unit = kernel.unit(full, 1, 0)
    names = sorted({*unit, "x"} - {"steps"})  # any number of steps is as good as another, but not as short
    forged = {**unit, **data.draw(st.dictionaries(st.sampled_from(names), JSON, min_size=1, max_size=3))}
    tiles, out = tuple(kernel.tiles(full, 1, examples(name))), kernel.result_type(unit).empty()
    inputs = [piece.copy() for piece in tiles]
    with contextlib.suppress(SparkleError):
        kernel.compute_into(forged, tiles, out, quiet)
    assert all(np.array_equal(piece, before) for piece, before in zip(tiles, inputs, strict=True))


def examples(name):
    return {key: np.ones(type_.shape, type_.dtype) for key, type_ in SOUND[name].items()}
