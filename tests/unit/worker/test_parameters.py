"""What a user or a stranger may write as a kernel's parameters, and what they get for nonsense."""

import msgpack
import pytest

from sparkle_protocol.errors import ConfigError, NotFound
from sparkle_worker.kernels.registry import KERNELS, get_kernel

HOSTILE_NUMBERS = [
    None.__class__,
    "",
    " ",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "1e99999999999999",
    "9" * 5000,
    "0x10",
    "1.5",
    "1__0",
    "١٢",
    "12;rm",
    1.5,
    float("nan"),
    float("inf"),
    True,
    b"12",
    [],
    {},
    -1,
    10**40,
    2**20000,
]


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_defaults_are_valid_and_stay_the_same_when_read_again(kernel):
    params = kernel.validate({})
    assert kernel.validate(params) == params
    assert set(params) == set(kernel.parameters)
    assert all(type(value) in (str, int, bool) for value in params.values())
    assert msgpack.unpackb(msgpack.packb(params)) == params


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("value", HOSTILE_NUMBERS, ids=lambda v: str(v)[:12] if not isinstance(v, int) else "n")
def test_nonsense_is_refused_with_one_short_sentence(kernel, value):
    for name in kernel.parameters:
        if kernel.name == "mandelbrot" and name in ("x", "y", "scale") and value in ("1.5", 1.5, -1):
            continue  # fine there
        with pytest.raises(ConfigError) as caught:
            kernel.validate({name: value})
        text = str(caught.value)
        assert len(text) < 250
        assert "\n" not in text
        assert kernel.name in text


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("params", [{"steps": 3}, {3: 4}, {"start ": 1}, [], None, "start=1", {"\x1b[2J": 1}])
def test_unknown_names_are_refused_and_the_known_ones_named(kernel, params):
    with pytest.raises(ConfigError) as caught:
        kernel.validate(params)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("written", ["1e6", "1_000_000", "1000000", 10**6, 1e6, " 1000000 ", "+1E6", "1.0e6"])
def test_numbers_may_be_written_as_people_write_them(written):
    assert KERNELS["prime_count"].validate({"stop": written}) == {"start": 0, "stop": 10**6}


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("-0.750", "-0.75"),
        (-0.75, "-0.75"),
        ("0", "0"),
        ("-0.0", "0"),
        ("1e-3", "0.001"),
        (2, "2"),
        ("1.0", "1"),
    ],
)
def test_decimals_become_one_canonical_text(written, canonical):
    params = KERNELS["mandelbrot"].validate({"x": written})
    assert params["x"] == canonical


def test_ranges_that_end_before_they_start_are_refused():
    with pytest.raises(ConfigError, match="stop"):
        KERNELS["prime_count"].validate({"start": 10, "stop": 9})
    with pytest.raises(ConfigError, match="stop"):
        KERNELS["collatz"].validate({"start": 10, "stop": 10})


def test_what_would_take_forever_is_refused():
    with pytest.raises(ConfigError, match="100000000000000"):
        KERNELS["prime_count"].validate({"stop": "1e15"})
    with pytest.raises(ConfigError, match="1000000000000000"):
        KERNELS["collatz"].validate({"stop": "1e16"})
    with pytest.raises(ConfigError, match="too large"):
        KERNELS["mandelbrot"].validate({"width": 30000, "height": 30000})
    with pytest.raises(ConfigError, match="scale"):
        KERNELS["mandelbrot"].validate({"scale": "1e-9"})
    with pytest.raises(ConfigError, match="within ±4"):
        KERNELS["mandelbrot"].validate({"x": 3, "scale": 4})


def test_a_misspelt_kernel_is_answered_with_the_near_one():
    with pytest.raises(NotFound, match="prime_count"):
        get_kernel("prime-count")
    with pytest.raises(NotFound, match="collatz, mandelbrot, monte_carlo_pi, prime_count"):
        get_kernel("zzz")
    with pytest.raises(NotFound, match="version 1, not 7"):
        get_kernel("collatz", 7)
    with pytest.raises(NotFound):
        get_kernel(["collatz"])  # type: ignore[arg-type]
    assert get_kernel("collatz", 1).name == "collatz"


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_impossible_cuts_are_refused(kernel):
    params = kernel.validate({})
    most = kernel.max_units(params)
    assert 1 <= kernel.default_units(params) <= most <= 2**20
    for units, index in [
        (0, 0),
        (-1, 0),
        (most + 1, 0),
        (64, 64),
        (64, -1),
        (True, 0),
        (64, 1.0),
        (10**5000, 0),
    ]:
        with pytest.raises(ConfigError):
            kernel.unit(params, units, index)
