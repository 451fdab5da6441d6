"""A node is given go-libp2p and js-libp2p peers as its bootstraps."""

from pathlib import Path

import pytest

from sparkle_p2p import __version__
from sparkle_protocol.messages import decode_announcement, jobs_topic
from tests.interop.foreign_peer import RPC_PROTOCOL, ForeignPeer, answer_greeting
from tests.interop.sparkle_node import SparkleNode

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOPIC = jobs_topic(SparkleNode.net)


async def test_one_that_greets_becomes_a_peer(foreign: ForeignPeer, tmp_path: Path) -> None:
    await foreign.serve(RPC_PROTOCOL)
    await foreign.subscribe(TOPIC)
    async with SparkleNode.running(tmp_path, "--bootstrap", foreign.address) as node:
        _, net, agent, addresses = await answer_greeting(foreign, node.net)
        assert (net, agent) == (node.net, f"sparkle/{__version__}")
        assert node.address in addresses
        up = await node.events.wait("peer_up", peer=foreign.peer_id)
        assert up["direction"] == "out"
        assert [peer["peer_id"] for peer in await node.peers()] == [foreign.peer_id]
        await foreign.ping(node.peer_id)
        assert (await foreign.identify(node.peer_id)).agent == agent
        await node.submit("prime_count", start=0, stop=1_000_000)
        assert decode_announcement((await foreign.message_from(node.peer_id)).data).kernels == ["prime_count@1"]
        assert not node.violations(foreign.peer_id)


async def test_one_that_knows_no_sparkle_is_named_and_not_punished(foreign: ForeignPeer, tmp_path: Path) -> None:
    await foreign.subscribe(TOPIC)
    async with SparkleNode.running(tmp_path, "--bootstrap", foreign.address) as node:
        tried = await node.events.wait("bootstrap_unreachable", address=foreign.address)
        assert "is not a Sparkle peer" in tried["reason"]
        assert not node.violations(foreign.peer_id)
        await foreign.gone(node.peer_id)
        await foreign.dial(node.address)
        tries = len(node.events.all("bootstrap_unreachable"))
        await node.events.wait("bootstrap_unreachable", attempt=tries + 1)  # the node greets again, over their dial
        await node.submit("prime_count", start=0, stop=1_000_000)
        assert decode_announcement((await foreign.message_from(node.peer_id)).data).kernels == ["prime_count@1"]
        await foreign.ping(node.peer_id)
        assert not node.violations(foreign.peer_id)
