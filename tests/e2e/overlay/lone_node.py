"""A node in a process of its own: prints its address, then every peer and discovery, as JSON lines.

Arguments: network name, listening address, "mdns" or "quiet". Ends when standard input does.
"""

import asyncio
import json
import sys

from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.overlay import OverlayEvents
from sparkle_protocol.identity import Identity

violations: list[str] = []


def tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def handle(_peer: str, payload: bytes) -> bytes:
    if payload == b"hang":
        tell(hanging=True)
        await asyncio.Event().wait()
    if payload == b"violations":
        return json.dumps(violations).encode()
    return b"process:" + payload


async def main(net: str, listen: str, mdns: str) -> None:
    overlay = Libp2pOverlay(Identity.generate(), net=net, listen=[listen], agent="lone/1", mdns=mdns == "mdns")
    events = OverlayEvents(
        peer_up=lambda link: tell(up=link.peer),
        peer_down=lambda peer, reason: tell(down=peer),
        violation=lambda _peer, reason: violations.append(reason),
        discovered=lambda address, source: tell(discovered=address),
    )
    await overlay.start(handle, events)
    tell(addresses=overlay.addresses())
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await overlay.stop()


asyncio.run(main(*sys.argv[1:]))
