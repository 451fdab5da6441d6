"""The production overlay and the one in memory, held to the same suite; peers that misbehave; processes.

The suite runs against the simulator's model of the network too: ``tests/sim/overlay``.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sparkle_p2p.net.libp2p.bridge import TrioThread
from sparkle_protocol.identity import Identity
from tests.e2e.overlay.worlds import WAIT_S, FaultyWorld, Libp2pWorld, MemoryWorld, World


@pytest.fixture(params=[MemoryWorld, Libp2pWorld], ids=["memory", "libp2p"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made: World = request.param()
    yield made
    await made.close()


@pytest.fixture
async def real_world() -> AsyncIterator[World]:
    """Only the production overlay."""
    made = Libp2pWorld()
    yield made
    await made.close()


@pytest.fixture
async def faulty_world() -> AsyncIterator[FaultyWorld]:
    """One whose network can be broken to order."""
    made = MemoryWorld()
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
