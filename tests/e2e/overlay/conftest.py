"""One harness for both overlays: `world.node()` starts a node whose events a test can wait for."""

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.libp2p.bridge import TrioThread
from sparkle_p2p.net.memory import MemoryNetwork, MemoryOverlay
from sparkle_p2p.net.overlay import Link, OverlayEvents
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


class World:
    """Makes nodes of one kind of overlay and stops them after the test."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.network = MemoryNetwork(random.Random(7))
        self.nodes: list[Node] = []

    def make(self, **options: Any) -> Node:
        """A node that is not started."""
        identity = options.pop("identity", None) or Identity.generate()
        handler = options.pop("handler", echo)
        settings = {"net": "test", "listen": ("/ip4/127.0.0.1/tcp/0",), "agent": "test/1", "mdns": False, **options}
        overlay = (
            Libp2pOverlay(identity, **settings)
            if self.kind == "libp2p"
            else MemoryOverlay(self.network, identity, **settings)
        )
        node = Node(overlay, handler)
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


@pytest.fixture(params=["memory", "libp2p"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = World(request.param)
    yield made
    await made.close()


@pytest.fixture
async def real_world() -> AsyncIterator[World]:
    """Only the production overlay."""
    made = World("libp2p")
    yield made
    await made.close()


class Hostile:
    """A libp2p peer whose behaviour a test writes itself, in a trio thread of its own.

    ``run(attack, ...)`` runs ``await attack(host, ...)`` there.
    """

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.host: Any = None
        self._thread = TrioThread("hostile")
        self._ready = asyncio.Event()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()

        def load() -> Callable[[], Awaitable[None]]:
            import trio
            from libp2p.tools.anyio_service import background_trio_service

            from sparkle_p2p.net.libp2p.host import Host

            async def main() -> None:
                self.host = Host(self.identity, lambda _peer, _reason: None)
                async with background_trio_service(self.host.network):
                    await self.host.listen(["/ip4/127.0.0.1/tcp/0"])
                    loop.call_soon_threadsafe(self._ready.set)
                    await trio.sleep_forever()

            return main

        self._thread.start(load, lambda: None)
        async with asyncio.timeout(WAIT_S):
            await self._ready.wait()

    async def run(self, attack: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return await self._thread.call(attack, self.host, *args, timeout_s=WAIT_S)

    def post(self, function: Callable[..., None], *args: Any) -> None:
        self._thread.post(function, *args)

    async def stop(self) -> None:
        self._thread.cancel()
        async with asyncio.timeout(5):
            await self._thread.wait_ended()
        self.host.close_sockets()


@pytest.fixture
async def hostile() -> AsyncIterator[Hostile]:
    made = Hostile()
    await made.start()
    yield made
    await made.stop()


class LoneNode:
    """``lone_node.py`` running as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def spawn(cls, net: str, listen: str, mdns: str) -> "LoneNode":
        script = Path(__file__).with_name("lone_node.py")
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(sys.executable, script, net, listen, mdns, stdin=pipe, stdout=pipe)
        )

    async def tells(self, key: str) -> Any:
        """The next line that has this key."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            while line := await self.process.stdout.readline():
                fields = json.loads(line)
                if key in fields:
                    return fields[key]
        raise AssertionError(f"the process ended without saying '{key}'")

    async def stop(self) -> None:
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                async with asyncio.timeout(5):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


@pytest.fixture
async def spawn() -> AsyncIterator[Callable[..., Awaitable[LoneNode]]]:
    running: list[LoneNode] = []

    async def spawned(net: str, listen: str = "/ip4/127.0.0.1/tcp/0", mdns: str = "quiet") -> LoneNode:
        running.append(await LoneNode.spawn(net, listen, mdns))
        return running[-1]

    yield spawned
    await asyncio.gather(*(node.stop() for node in running))
