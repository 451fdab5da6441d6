"""What goes wrong, and what it may cost: crashes, lost peers, broken wires."""

import asyncio
import time

import pytest

from sparkle_p2p.net.overlay import MAX_GOSSIP_BYTES
from sparkle_p2p.node.narrate import network_state
from sparkle_protocol.errors import LocalProtocolError, OverlayDown, PeerUnreachable, RequestTimeout
from sparkle_protocol.identity import Identity

TOPIC = "/sparkle/test/jobs/1"
LONGEST_SILENCE_S = 60.0  # until an end finds that a link is broken over which nothing comes any more


def hanging(served: asyncio.Event):
    async def hang(_peer, payload):
        if payload == b"hang":
            served.set()
            await asyncio.Event().wait()
        return payload

    return hang


async def test_a_dead_network_service_fails_calls_at_once_and_comes_back(world):
    one, other = await world.pair()
    served = asyncio.Event()
    other.handler = hanging(served)
    await one.overlay.subscribe(TOPIC)
    await other.overlay.subscribe(TOPIC)
    addresses = one.overlay.addresses()
    waiting = asyncio.ensure_future(one.overlay.request(other.id, b"hang", timeout_s=60))
    async with asyncio.timeout(5):
        await served.wait()

    killed = asyncio.get_running_loop().time()
    one.overlay.inject_crash("the test kills it")
    with pytest.raises(OverlayDown):
        await waiting
    assert asyncio.get_running_loop().time() - killed < 2.0
    await one.until(lambda: bool(one.restarts), "the service is restarted")
    assert "the test kills it" in one.restarts[0]
    assert [peer for peer, _ in one.down] == [other.id]

    assert one.overlay.addresses() == addresses
    await one.until(lambda: one.peers == [other.id], "the peer is dialled again")
    await other.until(lambda: other.peers == [one.id], "the other end has it back")
    assert await other.overlay.request(one.id, b"x") == b"re:x"

    async def subscribed_again():
        await other.overlay.publish(TOPIC, b"hello")
        return bool(one.gossip)

    await one.eventually(subscribed_again, "gossip arrives again")


async def test_a_dead_network_service_is_seen_to_be_down(world):
    one, other = await world.pair()
    served = asyncio.Event()
    other.handler = hanging(served)

    async def ask_until_down():
        with pytest.raises(OverlayDown):
            await one.overlay.request(other.id, b"hang", timeout_s=60)
        # Calls fail a moment before the thread has ended.
        while one.overlay.addresses() and not one.restarts:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0)
        return one.overlay.addresses(), network_state(one.overlay, one.overlay.links(), ready=True)

    asking = asyncio.ensure_future(ask_until_down())
    async with asyncio.timeout(5):
        await served.wait()
    one.overlay.inject_crash()
    assert await asking == ((), "down")
    await one.until(lambda: bool(one.restarts), "the service is restarted")
    assert network_state(one.overlay, one.overlay.links(), ready=True) == "connected"


async def test_dying_again_and_again_is_survived(world):
    one, other = await world.pair()
    for count in (1, 2):
        one.overlay.inject_crash(f"crash {count}")
        await one.until(lambda wanted=count: len(one.restarts) == wanted, "restarted")
        await one.until(lambda: one.peers == [other.id], "reconnected")
    assert await one.overlay.request(other.id, b"x") == b"re:x"


async def test_stopping_while_a_restart_is_under_way(world):
    one = await world.node()
    one.overlay.inject_crash("and stop at once")
    async with asyncio.timeout(4):
        await one.overlay.stop()
    await one.start()
    assert await one.overlay.request(one.id, b"x") == b"re:x"


async def test_starting_twice_is_our_own_bug(world):
    node = await world.node()
    with pytest.raises(LocalProtocolError):
        await node.start()


# -- faults that only a network in memory or a model can make to order ------------------------------------------


async def test_a_cut_link_goes_down_and_can_be_healed(faulty_world):
    one, other = await faulty_world.pair()
    faulty_world.network.cut(one.id, other.id)
    for end in (one, other):
        await end.until(lambda end=end: end.peers == [], "the link is down", LONGEST_SILENCE_S)
    with pytest.raises((PeerUnreachable, RequestTimeout)):
        await one.overlay.connect(other.address)
    faulty_world.network.heal(one.id, other.id)
    await faulty_world.link(one, other)


