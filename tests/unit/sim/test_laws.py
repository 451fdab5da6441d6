"""The formulas of the laws, by hand; and that a wrong simulator or a wrong law is found out."""

from itertools import islice
from math import inf, isclose
from random import Random

import pytest

from sparkle_sim.laws import (
    adaptive,
    availability,
    kademlia,
    queueing,
    rumours,
    spot_checks,
    voting,
)
from sparkle_sim.laws.intervals import Interval, mean_of, ratio_of, share_of, slope_of, student
from sparkle_sim.laws.law import FAILS, HOLDS, UNCLEAR, Outcome, Point, about, at_most, exactly
from sparkle_sim.laws.report import BEGIN, END, as_csv, as_json, table, with_laws

# --- formulas ---------------------------------------------------------------------------------------------------


def test_rounds_of_gossip():
    assert rumours.push_rounds(1024) == pytest.approx(10 + 6.9315, abs=1e-4)
    assert rumours.push_bounds(1024) == pytest.approx((15.8155, 19.6965), abs=1e-4)
    assert rumours.push_bounds(1000) == pytest.approx((9 + 6.9078 - 1.116, 10 + 6.9078 + 2.765), abs=1e-4)
    assert rumours.push_pull_rounds(729) == pytest.approx(6 + 2.7206, abs=1e-4)


def test_bits_that_a_hop_of_kademlia_gains():
    assert kademlia.bits_per_hop(1) == pytest.approx(2)
    assert kademlia.bits_per_hop(2) == pytest.approx(1 + 2 - 1 / 3)  # E[max of two] = 2·1 - 1/3
    assert 1 / kademlia.bits_per_hop(8) == pytest.approx(0.226, abs=5e-4)
    assert 1 / kademlia.bits_per_hop(20) == pytest.approx(0.176, abs=5e-4)


def test_error_of_voting():
    assert voting.error_rate(1, 0.3) == pytest.approx(0.3)
    assert voting.error_rate(2, 0.05) == pytest.approx(3 * 0.05**2 - 2 * 0.05**3)  # 7.25e-3
    assert voting.error_rate(3, 0.05) == pytest.approx(1.158e-3, rel=1e-3)
    assert voting.error_rate(4, 0.5) == pytest.approx(0.5)


def test_error_of_spot_checks_and_its_bound():
    assert spot_checks.error_rate(0.1, 0, 0.2, 0.5) == pytest.approx(0.1)
    assert spot_checks.error_rate(0.5, 1, 0.5, 1.0) == pytest.approx(1 / 3)
    assert spot_checks.bound(0.1, 100, 0.2) == pytest.approx(9.197e-3, rel=1e-3)
    rates = [number / 1000 for number in range(1, 1001)]
    worst = max(rates, key=lambda s: spot_checks.error_rate(0.1, 100, 0.2, s))
    assert spot_checks.error_rate(0.1, 100, 0.2, worst) <= spot_checks.bound(0.1, 100, 0.2)
    assert worst == pytest.approx(1 / (0.1 * 101), abs=0.02)


def test_overhead_of_adaptive_replication():
    assert adaptive.overhead(10) == pytest.approx(2)
    assert adaptive.overhead(160) == pytest.approx(1.125)


def test_rest_of_a_weibull_session():
    assert availability.residual(100, 1.0) == pytest.approx(100)  # no memory
    assert availability.residual(100, 0.5) == pytest.approx(300)
    assert availability.scale_of(100, 0.5) == pytest.approx(50)


def test_erlangs_formula():
    assert queueing.erlang_c(1, 0.8) == pytest.approx(0.8)
    assert queueing.mean_wait(1, 0.8) == pytest.approx(4)
    assert queueing.erlang_c(2, 0.5) == pytest.approx(1 / 3)
    assert queueing.mean_wait(2, 0.5) == pytest.approx(1 / 3)


# --- intervals --------------------------------------------------------------------------------------------------


def test_students_quantiles():
    for freedom, quantile in ((5, 6.869), (10, 4.587), (19, 3.883), (100, 3.390)):  # 0.9995, from tables
        assert student(freedom) == pytest.approx(quantile, rel=0.015)
    assert student(3) == inf


def test_intervals_contain_the_truth_about_as_often_as_they_say():
    random = Random(7)
    missed = 0
    for _ in range(4000):
        found = mean_of([random.gauss(3, 2) for _ in range(12)])
        missed += not found.low <= 3 <= found.high
    assert missed <= 12  # 4 expected


def test_a_share_near_zero_keeps_a_sensible_interval():
    none = share_of(0, 100)
    assert none.low == none.value == 0
    assert 0.05 < none.high < 0.15
    half = share_of(500, 1000)
    assert half.half_width == pytest.approx(3.29 * (0.25 / 1000) ** 0.5, rel=0.01)


def test_ratios_and_slopes():
    found = ratio_of([(1, 2), (2, 4), (3, 6), (5, 10), (4, 8), (1, 2)])
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))
    line = slope_of([(x, 3 * x + 1) for x in range(10)])
    assert (line.low, line.value, line.high) == pytest.approx((3, 3, 3))


