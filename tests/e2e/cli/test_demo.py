"""``sparkle demo`` as users run it: real nodes over libp2p, and nothing left behind however it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sparkle_p2p.cli.demo import PICTURE

pytestmark = pytest.mark.timeout(180)


def launch(tmp_path: Path, *arguments: str) -> "subprocess.Popen[str]":
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sparkle_p2p.cli.main", "demo", *arguments],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )


def descendants_until(process: "subprocess.Popen[str]", text: str) -> list[psutil.Process]:
    """Everything the demo has started by the time it says ``text``."""
    assert process.stderr is not None
    seen = ""
    while text not in seen:
        line = process.stderr.readline()
        assert line, f"the demo ended without saying '{text}': {seen}"
        seen += line
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) >= 3
    return found


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


def test_five_peers_count_the_primes_draw_the_picture_and_catch_the_liar(tmp_path: Path) -> None:
    process = launch(tmp_path, "--json", "--out", str(tmp_path))
    output, errors = process.communicate(timeout=170)
    assert process.returncode == 0, errors
    document = json.loads(output)
    assert document["primes"] == {"counted": 50847534, "published": 50847534}
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    *honest, liar = document["peers"]
    assert len(honest) == 4
    assert [peer["rejected"] for peer in honest] == [0, 0, 0, 0]
    assert sum(peer["accepted"] for peer in honest) >= document["units_verified"]
    assert liar["lying"]
    assert (liar["accepted"], bool(liar["evidence"])) == (0, True)
    assert liar["rejected"] > 0
    credit = document["credit"]
    balances = {peer: account["balance_micro"] for peer, account in credit["accounts"].items()}
    assert sum(balances.values()) == credit["sum_micro"] == 0
    assert credit["earned_micro"] == credit["final_price_micro"] > 0
    assert credit["accounts"][liar["peer_id"]]["earned_micro"] == 0
    assert credit["violations"] == []
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = launch(tmp_path, "--peers", "3", "--stop", "1e12")
    started = descendants_until(process, "submits the jobs")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert_gone(started)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_no_peer_outlives_a_killed_demo(tmp_path: Path) -> None:
    process = launch(tmp_path, "--peers", "3", "--stop", "1e12")
    started = descendants_until(process, "submits the jobs")
    process.kill()
    process.communicate(timeout=30)
    assert_gone(started)


def test_a_peer_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    """A file where the library belongs breaks every peer's start; the demo says so and cleans up."""
    broken = tmp_path / "broken" / "libp2p.py"
    broken.parent.mkdir()
    broken.write_text("raise ImportError('no libp2p for this test')")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sparkle_p2p.cli.main", "demo", "--peers", "2", "--cheaters", "0"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(broken.parent), "TMPDIR": str(tmp_path)},
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert "peer 1 ended at its start" in last
    assert "its log is" in last
    log = Path(last.rpartition("its log is ")[2])
    assert "no libp2p for this test" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--peers", "2"), "at least two of the peers must be honest"),
        (("--peers", "99"), "99 is not between 2 and 32"),
        (("--out", "missing"), "the directory missing does not exist"),
        (("--stop", "1.5"), "'1.5' is not a whole number"),
    ],
)
def test_impossible_demos_are_refused(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    process = launch(tmp_path, *arguments)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert expected in errors
