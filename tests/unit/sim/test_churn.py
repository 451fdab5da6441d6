"""Nodes come and go as the scenario says: for how long, how many, and who; and work at their hours."""

from math import exp
from pathlib import Path
from statistics import fmean

import pytest

from sparkle_protocol.errors import ConfigError
from sparkle_sim import churn
from sparkle_sim.draws import draws
from sparkle_sim.engine import Run
from sparkle_sim.kernel import SECOND
from sparkle_sim.scenario import Churn, JobPlan, Peers, Region, Scenario, Schedule, Wires

HOUR_S = 3600.0


def scene(plan: Churn, *, peers: int = 40, seconds: float = 4000.0, schedule: Schedule | None = None) -> Scenario:
    jobs = [JobPlan(at_s=seconds, units=1)]  # nothing to do: this is about who is there
    return Scenario(
        "churn", seconds=seconds, peers=Peers(peers, 1.0, churn=plan, schedule=schedule or Schedule()), jobs=jobs
    )


def begun(scenario: Scenario, seed: int = 1) -> Run:
    return Run(scenario, seed)


def up(run: Run, at_s: float) -> list[int]:
    run.world.kernel.run(int(at_s * SECOND))
    return [peer.number for peer in run.world.peers if peer.life is not None]


@pytest.mark.parametrize("plan", [Churn("exponential", 500.0), Churn("weibull", 500.0, shape=0.5)])
def test_sessions_have_the_mean_that_was_asked_for(plan: Churn) -> None:
    random = draws(1, "sessions")
    lengths = [churn.session_s(plan, random) for _ in range(40_000)]
    assert fmean(lengths) == pytest.approx(500.0, rel=0.06)


def test_weibull_sessions_survive_as_the_law_says() -> None:
    plan, random = Churn("weibull", 500.0, shape=0.5), draws(1, "sessions")
    scale = 500.0 / 2.0  # Γ(1 + 1/0.5) = 2
    lengths = [churn.session_s(plan, random) for _ in range(20_000)]
    for after_s in (50.0, 250.0, 1000.0):
        share = sum(length > after_s for length in lengths) / len(lengths)
        assert share == pytest.approx(exp(-((after_s / scale) ** 0.5)), abs=0.02)


def test_who_is_met_in_mid_session_stays_on_average_as_renewal_theory_says() -> None:
    """E[residual] = E[X²] / 2E[X]: the mean itself for exponential sessions, three times that at shape 0.5."""
    for plan, mean_s in ((Churn("exponential", 500.0), 500.0), (Churn("weibull", 500.0, shape=0.5), 1500.0)):
        lengths = [churn.residual_s(plan, seed, 3) for seed in range(30_000)]
        assert fmean(lengths) == pytest.approx(mean_s, rel=0.06)


def test_all_are_there_until_it_begins_and_then_as_many_as_sessions_and_absences_leave() -> None:
    run = begun(scene(Churn("exponential", 150.0, 50.0, begin_s=60.0), peers=24, seconds=1600.0))
    assert len(up(run, 60.0)) == 24
    shares = [len(up(run, at_s)) / 24 for at_s in range(400, 1600, 40)]
    assert fmean(shares) == pytest.approx(0.75, abs=0.07)
    assert 0 in up(run, 1600.0)
    assert run.world.peers[0].lives == 1


def test_those_who_are_gone_do_not_come_back() -> None:
    run = begun(scene(Churn("exponential", 200.0, 50.0, gone_share=1.0), peers=30))
    there = up(run, 2000.0)
    assert len(there) <= 3
    gone = [peer for peer in run.world.peers if peer.number not in there]
    assert all(peer.lost and peer.lives == 1 for peer in gone)


