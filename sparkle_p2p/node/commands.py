"""What a client may do with jobs: submit, look, fetch the result, cancel, begin dead units anew."""

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sparkle_p2p.node import picture, results
from sparkle_p2p.node.array_jobs import ArrayJobs
from sparkle_p2p.node.array_units import has_arrays
from sparkle_p2p.node.journals import Journals
from sparkle_p2p.node.shell import Shell
from sparkle_p2p.node.store import Store, StoreError
from sparkle_p2p.runtime.clock import boot_ns, wall_ms
from sparkle_p2p.view import DeadUnit, JobResult, JobView, Requeued, SubmitRequest
from sparkle_protocol.errors import ConfigError, NotFound, PeerUnreachable
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, find_job
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.quorum import check_level
from sparkle_protocol.work.submitter import Submitter
from sparkle_worker.kernels.base import Combined
from sparkle_worker.kernels.registry import ARRAY_KERNELS

if TYPE_CHECKING:
    from sparkle_p2p.node.ledger import LedgerPart

log = logging.getLogger("sparkle.node")

VALUES_KEPT = 16
PUBLISH_S = 20.0  # less than the local API gives a call, so that the client hears why
PUBLISH_INPUTS_S = 1800.0  # keepers first fetch what may be gigabytes; the local API gives such calls an hour
DEAD_SHOWN = 1000  # of one answer; each comes with its evidence
NEWEST_SHOWN = 64


