"""The node: cores, overlay, store and executors put together, and the commands that clients give it.

Order of a life: open the store, restore jobs, start the network in the background (own work needs none), serve,
and on ``stop``: hand back what is not committed, report what is, leave the network, end the children, close.
"""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Any

from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import HomeDir
from sparkle_p2p.ledger_view import CreditView
from sparkle_p2p.net.overlay import Overlay, OverlayEvents
from sparkle_p2p.node import narrate, picture
from sparkle_p2p.node.array_jobs import ArrayJobs
from sparkle_p2p.node.array_units import check_result, has_arrays, input_sizes, result_size
from sparkle_p2p.node.array_work import ArrayWork, listen_host, open_array_work
from sparkle_p2p.node.commands import JobCommands
from sparkle_p2p.node.computing import Computing
from sparkle_p2p.node.crediting import read_credit
from sparkle_p2p.node.diary import Diary
from sparkle_p2p.node.happenings import Happenings
from sparkle_p2p.node.housekeeping import Housekeeping
from sparkle_p2p.node.journals import Journals
from sparkle_p2p.node.ledger import LedgerPart
from sparkle_p2p.node.memory import MIB, WorkerMemory
from sparkle_p2p.node.offenders import Offenders
from sparkle_p2p.node.parts import (
    ExecutorFactory,
    OverlayFactory,
    device_class,
    libp2p_overlay,
    local_checker,
    local_executor,
)
from sparkle_p2p.node.reception import Reception
from sparkle_p2p.node.restoring import restore_jobs
from sparkle_p2p.node.shell import Core, Shell
from sparkle_p2p.node.standings import Standings
from sparkle_p2p.node.store import Store, StoreError
from sparkle_p2p.node.usage import Usage
from sparkle_p2p.node.weighing import PricedRules, Weighing
from sparkle_p2p.runtime.clock import boot_ns, wall_ms
from sparkle_p2p.view import (
    DeadUnit,
    Event,
    Explanation,
    Finding,
    JobResult,
    JobView,
    KernelView,
    NodeView,
    Requeued,
    SubmitRequest,
)
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import FactCodec
from sparkle_protocol.ids import JobId, short_peer
from sparkle_protocol.ledger_messages import forks_topic
from sparkle_protocol.membership import Membership
from sparkle_protocol.presence import Presence
from sparkle_protocol.work.blob_sizes import BlobSizes
from sparkle_protocol.work.fairness import Weigh
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.submitter import Submitter
from sparkle_protocol.work.worker import WorkerAgent
from sparkle_worker.kernels.registry import ARRAY_KERNELS, KERNELS

log = logging.getLogger("sparkle.node")

DRAIN_S = 3.0
OVERLAY_STOP_S = 3.0


class _Left(Exception):
    """Ends the node's task group once it has left cleanly."""