def test_in_the_end_all_are_back_but_those_who_are_gone() -> None:
    plan = Churn("exponential", 60.0, 60.0, gone_share=0.1, end_s=500.0)
    run = begun(scene(plan, peers=40, seconds=1500.0))
    assert len(up(run, 499.0)) < 35
    there = up(run, 501.0)
    lives = [peer.lives for peer in run.world.peers]
    assert there == [peer.number for peer in run.world.peers if not peer.lost]
    assert 20 <= len(there) < 40
    assert up(run, 1500.0) == there
    assert [peer.lives for peer in run.world.peers] == lives


def test_only_the_share_that_was_asked_for_comes_and_goes() -> None:
    run = begun(scene(Churn("exponential", 50.0, 50.0, share=0.3), peers=40, seconds=500.0))
    up(run, 500.0)
    assert 5 <= sum(peer.lives > 1 for peer in run.world.peers) <= 19


def test_the_same_seed_gives_the_same_comings_and_goings() -> None:
    plan = Churn("weibull", 100.0, 50.0)
    lives = []
    for seed in (1, 1, 2):
        run = begun(scene(plan, peers=15), seed)
        up(run, 600.0)
        lives.append((run.world.trace.hash, [peer.lives for peer in run.world.peers]))
    assert lives[0] == lives[1] != lives[2]


def test_a_trace_is_followed_by_submitters_too(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("peer,up_s,down_s\n0,0,50\n2,30,60\n2,80,90\n0,100,1000\n")
    run = begun(scene(Churn("trace", trace=str(path)), peers=4, seconds=200.0))
    assert up(run, 20.0) == [0, 1, 3]
    assert up(run, 40.0) == [0, 1, 2, 3]
    assert up(run, 55.0) == [1, 2, 3]
    assert up(run, 70.0) == [1, 3]
    assert up(run, 85.0) == [1, 2, 3]
    assert up(run, 101.0) == [0, 1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("peer,from,to\n", "must be peer,up_s,down_s"),
        ("peer,up_s,down_s\n1,2\n", "line 2 of the trace"),
        ("peer,up_s,down_s\n1,2,x\n", "line 2 of the trace"),
        ("peer,up_s,down_s\n9,2,3\n", "peers are 0 to 3"),
        ("peer,up_s,down_s\n1,3,2\n", "up_s is before down_s"),
        ("peer,up_s,down_s\n1,1,5\n1,4,9\n", "peer 1 comes while it is there"),
    ],
)
def test_a_trace_that_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        churn.read_trace(path, 4)


def test_a_trace_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .* name a CSV file"):
        churn.read_trace(tmp_path / "none.csv", 4)


def test_machines_work_at_their_hours_where_they_are_also_after_a_restart() -> None:
    """From eight in the evening to eight in the morning; a run begins at midnight UTC."""
    regions = [Region("london", 0.5), Region("tokyo", 0.5, utc_offset_h=9.0)]
    scenario = Scenario(
        "night",
        seconds=24 * HOUR_S,
        peers=Peers(4, 1.0, schedule=Schedule(share=1.0)),
        wires=Wires(regions=regions),
        jobs=[JobPlan(at_s=24 * HOUR_S)],
    )
    run = begun(scenario)
    places = run.world.network.places
    for at_h, working in ((1.0, {0}), (9.0, set[int]()), (12.0, {1}), (21.0, {0, 1})):
        up(run, at_h * HOUR_S)
        for peer in run.world.peers:
            assert peer.worker.paused is (places[peer.number].region not in working), (at_h, peer.number)
        if at_h == 9.0:
            run.world.peers[1].crash()
            run.world.peers[1].start()
            assert run.world.peers[1].worker.paused


def test_hours_may_pass_midnight() -> None:
    assert churn.works_at(23.0, 20.0, 8.0)
    assert churn.works_at(7.9, 20.0, 8.0)
    assert not churn.works_at(8.0, 20.0, 8.0)
    assert churn.works_at(9.0, 8.0, 20.0)
    assert not churn.works_at(20.0, 8.0, 20.0)
    assert churn.works_at(3.0, 5.0, 5.0)
