"""Keeps the inputs of others' jobs that this node keeps, and the results that it checked for them.

A job's inputs are fetched until all are here, with growing pauses, as long as the job is kept: only then is its core
told, so that nobody counts on them before.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from sparkle_p2p.node.data_plane import DataPlane
from sparkle_protocol.blobs.limits import pause_s
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.effects import HoldInputs, InputsHeld, ReleaseInputs
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.ids import JobId

log = logging.getLogger("sparkle.node")


class Holding:
    """Blobs by the job that they are kept for."""

    def __init__(self, plane: DataPlane, tell: Callable[[InputsHeld], None], group: asyncio.TaskGroup) -> None:
        self._plane = plane
        self._tell = tell
        self._group = group
        self._fetching: dict[JobId, asyncio.Task[None]] = {}

    def hold(self, effect: HoldInputs) -> None:
        """Fetch a job's inputs from now on; what was said before about their sources is replaced."""
        running = self._fetching.pop(effect.job, None)
        if running is not None:
            running.cancel()
        self.keep(effect.job, map(BlobId, effect.inputs))
        task = self._group.create_task(self._fetch(effect), name=f"inputs of {effect.job.hex()[:8]}")
        self._fetching[effect.job] = task

    async def _fetch(self, effect: HoldInputs) -> None:
        attempt = 0
        while True:
            try:
                await self._plane.fetch_all(
                    map(BlobId, effect.inputs), effect.sources, likely=effect.likely, sizes=effect.sizes
                )
                break
            except SparkleError as error:
                level = logging.WARNING if attempt == 0 else logging.DEBUG
                log.log(level, "inputs of %s are not all here yet: %s", effect.job.hex()[:8], error)
            except Exception:
                log.exception("fetching the inputs of %s failed unexpectedly", effect.job.hex()[:8])
            await asyncio.sleep(pause_s(attempt))
            attempt += 1
        if self._fetching.get(effect.job) is asyncio.current_task():
            del self._fetching[effect.job]
        self._tell(InputsHeld(effect.job))

    def keep(self, job: JobId, blobs: Iterable[BlobId]) -> None:
        """These stay as long as the job does."""
        self._plane.keep(("job", job), blobs)

    def release(self, effect: ReleaseInputs) -> None:
        """Nothing of the job is needed any more."""
        self.let_go(effect.job)

    def let_go(self, job: JobId) -> None:
        """The same, for a job of ours."""
        running = self._fetching.pop(job, None)
        if running is not None:
            running.cancel()
        self._plane.let_go(("job", job))

    def stop(self) -> None:
        """Fetch nothing any more."""
        for task in self._fetching.values():
            task.cancel()
        self._fetching.clear()
