"""The soak as a command: progress, a summary, and an end whenever one likes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.e2e.chaos.chaos_run import Outcome
from tests.e2e.chaos.schedule import make_schedule

SOAK = Path(__file__).parents[2] / "soak" / "run.py"


def test_an_interrupted_soak_says_what_it_did_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SOAK),
        *["--seeds", "50", "--first", "1", "--nodes", "1", "--length", "0.5", "--json"],
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as soak:
        assert soak.stderr is not None
        first = soak.stderr.readline()
        nodes = psutil.Process(soak.pid).children(recursive=True)
        soak.send_signal(signal.SIGINT)
        out, _ = soak.communicate(timeout=60)
    assert first.startswith("soak: seed 1 (1 of 50): ok")
    assert "left" in first
    assert soak.returncode == 130
    summary = json.loads(out)
    assert summary["interrupted"]
    assert summary["seeds"] == 1
    assert summary["violating_seeds"] == []
    assert summary["units"] > 0
    assert psutil.wait_procs(nodes, timeout=10)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_a_report_holds_what_is_needed_to_go_on() -> None:
    outcome = Outcome(
        make_schedule(31, 4, 12.0), ["something is lost"], ["   1.00 s  kill n1"], {"n1": "its last words"}
    )
    assert outcome.command == "python3 run.py soak --first 31 --seeds 1 --nodes 4 --length 12"
    for part in ("seed 31", "something is lost", "1.00 s  kill n1", "its last words", outcome.command):
        assert part in outcome.report()
