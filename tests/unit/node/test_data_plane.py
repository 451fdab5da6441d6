"""What a unit waits for comes before what is only to be kept."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from sparkle_p2p.node import data_plane
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import TransportError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from tests.unit.node.blob_bench import BlobBench

PEER = Identity.generate().peer_id
TILE, OTHER, COPY = (BlobId(bytes([number]) * 32) for number in range(3))


class Steps:
    """Transfers that end when the test says so."""

    def __init__(self) -> None:
        self.begun: dict[BlobId, asyncio.Future[None]] = {}
        self.cancelled: list[BlobId] = []

    async def fetch(self, blob: BlobId, _peers: Sequence[PeerId], **_: object) -> None:
        self.begun[blob] = asyncio.get_running_loop().create_future()
        try:
            await self.begun[blob]
        except asyncio.CancelledError:
            self.cancelled.append(blob)
            raise

    async def until(self, *blobs: BlobId) -> None:
        """Until these have begun, and nothing else can go on."""
        for _ in range(100):
            await asyncio.sleep(0)
        assert self.begun.keys() >= set(blobs)


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def plane(tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> data_plane.DataPlane:
    monkeypatch.setattr(data_plane, "LEASES_S", 0.0)
    made = BlobBench(tmp_path).plane
    monkeypatch.setattr(made, "_bulk", steps)
    return made


async def test_copies_wait_until_no_unit_needs_a_tile(plane: data_plane.DataPlane, steps: Steps) -> None:
    tiles = asyncio.create_task(plane.fetch_tiles([(TILE, 1), (OTHER, 1)], [PEER]))
    await steps.until(TILE, OTHER)  # both at a time
    copies = asyncio.create_task(plane.fetch_all([COPY], [PEER]))
    await steps.until()
    assert COPY not in steps.begun
    for blob in (TILE, OTHER):
        steps.begun[blob].set_result(None)
    await tiles
    await steps.until(COPY)
    steps.begun[COPY].set_result(None)
    await copies


async def test_copies_do_not_wait_for_ever(
    plane: data_plane.DataPlane, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_plane, "GIVE_WAY_S", 0.0)
    tiles = asyncio.create_task(plane.fetch_tiles([(TILE, 1)], [PEER]))
    copies = asyncio.create_task(plane.fetch_all([COPY], [PEER]))
    await steps.until(TILE, COPY)
    steps.begun[COPY].set_result(None)
    async with asyncio.timeout(10.0):
        await copies
    assert not tiles.done(), "the copy came while a unit still waits for its tile"
    steps.begun[TILE].set_result(None)
    await tiles
    assert not steps.cancelled


async def test_with_one_tile_that_fails_the_others_end(plane: data_plane.DataPlane, steps: Steps) -> None:
    tiles = asyncio.create_task(plane.fetch_tiles([(TILE, 1), (OTHER, 1)], [PEER]))
    await steps.until(TILE, OTHER)
    steps.begun[TILE].set_exception(TransportError("nobody has it"))
    with pytest.raises(TransportError, match="nobody has it"):
        await tiles
    assert steps.cancelled == [OTHER]
    copies = asyncio.create_task(plane.fetch_all([COPY], [PEER]))
    await steps.until(COPY)
    steps.begun[COPY].set_result(None)
    await copies
