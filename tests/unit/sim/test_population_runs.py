"""Whole runs of the population engine: what must come out where the answer is known."""

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from sparkle_protocol.errors import ConfigError
from sparkle_sim.population import CANNOT_SAY, PopulationRun, run_population
from sparkle_sim.scenario import (
    Adversaries,
    Churn,
    Distance,
    Fault,
    JobPlan,
    Machines,
    Peers,
    Region,
    Scenario,
    Schedule,
    Wires,
)

ALIKE = Machines(spread=0.0, noise=0.0)


def scenario(
    count: int = 1000,
    *,
    machines: Machines = ALIKE,
    churn: Churn | None = None,
    adversaries: Sequence[Adversaries] = (),
    seconds: float = 3600.0,
    **job: float,
) -> Scenario:
    plan = {"units": 2000, "unit_s": 60.0, "at_s": 20.0, "quorum": 2, "repeat": 1} | job
    return Scenario(
        "test",
        engine="population",
        seconds=seconds,
        peers=Peers(count, machines=machines, churn=churn or Churn()),
        jobs=[JobPlan(**plan)],  # type: ignore[arg-type]
        adversaries=list(adversaries),
    )


def job(run: PopulationRun) -> dict[str, object]:
    found: dict[str, object] = run.summary["jobs"][0]  # type: ignore[index]
    return found


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_without_cheats_and_churn_each_unit_is_computed_by_its_quorum_and_no_more(quorum: int) -> None:
    run = run_population(scenario(count=3000, quorum=quorum), 1)
    assert run.summary["units_done"] == 2000
    assert run.summary["replicas_per_unit"] == pytest.approx(quorum, abs=0.002)  # the submitter decides alone
    assert run.summary["wasted_share"] < 0.002  # type: ignore[operator]
    assert run.summary["complete"] is True
    assert job(run)["outcome"] == "done"


def test_alike_machines_take_as_long_as_the_work_divided_by_them() -> None:
    run = run_population(scenario(count=1000, units=5000, unit_s=60.0), 1)
    assert job(run)["ended_s"] == pytest.approx(20 + 10 * 60, abs=3)
    steady = [row["units_per_s"] for row in run.rows if 100 < row["t_s"] < 600]
    assert np.mean(steady) == pytest.approx(1000 / 60 / 2, rel=0.05)


def test_more_slots_compute_more_and_never_one_unit_twice_on_one_peer() -> None:
    run = run_population(scenario(count=3, machines=Machines(spread=0.0, noise=0.0, slots=4), units=60, quorum=3), 1)
    assert run.summary["units_done"] == 60
    ended = job(run)["ended_s"]
    assert isinstance(ended, float)
    assert 20 + 60 * 3 / 12 * 60 * 0.6 <= ended <= 20 + 60 * 3 / 12 * 60 * 1.4


def test_throughput_follows_the_mean_speed_and_not_the_median() -> None:
    run = run_population(scenario(count=20_000, machines=Machines(spread=0.8), units=200_000, seconds=600), 1)
    steady = [row["units_per_s"] for row in run.rows if row["t_s"] > 300]
    assert np.mean(steady) == pytest.approx(20_000 / 60 / 2 * np.exp(0.8**2 / 2), rel=0.03)


def test_lost_work_is_what_departures_of_that_rate_cost() -> None:
    """Units of 60 s under exponential sessions of 600 s: a lost unit was computed for a while."""
    churn = Churn("exponential", session_s=600.0, absence_s=60.0, begin_s=0.0)
    run = run_population(scenario(count=8000, churn=churn, units=100_000, seconds=1500), 1)
    finished = (1 - np.exp(-0.1)) / 0.1  # of the time spent: E[min(session, 60)] against 60 with its chance
    assert run.summary["wasted_share"] == pytest.approx(1 - np.exp(-0.1) / finished, abs=0.01)
    assert run.summary["online_share"] == pytest.approx(600 / 660, abs=0.01)


def test_colluders_get_through_as_often_as_the_law_of_voting_says() -> None:
    """Who always colludes is barred once outvoted; a share of the votes by everybody is the law's own case."""
    f = 0.05
    many = [Adversaries("collude", share=1.0, rate=f)]
    run = run_population(scenario(count=200_000, units=100_000, unit_s=600.0, adversaries=many), 1)
    assert run.summary["units_done"] == 100_000
    law = 3 * f**2 - 2 * f**3  # 2 of 3
    assert run.summary["wrong_share"] == pytest.approx(law, rel=0.15)
    disputes = 2 * f * (1 - f)
    assert run.summary["replicas_per_unit"] == pytest.approx(2 + disputes, abs=0.01)


