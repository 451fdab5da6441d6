"""Nodes that cannot start: one sentence on stderr, the right exit code, nothing left behind."""

import contextlib
import os
import socket
import sqlite3
from pathlib import Path

import pytest

from sparkle_p2p.home import HomeDir
from tests.e2e.node.processes import Ran, Swarm, run


async def start(home: Path, *arguments: str, net: str = "test-start") -> Ran:
    """Run a node that is expected to end by itself."""
    return await run(
        "sparkle-node", "--headless", "--json", "--home", str(home), "--net", net, "--no-mdns",
        "--listen", "/ip4/127.0.0.1/tcp/0", *arguments, timeout_s=60,
    )  # fmt: skip


def check_sentence(ended: Ran, code: int, *words: str) -> None:
    """One sentence for people on stderr, nothing else."""
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.code == code, ended
    assert lines[-1].startswith("sparkle-node: "), ended
    assert "Traceback" not in ended.err
    assert '"ready"' not in ended.out
    for word in words:
        assert word in lines[-1], ended


async def test_a_home_in_use(swarm: Swarm) -> None:
    """Code 3; the node that is there goes on."""
    (node,) = await swarm.start(1)
    ended = await start(node.home)
    check_sentence(ended, 3, str(node.process.pid), "sparkle-node attach")
    assert (await node.status())["state"] == "idle"


async def test_a_port_in_use(tmp_path: Path) -> None:
    """The sentence names the address, for the network and for the API."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        ended = await start(tmp_path / "a", "--listen", f"/ip4/127.0.0.1/tcp/{port}")
        check_sentence(ended, 2, str(port), "in use")
        ended = await start(tmp_path / "b", "--api", f"127.0.0.1:{port}")
        check_sentence(ended, 2, str(port), "in use")


@pytest.mark.parametrize("kind", ["garbage", "short", "empty", "readable", "directory", "foreign"])
async def test_a_key_file_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    """Nothing overwrites it: it may be somebody's identity."""
    home = tmp_path / "home"
    HomeDir.open(home).close()
    key = home / "identity.key"
    before = key.read_bytes()
    if kind == "directory":
        key.unlink()
        key.mkdir()
    elif kind == "readable":
        key.chmod(0o644)
    elif kind == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(key, 12345, 12345)
    else:
        before = {"garbage": os.urandom(80), "short": before[:30], "empty": b""}[kind]
        key.write_bytes(before)
    ended = await start(home)
    check_sentence(ended, 2, "identity.key")
    if kind != "directory":
        assert key.read_bytes() == before


async def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    """From a newer version, damaged, or no database at all; it is never changed."""
    newer, damaged, foreign = (tmp_path / name for name in ("newer", "damaged", "foreign"))
    for home in (newer, damaged, foreign):
        HomeDir.open(home).close()
    with contextlib.closing(sqlite3.connect(newer / "node.db")) as db:
        db.execute("PRAGMA user_version=99")
    (damaged / "node.db").write_bytes(b"SQLite format 3\x00" + os.urandom(8192))
    (foreign / "node.db").write_bytes(b"not a database at all, but somebody's letters" * 100)
    for home, words in (
        (newer, ("newer Sparkle", "update")),
        (damaged, ("node.db", "damaged")),
        (foreign, ("node.db", "damaged")),
    ):
        before = (home / "node.db").read_bytes()
        check_sentence(await start(home), 2, *words)
        assert (home / "node.db").read_bytes() == before


async def test_wrong_words_on_the_command_line(tmp_path: Path) -> None:
    """Code 2 and the flag's name."""
    for arguments, word in (
        (["--bootstrap", "example.org:4001"], "--bootstrap"),
        (["--bootstrap", "/ip4/1.2.3.4/tcp/4001"], "/p2p/"),
        (["--listen", "/ip4/300.0.0.1/tcp/0"], "300.0.0.1"),
        (["--net", "no such/net"], "--net"),
        (["--slots", "0"], "--slots"),
        (["--api", "nowhere"], "--api"),
    ):
        check_sentence(await start(tmp_path / "home", *arguments), 2, word)
