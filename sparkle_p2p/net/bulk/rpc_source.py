"""Chunks over libp2p, in pieces that fit into a reply: for peers behind a relay or a punched hole."""

import asyncio
from collections import deque
from concurrent.futures import Executor

from sparkle_p2p.net.bulk.compression import decompressed
from sparkle_p2p.net.bulk.source import Asker, Sink, accepted
from sparkle_protocol import messages
from sparkle_protocol.blobs.tree import CHUNK_BYTES, Buffer, Outline
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import PeerId

AHEAD = 4  # pieces asked for before the first of them has come: one chunk


class RpcSource:
    """A ``ChunkSource`` over requests and replies."""

    def __init__(self, peer: PeerId, outline: Outline, ask: Asker, threads: Executor) -> None:
        self._peer = peer
        self._outline = outline
        self._ask = ask
        self._threads = threads

    async def read(self, first: int, last: int, sink: Sink, *, compress: bool) -> None:
        """See ``ChunkSource``."""
        loop = asyncio.get_running_loop()
        end = min((last + 1) * CHUNK_BYTES, self._outline.size)
        offsets = iter(range(first * CHUNK_BYTES, end, messages.MAX_PIECE_BYTES))
        under_way: deque[asyncio.Task[bytes]] = deque()
        try:
            for chunk in range(first, last + 1):
                size = self._outline.chunk_size(chunk)
                pieces: list[Buffer] = []
                while sum(map(len, pieces)) < size:
                    while len(under_way) < AHEAD and (offset := next(offsets, None)) is not None:
                        count = min(messages.MAX_PIECE_BYTES, end - offset)
                        under_way.append(loop.create_task(self._piece(offset, count, compress, sink)))
                    pieces.append(await under_way[0])
                    under_way.popleft()
                await loop.run_in_executor(self._threads, sink.take, chunk, pieces)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _piece(self, offset: int, count: int, compress: bool, sink: Sink) -> bytes:
        request = messages.PieceRequest(self._outline.id, offset, count, compress)
        reply = accepted(await self._ask(self._peer, request))
        if not isinstance(reply, messages.PieceReply):
            raise RemoteProtocolError("a request for a piece of a blob got another answer")
        sink.came(len(reply.data))
        if reply.compressed:
            data: list[Buffer] = [reply.data]
            return await asyncio.get_running_loop().run_in_executor(self._threads, decompressed, data, count)
        if len(reply.data) != count:
            raise RemoteProtocolError("a piece of a blob has another size than asked for")
        return reply.data
