"""What a program asks of a simulated node, in the words of ``sparkle_p2p.AsyncMesh`` and ``AsyncJob``.

A ``Client`` stands for a program on the machine of a peer. What it asks is served by that node's event loop, between
its other work: a busy node answers late, a suspended one not at all, and one that crashed not until it is back. The
errors and time limits are those of the real client (``sparkle_p2p.api``) and of the real node's commands.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from sparkle_protocol.errors import (
    ConfigError,
    NodeNotRunning,
    NotFound,
    PeerUnreachable,
    RequestTimeout,
    SparkleError,
)
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId, digest, find_job
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.quorum import QUORUMS, check_level
from sparkle_sim.client_jobs import Job, short
from sparkle_sim.kernel import SECOND
from sparkle_sim.peer import Peer
from sparkle_sim.planned import spec_of
from sparkle_sim.scenario import JobPlan, Scenario
from sparkle_sim.world import EPOCH_MS, KERNEL, World

T = TypeVar("T")

CALL_S = 35.0  # for a call to the node
PUBLISH_S = 20.0  # for a job to be with most of its keepers
LOOK_S = 0.25  # until a program finds that its node has gone


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
    ) -> Job:
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

    async def jobs(self) -> list[Job]:
        """All jobs of the node, newest first."""
        kept = await self.ask(lambda jobs: list(jobs.values()))
        return [Job(self, one.state.id) for one in sorted(kept, key=lambda one: -one.state.spec.created_ms)]

    async def job(self, job: str) -> Job:
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
        said = {"units": units, "unit_s": unit_s, "result_bytes": result_bytes}
        at = {"at_s": self.now_s, "submitter": self.number, "quorum": QUORUMS[check_level(verify)]}
        try:
            plan = msgspec.convert({**said, **at}, JobPlan)
        except msgspec.ValidationError as error:
            raise ConfigError(f"there can be no such job: {error}") from error
        self._submitted += 1
        nonce = digest(f"{self._world.seed}/client/{self.number}/{self._name}/{self._submitted}".encode())[:16]
        created_ms = EPOCH_MS + int(self.now_s * 1000)
        identity = self._world.identities[self.number]
        return plan, spec_of(self._scenario, plan, nonce, identity=identity, level=verify, created_ms=created_ms)

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


def _too_late(answer: "asyncio.Future[None]", job: JobId) -> None:
    if not answer.done():
        answer.set_exception(
            PeerUnreachable(
                f"job {short(job)} is on this node's disk, but too few peers hold it yet; "
                "it goes on being published as long as this node runs"
            )
        )
