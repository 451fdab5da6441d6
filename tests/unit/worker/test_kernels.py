"""Kernels against published values and against plain Python."""

import io
import struct
from math import isqrt

import pytest
from PIL import Image

from sparkle_protocol.errors import ConfigError, VerificationError
from sparkle_worker.kernels import collatz as collatz_module
from sparkle_worker.kernels.collatz import chain_steps
from sparkle_worker.kernels.registry import KERNELS

PRIMES, COLLATZ, MANDELBROT = KERNELS["prime_count"], KERNELS["collatz"], KERNELS["mandelbrot"]
PI = KERNELS["monte_carlo_pi"]
LONGER = {
    "prime_count": {"stop": 3_000_000},
    "collatz": {"stop": 3_000_000},
    "mandelbrot": {"width": 300, "height": 100},
    "monte_carlo_pi": {"samples": 300_000},
}
SHORT = {
    "prime_count": {"stop": 1000},
    "collatz": {"stop": 1000},
    "mandelbrot": {"width": 20, "height": 10},
    "monte_carlo_pi": {"samples": 1000},
}


def quiet(_share):
    pass


def run_job(kernel, params, units=None):
    clean = kernel.validate(params)
    count = units or kernel.default_units(clean)
    results = []
    for index in range(count):
        unit = kernel.unit(clean, count, index)
        result = kernel.compute(unit, quiet)
        kernel.check_result(unit, result)
        assert len(result) <= 65536
        results.append(result)
    return kernel.combine(clean, count, results)


def is_prime(number):
    """Deterministic Miller-Rabin below 3.3e24."""
    if number < 2:
        return False
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    if number in bases or any(number % p == 0 for p in bases):
        return number in bases
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, number)
        if x not in (1, number - 1) and all((x := x * x % number) != number - 1 for _ in range(twos - 1)):
            return False
    return True


@pytest.mark.parametrize(
    ("stop", "count"), [("1e3", 168), ("1e6", 78498), ("1e8", 5761455), ("1e9", 50847534)], ids=str
)
def test_prime_counts_agree_with_the_published_ones(stop, count):
    assert run_job(PRIMES, {"stop": stop}).value == count


def test_a_demo_sized_count_has_about_64_units():
    assert PRIMES.default_units(PRIMES.validate({"stop": "1e9"})) == 64
    assert PRIMES.default_units(PRIMES.validate({"stop": "1e14"})) > 20_000
    assert PRIMES.default_units(PRIMES.validate({"stop": 10})) == 1


@pytest.mark.parametrize("start", [0, 10**6, 10**9 - 500, 10**12, 10**14 - 1000])
def test_primes_are_counted_like_by_a_primality_test(start):
    stop = start + 1000
    assert run_job(PRIMES, {"start": start, "stop": stop}, units=3).value == sum(map(is_prime, range(start, stop)))


def test_every_small_range_has_its_primes():
    prime = [is_prime(n) for n in range(130)]
    for start in range(0, 130, 7):
        for stop in range(start, 130):
            (count,) = struct.unpack("<Q", PRIMES.compute({"start": start, "stop": stop}, quiet))
            assert count == sum(prime[start:stop]), (start, stop)


@pytest.mark.parametrize("prime", [7, 31, 997, 31607, 999983])
def test_squares_of_base_primes_at_the_edge_of_a_range_do_not_count(prime):
    square = prime * prime
    for start, stop in [(square, square + 1), (square - 1, square), (square - 6, square + 6)]:
        (count,) = struct.unpack("<Q", PRIMES.compute({"start": start, "stop": stop}, quiet))
        assert count == sum(map(is_prime, range(start, stop)))


def test_a_range_longer_than_a_segment_is_counted_whole():
    start = 10**9 - 12345
    stop = start + 40_000_000  # three segments
    (count,) = struct.unpack("<Q", PRIMES.compute({"start": start, "stop": stop}, quiet))
    pieces = [PRIMES.unit({"start": start, "stop": stop}, 7, i) for i in range(7)]
    assert count == sum(struct.unpack("<Q", PRIMES.compute(piece, quiet))[0] for piece in pieces)


@pytest.mark.parametrize(
    ("stop", "start", "steps"), [(10, 9, 19), (100, 97, 118), (10**6, 837799, 524), (10**8, 63728127, 949)]
)
def test_longest_chains_agree_with_the_published_ones(stop, start, steps):
    assert run_job(COLLATZ, {"stop": stop}, units=5).value == {"start": start, "steps": steps}


@pytest.mark.parametrize("start", [1, 65_000, 65_536, 10**7, 2**33 + 5, 10**15 - 4000])
def test_chains_agree_with_plain_integers_and_ties_go_to_the_smallest(start):
    stop = start + 3000
    steps, number = max((chain_steps(n), -n) for n in range(start, stop))
    assert run_job(COLLATZ, {"start": start, "stop": stop}, units=2).value == {
        "start": -number,
        "steps": steps,
    }