class JobCommands:
    """The jobs of a node as its clients see them.

    Args:
        identity: who signs their specs.
        submitter: their core.
        store: where their results are.
        journals: what happened to them.
        shell: performs what the core wants; raises ConfigError before the node has started.
        arrays: jobs with arrays; None where the node has no place for them.
        on_tile: told of a kernel and how many tiles and bytes of a job's inputs are stored.
        check: refuses a job that nobody could compute, by raising ConfigError.
        ledger: sets aside what a job may cost; without it all work is free.
    """

    def __init__(
        self,
        identity: Identity,
        submitter: Submitter,
        store: Store,
        journals: Journals,
        shell: Callable[[], Shell],
        arrays: Callable[[], ArrayJobs | None] = lambda: None,
        on_tile: Callable[[str, int, int], None] = lambda _kernel, _tiles, _size: None,
        check: Callable[[JobSpec], None] = lambda _spec: None,
        ledger: "LedgerPart | None" = None,
    ) -> None:
        self._arrays = arrays
        self._on_tile = on_tile
        self._check = check
        self._ledger = ledger
        self._identity = identity
        self._submitter = submitter
        self._store = store
        self._journals = journals
        self._shell = shell
        self._publishing: dict[JobId, asyncio.Future[None]] = {}
        self._values: OrderedDict[JobId, Combined] = OrderedDict()

    def find(self, job: str) -> KeptJob:
        """The core's own record of a job, by id or unique prefix. Raises NotFound."""
        try:
            return self._submitter.jobs[find_job(job, self._submitter.jobs)]
        except ConfigError as error:
            raise NotFound(str(error)) from error

    def show(self, job: KeptJob) -> JobView:
        """A job as it is now."""
        known = self._values.get(job.state.id)
        value = known.value if known is not None else None
        unfinished, failure = False, None
        with_arrays = has_arrays(job.state.spec)
        arrays = self._arrays() if with_arrays else None
        if with_arrays and arrays is None:  # as long as the node looks what it has
            unfinished = job.outcome == "done"
        elif arrays is not None:
            # In this order: a file that comes to be in between is either still awaited or shown.
            unfinished, failure = arrays.pending(job), arrays.failure(job)
            value = arrays.shown(job)
        pace = self._journals.pace(job.state.id)
        return picture.job_view(
            job, value, pace, boot_ns(), wall_ms(), self._store.failure, unfinished=unfinished, failure=failure
        )

    def newest(self) -> tuple[JobView, ...]:
        """The newest jobs, as many as a screen has use for."""
        return tuple(self.show(job) for job in self._by_age()[:NEWEST_SHOWN])

    async def submit(self, request: SubmitRequest) -> str:
        """Publish a job; returns its id once it is on disk, here and with most of its keepers, or has ended."""
        if request.kernel not in ARRAY_KERNELS:
            return await self._publish(results.make_spec(request, self._identity))
        arrays = self._place_for_arrays()
        check_level(request.verify)
        cut = await arrays.cut(request, partial(self._on_tile, request.kernel))
        try:
            spec = results.make_array_spec(request, cut, self._identity)
            return await self._publish(spec, lambda job: arrays.submitted(job, cut))
        finally:
            arrays.dropped(cut)

    def _place_for_arrays(self) -> ArrayJobs:
        arrays = self._arrays()
        if arrays is None:
            raise ConfigError("this node has no place for arrays yet; try again in a moment")
        return arrays

    async def _publish(self, spec: JobSpec, begun: Callable[[JobId], None] = lambda _job: None) -> str:
        shell = self._shell()  # a node that is still starting refuses here: the core must not have heard of the job
        self._check(spec)
        if self._ledger is not None:
            await self._ledger.fund(spec)
        job, effects = self._submitter.submit(spec, boot_ns())
        begun(job)
        published = self._publishing[job] = asyncio.get_running_loop().create_future()
        try:
            await shell.perform_durably(self._submitter, effects, keep=False)
            if not self._submitter.is_published(job) and not self._submitter.jobs[job].outcome:
                async with asyncio.timeout(PUBLISH_INPUTS_S if spec.inputs else PUBLISH_S):
                    await published
        except StoreError:
            self._submitter.withdraw(job)
            if self._ledger is not None:
                self._ledger.withdrawn(spec)
            arrays = self._arrays()
            if arrays is not None:
                arrays.withdrawn(job)
            raise
        except TimeoutError:
            raise PeerUnreachable(
                f"job {job.hex()[:12]} is on this node's disk, but too few peers hold it yet; "
                "it goes on being published as long as this node runs"
            ) from None
        finally:
            self._publishing.pop(job, None)
        return job.hex()

    def settled(self, job: JobId) -> None:
        """Most of a job's keepers hold it, or it has ended and needs none: who submitted it is answered."""
        waiting = self._publishing.get(job)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def stop(self) -> None:
        """Let nobody wait for the publishing of a job that ends with this process."""
        for job, waiting in self._publishing.items():
            if not waiting.done():
                sentence = (
                    f"job {job.hex()[:12]} is on this node's disk, but the node is stopping before most of its "
                )
                waiting.set_exception(PeerUnreachable(sentence + "keepers hold it; it is published after a restart"))
                waiting.exception()  # whoever submitted may have gone

    async def job(self, job: str) -> JobView:
        """One job by id or unique prefix."""
        found = self.find(job)
        if found.outcome == "done" and not has_arrays(found.state.spec):
            await self.value(found)
        return self.show(found)

    async def jobs(self) -> tuple[JobView, ...]:
        """All jobs of this node, newest first."""
        return tuple(self.show(job) for job in self._by_age())

    async def result(self, job: str) -> JobResult:
        """The result of a finished job."""
        found = self.find(job)
        if found.outcome != "done":
            state = found.outcome or "running"
            raise ConfigError(f"job {found.state.id.hex()[:12]} is {state}; 'sparkle wait' follows a running job")
        value = await self.value(found)
        return JobResult(found.state.id.hex(), found.state.spec.kernel, value.value, value.media_type, value.data)

    async def cancel(self, job: str) -> JobView:
        """Cancel a job; a finished one stays as it is."""
        found = self.find(job)
        effects = self._submitter.cancel(found.state.id, "cancelled by its owner", boot_ns())
        await self._shell().perform_durably(self._submitter, effects)
        return self.show(found)

    async def dead(self, job: str | None = None) -> tuple[DeadUnit, ...]:
        """Dead units of a job or of all, the newest job first; the first ``DEAD_SHOWN``."""
        jobs = [self.find(job)] if job is not None else self._by_age()
        units = (unit for one in jobs for unit in picture.dead_units(one))
        return tuple(itertools.islice(units, DEAD_SHOWN))

    async def requeue(self, job: str, unit: int | None = None) -> Requeued:
        """Begin a dead unit, or all of a job, anew; returns once that is on disk."""
        found = self.find(job)
        if (
            found.outcome == "failed"
            and has_arrays(found.state.spec)
            and self._place_for_arrays().lacks_inputs(found)
        ):
            raise ConfigError(f"inputs of job {found.state.id.hex()[:12]} were removed meanwhile; submit it again")
        units, effects = self._submitter.requeue(found.state.id, unit, boot_ns())
        await self._shell().perform_durably(self._submitter, effects)
        return Requeued(found.state.id.hex(), units, self.show(found).state)

    async def value(self, job: KeptJob) -> Combined:
        """The combined result of a finished job; the latest ones are kept."""
        if has_arrays(job.state.spec):
            return await self._place_for_arrays().result(job)
        known = self._values.get(job.state.id)
        if known is None:
            known = self._values[job.state.id] = await results.combine(job, self._store)
            while len(self._values) > VALUES_KEPT:
                self._values.popitem(last=False)
        return known

    async def combine_quietly(self, job: KeptJob) -> None:
        """Have the result ready before somebody asks; a failure is told to whoever does."""
        try:
            await self.value(job)
        except Exception:
            log.exception("combining job %s failed", job.state.id.hex()[:12])

    def _by_age(self) -> list[KeptJob]:
        """The newest first; by the wall clock, so that the order survives a restart."""
        return sorted(self._submitter.jobs.values(), key=lambda job: -job.state.spec.created_ms)
