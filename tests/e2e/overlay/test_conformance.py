"""What every overlay promises (``sparkle_p2p.net.overlay``), held against both implementations."""

import asyncio
import hashlib
from itertools import pairwise

import base58
import pytest

from sparkle_p2p.net.overlay import MAX_GOSSIP_BYTES, MAX_PENDING_PER_PEER, MAX_REQUEST_BYTES, OTHER_GENESIS
from sparkle_protocol.errors import (
    ConfigError,
    LocalProtocolError,
    OverlayDown,
    PeerFailed,
    PeerUnreachable,
    RemoteProtocolError,
    RequestTimeout,
    TransportError,
)
from sparkle_protocol.identity import Identity

TOPIC = "/sparkle/test/jobs/1"


async def test_both_ends_learn_of_a_connection(world):
    one, other = await world.pair()
    (out,), (into,) = one.overlay.links(), other.overlay.links()
    assert (out.peer, out.direction, out.agent) == (other.id, "out", "test/1")
    assert (into.peer, into.direction, into.agent) == (one.id, "in", "test/1")
    assert out.addresses == other.overlay.addresses()
    assert into.addresses == one.overlay.addresses()
    assert out.latency_ms is not None


async def test_connecting_twice_keeps_one_link(world):
    one, other = await world.pair()
    assert await one.overlay.connect(other.address) == other.id
    assert await other.overlay.connect(one.address) == one.id
    await one.overlay.connect_peer(other.id)
    assert one.peers == [other.id]
    assert len(one.up) == len(other.up) == 1


async def test_connecting_at_the_same_time_from_both_ends(world):
    one, other = await world.node(), await world.node()
    await asyncio.gather(
        one.overlay.connect(other.address), other.overlay.connect(one.address), one.overlay.connect(other.address)
    )
    assert await one.overlay.request(other.id, b"x") == b"re:x"
    assert await other.overlay.request(one.id, b"y") == b"re:y"
    assert one.peers == [other.id]
    assert other.peers == [one.id]


async def test_addresses_are_dialable_and_end_in_the_peer_id(world):
    node = await world.node(listen=("/ip4/0.0.0.0/tcp/0",))
    guest = await world.node()
    assert any(address.startswith("/ip4/127.0.0.1/tcp/") for address in node.overlay.addresses())
    assert all(address.endswith(f"/p2p/{node.id}") for address in node.overlay.addresses())
    assert not any("/0.0.0.0/" in address or "/tcp/0/" in address for address in node.overlay.addresses())
    await guest.overlay.connect(node.overlay.addresses()[-1])


async def test_our_own_address_is_refused(world):
    node = await world.node()
    with pytest.raises(ConfigError, match="own address"):
        await node.overlay.connect(node.address)


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "/ip4/127.0.0.1/tcp/4001", "/ip4/300.1.1.1/tcp/1/p2p/{id}", "/ip4/127.0.0.1/tcp/99999/p2p/{id}"],
)
async def test_what_is_not_an_address_is_refused(world, address):
    node = await world.node()
    with pytest.raises(ConfigError, match="address"):
        await node.overlay.connect(address.format(id=Identity.generate().peer_id))


async def test_somebody_else_behind_the_address(world):
    one, other = await world.node(), await world.node()
    wrong = other.address.replace(other.id, Identity.generate().peer_id)
    with pytest.raises(PeerUnreachable, match="somebody else"):
        await one.overlay.connect(wrong)
    assert one.peers == []


async def test_nobody_behind_the_address(world):
    one, other = await world.node(), await world.node()
    address = other.address
    await other.overlay.stop()
    with pytest.raises(TransportError, match="nobody answers"):
        await one.overlay.connect(address, timeout_s=3.0)


async def test_requests_and_replies(world):
    one, other = await world.pair()
    assert await one.overlay.request(other.id, b"ping") == b"re:ping"
    assert await other.overlay.request(one.id, b"pong") == b"re:pong"
    assert await one.overlay.request(other.id, b"") == b"re:"


