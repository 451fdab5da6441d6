"""Finds out what a blob consists of, from the first peer that tells it right."""

import asyncio
from collections.abc import Callable, Sequence

from sparkle_p2p.net.bulk.source import Asker, accepted
from sparkle_protocol import messages
from sparkle_protocol.blobs.tree import BlobId, Outline, checked_outline, chunk_count
from sparkle_protocol.errors import RemoteProtocolError, SparkleError, TransportError
from sparkle_protocol.ids import HASH_BYTES, PeerId, short_peer

NEXT_S = 0.5  # the next peer is asked if the ones before have not answered by then
OUTLINE_S = 30.0  # for one peer: at most four replies


async def fetch_outline(
    blob: BlobId, peers: Sequence[PeerId], ask: Asker, on_violation: Callable[[PeerId, str], None]
) -> tuple[Outline, PeerId]:
    """The blob's outline, checked against its id, and who told it. Raises TransportError when no peer does."""
    tasks: dict[asyncio.Task[Outline], PeerId] = {}
    failures: list[str] = []
    waiting = list(dict.fromkeys(peers))
    try:
        while waiting or tasks:
            if waiting:
                peer = waiting.pop(0)
                tasks[asyncio.get_running_loop().create_task(_outline_of(blob, peer, ask))] = peer
            done, _ = await asyncio.wait(
                tasks, timeout=NEXT_S if waiting else OUTLINE_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                peer = tasks.pop(task)
                error = task.exception()
                if error is None:
                    return task.result(), peer
                if not isinstance(error, SparkleError | TimeoutError):
                    raise error
                if isinstance(error, RemoteProtocolError):
                    on_violation(peer, str(error))
                failures.append(f"{short_peer(peer)}: {str(error) or 'it did not answer'}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise TransportError(f"no peer has the blob {blob.hex()[:12]} for us ({'; '.join(failures) or 'none was named'})")


async def _outline_of(blob: BlobId, peer: PeerId, ask: Asker) -> Outline:
    hashes = bytearray()
    async with asyncio.timeout(OUTLINE_S):
        while True:
            reply = accepted(await ask(peer, messages.OutlineRequest(blob, len(hashes) // HASH_BYTES)))
            if not isinstance(reply, messages.OutlineReply):
                raise RemoteProtocolError("a request for an outline got another answer")
            hashes += reply.hashes
            if len(hashes) >= HASH_BYTES * chunk_count(reply.size) or not reply.hashes:
                return checked_outline(blob, reply.size, bytes(hashes))
