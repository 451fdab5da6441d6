"""The demo inside the screen: local peers that join the running node, and two jobs for all of them."""

import asyncio
import contextlib

from sparkle_p2p.cli.service import with_peer
from sparkle_p2p.cli.swarm import Swarm
from sparkle_p2p.view import NodeControl, SubmitRequest
from sparkle_protocol.errors import ConfigError

HONEST = 3
LIARS = 1
JOBS = (
    SubmitRequest("prime_count", {"start": 0, "stop": 10**10}),
    SubmitRequest("mandelbrot", {}),
)


class Companions:
    """Starts local peers beside a node that is alone, and stops them with it."""

    def __init__(self, control: NodeControl, net: str) -> None:
        self._control = control
        self._net = net
        self._swarm: Swarm | None = None
        self._stack = contextlib.AsyncExitStack()
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Have the peers running (a few seconds) and give them work; a second call only gives more work.

        Raises:
            SparkleError: they could not start.
        """
        async with self._starting:
            if self._swarm is None:
                async with contextlib.AsyncExitStack() as stack:
                    swarm = await stack.enter_async_context(Swarm(self._net, HONEST, LIARS, first_number=2))
                    await swarm.start(self._own_address())
                    self._stack, self._swarm = stack.pop_all(), swarm
        for request in JOBS:
            await self._control.submit(request)

    async def stop(self) -> None:
        """End the peers. Idempotent."""
        self._swarm = None
        await self._stack.aclose()

    def _own_address(self) -> str:
        """An address of ours that local processes can dial; loopback first."""
        view = self._control.view()
        dialable = [address for address in view.addresses if "/tcp/" in address]
        if not dialable:
            raise ConfigError("the node has no address to join yet; try again in a moment")
        dialable.sort(key=lambda address: not address.startswith("/ip4/127."))
        return with_peer(dialable[0], view.peer_id)