def test_a_whole_block_gives_what_its_numbers_give():
    start, stop = 40 << 16, 42 << 16
    steps, number = max((chain_steps(n), -n) for n in range(start, stop))
    assert run_job(COLLATZ, {"start": start, "stop": stop}, units=1).value == {
        "start": -number,
        "steps": steps,
    }


def test_chains_that_climb_beyond_64_bits_are_still_exact():
    # 12 327 829 503 is the least number whose chain leaves 64 bits; 319 804 831 passes the jump limit
    for number in (12_327_829_503, 319_804_831, 1_410_123_943):
        peak, value = number, number
        while value != 1:
            value = 3 * value + 1 if value & 1 else value // 2
            peak = max(peak, value)
        assert peak > collatz_module.LIMIT
        result = COLLATZ.compute({"start": number, "stop": number + 1}, quiet)
        assert struct.unpack("<QQ", result) == (number, chain_steps(number))


def plain_mandelbrot(params):
    """The rounding rules of worker/README.md in plain integers."""
    bits, one = 28, 1 << 28
    width, height = params["width"], params["height"]
    x, y, scale = (params[f"{n}_fixed"] for n in ("x", "y", "scale"))
    counts = []
    for row in range(params["row_start"], params["row_stop"]):
        ci = y + (height - 1 - 2 * row) * scale // (2 * width)
        for column in range(width):
            cr = x + (2 * column + 1 - width) * scale // (2 * width)
            zr = zi = n = 0
            while n < params["max_iter"]:
                rr, ii = (zr * zr) >> bits, (zi * zi) >> bits
                if rr + ii > 4 * one:
                    break
                zr, zi, n = rr - ii + cr, ((zr * zi) >> (bits - 1)) + ci, n + 1
            counts.append(n)
    return struct.pack(f"<{len(counts)}H", *counts)


@pytest.mark.parametrize(
    "view",
    [
        {"width": 37, "height": 23, "max_iter": 60},
        {"width": 40, "height": 10, "x": "-0.7436", "y": "0.1318", "scale": "0.01", "max_iter": 300},
        {"width": 9, "height": 9, "x": 0, "y": 0, "scale": "7.9", "max_iter": 20},
        {"width": 3, "height": 2, "max_iter": 1},
        {"width": 1, "height": 1, "max_iter": 65535},
    ],
)
def test_pictures_agree_with_plain_integers_to_the_bit(view):
    params = MANDELBROT.validate(view)
    for units in {1, min(2, params["height"])}:
        for index in range(units):
            unit = MANDELBROT.unit(params, units, index)
            assert MANDELBROT.compute(unit, quiet) == plain_mandelbrot(unit)


def test_the_default_picture_is_the_known_one_and_opens_as_png():
    combined = run_job(MANDELBROT, {"width": 320, "height": 240})
    assert combined.media_type == "image/png"
    picture = Image.open(io.BytesIO(combined.data))
    picture.load()
    assert (picture.format, picture.size, picture.mode) == ("PNG", (320, 240), "RGB")
    assert len(picture.getcolors(100_000)) > 50
    assert picture.getpixel((160, 120)) == (0, 0, 0)  # inside the set
    value = combined.value
    assert (value["width"], value["height"], value["min"], value["max"]) == (320, 240, 1, 1000)
    assert value["sha256"] == "693785d9ec77a14095fa8b10bb0f5b5d0fe12c9519524df6f4a74a24c1f9264e"


def test_a_whole_picture_can_be_inside_or_outside():
    inside = run_job(MANDELBROT, {"width": 8, "height": 8, "x": 0, "scale": "0.01"})
    assert inside.value["min"] == inside.value["max"] == 1000
    outside = run_job(MANDELBROT, {"width": 8, "height": 8, "x": 3, "scale": "0.01"})
    assert outside.value["inside"] == 0


