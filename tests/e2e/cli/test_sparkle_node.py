"""``sparkle-node`` as a process: its first line, its events, its end, and what stops it from starting."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkle_p2p.api.client import LocalClient

SCRIPT = Path(__file__).with_name("fake_service.py")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a headless node; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def launch(mode: str, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, str(SCRIPT), mode, "--home", str(tmp_path / "home"), *arguments]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SPARKLE_")}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environ, **options
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate(timeout=10)


def first_line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    document: dict[str, Any] = json.loads(process.stdout.readline())
    return document


def wait_for_log(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stderr is not None
    seen = ""
    while text not in seen:
        line = process.stderr.readline()
        assert line, f"it ended without saying '{text}': {seen}"
        seen += line


def end(process: "subprocess.Popen[str]", timeout_s: float = 20) -> tuple[int, str]:
    _, errors = process.communicate(timeout=timeout_s)
    return process.returncode, errors


def test_the_first_json_line_says_everything_needed_to_use_it(start: Start, tmp_path: Path) -> None:
    process = start("good", "--headless", "--json")
    ready = first_line(process)
    assert ready["event"] == "ready"
    assert ready["pid"] == process.pid
    assert ready["addrs"] == [f"/ip4/127.0.0.1/tcp/4001/p2p/{ready['peer_id']}"]
    assert ready["startup_ms"]["network"] == 1.5
    assert 0 < ready["startup_ms"]["total"] < 60_000
    client = LocalClient(tmp_path / "home")
    assert client.status()["peer_id"] == ready["peer_id"]
    assert process.stdout is not None
    while True:  # the node subscribes right after the ready line: ask until the event is seen
        client.pause()
        if json.loads(process.stdout.readline())["event"] == "paused":
            break
    process.send_signal(signal.SIGTERM)
    code, errors = end(process)
    assert code == 0
    assert "leaving on SIGTERM" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "home" / "node.json").exists()


def test_without_json_stdout_stays_empty(start: Start) -> None:
    process = start("good", "--headless")
    wait_for_log(process, "others reach this node at")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, "")
    assert "left" in errors


def test_it_can_be_stopped_before_it_is_ready(start: Start) -> None:
    process = start("silent", "--headless", "--json")
    wait_for_log(process, "the local API answers")
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    process = start("stuck", "--headless", "--json")
    first_line(process)
    process.send_signal(signal.SIGTERM)
    wait_for_log(process, "leaving on SIGTERM")
    process.send_signal(signal.SIGINT)
    assert end(process, 5)[0] == 128 + signal.SIGINT


def test_a_node_that_does_not_leave_is_ended_after_ten_seconds(start: Start) -> None:
    process = start("stuck", "--headless", "--json")
    first_line(process)
    process.send_signal(signal.SIGTERM)
    code, errors = end(process, 15)
    assert code == 1
    assert "did not leave within 10 s" in errors


def test_a_node_that_cannot_start_says_why_in_one_sentence(start: Start) -> None:
    process = start("broken", "--headless", "--json")
    code, errors = end(process)
    assert code == 2
    assert errors.strip().splitlines()[-1] == ("sparkle-node: port 4001 is in use; choose another with --listen")
    assert "Traceback" not in errors


def test_a_home_in_use_and_an_api_port_in_use_are_named(start: Start, tmp_path: Path) -> None:
    process = start("good", "--headless", "--json")
    api = first_line(process)["api"].removeprefix("http://")
    code, errors = end(start("good", "--headless"))
    assert code == 3
    assert f"process {process.pid}" in errors
    code, errors = end(start("good", "--headless", "--home", str(tmp_path / "other"), "--api", api))
    assert code == 2
    assert "is in use, so the API cannot listen" in errors


def test_a_reader_that_leaves_does_not_stop_the_node(start: Start, tmp_path: Path) -> None:
    process = start("good", "--headless", "--json")
    first_line(process)
    assert process.stdout is not None
    process.stdout.close()
    client = LocalClient(tmp_path / "home")
    for _ in range(5):
        client.pause()
    assert client.status()["state"] == "paused"
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "there is no terminal to draw on; use 'sparkle-node --headless'"),
        (("--json",), "add --headless"),
        (("--headless", "--slots", "0"), "0 is not between 1 and 256"),
        (("--headless", "--bootstrap", "/ip4/1.2.3.4/tcp/1"), "--bootstrap is '/ip4/1.2.3.4/tcp/1', but must end"),
        (("--headless", "--api", "0.0.0.0:80"), "stays on this machine"),
        (("--headless", "--frobnicate"), "unrecognized arguments: --frobnicate"),
        (("attach",), "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(start: Start, arguments: tuple[str, ...], expected: str) -> None:
    code, errors = end(start("good", *arguments))
    assert code == 2
    assert expected in errors
    assert len(errors.strip().splitlines()) == 1
