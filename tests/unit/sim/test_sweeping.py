"""A sweep: which runs it makes, what their figures mean, and what a failing one does to the others."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparkle_protocol.errors import ConfigError
from sparkle_sim import checkers, engine
from sparkle_sim.sweeping import Sweep, figure, interval, plan

TEXT = "name = 'small'\nseconds = 40.0\n[peers]\ncount = 8\n[[jobs]]\nunits = 4\nunit_s = 2.0\n"


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TEXT)
    return path


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_value_meets_every_other_and_every_seed(scenario: Path) -> None:
    runs = plan(scenario, range(1, 3), ["jobs.0.units=4,8", "engine=full,population"], [], seconds=None)
    assert len(runs) == 8
    assert [run.seed for run in runs] == [1, 2] * 4
    assert runs[2].values == (("jobs.0.units", 4), ("engine", "population"))


def test_commas_inside_a_value_do_not_part_it(scenario: Path) -> None:
    faults = "faults=[],[{kind='kill', at_s=5, share=0.1}]"
    runs = plan(scenario, range(1), [faults], [], seconds=None)
    assert [run.values[0][1] for run in runs] == [[], [{"kind": "kill", "at_s": 5, "share": 0.1}]]


def test_a_wrong_value_is_said_before_the_first_run(scenario: Path) -> None:
    with pytest.raises(ConfigError, match=r"peers\.count must be"):
        plan(scenario, range(3), ["peers.count=8,zero"], [], seconds=None)
    with pytest.raises(ConfigError, match="a sweep has at most"):
        plan(scenario, range(10_000_000), [], [], seconds=None)


def test_intervals_are_students() -> None:
    assert interval([5.0]) == 0.0
    assert interval([1.0, 2.0, 3.0]) == pytest.approx(2.484, abs=0.001)
    hundred = [0.0, 1.0] * 50
    assert interval(hundred) == pytest.approx(0.0997, abs=0.0005)
    assert figure([]) == "–"
    assert figure([2.0]) == "2", "of one run there is no interval"
    assert figure([1.0, 2.0, 3.0]) == "2 ± 2.5"


def test_one_bad_run_does_not_end_the_others(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 2 hits a bug, seed 3 is caught by a checker."""
    whole, twice = engine.Run.summary, checkers.Finding("single-final", 1.0, 3, "a vote was counted twice")

    def summary(run: engine.Run) -> dict[str, object]:
        if run.seed == 2:
            raise ZeroDivisionError("planted")
        return whole(run)

    def finish(watch: checkers.Watch) -> list[checkers.Finding]:
        return [twice] if watch._world.seed == 3 else []

    monkeypatch.setattr(engine.Run, "summary", summary)
    monkeypatch.setattr(checkers.Watch, "finish", finish)
    folder = tmp_path / "out"
    folder.mkdir()
    sweep = Sweep(plan(scenario, range(1, 5), [], [], seconds=None), folder)
    with ThreadPoolExecutor(1) as pool:
        sweep.run(pool, lambda: False, lambda: None)
    told = rows(folder)
    assert [row["seed"] for row in told] == ["1", "2", "3", "4"]
    assert [bool(row["error"]) for row in told] == [False, True, True, False]
    assert "ZeroDivisionError: planted" in told[1]["error"]
    assert told[2]["findings"] == "1"
    assert "a vote was counted twice" in told[2]["error"]
    assert sweep.failed == 2
    assert sweep.first_failure.startswith("seed 2: a bug in the simulator")
    assert not sweep.interrupted


def test_a_stopped_sweep_has_the_rows_of_what_ended(scenario: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    sweep = Sweep(plan(scenario, range(1, 50), [], [], seconds=None), folder)
    with ThreadPoolExecutor(1) as pool:
        sweep.run(pool, lambda: sweep.ended >= 2, lambda: None)
        pool.shutdown(cancel_futures=True)
    assert sweep.interrupted
    assert len(rows(folder)) == sweep.ended < 49
