"""A node is given peers of other implementations as its bootstraps: one that speaks Sparkle, one that does not."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from sparkle_p2p import __version__
from sparkle_protocol.messages import decode_announcement, jobs_topic
from tests.interop.conftest import KINDS
from tests.interop.foreign_peer import RPC_PROTOCOL, ForeignPeer, answer_greeting
from tests.interop.sparkle_node import SparkleNode

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOPIC = jobs_topic(SparkleNode.net)


@dataclass(frozen=True)
class Meeting:
    """A node that has just begun to dial two foreign peers."""

    node: SparkleNode
    greeter: ForeignPeer  # serves /sparkle/rpc/1
    stranger: ForeignPeer  # does not


@pytest_asyncio.fixture(scope="module", params=KINDS, loop_scope="module")
async def meeting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Meeting]:
    kind = KINDS[request.param]
    async with (
        kind.running(tmp_path_factory.mktemp("greeter")) as greeter,
        kind.running(tmp_path_factory.mktemp("stranger")) as stranger,
    ):
        await greeter.serve(RPC_PROTOCOL)
        for peer in (greeter, stranger):
            await peer.subscribe(TOPIC)
        bootstraps = ("--bootstrap", greeter.address, "--bootstrap", stranger.address)
        async with SparkleNode.running(tmp_path_factory.mktemp("node"), *bootstraps) as node:
            yield Meeting(node, greeter, stranger)


async def test_one_that_greets_becomes_a_peer(meeting: Meeting) -> None:
    node, foreign = meeting.node, meeting.greeter
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


async def test_one_that_knows_no_sparkle_is_named_and_stays_welcome_as_a_guest(meeting: Meeting) -> None:
    node, foreign = meeting.node, meeting.stranger
    tried = await node.events.wait("bootstrap_unreachable", address=foreign.address)
    assert "is not a Sparkle peer" in tried["reason"]
    await foreign.hang_up(node.peer_id)  # it may have called back already
    await foreign.dial(node.address)
    tries = len(node.events.all("bootstrap_unreachable", address=foreign.address))
    # The node tries its bootstrap again. Finding it connected it greets over that connection, which must survive.
    await node.events.wait("bootstrap_unreachable", address=foreign.address, attempt=tries + 1)
    await node.submit("collatz", start=1, stop=1_000_000)
    while "collatz@1" not in decode_announcement((await foreign.message_from(node.peer_id)).data).kernels:
        pass  # an announcement from before
    await foreign.ping(node.peer_id)
    assert not node.violations(foreign.peer_id)
