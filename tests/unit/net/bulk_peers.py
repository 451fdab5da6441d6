"""Peers with real stores and real HTTPS servers in one process; requests over libp2p are function calls."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from sparkle_p2p.blobs.store import BlobStore
from sparkle_p2p.net.bulk.service import Bulk
from sparkle_protocol import messages
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import PeerUnreachable
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId

MB = 1 << 20
NET = "test"

Answer = Callable[[PeerId, messages.BlobRequest], Awaitable[messages.Reply]]


def content(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


class Peer:
    """One end, and everything that a test wants to change about it."""

    def __init__(self, peers: "Peers", name: str, folder: Path) -> None:
        self.peers = peers
        self.identity = Identity.generate()
        self.id = self.identity.peer_id
        self.readers: set[PeerId] | None = None  # None: everybody
        self.hosts: tuple[str, ...] = ("127.0.0.1",)  # where it reaches others
        self.clock_ns: Callable[[], int] = time.monotonic_ns
        self.violations: list[tuple[PeerId, str]] = []
        self.asked: list[messages.BlobRequest] = []  # of it, over libp2p
        self.change: Callable[[PeerId, messages.Reply], messages.Reply] | None = None  # what it answers
        self.up = True
        self.store = BlobStore(folder / name, 1 << 30)
        self.bulk = self.make()

    def make(self) -> Bulk:
        return Bulk(
            self.identity,
            NET,
            self.store,
            ask=self._ask,
            hosts=lambda _peer: self.hosts,
            may_read=lambda peer, _blob: self.readers is None or peer in self.readers,
            clock=lambda: self.clock_ns(),
            on_violation=lambda peer, reason: self.violations.append((peer, reason)),
        )

    async def _ask(self, peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        return await self.peers.by_id[peer].answer(self.id, request)

    async def answer(self, peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        await asyncio.sleep(0)
        if not self.up:
            raise PeerUnreachable("the connection was lost")
        self.asked.append(request)
        # Through the codec, as over the network.
        request = messages.decode_request(messages.encode_message(request))  # type: ignore[assignment]
        reply = await self.bulk.serve(peer, request)
        reply = reply if self.change is None else self.change(peer, reply)
        return messages.decode_reply(messages.encode_message(reply))

    def asked_for(self, kind: type) -> int:
        return sum(isinstance(request, kind) for request in self.asked)

    def holds(self, data: bytes) -> BlobId:
        return self.store.put_bytes(data)

    def content_of(self, blob: BlobId) -> bytes:
        with self.store.open(blob) as reader:
            return bytes(reader.view())


class Peers:
    """Makes them, and stops them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_id: dict[PeerId, Peer] = {}

    async def make(self, *, serving: bool = True) -> Peer:
        peer = Peer(self, f"peer{len(self.by_id)}", self.folder)
        self.by_id[peer.id] = peer
        if serving:
            await peer.bulk.start("127.0.0.1")
        return peer

    async def close(self) -> None:
        for peer in self.by_id.values():
            await peer.bulk.stop()
