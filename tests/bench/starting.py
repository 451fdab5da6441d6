"""How long a user waits for a command: ``status``, the screen's first frame, the demo."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.processes import BIN, LOOPBACK, ROOT, environment, headless, scratch
from tests.bench.rows import Row, median_row

COMMAND_LIMIT_S = 60.0
DEMO_LIMIT_S = 900.0
FRAME_LIMIT_S = 30.0
LEAVE_LIMIT_S = 15.0
ROWS, COLUMNS = 40, 120
STATE_WORDS = (b"IDLE", b"WORKING", b"PAUSED")


def status(repeat: int) -> list[Row]:
    """``sparkle status --json`` against a Python that does nothing, whole processes, in turn."""
    ours, bare = [], []
    with scratch() as folder, headless(folder / "node", "bench-status", "--no-mdns") as node:
        node.read()
        command = [str(BIN / "sparkle"), "status", "--json", "--home", str(folder / "node")]
        nothing = [sys.executable, "-c", "pass"]
        for round_ in range(repeat + 2):
            pair = _run_s(command), _run_s(nothing)
            if round_ >= 2:  # the first write and read the compiled modules
                ours.append(pair[0] * 1e3)
                bare.append(pair[1] * 1e3)
    limits: dict[str, Any] = {"bar": 3.0, "stretch": 2.0}
    return [median_row("status", "ms", ours, bare, judged="ratio", against="python -c pass", **limits)]


def _run_s(command: Sequence[str], limit_s: float = COMMAND_LIMIT_S, **more: str) -> float:
    """Seconds that a command takes, from before it is started until it has ended."""
    began = time.perf_counter()
    done = subprocess.run(command, env=environment(**more), capture_output=True, timeout=limit_s, cwd=ROOT)
    took = time.perf_counter() - began
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()[-300:]
        raise RuntimeError(f"{' '.join(command[:4])} failed: {words}")
    return took


def tui_first_frame(repeat: int) -> list[Row]:
    """``sparkle-node`` in a terminal until its state can be read, against the least Textual application."""
    ours, bare = [], []
    with scratch() as folder:
        node = [str(BIN / "sparkle-node"), "--home", str(folder / "node"), "--listen", LOOPBACK, "--no-mdns"]
        least = [sys.executable, "-P", "-m", "tests.bench.bare_screen"]
        for round_ in range(repeat + 1):
            pair = _first_frame_s(node), _first_frame_s(least, PYTHONPATH=str(ROOT))
            if round_ >= 1:
                ours.append(pair[0])
                bare.append(pair[1])
    against = "a Textual application of one label"
    return [median_row("tui_first_frame", "s", ours, bare, bar=0.8, stretch=0.5, against=against)]


def _first_frame_s(command: Sequence[str], **more: str) -> float:
    """Seconds from starting a program in a terminal of its own until one of the state words is drawn."""
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    env = environment(TERM="xterm-256color", **more)
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=ROOT, start_new_session=True
    )
    os.close(theirs)
    try:
        drawn, end = b"", began + FRAME_LIMIT_S
        while not any(word in drawn for word in STATE_WORDS):
            chunk = _read(terminal, end - time.perf_counter())
            if not chunk:
                raise RuntimeError(f"{command[0]} drew no state; last: {drawn[-200:]!r}")
            drawn += chunk
        took = time.perf_counter() - began
        os.write(terminal, b"q")
        end = time.perf_counter() + LEAVE_LIMIT_S
        while process.poll() is None and time.perf_counter() < end:
            _read(terminal, 0.2)  # a full terminal would stop it from leaving
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return took


def _read(terminal: int, timeout_s: float) -> bytes:
    if select.select([terminal], [], [], max(0.0, timeout_s))[0]:
        with contextlib.suppress(OSError):  # EIO: the program has ended
            return os.read(terminal, 65536)
    return b""


def demo_warm(repeat: int) -> list[Row]:
    """``python3 run.py demo`` in an environment that stands, against its arithmetic alone in one process."""
    ours, bare = [], []
    with scratch() as folder:
        demo = [sys.executable, str(ROOT / "run.py"), "demo", "--out", str(folder)]
        plain = [sys.executable, "-P", "-m", "tests.bench.plain_demo"]
        for _ in range(repeat):
            ours.append(_run_s(demo, DEMO_LIMIT_S))
            bare.append(_run_s(plain, DEMO_LIMIT_S, PYTHONPATH=str(ROOT)))
    against = "the same results in one process, unchecked"
    return [median_row("demo_warm", "s", ours, bare, bar=60, stretch=20, against=against)]


def demo_cold(repeat: int) -> list[Row]:
    """The same in a fresh clone with nothing in the package caches. Uncommitted changes are not in the clone."""
    times = []
    python = str(Path(sys.executable).resolve())
    for _ in range(repeat):
        with scratch() as folder:
            clone = folder / "sparkle"
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=COMMAND_LIMIT_S)
            (folder / "out").mkdir()
            began = time.perf_counter()
            subprocess.run(
                [python, "run.py", "demo", "--out", str(folder / "out")],
                cwd=clone,
                env=_as_on_a_fresh_machine(folder / "caches"),
                check=True,
                timeout=DEMO_LIMIT_S,
                stdout=sys.stderr,
            )
            times.append(time.perf_counter() - began)
    return [median_row("demo_cold", "s", times, bar=180, stretch=90)]


def _as_on_a_fresh_machine(caches: Path) -> Mapping[str, str]:
    env = environment(UV_CACHE_DIR=str(caches / "uv"), PIP_CACHE_DIR=str(caches / "pip"))
    env.pop("VIRTUAL_ENV", None)
    env.pop("PYTHONPATH", None)
    env["PATH"] = os.pathsep.join(part for part in env["PATH"].split(os.pathsep) if Path(part) != BIN)
    return env
