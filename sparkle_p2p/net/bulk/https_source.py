"""Chunks over HTTPS, from the one certificate that the peer signed for."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from sparkle_p2p.net.bulk.connections import Connections
from sparkle_p2p.net.bulk.https_client import Connection
from sparkle_p2p.net.bulk.source import NoDirectPath, Sink
from sparkle_protocol.blobs.tickets import Ticket, Wanted
from sparkle_protocol.blobs.tree import Outline
from sparkle_protocol.errors import PeerUnreachable
from sparkle_protocol.ids import PeerId, short_peer


@dataclass(frozen=True, slots=True)
class Access:
    """Leave to read a blob at a server."""

    ticket: Ticket
    certificate: bytes  # SHA-256
    endpoints: tuple[tuple[str, int], ...]  # hosts and ports, best first


AccessGiver = Callable[[], Awaitable[Access]]
"""A fresh ticket and where to use it; raises as a ChunkSource does."""


class HttpsSource:
    """A ``ChunkSource``. A connection is used by one ask at a time, and given back for the next one of anybody."""

    def __init__(
        self, peer: PeerId, outline: Outline, access: AccessGiver, connections: Connections, lines: Executor
    ) -> None:
        self._peer = peer
        self._outline = outline
        self._access = access
        self._connections = connections
        self._lines = lines
        self._endpoint: tuple[str, int] | None = None  # the one that answered last

    async def read(self, first: int, last: int, sink: Sink, *, compress: bool) -> None:
        """See ``ChunkSource``; also raises NoDirectPath and TicketStale, before the first chunk."""
        access = await self._access()
        wanted = Wanted(self._outline.id, first, last, compress)
        while (connection := self._connections.idle(access.certificate)) is not None:
            try:
                return await self._read(connection, access, wanted, sink)
            except PeerUnreachable:
                if connection.answered:
                    raise  # otherwise the server had closed it meanwhile
        endpoints = sorted(access.endpoints, key=lambda endpoint: endpoint != self._endpoint)
        failure = NoDirectPath(f"{short_peer(self._peer)} gives no address for blobs")
        for endpoint in endpoints:
            try:
                connection = self._connections.new(endpoint, access.certificate)
                return await self._read(connection, access, wanted, sink)
            except NoDirectPath as error:
                failure = error
        raise failure

    async def _read(self, connection: Connection, access: Access, wanted: Wanted, sink: Sink) -> None:
        authorization = access.ticket.header(wanted, access.certificate)

        def work() -> None:
            try:
                connection.open()
                connection.read(wanted, authorization, self._outline, sink)
            except BaseException:
                connection.close()
                raise

        working = asyncio.get_running_loop().run_in_executor(self._lines, work)
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            if connection.complete:  # the transfer has ended with what came; only the answer has not quite
                self._connections.give_back_later(connection, working)
                raise
            connection.cut()
            await asyncio.gather(working, return_exceptions=True)
            connection.close()
            raise
        self._endpoint = connection.endpoint
        self._connections.give_back(connection)