async def test_asking_ourselves_is_served_locally(world):
    node = await world.node()
    assert await node.overlay.request(node.id, b"me") == b"re:me"


async def test_the_largest_request_and_reply(world):
    one, other = await world.pair()

    async def reverse(_peer, payload):
        return payload[::-1]

    other.handler = reverse
    payload = hashlib.shake_128(b"seed").digest(MAX_REQUEST_BYTES)
    assert await one.overlay.request(other.id, payload) == payload[::-1]


async def test_an_oversized_request_is_our_own_bug(world):
    one, other = await world.pair()
    with pytest.raises(LocalProtocolError):
        await one.overlay.request(other.id, bytes(MAX_REQUEST_BYTES + 1))
    with pytest.raises(LocalProtocolError):
        await one.overlay.publish(TOPIC, bytes(MAX_GOSSIP_BYTES + 1))
    for key in (b"", b"x", bytes(51)):
        with pytest.raises(LocalProtocolError):
            await one.overlay.closest(key, 1)


async def test_an_oversized_reply_fails_that_request_only(world):
    one, other = await world.pair()

    async def too_much(_peer, payload):
        return bytes(MAX_REQUEST_BYTES + 1) if payload == b"big" else payload

    other.handler = too_much
    with pytest.raises(PeerFailed):
        await one.overlay.request(other.id, b"big")
    assert await one.overlay.request(other.id, b"ok") == b"ok"


async def test_concurrent_requests_overtake_each_other(world):
    one, other = await world.pair()
    release = asyncio.Event()

    async def slow_or_fast(_peer, payload):
        if payload == b"slow":
            await release.wait()
        return payload

    other.handler = slow_or_fast
    slow = asyncio.ensure_future(one.overlay.request(other.id, b"slow"))
    fast = await asyncio.gather(*(one.overlay.request(other.id, b"%d" % i) for i in range(50)))
    assert fast == [b"%d" % i for i in range(50)]
    assert not slow.done()
    release.set()
    assert await slow == b"slow"


async def test_a_slow_peer_does_not_pile_up_requests(world):
    one, other = await world.pair()
    release = asyncio.Event()

    async def hang(_peer, payload):
        await release.wait()
        return payload

    other.handler = hang
    waiting = [asyncio.ensure_future(one.overlay.request(other.id, b"x")) for _ in range(MAX_PENDING_PER_PEER)]
    await asyncio.wait(waiting, timeout=0)
    with pytest.raises(PeerUnreachable, match="unanswered"):
        await one.overlay.request(other.id, b"one too many")
    release.set()
    assert await asyncio.gather(*waiting) == [b"x"] * MAX_PENDING_PER_PEER
    assert await one.overlay.request(other.id, b"y") == b"y"


async def test_a_handler_that_refuses_records_a_violation(world):
    one, other = await world.pair()

    async def refuse(_peer, _payload):
        raise RemoteProtocolError("the job id is missing")

    other.handler = refuse
    with pytest.raises(RemoteProtocolError, match="the job id is missing"):
        await one.overlay.request(other.id, b"x")
    assert other.violations == [(one.id, "the job id is missing")]
    assert other.peers == [one.id]


async def test_a_handler_with_a_bug_hurts_nobody_else(world, caplog):
    one, other = await world.pair()

    async def stumble(_peer, payload):
        if payload == b"boom":
            raise ZeroDivisionError("a bug")
        return payload

    other.handler = stumble
    with pytest.raises(PeerFailed, match="failed"):
        await one.overlay.request(other.id, b"boom")
    with pytest.raises(PeerFailed, match="failed"):
        await other.overlay.request(other.id, b"boom")
    assert await one.overlay.request(other.id, b"fine") == b"fine"
    assert one.violations == other.violations == []
    assert "a bug" in caplog.text


