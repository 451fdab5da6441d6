"""Jobs with arrays of this node's owner: from files to a spec, and from accepted units to a file.

::

    submit ─► cut_job (thread) ─► blobs kept for the job ─► spec
    unit accepted ─► its blob fetched and kept ─► all there ─► assembled (thread) ─► HOME/results/JOB.npy ─► let go

A job whose units are all accepted counts as running until its file is written, or until that has failed several
times. It is tried again as long as the job is there, and at once when somebody asks for the result.
"""

import asyncio
import logging
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkle_p2p.blobs.files import disk_errors, sync_folder, write_gathered
from sparkle_p2p.blobs.sealing import JobCipher
from sparkle_p2p.network_key import NetworkKey
from sparkle_p2p.node.array_inputs import CutJob, cut_job
from sparkle_p2p.node.array_units import array_unit, has_arrays
from sparkle_p2p.node.data_plane import DataPlane, to_its_end
from sparkle_p2p.node.holding import Holding
from sparkle_p2p.node.memory import UnitMemory
from sparkle_p2p.node.plain_files import cipher_of, opened_array
from sparkle_p2p.node.store import Store
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.blobs.limits import pause_s
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import ConfigError, SparkleError, StorageError, TransportError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_worker.kernels.arrays import Gathering
from sparkle_worker.kernels.base import Combined
from sparkle_worker.kernels.registry import get_array_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparkle_p2p.blobs.store import BlobStore

log = logging.getLogger("sparkle.node")

RESULTS_FOLDER = "results"
MEDIA_TYPE = "application/x-npy"
CUTTING = 2  # submissions at a time whose files are read; others wait
RESULT_WAIT_S = 20.0  # less than the local API gives a call
TELL_AFTER = 4  # failures, over about fifteen seconds: until then the job goes on as far as people see
UNFINISHED = ".new"


