"""What ``sparkle doctor`` finds on a machine without a node, and how it says so."""

import errno
import json
import os
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkle_ledger import store
from sparkle_ledger.genesis import GenesisRecord
from sparkle_ledger.store.schema import open_ledger
from sparkle_p2p.cli import local_checks
from sparkle_p2p.cli.main import main
from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import HomeDir
from sparkle_p2p.node import room
from sparkle_p2p.node.store.schema import open_database
from sparkle_p2p.view import Finding
from sparkle_protocol.ids import JobId

PEER = "12D3KooWHrTvH4VQ24pGBZYPKnk61sCSgzFDGEy3FbFGezvmwW7B"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory that a node has used before."""
    path = tmp_path / "home"
    HomeDir.open(path).close()
    open_database(path / "node.db").close()
    open_ledger(path / "ledger.db", "main").close()
    return path


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def found(home: Path, check: str) -> list[Finding]:
    return [one for one in local_checks.check_machine(home, running=False) if one.check == check]


def only(home: Path, check: str) -> Finding:
    (finding,) = found(home, check)
    return finding


def spoil(path: Path) -> None:
    """What a bad disk does: the middle of the file holds something else."""
    data = bytearray(path.read_bytes())
    data[100:-100] = b"\xff" * (len(data) - 200)
    path.write_bytes(data)


def test_a_healthy_home_passes_and_one_that_does_not_exist_is_nothing_bad(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--home", str(home)]) == 0
    said = capsys.readouterr()
    assert "fail" not in said.out
    assert "node.db is whole" in said.out
    assert "ledger.db is whole: 0 entries" in said.out
    assert main(["doctor", "--home", str(home.parent / "none")]) == 0
    assert not (home.parent / "none").exists()


def test_json_holds_every_finding_with_code_and_fix(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "identity.key").chmod(0o644)
    assert main(["doctor", "--home", str(home), "--json"]) == 1
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["ok"], document["running"]) == (False, False)
    (key,) = [one for one in document["findings"] if one["check"] == "key"]
    assert key["level"] == "fail"
    assert key["reason"]["code"] == "key_open"
    assert key["fix"] == f"Run 'chmod 600 {home / 'identity.key'}'."
    assert said.err == "1 check failed\n"


@pytest.mark.parametrize(("check", "file"), [("database", "node.db"), ("ledger", "ledger.db")])
def test_damaged_databases_are_named(home: Path, check: str, file: str) -> None:
    spoil(home / file)
    finding = only(home, check)
    assert finding.level == "fail"
    assert file in finding.reason.sentence
    assert "Stop the node" in finding.fix


def test_files_of_a_newer_version_or_another_network_are_named(home: Path) -> None:
    with sqlite3.connect(home / "node.db") as db:
        db.execute("PRAGMA user_version=999")
    db.close()
    assert "newer Sparkle" in only(home, "database").reason.sentence
    (home / "config.toml").write_text('net = "another"\n')
    ledger = only(home, "ledger")
    assert ledger.reason.code == "ledger_of_another_network"
    assert "'main'" in ledger.reason.sentence


def test_a_ledger_that_was_judged_by_another_genesis_record_is_named(home: Path) -> None:
    (home / "swarm.toml").write_text('network = "main"\n[economy]\nstarter_credits = 3\n')
    (home / "config.toml").write_text('genesis = "swarm.toml"\n')
    ledger = only(home, "ledger")
    assert ledger.level == "ok"  # nothing is in it that was judged by another one
    db = open_ledger(home / "ledger.db", "main")
    store.keep_evidence(db, store.Evidence(JobId(bytes(32)), [b"fact"], []))
    db.close()
    ledger = only(home, "ledger")
    assert (ledger.level, ledger.reason.code) == ("warn", "ledger_of_another_genesis")
    assert GenesisRecord("main").fingerprint in ledger.reason.sentence
    assert "--genesis that it had" in ledger.fix
    (home / "swarm.toml").write_text('network = "main"\n[economy]\nstarter_credits = 10\n')
    assert only(home, "ledger").level == "ok"  # written down, it is still the default one


def test_a_configuration_that_a_node_would_not_start_with_is_named(home: Path) -> None:
    (home / "config.toml").write_text("slots = 0\n")
    finding = only(home, "configuration")
    assert finding.level == "fail"
    assert "slots" in finding.reason.sentence
    assert not found(home, "disk")  # what follows from it is not known


def test_a_directory_that_cannot_be_written_is_named(home: Path) -> None:
    if os.geteuid() == 0:  # whom permissions do not stop: nobody can make a file here
        assert only(Path("/proc"), "home").reason.code == "home_unwritable"
        return
    home.chmod(0o500)
    try:
        assert only(home, "home").reason.code == "home_unwritable"
    finally:
        home.chmod(0o700)


def test_a_full_disk_is_not_taken_for_wrong_permissions(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    finding = only(home, "home")
    assert "no space left" in finding.reason.sentence
    assert finding.fix.startswith("Free some space")


def test_a_directory_that_everybody_can_write_into_or_that_is_none_is_named(home: Path, tmp_path: Path) -> None:
    home.chmod(0o707)
    assert only(home, "home").reason.code == "home_open"
    file = tmp_path / "file"
    file.write_text("x")
    assert only(file, "home").level == "fail"
    assert only(file / "below", "home").level == "fail"


def test_ports_and_bootstraps_that_do_not_work_are_named(home: Path, taken: int) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    (home / "config.toml").write_text(
        f'listen = ["/ip4/127.0.0.1/tcp/{taken}", "/ip4/127.0.0.1/tcp/{port}", "/ip4/0.0.0.0/tcp/0"]\n'
        f'bootstrap = ["/ip4/127.0.0.1/tcp/{taken}/p2p/{PEER}", "/ip4/127.0.0.1/tcp/{port}/p2p/{PEER}"]\n'
    )
    assert [one.reason.code for one in found(home, "port")] == ["port_taken", "port_free", "port_any"]
    assert [one.reason.code for one in found(home, "bootstrap")] == ["bootstrap_answers", "bootstrap_silent"]
    assert "refused" in found(home, "bootstrap")[1].reason.sentence


def test_disk_and_memory_are_compared_with_what_is_allowed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = NodeConfig(home, blobs_mb=1000, memory_mb=2000, slots=3)
    free = {"bytes": 0}
    usage = type("Usage", (), {"free": property(lambda self: free["bytes"])})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: usage())
    levels = []
    for free["bytes"] in (1 << 20, 500 << 20, 2000 << 20):
        levels.append(room.check_disk(home, config).level)
    assert levels == ["fail", "warn", "ok"]
    assert room.check_memory(config, 8 << 30).level == "ok"
    assert room.check_memory(config, 4 << 30).level == "warn"


def test_opencl_drivers_are_named_and_their_lack_is_nothing_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_checks, "ICD_FOLDERS", (tmp_path,))
    monkeypatch.setattr(local_checks.ctypes.util, "find_library", lambda name: "libOpenCL.so.1")
    assert local_checks.check_opencl().reason.code == "opencl_none"
    (tmp_path / "nvidia.icd").write_text("libnvidia-opencl.so.1")
    finding = local_checks.check_opencl()
    assert (finding.level, "nvidia" in finding.reason.sentence) == ("ok", True)


def test_a_node_that_is_still_starting_is_said_to_be(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with HomeDir.open(home):
        assert main(["doctor", "--home", str(home)]) == 0
    assert "is still starting" in capsys.readouterr().out


def test_each_problem_says_what_to_do(home: Path) -> None:
    spoil(home / "node.db")
    spoil(home / "ledger.db")
    (home / "identity.key").chmod(0o644)
    for finding in local_checks.check_machine(home, running=False):
        assert finding.reason.sentence.endswith(".")
        assert finding.level == "ok" or finding.fix.endswith("."), finding
