"""Answers what peers ask about our blobs over libp2p: outlines, tickets, pieces."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from sparkle_p2p.blobs.store import BlobStore
from sparkle_p2p.net.bulk.certificate import Certificate
from sparkle_p2p.net.bulk.compression import compressed, looks_compressible
from sparkle_protocol import messages
from sparkle_protocol.blobs.tickets import NS, TicketOffice
from sparkle_protocol.blobs.tree import BlobId, Outline
from sparkle_protocol.errors import NotFound, StorageError
from sparkle_protocol.ids import HASH_BYTES, PeerId

T = TypeVar("T")


class Holder:
    """Gives blobs to peers that may read them."""

    def __init__(
        self,
        store: BlobStore,
        office: TicketOffice,
        certificate: Certificate,
        may_read: Callable[[PeerId, BlobId], bool],
        clock: Callable[[], int],
        threads: Executor,
    ) -> None:
        self._store = store
        self._office = office
        self._certificate = certificate
        self._may_read = may_read
        self._clock = clock
        self._threads = threads
        self.port = 0  # of the server; 0 while there is none

    async def answer(self, peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        """The reply to a peer."""
        blob = BlobId(request.blob)
        if not self._may_read(peer, blob) or blob not in self._store:
            # The same words for both: who may not read a blob does not learn whether it is here.
            return messages.Refusal("unknown_blob", "this node has no such blob for you")
        try:
            match request:
                case messages.TicketRequest():
                    return self._ticket(peer, blob)
                case messages.OutlineRequest():
                    return await self._in_thread(lambda: self._outline(blob, request.first))
                case messages.PieceRequest():
                    return await self._in_thread(lambda: self._piece(blob, request))
        except NotFound:  # evicted just now
            return messages.Refusal("unknown_blob", "this node has no such blob for you")
        except StorageError:
            return messages.Refusal("storage", "this node cannot read its disk")

    def _ticket(self, peer: PeerId, blob: BlobId) -> messages.TicketReply:
        grant = self._office.issue(peer, blob, self._clock())
        return messages.TicketReply(
            port=self.port,
            certificate=self._certificate.fingerprint,
            signature=self._certificate.signature,
            ticket=grant.ticket,
            key=grant.key,
            ttl_ms=grant.ttl_ns * 1000 // NS,
        )

    def _outline(self, blob: BlobId, first: int) -> messages.OutlineReply:
        outline: Outline | None = self._store.outline(blob)
        if outline is None:
            raise NotFound("the blob is not here any more")
        start = first * HASH_BYTES
        return messages.OutlineReply(
            outline.size, outline.hashes[start : start + messages.MAX_OUTLINE_HASHES * HASH_BYTES]
        )

    def _piece(self, blob: BlobId, request: messages.PieceRequest) -> messages.Reply:
        with self._store.open(blob) as reader:
            if request.offset + request.count > reader.outline.size:
                return messages.Refusal("protocol", "the blob is shorter")
            data = reader.read(request.offset, request.count)
        packed = compressed(data) if request.compress and looks_compressible(data) else None
        return messages.PieceReply(data) if packed is None else messages.PieceReply(packed, True)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
