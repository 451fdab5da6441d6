"""However a job is cut, its units cover it exactly once and combine to the same result."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol.errors import ConfigError, SparkleError, VerificationError
from sparkle_worker.kernels.base import Combined
from sparkle_worker.kernels.registry import KERNELS

PRIMES, COLLATZ, MANDELBROT = KERNELS["prime_count"], KERNELS["collatz"], KERNELS["mandelbrot"]
PI = KERNELS["monte_carlo_pi"]
SMALL = {
    "prime_count": {"stop": 100},
    "collatz": {"stop": 100},
    "mandelbrot": {"width": 4, "height": 4},
    "monte_carlo_pi": {"samples": 100},
}
RANGES = {"prime_count": 10**14, "collatz": 10**15}


def quiet(_share):
    pass


def job(kernel, params, units) -> Combined:
    results = [kernel.compute(kernel.unit(params, units, index), quiet) for index in range(units)]
    return kernel.combine(params, units, results)


@settings(deadline=None)
@given(st.sampled_from(sorted(RANGES)), st.data())
def test_units_follow_each_other_without_gap_or_overlap(name, data):
    kernel = KERNELS[name]
    start = data.draw(st.integers(1, RANGES[name] - 1))
    stop = data.draw(st.integers(start + 1, RANGES[name]))
    params = kernel.validate({"start": start, "stop": stop})
    units = data.draw(st.integers(1, kernel.max_units(params)))
    index = data.draw(st.integers(0, units - 1))
    unit = kernel.unit(params, units, index)
    assert unit["start"] < unit["stop"]
    assert kernel.validate(unit) == unit
    assert unit["start"] == (start if index == 0 else kernel.unit(params, units, index - 1)["stop"])
    assert unit["stop"] == (stop if index == units - 1 else kernel.unit(params, units, index + 1)["start"])
    assert kernel.cost(unit).flops >= 0
    assert 1 <= kernel.default_units(params) <= kernel.max_units(params) <= 2**20


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_picture_units_follow_each_other(width, height, data):
    params = MANDELBROT.validate({"width": width, "height": height, "scale": "0.01"})
    assert 1 <= MANDELBROT.default_units(params) <= MANDELBROT.max_units(params)
    units = data.draw(st.integers(MANDELBROT.default_units(params), height))
    pieces = [MANDELBROT.unit(params, units, index) for index in range(units)]
    assert [p["row_start"] for p in pieces] == [0, *(p["row_stop"] for p in pieces[:-1])]
    assert pieces[-1]["row_stop"] == height
    assert all(p["row_start"] < p["row_stop"] for p in pieces)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["prime_count", "collatz"]), st.integers(1, 10**9), st.integers(1, 5000), st.data())
def test_any_cut_combines_to_the_same_result(name, start, size, data):
    kernel = KERNELS[name]
    params = kernel.validate({"start": start, "stop": start + size})
    units = data.draw(st.integers(1, min(size, 12)))
    assert job(kernel, params, units) == job(kernel, params, 1)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5000), st.integers(0, 2**64 - 1), st.data())
def test_any_cut_of_random_points_has_the_same_points(samples, seed, data):
    params = PI.validate({"samples": samples, "seed": seed})
    units = data.draw(st.integers(1, min(samples, 12)))
    pieces = [PI.unit(params, units, index) for index in range(units)]
    assert [piece["start"] for piece in pieces] == [0, *(piece["stop"] for piece in pieces[:-1])]
    assert pieces[-1]["stop"] == samples
    assert job(PI, params, units) == job(PI, params, 1)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_any_cut_of_a_picture_gives_the_same_picture(width, height, data):
    params = MANDELBROT.validate({"width": width, "height": height, "scale": "0.1", "max_iter": 50})
    units = data.draw(st.integers(1, height))
    assert job(MANDELBROT, params, units) == job(MANDELBROT, params, 1)


@settings(deadline=None)
@given(st.sampled_from(sorted(KERNELS)), st.binary(max_size=64), st.data())
def test_any_bytes_pass_the_check_or_raise_verification_error_and_nothing_else(name, raw, data):
    kernel = KERNELS[name]
    params = kernel.validate(SMALL[name])
    try:
        kernel.check_result(kernel.unit(params, 1, 0), raw)
    except VerificationError:
        return
    kernel.combine(params, 1, [raw])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(KERNELS)), st.data())
def test_any_parameters_are_read_or_refused_with_config_error(name, data):
    kernel = KERNELS[name]
    keys = st.sampled_from(sorted(kernel.parameters)) | st.text(max_size=6)
    params = data.draw(st.dictionaries(keys, JSON, max_size=4) | JSON)
    try:
        clean = kernel.validate(params)
    except ConfigError:
        return
    assert kernel.validate(clean) == clean
    units = kernel.default_units(clean)
    kernel.cost(kernel.unit(clean, units, units - 1))


@settings(deadline=None)
@given(st.sampled_from(sorted(KERNELS)), st.dictionaries(st.text(max_size=10), JSON, max_size=4))
def test_a_forged_unit_is_refused_by_compute(name, unit):
    if name in RANGES and set(unit) <= {"start", "stop"}:
        return  # defaults would make it a real (large) unit
    try:
        KERNELS[name].compute(unit, quiet)
    except SparkleError:
        return
    raise AssertionError("a forged unit was computed")


def test_ties_between_units_go_to_the_smallest_start():
    results = [struct.pack("<QQ", 9, 19), struct.pack("<QQ", 5, 19), struct.pack("<QQ", 7, 3)]
    assert COLLATZ.combine({}, 3, results).value == {"start": 5, "steps": 19}
