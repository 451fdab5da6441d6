"""Honest worlds pass every checker whatever goes wrong; an error planted into the cores is found and shrunk."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from sparkle_sim.reading import read_scenario
from sparkle_sim.scenario import Adversaries, Checks, Fault, JobPlan, Machines, Peers, Scenario, Trust
from sparkle_sim.seeds import first_finding, scenario_of
from sparkle_sim.shrinking import shrink, write_regression
from tests.sim import planted

REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.toml"))
NOISE = (
    Fault("slow-link", 6.0, 10.0, peers=[2, 5], factor=5.0),
    Fault("skew", 9.0, 20.0, peers=[4], amount_s=600.0),
    Fault("freeze", 10.0, 4.0, peers=[6]),
    Fault("slow", 12.0, 20.0, peers=[7], factor=3.0),
)


def scene(name: str, *wrong: Fault, peers: int = 10, units: int = 4, unit_s: float = 4.0) -> Scenario:
    """A few peers, a job, and faults that have nothing to do with what is planted."""
    return Scenario(
        name,
        seconds=1000.0,
        peers=Peers(count=peers, arrive_s=2.0, machines=Machines(spread=0.2)),
        jobs=[JobPlan(at_s=5.0, units=units, unit_s=unit_s)],
        faults=[*(fault for fault in NOISE if max(fault.peers) < peers), *wrong],
        checks=Checks(scan_every_s=1.0),
    )


KILLS = tuple(  # so many that one of them meets a worker that has just committed
    Fault("kill", 9.0 + 0.4 * turn, 0.3, peers=[1 + turn % 3, 4 + turn % 3, 7 + turn % 3]) for turn in range(12)
)
PLANTED = [
    (planted.accepts_without_quorum, "unsigned", ()),
    (planted.counts_a_vote_twice, "unsigned", ()),
    (planted.certifies_by_few, "unsigned", ()),
    (planted.loses_commits_on_restart, "promises", KILLS),
    (planted.commits_before_it_stores, "promises", ()),
    (planted.forgets_verdicts_on_hand_off, "promises", ()),
    (planted.forgets_results_on_hand_off, "promises", ()),
    (planted.does_not_hear_keepers, "convergence", ()),
    (planted.never_asks_for_results, "termination", ()),
    (planted.abandons_a_lost_submitters_jobs, "acknowledged", (Fault("lose-disk", 8.5, peers=[0]),)),
]


@pytest.mark.parametrize(("plant", "checker", "wrong"), PLANTED, ids=lambda one: getattr(one, "__name__", None))
def test_a_planted_error_is_found_and_shrunk(
    plant: planted.Plant,
    checker: str,
    wrong: tuple[Fault, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    name = plant.__name__.replace("_", "-")
    scenario = scene(name, *wrong)
    if checker == "termination":  # it shows after ten minutes in which nothing happens
        scenario = scene(name, *wrong, peers=5, units=2)
    elif checker == "convergence":  # copies are compared while the job goes on
        scenario = scene(name, *wrong, peers=6, units=12, unit_s=30.0)
    assert first_finding(scenario, 1) is None
    plant(monkeypatch)
    finding = first_finding(scenario, 1)
    assert finding is not None
    assert finding.checker == checker
    small = shrink(scenario, 1, lambda one: first_finding(one, 1))
    assert len(small.faults) <= max(1, len(wrong))
    assert small.peers.count <= scenario.peers.count
    found = first_finding(small, 1)
    assert found is not None
    again = read_scenario(write_regression(tmp_path, small, 1, found))
    assert first_finding(again, again.seed) == found
    monkeypatch.undo()
    assert first_finding(again, again.seed) is None


LIARS = Adversaries("equivocate", peers=[1, 2, 3])


def test_liars_that_are_believed_make_two_results_final(monkeypatch: pytest.MonkeyPatch) -> None:
    """What adversaries say is held against nobody; that honest peers believe it is."""
    lied_to = replace(
        scene("liars", units=12), adversaries=[LIARS], checks=Checks(names=["single_final"], scan_every_s=5.0)
    )
    assert first_finding(lied_to, 2) is None
    planted.certifies_by_few(monkeypatch)
    found = first_finding(lied_to, 2)
    assert found is not None
    assert found.checker == "single_final"
    assert found.peer not in LIARS.peers


KNOWN_CHEATERS = Scenario(
    "known-cheaters",
    seconds=3600.0,
    peers=Peers(count=7),
    jobs=[JobPlan(units=150, unit_s=5.0, audit_permille=50)],
    adversaries=[Adversaries("cheat", peers=[1, 2])],
    trust=Trust(known=1.0, passes=60, unit_s=5.0),
    checks=Checks(names=["wrong_accepts"]),
)


def test_more_wrong_results_than_audits_let_through_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_finding(KNOWN_CHEATERS, 1) is None
    planted.audits_nobody(monkeypatch)
    found = first_finding(KNOWN_CHEATERS, 1)
    assert found is not None
    assert found.checker == "wrong_accepts"
    assert "law of audits" in found.text


@pytest.mark.parametrize("seed", range(1000, 1024))
def test_honest_worlds_pass_whatever_goes_wrong(seed: int) -> None:
    finding = first_finding(scenario_of(seed), seed)
    assert finding is None, f"{finding}\nsee it again: sparkle_sim.seeds.first_finding(scenario_of({seed}), {seed})"


def test_what_once_failed_passes() -> None:
    for file in REGRESSIONS:
        scenario = read_scenario(file)
        assert first_finding(scenario, scenario.seed) is None, f"{file}: {scenario.title}"