def test_results_of_a_large_picture_stay_within_a_message():
    params = MANDELBROT.validate({"width": 4000, "height": 3000})
    units = MANDELBROT.default_units(params)
    assert units >= 375
    unit = MANDELBROT.unit(params, units, 0)
    assert 2 * unit["width"] * (unit["row_stop"] - unit["row_start"]) <= 65536
    with pytest.raises(ConfigError, match="at least 375 units"):
        MANDELBROT.unit(params, 374, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"row_stop": 999},
        {"row_start": 5, "row_stop": 5},
        {"scale_fixed": 0},
        {"x_fixed": 2**40},
        {"x_fixed": "1"},
        {"max_iter": 0},
        {"max_iter": 70_000},
        {"width": 30_000, "height": 30_000, "row_stop": 30_000},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_forged_picture_unit_is_refused_before_any_work(change):
    params = MANDELBROT.validate({"width": 20, "height": 20})
    unit = MANDELBROT.unit(params, 1, 0)
    if change == {"x_fixed": "1"}:
        assert MANDELBROT.compute({**unit, **change}, quiet)  # text is read as a number, never trusted as text
        return
    with pytest.raises(ConfigError):
        MANDELBROT.compute({**unit, **change}, quiet)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_progress_rises_to_one(kernel):
    params = kernel.validate(LONGER[kernel.name])
    shares = []
    kernel.compute(kernel.unit(params, 1, 0), shares.append)
    assert shares == sorted(shares)
    assert shares[0] >= 0
    assert shares[-1] == 1.0


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_results_of_the_wrong_form_are_refused(kernel):
    params = kernel.validate(SHORT[kernel.name])
    unit = kernel.unit(params, 1, 0)
    good = kernel.compute(unit, quiet)
    kernel.check_result(unit, good)
    for bad in (b"", good[:-1], good + b"\0", b"\xff" * len(good), b"\0" * len(good) + b"\0", good * 2):
        with pytest.raises(VerificationError):
            kernel.check_result(unit, bad)
    with pytest.raises(VerificationError):
        kernel.combine(params, 2, [good])


def test_implausible_values_are_refused():
    with pytest.raises(VerificationError, match="at most"):
        PRIMES.check_result({"start": 0, "stop": 100}, struct.pack("<Q", 30))
    with pytest.raises(VerificationError, match="range"):
        COLLATZ.check_result({"start": 5, "stop": 9}, struct.pack("<QQ", 9, 19))
    with pytest.raises(VerificationError, match="111 steps, not 112"):
        COLLATZ.check_result({"start": 1, "stop": 30}, struct.pack("<QQ", 27, 112))


def test_cost_grows_with_the_work_and_covers_the_base_primes():
    small = PRIMES.cost({"start": 0, "stop": 10**6})
    assert PRIMES.cost({"start": 0, "stop": 10**7}).flops > 5 * small.flops
    assert PRIMES.cost({"start": 10**14 - 10, "stop": 10**14}).flops > isqrt(10**14)


def plain_philox(key, block):
    """Four words of Philox4x64-10 for one block, by the rules of Salmon et al. in plain integers."""
    mask = 2**64 - 1
    low_key, high_key = key & mask, key >> 64
    x = [block & mask, 0, 0, 0]
    for _ in range(10):
        first, second = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
        x = [(second >> 64) ^ x[1] ^ low_key, second & mask, (first >> 64) ^ x[3] ^ high_key, first & mask]
        low_key, high_key = (low_key + 0x9E3779B97F4A7C15) & mask, (high_key + 0xBB67AE8584CAA73B) & mask
    return x


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 400), (5, 6), (1, 403), (10**15 - 9, 10**15)])
def test_random_points_agree_with_plain_integers(start, stop, seed):
    hits = 0
    for sample in range(start, stop):
        word = plain_philox(seed, sample // 4 + 1)[sample % 4]
        x, y = 2 * (word >> 33) + 1, 2 * (word % 2**31) + 1
        hits += x * x + y * y < 2**64
    assert PI.compute({"start": start, "stop": stop, "seed": seed}, quiet) == struct.pack("<Q", hits)


def test_pi_is_estimated_with_its_standard_error_however_it_is_cut():
    whole = run_job(PI, {"samples": "1e6", "seed": 3}, units=1).value
    assert set(whole) == {"samples", "hits", "estimate", "standard_error"}
    assert whole["samples"] == 10**6
    assert whole["estimate"] == 4 * whole["hits"] / 10**6
    assert abs(whole["estimate"] - 3.141592653589793) < 3 * whole["standard_error"]
    assert whole["standard_error"] == pytest.approx(1.642e-3, rel=0.01)
    assert run_job(PI, {"samples": "1e6", "seed": 3}, units=77).value == whole
    assert run_job(PI, {"samples": "1e6", "seed": 4}, units=1).value["hits"] != whole["hits"]
    assert whole["hits"] == 785295


def test_errors_of_many_estimates_are_as_large_as_they_say():
    values = [run_job(PI, {"samples": 10_000, "seed": seed}, units=1).value for seed in range(100)]
    off = [(value["estimate"] - 3.141592653589793) / value["standard_error"] for value in values]
    assert 60 <= sum(abs(x) < 1 for x in off) <= 76
    assert max(map(abs, off)) < 4


def test_a_count_that_random_points_do_not_have_is_refused():
    unit = {"start": 0, "stop": 10**6, "seed": 0}
    PI.check_result(unit, struct.pack("<Q", 785_000))
    for count in (0, 700_000, 10**6, 2**63):
        with pytest.raises(VerificationError, match="circle"):
            PI.check_result(unit, struct.pack("<Q", count))
