"""What this node costs its machine: CPU share and memory of the process and its children."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

# The kernel takes a millisecond to add up a node's memory, longer than all else that an idle node does in 2 s.
MEMORY_EVERY_S = 10.0
SHORTEST_S = 1.0  # over less, the share of a processor says little


class Usage:
    """Measured by ``sample``: whoever wants figures calls it first. Processor time is that since the call before."""

    def __init__(self) -> None:
        self.cpu_percent = 0.0
        self.pss_bytes = 0
        self._process = psutil.Process()
        self._cores = os.cpu_count() or 1
        # Linux with CONFIG_PROC_CHILDREN; psutil's way looks at every process of the machine.
        self._lists_children = Path("/proc/thread-self/children").exists()
        self._last: tuple[float, dict[int, float]] | None = None
        self._weighed_s: float | None = None

    def sample(self, now_s: float) -> None:
        """Measure, no sooner than ``SHORTEST_S`` after the last time; memory only every ``MEMORY_EVERY_S``.

        ``now_s`` is any monotonic clock.
        """
        if self._last is not None and now_s - self._last[0] < SHORTEST_S:
            return
        family = [self._process, *self._children()]
        spent: dict[int, float] = {}
        for process in family:
            with contextlib.suppress(psutil.Error, OSError):  # it ended meanwhile
                times = process.cpu_times()
                spent[process.pid] = times.user + times.system
        if self._last is not None:
            before_s, before = self._last
            used = sum(value - before.get(pid, 0.0) for pid, value in spent.items())
            elapsed = max(1e-3, now_s - before_s)
            self.cpu_percent = max(0.0, min(100.0, 100.0 * used / elapsed / self._cores))
        self._last = (now_s, spent)
        if self._weighed_s is None or now_s - self._weighed_s >= MEMORY_EVERY_S:
            self._weighed_s = now_s
            self.pss_bytes = sum(map(_pss, family))

    def _children(self) -> list[psutil.Process]:
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            if not self._lists_children:
                return list(self._process.children(recursive=True))
            for pid in _descendants(self._process.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    children.append(psutil.Process(pid))
        return children


def _descendants(pid: int) -> Iterator[int]:
    """Children of a process and theirs, from the kernel's list of what each thread has started."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread or a process ended meanwhile
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                yield child
                yield from _descendants(child)


def _pss(process: psutil.Process) -> int:
    """Proportional set size in bytes; resident size where the kernel does not tell; 0 once it has ended."""
    try:
        with Path(f"/proc/{process.pid}/smaps_rollup").open("rb") as rollup:
            for line in rollup:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0