async def test_a_handler_that_hangs_costs_the_asker_its_time_out(world):
    one, other = await world.pair()
    served = asyncio.Event()

    async def hang(_peer, payload):
        served.set()
        await asyncio.Event().wait()
        return payload

    other.handler = hang
    with pytest.raises(RequestTimeout):
        await one.overlay.request(other.id, b"x", timeout_s=0.2)
    async with asyncio.timeout(5):
        await served.wait()


async def test_asking_a_peer_without_a_connection(world):
    one, other = await world.node(), await world.node()
    with pytest.raises(PeerUnreachable):
        await one.overlay.request(other.id, b"x")
    with pytest.raises(PeerUnreachable):
        await one.overlay.connect_peer(Identity.generate().peer_id, timeout_s=2.0)


async def test_disconnecting_is_seen_at_both_ends(world):
    one, other = await world.pair()
    await one.overlay.disconnect(other.id)
    await one.until(lambda: bool(one.down), "peer_down at the end that disconnected")
    await other.until(lambda: bool(other.down), "peer_down at the other end")
    assert [peer for peer, _ in one.down] == [other.id]
    assert [peer for peer, _ in other.down] == [one.id]
    assert one.peers == other.peers == []
    await one.overlay.disconnect(other.id)  # nothing to do
    await world.link(other, one)
    assert await one.overlay.request(other.id, b"again") == b"re:again"


async def test_disconnecting_fails_what_waits_for_that_peer(world):
    one, other = await world.pair()
    served = asyncio.Event()

    async def hang(_peer, payload):
        served.set()
        await asyncio.Event().wait()
        return payload

    other.handler = hang
    waiting = asyncio.ensure_future(one.overlay.request(other.id, b"x"))
    async with asyncio.timeout(5):
        await served.wait()
    await other.overlay.disconnect(one.id)
    with pytest.raises(PeerUnreachable):
        await waiting


async def test_gossip_reaches_all_subscribers_but_the_author(world):
    nodes = [await world.node() for _ in range(4)]
    for here, there in pairwise(nodes):
        await world.link(here, there)
    for node in nodes:
        await node.overlay.subscribe(TOPIC)
    outsider = await world.node()
    await world.link(outsider, nodes[0])
    await outsider.overlay.subscribe(TOPIC + "/other")
    author, *readers = nodes
    sent = []

    async def everybody_has_one():
        sent.append(b"message %d" % len(sent))
        await author.overlay.publish(TOPIC, sent[-1])
        return all(node.gossip for node in readers)

    await author.eventually(everybody_has_one, "gossip reaches every subscriber")
    for node in readers:
        assert {(topic, peer) for topic, peer, _ in node.gossip} == {(TOPIC, author.id)}
        payloads = [payload for _, _, payload in node.gossip]
        assert set(payloads) <= set(sent)
        assert len(payloads) == len(set(payloads)), "each message is delivered once"
    assert author.gossip == []
    assert outsider.gossip == []


async def test_closest_peers_are_ordered_by_distance(world):
    nodes = [await world.node() for _ in range(4)]
    for here, there in pairwise(nodes):
        await world.link(here, there)
    key = b"a job id of thirty-two bytes...."

    def distance(peer):
        place = int.from_bytes(hashlib.sha256(key).digest(), "big")
        return place ^ int.from_bytes(hashlib.sha256(base58.b58decode(peer)).digest(), "big")

    expected = tuple(sorted((node.id for node in nodes), key=distance))

    async def all_found():
        return await nodes[0].overlay.closest(key, 8) == expected

    await nodes[0].eventually(all_found, "the lookup finds all peers")
    assert await nodes[0].overlay.closest(key, 2) == expected[:2]


async def test_alone_we_are_the_closest(world):
    node = await world.node()
    assert await node.overlay.closest(b"key", 3) == (node.id,)
    await node.overlay.provide(b"key")
    assert await node.overlay.providers(b"key") == (node.id,)


