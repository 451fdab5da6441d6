"""What a simulated node does for jobs with blobs: tiles, results, checks, and what it keeps for others.

Performs what ``array_work``, ``tiles``, ``holding``, ``result_holding``, ``checking`` and ``array_jobs`` of
``sparkle_p2p.node`` do: tiles of units in hand are fetched ahead; results stay until they are settled; keepers fetch
inputs until they have all of them, and results that would be lost with their workers; the owner of a job collects
what was accepted. Checks run in a process of their own, one at a time, and cost a part of the unit's reference work.
"""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparkle_protocol import effects as fx
from sparkle_protocol.blobs.limits import (
    AT_ONCE,
    CHECK_TRIES,
    CHECKS,
    GIVE_WAY_S,
    LEASES_S,
    MAX_PREPARED,
    MAX_RESULTS_WAITING,
    PREPARING,
    RESULT_TRIES,
    RESULTS_AT_ONCE,
    TILE_TRIES,
    pause_s,
)
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import NotFound, RemoteProtocolError, SparkleError, StorageError, TransportError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import HASH_BYTES, JobId, PeerId
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_sim.blobs import BlobFiles, has_blobs, input_bytes, result_blob_bytes, unit_inputs
from sparkle_sim.bulk import Bulk
from sparkle_sim.computing import UnitKey, result_size, true_result
from sparkle_sim.processes import Loop, Places, Process, Promise

if TYPE_CHECKING:
    from sparkle_sim.peer import Peer
    from sparkle_sim.world import World

# What of the news of a job of ours may mean that a result can be fetched, or blobs be let go.
NEWS = frozenset({"unit_final", "units_requeued", "job_done", "job_failed", "job_cancelled"})
SUBMITTER, WORKER = 1, 2  # cores, as ``peer`` counts them

Work = Coroutine[Promise[Any], None, None]


