"""Trust policies: their formulas, how disputes end, what short jobs wait for, and the page they are printed on."""

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from sparkle_protocol.errors import NotFound
from sparkle_sim.population import policy_report as report
from sparkle_sim.population import trust_policies as table
from sparkle_sim.population.auditing import Audited
from sparkle_sim.population.cheaters import KINDS, kind
from sparkle_sim.population.disputes import THETA, believed, credibility, lie_wins
from sparkle_sim.population.finishing import waits
from sparkle_sim.population.streams import stream
from sparkle_sim.population.tallying import Setting
from sparkle_sim.population.trust import Audits, Timing, audits_until
from sparkle_sim.population.trust_policies import CHOSEN, Cell, Figures, Interval, Trial, Waits


def rate(policy: Audits, capital: float, work: float = 1.0) -> float:
    return float(policy.rate(np.array([capital], np.float32), work)[0])


def test_whoever_is_new_is_audited_always_and_nobody_never() -> None:
    assert rate(CHOSEN, 0.0) == 1.0
    assert rate(CHOSEN, CHOSEN.doubt) == pytest.approx(0.5)
    assert rate(CHOSEN, 1e9) == pytest.approx(CHOSEN.least)
    assert rate(CHOSEN, CHOSEN.seniority) == pytest.approx(CHOSEN.least)


def test_trust_that_was_earned_on_trifles_does_not_carry_large_units() -> None:
    assert rate(CHOSEN, 500.0, 100.0) > 0.98
    assert rate(CHOSEN, 500.0, 0.01) == pytest.approx(CHOSEN.least)


@pytest.mark.parametrize("capital", [100.0, 1000.0, 5000.0, 50_000.0])
def test_at_no_age_a_lie_pays_more_than_the_work_that_it_costs(capital: float) -> None:
    """What a cheater gets through in a life, 1/a - 1, over the work that its life took, is at most 1/D."""
    assert (1.0 / rate(CHOSEN, capital) - 1.0) / capital <= 1.001 / CHOSEN.doubt


def test_the_price_of_young_trust() -> None:
    steps = np.arange(20_000, dtype=np.float32)
    assert audits_until(CHOSEN, 20_000.0) == pytest.approx(float(CHOSEN.rate(steps).sum()), rel=0.01)


def test_two_seniors_reach_theta_against_one_so_a_gang_can_win() -> None:
    assert believed([credibility(100)] * 2, [credibility(100)])[0] > THETA
    random = stream(1, "test")
    won = [lie_wins(random, 400, 400, 0.2, 400) for _ in range(3000)]
    assert fmean(lie for lie, _ in won) == pytest.approx(0.2, abs=0.03)
    assert {replicas for _, replicas in won} == {1}


def test_those_with_few_passes_need_more_replicas() -> None:
    random = stream(2, "test")
    won = [lie_wins(random, 60, 60, 0.2, 60) for _ in range(3000)]
    assert fmean(lie for lie, _ in won) < 0.1
    assert fmean(replicas for _, replicas in won) > 2.0


@pytest.mark.parametrize("workers", [8, 16, 64])
def test_a_short_job_waits_for_its_audits_no_longer_than_for_a_unit(workers: int) -> None:
    found = waits(CHOSEN, workers, 60, 1)
    assert max(wait for wait, _ in found) <= 1.01
    assert fmean(wait for wait, _ in found) < 1.0
    assert waits(CHOSEN, workers, 60, 1) == found


def test_results_of_a_long_job_wait_for_their_window_or_hardly() -> None:
    windows = replace(CHOSEN, timing=Timing.WINDOWS)
    coin, window, held = (
        waits(policy, 16, 1, 1, units=2000)[0][1] for policy in (CHOSEN, windows, replace(windows, hold=4))
    )
    assert coin < 0.2
    assert 9.5 < window < 12.0
    assert 40.0 < held < 90.0


