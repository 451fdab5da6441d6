"""TLS over a blocking socket, for a thread that reads much.

``ssl.SSLSocket`` asks the system twice for every record of 16 KiB; here the system is asked for half a MiB at a time
and OpenSSL takes its records from that, which halves the processor time of reading.
"""

import io
import socket
import ssl
from collections.abc import Callable
from typing import Any

READ_BYTES = 512 << 10


class TlsStream(io.RawIOBase):
    """A client's side of a TLS connection: what ``http.client`` needs of a socket.

    One thread at a time uses it. Errors are those of ``socket`` and ``ssl`` (OSError).
    """

    def __init__(self, connected: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__()
        self._socket = connected
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._do(self._tls.do_handshake)

    def certificate(self) -> bytes:
        """The other side's certificate as DER."""
        return self._tls.getpeercert(binary_form=True) or b""

    def settimeout(self, seconds: float) -> None:
        """How long to wait for the system at a time."""
        self._socket.settimeout(seconds)

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        self._do(self._tls.write, data)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """At least one byte into the buffer, and as much as has come; 0 at the end of the stream."""
        left, count = memoryview(buffer), 0
        take: Any = self._tls.read  # with a buffer it returns how much it wrote there
        while left:
            try:
                read: int = take(len(left), left)
            except ssl.SSLWantReadError:
                if count:
                    break
                self._receive()
            except ssl.SSLZeroReturnError:
                break
            else:
                left, count = left[read:], count + read
        return count

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        """A buffered stream over this one; large reads pass it by."""
        return io.BufferedReader(_Borrowed(self), 16 << 10)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if not self.closed:
            self._socket.close()
            super().close()

    def _do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The call's value, once what it needs has come; and what it wants to be sent is sent."""
        while True:
            try:
                value = call(*arguments)
            except ssl.SSLWantReadError:
                self._receive()
            else:
                self._flush()
                return value

    def _receive(self) -> None:
        self._flush()
        count = self._socket.recv_into(self._buffer)
        if not count:
            raise ConnectionResetError("the peer closed the connection")
        self._incoming.write(self._buffer[:count])

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.sendall(self._outgoing.read())


class _Borrowed(io.RawIOBase):
    """Reads from a stream and leaves it open: a response is closed, its connection is kept."""

    def __init__(self, stream: TlsStream) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)
