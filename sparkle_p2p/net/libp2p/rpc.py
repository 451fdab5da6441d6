"""Request streams: frames over libp2p streams, in memory bounds, with time-outs (format: ``frames``).

A stream has a reader and a writer task of its own. A peer that stops reading therefore holds up only
the writer of its own stream, for at most ``WRITE_TIMEOUT_S``, and at most ``MAX_QUEUED_BYTES`` wait for it.
Too slow a peer loses the stream and is not accused: its machine may be suspended, or its wire cut.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

import trio
from libp2p.abc import INetStream
from libp2p.network.stream.exceptions import StreamEOF

from sparkle_p2p.net.libp2p.credit import credit_in_portions
from sparkle_p2p.net.libp2p.frames import (
    PREFIX_BYTES,
    Frame,
    Kind,
    body_length,
    decode_body,
    decode_error,
    encode,
    encode_error,
)
from sparkle_p2p.net.libp2p.host import BROKEN, is_closing
from sparkle_p2p.net.libp2p.sink import Sink
from sparkle_p2p.net.overlay import MAX_PENDING_PER_PEER
from sparkle_p2p.net.serving import ErrorCode
from sparkle_protocol.errors import OverlayDown, PeerUnreachable, RemoteProtocolError, TransportError
from sparkle_protocol.ids import PeerId, short_peer

WRITE_TIMEOUT_S = 4.5  # per chunk; below the 5 s after which yamux itself gives up on a closed window
CLOSE_TIMEOUT_S = 1.0
FRAME_TIMEOUT_S = 20.0  # from a frame's first byte to its last: 1 MiB at 0.4 Mbit/s
MAX_QUEUED_BYTES = 8 << 20  # per stream; the overflow policy is in `Channel.room`'s callers
_CHUNK_BYTES = 65507  # fills Noise messages exactly; measured faster than 64 KiB
_READ_BYTES = 64 << 10  # as much as has come, so that a small frame is one read: each costs as much as a message

Resolve = Callable[[Any], None]  # a result, or an exception instance


class TooSlow(PeerUnreachable):
    """A peer did not take or send data in time: slow, frozen or gone, which breaks no rule."""


class Channel(ABC):
    """One request stream: reads frames, writes queued ones, ends when either side fails."""

    def __init__(self, stream: INetStream, peer: PeerId, sink: Sink, stalled: Callable[[PeerId], None]) -> None:
        self.peer = peer
        self.open = True
        self.heard_at = trio.current_time()
        self._stream = stream
        credit_in_portions(stream)
        self._sink = sink
        self._stalled = stalled
        self._scope = trio.CancelScope()
        self._unread = bytearray()  # at most a frame and _READ_BYTES
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = trio.Event()
        self._reason = "the connection broke"

    # -- single frames, before run() ---------------------------------------------------------------

    async def read_frame(self) -> Frame | None:
        """The next frame, or None at an orderly end of the stream.

        Raises:
            RemoteProtocolError: malformed, too long or truncated.
            TooSlow: begun and not ended in time.
        """
        prefix = await self._read_exactly(PREFIX_BYTES, may_end=True)
        if prefix is None:
            return None
        body: bytes | None = None
        with trio.move_on_after(FRAME_TIMEOUT_S):
            body = await self._read_exactly(body_length(prefix), may_end=False)
        if body is None:
            raise TooSlow("it left a frame half sent")
        self.heard_at = trio.current_time()
        return decode_body(body)

    async def _read_exactly(self, count: int, *, may_end: bool) -> bytes | None:
        while len(self._unread) < count:
            try:
                data = await self._stream.read(_READ_BYTES)
            except StreamEOF:
                data = b""
            if data:
                self._unread += data
                continue
            if (may_end and not self._unread) or is_closing(self._stream):
                return None
            raise RemoteProtocolError("its stream ended inside a frame")
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken

    async def write_frame(self, data: bytes) -> None:
        """Write one frame.

        Raises:
            TooSlow: the peer stopped reading.
        """
        for start in range(0, len(data), _CHUNK_BYTES):
            with trio.move_on_after(WRITE_TIMEOUT_S) as scope:
                await self._stream.write(data[start : start + _CHUNK_BYTES])
            if scope.cancelled_caught:
                # With a closed window nothing of the chunk was sent. Otherwise a Noise message may be half
                # written, after which the connection as a whole is unusable.
                if getattr(getattr(self._stream, "muxed_stream", None), "send_window", 1) != 0:
                    self._stalled(self.peer)
                raise TooSlow("it stopped reading")

    # -- the running stream ------------------------------------------------------------------------

    def room(self, data: bytes) -> bool:
        """Whether the queue of unsent frames can take these bytes."""
        return self._queued_bytes + len(data) <= MAX_QUEUED_BYTES or not self._queue

    def send(self, data: bytes) -> None:
        """Queue a frame."""
        self._queue.append(data)
        self._queued_bytes += len(data)
        self._wake.set()

    def fail(self, reason: str) -> None:
        """End the stream; ``run`` returns soon."""
        if self.open:
            self.open = False
            self._reason = reason
            self._scope.cancel()

    async def run(self) -> None:
        """Serve the stream until it ends. Does not raise."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_loop)
                    nursery.start_soon(self._read_loop)
        finally:
            if self.open:  # cancelled from outside: the service as a whole is ending
                self.open = False
                self.ended(OverlayDown("the network service is not running"))
            else:
                self.ended(PeerUnreachable(f"the connection to {short_peer(self.peer)} was lost: {self._reason}"))
            await self.reset()

    async def reset(self) -> None:
        """Drop the stream at once."""
        with trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT_S, shield=True):
            try:
                await self._stream.reset()
            except BROKEN:
                return

    async def _write_loop(self) -> None:
        try:
            while True:
                while self._queue:
                    data = self._queue.popleft()
                    await self.write_frame(data)
                    self._queued_bytes -= len(data)
                    self.drained()
                await self._wake.wait()
                self._wake = trio.Event()
        except TooSlow as error:
            self.fail(str(error))
        except BROKEN:
            self.fail("the connection broke")

    async def _read_loop(self) -> None:
        try:
            while (frame := await self.read_frame()) is not None:
                await self.received(frame)
            self.fail("it closed the stream")
        except RemoteProtocolError as error:
            self._sink.violation(self.peer, str(error))
            self.fail(str(error))
        except TooSlow as error:
            self.fail(str(error))
        except BROKEN:
            self.fail("the connection broke")

    # -- for the two sides -------------------------------------------------------------------------

    @abstractmethod
    async def received(self, frame: Frame) -> None:
        """Handle one frame; may wait, which holds the peer up."""

    @abstractmethod
    def drained(self) -> None:
        """A queued frame was written."""

    @abstractmethod
    def ended(self, error: TransportError) -> None:
        """The stream is over."""


