"""The screen in a real terminal: it shows the node, quits cleanly, and survives a terminal that is closed."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.runtime.locate import is_locked

SCRIPT = Path(__file__).with_name("fake_service.py")


class Terminal:
    """A process on a terminal of 100 x 30 cells."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SPARKLE_")}
        environ["TERM"] = "xterm-256color"

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environ,
            preexec_fn=take_terminal,
        )
        os.close(slave)
        self.output = ""

    def read_until(self, text: str, timeout_s: float = 30) -> None:
        """Read what is drawn until ``text`` is."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            left = deadline - time.monotonic()
            assert left > 0, f"'{text}' was not drawn: {self.output[-2000:]}"
            if select.select([self.master], [], [], left)[0]:
                self._read()

    def wait(self, timeout_s: float = 20) -> int:
        """The exit code; output is read meanwhile, or the process would block on it."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it has not ended: {self.output[-2000:]}"
            if select.select([self.master], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    self._read()
        return self.process.returncode

    def _read(self) -> None:
        raw = os.read(self.master, 65536).decode("utf-8", "replace")
        self.output += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def terminal(home: Path) -> Iterator[Terminal]:
    """A node with its screen."""
    started = Terminal("good", "--home", str(home))
    yield started
    started.process.kill()
    started.process.wait(10)
    with contextlib.suppress(OSError):
        os.close(started.master)


def test_it_shows_the_node_and_quits_on_q(terminal: Terminal, home: Path) -> None:
    terminal.read_until("WORKING")
    terminal.read_until("2 peers")
    terminal.press("q")
    assert terminal.wait() == 0
    assert not is_locked(str(home))
    assert "Traceback" not in terminal.output


def test_commands_reach_a_node_with_a_screen_and_sigterm_ends_it(terminal: Terminal, home: Path) -> None:
    terminal.read_until("WORKING")
    terminal.press(" ")
    terminal.read_until("PAUSED")
    wait_for_api(terminal, home)
    assert LocalClient(home).status()["state"] == "paused"
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.wait() == 0


def test_a_closed_terminal_ends_the_node(terminal: Terminal, home: Path) -> None:
    terminal.read_until("WORKING")
    os.close(terminal.master)
    terminal.process.wait(9)
    assert not is_locked(str(home))


def test_attach_shows_a_running_node_and_leaves_it_alone(terminal: Terminal, home: Path) -> None:
    terminal.read_until("WORKING")
    wait_for_api(terminal, home)
    attached = Terminal("good", "attach", "--home", str(home))
    try:
        attached.read_until("WORKING")
        attached.press("q")
        assert attached.wait() == 0
    finally:
        attached.process.kill()
        attached.process.wait(10)
        os.close(attached.master)
    assert LocalClient(home).status()["state"] == "working"
    assert terminal.process.poll() is None


def test_a_node_that_cannot_start_closes_its_screen_and_says_why(home: Path) -> None:
    broken = Terminal("broken", "--home", str(home))
    try:
        broken.read_until("port 4001 is in use; choose another with --listen")
        assert broken.wait() == 2
    finally:
        broken.process.kill()
        broken.process.wait(10)
        os.close(broken.master)


def wait_for_api(terminal: Terminal, home: Path) -> None:
    """The API opens behind the first frame; its address file appears then."""
    deadline = time.monotonic() + 30
    while not (home / "node.json").exists():
        assert time.monotonic() < deadline
        if select.select([terminal.master], [], [], 0.05)[0]:
            terminal._read()
