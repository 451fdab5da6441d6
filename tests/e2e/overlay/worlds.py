"""What the conformance suite needs of an overlay, whichever it is: nodes whose events a test can wait for."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sparkle_p2p.net.memory import MemoryNetwork, MemoryOverlay
from sparkle_p2p.net.overlay import Link, Overlay, OverlayEvents
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId

WAIT_S = 20.0  # for what takes milliseconds on an idle machine

Handler = Callable[[PeerId, bytes], Awaitable[bytes]]


async def echo(peer: PeerId, payload: bytes) -> bytes:
    """The default handler."""
    return b"re:" + payload


@dataclass
class Node:
    """An overlay, what it reported, and ways to wait for a report."""

    overlay: Any
    handler: Handler = echo
    up: list[Link] = field(default_factory=list)
    down: list[tuple[PeerId, str]] = field(default_factory=list)
    discovered: list[tuple[str, str]] = field(default_factory=list)
    gossip: list[tuple[str, PeerId, bytes]] = field(default_factory=list)
    violations: list[tuple[PeerId | None, str]] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> PeerId:
        return self.overlay.peer_id

    @property
    def address(self) -> str:
        return self.overlay.addresses()[0]

    @property
    def peers(self) -> list[PeerId]:
        return [link.peer for link in self.overlay.links()]

    async def start(self) -> None:
        await self.overlay.start(self._handle, self.events())

    async def _handle(self, peer: PeerId, payload: bytes) -> bytes:
        return await self.handler(peer, payload)

    def events(self) -> OverlayEvents:
        def into(report: list[Any]) -> Callable[..., None]:
            def note(*args: Any) -> None:
                report.append(args[0] if len(args) == 1 else args)
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()

            return note

        return OverlayEvents(
            peer_up=into(self.up),
            peer_down=into(self.down),
            discovered=into(self.discovered),
            gossip=into(self.gossip),
            violation=into(self.violations),
            restarted=into(self.restarts),
        )

    async def until(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Wait for reports until the condition holds."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s} s: {what}; reports: {self}") from None

    async def eventually(self, attempt: Callable[[], Awaitable[bool]], what: str) -> None:
        """Try again after every report, and at least ten times a second, until the attempt succeeds."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not await attempt():
                    try:
                        async with asyncio.timeout(0.1):
                            await self._changed.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            raise AssertionError(f"not within {WAIT_S} s: {what}; reports: {self}") from None


class World(ABC):
    """Makes nodes of one kind of overlay and stops them after the test."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    @abstractmethod
    def overlay(self, identity: Identity | None, settings: dict[str, Any]) -> Overlay:
        """One that is not started."""

    def make(self, **options: Any) -> Node:
        """A node that is not started."""
        identity = options.pop("identity", None)
        handler = options.pop("handler", echo)
        settings = {"net": "test", "listen": ("/ip4/127.0.0.1/tcp/0",), "agent": "test/1", "mdns": False, **options}
        node = Node(self.overlay(identity, settings), handler)
        self.nodes.append(node)
        return node

    async def node(self, **options: Any) -> Node:
        """A started node."""
        node = self.make(**options)
        await node.start()
        return node

    async def pair(self, **options: Any) -> tuple[Node, Node]:
        """Two started nodes; the first dialled the second and both know."""
        one, other = await self.node(), await self.node(**options)
        await self.link(one, other)
        return one, other

    async def link(self, dialler: Node, other: Node) -> None:
        """Connect two nodes and wait until both have seen it."""
        await dialler.overlay.connect(other.address)
        await dialler.until(lambda: other.id in dialler.peers, "the dialler sees the link")
        await other.until(lambda: dialler.id in other.peers, "the other end sees the link")

    async def close(self) -> None:
        await asyncio.gather(*(node.overlay.stop() for node in self.nodes))


class Libp2pWorld(World):
    """The production overlay."""

    def overlay(self, identity: Identity | None, settings: dict[str, Any]) -> Overlay:
        from sparkle_p2p.net.libp2p import Libp2pOverlay

        return Libp2pOverlay(identity or Identity.generate(), **settings)


class FaultyWorld(World):
    """One whose network can be broken to order."""

    network: Any  # with cut, heal, stall, unstall, set_delay and set_loss, as ``MemoryNetwork`` has them


class MemoryWorld(FaultyWorld):
    """The overlay within one process."""

    def __init__(self) -> None:
        super().__init__()
        self.network: MemoryNetwork[MemoryOverlay] = MemoryNetwork(random.Random(7))

    def overlay(self, identity: Identity | None, settings: dict[str, Any]) -> Overlay:
        return MemoryOverlay(self.network, identity or Identity.generate(), **settings)