class Node:
    """One peer. ``run`` it in a task; everything else may be called from the same loop meanwhile."""

    def __init__(
        self,
        config: NodeConfig,
        home: HomeDir,
        *,
        overlay_factory: OverlayFactory = libp2p_overlay,
        executor_factory: ExecutorFactory | None = None,
        weigh: Weigh | None = None,
    ) -> None:
        self.config = config
        self.home = home
        self.identity = home.identity
        self.api_url: str | None = None
        self.startup_ms: dict[str, float] = {}
        self.diary = Diary()
        self.usage = Usage()
        self.offenders = Offenders()
        self.reception = Reception(self)
        self.happenings = Happenings(self)
        self._overlay_factory = overlay_factory
        self._executor_factory = executor_factory or partial(local_executor, config.memory_mb)
        self._codec = FactCodec(config.net)
        rng = random.SystemRandom()  # nonces must not be guessable
        works = config.work and not config.bootstrap_only
        known = (*KERNELS.values(), *ARRAY_KERNELS.values())
        kernels = [f"{kernel.name}@{kernel.version}" for kernel in known] if works else []
        own_bytes = config.memory_mb * MIB
        self.membership = Membership(self.identity.peer_id, rng, wall_ms, own_bytes if works else 0)
        self.presence = Presence(self.identity, config.net, os.urandom(messages.INSTANCE_BYTES), wall_ms)
        self.memory = WorkerMemory(own_bytes, works, lambda: self.membership.links, lambda: self.membership.memory)
        self.weighing = Weighing(
            config.record, self.identity, config.network_key is not None, lambda: self.submitter.waiting_submitters()
        )
        self.submitter = Submitter(
            self.identity, self._codec, rng, check_result, weigh or self.weighing.weigh, PricedRules()
        )
        self.ledger: LedgerPart | None = None
        if not config.bootstrap_only:
            perform = self.happenings.perform
            self.ledger = LedgerPart(home, config.record, self.submitter, self._tell, perform, self.spawn)
        self.submitter.lend(config.blobs_mb * MIB, BlobSizes(input_sizes, result_size))
        self.worker = WorkerAgent(self.identity, self._codec, rng, kernels, config.slots, device_class(), own_bytes)
        self.overlay: Overlay | None = None
        self.started_ns = boot_ns()
        self.store = Store(home.path / "node.db")
        founders = [peer for peer in config.record.trusted if peer != self.identity.peer_id]
        self.standings = Standings(self.store, config.net, [*config.trusted, *founders])
        self.submitter.believe(self.standings.book)
        self._shell: Shell | None = None
        self.computing: Computing | None = None
        self._stopping = asyncio.Event()
        self._ready: asyncio.Future[None] | None = None
        self.journals = Journals(self.identity.peer_id, self.store, self.submitter.jobs.get)
        self.arrays: ArrayWork | None = None  # a node that only helps others to meet has none
        self._commands = JobCommands(
            self.identity,
            self.submitter,
            self.store,
            self.journals,
            lambda: self.shell,
            self._array_jobs,
            self._told_tile,
            self.memory.check,
            self.ledger,
        )
        self.totals: dict[str, int] = {}  # of earlier runs
        self.housekeeping = Housekeeping(self)
        self._group: asyncio.TaskGroup | None = None

    # --- life ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until ``stop``. Raises ConfigError when the node cannot start."""
        ready = self._ready_future()
        failure: BaseException | None = None
        try:
            await self.store.open()
            self.totals = await self.store.totals()
            async with asyncio.TaskGroup() as group:
                try:
                    await self._start(group)
                    await self._stopping.wait()
                    await self._hand_back()
                finally:
                    await self._end_parts()
                raise _Left
        except* _Left:
            pass
        except* ConfigError as errors:
            failure = errors.exceptions[0]
        finally:
            self._stopping.set()
            with contextlib.suppress(StoreError):
                await self.store.close()
            if self.ledger is not None:
                await self.ledger.close()
            if not ready.done():
                ready.set_exception(failure or ConfigError("the node was stopped before it was ready"))
                ready.exception()  # whoever waits sees it; nobody need
        if failure is not None:
            raise failure

    async def wait_ready(self) -> None:
        """Return once the network is up. Raises what ended ``run`` before that."""
        await asyncio.shield(self._ready_future())

    def stop(self) -> None:
        """Begin to leave; idempotent."""
        self._stopping.set()
        self._commands.stop()
        if self.ledger is not None:
            self.ledger.stop()

    @property
    def ready(self) -> bool:
        """The network has started."""
        return self._ready is not None and self._ready.done()

    @property
    def stopping(self) -> bool:
        """The node is on its way out."""
        return self._stopping.is_set()

    def _ready_future(self) -> asyncio.Future[None]:
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
        return self._ready

    async def _start(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        came = self.reception
        self._shell = Shell(
            self.identity.peer_id, self.store, group, came.route, self.happenings.perform, came.refuses, came.bans
        )
        if not self.config.bootstrap_only:
            checker = partial(local_checker, self.config.memory_mb)
            self.arrays = await open_array_work(self, checker, group)
        executors = [self._executor_factory() for _ in range(self.config.slots)] if self.worker.kernels else []
        tiles = self.arrays.tiles if self.arrays is not None else None
        self.computing = Computing(executors, lambda event: self.shell.tell(self.worker, event), group, tiles)
        await self.standings.load()
        await restore_jobs(self)
        if self.ledger is not None:
            met = bool(self.config.bootstrap or await self.store.peers())
            group.create_task(self.ledger.load(met), name="load the ledger")
        if self.arrays is not None:
            await self.arrays.restore()
        group.create_task(self.housekeeping.run(), name="housekeeping")
        group.create_task(self._start_network(), name="network")

    async def _start_network(self) -> None:
        overlay = self._overlay_factory(self.config, self.home)
        events = OverlayEvents(
            peer_up=self.happenings.peer_up,
            peer_down=self.happenings.peer_down,
            discovered=lambda address, source: self.happenings.tell_all(fx.Discovered(address, source)),
            gossip=lambda topic, author, payload: self.happenings.tell_all(fx.Gossiped(topic, author, payload)),
            violation=self.happenings.violated,
            restarted=lambda reason: self._network_restarted(overlay, reason),
        )
        await overlay.start(self.reception.serve, events)
        self.overlay = self.shell.overlay = overlay
        self.presence.own_addresses = overlay.addresses
        if self.arrays is not None:
            await self.arrays.plane.listen(listen_host(self.config), self.config.bulk_port)
        self.startup_ms = {**getattr(overlay, "startup_ms", {}), "ready": (boot_ns() - self.started_ns) / 1e6}
        self.submitter.addresses = overlay.addresses()
        await overlay.subscribe(messages.jobs_topic(self.config.net))
        if self.ledger is not None:
            await overlay.subscribe(forks_topic(self.config.net))
        remembered = await self.store.peers()
        start = self.membership.start(self.config.bootstrap, remembered, boot_ns())
        self.shell.perform(self.membership, start)
        self.diary.note(
            "info", f"Listening as {short_peer(self.identity.peer_id)} on {', '.join(overlay.addresses()[:2])}"
        )
        if not self.config.bootstrap and not remembered and not self.config.mdns:
            self.diary.note(
                "warning", "No bootstrap peers are configured: others can only find this node by its address."
            )
        self._ready_future().set_result(None)

    async def _hand_back(self) -> None:
        """Stop leasing, and give keepers back what is not committed, for at most ``DRAIN_S``."""
        self.membership.stop()
        self.shell.perform(self.worker, self.worker.stop(boot_ns()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while not self.worker.drained:  # noqa: ASYNC110 - a core has no events to wait for
                    await asyncio.sleep(0.02)

    async def _end_parts(self) -> None:
        """End everything that runs beside the loop, in whatever state the node is. At most about six seconds."""
        if self._shell is not None:
            self._shell.stop()
        beside = [part.stop() for part in (self.computing, self.arrays) if part is not None]
        await asyncio.gather(*beside)
        if self.overlay is not None:
            try:
                async with asyncio.timeout(OVERLAY_STOP_S):
                    await self.overlay.stop()
            except TimeoutError:
                log.warning("the network service did not stop in %s s", OVERLAY_STOP_S)
        if self._shell is not None:
            self.journals.stopping(wall_ms())
            await self.housekeeping.save()

    def _network_restarted(self, overlay: Overlay, reason: str) -> None:
        self.submitter.addresses = overlay.addresses()  # perhaps other ports than before
        self.diary.note("warning", f"The network service failed and was restarted: {reason}")

    # --- events -------------------------------------------------------------------------------------------

    @property
    def shell(self) -> Shell:
        """The shell of a started node."""
        if self._shell is None:
            raise ConfigError("the node has not started yet; try again in a moment")
        return self._shell

    def _tell(self, core: Core, event: object) -> None:
        self.shell.tell(core, event)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Let something go on beside the rest, as long as the node lives."""
        if self._group is not None:
            self._group.create_task(work, name=name)

    def job_got_on(self, job_id: JobId, event: str) -> None:
        """A job of ours was published, or has ended."""
        self._commands.settled(job_id)
        if self.ledger is not None:
            self.ledger.ended(job_id, boot_ns())
        if event == "job_done" and self._group is not None:
            job = self.submitter.jobs[job_id]
            if not has_arrays(job.state.spec):
                self._group.create_task(self._commands.combine_quietly(job), name="combine")

    def _array_jobs(self) -> ArrayJobs | None:
        return self.arrays.jobs if self.arrays is not None and self.arrays.ready else None

    def _told_tile(self, kernel: str, tiles: int, size: int) -> None:
        self.diary.publish("input_stored", {"kernel": kernel, "tiles": tiles, "bytes": size})

    def why_no_result(self, job: KeptJob) -> str | None:
        """Why the result of a job that is done is not complete here, if that is so."""
        return self.arrays.jobs.failure(job) if self.arrays is not None else None

    def tidy(self) -> None:
        """Let go of what is not needed any more; called every few seconds."""
        if self.arrays is not None:
            self.arrays.tidy()
        if self.ledger is not None and self.ledger.loaded:
            self.ledger.look(boot_ns())
            self.weighing.look(self.ledger.agent, self.ledger.changes, boot_ns())

    @property
    def missing_protections(self) -> tuple[str, ...]:
        """What this system cannot enforce upon computing processes, one sentence each."""
        return self.computing.missing_protections if self.computing is not None else ()

    @property
    def storage_failure(self) -> StoreError | None:
        """Why nothing can be stored now, if that is so."""
        return self.store.failure or (self.ledger.failure if self.ledger is not None else None)

    # --- totals -------------------------------------------------------------------------------------------

    @property
    def units_done(self) -> int:
        """Units computed by this node, earlier runs included."""
        return self.totals.get("units_done", 0) + self.worker.units_done

    @property
    def units_verified(self) -> int:
        """Of these, accepted by their job's owner."""
        return self.totals.get("units_verified", 0) + self.worker.units_verified

    # --- commands (NodeControl) ---------------------------------------------------------------------------

    def view(self) -> NodeView:
        """The current picture."""
        self.usage.sample(time.monotonic())
        return picture.node_view(self, self._commands.newest())

    async def pause(self) -> None:
        """Suspend computing at once and take no more units."""
        if self.computing is not None:
            self.computing.pause()
        if not self.worker.paused:
            self.shell.perform(self.worker, self.worker.pause(boot_ns()))
            self.diary.note("info", "Paused; what was running stands still.")
            self.diary.publish("paused", {})

    async def resume(self) -> None:
        """Compute again. Raises ConfigError while another node has this one's identity."""
        self._check_alone()
        if self.computing is not None:
            self.computing.resume()
        if self.worker.paused:
            self.shell.perform(self.worker, self.worker.resume(boot_ns()))
            self.diary.note("info", "Working again.")
            self.diary.publish("resumed", {})

    async def submit(self, request: SubmitRequest) -> str:
        """Publish a job; returns its id once it is on disk, here and with most of its keepers."""
        if self.stopping:
            raise ConfigError("this node is stopping; submit to another one")
        self._check_alone()
        if self.config.bootstrap_only:
            raise ConfigError("this node runs with --bootstrap-only and takes no jobs; submit to another one")
        return await self._commands.submit(request)

    def _check_alone(self) -> None:
        if self.presence.cloned is not None:
            raise ConfigError(narrate.CLONED)

    async def job(self, job: str) -> JobView:
        """One job by id or unique prefix."""
        return await self._commands.job(job)

    async def jobs(self) -> tuple[JobView, ...]:
        """All jobs of this node, newest first."""
        return await self._commands.jobs()

    async def result(self, job: str) -> JobResult:
        """The result of a finished job."""
        return await self._commands.result(job)

    async def cancel(self, job: str) -> JobView:
        """Cancel a job; a finished one stays as it is."""
        return await self._commands.cancel(job)

    async def dead(self, job: str | None = None) -> tuple[DeadUnit, ...]:
        """Dead units of a job or of all, the newest job first; the first thousand."""
        return await self._commands.dead(job)

    async def requeue(self, job: str, unit: int | None = None) -> Requeued:
        """Begin a dead unit, or all of a job, anew; returns once that is on disk."""
        return await self._commands.requeue(job, unit)

    async def why(self, subject: str | None = None) -> Explanation:
        """Explain the node, a job, a unit or a peer."""
        from sparkle_p2p.node.why import explain

        return await explain(self, self.view(), subject)

    async def checkup(self) -> tuple[Finding, ...]:
        """What blocks this node, as far as it can tell itself."""
        from sparkle_p2p.node.checkup import check_node

        return await check_node(self)

    async def credit(self, account: str | None = None) -> CreditView:
        """The credit of this node's account, or of another that it keeps entries of."""
        peers = [self.identity.peer_id, *self.membership.links, *self.standings.peers()]
        return await read_credit(self.ledger, account, peers)

    async def kernels(self) -> tuple[KernelView, ...]:
        """Kernels that this node knows."""
        return picture.kernel_views()

    def events(self) -> AsyncIterator[Event]:
        """Events from now on."""
        return self.diary.read()

    def kept_job(self, job: str) -> KeptJob:
        """The core's own record of a job, for explanations. Raises NotFound."""
        return self._commands.find(job)
