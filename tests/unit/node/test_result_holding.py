"""Results of others that this node keeps: there for good, or given up with the reason, and let go together."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sparkle_p2p.blobs.store import BlobStore
from sparkle_p2p.node import result_holding
from sparkle_p2p.node.result_holding import ResultHolding
from sparkle_p2p.node.store import Store
from sparkle_protocol.blobs.limits import RESULT_TRIES
from sparkle_protocol.effects import HoldResult, ReleaseResults, ResultNotHeld, StoreResult
from sparkle_protocol.errors import TransportError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, hash_result
from tests.unit.node.blob_bench import MB, BlobBench

JOB = JobId(b"j" * 32)
WORKER = Identity.generate().peer_id


class Keeper:
    """A node that keeps results, and what it says."""

    def __init__(self, folder: Path, group: asyncio.TaskGroup, store: Store, quota_mb: int) -> None:
        self.folder = folder
        self.bench = BlobBench(folder, quota_mb)
        self.store = store
        self.said: asyncio.Queue[ResultNotHeld | int] = asyncio.Queue()
        self.results = ResultHolding(self.bench.plane, store, self.said.put_nowait, group, self._published)

    def _published(self, event: str, fields: Mapping[str, Any]) -> None:
        assert event == "result_held"
        self.said.put_nowait(fields["unit"])

    def hold(self, unit: int, *, size: int = MB) -> bytes:
        """Somebody has the unit's result; returns its blob."""
        data = bytes([unit]) * size
        blob = BlobStore(self.folder / "elsewhere").put_bytes(data)
        self.bench.bulk.others[blob] = data
        name = hash_result(blob)
        self.store.write_soon([StoreResult(JOB, name, blob)])
        self.results.hold(HoldResult(JOB, unit, name, size, (WORKER,), 1))
        return blob


@asynccontextmanager
async def keeping(folder: Path, quota_mb: int = 16) -> AsyncIterator[Keeper]:
    store = Store(folder / "node.db")
    await store.open()
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            keeper = Keeper(folder, group, store, quota_mb)
            try:
                yield keeper
            finally:
                keeper.results.stop()
    finally:
        await store.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_holding, "pause_s", lambda _attempt: 0.0)


async def test_a_result_is_here_for_good_until_its_job_is_let_go(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper:
        blobs = {keeper.hold(unit) for unit in range(3)}
        assert {await keeper.said.get() for _ in range(3)} == {0, 1, 2}
        assert keeper.bench.bulk.durable == blobs
        keeper.bench.evict()
        assert set(keeper.bench.store.ids()) >= blobs
        keeper.results.release(ReleaseResults(JOB))
        keeper.bench.evict()
        assert not set(keeper.bench.store.ids()) & blobs


async def test_what_has_no_room_is_said_at_once_and_drops_nothing_that_is_kept(tmp_path: Path) -> None:
    async with keeping(tmp_path, quota_mb=3) as keeper:
        first = keeper.hold(0, size=2 * MB)
        assert await keeper.said.get() == 0
        keeper.hold(1, size=2 * MB)
        assert await keeper.said.get() == ResultNotHeld(JOB, 1, full=True)
        assert first in keeper.bench.store


async def test_what_cannot_be_had_is_tried_some_times_and_then_said(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper:
        failures: list[Exception] = [TransportError("not now") for _ in range(RESULT_TRIES + 1)]
        blob = keeper.hold(0)
        keeper.bench.bulk.failures[blob] = failures
        assert await keeper.said.get() == ResultNotHeld(JOB, 0, full=False)
        assert len(failures) == 1
        keeper.bench.bulk.failures[blob] = failures[:1]
        keeper.hold(0)
        assert await keeper.said.get() == 0


async def test_a_result_of_another_size_than_its_unit_has_is_not_kept(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper:
        blob = keeper.hold(0)
        keeper.bench.bulk.others[blob] = bytes([0]) * MB
        keeper.results.hold(HoldResult(JOB, 0, hash_result(blob), MB - 1, (WORKER,), 1))
        assert await keeper.said.get() == ResultNotHeld(JOB, 0, full=False)
