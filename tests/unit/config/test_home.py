"""The home directory: one owner, a key nobody else can read, and one clear sentence when that cannot be."""

import contextlib
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkle_p2p.home import HomeDir
from sparkle_p2p.runtime.locate import find_node, home_path, is_locked
from sparkle_protocol.errors import ConfigError, HomeInUse, NodeNotRunning

HOLD = (
    "import sys; from sparkle_p2p.home import HomeDir\n"
    "home = HomeDir.open(sys.argv[1]); home.announce('http://127.0.0.1:9')\n"
    "print('held', flush=True); sys.stdin.read()"
)


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the directory."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        HomeDir.open(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_new_home_is_private_and_keeps_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "home"
    with HomeDir.open(path) as home:
        peer_id = home.identity.peer_id
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for name in ("identity.key", "api.token", "lock"):
            assert stat.S_IMODE((path / name).stat().st_mode) == 0o600
        first_token = home.token
        assert (path / "api.token").read_text().strip() == first_token
    assert not (path / "api.token").exists()
    with HomeDir.open(path) as home:
        assert home.identity.peer_id == peer_id
        assert home.token != first_token


def test_a_second_owner_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path / "home") as process:
        with pytest.raises(HomeInUse, match=rf"process {process.pid}\)") as caught:
            HomeDir.open(tmp_path / "home")
        assert caught.value.exit_code == 3


def test_the_same_process_cannot_open_it_twice_and_can_after_close(tmp_path: Path) -> None:
    home = HomeDir.open(tmp_path)
    with pytest.raises(HomeInUse):
        HomeDir.open(tmp_path)
    home.close()
    home.close()
    HomeDir.open(tmp_path).close()


def test_clients_find_the_node_only_while_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "home"
    with pytest.raises(NodeNotRunning, match="no node is running") as caught:
        find_node(str(path))
    assert caught.value.exit_code == 4
    with holder(path) as process:
        node = find_node(str(path))
        assert (node.pid, node.host, node.port) == (process.pid, "127.0.0.1", 9)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert (path / "node.json").exists()  # left behind by the killed node
        with pytest.raises(NodeNotRunning):
            find_node(str(path))
    with HomeDir.open(path), pytest.raises(NodeNotRunning, match="still starting"):
        find_node(str(path))


def test_looking_never_disturbs_a_start(tmp_path: Path) -> None:
    with HomeDir.open(tmp_path):
        assert is_locked(str(tmp_path))
    assert not is_locked(str(tmp_path))
    assert not is_locked(str(tmp_path / "nothing"))


def test_retract_hides_the_api(tmp_path: Path) -> None:
    with HomeDir.open(tmp_path) as home:
        home.announce("http://[::1]:77")
        node = find_node(str(tmp_path))
        assert (node.host, node.port, node.token) == ("::1", 77, home.token)
        home.retract()
        with pytest.raises(NodeNotRunning):
            find_node(str(tmp_path))


def test_home_path_prefers_flag_then_variable() -> None:
    assert home_path("/a", {"SPARKLE_HOME": "/b"}) == "/a"
    assert home_path(None, {"SPARKLE_HOME": "/b"}) == "/b"
    assert home_path(None, {}) == os.path.expanduser("~/.sparkle")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a Sparkle key file"),
        (b"garbage\xff\x00", "not a Sparkle key file"),
        (b"-----BEGIN PRIVATE KEY-----\n", "not a Sparkle key file"),
        (b"sparkle-key-1 !!!!\n", "damaged"),
        (b"sparkle-key-1 AAAA\n", "has 32 bytes, this one 3"),
        (b"sparkle-key-1 " + b"A" * 9000, "damaged"),
    ],
)
def test_a_key_file_that_is_none_is_refused_and_left_alone(tmp_path: Path, content: bytes, expected: str) -> None:
    key = tmp_path / "identity.key"
    key.write_bytes(content)
    key.chmod(0o600)
    message = refused(tmp_path)
    assert expected in message
    assert str(key) in message
    assert key.read_bytes() == content
    assert not is_locked(str(tmp_path))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_key_file_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    HomeDir.open(tmp_path).close()
    (tmp_path / "identity.key").chmod(mode)
    assert f"chmod 600 {tmp_path / 'identity.key'}" in refused(tmp_path)


def test_a_directory_or_a_pipe_as_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity.key").mkdir()
    assert "is not a regular file" in refused(tmp_path)
    (tmp_path / "identity.key").rmdir()
    os.mkfifo(tmp_path / "identity.key", 0o600)
    assert "is not a regular file" in refused(tmp_path)


def test_a_file_in_the_directorys_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is not a directory" in refused(tmp_path / "file")
    assert "is not a directory" in refused(tmp_path / "file" / "below")


def test_a_place_where_nobody_may_write_is_refused() -> None:
    assert "cannot create the home directory /proc/sparkle" in refused(Path("/proc/sparkle"))


def test_a_directory_everybody_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert "everybody may write" in refused(tmp_path)


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Without the powers of root, if the tests have them: permissions mean nothing to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_read_only_directory_and_unreadable_key_are_named() -> None:
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        home = Path(base, "home")
        home.mkdir(0o500)
        if os.geteuid() == 0:
            os.chown(home, 65534, 65534)
        with ordinary_user():
            assert f"cannot write into the home directory {home}: permission denied" in refused(home)
            home.chmod(0o700)
            HomeDir.open(home).close()
            (home / "identity.key").chmod(0o000)
            assert "cannot read the key file" in refused(home)


def test_what_belongs_to_another_user_is_refused() -> None:
    if os.geteuid() != 0:
        assert "belongs to another user" in refused(Path("/etc"))
        return
    with tempfile.TemporaryDirectory() as base:
        HomeDir.open(base).close()
        os.chown(Path(base, "identity.key"), 65534, 65534)
        assert "the key file" in refused(Path(base))
        os.chown(base, 65534, 65534)
        assert "belongs to another user (uid 65534)" in refused(Path(base))


def test_a_disk_that_takes_nothing_more_leaves_no_half_written_key(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes every write fail as a full disk does, at the same system call."""
    script = (
        "import sys; from sparkle_p2p.home import HomeDir\n"
        "from sparkle_protocol.errors import ConfigError\n"
        "try: HomeDir.open(sys.argv[1])\n"
        "except ConfigError as error: print(error)"
    )

    def nearly_full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=nearly_full,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout.startswith(f"cannot write {tmp_path / 'identity.key'}: file too large")
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]
