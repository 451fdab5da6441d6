"""What this node costs its machine: CPU share and memory of the process and its children."""

import os
from pathlib import Path

import psutil


class Usage:
    """Sampled by ``sample``; the figures are of the time between the last two samples."""

    def __init__(self) -> None:
        self.cpu_percent = 0.0
        self.pss_bytes = 0
        self._process = psutil.Process()
        self._cores = os.cpu_count() or 1
        self._last: tuple[float, dict[int, float]] | None = None

    def sample(self, now_s: float) -> None:
        """Measure. ``now_s`` is any monotonic clock."""
        spent: dict[int, float] = {}
        pss = 0
        for process in [self._process, *self._children()]:
            try:
                times = process.cpu_times()
                spent[process.pid] = times.user + times.system
                pss += _pss(process)
            except (psutil.Error, OSError):
                continue  # it ended meanwhile
        if self._last is not None:
            before_s, before = self._last
            used = sum(value - before.get(pid, 0.0) for pid, value in spent.items())
            elapsed = max(1e-3, now_s - before_s)
            self.cpu_percent = max(0.0, min(100.0, 100.0 * used / elapsed / self._cores))
        self._last = (now_s, spent)
        self.pss_bytes = pss

    def _children(self) -> list[psutil.Process]:
        try:
            children: list[psutil.Process] = self._process.children(recursive=True)
            return children
        except psutil.Error:
            return []


def _pss(process: psutil.Process) -> int:
    """Proportional set size in bytes; resident size where the kernel does not tell."""
    try:
        with Path(f"/proc/{process.pid}/smaps_rollup").open("rb") as rollup:
            for line in rollup:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(process.memory_info().rss)
