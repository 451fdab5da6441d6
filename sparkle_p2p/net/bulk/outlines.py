"""Finds out what a blob consists of, from the first peer that tells it right."""

import asyncio
from collections.abc import Callable, Sequence

from sparkle_p2p.net.bulk.source import Asker, accepted
from sparkle_protocol import messages
from sparkle_protocol.blobs.limits import OUTLINE_S
from sparkle_protocol.blobs.link import NS
from sparkle_protocol.blobs.outlines import AskOutline, NotTold, OutlineSearch, Tick
from sparkle_protocol.blobs.tree import BlobId, Outline, checked_outline, chunk_count
from sparkle_protocol.errors import RemoteProtocolError, SparkleError, TransportError
from sparkle_protocol.ids import HASH_BYTES, PeerId


async def fetch_outline(
    blob: BlobId,
    peers: Sequence[PeerId],
    ask: Asker,
    on_violation: Callable[[PeerId, str], None],
    clock: Callable[[], int],
) -> tuple[Outline, PeerId]:
    """The blob's outline, checked against its id, and who told it. Raises TransportError when no peer does."""
    search, tasks = OutlineSearch(peers), dict[asyncio.Task[Outline], PeerId]()
    events: list[NotTold | Tick] = [Tick()]
    try:
        while True:
            for effect in [effect for event in events for effect in search.handle(event, clock())]:
                if not isinstance(effect, AskOutline):
                    raise TransportError(f"no peer has the blob {blob.hex()[:12]} for us ({effect.reason})")
                tasks[asyncio.ensure_future(_outline_of(blob, effect.peer, ask))] = effect.peer
            due = search.next_deadline()
            wait_s = OUTLINE_S if due is None else max(0.0, (due - clock()) / NS)
            done, _ = await asyncio.wait(tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            events = [Tick()]
            for task in done:
                peer = tasks.pop(task)
                error = task.exception()
                if error is None:
                    return task.result(), peer
                if not isinstance(error, SparkleError | TimeoutError):
                    raise error
                if isinstance(error, RemoteProtocolError):
                    on_violation(peer, str(error))
                events.append(NotTold(peer, str(error)))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
