"""``sparkle``'s commands against a node that answers: what people and scripts see, and the exit codes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sparkle_p2p.cli.main import main

FAKE_NODE = Path(__file__).parents[2] / "web" / "fake_node.py"
PROGRAM = [sys.executable, "-P", "-m", "sparkle_p2p.cli.main"]


@dataclass
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Sparkle = Callable[..., Said]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a fake node that runs as a process of its own, for all tests here."""
    path = tmp_path_factory.mktemp("fake-node")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(FAKE_NODE), str(path)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield path
        process.kill()


@pytest.fixture
def sparkle(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sparkle:
    """Runs a command in this process."""
    monkeypatch.setenv("SPARKLE_HOME", str(home))

    def run(*arguments: str) -> Said:
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


def test_status_says_what_the_node_does_and_why(sparkle: Sparkle) -> None:
    said = sparkle("status")
    assert said.code == 0
    assert said.out.splitlines()[0] == "working: Computing."
    assert "connected, 2 peers" in said.out
    assert "105 MB" in said.out
    assert "  workers  2 known by their work here" in said.out.splitlines()
    assert "  warning  the memory of worker processes cannot be limited: not Linux" in said.out.splitlines()


def test_status_json_is_the_documented_document(sparkle: Sparkle, home: Path) -> None:
    document = sparkle("status", "--json").document
    assert {"peer_id", "net", "state", "reason", "peers", "units_done", "units_verified", "credit_micro"} <= set(
        document
    )
    assert document["known_workers"] == 2
    assert document["units_running"] == 1  # of two that it holds: the other one was handed in
    assert {"cpu_percent", "pss_bytes", "limits", "missing_protections", "version"} <= set(document)
    for form in (("--home", str(home)), (f"--home={home}",)):
        assert sparkle("status", *form, "--json").document["peer_id"] == document["peer_id"]
        assert sparkle("status", "--json", *form).code == 0
        assert sparkle(*form, "--json", "status").document["peer_id"] == document["peer_id"]
        assert "name a command" in sparkle(*form).err


def test_tables_are_aligned_and_plain_in_a_pipe(sparkle: Sparkle) -> None:
    said = sparkle("peers")
    head, first, second = said.out.splitlines()
    assert head.index("STANDING") == first.index("ok") == second.index("rejected")
    assert "\x1b" not in said.out
    assert "/p2p/" not in said.out
    assert [peer["standing"] for peer in sparkle("peers", "--json").document] == ["ok", "rejected"]


def test_a_job_is_submitted_followed_and_fetched(sparkle: Sparkle) -> None:
    said = sparkle("submit", "prime_count", "-p", "start=0", "-p", "stop=1e2", "--units", "4")
    job = said.out.strip()
    assert (said.code, len(job)) == (0, 64)
    assert f"sparkle wait {job[:12]}" in said.err
    refused = sparkle("result", job[:6])
    assert (refused.code, refused.out) == (2, "")
    assert "is running" in refused.err
    waited = sparkle("wait", job[:6])
    assert (waited.code, waited.out) == (0, "count 25\n")
    assert "4/4 units, 1 rejected, done" in waited.err
    assert "  work     8 executions (2.00 per unit), 1 rejected" in sparkle("job", job).out.splitlines()
    document = sparkle("job", job, "--json").document
    assert document["params"] == {"start": "0", "stop": "1e2"}
    assert document["state"] == "done"
    assert "two other peers agree on another result" in sparkle("job", job).out
    assert sparkle("result", job).out == "count 25\n"
    assert sparkle("result", job, "--json").document["value"] == {"count": 25}
    assert f"{job[:12]}  prime_count  done" in sparkle("jobs").out


def test_submit_wait_json_prints_one_document(sparkle: Sparkle) -> None:
    said = sparkle("submit", "prime_count", "--wait", "--json")
    assert said.code == 0
    assert said.document["result"] == {"count": 25}


def test_a_picture_lands_in_its_file(sparkle: Sparkle, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    said = sparkle("submit", "mandelbrot", "--wait", "-o", str(picture))
    assert (said.code, said.out) == (0, "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"wrote {picture} (264 B)" in said.err
    job = sparkle("jobs", "--json").document[0]["job"]
    assert f"'sparkle result {job[:12]} -o result.png' writes it" in sparkle("wait", job).err
    described = sparkle("result", job, "--json").document
    assert (described["media_type"], described["size_bytes"], "data" in described) == ("image/png", 264, False)
    assert f"sparkle result {job[:12]} -o result.png" in sparkle("result", job).err


def test_an_unwritable_target_is_refused_before_the_job_is_submitted(sparkle: Sparkle, tmp_path: Path) -> None:
    before = sparkle("jobs", "--json").document
    for target in (tmp_path / "missing" / "file.png", tmp_path):
        said = sparkle("submit", "mandelbrot", "--wait", "-o", str(target))
        assert said.code == 2
        assert len(said.err.splitlines()) == 1
    assert sparkle("jobs", "--json").document == before


def test_cancelled_jobs_end_a_wait_with_exit_code_1(sparkle: Sparkle) -> None:
    job = sparkle("submit", "endless").out.strip()
    assert f"'sparkle why {job[:12]}' says why" in sparkle("job", job).out
    assert sparkle("cancel", job).out == f"{job[:12]}: cancelled\n"
    said = sparkle("wait", job)
    assert said.code == 1
    assert "was cancelled" in said.err


def test_why_pause_resume_kernels(sparkle: Sparkle) -> None:
    assert "latency_ms 1.25" in sparkle("why").out
    assert sparkle("why", "--json").document["headline"]["code"] == "ok"
    assert sparkle("pause").out == "paused: You paused it.\n"
    assert sparkle("resume", "--json").document["state"] == "working"
    assert "verification: exact" in sparkle("kernels").out


def test_why_tells_a_story_with_local_times_and_its_days(sparkle: Sparkle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        said = sparkle("why", "ab/3").out.splitlines()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert said[-5:] == [
        "2023-11-14",
        "  22:13:20           Submitted: primes in 4 units.",
        "  22:14:20–22:14:51  …Other lost 3 �[2Jleases.",
        "2023-11-16",
        "  22:13:20           Done.",
    ]


def test_status_says_what_is_weaker_with_few_peers(sparkle: Sparkle) -> None:
    assert "With 3 peers only the submitter accepts." in sparkle("status").out
    safety = sparkle("status", "--json").document["safety"]
    assert (safety["code"], safety["peers"]) == ("submitter_only", 3)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("job", "ffff"), 1, "no job 'ffff' is known"),
        (("why", "nobody"), 1, "nothing called 'nobody'"),
        (("submit", "zebra"), 2, "there is no kernel 'zebra'"),
        (("submit", "prime_count", "-p", "stop"), 2, "write it as -p name=value"),
        (("submit", "prime_count", "-p", "a=1", "-p", "a=2"), 2, "'a' is given twice"),
        (("submit", "prime_count", "-o", "x.json"), 2, "-o needs --wait"),
        (("submit", "mandelbrot", "--wait", "-o", "picture.JPG"), 2, "written as .png, not as .JPG; name such"),
        (("submit", "prime_count", "--units", "0"), 2, "0 is not between 1 and"),
        (("submit", "prime_count", "--verify", "never"), 2, "invalid choice: 'never'"),
        (
            ("submit", "conv2d", "--padding", "4"),
            2,
            "parameters of a kernel are given as -p NAME=VALUE, here -p padding=4;",
        ),
        (("submit", "--padding", "4", "conv2d"), 2, "here -p padding=4;"),
        (("submit", "conv2d", "--padding=4", "--wait"), 2, "here -p padding=4;"),
        (("submit", "conv2d", "padding=4"), 2, "here -p padding=4;"),
        (("submit", "gemm", "a=a.npy"), 2, "arrays are given as --input NAME=FILE, here --input a=a.npy;"),
        (("submit", "conv2d", "4"), 2, "are given as -p NAME=VALUE;"),
        (("submit",), 2, "required: KERNEL"),
        (("ledger",), 2, "required: ACTION"),
        (("ledger", "--home", "/nowhere"), 2, "required: ACTION"),
        (("ledger", "--home", "/nowhere", "verify"), 2, "there is no ledger at /nowhere/ledger.db"),
        (("statsu",), 2, "did you mean 'status'?"),
        (("zzz",), 2, "there is no command 'zzz'"),
        (("status", "--frobnicate", "--json"), 2, "unrecognized arguments: --frobnicate"),
        (("status", "--json", "--home"), 2, "expected one argument"),
    ],
)
def test_errors_are_one_sentence_with_their_exit_code(
    sparkle: Sparkle, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    said = sparkle(*arguments)
    assert (said.code, said.out) == (code, "")
    assert expected in said.err
    assert len(said.err.splitlines()) == 1


def test_without_a_node_the_exit_code_is_4(sparkle: Sparkle, tmp_path: Path) -> None:
    for command in (("status", "--json"), ("status",), ("jobs",), ("submit", "prime_count"), ("pause",)):
        said = sparkle(*command, "--home", str(tmp_path / "nowhere"))
        assert (said.code, said.out) == (4, "")
        assert f"start one with 'sparkle-node --home {tmp_path / 'nowhere'}'" in said.err


def test_a_node_of_the_usual_home_is_started_without_naming_it(
    sparkle: Sparkle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARKLE_HOME", str(tmp_path / "nowhere"))
    assert "start one with 'sparkle-node'\n" in sparkle("status").err


def test_help_and_version_need_no_node(sparkle: Sparkle) -> None:
    assert sparkle().out.startswith("usage: sparkle")
    assert sparkle("--version").out.startswith("sparkle ")
    assert "--verify" in sparkle("submit", "--help").out


@contextlib.contextmanager
def process(home: Path, *arguments: str, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A command as a process of its own."""
    pipe = subprocess.PIPE
    environ = {**os.environ, "SPARKLE_HOME": str(home)}
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdout=pipe, stderr=pipe, text=True, env=environ, **options
    ) as started:
        yield started
        started.kill()


def test_ctrl_c_leaves_the_job_running_and_says_how_to_follow_it(home: Path, sparkle: Sparkle) -> None:
    with process(home, "submit", "endless", "--wait") as waiting:
        assert waiting.stderr is not None
        while "0/4 units" not in (line := waiting.stderr.readline()):
            assert line
        waiting.send_signal(signal.SIGINT)
        _, errors = waiting.communicate(timeout=10)
    assert waiting.returncode == 130
    job = sparkle("jobs", "--json").document[0]
    assert job["state"] == "running"
    assert f"'sparkle wait {job['job'][:12]}' follows it" in errors
    assert "Traceback" not in errors


def test_a_pipe_that_closes_early_is_harmless(home: Path, sparkle: Sparkle) -> None:
    for _ in range(40):
        sparkle("submit", "endless")
    read, write = os.pipe()
    os.close(read)
    for command in (("jobs",), ("jobs", "--json"), ("status", "--json")):
        environ = {**os.environ, "SPARKLE_HOME": str(home)}
        done = subprocess.run(
            [*PROGRAM, *command], stdout=write, stderr=subprocess.PIPE, text=True, env=environ, timeout=20
        )
        assert (done.returncode, done.stderr) == (0, "")
    os.close(write)


def test_dead_lists_units_with_their_evidence_and_begins_them_anew(sparkle: Sparkle) -> None:
    assert sparkle("dead").out == "no unit is dead\n"
    job = sparkle("submit", "endless", "-p", "dead=3").out.strip()
    said = sparkle("dead", job[:8])
    assert said.code == 0
    lines = said.out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(job[:8])
    assert "/0  Unit failed on 3 workers" in lines[0]
    assert "kernel" in lines[1]
    assert "\x1b" not in said.out
    assert "--requeue" in said.err
    assert [unit["unit"] for unit in sparkle("dead", "--json").document] == [0, 1, 2]
    assert sparkle("dead", "--requeue", f"{job}/1", "--json").document == {
        "job": job, "units": [1], "state": "running",
    }  # fmt: skip
    assert "2 units begun anew" in sparkle("dead", "--requeue", job[:10]).out
    assert sparkle("dead", job).out == "no unit is dead\n"
    again = sparkle("dead", "--requeue", job)
    assert again.code == 2
    assert "nothing to requeue" in again.err


@pytest.mark.parametrize("wrong", [("--requeue", "ab/x"), ("--requeue", "ab/-1"), ("ab", "--requeue", "ab")])
def test_dead_refuses_what_it_cannot_mean(sparkle: Sparkle, wrong: tuple[str, ...]) -> None:
    said = sparkle("dead", *wrong)
    assert said.code == 2
    assert said.err.count("\n") == 1


def test_advice_names_commands_that_exist(sparkle: Sparkle) -> None:
    """Every ``'sparkle …'`` in a sentence of ours can be typed."""
    root = Path(__file__).parents[3]
    advised = {
        command
        for folder in ("protocol", "sparkle_p2p", "tui", "worker")
        for source in (root / folder).rglob("*.py")
        for command in re.findall(r"'sparkle ([a-z-]+)", source.read_text())
    }
    assert {"status", "why", "wait"} <= advised
    for command in advised:
        assert sparkle(command, "--help").code == 0, command
