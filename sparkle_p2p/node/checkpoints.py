"""Checkpoints: files by which a unit that was interrupted goes on here instead of beginning anew.

- Each unit has one file, named by its job and number: what it has come to depends on nothing else. The process that
  reads it knows whether it is whole and this unit's (``sparkle_worker/checkpoint.py``); if not, the unit begins anew.
- It stays when the unit is interrupted: its process was killed, the node ended, or the unit was given back. It goes
  when the unit is computed, when it failed by its own fault, and when nobody wants it any more.
- A unit whose process was killed after it had written a new checkpoint goes on at once, ``TRIES`` times in all: it
  gets further each time, and whoever else got it would begin anew.
- There are ``MAX_FILES`` and ``MAX_BYTES`` at most, none older than ``MAX_AGE_S``; of those that no unit here uses
  now the oldest goes first. A unit for whose checkpoint there is no room is computed without.
"""

import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from sparkle_protocol.errors import ExecutorCrashed
from sparkle_protocol.ids import JobId
from sparkle_worker.checkpoint import HEAD_BYTES

log = logging.getLogger("sparkle.compute")

CHECKPOINTS_FOLDER = "checkpoints"
TRIES = 4
MAX_FILES = 64
MAX_BYTES = 2**30  # a unit's own is counted twice: the old one stands until the new one is whole
MAX_AGE_S = 3 * 86400.0  # what a job may take is a day; who comes back later will hardly get the same unit

Told = Callable[[float], None]
Begun = Callable[[], None]
Run = Callable[[Path | None, Begun, Told], Awaitable[None]]


class Checkpoints:
    """The checkpoints of a node.

    Args:
        folder: where they are; made with the first one.
        on_resumed: told of each unit that goes on from one: job, unit, and the share of it that is done.
    """

    def __init__(self, folder: Path, on_resumed: Callable[[JobId, int, float], None]) -> None:
        self._folder = folder
        self._on_resumed = on_resumed
        self._used: dict[Path, int] = {}  # by units that are being computed -> the room that they may take

    async def compute(
        self, job: JobId, unit: int, state_bytes: int, run: Run, on_begin: Begun, on_progress: Told
    ) -> None:
        """Have a unit computed, from its checkpoint on if there is one.

        Args:
            job: which job.
            unit: which unit of it.
            state_bytes: how large its state may be.
            run: computes it with the file to use, told when it begins and from which share it goes on.
            on_begin: called when its turn has come for the first time.
            on_progress: told the share that is done already.

        Raises:
            ExecutorCrashed: its process was killed, and without having got any further.
            ComputeError: as ``run``.
        """
        path = self._path(job, unit)
        begun = False

        def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                on_begin()

        def resumed(share: float) -> None:
            self._on_resumed(job, unit, share)
            on_progress(share)

        if path in self._used or not self._make_room(path, 2 * (state_bytes + HEAD_BYTES)):
            await run(None, begin, resumed)
            return
        try:
            await self._persevere(path, lambda: run(path, begin, resumed))
        finally:
            del self._used[path]

    async def _persevere(self, path: Path, run: Callable[[], Awaitable[None]]) -> None:
        for tries_left in reversed(range(TRIES)):
            before = _mark(path)
            try:
                await run()
                return
            except ExecutorCrashed as error:
                if not tries_left or _mark(path) in (None, before):
                    raise
                log.warning("a unit goes on from its checkpoint: %s", error)

    def give_up(self, job: JobId, unit: int) -> None:
        """The unit is not wanted here any more."""
        _remove(self._path(job, unit))

    def _path(self, job: JobId, unit: int) -> Path:
        return self._folder / f"{job.hex()}-{unit}"

    def _make_room(self, path: Path, needed: int) -> bool:
        """Whether a unit may use this file, which is counted from now on; others may have to go."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            found = self._files()
        except OSError as error:
            log.warning("units are computed without checkpoints: %s (%s)", self._folder, error.strerror)
            return False
        taken = sum(self._used.values())
        if taken + needed > MAX_BYTES or len(self._used) >= MAX_FILES:
            return False
        self._used[path] = needed
        oldest_s = time.time() - MAX_AGE_S
        count, taken = len(self._used), taken + needed
        for changed_s, size, file in sorted(found, reverse=True):
            if file in self._used or file.with_suffix("") in self._used:
                continue
            count, taken = count + 1, taken + size
            if file.suffix or changed_s < oldest_s or count > MAX_FILES or taken > MAX_BYTES:
                _remove(file)  # also what a process left that was killed while it wrote
                count, taken = count - 1, taken - size
        return True

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each file was changed last, and its size."""
        with os.scandir(self._folder) as entries:
            found = [(entry.stat(follow_symlinks=False), Path(entry.path)) for entry in entries]
        return [(info.st_mtime, info.st_size, path) for info, path in found if stat.S_ISREG(info.st_mode)]


def _mark(path: Path) -> tuple[int, int] | None:
    """What changes with every new checkpoint."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_ino


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a checkpoint cannot be removed: %s (%s)", path, error.strerror)
