"""A peer with blobs in a process of its own, over real libp2p. Orders and reports are JSON lines.

Arguments: home directory, and the identity's seed in hex. Ends when standard input does.
"""

import asyncio
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from sparkle_p2p.blobs.store import BlobStore
from sparkle_p2p.net.bulk.fetch import FetchProgress
from sparkle_p2p.net.bulk.service import Bulk
from sparkle_p2p.net.bulk.wiring import ask_through, hosts_through
from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.overlay import OverlayEvents
from sparkle_protocol import messages
from sparkle_protocol.blobs.tree import parse_blob_id
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId

NET = "blobs"


def tell(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


class BlobNode:
    """An overlay, a store, and what moves blobs between them and others."""

    def __init__(self, home: Path, seed: str) -> None:
        identity = Identity.from_private_bytes(bytes.fromhex(seed))
        self.overlay = Libp2pOverlay(identity, net=NET, listen=["/ip4/127.0.0.1/tcp/0"], agent="blob/1", mdns=False)
        self.ports: dict[PeerId, int] = {}  # of relays in between
        self.dial: dict[PeerId, str] = {}
        self.bulk = Bulk(
            identity,
            NET,
            BlobStore(home / "blobs"),
            ask=self._ask,
            hosts=lambda _peer: ("127.0.0.1",) if self.ports.get(_peer) != 0 else (),
            may_read=lambda _peer, _blob: True,
            clock=time.monotonic_ns,
            on_violation=lambda peer, reason: tell(violation=peer, reason=reason),
        )
        self._through = ask_through(lambda: self.overlay, lambda _peer, _reason: None)
        self.hosts = hosts_through(lambda: self.overlay)
        self.fetches: set[asyncio.Task[None]] = set()

    async def _ask(self, peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        if peer in self.dial and not any(link.peer == peer for link in self.overlay.links()):
            await self.overlay.connect(self.dial[peer])
        reply = await self._through(peer, request)
        if isinstance(reply, messages.TicketReply) and self.ports.get(peer):
            return msgspec.structs.replace(reply, port=self.ports[peer])
        return reply

    async def serve(self, peer: PeerId, payload: bytes) -> bytes:
        request = messages.decode_request(payload)
        assert isinstance(request, messages.OutlineRequest | messages.TicketRequest | messages.PieceRequest)
        return messages.encode_message(await self.bulk.serve(peer, request))

    async def start(self) -> None:
        await self.overlay.start(self.serve, OverlayEvents())
        await self.bulk.start("127.0.0.1")
        tell(peer=self.overlay.peer_id, address=self.overlay.addresses()[0], port=self.bulk.port)

    async def obey(self, order: dict[str, Any]) -> None:
        match order:
            case {"put": size, "seed": seed}:
                tell(blob=(await asyncio.to_thread(self.put, size, seed)).hex())
            case {"sources": sources}:
                for peer, where in sources.items():
                    self.dial[PeerId(peer)] = where["address"]
                    if where.get("port") is not None:
                        self.ports[PeerId(peer)] = where["port"]
                tell(ok=True)
            case {"fetch": blob, "from": peers}:
                task = asyncio.create_task(self.fetch(blob, peers))
                self.fetches.add(task)
                task.add_done_callback(self.fetches.discard)
            case {"limit": size}:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                tell(ok=True)
            case {"check": blob, "size": size, "seed": seed}:
                tell(same=await asyncio.to_thread(self.same, blob, size, seed))
            case {"usage": _}:
                tell(peak_kb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, anonymous_kb=anonymous_kb())

    def put(self, size: int, seed: int) -> bytes:
        return self.bulk.store.put_pieces(pieces(size, seed))

    def same(self, blob: str, size: int, seed: int) -> bool:
        with self.bulk.store.open(parse_blob_id(blob)) as reader:
            offset = 0
            for piece in pieces(size, seed):
                if reader.read(offset, len(piece)) != piece:
                    return False
                offset += len(piece)
            return offset == reader.outline.size

    async def fetch(self, blob: str, peers: list[PeerId]) -> None:
        peak_kb = 0

        def progress(seen: FetchProgress) -> None:
            nonlocal peak_kb
            if seen.stored_bytes % (8 << 20) == 0:
                peak_kb = max(peak_kb, anonymous_kb())
            sources = {peer: round(rate) for peer, rate in seen.bytes_per_s.items()}
            tell(stored=seen.stored_bytes, sources=sources)

        before_kb, began_s = anonymous_kb(), time.perf_counter()
        try:
            report = await self.bulk.fetch(parse_blob_id(blob), peers, on_progress=progress)
        except SparkleError as error:
            tell(failed=str(error), kind=type(error).__name__)
        else:
            tell(
                fetched=blob,
                received=report.received_bytes,
                resumed=report.resumed_bytes,
                grown_kb=max(0, peak_kb - before_kb),
                took_s=time.perf_counter() - began_s,
            )


def anonymous_kb() -> int:
    """Memory of this process that is no file."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Anonymous:")))


def pieces(size: int, seed: int) -> Any:
    """Content that does not compress, the same everywhere."""
    import numpy as np

    random = np.random.default_rng(seed)
    while size:
        piece = random.bytes(min(size, 1 << 20))
        yield piece
        size -= len(piece)


async def main(home: str, seed: str) -> None:
    node = BlobNode(Path(home), seed)
    await node.start()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await node.obey(json.loads(line))
    await node.bulk.stop()
    await node.overlay.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    os._exit(0)