def test_cheats_alone_never_get_through_and_are_barred() -> None:
    run = run_population(scenario(count=2000, units=20_000, adversaries=[Adversaries("cheat", share=0.1)]), 1)
    assert run.summary["wrong_final"] == 0
    assert run.summary["units_done"] == 20_000
    assert 200 <= run.summary["results_outvoted"] <= 200 * 8  # type: ignore[operator]
    assert run.rows[-2]["computing"] <= 1800


def test_who_withholds_costs_time_and_gets_no_more() -> None:
    run = run_population(scenario(count=500, units=4000, adversaries=[Adversaries("withhold", share=0.2)]), 1)
    assert run.summary["units_done"] == 4000
    assert 100 <= run.summary["leases_lost"] <= 100 * 6  # type: ignore[operator]


def test_a_unit_on_which_nobody_agrees_is_dead() -> None:
    run = run_population(scenario(count=100, units=50, adversaries=[Adversaries("sometimes", share=1.0)]), 1)
    assert run.summary["units_dead"] > 0  # type: ignore[operator]
    assert job(run)["outcome"] == "failed"
    assert run.summary["complete"] is True


def test_the_same_seed_gives_the_same_run_in_another_process_and_another_seed_does_not() -> None:
    program = (
        "from tests.unit.sim.test_population_runs import mixed\n"
        "from sparkle_sim.population import run_population\n"
        "import hashlib; run = run_population(mixed(), {seed})\n"
        "print(hashlib.sha256(repr((run.rows, run.summary)).encode()).hexdigest())"
    )

    def digest(seed: int, salt: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program.format(seed=seed)],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": ":".join(path for path in sys.path if path)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    assert digest(7, "1") == digest(7, "2")
    assert digest(7, "1") != digest(8, "1")


def mixed() -> Scenario:
    """A bit of everything."""
    wires = Wires([Region("a", 0.6), Region("b", 0.4, utc_offset_h=-8.0)], [Distance(["a", "b"], 150.0)], loss=0.01)
    churn = Churn("weibull", session_s=900.0, absence_s=600.0, begin_s=0.0, gone_share=0.01)
    return Scenario(
        "mixed",
        engine="population",
        seconds=500.0,
        peers=Peers(1000, machines=Machines(slots=2, slow_share=0.05), churn=churn, schedule=Schedule(0.3, 0.0, 8.1)),
        wires=wires,
        jobs=[JobPlan(units=1500, repeat=3, every_s=120.0), JobPlan(at_s=300.0, submitter=1, quorum=3, units=700)],
        faults=[Fault("kill", 200.0, 100.0, share=0.2)],
        adversaries=[Adversaries("collude", share=0.03), Adversaries("withhold", share=0.03, rate=0.5)],
    )


def test_stopping_keeps_what_there_is_and_says_so() -> None:
    seen: list[float] = []
    whole = run_population(scenario(), 1)
    part = run_population(scenario(), 1, lambda t_s, _row: seen.append(t_s), lambda: len(seen) >= 5)
    assert part.summary["complete"] is False
    assert [row["t_s"] for row in part.rows] == seen
    assert part.rows == whole.rows[:5]
    assert job(part)["outcome"] == "running"
    assert part.summary["cannot_say"] == list(CANNOT_SAY)


def test_memory_follows_the_peers_and_not_the_units() -> None:
    few = run_population(scenario(count=2000, units=4000), 1)
    many = run_population(scenario(count=2000, units=100_000, seconds=9000), 1)
    assert max(row["open_units"] for row in many.rows) <= 2 * 2000
    assert max(row["open_units"] for row in many.rows) < 1.5 * max(row["open_units"] for row in few.rows)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"faults": [Fault("partition", 10.0, share=0.5)]}, r"faults\[0\].kind is 'partition'"),
        ({"adversaries": [Adversaries("equivocate", 0.1)]}, r"adversaries\[0\].kind is 'equivocate'"),
        ({"adversaries": [Adversaries("cheat", peers=[99_999])]}, r"names peer 99999"),
        ({"jobs": [JobPlan(unit_s=0.5)]}, r"jobs\[0\].unit_s is 0.5"),
        ({"jobs": [JobPlan(submitter=4000)]}, r"jobs\[0\].submitter is 4000"),
        ({"faults": [Fault("kill", 10.0, regions=["mars"])]}, r"'mars'"),
        ({"wires": Wires(distances=[Distance(["here", "mars"], 1.0)])}, r"'mars'"),
    ],
)
def test_what_it_cannot_model_is_refused_in_a_sentence(changed: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run_population(Scenario("bad", seconds=60.0, **changed), 1)  # type: ignore[arg-type]
