"""What fails shrinks to what is needed, is kept as a file, and can be looked at again."""

from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from sparkle_protocol.errors import ConfigError
from sparkle_sim.adversaries import KINDS
from sparkle_sim.checkers import Finding
from sparkle_sim.reading import read_scenario
from sparkle_sim.replaying import Window, of_file, replay
from sparkle_sim.scenario import Adversaries, Churn, Fault, JobPlan, Peers, Region, Scenario, Wires
from sparkle_sim.seeds import MAX_LOST, MAX_SILENT, scenario_of
from sparkle_sim.shrinking import Step, ddmin, shrink, to_toml, write_regression
from sparkle_sim.trace import Entry

FOUND = Finding("bounds", 1.0, None, "too much")


def test_delta_debugging_keeps_just_what_is_needed_together() -> None:
    tried: list[list[int]] = []

    def fails(some: list[int]) -> bool:
        tried.append(some)
        return {7, 31} <= set(some)

    assert ddmin(range(60), fails) == [7, 31]
    assert len(tried) <= 60
    assert ddmin(range(9), lambda some: True) == []
    assert ddmin([4], lambda some: bool(some)) == [4]


def test_a_scenario_shrinks_in_every_direction_and_stays_with_its_checker() -> None:
    wrong = [Fault("kill", float(n), 1.0, share=0.5) for n in range(12)]
    scenario = Scenario("big", seconds=600.0, peers=Peers(32), jobs=[JobPlan(units=64)], faults=wrong)
    steps: list[Step] = []

    def fails(one: Scenario) -> Finding | None:
        if not one.faults:
            return Finding("promises", 1.0, None, "another error must not take the place of the first")
        needed = [fault for fault in one.faults if fault.at_s == 3.0 and (5 in fault.peers or fault.share)]
        return FOUND if needed and one.jobs[0].units >= 3 and one.seconds >= 20.0 else None

    seed = next(seed for seed in range(100) if _hits(scenario, seed))
    small = shrink(scenario, seed, fails, steps.append)
    assert [(fault.at_s, fault.peers) for fault in small.faults] == [(3.0, [5])]
    assert small.peers.count == 6
    assert small.jobs[0].units == 4
    assert 20.0 <= small.seconds < 40.0
    assert steps[-1].runs == len(steps)


def test_what_is_left_can_be_read_from_its_file(tmp_path: Path) -> None:
    """Faults are over with the shorter run; a peer that would come back later is not lost for that."""
    wrong = [Fault("kill", 3.3, 400.0, peers=[1]), Fault("freeze", 30.0, 1.0, peers=[2])]
    scenario = Scenario("long", seconds=600.0, peers=Peers(4), jobs=[JobPlan(at_s=1.0)], faults=wrong)

    def fails(one: Scenario) -> Finding | None:
        return FOUND if one.seconds >= 12.0 and any(fault.kind == "kill" for fault in one.faults) else None

    small = shrink(scenario, 1, fails)
    assert small.seconds < 30.0
    (fault,) = small.faults
    assert 0.0 < fault.for_s <= small.seconds - fault.at_s
    assert read_scenario(write_regression(tmp_path, small, 1, FOUND)).faults == small.faults


def _hits(scenario: Scenario, seed: int) -> bool:
    from sparkle_sim import faults
    from sparkle_sim.engine import build_world

    return 5 in faults.pinned(build_world(scenario, seed), scenario).faults[3].peers


def test_adversaries_churn_and_bad_wires_go_unless_they_are_needed() -> None:
    scenario = scenario_of(3)
    false = [
        Adversaries("cheat", peers=[4, 5]),
        Adversaries("hoard", peers=[7, 8]),
        Adversaries("copy", peers=[9]),
    ]
    churn = Churn("weibull", 60.0, 20.0, begin_s=5.0, end_s=60.0)
    scenario = replace(
        scenario, adversaries=false, peers=replace(scenario.peers, churn=churn), wires=Wires(loss=0.1, twice=0.1)
    )

    def fails(one: Scenario) -> Finding | None:
        hoards = any(entry.kind == "hoard" and 8 in entry.peers for entry in one.adversaries)
        return FOUND if hoards and one.wires.loss and one.wires.twice else None

    small = shrink(scenario, 3, fails)
    assert [(entry.kind, entry.peers) for entry in small.adversaries] == [("hoard", [8])]
    assert small.peers.churn == Churn()
    assert small.wires.loss == 0.1
    assert not small.faults

    def restless(one: Scenario) -> Finding | None:
        return FOUND if one.peers.churn.kind == "weibull" else None

    small = shrink(scenario, 3, restless)
    assert (small.adversaries, small.peers.churn, small.wires.loss) == ([], churn, 0.0)


def test_what_does_not_fail_is_not_shrunk() -> None:
    with pytest.raises(ConfigError, match="does not fail with seed 3"):
        shrink(Scenario("fine"), 3, lambda _: None)


