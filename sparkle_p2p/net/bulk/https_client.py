"""One HTTPS connection, used by one thread at a time: from the socket into a buffer, hashed and written there.

The bytes of a blob never pass through the event loop. With a protocol of asyncio each of them is copied four times
and changes threads before it is hashed, which costs three times as much processor time as this.
"""

import contextlib
import hashlib
import hmac
import http.client
import socket
import ssl
import threading

from sparkle_p2p.net.bulk.compression import decompressed
from sparkle_p2p.net.bulk.source import Declined, NoDirectPath, Sink, TicketStale
from sparkle_p2p.net.bulk.tls_stream import TlsStream
from sparkle_p2p.net.bulk.wire import HEAD_BYTES, ZSTD, parse_head, target
from sparkle_protocol.blobs.tickets import Wanted
from sparkle_protocol.blobs.tree import CHUNK_BYTES, Buffer, Outline
from sparkle_protocol.errors import PeerUnreachable, RemoteProtocolError, TransportError

CONNECT_S = 4.0
SILENCE_S = 30.0  # without a byte; the transfer sees much sooner whether a source trickles
STEP_BYTES = 128 << 10  # after so many bytes it is told that they came
_TEXT_BYTES = 400  # of a refusal


class Connection:
    """A connection to the server with this certificate. ``cut`` may be called by any thread."""

    def __init__(self, endpoint: tuple[str, int], certificate: bytes, context: ssl.SSLContext) -> None:
        self.endpoint = endpoint
        self.certificate = certificate
        self._context = context
        self.answered = False  # to the request that was made last
        self.complete = False  # all chunks that it asked for have come
        self._http = http.client.HTTPConnection(*endpoint)
        self._http.auto_open = 0  # it would connect again without TLS
        self._socket: socket.socket | None = None
        self._stream: TlsStream | None = None
        self._lock = threading.Lock()
        self._cut = False
        self._buffer = memoryview(bytearray(CHUNK_BYTES))

    def open(self) -> None:
        """Connect, unless that was done, and compare the certificate before anything is sent. Raises NoDirectPath."""
        if self._stream is not None:
            return
        host, port = self.endpoint
        try:
            stream = TlsStream(self._connect(), self._context)
        except OSError as error:
            raise NoDirectPath(f"nobody can be reached at {host} port {port}: {_words(error)}") from error
        if not hmac.compare_digest(hashlib.sha256(stream.certificate()).digest(), self.certificate):
            raise NoDirectPath(f"somebody else answers at {host} port {port}: another certificate")
        stream.settimeout(SILENCE_S)
        self._stream = self._http.sock = stream

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(self.endpoint, timeout=CONNECT_S)
        with self._lock:
            self._socket = connected
            if self._cut:
                raise PeerUnreachable("the transfer has ended")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def read(self, wanted: Wanted, authorization: str, outline: Outline, sink: Sink) -> None:
        """Ask for chunks and bring them into the sink. After an error the connection is of no more use.

        Raises:
            TransportError, Declined, TicketStale, RemoteProtocolError, and what the sink raises.
        """
        self.answered = self.complete = False
        try:
            self._http.putrequest("GET", target(wanted), skip_accept_encoding=True)
            self._http.putheader("Authorization", authorization)
            self._http.endheaders()
            with self._http.getresponse() as response:
                self.answered = True
                _check(response)
                read_one = self._read_packed if wanted.compress else self._read_chunk
                for chunk in range(wanted.first, wanted.last + 1):
                    took = read_one(response, outline.chunk_size(chunk), sink)
                    # Before it is taken: whoever waits for it may end the transfer in that moment.
                    self.complete = chunk == wanted.last
                    sink.take(chunk, took)
                if response.read(1):
                    raise RemoteProtocolError("more came than was asked for")
        except (OSError, http.client.HTTPException) as error:
            raise PeerUnreachable(f"the connection broke: {_words(error)}") from error

    def _read_chunk(self, response: http.client.HTTPResponse, size: int, sink: Sink) -> list[Buffer]:
        body = self._buffer[:size]
        self._fill(response, body, sink)
        return [body]

    def _read_packed(self, response: http.client.HTTPResponse, size: int, sink: Sink) -> list[Buffer]:
        head = bytearray(HEAD_BYTES)
        self._fill(response, memoryview(head), sink)
        encoding, length = parse_head(bytes(head), size)
        body = self._buffer[:length]
        self._fill(response, body, sink)
        return [decompressed([body], size)] if encoding == ZSTD else [body]

    def _fill(self, response: http.client.HTTPResponse, into: memoryview, sink: Sink) -> None:
        while into:
            count = response.readinto(into[:STEP_BYTES])
            if not count:
                raise PeerUnreachable("the answer ended early")
            sink.came(count)
            into = into[count:]

    def cut(self) -> None:
        """Make a thread that waits in here stop waiting, and this connection useless."""
        with self._lock:
            self._cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it is broken already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; nobody may be reading."""
        self._http.close()
        with self._lock:
            if self._socket is not None:
                self._socket.close()


def _check(response: http.client.HTTPResponse) -> None:
    if response.status == 200:
        return
    text = response.read(_TEXT_BYTES).decode("utf-8", "replace")
    if response.status == 403:
        raise TicketStale(text)
    if response.status in (500, 503):
        raise TransportError(text)
    raise Declined(text)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
