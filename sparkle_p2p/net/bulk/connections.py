"""Connections to servers of blobs that nobody uses just now: a handshake takes as long as a MiB."""

import asyncio
import ssl

from sparkle_p2p.net.bulk.https_client import Connection
from sparkle_protocol.blobs.limits import IDLE_S

MAX_IDLE = 8  # each has a MiB of buffers; the one that was used longest ago is closed


class Connections:
    """Open connections of a node, by the certificate of their server. All methods are called on one loop."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._idle: dict[Connection, float] = {}  # since when, the longest first
        self._ending: dict[Connection, asyncio.Future[None]] = {}  # whose answers are being read to their end
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def idle(self, certificate: bytes) -> Connection | None:
        """The connection with this server that was used last, if one is open; the server may have closed it."""
        for connection in reversed(self._idle):
            if connection.certificate == certificate:
                del self._idle[connection]
                return connection
        return None

    def new(self, endpoint: tuple[str, int], certificate: bytes) -> Connection:
        """One that is not open yet."""
        return Connection(endpoint, certificate, self._context)

    def give_back(self, connection: Connection) -> None:
        """It has brought all that was asked for, and waits for the next ask or its end."""
        if self._closed:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        self._idle[connection] = loop.time()
        if len(self._idle) > MAX_IDLE:
            self._close_oldest()
        if self._timer is None:
            self._timer = loop.call_later(IDLE_S, self._tidy)

    def give_back_later(self, connection: Connection, reading: "asyncio.Future[None]") -> None:
        """The same as soon as a thread has read the end of the answer, which closes the connection if it fails."""
        self._ending[connection] = reading
        reading.add_done_callback(lambda _: self._ended(connection))

    def _ended(self, connection: Connection) -> None:
        reading = self._ending.pop(connection)
        if not reading.cancelled() and reading.exception() is None:
            self.give_back(connection)

    def _tidy(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        while self._idle:
            due_s = next(iter(self._idle.values())) + IDLE_S
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._tidy)
                return
            self._close_oldest()

    def _close_oldest(self) -> None:
        connection = next(iter(self._idle))
        del self._idle[connection]
        connection.close()

    def close(self) -> None:
        """Close those that are idle, and each of the others when it is given back."""
        self._closed = True
        for connection in self._ending:
            connection.cut()
        if self._timer is not None:
            self._timer.cancel()
        while self._idle:
            self._close_oldest()