@pytest.mark.parametrize(
    "scenario",
    [
        scenario_of(3),
        Scenario("plain"),
        Scenario(
            'with "quotes"',
            peers=Peers(7, churn=Churn("weibull", shape=0.7)),
            wires=Wires(regions=[Region("a", 0.5), Region("b", 0.5, utc_offset_h=-3.5)]),
            jobs=[JobPlan(), JobPlan(submitter=2)],
            faults=[Fault("kill", 1.0, regions=["a"])],
            adversaries=[Adversaries("sometimes", 0.1)],
        ),
    ],
)
def test_a_file_says_all_of_a_scenario(tmp_path: Path, scenario: Scenario) -> None:
    path = tmp_path / "one.toml"
    path.write_text(to_toml(scenario), encoding="utf-8")
    assert read_scenario(path) == scenario


def test_what_seeds_make_up_can_be_kept_and_is_no_more_than_keepers_are_to_withstand(tmp_path: Path) -> None:
    kinds, restless = Counter[str](), 0
    for seed in range(200):
        scenario = scenario_of(seed)
        path = tmp_path / f"{seed}.toml"
        path.write_text(to_toml(scenario), encoding="utf-8")
        assert read_scenario(path) == scenario
        lost = sum(fault.kind == "lose-disk" for fault in scenario.faults)
        false = [entry for entry in scenario.adversaries if not KINDS[entry.kind].keeps]
        assert lost + sum(len(entry.peers) for entry in false) <= MAX_LOST
        assert sum(len(entry.peers) for entry in false if entry.kind == "silent-keeper") <= MAX_SILENT
        kinds.update(entry.kind for entry in scenario.adversaries)
        restless += scenario.peers.churn.kind != "none"
    assert kinds.keys() == {kind for kind, make in KINDS.items() if not make.of_credit}
    assert restless >= 40


def test_a_regression_file_tells_what_was_found(tmp_path: Path) -> None:
    path = write_regression(tmp_path / "new", Scenario("small"), 17, FOUND)
    scenario, seed = of_file(path)
    assert (path.name, seed, scenario.title) == ("small.toml", 17, str(FOUND))
    with pytest.raises(ConfigError, match="there is no scenario file"):
        of_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="no folder of a run"):
        of_file(tmp_path)


def test_a_run_is_shown_again_by_peer_unit_and_time() -> None:
    scenario = Scenario("again", seconds=60.0, peers=Peers(6, 1.0), jobs=[JobPlan(at_s=2.0, units=3, unit_s=2.0)])
    seen: list[tuple[float, int, str, str]] = []
    whole = replay(scenario, 1, Window(limit=10**6), lambda *one: seen.append(one))
    assert not whole.findings
    job = next(detail for _, _, what, detail in seen if what == "submit")
    some: list[tuple[float, int, str, str]] = []
    replay(scenario, 1, Window.of([2], None, 3.0, 4.0, 10**6), lambda *one: some.append(one))
    assert some == [one for one in seen if 3.0 <= one[0] <= 4.0 and (one[1] == 2 or _is_to(one, "2"))]
    of_unit: list[tuple[float, int, str, str]] = []
    cut = replay(scenario, 1, Window.of(None, f"{job[:6]}/1", 0.0, None, 5), lambda *one: of_unit.append(one))
    assert cut.left_out > 0
    told = [what for _, _, what, _ in of_unit if what != "job_published"]  # which may come before or after
    assert told[:2] == ["job_submitted", "compute"]
    assert {detail for _, _, what, detail in of_unit if what == "compute"} == {f"{job[:8]}/1.0"}


def _is_to(one: tuple[float, int, str, str], peer: str) -> bool:
    return one[3] == peer and one[2].split()[0] in ("send", "reply", "up", "down")


@pytest.mark.parametrize("unit", ["17", "xyz/3", "ab/", "/3", "ab/c"])
def test_what_names_no_unit_is_refused(unit: str) -> None:
    with pytest.raises(ConfigError, match="JOB/UNIT"):
        Window.of(None, unit, 0.0, None, 10)


def test_a_unit_is_told_from_its_neighbours() -> None:
    window = Window(job="ab12", unit=1)
    assert window.shows(Entry(0, 0, "compute", "ab12cd34/1.4096"))
    assert not window.shows(Entry(0, 0, "compute", "ab12cd34/11.0"))
    assert window.shows(Entry(0, 0, "unit_final", "job=ab12cd3456 unit=1 workers=2 own=True"))
    assert not window.shows(Entry(0, 0, "unit_final", "job=ab12cd3456 unit=2 workers=2 own=True"))
    assert window.shows(Entry(0, 0, "job_done", "job=ab12cd3456 error=None"))
    assert not window.shows(Entry(0, 0, "tick", "1"))
