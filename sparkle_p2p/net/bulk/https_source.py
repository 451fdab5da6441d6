"""Chunks over HTTPS, from the one certificate that the peer signed for."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from sparkle_p2p.net.bulk.compression import decompressed
from sparkle_p2p.net.bulk.source import Chunk, Declined, NoDirectPath, TicketStale
from sparkle_p2p.net.bulk.wire import HEAD_BYTES, ZSTD, parse_head, target
from sparkle_protocol.blobs.tickets import Ticket, Wanted
from sparkle_protocol.blobs.tree import Buffer, Outline
from sparkle_protocol.errors import PeerUnreachable, RemoteProtocolError, TransportError
from sparkle_protocol.ids import PeerId, short_peer

CONNECT_S = 4.0
SILENCE_S = 30.0  # the transfer looks whether a source trickles long before
READ_BUFFER = 512 << 10  # of a connection, in user space; beyond twice that it does not read on
MAX_CONNECTIONS = 4

_SKIPPED_HEADERS = ("User-Agent", "Accept", "Accept-Encoding")


@dataclass(frozen=True, slots=True)
class Access:
    """Leave to read a blob at a server."""

    ticket: Ticket
    certificate: bytes  # SHA-256
    endpoints: tuple[tuple[str, int], ...]  # hosts and ports, best first


AccessGiver = Callable[[], Awaitable[Access]]
"""A fresh ticket and where to use it; raises as a ChunkSource does."""


class HttpsSource:
    """A ``ChunkSource``. One set of connections to one certificate; made anew when the peer has another one."""

    def __init__(self, peer: PeerId, outline: Outline, access: AccessGiver, context: ssl.SSLContext) -> None:
        self._peer = peer
        self._outline = outline
        self._access = access
        self._context = context
        self._session: aiohttp.ClientSession | None = None
        self._certificate = b""
        self._endpoint: tuple[str, int] | None = None  # the one that answered

    async def chunks(
        self, first: int, last: int, *, compress: bool, came: Callable[[int], None]
    ) -> AsyncGenerator[Chunk, None]:
        """See ``ChunkSource``."""
        wanted = Wanted(self._outline.id, first, last, compress)
        try:
            response = await self._request(wanted)
            async with response:
                await self._check(response)
                pieces = _Pieces(response.content, came)
                for chunk in range(first, last + 1):
                    size = self._outline.chunk_size(chunk)
                    encoding, length = parse_head(await pieces.exactly(HEAD_BYTES), size)
                    body = await pieces.take(length)
                    yield chunk, [await asyncio.to_thread(decompressed, body, size)] if encoding == ZSTD else body
                await pieces.end()
        except aiohttp.ClientPayloadError as error:
            raise PeerUnreachable(f"{short_peer(self._peer)} broke off in mid-answer") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise PeerUnreachable(f"the connection to {short_peer(self._peer)} broke: {_words(error)}") from error

    async def _request(self, wanted: Wanted) -> aiohttp.ClientResponse:
        access = await self._access()
        session = await self._session_for(access.certificate)
        endpoints = list(access.endpoints)
        if self._endpoint in endpoints:
            endpoints = [self._endpoint]
        failure: Exception = NoDirectPath(f"{short_peer(self._peer)} gives no address for blobs")
        for host, port in endpoints:
            shown = f"[{host}]" if ":" in host else host
            header = access.ticket.header(wanted, access.certificate)
            try:
                response = await session.get(
                    f"https://{shown}:{port}{target(wanted)}",
                    headers={"Authorization": header},
                    ssl=self._context,
                    allow_redirects=False,
                )
            except aiohttp.ClientConnectorError as error:
                failure = NoDirectPath(f"{short_peer(self._peer)} cannot be reached at {host} port {port}")
                failure.__cause__ = error
            except aiohttp.ServerFingerprintMismatch as error:
                failure = NoDirectPath(
                    f"somebody else than {short_peer(self._peer)} answers at {host} port {port}: another certificate"
                )
                failure.__cause__ = error
            else:
                self._endpoint = (host, port)
                return response
        self._endpoint = None
        raise failure

    async def _session_for(self, certificate: bytes) -> aiohttp.ClientSession:
        if self._session is None or self._certificate != certificate:
            await self.close()
            self._certificate = certificate
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(certificate), limit=MAX_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_SKIPPED_HEADERS,
                auto_decompress=False,
                read_bufsize=READ_BUFFER,
                trust_env=False,
            )
        return self._session

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 200:
            return
        text = (await response.content.read(400)).decode("utf-8", "replace")
        if response.status in (500, 503):
            raise TransportError(text)
        if response.status == 403:
            raise TicketStale(f"{short_peer(self._peer)} refuses the ticket: {text}")
        raise Declined(text)

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Pieces:
    """Cuts what a connection delivers without joining it."""

    def __init__(self, content: aiohttp.StreamReader, came: Callable[[int], None]) -> None:
        self._content = content
        self._came = came
        self._rest = memoryview(b"")

    async def take(self, count: int) -> list[Buffer]:
        """The next bytes, as pieces."""
        taken: list[Buffer] = []
        while count:
            if not self._rest:
                data, _ = await self._content.readchunk()
                if not data:
                    if self._content.at_eof():
                        raise PeerUnreachable("the answer ended early")
                    continue
                self._came(len(data))
                self._rest = memoryview(data)
            piece = self._rest[:count]
            self._rest = self._rest[len(piece) :]
            count -= len(piece)
            taken.append(piece)
        return taken

    async def exactly(self, count: int) -> bytes:
        """The next few bytes."""
        return b"".join(await self.take(count))

    async def end(self) -> None:
        """Return when nothing more came, so that the connection can be used again."""
        if self._rest or (await self._content.readchunk())[0]:
            raise RemoteProtocolError("more came than was asked for")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
