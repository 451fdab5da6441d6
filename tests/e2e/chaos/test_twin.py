"""Real chaos runs and their simulated twins agree, and what is stored of the real ones is of this time."""

import json
from pathlib import Path

import pytest

from sparkle_protocol.errors import ConfigError
from tests.e2e.chaos.twin import (
    OVERALL,
    STORED,
    TWINS,
    Pair,
    disagreements,
    document,
    main,
    stored,
    table,
)
from tests.e2e.chaos.twin_run import JOBS, KINDS, LENGTH_S, Simulated, simulate, twin_schedule

DOCUMENT = Path(__file__).parents[3] / "docs" / "explanation" / "twins.md"
SEEDS = range(100)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [Pair(played, tuple(simulate(played, seed) for seed in range(1, TWINS + 1))) for played in stored()]


@pytest.mark.timeout(240)
def test_the_simulator_agrees_with_the_real_runs(pairs: list[Pair]) -> None:
    assert disagreements(pairs) == []
    assert all(not pair.played.violations for pair in pairs)


@pytest.mark.timeout(240)
def test_the_document_shows_this_comparison(pairs: list[Pair]) -> None:
    assert table(pairs, ()) in DOCUMENT.read_text(), "write the table anew: python -m tests.e2e.chaos.twin --stored"
    assert all(f"{tolerance:.0%}".replace("%", " %") in DOCUMENT.read_text() for tolerance in OVERALL.values())


def test_the_stored_runs_hold_every_kind_of_fault() -> None:
    kinds = {fault.kind for played in stored() for fault in twin_schedule(played.seed).faults}
    assert kinds == set(KINDS)
    assert all(len(played.jobs) == len(JOBS) for played in stored())


@pytest.mark.parametrize("name", OVERALL)
def test_a_simulator_that_is_off_does_not_agree(name: str) -> None:
    """Here by half: it computes everything thrice where two would do, or takes its time."""
    played = stored()[0]
    units, seconds = played.computed, played.makespan_s
    more = Simulated(units * 3 // 2, seconds) if name == "replicas" else Simulated(units, seconds * 1.5)
    wrong = Pair(played, (more, more))
    assert [text.split(" ")[0] for text in disagreements([wrong])] == [name, "seed"]
    assert disagreements([Pair(played, (Simulated(units, seconds),))]) == []
    assert document([wrong], [])["overall"][name]["off"] == pytest.approx(0.5, abs=0.02)


def test_the_same_seed_is_the_same_twin() -> None:
    played = stored()[0]
    assert simulate(played, 1) == simulate(played, 1)
    assert simulate(played, 1) != simulate(played, 2)


@pytest.mark.parametrize("change", ["not json", "[]", "{}", '{"runs": []}', "old", "other faults"])
def test_runs_of_another_time_are_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    held = json.loads(STORED.read_text())
    if change == "old":
        held["format"] = 0
        change = json.dumps(held)
    elif change == "other faults":
        held["runs"][0]["absences"].pop()
        change = json.dumps(held)
    path.write_text(change)
    with pytest.raises(ConfigError, match="makes it anew"):
        stored(path)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_schedule_can_be_played(seed: int) -> None:
    """Faults of one node do not overlap, and leave it the time to start in between."""
    schedule = twin_schedule(seed)
    assert schedule == twin_schedule(seed)
    over_s = dict.fromkeys(schedule.nodes, 0.0)
    for fault in schedule.faults:
        assert fault.kind in KINDS
        assert fault.at_s >= over_s[fault.target]
        over_s[fault.target] = fault.at_s + fault.for_s + 14.0
        assert fault.at_s + fault.for_s <= LENGTH_S


def test_the_command_compares_stored_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stored", "--simulated", "1", "--json"]) in (0, 1)  # one twin of each says little
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)["runs"]) == len(stored())
    assert "seed 1 (1 of" in shown.err
