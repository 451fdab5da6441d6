"""What a unit costs, what a job sets aside, and how amounts are said."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import Policy, Resources
from sparkle_protocol.work.leasing import WORKER
from sparkle_protocol.work.price import (
    CORE_OPERATIONS_PER_S,
    CREDIT,
    HOUR_S,
    MAX_MICRO,
    core_time,
    in_credits,
    in_words,
    is_paid,
    job_hold_micro,
    unit_price_micro,
)

amounts = st.floats(0, 1e24)
needs = st.builds(Resources, amounts, amounts, st.integers(0, 1 << 50))


def test_a_credit_is_an_hour_of_a_core() -> None:
    assert unit_price_micro(Resources(flops=3600 * 2e9)) == CREDIT
    assert unit_price_micro(Resources(bytes=3600 * 1e9)) == CREDIT
    assert unit_price_micro(Resources(flops=1800 * 2e9, bytes=1800 * 1e9)) == CREDIT
    assert WORKER.flops_per_s == CORE_OPERATIONS_PER_S  # the fair queue measures by the same machine


def test_nothing_is_free_of_charge_and_nothing_costs_more_than_can_be_written() -> None:
    assert unit_price_micro(Resources()) == 1
    assert unit_price_micro(Resources(flops=1)) == 1
    assert unit_price_micro(Resources(flops=7_200_000)) == 1
    assert unit_price_micro(Resources(flops=7_200_001)) == 2
    assert unit_price_micro(Resources(1e24, 1e24)) == MAX_MICRO
    assert unit_price_micro(Resources(memory_bytes=1 << 50)) == 1  # held, and given back as it was


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf, -5.0])
def test_strange_amounts_make_no_strange_prices(strange: float) -> None:
    assert 1 <= unit_price_micro(Resources(flops=strange, bytes=strange)) <= MAX_MICRO


@given(needs, amounts, amounts)
def test_more_work_never_costs_less(less: Resources, flops: float, size: float) -> None:
    more = Resources(less.flops + flops, less.bytes + size)
    assert 1 <= unit_price_micro(less) <= unit_price_micro(more) <= MAX_MICRO


@given(st.floats(0, 1e15), st.floats(0, 1e15))
def test_one_large_unit_costs_no_more_than_its_two_halves(first: float, second: float) -> None:
    """So nobody gains by pretending that units are one, and rounding adds one micro-credit for each cut at most."""
    whole = unit_price_micro(Resources(flops=first + second))
    parts = unit_price_micro(Resources(flops=first)) + unit_price_micro(Resources(flops=second))
    assert parts - 2 <= whole <= parts + 1


@given(needs, st.integers(0, MAX_MICRO))
def test_a_job_is_paid_from_its_reference_price_on(resources: Resources, price: int) -> None:
    assert is_paid(price, resources) == (price >= unit_price_micro(resources))
    assert not is_paid(0, resources)


@given(st.integers(1, 1 << 20), st.integers(0, MAX_MICRO), st.integers(1, 16), st.integers(16, 64))
def test_a_hold_pays_for_all_replicas(units: int, price: int, quorum: int, replicas: int) -> None:
    policy = Policy("final", quorum, replicas)
    if units * price * replicas <= MAX_MICRO:
        assert job_hold_micro(units, price, policy) == units * price * replicas
    else:
        with pytest.raises(ConfigError, match="cut it into several smaller jobs"):
            job_hold_micro(units, price, policy)


@pytest.mark.parametrize(
    ("micro", "words"),
    [
        (0, "0 credits"),
        (1, "0.000001 credits (3.6 ms of a laptop core)"),
        (278, "0.000278 credits (1 second of a laptop core)"),
        (12_345, "0.0123 credits (44 seconds of a laptop core)"),
        (420_000, "0.42 credits (25 minutes of a laptop core)"),
        (-420_000, "−0.42 credits (25 minutes of a laptop core)"),
        (CREDIT, "1 credit (1 hour of a laptop core)"),
        (-CREDIT, "−1 credit (1 hour of a laptop core)"),
        (1_500_000, "1.5 credits (1.5 hours of a laptop core)"),
        (47 * CREDIT, "47 credits (47 hours of a laptop core)"),
        (48 * CREDIT, "48 credits (2 days of a laptop core)"),
        (1_234_567_890, "1235 credits (51 days of a laptop core)"),
    ],
)
def test_amounts_in_words(micro: int, words: str) -> None:
    assert in_words(micro) == words


@given(st.integers(-(1 << 80), 1 << 80))
def test_what_is_said_is_near_what_is_meant(micro: int) -> None:
    said = in_credits(micro).replace("−", "-").split()[0]
    assert math.isclose(float(said), micro / CREDIT, rel_tol=0.006, abs_tol=0)
    number, unit = core_time(abs(micro)).split()
    factor = {"ms": 1e-3, "second": 1, "minute": 60, "hour": 3600, "day": 86_400}[
        unit.removesuffix("s") if unit != "ms" else unit
    ]
    assert math.isclose(float(number) * factor, abs(micro) / CREDIT * HOUR_S, rel_tol=0.051, abs_tol=0)
