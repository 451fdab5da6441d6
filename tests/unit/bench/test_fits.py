"""What a recording of real hosts says about its samples."""

import random

import pytest

from tests.bench import fits


def test_a_lognormal_distribution_is_found_again() -> None:
    drawn = random.Random(3)
    values = [drawn.lognormvariate(1.0, 0.5) for _ in range(4000)]
    found = fits.lognormal(values)
    assert found["count"] == 4000
    assert found["median"] == pytest.approx(2.718, rel=0.03)
    assert found["sigma"] == pytest.approx(0.5, rel=0.05)
    assert found["distance"] < 0.02


def test_samples_of_two_kinds_are_far_from_what_is_fitted() -> None:
    assert fits.lognormal([1.0] * 50 + [1000.0] * 50)["distance"] > 0.3


def test_a_share_has_the_interval_that_wilson_gives() -> None:
    found = fits.share(8, 10)
    assert (found["share"], found["low"], found["high"]) == (0.8, 0.4902, 0.9433)
    assert fits.share(0, 40)["low"] == 0.0
    assert fits.share(0, 40)["high"] == pytest.approx(0.0876, abs=1e-3)
    assert fits.share(0, 0) == {"hits": 0, "count": 0}


def test_quantiles_are_interpolated() -> None:
    found = fits.quantiles([4.0, 1.0, 3.0, 2.0])
    assert (found["least"], found["p25"], found["p50"], found["most"], found["mean"]) == (1.0, 1.75, 2.5, 4.0, 2.5)
    assert fits.quantiles([]) == {"count": 0}


def test_what_was_less_than_nothing_does_not_break_a_fit() -> None:
    assert fits.lognormal([-1.0, 2.0, 2.0])["count"] == 3


def test_the_table_has_a_line_for_everything_even_if_there_was_nothing() -> None:
    document = {
        "samples": {"dial": fits.quantiles([1.0, 2.0]), "noticed_s": fits.quantiles([])},
        "fits": {"dial": fits.lognormal([1.0, 2.0]), "hop_work": fits.lognormal([])},
        "shares": {"recall": fits.share(7, 8), "lost": fits.share(0, 0)},
    }
    words = [line.split()[0] for line in fits.table(document).splitlines() if line]
    assert words == ["samples", "dial", "noticed_s", "fitted", "dial", "hop_work", "shares", "recall", "lost"]
