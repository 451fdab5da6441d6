"""A job as a program beside a simulated node follows it, in the words of ``sparkle_p2p.AsyncJob``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sparkle_protocol.errors import ComputeError, NotFound, RequestTimeout, SparkleError, StorageError
from sparkle_protocol.ids import JobId, PeerId, peer_id_from_key
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_sim.world import EPOCH_MS

if TYPE_CHECKING:
    from sparkle_sim.client import Client

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25  # between two looks at a job
WRITTEN_S = 35.0  # for results of a job that is done to be on its disk
ENDED = ("done", "cancelled", "failed")
SHOWN = 12  # digits of a job's id in messages


@dataclass(frozen=True, slots=True)
class UnitCounts:
    """Units of a job by state."""

    total: int
    final: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its node shows it: what of ``sparkle_p2p.view.JobView`` there is in a simulation."""

    job: str
    kernel: str
    state: str  # queued, running, done, cancelled or failed
    verify: str
    units: UnitCounts
    replicas: int  # executions committed so far
    rejected: int  # results refused
    error: str | None
    age_s: float
    keepers: tuple[PeerId, ...]  # peers in its newest keeper set


class Job:
    """A job of the node. ``id`` is its name; everything else asks the node."""

    def __init__(self, client: "Client", job: JobId) -> None:
        self.id = job.hex()
        self.client = client
        self._job = job

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return int(self.id[:16], 16)  # the same in every process

    @property
    def state(self) -> Awaitable[str]:
        """``queued``, ``running``, ``done``, ``cancelled`` or ``failed``, to be awaited."""
        return self._of(lambda view: view.state)

    @property
    def progress(self) -> Awaitable[float]:
        """The share of its units that are accepted, 0 to 1, to be awaited."""
        return self._of(lambda view: view.units.final / view.units.total)

    async def view(self) -> JobView:
        """Everything the node shows of it. Raises NotFound: the node has lost it with its disk."""
        return await self._of(lambda view: view)

    async def wait(self, timeout: float | None = None, *, cancel_on_interrupt: bool = True) -> JobView:
        """Return once the job is done, cancelled or failed.

        Args:
            timeout: virtual seconds; None: as long as it takes.
            cancel_on_interrupt: cancel the job when the task that waits is cancelled, also by ``asyncio.timeout``.

        Raises:
            RequestTimeout: it has not ended in time; it goes on.
            NodeNotRunning: the node has gone; the job goes on with it.
        """
        patience = _Patience(self, timeout)
        try:
            while True:
                view = await self.view()
                if view.state in ENDED:
                    return view
                await patience.pause()
        except asyncio.CancelledError:
            if cancel_on_interrupt:
                with contextlib.suppress(SparkleError):
                    await self.cancel()
            raise

    async def result(self, timeout: float | None = None, *, cancel_on_interrupt: bool = True) -> list[bytes]:
        """The results of all units in their order, waited for as ``wait`` does.

        Raises:
            ComputeError: the job failed or was cancelled.
            RequestTimeout: it has not ended in time; it goes on.
            NodeNotRunning: the node has gone; the job goes on with it.
        """
        _checked_done(await self.wait(timeout, cancel_on_interrupt=cancel_on_interrupt))
        found = {unit: result async for unit, result in self.results()}
        return [result for _, result in sorted(found.items())]

    async def results(self) -> AsyncIterator[tuple[int, bytes]]:
        """Units and their results as they become final; ends with the job.

        Raises:
            ComputeError: the job failed or was cancelled.
            NodeNotRunning: the node has gone; the job goes on with it.
            StorageError: results of a job that is done are not there.
        """
        told: dict[int, None] = {}
        patience, done_s = _Patience(self, None), None
        while True:
            view, fresh = await self.client.ask(lambda jobs: self._fresh(jobs, told))
            for unit, result in fresh:
                told[unit] = None
                yield unit, result
            if view.state in ("cancelled", "failed"):
                _checked_done(view)
            if len(told) == view.units.total:
                return
            if view.state == "done":  # its last results are on their way to the disk
                done_s = self.client.now_s if done_s is None else done_s
                if self.client.now_s > done_s + WRITTEN_S:
                    raise StorageError(f"{view.units.total - len(told)} results of job {short(self._job)} are gone")
            await patience.pause()

    async def cancel(self) -> JobView:
        """End the job; one that has ended stays as it is."""
        peer = self.client.peer

        def cancel(jobs: dict[JobId, KeptJob]) -> JobView:
            effects = peer.submitter.cancel(self._job, "cancelled by its owner", peer.now())
            peer.command(lambda _submitter, _now: effects)
            return self._view(jobs)

        return await self.client.ask(cancel)

    async def _of(self, what: Callable[[JobView], T]) -> T:
        return what(await self.client.ask(self._view))

    def _fresh(self, jobs: dict[JobId, KeptJob], told: dict[int, None]) -> tuple[JobView, list[tuple[int, bytes]]]:
        """The job, and results on disk of units that are final and were not told."""
        kept, fresh = self._kept(jobs), []
        disk = self.client.peer.disk
        if len(kept.state.final_units) > len(told):
            for unit in kept.state.final_units:
                name = kept.state.final(unit) if unit not in told else None
                if name is not None:
                    fresh += [(unit, result) for result in disk.results_there(self._job, [name])]
        return self._view(jobs), fresh

    def _kept(self, jobs: dict[JobId, KeptJob]) -> KeptJob:
        kept = jobs.get(self._job)
        if kept is None:
            raise NotFound(f"no job '{short(self._job)}' is known to this node")
        return kept

    def _view(self, jobs: dict[JobId, KeptJob]) -> JobView:
        kept = self._kept(jobs)
        spec, final, set_ = kept.state.spec, kept.state.final_units, kept.state.keeper_set
        taken = bool(kept.leases.live or kept.replicas or final)
        return JobView(
            job=self.id,
            kernel=spec.kernel,
            state=kept.outcome or ("running" if taken else "queued"),
            verify=spec.policy.level,
            units=UnitCounts(spec.units, len(final), len(kept.dead)),
            replicas=kept.replicas,
            rejected=kept.rejected_count,
            error=kept.error or None,
            age_s=self.client.now_s - (spec.created_ms - EPOCH_MS) / 1000,
            keepers=tuple(peer_id_from_key(key) for key in set_.keys) if set_ is not None else (),
        )


class _Patience:
    """Says when to look at a job again: soon at first, so that a short job is noticed at once."""

    def __init__(self, job: Job, timeout: float | None) -> None:
        self._job = job
        self._timeout = timeout
        self._began_s = job.client.now_s
        self._pause = FIRST_PAUSE_S

    async def pause(self) -> None:
        """Wait until the next look. Raises RequestTimeout when there is no time left."""
        pause, self._pause = self._pause, min(self._pause * 1.5, LONGEST_PAUSE_S)
        if self._timeout is not None:
            left = self._began_s + self._timeout - self._job.client.now_s
            if left <= 0:
                raise RequestTimeout(
                    f"job {self._job.id[:SHOWN]} has not ended within {self._timeout:g} s; it goes on"
                )
            pause = min(pause, left)
        await asyncio.sleep(pause)


def short(job: JobId) -> str:
    """The part of a job's id that people type."""
    return job.hex()[:SHOWN]


def _checked_done(view: JobView) -> None:
    """Return if the job is done, else raise ComputeError."""
    if view.state != "done":
        how = "was cancelled" if view.state == "cancelled" else f"failed: {view.error or 'no reason is known'}"
        raise ComputeError(f"job {view.job[:SHOWN]} {how}")
