"""What a program asks of a simulated node, in the words of ``sparkle_p2p.AsyncMesh`` and ``AsyncJob``.

A ``Client`` stands for a program on the machine of a peer. What it asks is served by that node's event loop, between
its other work: a busy node answers late, a suspended one not at all, and one that crashed not until it is back. The
errors and time limits are those of the real client (``sparkle_p2p.api``) and of the real node's commands.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from sparkle_protocol.errors import (
    ComputeError,
    ConfigError,
    NodeNotRunning,
    NotFound,
    PeerUnreachable,
    RequestTimeout,
    SparkleError,
    StorageError,
)
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId, PeerId, digest, find_job, peer_id_from_key
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_sim.kernel import SECOND
from sparkle_sim.peer import Peer
from sparkle_sim.planned import spec_of
from sparkle_sim.scenario import JobPlan, Scenario
from sparkle_sim.world import EPOCH_MS, KERNEL, World

T = TypeVar("T")

QUORUMS = {"fast": 1, "final": 2, "critical": 3}
CALL_S = 35.0  # for a call to the node
PUBLISH_S = 20.0  # for a job to be with most of its keepers
LOOK_S = 0.25  # until a program finds that its node has gone
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25  # between two looks at a job
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


class Client:
    """A program's way to the node of a peer.

    Args:
        world: where the node is.
        scenario: for how long, and on what machines.
        number: the peer.
        name: of the program; two of one peer must have two.
        on_submit: told of each job that the node took, and as what plan it can be described.
    """

    def __init__(
        self,
        world: World,
        scenario: Scenario,
        number: int,
        name: str,
        on_submit: Callable[[JobId, JobPlan], None] = lambda _job, _plan: None,
    ) -> None:
        self.number = number
        self._world = world
        self._scenario = scenario
        self._name = name
        self._on_submit = on_submit
        self._submitted = 0
        self._publishing: dict[JobId, asyncio.Future[None]] = {}

    def __repr__(self) -> str:
        return f"<Client of peer {self.number}>"

    @property
    def peer(self) -> Peer:
        """The simulated node."""
        return self._world.peers[self.number]

    @property
    def now_s(self) -> float:
        """Virtual seconds since the beginning of the run."""
        return self._world.kernel.now / SECOND

    async def running(self) -> None:
        """Return as soon as the node runs."""
        while self.peer.life is None:  # noqa: ASYNC110 - a real program looks, too
            await asyncio.sleep(LOOK_S)

    async def submit(
        self,
        kernel: str = KERNEL,
        units: int = 100,
        verify: str = "final",
        *,
        unit_s: float = 30.0,
        result_bytes: int = 8,
    ) -> "Job":
        """Publish a job and return it once most of its keepers hold it; a cancellation meanwhile cancels the job.

        Args:
            kernel: there is one.
            units: pieces of the job.
            verify: ``fast``, ``final`` or ``critical``: one result, two that agree, three.
            unit_s: reference work of a unit: seconds on a machine of the scenario's median speed.
            result_bytes: of each unit.

        Raises:
            ConfigError: there can be no such job.
            PeerUnreachable: too few peers took the job up in time; it goes on being published.
            NodeNotRunning: the node has gone.
        """
        plan, spec = self._spec(kernel, units, verify, unit_s, result_bytes)
        peer, found, loop = self.peer, list[JobId](), asyncio.get_running_loop()

        def publish(answer: asyncio.Future[None]) -> None:
            job, effects = peer.submitter.submit(spec, peer.now())
            found.append(job)
            self._publishing[job] = answer
            loop.call_later(PUBLISH_S, _too_late, answer, job)
            self._world.note(self.number, "submit", job.hex())
            self._on_submit(job, plan)
            peer.command(lambda _submitter, _now: effects)

        try:
            await self._call(publish)
        except asyncio.CancelledError:
            for job in found:
                with contextlib.suppress(SparkleError):
                    await Job(self, job).cancel()
            raise
        finally:
            for job in found:
                self._publishing.pop(job, None)
        return Job(self, found[0])

    async def jobs(self) -> "list[Job]":
        """All jobs of the node, newest first."""
        kept = await self.ask(lambda jobs: list(jobs.values()))
        return [Job(self, one.state.id) for one in sorted(kept, key=lambda one: -one.state.spec.created_ms)]

    async def job(self, job: str) -> "Job":
        """One job by id or unique prefix. Raises NotFound."""
        try:
            return Job(self, await self.ask(lambda jobs: find_job(job, jobs)))
        except ConfigError as error:
            raise error if isinstance(error, NodeNotRunning) else NotFound(str(error)) from error

    def heard(self, job: JobId) -> None:
        """The node says that most of a job's keepers hold it, or that it has ended."""
        answer = self._publishing.get(job)
        if answer is not None and not answer.done():
            answer.set_result(None)

    def _spec(
        self, kernel: str, units: int, verify: str, unit_s: float, result_bytes: int
    ) -> tuple[JobPlan, JobSpec]:
        if kernel != KERNEL:
            raise ConfigError(f"there is no kernel '{kernel}' in a simulation; submit '{KERNEL}'")
        if verify not in QUORUMS:
            raise ConfigError(f"verify is one of {', '.join(QUORUMS)}, not '{verify}'")
        said = {"units": units, "unit_s": unit_s, "result_bytes": result_bytes}
        at = {"at_s": self.now_s, "submitter": self.number, "quorum": QUORUMS[verify]}
        try:
            plan = msgspec.convert({**said, **at}, JobPlan)
        except msgspec.ValidationError as error:
            raise ConfigError(f"there can be no such job: {error}") from error
        self._submitted += 1
        nonce = digest(f"{self._world.seed}/client/{self.number}/{self._name}/{self._submitted}".encode())[:16]
        created_ms = EPOCH_MS + int(self.now_s * 1000)
        return plan, spec_of(self._scenario, plan, nonce, level=verify, created_ms=created_ms)

    # --- calls ------------------------------------------------------------------------------------------------

    async def ask(self, what: Callable[[dict[JobId, KeptJob]], T]) -> T:
        """What the node says of its jobs.

        Raises:
            NodeNotRunning: the node has gone.
            RequestTimeout: it does not answer.
        """
        return await self._call(lambda answer: answer.set_result(what(self.peer.submitter.jobs)))

    async def _call(self, serve: Callable[["asyncio.Future[T]"], None]) -> T:
        """Have the node's loop serve a call, which sets the answer then or later."""
        peer, loop = self.peer, asyncio.get_running_loop()
        life = peer.life
        if life is None:
            raise NodeNotRunning(
                f"the node of peer {self.number} is not running; 'await client.running()' waits for it"
            )
        answer: asyncio.Future[T] = loop.create_future()
        until_s = loop.time() + CALL_S

        def begin() -> None:
            if answer.done():
                return
            try:
                serve(answer)
            except SparkleError as error:
                answer.set_exception(error)

        peer.arrive(begin)
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=LOOK_S)
                if not answer.done() and peer.life is not life:
                    raise NodeNotRunning(f"the node of peer {self.number} stopped before it answered")
                if not answer.done() and loop.time() >= until_s:
                    raise RequestTimeout(f"the node of peer {self.number} did not answer within {CALL_S:.0f} s")
            return answer.result()
        finally:
            answer.cancel()  # who comes later finds that nobody waits


class Job:
    """A job of the node. ``id`` is its name; everything else asks the node."""

    def __init__(self, client: Client, job: JobId) -> None:
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
                if self.client.now_s > done_s + CALL_S:
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


def _too_late(answer: "asyncio.Future[None]", job: JobId) -> None:
    if not answer.done():
        answer.set_exception(
            PeerUnreachable(
                f"job {short(job)} is on this node's disk, but too few peers hold it yet; "
                "it goes on being published as long as this node runs"
            )
        )


def short(job: JobId) -> str:
    """The part of a job's id that people type."""
    return job.hex()[:SHOWN]


def _checked_done(view: JobView) -> None:
    """Return if the job is done, else raise ComputeError."""
    if view.state != "done":
        how = "was cancelled" if view.state == "cancelled" else f"failed: {view.error or 'no reason is known'}"
        raise ComputeError(f"job {view.job[:SHOWN]} {how}")
