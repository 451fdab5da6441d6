"""A whole node that counts its gossip deliveries: ``counting_node HOME NET BOOTSTRAP``.

Says when it is ready, then answers every line on stdin with the count so far; ends with stdin or SIGTERM.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import HomeDir
from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.overlay import Overlay, OverlayEvents
from sparkle_p2p.node.node import Node
from sparkle_p2p.node.parts import libp2p_overlay
from sparkle_protocol.ids import PeerId
from tests.bench.processes import LOOPBACK


class Counted(Libp2pOverlay):
    """The production overlay; what is delivered is counted on its way."""

    deliveries = 0

    async def start(self, handler: Callable[[PeerId, bytes], Awaitable[bytes]], events: OverlayEvents) -> None:
        """As ever, with the counter in front."""
        deliver = events.gossip

        def counted(topic: str, author: PeerId, payload: bytes) -> None:
            Counted.deliveries += 1
            deliver(topic, author, payload)

        events.gossip = counted
        await super().start(handler, events)


def counting(config: NodeConfig, home: HomeDir) -> Overlay:
    """Instead of the production overlay."""
    overlay = libp2p_overlay(config, home)
    overlay.__class__ = Counted
    return overlay


async def main(home: HomeDir, config: NodeConfig) -> None:
    """Run the node and answer."""
    node = Node(config, home, overlay_factory=counting)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, node.stop)
    async with asyncio.TaskGroup() as group:
        group.create_task(node.run())
        await node.wait_ready()
        print(json.dumps({"ready": True}), flush=True)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        group.create_task(_answer(reader, node))


async def _answer(reader: asyncio.StreamReader, node: Node) -> None:
    while await reader.readline():
        print(json.dumps({"gossip": Counted.deliveries}), flush=True)
    node.stop()


if __name__ == "__main__":
    folder, net, bootstrap = sys.argv[1:]
    with HomeDir.open(Path(folder)) as opened:
        chosen = NodeConfig(Path(folder), net=net, listen=(LOOPBACK,), bootstrap=(bootstrap,))
        asyncio.run(main(opened, chosen))