async def test_a_stalled_node_costs_time_outs_not_connections(faulty_world):
    one, other = await faulty_world.pair()
    faulty_world.network.stall(other.id)
    with pytest.raises(RequestTimeout):
        await one.overlay.request(other.id, b"x", timeout_s=0.05)
    faulty_world.network.unstall(other.id)
    assert await one.overlay.request(other.id, b"y") == b"re:y"
    assert one.peers == [other.id]


async def test_delay_counts_both_ways_and_against_the_time_out(faulty_world):
    one, other = await faulty_world.pair()
    faulty_world.network.set_delay(one.id, other.id, 0.02)
    started = asyncio.get_running_loop().time()
    await one.overlay.request(other.id, b"x")
    assert round(asyncio.get_running_loop().time() - started, 6) >= 0.04
    with pytest.raises(RequestTimeout):
        await one.overlay.request(other.id, b"x", timeout_s=0.03)


async def test_loss_is_the_same_for_the_same_seed(faulty_world):
    one, other = await faulty_world.pair()
    faulty_world.network.set_loss(one.id, other.id, 0.5)

    async def outcomes():
        faulty_world.network.random.seed(5)
        got = []
        for _ in range(12):
            try:
                await one.overlay.request(other.id, b"x", timeout_s=0.02)
                got.append(True)
            except RequestTimeout:
                got.append(False)
        return got

    first = await outcomes()
    assert True in first
    assert False in first
    assert await outcomes() == first


# -- faults of real processes and threads --------------------------------------------------------------


async def test_a_killed_process_is_noticed(real_world, spawn):
    node = await real_world.node()
    process = await spawn("test")
    address = (await process.tells("addresses"))[0]
    peer = await node.overlay.connect(address)
    await process.tells("up")
    waiting = asyncio.ensure_future(node.overlay.request(peer, b"hang", timeout_s=60))
    await process.tells("hanging")
    process.process.kill()
    with pytest.raises(PeerUnreachable):
        await waiting
    await node.until(lambda: [p for p, _ in node.down] == [peer], "the peer is down")
    with pytest.raises(PeerUnreachable):
        await node.overlay.connect(address, timeout_s=3.0)


@pytest.mark.parametrize("listen", ["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"])
async def test_processes_find_each_other_on_the_local_network(real_world, spawn, listen, request):
    net = f"mdns-{abs(hash(request.node.name)) % 10**8}-{time.time_ns()}"
    process = await spawn(net, listen, "mdns")
    theirs = await process.tells("addresses")
    node = await real_world.node(net=net, listen=(listen,), mdns=True)
    stranger = await real_world.node(net=net + "-other", listen=(listen,), mdns=True)
    assert await process.tells("discovered") in node.overlay.addresses()
    await node.until(lambda: bool(node.discovered), "the process is discovered")
    address, source = node.discovered[0]
    assert source == "mdns"
    assert address in theirs
    peer = await node.overlay.connect(address)
    assert await node.overlay.request(peer, b"hi") == b"process:hi"
    assert stranger.discovered == []
    assert {found for found, _ in node.discovered} <= set(theirs)


async def test_names_are_resolved_by_the_system(real_world):
    one, other = await real_world.node(), await real_world.node()
    await one.overlay.connect(other.address.replace("/ip4/127.0.0.1/", "/dns4/localhost/"))
    assert one.peers == [other.id]
    nowhere = f"/dns4/no-such-host.invalid/tcp/4001/p2p/{Identity.generate().peer_id}"
    with pytest.raises(PeerUnreachable, match=r"no-such-host\.invalid.*cannot be resolved"):
        await one.overlay.connect(nowhere)


async def test_gossip_over_the_limits_is_dropped_and_recorded(real_world):
    one, other = await real_world.pair()
    await one.overlay.subscribe(TOPIC)
    await other.overlay.subscribe(TOPIC)

    async def meshed():
        await one.overlay.publish(TOPIC, b"first")
        return bool(other.gossip)

    await other.eventually(meshed, "the mesh stands")

    async def publish_unchecked(payload):
        thread, service = one.overlay._running()
        await thread.call(service.publish, TOPIC, payload, timeout_s=5)

    await publish_unchecked(bytes(MAX_GOSSIP_BYTES + 1))
    await other.until(lambda: any("bytes" in reason for _, reason in other.violations), "size violation")
    for number in range(200):
        await publish_unchecked(b"flood %d" % number)
    await other.until(lambda: any("faster" in reason for _, reason in other.violations), "rate violation")
    assert {peer for peer, _ in other.violations} == {one.id}
    assert all(len(payload) <= MAX_GOSSIP_BYTES for _, _, payload in other.gossip)
    assert len(other.gossip) < 150
    assert await one.overlay.request(other.id, b"x") == b"re:x"
