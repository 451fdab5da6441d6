"""Drives p2pd, the go-libp2p daemon, over its control socket.

The socket takes one ``Request`` per connection (Protocol Buffers, each message with its length before it) and
answers with a ``Response``. The connection of a STREAM_OPEN then carries the stream itself, that of a SUBSCRIBE
the topic's messages. For a protocol that we serve, p2pd connects to our own socket for each stream and writes a
``StreamInfo`` first. Field numbers below are those of p2pd.proto.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Self

import base58
from multiaddr import Multiaddr

from tests.interop import protobuf
from tests.interop.event_log import WAIT_S
from tests.interop.foreign_peer import ForeignPeer, ForeignPeerError, Gossip, Identified, Stream
from tests.interop.protobuf import Fields, blobs, decode, encode, texts
from tests.interop.setup import P2PD

IDENTIFY, CONNECT, STREAM_OPEN, STREAM_HANDLER, DHT, PUBSUB = 0, 1, 2, 3, 4, 8  # Request.Type
FIND_PROVIDERS = 2  # DHTRequest.Type
DHT_VALUE, DHT_END = 1, 2  # DHTResponse.Type
PUBLISH, SUBSCRIBE = 2, 3  # PSRequest.Type
UNIX = 400  # multiaddr code
HEARTBEAT = "100ms"  # of gossip: a mesh forms at a heartbeat
_STOP_S = 5.0


class GoPeer(ForeignPeer):
    """go-libp2p in its own process."""

    def __init__(self, process: Process, sockets: Path) -> None:
        super().__init__()
        self._process = process
        self._sockets = sockets
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(cls, folder: Path) -> Self:
        sockets = Path(tempfile.mkdtemp(prefix="sparkle-"))  # a socket's path may have 107 characters
        flags = ["-hostAddrs", "/ip4/127.0.0.1/tcp/0", "-dhtServer", "-pubsub", "-relay=false", "-relayService=false"]
        flags += ["-gossipsubHeartbeatInterval", HEARTBEAT, "-gossipsubHeartbeatInitialDelay", HEARTBEAT]
        # Without a persistent client it ends after this time, so that no killed test run leaves one behind.
        flags += ["-idleTimeout", "5m", "-listen", f"/unix{sockets / 'control'}"]
        with (folder / "go-peer.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(P2PD, *flags, stdout=PIPE, stderr=log)
        peer = cls(process, sockets)
        try:
            async with asyncio.timeout(WAIT_S):
                await peer._begin()
        except BaseException as error:
            error.add_note((folder / "go-peer.log").read_text(errors="replace")[-2000:])
            await peer.stop()
            raise
        return peer

    async def _begin(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"Control socket:"):
                break
        self._tasks.append(asyncio.create_task(self._drain(self._process.stdout), name="p2pd's output"))
        self._server = await asyncio.start_unix_server(self._accept, self._sockets / "streams")
        (identity,) = blobs(await self._ask((1, IDENTIFY)), 4)
        said = decode(identity)
        self.peer_id = _text(*blobs(said, 1))
        (address,) = (str(Multiaddr(raw)) for raw in blobs(said, 2))
        self.address = f"{address}/p2p/{self.peer_id}"

    async def _drain(self, output: asyncio.StreamReader) -> None:
        async for _ in output:
            pass

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)

    # -- the control socket --------------------------------------------------------------------------------

    async def _request(
        self, *fields: tuple[int, protobuf.Value]
    ) -> tuple[Fields, asyncio.StreamReader, asyncio.StreamWriter]:
        """The answer to one request, and the connection it came over."""
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_unix_connection(self._sockets / "control")
            self._writers.append(writer)
            writer.write(protobuf.delimited(encode(*fields)))
            await writer.drain()
            response = await protobuf.read_delimited(reader)
        if response[1] != [0]:
            raise ForeignPeerError(*(texts(decode(error), 1)[0] for error in blobs(response, 2)))
        return response, reader, writer

    async def _ask(self, *fields: tuple[int, protobuf.Value]) -> Fields:
        response, _, writer = await self._request(*fields)
        writer.close()
        return response

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Another peer opened a stream of a protocol that we serve."""
        self._writers.append(writer)
        info = await protobuf.read_delimited(reader)
        self.streams.put_nowait(_stream(info, reader, writer))

    # -- what a foreign peer can do ------------------------------------------------------------------------

    async def dial(self, address: str) -> None:
        transport, peer = address.rsplit("/p2p/", 1)
        await self._ask((1, CONNECT), (2, encode((1, base58.b58decode(peer)), (2, Multiaddr(transport).to_bytes()))))

    async def identify(self, peer: str) -> Identified:
        stream = await self.open(peer, "/ipfs/id/1.0.0")
        async with asyncio.timeout(WAIT_S):
            said = await protobuf.read_delimited(stream.reader)
        return Identified(texts(said, 6)[0], frozenset(texts(said, 3)))

    async def ping(self, peer: str) -> None:
        stream = await self.open(peer, "/ipfs/ping/1.0.0")
        data = os.urandom(32)
        await stream.write(data)
        async with asyncio.timeout(WAIT_S):
            assert await stream.reader.readexactly(32) == data

    async def subscribe(self, topic: str) -> None:
        _, reader, _ = await self._request((1, PUBSUB), (8, encode((1, SUBSCRIBE), (2, topic))))
        self._tasks.append(asyncio.create_task(self._listen(reader), name=f"gossip on {topic}"))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                message = await protobuf.read_delimited(reader)
                (author,), (data,), (topic,) = blobs(message, 1), blobs(message, 2), texts(message, 4)
                self.messages.put_nowait(Gossip(_text(author), topic, data))

    async def publish(self, topic: str, data: bytes) -> None:
        await self._ask((1, PUBSUB), (8, encode((1, PUBLISH), (2, topic), (3, data))))

    async def open(self, peer: str, protocol: str) -> Stream:
        wanted = encode((1, base58.b58decode(peer)), (2, protocol))
        response, reader, writer = await self._request((1, STREAM_OPEN), (3, wanted))
        return _stream(decode(blobs(response, 3)[0]), reader, writer)

    async def serve(self, protocol: str) -> None:
        path = os.fsencode(self._sockets / "streams")
        socket = protobuf.varint(UNIX) + protobuf.delimited(path)  # the multiaddr package drops the leading slash
        await self._ask((1, STREAM_HANDLER), (4, encode((1, socket), (2, protocol), (3, 0))))

    async def find_providers(self, cid: bytes) -> set[str]:
        wanted = encode((1, FIND_PROVIDERS), (3, cid), (6, 1))
        _, reader, writer = await self._request((1, DHT), (5, wanted))
        found = set()
        async with asyncio.timeout(WAIT_S):
            while (said := await protobuf.read_delimited(reader))[1] != [DHT_END]:
                if said[1] == [DHT_VALUE]:
                    found |= {_text(peer) for info in blobs(said, 2) for peer in blobs(decode(info), 1)}
        writer.close()
        return found


def _text(peer: bytes) -> str:
    return base58.b58encode(peer).decode()


def _stream(info: Fields, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Stream:
    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    return Stream(_text(blobs(info, 1)[0]), texts(info, 3)[0], reader, write)
