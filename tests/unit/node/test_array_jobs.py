"""Results of jobs with arrays: fetched as they are accepted, put together once; what they need stays until then."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sparkle_p2p.node import array_jobs, holding
from sparkle_p2p.node.array_jobs import ArrayJobs
from sparkle_p2p.node.holding import Holding
from sparkle_p2p.node.memory import UnitMemory
from sparkle_p2p.node.store import Store
from sparkle_protocol.effects import HoldInputs, InputsHeld, ReleaseInputs, StoreResult
from sparkle_protocol.errors import StorageError, TransportError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, ResultHash, hash_result
from tests.unit.node.blob_bench import MB, BlobBench, product_spec

JOB = JobId(b"j" * 32)
PEER = Identity.generate().peer_id


class Owner:
    """Jobs with arrays of a node that has nothing else."""

    def __init__(self, folder: Path, group: asyncio.TaskGroup, store: Store) -> None:
        self.bench = BlobBench(folder)
        self.store = store
        self.told: asyncio.Queue[InputsHeld] = asyncio.Queue()
        self.holding = Holding(self.bench.plane, self.told.put_nowait, group)
        self.folder = folder / "results"
        self.jobs = ArrayJobs(
            self.bench.plane,
            self.holding,
            store,
            self.folder,
            group,
            lambda _job: (PEER,),
            lambda: UnitMemory(64 * MB, 64 * MB),
        )
        self.blocks = [np.full((8, 4), at, np.float32) for at in range(2)]
        inputs = [self.bench.store.put_bytes(bytes([at]) * (2 * MB)) for at in range(3)]
        self.finals: dict[int, ResultHash] = {}
        self.job: Any = SimpleNamespace(
            outcome="",
            state=SimpleNamespace(
                id=JOB, spec=product_spec(inputs, 2), final_units=self.finals, final=self.finals.get,
                accepted_workers=lambda _unit: frozenset({PEER}),
            ),
        )  # fmt: skip

    def accept(self, unit: int, *, elsewhere: bool = True) -> bytes:
        """A unit's result was accepted; its blob is still at its worker, or nowhere."""
        data = self.blocks[unit].tobytes()
        blob = self.bench.store.put_bytes(data)
        self.bench.store.remove(blob)
        if elsewhere:
            self.bench.bulk.others[blob] = data
        self.finals[unit] = hash_result(blob)
        self.store.write_soon([StoreResult(JOB, self.finals[unit], blob)])
        self.jobs.changed(self.job)
        return blob

    async def failed(self) -> None:
        while self.jobs.failure(self.job) is None:  # noqa: ASYNC110 - threads are at work, and the node asks as well
            await asyncio.sleep(0)

    async def settled(self) -> None:
        while tasks := list(self.jobs._collecting.values()):
            await asyncio.wait(tasks)
            await asyncio.sleep(0)


@asynccontextmanager
async def owning(folder: Path) -> AsyncIterator[Owner]:
    store = Store(folder / "node.db")
    await store.open()
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            owner = Owner(folder, group, store)
            try:
                yield owner
            finally:
                owner.jobs.stop()
                owner.holding.stop()
    finally:
        await store.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_jobs, "pause_s", lambda _attempt: 0.0)
    monkeypatch.setattr(holding, "pause_s", lambda _attempt: 0.0)


async def test_results_are_fetched_as_they_are_accepted_and_put_together(tmp_path: Path) -> None:
    async with owning(tmp_path) as owner:
        first = owner.accept(0)
        await owner.settled()
        assert first in owner.bench.store
        owner.bench.evict()
        assert {first, *owner.job.state.spec.inputs} <= set(owner.bench.store.ids())
        assert owner.jobs.shown(owner.job) is None
        owner.job.outcome = "done"
        assert owner.jobs.pending(owner.job)  # before anybody was told of it
        owner.accept(1)
        assert owner.jobs.pending(owner.job)
        await owner.settled()
        assert not owner.jobs.pending(owner.job)
        value = (await owner.jobs.result(owner.job)).value
        assert value == owner.jobs.shown(owner.job)
        np.testing.assert_array_equal(np.load(value["path"]), np.concatenate(owner.blocks, axis=1))
        assert [path.name for path in owner.folder.iterdir()] == [f"{JOB.hex()}.npy"]
        owner.bench.evict()
        assert not set(owner.job.state.spec.inputs) & set(owner.bench.store.ids())  # nobody needs them any more


async def test_a_full_disk_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with owning(tmp_path) as owner:
        with monkeypatch.context() as broken:
            broken.setattr(os, "posix_fallocate", full)
            owner.job.outcome = "done"
            owner.accept(0)
            owner.accept(1)
            await owner.failed()
            assert "disk is full" in str(owner.jobs.failure(owner.job))
            assert not owner.jobs.pending(owner.job)  # it is done, and says what keeps its result
            assert not list(owner.folder.iterdir())
        assert (await owner.jobs.result(owner.job)).value["shape"] == [8, 8]
        assert owner.jobs.failure(owner.job) is None


async def test_a_result_that_nobody_has_any_more_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_jobs, "RESULT_WAIT_S", 0.0)
    async with owning(tmp_path) as owner:
        owner.job.outcome = "done"
        owner.accept(0, elsewhere=False)
        await owner.failed()
        assert "nobody has it" in str(owner.jobs.failure(owner.job))
        with pytest.raises(TransportError, match="not complete yet"):
            await owner.jobs.result(owner.job)


async def test_a_cancelled_job_needs_nothing(tmp_path: Path) -> None:
    async with owning(tmp_path) as owner:
        owner.accept(0)
        owner.job.outcome = "cancelled"
        owner.jobs.changed(owner.job)
        await owner.settled()
        owner.bench.evict()
        assert not set(owner.job.state.spec.inputs) & set(owner.bench.store.ids())


async def test_inputs_of_others_are_held_when_all_are_here_for_good(tmp_path: Path) -> None:
    async with owning(tmp_path) as owner:
        bench = owner.bench
        data = [bytes([at]) * MB for at in range(3, 6)]
        blobs = tuple(bench.store.put_bytes(one) for one in data)
        bench.store.remove(blobs[2])
        bench.bulk.others[blobs[2]] = data[2]
        bench.bulk.failures[blobs[2]] = [TransportError("for now"), StorageError("full")]
        other = JobId(b"o" * 32)
        owner.holding.hold(HoldInputs(other, blobs, (PEER,)))
        assert await owner.told.get() == InputsHeld(other)
        assert bench.bulk.durable == set(blobs)
        bench.evict()
        assert set(blobs) <= set(bench.store.ids())
        owner.holding.release(ReleaseInputs(other, blobs))
        bench.evict()
        assert not set(blobs) & set(bench.store.ids())
