"""The blobs of a node: its store, what moves them, and which of them must stay.

A blob stays while somebody keeps it under a name of his own: a job its inputs and accepted results, a unit its tiles.
Names last as long as the process; who keeps something says so again after a restart, before anything new is stored.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sparkle_p2p.net.overlay import Overlay
from sparkle_p2p.network_key import NetworkKey
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_protocol import messages
from sparkle_protocol.blobs.keeping import Keeping
from sparkle_protocol.blobs.limits import AT_ONCE, GIVE_WAY_S, LEASES_S, split_sources
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import RequestTimeout
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId

if TYPE_CHECKING:
    from sparkle_p2p.blobs.draft import Draft
    from sparkle_p2p.blobs.store import BlobStore
    from sparkle_p2p.net.bulk.service import Bulk

T = TypeVar("T")

log = logging.getLogger("sparkle.node")

BLOBS_FOLDER = "blobs"
STOP_S = 3.0
FETCH_S = 6 * 3600.0  # for one blob; Bulk itself gives up a minute after the last byte came


class DataPlane(Keeping):
    """What a node does with blobs. Made by ``open_data_plane``; all methods are called on one loop."""

    def __init__(self, store: "BlobStore", bulk: "Bulk", me: PeerId, network_key: NetworkKey | None = None) -> None:
        super().__init__(store.pin, store.unpin)
        self.store = store
        self.network_key = network_key  # opens the blobs of sealed jobs
        self.open = asyncio.Event()  # all that must stay is kept: blobs may come, and others be evicted for them
        self._me = me
        self._bulk = bulk
        self._urgent = 0  # units that wait for tiles
        self._no_hurry = asyncio.Event()  # there is none
        self._no_hurry.set()

    async def listen(self, host: str, port: int) -> None:
        """Serve blobs over HTTPS too. Raises ConfigError (the port is taken)."""
        await self._bulk.start(host, port)

    async def serve(self, peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        """Answer a peer's request about a blob."""
        return await self._bulk.serve(peer, request)

    async def stop(self) -> None:
        """End all transfers; they go on after the next start."""
        try:
            async with asyncio.timeout(STOP_S):
                await self._bulk.stop()
        except TimeoutError:
            log.warning("the transfers of blobs did not end in %s s", STOP_S)

    # --- what comes -------------------------------------------------------------------------------------------

    async def fetch(
        self,
        blob: BlobId,
        sources: Sequence[PeerId],
        *,
        size: int | None = None,
        durable: bool = False,
        likely: int | None = None,
    ) -> None:
        """Have the blob here; keep it first.

        Args:
            blob: which one.
            sources: who may have it.
            likely: how many of these, the first ones, should have it; the others are asked when these fail or are
                slow. None: all of them.
            size: what it must have; a blob of another size is not fetched.
            durable: return only when no power cut can harm it any more.

        Raises:
            TransportError: nobody gives it now.
            StorageError: it does not fit, or the disk does not take it.
            RemoteProtocolError: it has another size.
        """
        try:
            async with asyncio.timeout(FETCH_S):
                await self.open.wait()
                first, rest = split_sources(sources, likely, self._me)
                await self._bulk.fetch(blob, first, spare=rest, size=size, durable=durable)
        except TimeoutError:
            raise RequestTimeout(f"the blob {blob.hex()[:12]} did not arrive within {FETCH_S / 3600:.0f} h") from None

    async def fetch_tiles(self, tiles: Iterable[tuple[BlobId, int]], sources: Sequence[PeerId]) -> None:
        """Have what a unit needs here, blobs with their sizes; ``fetch_all`` gives way to it. Raises as ``fetch``."""
        self._urgent += 1
        self._no_hurry.clear()
        try:
            await _all(self.fetch(blob, sources, size=size) for blob, size in tiles)
        finally:
            self._urgent -= 1
            if not self._urgent:
                self._no_hurry.set()

    async def fetch_all(
        self,
        blobs: Iterable[BlobId],
        sources: Sequence[PeerId],
        *,
        likely: int | None = None,
        sizes: Sequence[int] = (),
    ) -> None:
        """Have all of these here for good, several at a time, when no unit waits for its tiles.

        Raises as ``fetch``; what came is kept. ``sizes``: what the blobs must have, in order; empty where that is not
        known.
        """
        places = asyncio.Semaphore(AT_ONCE)

        async def one(blob: BlobId, size: int | None) -> None:
            async with places:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GIVE_WAY_S):
                        await self._no_hurry.wait()
                await self.fetch(blob, sources, size=size, durable=True, likely=likely)

        order = list(blobs)
        known: Sequence[int | None] = sizes or [None] * len(order)
        wanted = dict(zip(order, known, strict=True))
        await asyncio.sleep(LEASES_S)
        await _all(one(blob, size) for blob, size in wanted.items())

    # --- what is made here ------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def draft(self, size: int) -> "AsyncIterator[Draft]":
        """A file for a new blob, which ``publish`` makes one. Raises StorageError."""
        making = asyncio.ensure_future(asyncio.to_thread(self.store.draft, size))
        try:
            draft = await asyncio.shield(making)
        except asyncio.CancelledError:
            await asyncio.wait([making])
            if making.exception() is None:
                making.result().discard()
            raise
        try:
            yield draft
        finally:
            draft.discard()

    async def publish(self, draft: "Draft") -> BlobId:
        """The blob that the draft's file became. Raises StorageError."""
        return await to_its_end(draft.publish)

    def path(self, blob: BlobId) -> Path:
        """The file that begins with the blob's bytes, as long as it is kept."""
        return self.store.path(blob)


async def open_data_plane(
    folder: Path,
    quota_bytes: int,
    identity: Identity,
    net: str,
    *,
    network_key: NetworkKey | None,
    overlay: Callable[[], Overlay | None],
    welcome: Callable[[PeerId], bool],
    on_violation: Callable[[PeerId, str], None],
) -> DataPlane:
    """Look through the blobs that are there; nothing listens yet.

    Args:
        folder: where blobs are.
        quota_bytes: what they may take.
        identity: the node's.
        net: name of the network.
        network_key: of a private network.
        overlay: the network service, once it is up.
        welcome: whether a peer that knows a blob's id may have it.
        on_violation: told of peers that break rules.

    Raises:
        StorageError: the folder cannot be used.
    """

    def load() -> "tuple[BlobStore, type[Bulk]]":
        from sparkle_p2p.blobs.store import BlobStore
        from sparkle_p2p.net.bulk.service import Bulk  # takes a third of a second to load

        return BlobStore(folder, quota_bytes), Bulk

    store, bulk_type = await asyncio.to_thread(load)
    from sparkle_p2p.net.bulk.wiring import ask_through, hosts_through

    bulk = bulk_type(
        identity,
        net,
        store,
        ask=ask_through(overlay, on_violation),
        hosts=hosts_through(overlay),
        may_read=lambda peer, _blob: welcome(peer),
        clock=boot_ns,
        on_violation=on_violation,
    )
    return DataPlane(store, bulk, identity.peer_id, network_key)


async def to_its_end(call: Callable[[], T]) -> T:
    """Run in a thread; who is cancelled meanwhile goes on when it has ended, so that nothing is taken from it."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody asks any more
        raise


async def _all(fetches: Iterable[Coroutine[None, None, None]]) -> None:
    """Run these at a time; with the first failure all of them end."""
    tasks = [asyncio.ensure_future(fetch) for fetch in fetches]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
