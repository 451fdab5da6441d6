"""gossipsub v1.1 behind our limits.

Every topic gets a synchronous validator (an asynchronous one crashes py-libp2p's service): size, and a
token bucket per author and per forwarder. Scoring and spam protection of the library stay off; these
limits take their place.
"""

import logging
import time
from collections.abc import Awaitable, Callable

import trio
from libp2p.abc import INetConn, INetwork, ISubscriptionAPI
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID, PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from sparkle_p2p.net.libp2p.host import Host, Notifee, is_closing
from sparkle_p2p.net.libp2p.limits import RateLimiter
from sparkle_p2p.net.libp2p.sink import Sink
from sparkle_p2p.net.libp2p.wakeful import wakeful_clock
from sparkle_p2p.net.overlay import MAX_GOSSIP_BYTES
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import PeerId, key_from_peer_id

logger = logging.getLogger("sparkle.net")

AUTHOR_PER_S, AUTHOR_BURST = 5.0, 100.0  # the network's budget is one delivery per second and node
FORWARDER_PER_S, FORWARDER_BURST = 50.0, 500.0  # a mesh neighbour passes on what many authors write
MAX_RPC_BYTES = 256 << 10  # one gossipsub frame: messages, subscriptions and control together


class Gossip(Notifee):
    """Topics of one node."""

    def __init__(self, host: Host, sink: Sink) -> None:
        self._own = host.peer
        self._sink = sink
        self._clock = wakeful_clock()
        self._authors = RateLimiter(AUTHOR_PER_S, AUTHOR_BURST)
        self._forwarders = RateLimiter(FORWARDER_PER_S, FORWARDER_BURST)
        self._router = GossipSub(
            protocols=[PROTOCOL_ID_V11, PROTOCOL_ID],
            degree=6,
            degree_low=4,
            degree_high=12,
            heartbeat_interval=1,
            gossip_window=3,
            gossip_history=5,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
            adaptive_gossip_enabled=False,
        )
        self._pubsub = Pubsub(host.raw, self._router, strict_signing=True, max_inbound_rpc_size=MAX_RPC_BYTES)
        forget_all = self._pubsub._forget_all_subscriptions

        def forget_if_gone(peer: ID) -> None:
            if host.is_connected(PeerId(str(peer))):
                self._pubsub._replayed_recent_topics.pop(peer, None)  # the next stream repeats what this one lost
            else:
                forget_all(peer)

        # A peer announces its topics once per connection. The library forgets them when a stream of ours to a
        # peer breaks, also if the peer is still (or again) connected, and would never send it anything more.
        vars(self._pubsub)["_forget_all_subscriptions"] = forget_if_gone
        host.network.register_notifee(self)

    async def run(self, then: Callable[[], Awaitable[None]]) -> None:
        """Run the service around ``then``."""
        async with background_trio_service(self._router), background_trio_service(self._pubsub):
            await self._pubsub.wait_until_ready()
            await then()

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        """Drop a stream that belongs to an earlier, dead connection: the library would keep using it."""
        peer = conn.muxed_conn.peer_id
        stream = self._pubsub.peers.get(peer)
        if stream is not None and is_closing(stream):
            del self._pubsub.peers[peer]
            self._pubsub.peer_queues.pop(peer).close()
            self._router.remove_peer(peer)

    async def subscribe(self, topic: str, nursery: trio.Nursery) -> None:
        """Deliver the topic's messages to the sink from now on."""
        if topic in self._pubsub.topic_ids:
            return
        self._pubsub.set_topic_validator(topic, self._acceptable, False)
        subscription = await self._pubsub.subscribe(topic)
        nursery.start_soon(self._deliver, topic, subscription)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Hand a message to the mesh."""
        await self._pubsub.publish(topic, payload)

    async def _deliver(self, topic: str, subscription: ISubscriptionAPI) -> None:
        while True:
            message = await subscription.get()
            author = PeerId(str(ID(message.from_id)))
            if author != self._own:
                self._sink.gossip(topic, author, message.data)

    def _acceptable(self, forwarder: ID, message: rpc_pb2.Message) -> bool:
        """Validator: never raises, since that would end the pubsub service."""
        sender = PeerId(str(forwarder))
        if sender == self._own:
            return True
        author = PeerId(str(ID(message.from_id)))
        try:
            key_from_peer_id(author)
        except RemoteProtocolError:
            return False
        if len(message.data) > MAX_GOSSIP_BYTES:
            self._sink.violation(author, f"it gossips {len(message.data)} bytes, more than the limit")
            return False
        now = time.monotonic()
        for limiter, peer in ((self._authors, author), (self._forwarders, sender)):
            if not limiter.allow(peer, now):
                # After a sleep all that was sent meanwhile arrives at once.
                if limiter.first_refusal(peer) and not self._clock.settling:
                    self._sink.violation(peer, "it gossips faster than the limit")
                return False
        return True
