"""go-libp2p and js-libp2p connect to a node and use what every libp2p peer offers, and the node's gossip."""

import asyncio
import hashlib

import pytest

from sparkle_p2p import __version__
from sparkle_protocol.messages import decode_announcement, jobs_topic
from sparkle_protocol.work.submitter import shard_key
from tests.interop.event_log import WAIT_S
from tests.interop.foreign_peer import RPC_PROTOCOL, ForeignPeer, ForeignPeerError, answer_greeting, greet
from tests.interop.sparkle_node import SparkleNode

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOPIC = jobs_topic(SparkleNode.net)
GARBAGE = b"\xc1 is no msgpack"


async def test_they_connect_identify_and_ping(node: SparkleNode, foreign: ForeignPeer) -> None:
    await foreign.dial(node.address)
    said = await foreign.identify(node.peer_id)
    await foreign.ping(node.peer_id)
    assert said.agent == f"sparkle/{__version__}"
    assert said.protocols >= {RPC_PROTOCOL, "/meshsub/1.1.0", "/ipfs/kad/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"}
    assert not node.violations(foreign.peer_id)


async def test_they_read_the_nodes_gossip_though_they_never_greet(node: SparkleNode, foreign: ForeignPeer) -> None:
    await foreign.dial(node.address)
    await foreign.subscribe(TOPIC)
    await node.submit("prime_count", start=0, stop=1_000_000)
    message = await foreign.message_from(node.peer_id)
    announcement = decode_announcement(message.data)
    assert message.topic == TOPIC
    assert "prime_count@1" in announcement.kernels
    assert node.address in announcement.addresses
    await foreign.ping(node.peer_id)  # still welcome
    assert not node.violations(foreign.peer_id)
    assert foreign.peer_id not in {peer["peer_id"] for peer in await node.peers()}  # but no peer that could work


async def test_garbage_on_the_topic_is_held_against_its_author_and_harms_nobody(
    node: SparkleNode, foreign: ForeignPeer
) -> None:
    await foreign.dial(node.address)
    await foreign.subscribe(TOPIC)
    await foreign.publish(TOPIC, GARBAGE)
    held = await node.events.wait("violation", peer=foreign.peer_id)
    assert "msgpack" in held["reason"]
    await foreign.ping(node.peer_id)
    await node.submit("collatz", start=1, stop=1_000_000)
    while "collatz@1" not in decode_announcement((await foreign.message_from(node.peer_id)).data).kernels:
        pass  # an announcement from before
    assert len(node.violations(foreign.peer_id)) == 1