def test_a_closing_audit_comes_after_the_coins() -> None:
    closing = Audits("closing", "", timing=Timing.CLOSING)
    assert max(wait for wait, _ in waits(closing, 8, 60, 1)) > 1.5


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    cell = Cell(Trial(CHOSEN), "sleeping gang", 0.2)
    one, same, other = (table.play(cell, seed, 3, 60, most=60) for seed in (1, 1, 2))
    assert one == same
    assert one.wrong != other.wrong


def test_a_policy_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="there is no policy 'coins'"):
        table.find(["coins"])
    with pytest.raises(NotFound, match="no cheaters called"):
        kind("saints")
    assert [trial.policy.name for trial in table.find(["2 of 3", "capital"])] == ["2 of 3", "capital"]


def test_units_are_counted_once_whatever_becomes_of_them() -> None:
    """Every unit of a trusted worker is FINAL, or in an open window: nothing is lost and nothing counts twice."""
    for timing, hold in ((Timing.COIN, 0), (Timing.WINDOWS, 0), (Timing.CLOSING, 0), (Timing.WINDOWS, 3)):
        policy = Audits("test", "", timing=timing, hold=hold)
        model = Audited(policy, Setting(50, 0.2, kind("slow sleeper"), 2, per_job=30), 1)
        done = 0.0
        for _ in range(200):
            done += float(model.trusted.sum())
            model.run(1)
        open_ = float(model._filled.sum() + model._held.sum())
        assert float(model.tally.final.sum()) + open_ == done
        assert float(model.tally.work.sum()) >= done


def figures(work: float, wrong: float, punished: float = 0.0) -> Figures:
    return Figures(
        Interval(work, work, work), Interval(wrong, wrong, 2 * wrong), 0.05, 0.01, 1.0, punished, 1.0, 1_000_000
    )


def results(work: float, wrong: float, punished: float = 0.0) -> table.Results:
    trial = Trial(CHOSEN)
    cells = [Cell(trial, one.name, share) for share in (0.05, 0.2) for one in KINDS]
    good = {cell: figures(1.06, 1e-5) for cell in cells}
    return {**good, cells[3]: figures(work, wrong, punished)}


@pytest.mark.parametrize(
    ("work", "wrong", "punished", "kept"),
    [(1.1, 1e-4, 0.0, True), (1.2, 1e-4, 0.0, False), (1.1, 3e-4, 0.0, False), (1.1, 1e-4, 0.5, False)],
)
def test_one_kind_that_misses_a_bar_is_enough(work: float, wrong: float, punished: float, *, kept: bool) -> None:
    found = results(work, wrong, punished)
    assert table.kept(found, {"capital": Waits(0.5, 1.0, 0.1)}) is kept
    assert not table.kept(found, {"capital": Waits(0.5, 2.5, 0.1)})
    if not punished:
        assert ("MISSED" in report.text(found, {})) is not kept


def test_the_page_takes_the_tables_between_its_markers() -> None:
    page = f"# Title\n\n{report.BEGIN}\nearlier figures\n{report.END}\n\nlast words\n"
    new = report.with_policies(page, results(1.1, 1e-4), {"capital": Waits(0.5, 1.0, 0.1)}, "../pictures/x.svg")
    assert new.startswith("# Title")
    assert new.endswith("last words\n")
    assert "earlier figures" not in new
    assert "| capital | – | 1.100 ×" in new
    assert "../pictures/x.svg" in new
    assert (
        report.with_policies(new, results(1.1, 1e-4), {"capital": Waits(0.5, 1.0, 0.1)}, "../pictures/x.svg") == new
    )
    with pytest.raises(ValueError, match="lacks"):
        report.with_policies("# Title\n", results(1.1, 1e-4), {}, "")


def test_seeds_shift_no_others() -> None:
    """A cell has its own random numbers: leaving out others does not change it."""
    trial = Trial(replace(CHOSEN, name="alone"))
    alone = table.play(Cell(trial, "patient gang", 0.2, cold=True), 5, 2, 40, most=80)
    table.play(Cell(trial, "gang", 0.2, cold=True), 5, 2, 40, most=80)
    assert table.play(Cell(trial, "patient gang", 0.2, cold=True), 5, 2, 40, most=80) == alone