class Asker(Channel):
    """Our own stream to a peer: requests and pings out, replies in."""

    def __init__(self, stream: INetStream, peer: PeerId, sink: Sink, stalled: Callable[[PeerId], None]) -> None:
        super().__init__(stream, peer, sink, stalled)
        self._next_id = 1
        self._waiting: dict[int, Resolve] = {}

    def ask(self, payload: bytes, resolve: Resolve) -> int:
        """Send a request; ``resolve`` gets the reply or an exception. Returns its id, 0 if not sent."""
        data = encode(self._next_id, Kind.REQUEST, payload)
        if not self.room(data):
            # Overflow policy: the newest request fails, the queued ones keep their order.
            resolve(PeerUnreachable(f"{short_peer(self.peer)} takes our data too slowly; try again later"))
            return 0
        return self._send(data, resolve)

    def ping(self, resolve: Resolve) -> int:
        """Send a ping; ``resolve`` gets b"" or an exception."""
        return self._send(encode(self._next_id, Kind.PING), resolve)

    def _send(self, data: bytes, resolve: Resolve) -> int:
        frame_id = self._next_id
        self._next_id += 1
        self._waiting[frame_id] = resolve
        self.send(data)
        return frame_id

    def forget(self, frame_id: int) -> None:
        """Nobody waits for this reply any more."""
        self._waiting.pop(frame_id, None)

    async def received(self, frame: Frame) -> None:
        """Hand a reply to whoever waits for it."""
        if frame.kind not in (Kind.REPLY, Kind.ERROR, Kind.PONG):
            raise RemoteProtocolError(f"it answers with a frame of kind {frame.kind.name.lower()}")
        if not 0 < frame.id < self._next_id:
            raise RemoteProtocolError("it answers a request that was never sent")
        resolve = self._waiting.pop(frame.id, None)
        if resolve is not None:
            resolve(decode_error(frame.payload) if frame.kind is Kind.ERROR else frame.payload)

    def drained(self) -> None:
        """A request was written: its answer is what is waited for."""

    def ended(self, error: TransportError) -> None:
        """Fail whatever is unanswered."""
        waiting, self._waiting = self._waiting, {}
        for resolve in waiting.values():
            resolve(error)


class Answerer(Channel):
    """A peer's stream to us: its requests and pings in, our replies out."""

    def __init__(self, stream: INetStream, peer: PeerId, sink: Sink, stalled: Callable[[PeerId], None]) -> None:
        super().__init__(stream, peer, sink, stalled)
        self._serving: dict[int, int] = {}  # request id: its bytes, until its answer is queued
        self._last_id = 0
        self._eased = trio.Event()

    async def received(self, frame: Frame) -> None:
        """Have a request served, answer a ping."""
        if frame.kind not in (Kind.REQUEST, Kind.PING):
            raise RemoteProtocolError(f"it asks with a frame of kind {frame.kind.name.lower()}")
        if frame.id <= self._last_id:
            raise RemoteProtocolError("it uses a request id twice")
        self._last_id = frame.id
        if frame.kind is Kind.PING:
            self.send(encode(frame.id, Kind.PONG))
        elif len(self._serving) >= MAX_PENDING_PER_PEER:
            self.send(encode_error(frame.id, ErrorCode.BUSY, ""))
        else:
            self._serving[frame.id] = len(frame.payload)
            self._sink.request(self.peer, frame.payload, self._answer_to(frame.id))
        # Overflow policy of the answers (and of small frames): stop reading until the peer took some.
        while self._held_bytes() > MAX_QUEUED_BYTES or len(self._queue) > 4 * MAX_PENDING_PER_PEER:
            self._eased = trio.Event()
            await self._eased.wait()

    def _held_bytes(self) -> int:
        return self._queued_bytes + sum(self._serving.values())

    def _answer_to(self, frame_id: int) -> Callable[[bytes | ErrorCode, str], None]:
        def answer(outcome: bytes | ErrorCode, text: str) -> None:
            if self._serving.pop(frame_id, None) is None or not self.open:
                return
            if isinstance(outcome, bytes):
                self.send(encode(frame_id, Kind.REPLY, outcome))
            else:
                self.send(encode_error(frame_id, outcome, text))
            self._eased.set()

        return answer

    def ended(self, error: TransportError) -> None:
        """The asker is gone, and nobody waits on this side."""

    def drained(self) -> None:
        """Read on, if that was what we waited for."""
        self._eased.set()