class ArrayWork:
    """One life of a node. Performs the effects that concern blobs."""

    def __init__(self, world: "World", peer: "Peer", of: Callable[[int], Bulk | None]) -> None:
        self.life = peer.life
        self.loop = Loop(world.kernel, peer.arrive, (SparkleError,))
        if peer.disk.blobs is None:
            peer.disk.blobs = BlobFiles(peer.machine.blobs_bytes)
        self.bulk = Bulk(world, peer, peer.disk.blobs, self.loop, of)
        self._world = world
        self._peer = peer
        self._units: dict[UnitKey, Process] = {}  # that wait for their tiles, their turn having come
        self._specs: dict[UnitKey, JobSpec] = {}  # of units that are computed, or wait for it
        self._preparing: dict[UnitKey, Process] = {}
        self._computed: dict[BlobId, None] = {}  # results of ours that are kept
        self._inputs: dict[JobId, Process] = {}
        self._results: dict[tuple[JobId, int], Process] = {}
        self._collecting: dict[JobId, Process] = {}
        self._have: dict[JobId, set[int]] = {}  # units of our jobs whose results are here
        self._tiles_places, self._result_places = Places(PREPARING), Places(RESULTS_AT_ONCE)
        self._checks, self._checker = Places(CHECKS), Places(1)
        self._urgent = 0  # units that wait for tiles
        self._calm: Promise[None] = Promise()  # there are none
        self._calm.set(None)

    def stop(self) -> None:
        """The process is gone."""
        self.loop.stop()

    def perform(self, effect: fx.Effect) -> None:
        """Perform an effect that concerns blobs."""
        match effect:
            case fx.Prepare():
                self._prepare(effect)
            case fx.Compute():
                key = (effect.job, effect.unit, effect.epoch)
                self._specs[key] = effect.spec
                self._replace(self._units, key, self._compute(key, effect))
            case fx.StopCompute():
                self._drop(effect)
            case fx.CheckUnit():
                self.loop.begin(self._check(effect))
            case fx.HoldInputs():
                self._replace(self._inputs, effect.job, self._hold_inputs(effect))
            case fx.ReleaseInputs():
                if effect.job not in self._peer.submitter.jobs:  # ours say themselves what they need, and how long
                    self._let_go(effect.job)
            case fx.HoldResult():
                self._hold(effect)
            case fx.ReleaseResults():
                self._release(effect.job)
            case _:
                raise AssertionError(f"{type(effect).__name__} concerns no blobs")

    def _replace(self, running: dict[Any, Process], key: object, work: Work) -> None:
        before = running.pop(key, None)
        if before is not None:
            before.cancel()
        process = self.loop.begin(work)
        if not process.over:
            running[key] = process

            def ended() -> None:
                if running.get(key) is process:
                    del running[key]

            process.ended.then(ended)

    # --- tiles ------------------------------------------------------------------------------------------------

    def _prepare(self, effect: fx.Prepare) -> None:
        key = (effect.job, effect.unit, effect.epoch)
        if key not in self._preparing and len(self._preparing) < MAX_PREPARED:
            self._preparing[key] = self.loop.begin(self._fetch_ahead(key, effect))

    async def _fetch_ahead(self, key: UnitKey, effect: fx.Prepare) -> None:
        self.bulk.keep(("tiles", key), unit_inputs(effect.spec, effect.unit))
        try:
            async with self._tiles_places:
                await self._fetch_tiles(effect.spec, effect.unit, effect.keepers)
        except SparkleError:  # left to ``_compute``, which tries again
            return

    async def _fetch_tiles(self, spec: JobSpec, unit: int, sources: tuple[PeerId, ...]) -> None:
        size = input_bytes(spec)
        with self._hurry():
            await self.loop.gather(self.bulk.fetch(blob, sources, size=size) for blob in unit_inputs(spec, unit))

    @contextmanager
    def _hurry(self) -> Iterator[None]:
        """Inputs that are fetched to be kept give way to what a unit waits for."""
        self._urgent += 1
        if self._urgent == 1:
            self._calm = Promise()
        try:
            yield
        finally:
            self._urgent -= 1
            if not self._urgent:
                self._calm.set(None)

    def _drop(self, effect: fx.StopCompute) -> None:
        key = (effect.job, effect.unit, effect.epoch)
        process = self._units.pop(key, None)
        if process is not None:
            process.cancel()
        self._end_unit(key)

    async def _compute(self, key: UnitKey, effect: fx.Compute) -> None:
        """Have the unit computed as soon as its tiles are here."""
        self.bulk.keep(("tiles", key), unit_inputs(effect.spec, effect.unit))
        try:
            for attempt in range(TILE_TRIES):
                try:
                    await self._fetch_tiles(effect.spec, effect.unit, effect.keepers)
                    break
                except (TransportError, StorageError):
                    if attempt == TILE_TRIES - 1:
                        raise
                await self.loop.sleep(pause_s(attempt))
        except SparkleError as error:
            blame = isinstance(error, RemoteProtocolError)
            self._end_unit(key)
            self._say(WORKER, fx.ComputeFailed(*key, "refused", str(error), blame))
            return
        self._peer.computes(effect)

    def computed(self, event: fx.Computed | fx.ComputeFailed) -> fx.Computed | fx.ComputeFailed:
        """A unit was computed: its result is stored, and its tiles are not needed any more."""
        key = (event.job, event.unit, event.epoch)
        spec = self._specs.get(key)
        if spec is None:
            return event
        self._end_unit(key)
        size = result_blob_bytes(spec)
        if isinstance(event, fx.ComputeFailed) or not size:
            return event
        self.tidy()
        blob = BlobId(event.result)
        try:
            self.bulk.files.add(blob, size, self.bulk.pinned)
        except StorageError as error:
            return fx.ComputeFailed(*key, "refused", str(error), blame=False)
        self._computed[blob] = None
        self.bulk.keep(("computed", blob), (blob,))
        return event

    def _end_unit(self, key: UnitKey) -> None:
        self._specs.pop(key, None)
        process = self._preparing.pop(key, None)
        if process is not None:
            process.cancel()
        self.bulk.let_go(("tiles", key))

    def tidy(self) -> None:
        """Let results of ours go whose units are settled."""
        worker = self._peer.worker
        needed = {
            BlobId(held.result)
            for (job, _, _), held in worker.held.items()
            if len(held.result) == HASH_BYTES and job in worker.jobs and result_blob_bytes(worker.jobs[job].spec)
        }
        for blob in [blob for blob in self._computed if blob not in needed]:
            del self._computed[blob]
            self.bulk.let_go(("computed", blob))
        for blob in sorted(needed):
            if blob not in self._computed:
                self._computed[blob] = None
                self.bulk.keep(("computed", blob), (blob,))

    # --- what is kept for others' jobs ------------------------------------------------------------------------

    async def _hold_inputs(self, effect: fx.HoldInputs) -> None:
        """Until all are here, however often that takes."""
        self.bulk.keep(("job", effect.job), map(BlobId, effect.inputs))
        attempt = 0
        while True:
            try:
                await self._fetch_all(effect)
                break
            except SparkleError as error:
                self._note("inputs lack", effect.job, str(error))
            await self.loop.sleep(pause_s(attempt))
            attempt += 1
        self._say(SUBMITTER, fx.InputsHeld(effect.job))

    async def _fetch_all(self, effect: fx.HoldInputs) -> None:
        places = Places(AT_ONCE)

        async def one(blob: BlobId, size: int | None) -> None:
            async with places:
                await self._give_way()
                await self.bulk.fetch(blob, effect.sources, size=size, durable=True, likely=effect.likely)

        sizes = effect.sizes or (None,) * len(effect.inputs)
        wanted = dict(zip(map(BlobId, effect.inputs), sizes, strict=True))
        await self.loop.sleep(LEASES_S)
        await self.loop.gather(one(blob, size) for blob, size in wanted.items())

    async def _give_way(self) -> None:
        """Wait until no unit waits for its tiles, but not for long."""
        if not self._calm.done:
            either: Promise[None] = Promise()
            self._calm.then(lambda: either.set(None))
            self.loop.sleep(GIVE_WAY_S).then(lambda: either.set(None))
            await either

    async def _written(self) -> None:
        """Return when all that is to be written by now is on disk: the transaction under way, and one more."""
        await self.loop.sleep(2 * self._peer.machine.sync_s[1])

    def _let_go(self, job: JobId) -> None:
        process = self._inputs.pop(job, None)
        if process is not None:
            process.cancel()
        self.bulk.let_go(("job", job))

    def _hold(self, effect: fx.HoldResult) -> None:
        key = (effect.job, effect.unit)
        before = self._results.pop(key, None)
        if before is not None:
            before.cancel()
        if len(self._results) >= MAX_RESULTS_WAITING:
            self._say(SUBMITTER, fx.ResultNotHeld(*key, full=True))
        else:
            self._replace(self._results, key, self._hold_result(effect))

    async def _hold_result(self, effect: fx.HoldResult) -> None:
        failed: fx.ResultNotHeld | None = None
        for attempt in range(RESULT_TRIES):
            try:
                await self._fetch_result(effect)
            except StorageError:
                failed = fx.ResultNotHeld(effect.job, effect.unit, full=True)
            except SparkleError:
                failed = fx.ResultNotHeld(effect.job, effect.unit, full=False)
                if attempt < RESULT_TRIES - 1:
                    await self.loop.sleep(pause_s(attempt))
                    continue
            else:
                failed = None
            break
        if failed is not None:
            self._say(SUBMITTER, failed)
        else:
            fields: dict[str, fx.Value] = {"job": effect.job.hex(), "unit": effect.unit, "bytes": effect.size}
            self._world.heard(self._peer, fx.Notify("result_held", fields))

    async def _fetch_result(self, effect: fx.HoldResult) -> None:
        await self._written()  # its name may still be on its way to the disk
        names = self._peer.disk.results_there(effect.job, (effect.result,))
        if not names or len(names[0]) != HASH_BYTES:
            raise NotFound("the name of the blob is not known here yet")
        blob = BlobId(names[0])
        with self.bulk.keeping(("result", effect.job, effect.unit), (blob,)):
            async with self._result_places:
                await self.bulk.fetch(blob, effect.sources, size=effect.size, durable=True, likely=effect.likely)
            self.bulk.keep(("results", effect.job), (blob,))

    def _release(self, job: JobId) -> None:
        for key in [key for key in self._results if key[0] == job]:
            self._results.pop(key).cancel()
        self.bulk.let_go(("results", job))

    # --- checks -----------------------------------------------------------------------------------------------

    async def _check(self, effect: fx.CheckUnit) -> None:
        name = ("check", effect.job, effect.unit, effect.epoch, effect.worker)
        blob, passed, text = BlobId(effect.result), None, ""
        async with self._checks:
            with self.bulk.keeping(name, (blob, *unit_inputs(effect.spec, effect.unit))):
                for attempt in range(CHECK_TRIES):
                    if attempt:
                        await self.loop.sleep(pause_s(attempt))
                    try:
                        text = await self._check_once(effect, blob)
                    except SparkleError as error:
                        text = str(error)
                        continue
                    passed = not text
                    break
                if passed:
                    self._checked(effect.job, blob)
        event = fx.UnitChecked(effect.job, effect.unit, effect.epoch, effect.worker, passed, text)
        self._say(SUBMITTER, event)

    async def _check_once(self, effect: fx.CheckUnit, blob: BlobId) -> str:
        """What is wrong with the result, if anything. Raises what makes another try worth while."""
        spec, size = effect.spec, result_blob_bytes(effect.spec)
        for tile in unit_inputs(spec, effect.unit):
            await self.bulk.fetch(tile, effect.sources, size=input_bytes(spec))
        if size:
            try:
                await self.bulk.fetch(blob, effect.sources, size=size, durable=True, likely=1)
            except RemoteProtocolError as error:
                return str(error)
        async with self._checker:
            share = float(spec.params.get("check_share", 0.0))
            await self.loop.sleep(spec.resources.flops * share / self._peer.machine.flops_per_s)
        right = true_result(effect.job, effect.unit, result_size(spec))
        return "" if effect.result == right else "the result is not what the check expects"

    def _checked(self, job: JobId, blob: BlobId) -> None:
        """A result was found right and is here."""
        submitter = self._peer.submitter
        if job in submitter.jobs:
            self.bulk.keep(("job", job), (blob,))
        elif job in submitter.kept:
            self.bulk.keep(("results", job), (blob,))

    # --- our own jobs -----------------------------------------------------------------------------------------

    def submitted(self, job: JobId, spec: JobSpec) -> None:
        """The inputs of a job of ours are stored here. Raises StorageError."""
        blobs = [BlobId(blob) for blob in spec.inputs]
        self.bulk.keep(("job", job), blobs)
        for blob in blobs:
            self.bulk.files.add(blob, input_bytes(spec), self.bulk.pinned)

    def changed(self, job: KeptJob) -> None:
        """A job of ours is there, a unit of it was accepted, or it has ended."""
        name, spec = job.state.id, job.state.spec
        if job.outcome in ("cancelled", "failed"):
            process = self._collecting.pop(name, None)
            if process is not None:
                process.cancel()
            self._have.pop(name, None)
            self._let_go(name)
        elif name not in self.bulk.files.complete:
            if name not in self._have:
                self._have[name] = set()
                self.bulk.keep(("job", name), map(BlobId, spec.inputs))
            if name not in self._collecting:
                self._replace(self._collecting, name, self._collect(job))

    async def _collect(self, job: KeptJob) -> None:
        """Have the blobs of accepted results here while others may still have them."""
        name, attempt = job.state.id, 0
        while True:
            try:
                await self._collect_once(job)
                break
            except SparkleError as error:
                self._note("results lack", name, str(error))
            await self.loop.sleep(pause_s(attempt))
            attempt += 1
        if job.outcome == "done":
            self.bulk.files.complete[name] = None
            self._have.pop(name, None)
            self.bulk.let_go(("job", name))
            fields: dict[str, fx.Value] = {"job": name.hex(), "units": job.state.spec.units}
            self._world.heard(self._peer, fx.Notify("result_complete", fields))

    async def _collect_once(self, job: KeptJob) -> None:
        have = self._have.setdefault(job.state.id, set())
        await self._written()  # units are accepted before their results are on disk
        while fresh := [unit for unit in job.state.final_units if unit not in have]:
            for unit in fresh:
                await self._collect_unit(job, unit)
                have.add(unit)

    async def _collect_unit(self, job: KeptJob, unit: int) -> None:
        size, final = result_blob_bytes(job.state.spec), job.state.final(unit)
        found = self._peer.disk.results_there(job.state.id, (final,)) if final is not None else []
        if not found:
            raise StorageError(f"the result of unit {unit} is not known here yet")
        if not size:
            return
        blob = BlobId(found[0])
        self.bulk.keep(("job", job.state.id), (blob,))
        workers = sorted(job.state.accepted_workers(unit))
        sources = (*workers, *self._peer.submitter.partners(job))
        await self.bulk.fetch(blob, sources, size=size, likely=len(workers))

    # --- a new life -------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Keep what the jobs of earlier lives need."""
        submitter, files = self._peer.submitter, self.bulk.files
        for job in submitter.jobs.values():
            if has_blobs(job.state.spec):
                self.changed(job)
        for job in submitter.kept.values():
            if has_blobs(job.state.spec) and job.outcome != "cancelled":
                self.bulk.keep(("results", job.state.id), (one for one in self._named(job) if one in files))
        self.tidy()

    def _named(self, job: KeptJob) -> Iterator[BlobId]:
        """The blobs that stored results of a job name."""
        records = self._peer.disk.jobs.get(job.state.id)
        results = records.results.values() if records is not None and result_blob_bytes(job.state.spec) else ()
        return (BlobId(result) for result in results if len(result) == HASH_BYTES)

    def _say(self, core: int, event: object) -> None:
        self._peer.arrive(self._peer.tell, core, event)

    def _note(self, what: str, job: JobId, text: str) -> None:
        self._world.note(self._peer.number, what, f"{job.hex()[:8]} {text}")


