"""A node is given peers of other implementations as its bootstraps: some speak Sparkle, some do not."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from sparkle_p2p import __version__
from sparkle_protocol.messages import decode_announcement, jobs_topic
from tests.interop.conftest import KINDS
from tests.interop.foreign_peer import RPC_PROTOCOL, ForeignPeer, answer_greeting, default_genesis
from tests.interop.sparkle_node import SparkleNode

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOPIC = jobs_topic(SparkleNode.net)


@dataclass(frozen=True)
class Meeting:
    """A node that has just begun to dial three foreign peers."""

    node: SparkleNode
    greeter: ForeignPeer  # serves /sparkle/rpc/1
    stranger: ForeignPeer  # does not
    guest: ForeignPeer  # neither, and the node has a wrong address of it
    guest_address: str


@pytest_asyncio.fixture(scope="module", params=KINDS, loop_scope="module")
async def meeting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Meeting]:
    start = KINDS[request.param].running
    folders = [tmp_path_factory.mktemp(name) for name in ("greeter", "stranger", "guest", "node")]
    async with start(folders[0]) as greeter, start(folders[1]) as stranger, start(folders[2]) as guest:
        await greeter.serve(RPC_PROTOCOL)
        await greeter.subscribe(TOPIC)
        nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{guest.peer_id}"
        bootstraps = [
            flag for address in (greeter.address, stranger.address, nobody) for flag in ("--bootstrap", address)
        ]
        async with SparkleNode.running(folders[3], *bootstraps) as node:
            yield Meeting(node, greeter, stranger, guest, nobody)


async def test_one_that_greets_becomes_a_peer(meeting: Meeting) -> None:
    node, foreign = meeting.node, meeting.greeter
    _, net, agent, addresses, genesis = await answer_greeting(foreign, node.net)
    assert (net, agent, genesis) == (node.net, f"sparkle/{__version__}", default_genesis(node.net))
    assert node.address in addresses
    up = await node.events.wait("peer_up", peer=foreign.peer_id)
    assert up["direction"] == "out"
    assert [peer["peer_id"] for peer in await node.peers()] == [foreign.peer_id]
    await foreign.ping(node.peer_id)
    assert (await foreign.identify(node.peer_id)).agent == agent
    await node.submit("prime_count", start=0, stop=1_000_000)
    assert decode_announcement((await foreign.message_from(node.peer_id)).data).kernels == ["prime_count@1"]
    assert not node.violations(foreign.peer_id)


async def test_one_that_knows_no_sparkle_is_named_and_not_punished(meeting: Meeting) -> None:
    node, foreign = meeting.node, meeting.stranger
    tried = await node.events.wait("bootstrap_unreachable", address=foreign.address)
    assert "is not a Sparkle peer" in tried["reason"]
    assert not node.violations(foreign.peer_id)


async def test_a_guest_whom_the_node_greets_in_vain_stays_welcome(meeting: Meeting) -> None:
    node, foreign = meeting.node, meeting.guest
    await foreign.subscribe(TOPIC)
    await foreign.dial(node.address)
    # The node goes on trying the address that it has. Finding the peer connected it greets it over that connection.
    for attempt in itertools.count(1):
        tried = await node.events.wait("bootstrap_unreachable", address=meeting.guest_address, attempt=attempt)
        if "is not a Sparkle peer" in tried["reason"]:
            break
    await node.submit("collatz", start=1, stop=1_000_000)
    while "collatz@1" not in decode_announcement((await foreign.message_from(node.peer_id)).data).kernels:
        pass  # an announcement from before
    await foreign.ping(node.peer_id)
    assert not node.violations(foreign.peer_id)
