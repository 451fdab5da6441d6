"""A blob at one peer: over HTTPS where that works, over libp2p where it does not."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from sparkle_p2p.net.bulk.certificate import check_certificate
from sparkle_p2p.net.bulk.connections import Connections
from sparkle_p2p.net.bulk.https_source import Access, HttpsSource
from sparkle_p2p.net.bulk.rpc_source import RpcSource
from sparkle_p2p.net.bulk.source import Asker, NoDirectPath, Sink, TicketStale, accepted
from sparkle_protocol import messages
from sparkle_protocol.blobs.tickets import NS, Grant, Ticket
from sparkle_protocol.blobs.tree import Outline
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import PeerId

SMALL_BYTES = messages.MAX_PIECE_BYTES  # up to here one request is faster than making a connection
DETOUR_NS = 15 * NS  # over libp2p before a direct connection is tried again

Hosts = Callable[[PeerId], Sequence[str]]
"""IP addresses at which a peer is reached without a relay, best first."""


class PeerSource:
    """A ``ChunkSource`` that has a ticket when it needs one and knows which way works."""

    def __init__(
        self,
        peer: PeerId,
        outline: Outline,
        ask: Asker,
        *,
        net: str,
        hosts: Hosts,
        connections: Connections,
        clock: Callable[[], int],
        threads: Executor,
        lines: Executor,
    ) -> None:
        self._peer = peer
        self._outline = outline
        self._ask = ask
        self._net = net
        self._hosts = hosts
        self._clock = clock
        self._access: Access | None = None
        self._detour_until_ns = 0
        self._https = HttpsSource(peer, outline, self._give_access, connections, lines)
        self._rpc = RpcSource(peer, outline, ask, threads)
        self.direct: bool | None = None  # which way the last chunks came

    async def read(self, first: int, last: int, sink: Sink, *, compress: bool) -> None:
        """See ``ChunkSource``."""
        if self._outline.size > SMALL_BYTES and self._clock() >= self._detour_until_ns:
            known = self._access
            try:
                return await self._read_directly(first, last, sink, compress=compress)
            except (NoDirectPath, TicketStale):
                if known is None:
                    self._detour_until_ns = self._clock() + DETOUR_NS
                else:  # it may have been restarted: another port, another certificate
                    self._access = None
                    return await self.read(first, last, sink, compress=compress)
        self.direct = False
        return await self._rpc.read(first, last, sink, compress=compress)

    async def _read_directly(self, first: int, last: int, sink: Sink, *, compress: bool) -> None:
        await self._https.read(first, last, sink, compress=compress)
        self.direct = True

    async def _give_access(self) -> Access:
        if self._access is None or not self._access.ticket.fresh(self._clock()):
            reply = accepted(await self._ask(self._peer, messages.TicketRequest(self._outline.id)))
            if not isinstance(reply, messages.TicketReply):
                raise RemoteProtocolError("a request for a ticket got another answer")
            check_certificate(self._peer, self._net, reply.certificate, reply.signature)
            grant = Grant(reply.ticket, reply.key, reply.ttl_ms * NS // 1000)
            hosts = self._hosts(self._peer) if reply.port else ()
            endpoints = tuple((host, reply.port) for host in hosts)
            self._access = Access(Ticket(grant, self._clock()), reply.certificate, endpoints)
        return self._access
