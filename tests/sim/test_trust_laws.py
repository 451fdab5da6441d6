"""The model of trust policies against the laws that hold for them, and against mistakes that it has to notice."""

from dataclasses import replace

import numpy as np
import pytest

from sparkle_sim.laws import adaptive, voting
from sparkle_sim.population.auditing import Audited
from sparkle_sim.population.cheaters import HONEST, Cheater, kind
from sparkle_sim.population.replication import Replicated
from sparkle_sim.population.tallying import Setting
from sparkle_sim.population.trust import Audits, Replication, Timing, wrong_of_a_life, wrong_share
from sparkle_sim.population.trust_policies import CHOSEN, Cell, Figures, Trial, play

COIN = Audits("coin", "", copies=0.05, turn=1 / 40, in_turn=False)
YOUNG = replace(CHOSEN, name="young", doubt=50.0)  # the same policy with short lives, for short tests


def played(policy: Audits, cheater: str, share: float, *, rows: int = 8, most: int = 20_000) -> Figures:
    return play(Cell(Trial(policy), cheater, share), 1, rows, 200, most=most)


@pytest.mark.parametrize("jobs", [10, 30, 100, 300])
def test_adaptive_replication_costs_what_boinc_s_law_says(jobs: int) -> None:
    setting = Setting(200, 0.0, HONEST, 3, cold=True)
    model = Replicated(Replication("BOINC", "", valid=10), setting, 1, partners_learn=False)
    model.run(jobs)
    assert model.tally.work.sum() / model.tally.final.sum() == pytest.approx(adaptive.overhead(jobs), abs=1 / jobs)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_two_of_three_lets_through_what_the_law_of_voting_says(share: float) -> None:
    model = Replicated(Replication("2 of 3", ""), Setting(300, share, kind("gang"), 10), 1)
    model.run(150)
    assert model.tally.wrong.sum() / model.tally.final.sum() == pytest.approx(voting.error_rate(2, share), rel=0.05)


@pytest.mark.parametrize("lies", [1.0, 0.3, 0.05])
def test_how_often_a_trusted_cheater_lies_does_not_matter(lies: float) -> None:
    """Each lie is audited with probability a: 1/a - 1 of them get through in a life, whatever the rest of it was."""
    setting = Setting(100, 0.2, Cheater("test", "", lies), 10)
    model = Audited(replace(COIN, turn=1.0, copies=1.0, passes=20), setting, 1)
    model.run(2500)
    lives = model.tally.wrong.sum() / model.tally.caught.sum()
    assert lives == pytest.approx(wrong_of_a_life(COIN.least), rel=0.06)


@pytest.mark.parametrize(("policy", "cheater"), [(COIN, "patient slow"), (YOUNG, "patient slow"), (YOUNG, "patient")])
def test_the_patient_spoil_what_the_law_of_lives_says(policy: Audits, cheater: str) -> None:
    found = played(policy, cheater, 0.1)
    assert found.wrong.value == pytest.approx(wrong_share(replace(policy, copies=0.05), 0.1), rel=0.2)


def test_newcomers_of_whom_more_must_agree_let_less_through_for_little_more_work() -> None:
    """They are known after as many executions: what is voted on is fewer units, and each is surer."""
    found = {}
    for agree in (2, 3, 5):
        cell = Cell(Trial(replace(CHOSEN, agree=agree)), "gang", 0.2, cold=True)
        found[agree] = play(cell, 1, 2, 200)
    assert found[3].wrong.value < 0.45 * found[2].wrong.value
    assert found[5].wrong.value < 0.3 * found[3].wrong.value
    assert found[5].work.value < found[2].work.value + 0.08


def test_windows_that_short_jobs_cut_are_dear_and_a_coin_is_not() -> None:
    windows = replace(COIN, timing=Timing.WINDOWS)
    costs = {}
    for per_job in (1, 4, 20):
        trial = Trial(windows, per_job)
        costs[per_job] = play(Cell(trial, "honest", 0.0), 1, 2, 100, most=200).work.value
    assert costs[1] == pytest.approx(2.0, abs=0.01)
    assert costs[4] == pytest.approx(1.25, abs=0.01)
    assert costs[20] == pytest.approx(1.05, abs=0.01)
    drawn = Trial(replace(windows, short_drawn=True), 4)
    assert play(Cell(drawn, "honest", 0.0), 1, 4, 200, most=400).work.value == pytest.approx(1.05, abs=0.01)


def test_the_chosen_policy_keeps_its_bars_with_the_quick_kinds() -> None:
    for share, work, wrong in ((0.05, 1.15, 2e-4), (0.2, 1.25, 6e-4)):
        for cheater in ("always", "occasional", "wasters", "sleeper", "slow sleeper", "sleeping gang", "accusers"):
            found = played(CHOSEN, cheater, share, rows=5, most=1000)
            assert found.work.value < work, cheater
            assert found.wrong.value < wrong, cheater
            assert found.punished == 0.0, cheater


def test_all_are_promoted_when_three_founders_begin_only_if_newcomers_take_turns() -> None:
    def promoted(policy: Audits) -> float:
        model = Audited(policy, Setting(150, 0.0, HONEST, 3, cold=True, founders=3), 1)
        model.run(2600)
        return float(model.promoted.mean())

    assert promoted(CHOSEN) > 0.9
    assert promoted(replace(CHOSEN, in_turn=False)) < 0.2


def test_a_network_of_newcomers_comes_to_trust_and_nobody_honest_is_punished() -> None:
    found = play(Cell(Trial(CHOSEN), "gang", 0.05, cold=True), 1, 4, 200)
    assert found.promoted == 1.0
    assert found.punished == 0.0
    assert found.wrong.value < 1e-3


# --- mistakes --------------------------------------------------------------------------------------------------


def test_trust_that_outlives_a_failed_audit_is_noticed() -> None:
    right = played(CHOSEN, "slow sleeper", 0.05, most=1500).wrong.value
    assert played(replace(CHOSEN, forgets=False), "slow sleeper", 0.05, most=1500).wrong.value > 10 * right


def test_counting_units_instead_of_work_is_noticed() -> None:
    right = played(YOUNG, "triflers", 0.2, most=8000).wrong.value
    assert played(replace(YOUNG, by_work=False), "triflers", 0.2, most=8000).wrong.value > 4 * right


def test_newcomers_as_auditors_are_noticed() -> None:
    """Keys cost nothing: a gang's newcomers outnumber everybody, here they are merely its share."""
    right = played(CHOSEN, "sleeping gang", 0.4, most=1500).wrong.value
    assert played(replace(CHOSEN, trusted_only=False), "sleeping gang", 0.4, most=1500).wrong.value > 1.25 * right


def test_replicas_as_judges_punish_the_honest_and_a_referee_does_not() -> None:
    assert played(CHOSEN, "accusers", 0.2, most=1500).punished == 0.0
    assert played(replace(CHOSEN, referee=False), "accusers", 0.2, most=1500).punished > 0.5


def test_unequal_machines_change_neither_cost_nor_safety() -> None:
    setting = Setting(200, 0.1, kind("slow sleeper"), 8)
    even, uneven = (Audited(YOUNG, replace(setting, unequal=unequal), 1) for unequal in (False, True))
    found = []
    for model in (even, uneven):
        model.run(1500)
        model.tally.clear()
        model.run(3000)
        final = model.tally.final.sum()
        found.append((model.tally.work.sum() / final, model.tally.wrong.sum() / final))
    assert np.allclose([found[0][0]], [found[1][0]], atol=0.03)
    assert found[1][1] < 1.5 * found[0][1]