class ArrayJobs:
    """The owner's jobs with arrays.

    Args:
        plane: the node's blobs.
        holding: keeps blobs by job.
        store: where the ids of result blobs are.
        folder: where results go, one file per job.
        group: where results are put together.
        partners: who keeps a job besides us.
        memory: what a unit may use, as far as is known.
    """

    def __init__(
        self,
        plane: DataPlane,
        holding: Holding,
        store: Store,
        folder: Path,
        group: asyncio.TaskGroup,
        partners: Callable[[KeptJob], tuple[PeerId, ...]],
        memory: Callable[[], UnitMemory],
    ) -> None:
        self._plane = plane
        self._holding = holding
        self._store = store
        self._folder = folder
        self._group = group
        self._partners = partners
        self._memory = memory
        self._cutting = asyncio.Semaphore(CUTTING)
        self._collecting: dict[JobId, asyncio.Task[None]] = {}  # results on their way here
        self._have: dict[JobId, set[int]] = {}  # units whose results are here
        self._written: set[JobId] = set()  # in this run; a file that its owner has moved away is not made again
        self._failed: dict[JobId, str] = {}  # why the result's file is not there

    # --- submitting -------------------------------------------------------------------------------------------

    async def cut(self, request: SubmitRequest, on_tile: Callable[[int, int], None]) -> CutJob:
        """Store the inputs of a requested job; they stay until ``dropped``, and as long as ``submitted`` says.

        Raises:
            ConfigError, StorageError: it cannot work; one sentence.
        """
        sealed_with = _key_for(request, self._plane.network_key)
        stopped = threading.Event()
        loop = asyncio.get_running_loop()

        def told(tiles: int, size: int) -> None:
            loop.call_soon_threadsafe(on_tile, tiles, size)

        async with self._cutting:
            memory = self._memory()
            work = asyncio.ensure_future(
                to_its_end(lambda: cut_job(request, self._plane.store, memory, stopped, told, sealed_with))
            )
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                stopped.set()
                await asyncio.wait([work])
                if not work.cancelled() and work.exception() is None:
                    self.dropped(work.result())
                raise

    def submitted(self, job: JobId, cut: CutJob) -> None:
        """The inputs are those of this job from now on."""
        self._have[job] = set()
        self._holding.keep(job, cut.inputs)

    def withdrawn(self, job: JobId) -> None:
        """The job could not be stored: it never was."""
        self._forget(job)

    def dropped(self, cut: CutJob) -> None:
        """Nobody needs the inputs for the sake of the request."""
        for blob in cut.inputs:
            self._plane.store.unpin(blob)

    # --- following --------------------------------------------------------------------------------------------

    def changed(self, job: KeptJob) -> None:
        """A job of ours is there, a unit of it was accepted, or it has ended."""
        if not has_arrays(job.state.spec):
            return
        if job.outcome in ("cancelled", "failed"):
            self._forget(job.state.id)
        elif job.outcome != "done" or not self.path(job).exists():
            if job.state.id not in self._have:
                self._have[job.state.id] = set()
                self._holding.keep(job.state.id, map(BlobId, job.state.spec.inputs))
            self._collect(job)

    def checked(self, job: JobId, blob: BlobId) -> None:
        """A result for the job was found right and is here."""
        self._holding.keep(job, (blob,))

    def pending(self, job: KeptJob) -> bool:
        """The job is done but its file is still being made, and nothing speaks against that."""
        name = job.state.id
        if job.outcome != "done" or name in self._written or name in self._failed:
            return False
        return not self.path(job).exists()  # also in the moment before this class hears that the job is done

    def failure(self, job: KeptJob) -> str | None:
        """Why the file of a job that is done is not there, if that is so."""
        return self._failed.get(job.state.id)

    def lacks_inputs(self, job: KeptJob) -> bool:
        """The job's inputs were not needed any more and have been removed."""
        return any(BlobId(blob) not in self._plane.store for blob in job.state.spec.inputs)

    def _forget(self, job: JobId) -> None:
        task = self._collecting.pop(job, None)
        if task is not None:
            task.cancel()
        self._have.pop(job, None)
        self._failed.pop(job, None)
        self._holding.let_go(job)

    def stop(self) -> None:
        """Collect nothing any more."""
        for task in self._collecting.values():
            task.cancel()

    # --- collecting -------------------------------------------------------------------------------------------

    def _collect(self, job: KeptJob) -> "asyncio.Task[None]":
        name = job.state.id
        task = self._collecting.get(name)
        if task is None or task.done():
            task = self._group.create_task(self._collect_patiently(job), name=f"results of {name.hex()[:8]}")
            self._collecting[name] = task
            task.add_done_callback(partial(self._collected, name))
        return task

    def _collected(self, job: JobId, task: "asyncio.Task[None]") -> None:
        if self._collecting.get(job) is task:
            del self._collecting[job]

    async def _collect_patiently(self, job: KeptJob) -> None:
        """Have the blobs of accepted results here while others may still have them; make the file once all are."""
        name, attempt = job.state.id, 0
        while True:
            try:
                await self._collect_once(job)
            except SparkleError as error:
                why = str(error)
                log.info("the result of %s is not complete yet: %s", name.hex()[:8], why)
            except Exception:
                log.exception("the result of %s could not be put together", name.hex()[:8])
                why = "this node failed to put it together; its log has the details"
            else:
                self._failed.pop(name, None)
                return
            if attempt >= TELL_AFTER:
                self._failed[name] = why
            await asyncio.sleep(pause_s(attempt))
            attempt += 1

    async def _collect_once(self, job: KeptJob) -> None:
        """Fetch all results that are accepted by now; with the last one make the file."""
        have, spec = self._have.setdefault(job.state.id, set()), job.state.spec
        await self._store.write(())  # units are accepted before their results are on disk
        while fresh := [unit for unit in job.state.final_units if unit not in have]:
            for unit in fresh:
                await self._fetch_result(job, unit)
                have.add(unit)
        if job.outcome == "done":
            blobs = [await self._result_blob(job, unit) for unit in range(spec.units)]
            cipher = cipher_of(self._plane.network_key, spec)
            await to_its_end(lambda: write_result(spec, blobs, self._plane.store, self.path(job), cipher))
            log.info("the result of %s is in %s", job.state.id.hex()[:8], self.path(job))
            self._written.add(job.state.id)
            self._have.pop(job.state.id, None)
            self._holding.let_go(job.state.id)

    async def _fetch_result(self, job: KeptJob, unit: int) -> None:
        blob = await self._result_blob(job, unit)
        self._holding.keep(job.state.id, (blob,))
        workers = sorted(job.state.accepted_workers(unit))
        size = array_unit(job.state.spec, unit).result_bytes
        await self._plane.fetch(blob, (*workers, *self._partners(job)), size=size, likely=len(workers))

    async def _result_blob(self, job: KeptJob, unit: int) -> BlobId:
        final = job.state.final(unit)
        found = await self._store.results_there(job.state.id, (final,)) if final is not None else []
        if not found:
            raise StorageError(f"the result of unit {unit} is not known here yet")
        return BlobId(found[0])

    # --- the file ---------------------------------------------------------------------------------------------

    def path(self, job: KeptJob) -> Path:
        """Where the job's result is, or will be."""
        return self._folder / f"{job.state.id.hex()}.npy"

    def shown(self, job: KeptJob) -> dict[str, Any] | None:
        """What the job's document says of its result; None while there is none."""
        return self._document(job) if job.outcome == "done" and self.path(job).exists() else None

    async def result(self, job: KeptJob) -> Combined:
        """The result of a job that is done; what failed before is tried again at once.

        Raises:
            TransportError, StorageError: it is not here; one sentence.
        """
        name = job.state.id
        if not self.path(job).exists():
            if self._failed.pop(name, None) is not None and name in self._collecting:
                self._collecting.pop(name).cancel()
            await asyncio.wait([self._collect(job)], timeout=RESULT_WAIT_S)
        if not self.path(job).exists():
            why = self._failed.get(name, "ask again in a moment")
            raise TransportError(f"the result of job {name.hex()[:12]} is not complete yet: {why}")
        return Combined(self._document(job), MEDIA_TYPE)

    def _document(self, job: KeptJob) -> dict[str, Any]:
        spec = job.state.spec
        kernel = get_array_kernel(spec.kernel, spec.kernel_version)
        output = kernel.output_type(kernel.validate(spec.params))
        return {"dtype": output.dtype, "shape": list(output.shape), "path": str(self.path(job).absolute())}


