"""Serves blobs over HTTPS to peers that hold a ticket.

Bounds: connections and handshakes in all, answers at a time in all and per peer, time for a handshake, for the first
request of a connection, between two, and for a reader to take what was sent. What exceeds a bound is closed or told
to come back; nothing waits in a queue.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from typing import TypeVar
from weakref import WeakSet

from aiohttp import web

from sparkle_p2p.blobs.reader import BlobReader
from sparkle_p2p.blobs.store import BlobStore
from sparkle_p2p.net.bulk.certificate import Certificate
from sparkle_p2p.net.bulk.compression import compressed, looks_compressible
from sparkle_p2p.net.bulk.rate import RateLimit
from sparkle_p2p.net.bulk.wire import RAW, ZSTD, head, parse_target, span_bytes
from sparkle_protocol.blobs.limits import CHUNK_S, MAX_ANSWERS, MAX_ANSWERS_PER_PEER
from sparkle_protocol.blobs.tickets import TicketOffice, TicketRefused, Wanted
from sparkle_protocol.errors import ConfigError, NotFound, StorageError
from sparkle_protocol.ids import PeerId

log = logging.getLogger("sparkle.bulk")

T = TypeVar("T")

MAX_CONNECTIONS = 256
MAX_CONNECTIONS_PER_HOST = 64
MAX_HANDSHAKES = 32
REQUESTS_PER_S = 50  # of a peer, in the long run; it may save up two seconds' worth
HANDSHAKE_S = 5.0
FIRST_REQUEST_S = 10.0
KEEP_ALIVE_S = 30.0
READ_AHEAD = 8  # chunks
STOP_S = 1.0
FULL_S = 0.5  # before accepting again when this process has no file descriptor left


class BulkServer:
    """An HTTPS server on one address. ``clock`` is the node's monotonic one in nanoseconds."""

    def __init__(
        self,
        store: BlobStore,
        office: TicketOffice,
        certificate: Certificate,
        clock: Callable[[], int],
        threads: Executor,
    ) -> None:
        self._store = store
        self._office = office
        self._certificate = certificate
        self._clock = clock
        self._threads = threads
        self._answers: Counter[PeerId] = Counter()
        self._rate = RateLimit(REQUESTS_PER_S, burst_s=2.0)
        self._welcoming: set[asyncio.Task[None]] = set()
        self._proven: WeakSet[asyncio.BaseTransport] = WeakSet()  # connections that made a request with a ticket
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._web: web.Server | None = None
        self.port = 0

    @property
    def answering(self) -> int:
        """How many answers are being sent now."""
        return self._answers.total()

    # --- life -------------------------------------------------------------------------------------------------

    async def start(self, host: str, port: int = 0) -> None:
        """Listen, also at several addresses with one port. Raises ConfigError (the port is taken)."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family, backlog=MAX_HANDSHAKES)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"cannot serve blobs at {host} port {port}: {reason}; choose another port") from error
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        self._web = self._web or web.Server(
            self._handle, access_log=None, keepalive_timeout=KEEP_ALIVE_S, lingering_time=0, max_line_size=1024,
            max_field_size=1024, max_headers=16,
        )  # fmt: skip
        self._listening.append(listening)
        self._accepting.append(loop.create_task(self._accept(listening, self._web), name="sparkle-bulk-accept"))

    async def stop(self) -> None:
        """Break all connections. Idempotent."""
        tasks = [*self._accepting, *self._welcoming]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._accepting.clear()
        for listening in self._listening:
            listening.close()
        self._listening.clear()
        server, self._web = self._web, None
        if server is not None:
            for connection in server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await server.shutdown(timeout=STOP_S)

    # --- connections ------------------------------------------------------------------------------------------

    async def _accept(self, listening: socket.socket, server: web.Server) -> None:
        while True:
            try:
                await self._accept_one(listening, server)
            except OSError as error:  # out of descriptors, or the caller has gone
                log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(FULL_S)
            except Exception:
                log.exception("accepting a connection failed")
                await asyncio.sleep(FULL_S)

    async def _accept_one(self, listening: socket.socket, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        accepted, address = await loop.sock_accept(listening)
        if not self._has_place(address[0], server):
            accepted.close()
            return
        task = loop.create_task(self._welcome(accepted, server), name="sparkle-bulk-handshake")
        self._welcoming.add(task)
        task.add_done_callback(self._welcoming.discard)

    def _has_place(self, host: str, server: web.Server) -> bool:
        connections = [known.transport for known in server.connections if known.transport is not None]
        if len(self._welcoming) >= MAX_HANDSHAKES or len(connections) >= MAX_CONNECTIONS:
            return False
        names = [known.get_extra_info("peername") for known in connections]  # None of one that has just ended
        alike = [name for name in names if name is not None and name[0] == host]
        return len(alike) < MAX_CONNECTIONS_PER_HOST

    async def _welcome(self, accepted: socket.socket, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                server, accepted, ssl=self._certificate.context, ssl_handshake_timeout=HANDSHAKE_S
            )
        except (OSError, ssl.SSLError):
            accepted.close()
            return
        loop.call_later(FIRST_REQUEST_S, self._expect, transport)

    def _expect(self, transport: asyncio.BaseTransport) -> None:
        """A connection that has not shown a ticket by now is somebody else's idea."""
        if transport not in self._proven and isinstance(transport, asyncio.WriteTransport):
            transport.abort()

    # --- requests ---------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        wanted = parse_target(request.path) if request.method == "GET" and not request.can_read_body else None
        if wanted is None:
            return _refusal(400, "ask for chunks of a blob")
        try:
            header = request.headers.get("Authorization", "")
            peer = self._office.admit(header, wanted, self._certificate.fingerprint, self._clock())
        except TicketRefused as error:
            return _refusal(403, str(error))
        if request.transport is not None:
            self._proven.add(request.transport)
        busy = self._answers.total() >= MAX_ANSWERS or self._answers[peer] >= MAX_ANSWERS_PER_PEER
        if busy or not self._rate.take(peer, self._clock()):
            return _refusal(503, "too many requests at a time")
        with self._answering(peer):
            try:
                reader = await self._in_thread(lambda: self._store.open(wanted.blob))
            except NotFound as error:
                return _refusal(404, str(error))
            except StorageError:
                log.exception("a blob cannot be read")
                return _refusal(500, "this node cannot read its disk")
            with reader:
                if wanted.last >= reader.outline.chunks:
                    return _refusal(416, "the blob has fewer chunks")
                return await self._answer(request, reader, wanted)

    @contextlib.contextmanager
    def _answering(self, peer: PeerId) -> Iterator[None]:
        self._answers[peer] += 1
        try:
            yield
        finally:
            self._answers[peer] -= 1
            if not self._answers[peer]:
                del self._answers[peer]

    async def _answer(self, request: web.BaseRequest, reader: BlobReader, wanted: Wanted) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        if not wanted.compress:
            response.content_length = span_bytes(reader.outline, wanted)
        try:
            async with asyncio.timeout(CHUNK_S):
                await response.prepare(request)
            for chunk in range(wanted.first, wanted.last + 1):
                if (chunk - wanted.first) % READ_AHEAD == 0:
                    reader.read_ahead(chunk, min(chunk + 2 * READ_AHEAD, wanted.last))
                async with asyncio.timeout(CHUNK_S):
                    await self._send(response, reader, chunk, wanted.compress)
                await asyncio.sleep(0)  # a write to a reader that has left returns at once: see that he has left
            async with asyncio.timeout(CHUNK_S):
                await response.write_eof()
        except (ConnectionError, TimeoutError):  # the reader has left, or takes nothing
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _send(self, response: web.StreamResponse, reader: BlobReader, chunk: int, compress: bool) -> None:
        if not reader.resident(chunk):
            await self._in_thread(lambda: reader.load(chunk))
        data = reader.chunk(chunk)
        if compress:
            packed = await self._in_thread(lambda: compressed(data)) if looks_compressible(data) else None
            await response.write(head(RAW, len(data)) if packed is None else head(ZSTD, len(packed)) + packed)
            if packed is not None:
                return
        await response.write(data)

    def _in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)


def _refusal(status: int, text: str) -> web.Response:
    response = web.Response(status=status, text=text)
    if status in (400, 403):
        response.force_close()
    return response
