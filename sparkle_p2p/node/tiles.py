"""Computes units with arrays: their tiles are brought here ahead of time, their results become blobs.

Tiles of units in hand are fetched while others are computed, for up to ``MAX_PREPARED`` units at a time; what goes
beyond is fetched when its turn comes. They are kept until the unit is over. A result is kept until its unit is
settled, since nobody else has it before its keeper fetched it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sparkle_p2p.node.array_units import ArrayUnit, array_unit
from sparkle_p2p.node.checkpoints import Checkpoints
from sparkle_p2p.node.data_plane import DataPlane
from sparkle_p2p.node.memory import mib
from sparkle_p2p.node.plain_files import cipher_of, new_result, plain_tiles
from sparkle_protocol.blobs.limits import MAX_PREPARED, PREPARING, TILE_TRIES, pause_s
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.effects import Compute, Prepare, StopCompute
from sparkle_protocol.errors import SparkleError, StorageError, TransportError
from sparkle_protocol.facts import JobSpec, is_encrypted
from sparkle_protocol.ids import HASH_BYTES, JobId, PeerId
from sparkle_worker.kernels.arrays import Resumable

log = logging.getLogger("sparkle.compute")

UnitKey = tuple[bytes, int, int]


class ArrayExecutor(Protocol):
    """What computes units with arrays in another process (``sparkle_worker.executor.Executor``)."""

    async def run_arrays(
        self,
        kernel: str,
        version: int,
        unit: Mapping[str, Any],
        inputs: Sequence[Path],
        result: Path,
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None = None,
        *,
        checkpoint: Path | None = None,
        on_resume: Callable[[float], None] | None = None,
    ) -> None:
        """Compute a unit from files into a file, from a checkpoint on if that is one. Raises ComputeError."""
        ...


class Tiles:
    """The blobs of units that this node computes."""

    def __init__(
        self, plane: DataPlane, group: asyncio.TaskGroup, memory_bytes: int, checkpoints: Checkpoints
    ) -> None:
        self._plane = plane
        self._checkpoints = checkpoints
        self._memory_bytes = memory_bytes  # that a unit may use here
        self._group = group
        self._preparing: dict[UnitKey, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(PREPARING)
        self._computed: set[BlobId] = set()

    # --- before its turn --------------------------------------------------------------------------------------

    def prepare(self, effect: Prepare) -> None:
        """Begin to fetch a unit's tiles; a failure is left to ``compute``, which tries again."""
        key = (effect.job, effect.unit, effect.epoch)
        if key in self._preparing or len(self._preparing) >= MAX_PREPARED or self._too_large(effect.spec):
            return
        self._preparing[key] = self._group.create_task(self._prepare(key, effect), name=f"tiles of {effect.unit}")

    async def _prepare(self, key: UnitKey, effect: Prepare) -> None:
        try:
            unit = array_unit(effect.spec, effect.unit)
            self._plane.keep(("tiles", key), unit.blobs)
            async with self._places:
                await self._fetch(unit, effect.keepers)
        except SparkleError as error:
            log.info("tiles of unit %d are not here yet: %s", effect.unit, error)
        except Exception:
            log.exception("preparing unit %d failed unexpectedly", effect.unit)

    def drop(self, effect: StopCompute) -> None:
        """The unit is given up, or given back."""
        self._release((effect.job, effect.unit, effect.epoch))
        if not effect.resumes:
            self._checkpoints.give_up(effect.job, effect.unit)

    def failed(self, key: UnitKey) -> None:
        """The unit failed by its own fault: what it had come to is worth nothing."""
        self._checkpoints.give_up(JobId(key[0]), key[1])

    def _release(self, key: UnitKey) -> None:
        task = self._preparing.pop(key, None)
        if task is not None:
            task.cancel()
        self._plane.let_go(("tiles", key))

    def stop(self) -> None:
        """Fetch nothing any more."""
        for key in list(self._preparing):
            self._release(key)

    # --- its turn ---------------------------------------------------------------------------------------------

    async def compute(
        self,
        executor: ArrayExecutor,
        effect: Compute,
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None],
    ) -> bytes:
        """A unit's result: the id of the blob that holds it, which is kept until ``keep_results`` says otherwise.

        Raises:
            ConfigError: the job is not acceptable here.
            RemoteProtocolError: a tile is not what the job says.
            TransportError, StorageError: the tiles cannot be had here now, or the result cannot be stored.
            ComputeError: it could not be computed.
        """
        key = (effect.job, effect.unit, effect.epoch)
        try:
            if self._too_large(effect.spec):
                needs, has = mib(effect.spec.resources.memory_bytes), mib(self._memory_bytes, down=True)
                raise StorageError(f"the unit needs {needs} MB and this node allows {has} MB; raise --memory-mb")
            unit = array_unit(effect.spec, effect.unit)
            cipher_of(self._plane.network_key, effect.spec)  # without a key nothing need be fetched
            self._plane.keep(("tiles", key), unit.blobs)
            await self._fetch_patiently(unit, effect.keepers)
            spec, plane = effect.spec, self._plane
            async with plain_tiles(plane, spec, unit) as paths, new_result(plane, spec, unit) as made:
                await self._run(executor, effect, unit, paths, made.path, on_progress, on_begin)
                result = await made.publish()
            self._computed.add(result)
            self._plane.keep(("computed", result), (result,))
            return bytes(result)
        finally:
            self._release(key)

    async def _run(
        self,
        executor: ArrayExecutor,
        effect: Compute,
        unit: ArrayUnit,
        tiles: Sequence[Path],
        result: Path,
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None],
    ) -> None:
        """Have the unit computed; one that can be carried on goes on where it was interrupted."""
        kernel, version = effect.spec.kernel, effect.spec.kernel_version

        def run(
            checkpoint: Path | None, begin: Callable[[], None], resumed: Callable[[float], None]
        ) -> Awaitable[None]:
            return executor.run_arrays(
                kernel, version, unit.params, tiles, result, on_progress, begin,
                checkpoint=checkpoint, on_resume=resumed,
            )  # fmt: skip

        if isinstance(unit.kernel, Resumable) and not is_encrypted(effect.spec):  # no plain state stays on a disk
            size = unit.result.nbytes
            await self._checkpoints.compute(effect.job, effect.unit, size, run, on_begin, on_progress)
        else:
            await run(None, on_begin, on_progress)

    def _too_large(self, spec: JobSpec) -> bool:
        """Others may allow more: that is no fault of the unit's."""
        return spec.resources.memory_bytes > self._memory_bytes

    async def _fetch_patiently(self, unit: ArrayUnit, sources: Sequence[PeerId]) -> None:
        for attempt in range(TILE_TRIES):
            try:
                await self._fetch(unit, sources)
                return
            except (TransportError, StorageError):
                if attempt == TILE_TRIES - 1:
                    raise
                await asyncio.sleep(pause_s(attempt))

    async def _fetch(self, unit: ArrayUnit, sources: Sequence[PeerId]) -> None:
        await self._plane.fetch_tiles(unit.tiles, sources)

    # --- after it ---------------------------------------------------------------------------------------------

    def keep_results(self, needed: Iterable[bytes]) -> None:
        """Keep these results, and no other ones of ours: the others are settled."""
        wanted = {BlobId(result) for result in needed if len(result) == HASH_BYTES}
        for blob in self._computed - wanted:
            self._plane.let_go(("computed", blob))
        for blob in wanted - self._computed:
            self._plane.keep(("computed", blob), (blob,))
        self._computed = wanted
