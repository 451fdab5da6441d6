"""The real client against the real server: every answer, every error, events, and a node that goes away."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.api.documents import view_from_json
from sparkle_p2p.view import Reason
from sparkle_p2p.web.routes import MAX_EVENT_CLIENTS
from sparkle_protocol.errors import ConfigError, NodeNotRunning, NotFound

T = TypeVar("T")


async def call(function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.wait_for(asyncio.to_thread(function, *arguments), 20)


async def test_status_and_view_come_across_unchanged(node: Any) -> None:
    status = await call(node.client.status)
    assert status["reason"] == {"code": "ok", "sentence": "Computing.", "numbers": {"n": 1}}
    assert status["cpu_percent"] == 42.13
    await call(node.client.submit, "prime_count", {"stop": 100})
    assert view_from_json(await call(node.client.view_bytes)) == node.control.view()


async def test_a_job_from_submission_to_result(node: Any, fake: Any) -> None:
    job = await call(node.client.submit, "prime_count", {"start": 0, "stop": 100}, 4, "critical")
    assert node.control.submitted[0].params == {"start": 0, "stop": 100}
    assert (node.control.submitted[0].units, node.control.submitted[0].verify) == (4, "critical")
    with pytest.raises(ConfigError, match="is running"):
        await call(node.client.result, job)
    states = [(await call(node.client.job, job[:8]))["state"] for _ in range(4)]
    assert states == ["running", "running", "running", "done"]
    document = (await call(node.client.jobs))[0]
    assert document["units"] == {
        "total": 4, "pending": 0, "leased": 0, "committed": 0, "provisional": 0, "final": 4, "dead": 0,
    }  # fmt: skip
    assert document["workers"] == {fake.OTHER: 4}
    assert (await call(node.client.result, job))["value"] == {"count": 25}


async def test_binary_results_arrive_whole(node: Any, fake: Any) -> None:
    job = await call(node.client.submit, "mandelbrot", {}, 1)
    await call(node.client.job, job)
    result = await call(node.client.result, job)
    assert (result["media_type"], result["data"]) == ("image/png", fake.PNG)


async def test_commands_reach_the_node(node: Any, fake: Any) -> None:
    assert (await call(node.client.pause))["state"] == "paused"
    assert (await call(node.client.resume))["state"] == "working"
    job = await call(node.client.submit, "endless", {})
    assert (await call(node.client.cancel, job))["state"] == "cancelled"
    assert (await call(node.client.why))["subject"] == "node"
    assert (await call(node.client.why, "ab/3"))["subject"] == "ab/3"
    assert (await call(node.client.kernels))[0]["name"] == "prime_count"
    assert (await call(node.client.peers))[1]["standing"] == "rejected"


async def test_dead_units_are_listed_and_begun_anew(node: Any, fake: Any) -> None:
    job = await call(node.client.submit, "endless", {"dead": 2})
    other = await call(node.client.submit, "endless", {})
    listed = await call(node.client.dead)
    assert [(unit["job"], unit["unit"], unit["epoch"]) for unit in listed] == [(job, 0, 0), (job, 1, 0)]
    assert listed[0]["attempts"][0]["worker"] == fake.OTHER
    assert await call(node.client.dead, other) == []
    assert await call(node.client.requeue, job, 1) == {"job": job, "units": [1], "state": "running"}
    assert (await call(node.client.requeue, job))["units"] == [0]
    with pytest.raises(ConfigError, match="nothing to requeue"):
        await call(node.client.requeue, job)
    with pytest.raises(NotFound):
        await call(node.client.dead, "ffff")
    for unit in ("-1", "x", "9" * 20):
        with pytest.raises(ConfigError, match="is no unit"):
            await call(node.client.request, "POST", f"/api/v1/jobs/{job}/requeue?unit={unit}")


async def test_errors_come_back_as_themselves(node: Any) -> None:
    with pytest.raises(NotFound, match="no job 'ffff'"):
        await call(node.client.job, "ffff")
    with pytest.raises(NotFound):
        await call(node.client.why, "somebody else/%2e%2e?&#ü")
    with pytest.raises(ConfigError, match="no kernel 'zebra'"):
        await call(node.client.submit, "zebra", {})
    with pytest.raises(ConfigError, match="1 to 256"):
        await call(node.client.job, "f" * 300)
    with pytest.raises(NotFound):
        await call(node.client.job, "../status")


async def test_a_node_that_has_gone_is_noticed(node: Any) -> None:
    client = node.client
    await node.server.stop()
    with pytest.raises(NodeNotRunning, match="does not answer on port"):
        await call(client.status)
    node.home.close()
    with pytest.raises(NodeNotRunning, match="no node is running"):
        await call(client.status)


async def test_another_program_on_the_port_is_not_taken_for_a_node(node: Any) -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        node.home.announce(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(NodeNotRunning, match=r"not a Sparkle node|stopped before"):
            await call(node.client.status)


async def test_an_answer_cut_short_is_an_error(node: Any) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        node.home.announce(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(NodeNotRunning, match="before it had answered"):
            await call(node.client.status)


async def test_a_node_that_never_answers_runs_into_the_time_out(node: Any) -> None:
    from sparkle_protocol.errors import RequestTimeout

    released = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        node.home.announce(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(RequestTimeout):
            await call(node.client.request, "GET", "/api/v1/status", b"", 0.2)
        released.set()


async def test_events_flow_through_silence_until_the_node_stops(node: Any) -> None:
    seen: list[dict[str, Any]] = []
    first, ended = threading.Event(), threading.Event()
    outcome: list[BaseException] = []

    def follow() -> None:
        try:
            for event in node.client.events():
                seen.append(event)
                first.set()
        except NodeNotRunning as error:
            outcome.append(error)
        ended.set()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    await asyncio.wait_for(node.control.listening.wait(), 20)
    node.control.emit("unit-done", unit=3, text="line\nbreak")
    assert await call(first.wait, 10)
    assert seen[0] == {"event": "unit-done", "time": 1_700_000_000.0, "unit": 3, "text": "line\nbreak"}
    await asyncio.wait_for(node.server.stop(), 10)
    assert await call(ended.wait, 10)
    assert "has stopped" in str(outcome[0])
    assert node.control.queues == []


async def test_a_follower_can_stop_by_itself(node: Any) -> None:
    stop = threading.Event()
    follower = asyncio.create_task(call(lambda: list(node.client.events(stop.is_set))))
    await asyncio.wait_for(node.control.listening.wait(), 20)
    stop.set()
    assert await follower == []


async def test_a_node_that_ends_as_a_follower_comes_is_gone_not_broken(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr("sparkle_p2p.api.client._send", reset)
    with pytest.raises(NodeNotRunning, match="has stopped"):
        await call(lambda: list(node.client.events()))


async def test_more_followers_than_allowed_are_turned_away(node: Any) -> None:
    head = (
        f"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{node.port}\r\n"
        f"Authorization: Bearer {node.home.token}\r\n\r\n"
    )
    writers = []
    for _ in range(MAX_EVENT_CLIENTS):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writers.append(writer)
        writer.write(head.encode())
        await asyncio.wait_for(reader.readuntil(b": sparkle events"), 10)
    with pytest.raises(ConfigError, match="follow the events already"):
        await call(lambda: list(node.client.events()))
    for writer in writers:
        writer.close()


async def test_health_needs_no_token_and_follows_the_network(node: Any) -> None:
    def probe(path: str) -> int:
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(node.url + path, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert await call(probe, "/healthz") == 200
    assert await call(probe, "/readyz") == 200
    node.control.network = "down"
    assert await call(probe, "/readyz") == 503
    assert await call(probe, "/healthz") == 200
    node.control.network = "connected"
    node.control.reason = Reason("storage_failed", "Nothing can be stored: the disk is full.")
    assert await call(probe, "/readyz") == 503
    assert await call(probe, "/healthz") == 200


def test_the_fast_path_stays_free_of_slow_imports(tmp_path: Path) -> None:
    import subprocess
    import sys

    slow = "{'json', 're', 'typing', 'socket', 'pathlib', 'argparse', 'asyncio', 'dataclasses', 'http'}"
    script = f"import sys, sparkle_p2p.api.client; print(sorted({slow} & set(sys.modules)))"
    command = [sys.executable, "-S", "-c", script]
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout == "[]\n"


def test_a_home_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is not a directory"):
        LocalClient(tmp_path / "file").status()