def _key_for(request: SubmitRequest, key: NetworkKey | None) -> NetworkKey | None:
    """The key to seal a requested job with; None if it is not to be sealed. Raises ConfigError."""
    if request.sealed and key is None:
        raise ConfigError(
            "a sealed job needs a private network; make a key with 'sparkle network-key FILE' and start the nodes "
            "with --network-key FILE"
        )
    return key if request.sealed else None


def write_result(
    spec: JobSpec, blobs: Sequence[BlobId], store: "BlobStore", path: Path, cipher: JobCipher | None = None
) -> None:
    """Put a job's result together in a file that is there whole or not at all; blocks.

    Args:
        spec: of the job.
        blobs: the results of its units, in order.
        store: where they are.
        path: the file; its folder is made if need be.
        cipher: opens the results of a sealed job.

    Raises:
        StorageError: the results are not here, or the file cannot be written.
        RemoteProtocolError: a result does not open.
    """
    import numpy as np
    from numpy.lib import format as npy

    kernel = get_array_kernel(spec.kernel, spec.kernel_version)
    params = kernel.validate(spec.params)
    output = kernel.output_type(params)

    def results() -> "Iterator[NDArray[Any]]":
        for unit, blob in enumerate(blobs):
            type_ = kernel.result_type(kernel.unit(params, spec.units, unit))
            dtype = str(np.dtype(type_.dtype).newbyteorder("<"))
            if cipher is None:
                yield store.open_array(blob, dtype, type_.shape)
            else:
                yield opened_array(store, cipher, unit, blob, dtype, type_.shape, path.parent)

    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    with disk_errors("write", path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                header = {"descr": np.dtype(output.dtype).newbyteorder("<").str, "fortran_order": False}
                npy.write_array_header_1_0(file, {**header, "shape": output.shape})
                file.flush()
                start = file.tell()
                # All of it now: a mapped file that runs out of disk would end the process.
                os.posix_fallocate(file.fileno(), 0, start + output.nbytes)
            with temporary.open("r+b") as mapped:
                if isinstance(kernel, Gathering):  # through its map a new file costs five times as much
                    write_gathered(mapped.fileno(), kernel.gather(params, spec.units, results()), start)
                else:
                    whole = mmap.mmap(mapped.fileno(), 0)  # goes with the last array that is made of it
                    kernel.assemble(params, spec.units, results(), output.view(memoryview(whole)[start:]))
                    whole.flush()
                os.fsync(mapped.fileno())
            temporary.rename(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """What an earlier run did not finish; blocks."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)
