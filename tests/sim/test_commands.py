"""``sparkle-sim shrink`` and ``replay``, as a user calls them."""

import argparse
import json
from pathlib import Path

import pytest

from sparkle_sim.cli import replay, shrink
from sparkle_sim.reading import read_scenario
from sparkle_sim.scenario import Fault, JobPlan, Peers, Scenario
from sparkle_sim.shrinking import to_toml
from tests.sim import planted

SCENARIO = Scenario(
    "small",
    seconds=60.0,
    peers=Peers(6, 1.0),
    jobs=[JobPlan(at_s=3.0, units=3, unit_s=2.0)],
    faults=[Fault("freeze", 4.0, 1.0, peers=[2]), Fault("kill", 30.0, 1.0, peers=[3])],
)


def called(*words: str) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for command in (shrink, replay):
        command.add_parser(commands)
    arguments = parser.parse_args(words)
    return int(arguments.command(arguments))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(to_toml(SCENARIO), encoding="utf-8")
    return path


def test_a_failing_run_becomes_a_file_that_replay_shows(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted.commits_before_it_stores(monkeypatch)
    assert called("shrink", str(file), "--seed", "4", "--out", str(tmp_path / "kept")) == 0
    said = capsys.readouterr()
    assert "left before it was stored (promises)" in said.out
    assert "run 1: fails with 2 faults, 6 peers, 3 units, 60 s" in said.err
    kept = tmp_path / "kept" / "small.toml"
    assert not read_scenario(kept).faults
    assert called("replay", str(kept), "--peer", "0", "--to", "5") == 1
    said = capsys.readouterr()
    assert "job_published" in said.out
    assert said.err.startswith("found: ")
    monkeypatch.undo()
    assert called("replay", str(kept), "--peer", "0") == 0


def test_replay_prints_json_and_says_what_it_left_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("replay", str(file), "--seed", "4", "--limit", "3", "--json") == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert lines[0]["what"] == "start"
    assert len(lines) == 3
    assert "more lines" in said.err