class Arrays:
    """What all peers of a run do with blobs. A peer that has to do with none costs nothing."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._works: dict[int, ArrayWork] = {}
        self._moved_bytes = 0  # by lives that are over

    @property
    def moved_bytes(self) -> int:
        """Bytes of blobs that came from one peer to another, by whole chunks."""
        return self._moved_bytes + sum(work.bulk.moved_bytes for work in self._works.values())

    def of(self, peer: "Peer") -> ArrayWork:
        """Of the present life of a peer that is up."""
        work = self._works.get(peer.number)
        if work is None or work.life is not peer.life:
            work = self._works[peer.number] = ArrayWork(self._world, peer, self._bulk_of)
        return work

    def known(self, peer: "Peer") -> ArrayWork | None:
        """The same, if it has to do with blobs."""
        work = self._works.get(peer.number)
        return work if work is not None and work.life is peer.life else None

    def _bulk_of(self, number: int) -> Bulk | None:
        peer = self._world.peers[number]
        return self.of(peer).bulk if peer.life is not None else None

    def heard(self, peer: "Peer", effect: fx.Notify) -> None:
        """A peer tells its owner something; if it is about a job with blobs, some may be wanted now."""
        if effect.event in NEWS and peer.life is not None:
            job = peer.submitter.jobs.get(JobId(bytes.fromhex(str(effect.fields["job"]))))
            if job is not None and has_blobs(job.state.spec):
                self.of(peer).changed(job)

    def restore(self, peer: "Peer") -> None:
        """A peer that had blobs lives again."""
        if peer.disk.blobs is not None:
            self.of(peer).restore()

    def end(self, peer: "Peer") -> None:
        """Its process is gone."""
        work = self._works.pop(peer.number, None)
        if work is not None:
            self._moved_bytes += work.bulk.moved_bytes
            work.stop()