# --- verdicts ---------------------------------------------------------------------------------------------------

NEAR = Interval(0.9, 1.0, 1.1)


def test_a_figure_agrees_when_its_interval_meets_the_law():
    assert exactly("", "", 1, 1.05, NEAR, wide=0.5).verdict == HOLDS
    assert exactly("", "", 1, 1.2, NEAR, wide=0.5).verdict == FAILS
    assert about("", "", 1, 1.2, 0.15, NEAR).verdict == HOLDS
    assert at_most("", "", 1, 0.8, NEAR).verdict == FAILS
    assert at_most("", "", 1, 2.0, NEAR).verdict == HOLDS


def test_an_interval_that_could_not_have_disagreed_says_nothing():
    assert exactly("", "", 1, 1.0, NEAR, wide=0.05).verdict == UNCLEAR
    assert exactly("", "", 1, 1.0, Interval(-inf, 1.0, inf), wide=0.5).verdict == UNCLEAR
    law = rumours.PUSH
    assert not Outcome(law, []).agrees
    assert Outcome(law, [exactly("", "", 1, 1.0, NEAR, wide=0.05)]).verdict == UNCLEAR


def test_gossip_to_two_at_a_time_is_not_push():
    points = islice(rumours.measure_push(1, True, fanout=2), 2)
    assert [point.verdict for point in points] == [FAILS] * 2


def test_push_is_not_push_pull_nor_the_other_way_round():
    pushed = [rumours.Rumour(seed, 256).spread() for seed in range(20)]
    both = [rumours.Rumour(seed, 256, pulls=True).spread() for seed in range(20)]
    assert mean_of(both).high < rumours.push_bounds(256)[0]
    assert mean_of(pushed).low > rumours.push_pull_rounds(256) + 2


def test_without_a_blacklist_the_bound_is_exceeded():
    bound = spot_checks.bound(spot_checks.CHECKED, spot_checks.UNITS, spot_checks.BAD)
    ours = ratio_of([spot_checks.Project(seed, 0.1, blacklists=False).run() for seed in range(6)])
    assert at_most("", "", 0.1, bound, ours).verdict == FAILS


def test_trust_from_the_first_result_on_is_not_boincs_rule():
    assert FAILS in [point.verdict for point in adaptive.measure(1, True, first=1)]


def test_buckets_of_two_are_no_buckets_of_one():
    hops = mean_of(kademlia.hops_of(1, 4096, 2, 1000))
    assert hops.high < 12 / kademlia.bits_per_hop(1) - 1
    assert isclose(hops.value, 12 / kademlia.bits_per_hop(2), abs_tol=1)


class OneBitEach:
    """Tables that set one bit right at each hop; one peer knows nobody."""

    places = range(8)

    def __init__(self, mute: int | None = None) -> None:
        self.mute = mute

    def nearest(self, peer: int, place: int, count: int) -> list[int]:
        return [] if peer == self.mute else [peer ^ (1 << (peer ^ place).bit_length() - 1)][:count]


def test_a_lookup_counts_its_hops_and_ends_where_nobody_knows_more():
    assert kademlia.lookup(OneBitEach(), 0, 7) == 3
    assert kademlia.lookup(OneBitEach(), 5, 5) == 0
    assert kademlia.lookup(OneBitEach(mute=4), 0, 7) == -1


# --- reports ----------------------------------------------------------------------------------------------------


def outcomes() -> list[Outcome]:
    law = spot_checks.LAW
    points = [
        exactly("formula", "lies now and then", 0.1, 1.05, NEAR, wide=0.5),
        at_most("bound", "lies now and then", 0.1, 0.5, NEAR),
        Point("slope", "growth", None, 1.0, 0.9, 1.1, NEAR, 1.0),
    ]
    return [Outcome(law, points)]


def test_reports_say_what_was_expected_and_found():
    lines = table(outcomes()).splitlines()
    assert lines[1].split("  ")[0] == "spot-checks"
    assert "≤ 0.5" in lines[2]
    assert lines[2].endswith(FAILS)
    assert "0.9 to 1.1" in lines[3]
    assert as_csv(outcomes()).splitlines()[2].startswith("spot-checks,bound,lies now and then,0.1,0.5,,0.5,1.0,")
    (law,) = as_json(outcomes())
    assert (law["law"], law["verdict"]) == ("spot-checks", FAILS)


def test_a_page_gets_new_figures_between_its_markers():
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\nThe rest.\n"
    new = with_laws(page, outcomes(), "../pictures")
    assert new.startswith("# Title\n")
    assert new.endswith("The rest.\n")
    assert "\nold\n" not in new
    assert "(../pictures/law-spot-checks.svg)" in new
    assert with_laws(new, outcomes(), "../pictures") == new
    with pytest.raises(ValueError, match="lacks"):
        with_laws("# Title\n", outcomes(), "")
