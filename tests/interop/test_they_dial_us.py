"""go-libp2p and js-libp2p connect to a node and use what every libp2p peer offers, and the node's gossip."""

import asyncio
import hashlib

import pytest

from sparkle_p2p import __version__
from sparkle_protocol.messages import Announcement, decode_announcement, jobs_topic, shard_key, shard_of
from tests.interop.event_log import WAIT_S, Document
from tests.interop.foreign_peer import RPC_PROTOCOL, ForeignPeer, default_genesis, greet
from tests.interop.sparkle_node import SparkleNode

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOPIC = jobs_topic(SparkleNode.net)
COMMON_PROTOCOLS = {"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/meshsub/1.1.0", "/ipfs/kad/1.0.0"}
RAW_CID_V1 = b"\x01\x55"
SHA2_256 = b"\x12\x20"


async def announcement_of(node: SparkleNode, kernel: str, foreign: ForeignPeer) -> Announcement:
    """What a foreign peer reads when the node announces work for a kernel."""
    while True:
        message = await foreign.message_from(node.peer_id)
        assert message.topic == TOPIC
        announcement = decode_announcement(message.data)
        if f"{kernel}@1" in announcement.kernels:  # else it is an older one
            return announcement


async def test_they_connect_identify_and_ping(node: SparkleNode, foreign: ForeignPeer) -> None:
    await foreign.dial(node.address)
    said = await foreign.identify(node.peer_id)
    await foreign.ping(node.peer_id)
    assert said.agent == f"sparkle/{__version__}"
    assert said.protocols >= COMMON_PROTOCOLS | {RPC_PROTOCOL}
    assert not node.violations(foreign.peer_id)


async def test_they_read_the_nodes_gossip_though_they_never_greet(node: SparkleNode, foreign: ForeignPeer) -> None:
    await foreign.dial(node.address)
    await foreign.subscribe(TOPIC)
    await node.submit("prime_count", start=0, stop=1_000_000)
    announcement = await announcement_of(node, "prime_count", foreign)
    assert node.address in announcement.addresses
    await foreign.ping(node.peer_id)  # still welcome
    assert not node.violations(foreign.peer_id)
    assert foreign.peer_id not in {peer["peer_id"] for peer in await node.peers()}  # but nobody to send work to


async def test_garbage_on_the_topic_is_held_against_its_author_and_harms_nobody(
    node: SparkleNode, foreign: ForeignPeer
) -> None:
    await foreign.dial(node.address)
    await foreign.subscribe(TOPIC)
    await node.submit("collatz", start=1, stop=1_000_000)
    await announcement_of(node, "collatz", foreign)  # so both know of each other's subscription
    held = await publish_until_noticed(node, foreign, b"\xc1 is no msgpack")
    assert "msgpack" in held["reason"]
    await foreign.ping(node.peer_id)
    await node.submit("mandelbrot", width=64, height=64)
    await announcement_of(node, "mandelbrot", foreign)


async def publish_until_noticed(node: SparkleNode, author: ForeignPeer, data: bytes) -> Document:
    """The violation that follows. What is published before the author's mesh has formed may be lost."""
    for _ in range(3):
        await author.publish(TOPIC, data)
        noticed = await node.events.came(1.0, "violation", peer=author.peer_id)
        if noticed is not None:
            return noticed
    return await node.events.wait("violation", peer=author.peer_id)


async def test_they_find_the_keeper_of_a_kernels_jobs(node: SparkleNode, foreign: ForeignPeer) -> None:
    job = await node.submit("prime_count", start=0, stop=1_000_000)
    await foreign.dial(node.address)
    hello = await greet(foreign, node.peer_id, node.net)  # nodes look up for peers of theirs only
    _, net, agent, addresses, genesis = hello
    assert (net, agent, genesis) == (node.net, f"sparkle/{__version__}", default_genesis(node.net))
    assert node.address in addresses
    up = await node.events.wait("peer_up", peer=foreign.peer_id)
    assert up["direction"] == "in"
    key = shard_key(node.net, "prime_count@1", shard_of(bytes.fromhex(job)))
    multihash = SHA2_256 + hashlib.sha256(key).digest()
    async with asyncio.timeout(WAIT_S):
        while node.peer_id not in await foreign.find_providers(RAW_CID_V1 + multihash):
            pass  # it first has to take the node into its routing table, which go does in the background
    assert not node.violations(foreign.peer_id)
