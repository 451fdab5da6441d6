"""Checks results of others' workers: fetches what is needed, and has the arithmetic done in a process of its own.

The process is none of those that compute units: a check waits for nobody's unit, and a paused node still decides
about its own jobs. ``CHECKS`` results at a time are fetched or checked, others wait in order; the core bounds them.
The seed is drawn only now, when the worker has long committed to its result.

What can go wrong here accuses nobody: it is tried ``CHECK_TRIES`` times and then told as undecided.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sparkle_p2p.node.array_units import ArrayUnit, array_unit
from sparkle_p2p.node.data_plane import DataPlane
from sparkle_p2p.node.plain_files import plain_result, plain_tiles
from sparkle_protocol.blobs.limits import CHECK_TRIES, CHECKS, pause_s
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.effects import CheckUnit, UnitChecked
from sparkle_protocol.errors import ConfigError, RemoteProtocolError, SparkleError
from sparkle_protocol.ids import JobId, short_peer

log = logging.getLogger("sparkle.check")

CHECK_S = 3600.0  # of one check; it costs a small part of computing the unit
SEED_BYTES = 32
STOP_S = 3.0


class ArrayChecker(Protocol):
    """What checks results in another process (``sparkle_worker.executor.Executor``)."""

    async def check(
        self,
        kernel: str,
        version: int,
        unit: Mapping[str, Any],
        inputs: Sequence[Path],
        result: Path,
        seed: bytes,
    ) -> str:
        """An empty text when the result is right, else what is wrong with it. Raises ComputeError."""
        ...

    async def stop(self) -> None:
        """End the process."""
        ...


class Checking:
    """The checks of a node.

    Args:
        plane: its blobs.
        make_checker: a new process for the arithmetic, wanted with the first check.
        tell: takes the answers.
        group: where checks run.
        passed: told of the job and the blob of every result that is right, before the core hears of it.
    """

    def __init__(
        self,
        plane: DataPlane,
        make_checker: Callable[[], ArrayChecker],
        tell: Callable[[UnitChecked], None],
        group: asyncio.TaskGroup,
        passed: Callable[[JobId, BlobId], None],
    ) -> None:
        self._plane = plane
        self._make_checker = make_checker
        self._tell = tell
        self._group = group
        self._passed = passed
        self._places = asyncio.Semaphore(CHECKS)
        self._checker: ArrayChecker | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, effect: CheckUnit) -> None:
        """Check a result; what comes of it is told."""
        task = self._group.create_task(self._check(effect), name=f"check unit {effect.unit}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End all checks without an answer; the core asks again after a restart."""
        for task in self._tasks:
            task.cancel()
        if self._checker is not None:
            try:
                async with asyncio.timeout(STOP_S):
                    await self._checker.stop()
            except TimeoutError:
                log.error("the process that checks results did not end in %s s", STOP_S)

    async def _check(self, effect: CheckUnit) -> None:
        name = ("check", effect.job, effect.unit, effect.epoch, effect.worker)
        passed: bool | None = None
        text = ""
        try:
            async with self._places:
                blob = BlobId(effect.result)
                with self._plane.keeping(name, (blob,)):
                    passed, text = await self._decided(effect, name, blob)
                    if passed:
                        self._passed(effect.job, blob)
        except ConfigError as error:
            text = str(error)  # no node like this one can check the job
        except Exception:
            log.exception("checking unit %d of %s failed unexpectedly", effect.unit, effect.job.hex()[:8])
            text = "this node failed to check it"
        if passed is False:
            log.warning("unit %d of %s by %s: %s", effect.unit, effect.job.hex()[:8], short_peer(effect.worker), text)
        self._tell(UnitChecked(effect.job, effect.unit, effect.epoch, effect.worker, passed, text))

    async def _decided(self, effect: CheckUnit, name: tuple[object, ...], blob: BlobId) -> tuple[bool | None, str]:
        unit = array_unit(effect.spec, effect.unit)
        self._plane.keep(name, unit.blobs)
        text = ""
        for attempt in range(CHECK_TRIES):
            if attempt:
                await asyncio.sleep(pause_s(attempt))
            try:
                wrong = await self._once(effect, unit, blob)
            except ConfigError:
                raise
            except (SparkleError, TimeoutError) as error:
                text = str(error) or "the check took too long"
                log.info("unit %d of %s is not checked yet: %s", effect.unit, effect.job.hex()[:8], text)
                continue
            return not wrong, wrong
        return None, text

    async def _once(self, effect: CheckUnit, unit: ArrayUnit, blob: BlobId) -> str:
        """What is wrong with the result, if anything. Raises what makes another try worth while."""
        for tile, size in unit.tiles:
            try:
                await self._plane.fetch(tile, effect.sources, size=size)
            except RemoteProtocolError as error:
                raise ConfigError(f"the inputs of the job are not what it says: {error}") from error
        try:
            # Whoever accepts a result vouches for it.
            await self._plane.fetch(blob, effect.sources, size=unit.result_bytes, durable=True, likely=1)
        except RemoteProtocolError as error:
            return f"the result is no {unit.result}: {error}"
        async with contextlib.AsyncExitStack() as files:
            try:
                tiles = await files.enter_async_context(plain_tiles(self._plane, effect.spec, unit))
            except RemoteProtocolError as error:
                raise ConfigError(f"the inputs of the job cannot be opened: {error}") from error
            try:
                result = await files.enter_async_context(plain_result(self._plane, effect.spec, unit, blob))
            except RemoteProtocolError as error:
                return f"the result cannot be opened: {error}"
            return await self._compared(effect, unit, tiles, result)

    async def _compared(self, effect: CheckUnit, unit: ArrayUnit, tiles: Sequence[Path], result: Path) -> str:
        if self._checker is None:
            self._checker = self._make_checker()
        seed = secrets.token_bytes(SEED_BYTES)
        kernel, version = effect.spec.kernel, effect.spec.kernel_version
        async with asyncio.timeout(CHECK_S):
            return await self._checker.check(kernel, version, unit.params, tiles, result, seed)
