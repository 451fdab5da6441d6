"""All that a node does for jobs with arrays, put together: their blobs, tiles, checks, inputs and results."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sparkle_p2p.config import NodeConfig
from sparkle_p2p.node.array_jobs import RESULTS_FOLDER, ArrayJobs, remove_unfinished
from sparkle_p2p.node.array_units import has_arrays
from sparkle_p2p.node.checking import ArrayChecker, Checking
from sparkle_p2p.node.checkpoints import CHECKPOINTS_FOLDER, Checkpoints
from sparkle_p2p.node.data_plane import BLOBS_FOLDER, DataPlane, open_data_plane
from sparkle_p2p.node.holding import Holding
from sparkle_p2p.node.memory import MIB
from sparkle_p2p.node.result_holding import ResultHolding
from sparkle_p2p.node.tiles import Tiles
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_protocol import effects as fx
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import ConfigError, StorageError
from sparkle_protocol.ids import HASH_BYTES, JobId

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node

log = logging.getLogger("sparkle.node")

# What of the news of a job of ours may mean that a result can be fetched, or blobs be let go.
_NEWS = frozenset({"unit_final", "units_requeued", "job_done", "job_failed", "job_cancelled"})


class ArrayWork:
    """Performs the effects that concern arrays. Made by ``open_array_work``."""

    def __init__(
        self,
        node: "Node",
        plane: DataPlane,
        make_checker: Callable[[], ArrayChecker],
        group: asyncio.TaskGroup,
        results: Path,
    ) -> None:
        self.plane = plane
        memory_bytes = node.config.memory_mb * MIB
        self._node = node
        checkpoints = Checkpoints(node.home.path / CHECKPOINTS_FOLDER, self._resumed)
        self.tiles = Tiles(plane, group, memory_bytes, checkpoints)
        self._holding = Holding(plane, self._tell, group)
        self.jobs = ArrayJobs(
            plane, self._holding, node.store, results, group, node.submitter.partners, node.memory.of_units
        )
        self._results = ResultHolding(plane, node.store, self._tell, group, node.diary.publish)
        self._checking = Checking(plane, make_checker, self._tell, group, self._checked)

    def _tell(self, event: fx.UnitChecked | fx.InputsHeld | fx.ResultNotHeld) -> None:
        self._node.shell.tell(self._node.submitter, event)

    def _checked(self, job: JobId, blob: BlobId) -> None:
        """A result was found right and is here."""
        if job in self._node.submitter.jobs:
            self.jobs.checked(job, blob)
        elif job in self._node.submitter.kept:
            self._results.keep(job, (blob,))

    def _resumed(self, job: JobId, unit: int, share: float) -> None:
        text = f"Unit {unit} of {job.hex()[:8]} goes on from its checkpoint, {share:.0%} done"
        self._node.diary.note("info", text)
        self._node.diary.publish("unit_resumed", {"job": job.hex(), "unit": unit, "progress": round(share, 4)})

    @property
    def ready(self) -> bool:
        """What earlier runs left is known, so that new blobs may be stored."""
        return self.plane.open.is_set()

    def perform(self, effect: fx.Effect) -> None:
        """Perform an effect, if it concerns arrays."""
        if isinstance(effect, fx.Prepare):
            self.tiles.prepare(effect)
        elif isinstance(effect, fx.StopCompute):
            self.tiles.drop(effect)
        elif isinstance(effect, fx.CheckUnit):
            self._checking.start(effect)
        elif isinstance(effect, fx.HoldInputs):
            self._holding.hold(effect)
        elif isinstance(effect, fx.ReleaseInputs):
            if effect.job not in self._node.submitter.jobs:  # what ours need until their result is there, they say
                self._holding.release(effect)
        elif isinstance(effect, fx.HoldResult):
            self._results.hold(effect)
        elif isinstance(effect, fx.ReleaseResults):
            self._results.release(effect)
        elif isinstance(effect, fx.Notify) and effect.event in _NEWS:
            job = self._node.submitter.jobs.get(JobId(bytes.fromhex(str(effect.fields["job"]))))
            if job is not None:
                self.jobs.changed(job)

    async def restore(self) -> None:
        """Keep what the jobs of earlier runs need; from then on blobs may come and go. Raises StoreError."""
        node = self._node
        for job in node.submitter.jobs.values():
            self.jobs.changed(job)
        for job in node.submitter.jobs.values():
            if has_arrays(job.state.spec) and not job.outcome:
                self._holding.keep(job.state.id, await self._stored_results(job.state.id))
        for job in node.submitter.kept.values():
            if has_arrays(job.state.spec) and job.outcome != "cancelled":
                found = await self._stored_results(job.state.id)
                self._results.keep(job.state.id, (blob for blob in found if self.plane.store.outline(blob)))
        self.tidy()
        self.plane.open.set()

    async def _stored_results(self, job: JobId) -> list[BlobId]:
        """The blobs that results of a job name, wherever they are."""
        names = await self._node.store.result_names(job)
        found = await self._node.store.results_there(job, names)
        return [BlobId(name) for name in found if len(name) == HASH_BYTES]

    def tidy(self) -> None:
        """Let results of ours go whose units are settled."""
        worker = self._node.worker
        needed = [
            held.result
            for (job, _, _), held in worker.held.items()
            if held.result and job in worker.jobs and has_arrays(worker.jobs[job].spec)
        ]
        self.tiles.keep_results(needed)

    async def stop(self) -> None:
        """End transfers, checks and what is being put together; all of it goes on after the next start."""
        self.tiles.stop()
        self._holding.stop()
        self._results.stop()
        self.jobs.stop()
        await asyncio.gather(self._checking.stop(), self.plane.stop())


async def open_array_work(
    node: "Node", make_checker: Callable[[], ArrayChecker], group: asyncio.TaskGroup
) -> ArrayWork:
    """Look through the blobs of earlier runs. Raises ConfigError when they cannot be used."""
    config, home = node.config, node.home.path
    try:
        plane = await open_data_plane(
            home / BLOBS_FOLDER,
            config.blobs_mb * MIB,
            node.identity,
            config.net,
            network_key=config.network_key,
            overlay=lambda: node.overlay,
            # An id is a capability: only who was shown it can ask. So the rest is a matter of manners.
            welcome=lambda peer: not node.membership.banned(peer, boot_ns()),
            on_violation=node.happenings.violated,
        )
        await asyncio.to_thread(remove_unfinished, home / RESULTS_FOLDER)
    except (StorageError, OSError) as error:
        raise ConfigError(f"the blobs of this node cannot be used: {error}") from error
    return ArrayWork(node, plane, make_checker, group, home / RESULTS_FOLDER)


def listen_host(config: NodeConfig) -> str:
    """Where blobs are served: at the address on which the node listens first."""
    return config.listen[0].split("/")[2]
