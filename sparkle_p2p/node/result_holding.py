"""Keeps blobs of results of others' jobs, so that the results outlive the workers that computed them.

Which ones is for the core to say (``sparkle_protocol.work.spares``). A result is fetched ``RESULT_TRIES`` times with
growing pauses; the core hears when that was in vain, and at once when there is no room, so that another keeper takes
over. What is here stays until the core lets the job go, and is found again after a restart by the stored names of
results.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sparkle_p2p.node.data_plane import DataPlane
from sparkle_p2p.node.store import Store
from sparkle_protocol.blobs.limits import MAX_RESULTS_WAITING, RESULT_TRIES, RESULTS_AT_ONCE, pause_s
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.effects import HoldResult, ReleaseResults, ResultNotHeld
from sparkle_protocol.errors import NotFound, SparkleError, StorageError
from sparkle_protocol.ids import HASH_BYTES, JobId, ResultHash

log = logging.getLogger("sparkle.node")


class ResultHolding:
    """Results by the job that they are kept for.

    Args:
        plane: the node's blobs.
        store: where the names of results are.
        tell: takes what the core must hear.
        group: where results are fetched.
        publish: tells whoever follows the node's events.
    """

    def __init__(
        self,
        plane: DataPlane,
        store: Store,
        tell: Callable[[ResultNotHeld], None],
        group: asyncio.TaskGroup,
        publish: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._plane = plane
        self._store = store
        self._tell = tell
        self._group = group
        self._publish = publish
        self._places = asyncio.Semaphore(RESULTS_AT_ONCE)
        self._fetching: dict[tuple[JobId, int], asyncio.Task[None]] = {}

    def hold(self, effect: HoldResult) -> None:
        """Have a result's blob here from now on."""
        key = (effect.job, effect.unit)
        before = self._fetching.pop(key, None)
        if before is not None:
            before.cancel()
        if len(self._fetching) >= MAX_RESULTS_WAITING:
            asyncio.get_running_loop().call_soon(self._tell, ResultNotHeld(*key, full=True))
            return
        name = f"result {effect.unit} of {effect.job.hex()[:8]}"
        self._fetching[key] = self._group.create_task(self._hold(effect), name=name)

    async def _hold(self, effect: HoldResult) -> None:
        key, failed = (effect.job, effect.unit), ResultNotHeld(effect.job, effect.unit, full=False)
        try:
            await self._fetch(effect)
            self._publish("result_held", {"job": effect.job.hex(), "unit": effect.unit, "bytes": effect.size})
            return
        except StorageError as error:
            log.info("%s has no place here: %s", _name(effect), error)
            failed = ResultNotHeld(*key, full=True)
        except SparkleError as error:
            log.info("%s cannot be kept here: %s", _name(effect), error)
        except Exception:
            log.exception("fetching %s failed unexpectedly", _name(effect))
        finally:
            if self._fetching.get(key) is asyncio.current_task():
                del self._fetching[key]
        self._tell(failed)

    async def _fetch(self, effect: HoldResult) -> None:
        """Return when the result's blob is here for good. Raises SparkleError when it cannot be had."""
        for attempt in range(RESULT_TRIES):
            try:
                blob = await self._named(effect.job, effect.result)
                with self._plane.keeping(("result", effect.job, effect.unit), (blob,)):
                    async with self._places:
                        await self._plane.fetch(
                            blob, effect.sources, size=effect.size, durable=True, likely=effect.likely
                        )
                    self.keep(effect.job, (blob,))
                return
            except StorageError:
                raise
            except SparkleError as error:
                if attempt == RESULT_TRIES - 1:
                    raise
                log.debug("%s is not here yet: %s", _name(effect), error)
            await asyncio.sleep(pause_s(attempt))

    async def _named(self, job: JobId, result: ResultHash) -> BlobId:
        await self._store.write(())  # its name may still be on its way to the disk
        names = await self._store.results_there(job, (result,))
        if not names or len(names[0]) != HASH_BYTES:
            raise NotFound("the name of the blob is not known here yet")
        return BlobId(names[0])

    def keep(self, job: JobId, blobs: Iterable[BlobId]) -> None:
        """These results stay as long as the job is kept here."""
        self._plane.keep(("results", job), blobs)

    def release(self, effect: ReleaseResults) -> None:
        """No result of the job is needed any more."""
        for key in [key for key in self._fetching if key[0] == effect.job]:
            self._fetching.pop(key).cancel()
        self._plane.let_go(("results", effect.job))

    def stop(self) -> None:
        """Fetch nothing any more."""
        for task in self._fetching.values():
            task.cancel()
        self._fetching.clear()


def _name(effect: HoldResult) -> str:
    return f"the result of unit {effect.unit} of {effect.job.hex()[:8]}"
