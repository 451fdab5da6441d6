"""Forecasts hold what they promise, and say why when they promise nothing."""

from random import Random

import pytest

from sparkle_p2p.node.forecast import SECOND_NS, Held, Pace, job_forecast, lease_forecast, start_forecast
from sparkle_p2p.view import Eta, Reason

BUSY = (Held(1.0, 0.5),)


def forecast(pace: Pace, now_s: float, remaining: int, **changes: object) -> Eta | Reason:
    given: dict[str, object] = {"taken": True, "held": BUSY, "run_times_s": (), **changes}
    return job_forecast(pace, round(now_s * SECOND_NS), remaining=remaining, **given)  # type: ignore[arg-type]


def pace_of(*accepted_s: float, began_s: float = 0.0) -> Pace:
    pace = Pace()
    pace.began(round(began_s * SECOND_NS))
    for when_s in accepted_s:
        pace.accepted(round(when_s * SECOND_NS))
    return pace


def test_an_even_pace_goes_on() -> None:
    eta = forecast(pace_of(*range(1, 101)), 100, 50)
    assert isinstance(eta, Eta)
    assert eta.finish_s == pytest.approx(50)
    assert 40 < eta.low_s < 50 < eta.high_s < 62


def test_a_pace_is_that_of_the_last_minutes() -> None:
    """An hour of one unit a minute, then ten minutes of one a second."""
    times = [60.0 * minute for minute in range(1, 61)] + [3600.0 + second for second in range(1, 601)]
    eta = forecast(pace_of(*times), 4200, 100)
    assert isinstance(eta, Eta)
    assert eta.finish_s == pytest.approx(100, rel=0.05)


def test_the_first_units_promise_little() -> None:
    first = forecast(pace_of(5.0), 5, 10)
    assert isinstance(first, Eta)
    assert first.high_s / first.low_s > 10
    many = forecast(pace_of(*(0.5 * step for step in range(1, 101))), 50, 10)
    assert isinstance(many, Eta)
    assert many.high_s / many.low_s < 1.5


def test_a_batch_says_no_more_than_a_unit() -> None:
    single, batch = forecast(pace_of(5.0), 5, 10), forecast(pace_of(*[5.0] * 8), 5, 80)
    assert isinstance(single, Eta)
    assert isinstance(batch, Eta)
    assert batch == single


def test_silence_slows_the_forecast_down() -> None:
    pace = pace_of(*range(1, 11))
    soon, late = forecast(pace, 10, 10), forecast(pace, 40, 10)
    assert isinstance(soon, Eta)
    assert isinstance(late, Eta)
    assert late.finish_s == pytest.approx(4 * soon.finish_s)


@pytest.mark.parametrize(
    ("code", "pace", "changes"),
    [
        ("not_started", Pace(), {"taken": False}),
        ("none_accepted", pace_of(), {}),
        ("nobody_at_work", pace_of(1.0), {"held": ()}),
        ("nobody_at_work", pace_of(), {"held": ()}),
    ],
)
def test_where_nobody_can_tell_the_reason_is_said(code: str, pace: Pace, changes: dict[str, object]) -> None:
    reason = forecast(pace, 100, 10, **changes)
    assert isinstance(reason, Reason)
    assert reason.code == code
    assert reason.sentence.endswith("its end cannot be foreseen.")


def test_the_last_unit_takes_as_long_as_it_takes() -> None:
    """Ninety-nine quick units, and one of which a third is done after 20 s."""
    eta = forecast(pace_of(*(0.1 * step for step in range(1, 100))), 20, 1, held=(Held(20.0, 1 / 3),))
    assert isinstance(eta, Eta)
    assert eta.finish_s == pytest.approx(40)


def test_a_unit_is_compared_with_the_others_that_took_as_long() -> None:
    times = [10.0 + step / 10 for step in range(100)]
    fresh, old = lease_forecast(Held(0.0, 0.0), times), lease_forecast(Held(15.0, 0.0), times)
    assert fresh is not None
    assert old is not None
    assert fresh.finish_s == pytest.approx(15.0)
    assert fresh.low_s < fresh.finish_s < fresh.high_s
    assert old.finish_s == pytest.approx(2.5)
    assert lease_forecast(Held(60.0, 0.5), times) == Eta(60.0, pytest.approx(42.0), pytest.approx(90.0))
    assert lease_forecast(Held(60.0, 0.0), times) is None


def test_a_unit_at_the_end_of_the_queue_waits_for_those_before_it() -> None:
    eta = start_forecast(pace_of(*range(1, 101)), 100 * SECOND_NS, 30)
    assert eta is not None
    assert eta.finish_s == pytest.approx(30)
    assert start_forecast(Pace(), SECOND_NS, 30) is None


def test_four_of_five_random_jobs_end_within_the_bounds() -> None:
    """Units of exponential length: what the bounds are made for."""
    draw, within, runs = Random(7), 0, 300
    for _ in range(runs):
        times, now = [], 0.0
        for _ in range(60):
            now += draw.expovariate(1.0)
            times.append(now)
        eta = forecast(pace_of(*times[:20]), times[19], 40)
        assert isinstance(eta, Eta)
        within += eta.low_s <= times[-1] - times[19] <= eta.high_s
    assert 0.7 < within / runs < 0.95
