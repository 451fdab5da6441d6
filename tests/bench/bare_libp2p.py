"""py-libp2p as every node of its kind needs it: a host, gossipsub and Kademlia, connected to nobody."""

import json
import signal

import trio
from libp2p import new_host
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.pubsub.gossipsub import PROTOCOL_ID, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr


async def main() -> None:
    """Stand there until SIGTERM."""
    host = new_host()
    router = GossipSub([PROTOCOL_ID], 6, 4, 12, heartbeat_interval=1)
    pubsub = Pubsub(host, router)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with (
            host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]),
            background_trio_service(router),
            background_trio_service(pubsub),
            background_trio_service(KadDHT(host, DHTMode.SERVER)),
        ):
            await pubsub.subscribe("bench")
            print(json.dumps({"ready": True}), flush=True)
            async for _ in signals:
                return


if __name__ == "__main__":
    trio.run(main)
