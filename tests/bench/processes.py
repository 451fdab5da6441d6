"""Real nodes as child processes, and what a process with its children costs."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
READY_S = 60.0
STOP_S = 15.0


def environment(**more: str) -> dict[str, str]:
    """This process's variables without those that would configure a node or keep Python from caching modules."""
    others = ("SPARKLE_", "PYTHONDONTWRITEBYTECODE")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(others)}, **more}


@contextlib.contextmanager
def scratch(parent: Path | None = None) -> Iterator[Path]:
    """A directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sparkle-bench-", dir=parent, ignore_cleanup_errors=True) as name:
        yield Path(name)


def warm_memory(folder: Path, count: int) -> None:
    """Have so many bytes of memory at hand for files, and the disk idle.

    Whoever writes first after a pause pays for pages that a virtual machine has to get from its host.
    """
    os.sync()
    path = folder / "warm"
    with path.open("wb") as file:
        for _ in range(count >> 20):
            file.write(bytes(1 << 20))
    path.unlink()


class Child:
    """A process that talks in JSON lines: its answers by ``read``, ours by ``write``. Ended on leaving."""

    def __init__(self, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._name = " ".join(map(str, command))[:100]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=dict(env or environment()),
            )
        self._log = log
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # as long as its process says things
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def read(self, timeout_s: float = READY_S) -> dict[str, Any]:
        """The next line."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise RuntimeError(f"{self._name} said nothing for {timeout_s:.0f} s; {self._said()}") from None
        if line is None:
            raise RuntimeError(f"{self._name} ended; {self._said()}")
        document: dict[str, Any] = json.loads(line)
        return document

    def ask(self, question: object, timeout_s: float = READY_S) -> dict[str, Any]:
        """Send a line and read the answer."""
        self.tell(question)
        return self.read(timeout_s)

    def tell(self, question: object) -> None:
        """Send a line."""
        if self.process.stdin is not None:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()

    def _said(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"last on stderr: {lines[-1][:300]}" if lines else "nothing on stderr"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def module(name: str, log: Path, *arguments: str) -> Child:
    """One of this folder's programs."""
    return Child(
        [sys.executable, "-P", "-m", f"tests.bench.{name}", *arguments], log, environment(PYTHONPATH=str(ROOT))
    )


def headless(home: Path, net: str, *flags: str) -> Child:
    """``sparkle-node --headless`` on loopback, otherwise as a user runs it."""
    fixed = ["--headless", "--json", "--listen", LOOPBACK, "--home", str(home), "--net", net]
    return Child([BIN / "sparkle-node", *fixed, *flags], home.with_suffix(".log"))


def family(pid: int) -> list[psutil.Process]:
    """A process and its descendants."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(pid: int) -> float:
    """Processor seconds that the process and its descendants have used, those that have ended included."""
    total = 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def own_cpu_s(pid: int) -> float:
    """Processor seconds of the process alone."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def pss_mb(pid: int) -> float:
    """Proportional set size of the process and its descendants in MB (10^6 bytes)."""
    total = 0
    for process in family(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return total / 1e6


def pause(seconds: float) -> None:
    """Let the measured processes run."""
    threading.Event().wait(seconds)
