"""What the tests ask of a peer of another implementation, whatever its language."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgpack
from blake3 import blake3

from tests.interop.event_log import WAIT_S

RPC_PROTOCOL = "/sparkle/rpc/1"
MAX_HELLO_BYTES = 8192


class ForeignPeerError(Exception):
    """The foreign peer could not do what it was told."""


@dataclass(frozen=True)
class Identified:
    """What a peer says about itself in libp2p's identify protocol."""

    agent: str
    protocols: frozenset[str]


@dataclass(frozen=True)
class Gossip:
    """A message as the foreign peer received it, its signature checked."""

    author: str
    topic: str
    data: bytes


@dataclass(frozen=True, eq=False)
class Stream:
    """A libp2p stream of the foreign peer."""

    peer: str
    protocol: str
    reader: asyncio.StreamReader
    write: Callable[[bytes], Awaitable[None]]


class ForeignPeer(ABC):
    """A running peer. Every call ends within ``WAIT_S`` or raises."""

    peer_id: str
    address: str  # where it can be dialled, ending in /p2p/<peer_id>

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Gossip] = asyncio.Queue()
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()  # opened to it, of protocols that it serves

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, folder: Path) -> AsyncIterator[Self]:
        """A peer that listens, ended at the end."""
        peer = await cls.start(folder)
        try:
            yield peer
        finally:
            await peer.stop()

    @classmethod
    @abstractmethod
    async def start(cls, folder: Path) -> Self:
        """A peer that listens; its error output goes into the folder."""

    @abstractmethod
    async def stop(self) -> None:
        """End the process."""

    @abstractmethod
    async def dial(self, address: str) -> None:
        """Connect."""

    @abstractmethod
    async def identify(self, peer: str) -> Identified:
        """What a connected peer says about itself."""

    @abstractmethod
    async def ping(self, peer: str) -> None:
        """Return once a connected peer echoed 32 random bytes."""

    @abstractmethod
    async def subscribe(self, topic: str) -> None:
        """Collect a topic's messages in ``messages`` from now on."""

    @abstractmethod
    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip."""

    @abstractmethod
    async def open(self, peer: str, protocol: str) -> Stream:
        """Open a stream to a connected peer."""

    @abstractmethod
    async def serve(self, protocol: str) -> None:
        """Put streams of this protocol that others open into ``streams``."""

    @abstractmethod
    async def find_providers(self, cid: bytes) -> set[str]:
        """Look up at least one provider in the DHT."""

    async def message_from(self, author: str) -> Gossip:
        """The next message of an author."""
        async with asyncio.timeout(WAIT_S):
            while True:
                message = await self.messages.get()
                if message.author == author:
                    return message

    async def next_stream(self) -> Stream:
        """The next stream that somebody opens."""
        async with asyncio.timeout(WAIT_S):
            return await self.streams.get()


# The greeting of /sparkle/rpc/1, from its specification alone: u32 length, u64 id 0, u8 kind 0, msgpack.


def default_genesis(net: str) -> str:
    """The digest of the genesis record of a network that has no file: from the page, too."""
    packed: bytes = msgpack.packb([net, 10_000 * 10**6, 10 * 10**6, 100, 4, [], []])
    return blake3(b"sparkle/genesis/1\0" + packed).hexdigest()


def hello_frame(net: str, agent: str) -> bytes:
    """What either side says first."""
    payload: bytes = msgpack.packb([2, net, agent, [], default_genesis(net)])
    return (9 + len(payload)).to_bytes(4, "big") + bytes(8) + b"\x00" + payload


async def read_hello(stream: Stream) -> list[Any]:
    """The other side's ``[version, net, agent, addresses, genesis]``."""
    async with asyncio.timeout(WAIT_S):
        length = int.from_bytes(await stream.reader.readexactly(4), "big")
        assert 9 < length <= MAX_HELLO_BYTES, "the first frame is no hello"
        body = await stream.reader.readexactly(length)
    assert body[:9] == bytes(9), "the first frame is no hello"
    fields: list[Any] = msgpack.unpackb(body[9:])
    return fields


async def greet(peer: ForeignPeer, node: str, net: str) -> list[Any]:
    """Introduce a foreign peer to a node as one that speaks Sparkle; returns the node's hello."""
    stream = await peer.open(node, RPC_PROTOCOL)
    await stream.write(hello_frame(net, "foreign/1"))
    return await read_hello(stream)


async def answer_greeting(peer: ForeignPeer, net: str) -> list[Any]:
    """Do as a foreign peer that serves ``RPC_PROTOCOL`` when a node greets it; returns the node's hello."""
    stream = await peer.next_stream()
    hello = await read_hello(stream)
    await stream.write(hello_frame(net, "foreign/1"))
    return hello