async def test_providers_are_found_and_can_be_connected(world):
    provider, middle, seeker = [await world.node() for _ in range(3)]
    await world.link(provider, middle)
    await world.link(seeker, middle)
    found = ()

    async def announced_and_found():
        nonlocal found
        await provider.overlay.provide(b"shard 7")
        found = await seeker.overlay.providers(b"shard 7")
        return bool(found)

    await seeker.eventually(announced_and_found, "the provider is found")
    assert found == (provider.id,)
    assert await seeker.overlay.providers(b"shard 8") == ()
    await seeker.overlay.connect_peer(provider.id)
    assert await seeker.overlay.request(provider.id, b"x") == b"re:x"


async def test_networks_do_not_mix(world):
    one, other = await world.node(), await world.node(net="elsewhere")
    with pytest.raises(PeerUnreachable, match="network 'elsewhere'"):
        await one.overlay.connect(other.address)
    await other.until(lambda: (one.id, "wrong network") in other.violations, "the violation is recorded")
    assert (other.id, "wrong network") in one.violations
    assert one.peers == other.peers == []
    assert one.up == other.up == []
    assert await one.overlay.closest(b"key", 3) == (one.id,)


async def test_one_name_with_two_genesis_records_is_two_networks(world):
    one, same, other = [await world.node(genesis=digest) for digest in ("a" * 64, "a" * 64, "b" * 64)]
    with pytest.raises(PeerUnreachable, match=OTHER_GENESIS):
        await other.overlay.connect(one.address)
    await one.until(lambda: (other.id, OTHER_GENESIS) in one.violations, "the violation is recorded")
    assert (one.id, OTHER_GENESIS) in other.violations
    await world.link(same, one)
    assert one.peers == [same.id]
    assert other.peers == other.up == []


async def test_stopping_fails_pending_calls_and_is_seen(world):
    one, other = await world.pair()
    served = asyncio.Event()

    async def hang(_peer, payload):
        served.set()
        await asyncio.Event().wait()
        return payload

    other.handler = hang
    waiting = asyncio.ensure_future(one.overlay.request(other.id, b"x"))
    async with asyncio.timeout(5):
        await served.wait()
    async with asyncio.timeout(3):
        await one.overlay.stop()
    with pytest.raises(OverlayDown):
        await waiting
    await other.until(lambda: bool(other.down), "the other end notices")
    with pytest.raises(OverlayDown):
        await one.overlay.request(other.id, b"x")
    await one.overlay.stop()  # idempotent
    assert one.overlay.addresses() == ()


async def test_starting_again_after_a_stop(world):
    one, other = await world.pair()
    await one.overlay.stop()
    await one.start()
    await world.link(one, other)
    assert await one.overlay.request(other.id, b"x") == b"re:x"


async def test_a_port_in_use_is_named(world):
    one = await world.node()
    address = one.address.split("/p2p/")[0]
    second = world.make(listen=(address,))
    with pytest.raises(ConfigError, match=r"in use"):
        await second.start()
    assert await one.overlay.request(one.id, b"x") == b"re:x"


@pytest.mark.parametrize("listen", ["/ip4/1.2.3.4", "tcp/80", "/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1/tcp/70000"])
async def test_a_bad_listening_address_is_refused(world, listen):
    with pytest.raises(ConfigError, match="listen"):
        world.make(listen=(listen,))


@pytest.mark.parametrize("net", ["", "x" * 65, "line\nbreak"])
async def test_a_bad_network_name_is_refused(world, net):
    with pytest.raises(ConfigError, match="network name"):
        world.make(net=net)


async def test_other_forms_of_addresses(world):
    node, guest = await world.node(listen=("/ip6/::1/tcp/0", "/ip4/127.0.0.1/tcp/0")), await world.node()
    (ipv6,) = [address for address in node.overlay.addresses() if address.startswith("/ip6/")]
    await guest.overlay.connect(ipv6)
    assert await guest.overlay.request(node.id, b"6") == b"re:6"


async def test_nothing_works_before_the_start(world):
    node = world.make()
    assert node.overlay.addresses() == ()
    assert node.overlay.links() == ()
    with pytest.raises(OverlayDown):
        await node.overlay.closest(b"key", 1)
    await node.overlay.stop()
