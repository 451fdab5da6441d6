"""``run.py soak --simulated``: many seeds at a time, an end whenever one likes, and a file of each that fails."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sparkle_sim.reading import read_scenario
from sparkle_sim.replaying import Window, of_file, replay
from sparkle_sim.seeds import first_finding
from tests.sim import planted
from tests.soak import run as soak
from tests.soak import simulated

SOAK = [sys.executable, str(Path(soak.__file__)), "--simulated", "--at-once", "1", "--json"]


class Here(Executor):
    """Makes runs in this process, where errors can be planted."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **_: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(call(*arguments))
        return future


@contextmanager
def here(*_: object) -> Iterator[Executor]:
    yield Here()


def test_a_seed_that_fails_is_kept_as_a_scenario_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulated, "executor", here)
    planted.commits_before_it_stores(monkeypatch)
    assert soak.main(["--simulated", "--seeds", "2", "--first", "30", "--out", str(tmp_path), "--json"]) == 1
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert [one["seed"] for one in summary["failing_seeds"]] == [30, 31]
    assert (summary["seeds"], summary["interrupted"]) == (2, False)
    assert "2 of 2 seeds, 2 failed" in told.err
    for one in summary["failing_seeds"]:
        assert f"soak: seed {one['seed']}: {one['finding']}" in told.err
        assert f"sparkle-sim shrink {one['file']}" in told.err
        scenario, seed = of_file(Path(one["file"]))
        assert seed == one["seed"]
        assert read_scenario(Path(one["file"])).title == one["finding"]
        assert [str(finding) for finding in replay(scenario, seed, Window(limit=0), print).findings[:1]] == [
            one["finding"]
        ]


def test_an_error_of_the_cores_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("sparkle_protocol.work.kept_job.KeptJob.report", broken)
    monkeypatch.setattr(simulated, "executor", here)
    hunt = simulated.Hunt(range(4, 5), tmp_path)
    hunt.run(1)
    text, file = hunt.found[4]
    assert "IndexError: list index out of range, in broken of test_soak.py (raised)" in text
    assert first_finding(read_scenario(file), 4) is not None


def test_it_can_be_stopped_and_says_what_it_did() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*SOAK, "--seeds", "40"], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        while "4 of 40 seeds" not in (line := process.stderr.readline()):
            assert line, "it ended by itself"
        assert "seeds/s  ETA" in line
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    summary = json.loads(out)
    assert process.returncode == 130
    assert summary["interrupted"]
    assert 4 <= summary["seeds"] < 40
    assert summary["failing_seeds"] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--simulated", "--nodes", "4"), "--nodes has no effect with --simulated"),
        (("--out", "x"), "is for --simulated"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        soak.main(arguments)
    assert expected in capsys.readouterr().err
