"""A node or a peer that was suspended: nobody is accused, and connections that died are let go."""

import asyncio
import json
import signal
import threading
from contextlib import suppress

import pytest

from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.net.libp2p import gossip, rpc, sessions, wakeful
from sparkle_p2p.net.libp2p.frames import PROTOCOL_ID, Hello, Kind, encode, encode_hello
from sparkle_p2p.net.libp2p.host import BROKEN
from sparkle_p2p.net.overlay import MAX_REQUEST_BYTES
from sparkle_protocol.errors import PeerUnreachable

TOPIC = "/sparkle/test/jobs/1"
HELLO = encode_hello(Hello("test", "peer/1", (), GenesisRecord("test").digest))


def freeze(node, seconds):
    """Have the node's whole network thread stand still. Returns when it does."""
    standing, loop = asyncio.Event(), asyncio.get_running_loop()
    thread, _service = node.overlay._running()

    def stand_still():
        loop.call_soon_threadsafe(standing.set)
        threading.Event().wait(seconds)

    thread.post(stand_still)
    return standing.wait()


async def test_what_arrives_while_we_sleep_is_in_time(real_world, hostile, monkeypatch):
    monkeypatch.setattr(rpc, "FRAME_TIMEOUT_S", 1.5)
    monkeypatch.setattr(sessions, "GREETING_TIMEOUT_S", 1.5)
    node = await real_world.node()
    request = encode(1, Kind.REQUEST, b"question")

    async def open_streams(host):
        transport, peer = node.address.rsplit("/p2p/", 1)
        await host.dial(peer, [transport], 5.0)
        late = await host.new_stream(peer, PROTOCOL_ID)
        half = await host.new_stream(peer, PROTOCOL_ID)
        await half.write(HELLO + request[:-3])
        await half.read(1000)  # their hello: both streams are being read
        return late, half

    async def go_on(_host, late, half):
        await late.write(HELLO)
        await half.write(request[-3:])

    async def answers(_host, late, half):
        return await late.read(1000), await half.read(1000)

    streams = await hostile.run(open_streams)
    await freeze(node, 3.0)
    await hostile.run(go_on, *streams)
    hello, answer = await hostile.run(answers, *streams)
    assert b"test/1" in hello
    assert answer == encode(1, Kind.REPLY, b"re:question")
    assert node.violations == []
    assert node.peers == [hostile.identity.peer_id]


async def test_connections_that_did_not_survive_our_sleep_are_let_go_at_once(real_world, hostile, monkeypatch):
    import trio

    monkeypatch.setattr(wakeful, "NAP_S", 1.5)
    monkeypatch.setattr(sessions, "WAKE_PING_TIMEOUT_S", 2.0)
    node, friend = await real_world.pair()

    async def greet_and_fall_silent(host):
        async def serve(stream):
            await stream.read(4096)
            await stream.write(HELLO)
            await trio.sleep_forever()

        host.set_stream_handler(PROTOCOL_ID, serve)

    await hostile.run(greet_and_fall_silent)
    (bound,) = hostile.host.bound()
    address = f"{bound}/p2p/{hostile.identity.peer_id}"
    gone = await node.overlay.connect(address)
    await node.until(lambda: gone in node.peers, "the peer is up")
    await freeze(node, 2.0)
    await node.until(lambda: bool(node.down), "the dead connection is found", timeout_s=10.0)
    assert node.down == [(gone, "the connection did not survive the sleep of this machine")]
    assert node.peers == [friend.id]
    assert node.violations == friend.violations == []
    assert await node.overlay.request(friend.id, b"x") == b"re:x"
    assert await node.overlay.connect(address) == gone


async def test_what_piled_up_while_we_slept_is_held_against_nobody(real_world, hostile, monkeypatch):
    import trio

    monkeypatch.setattr(wakeful, "NAP_S", 1.5)
    monkeypatch.setattr(gossip, "AUTHOR_BURST", 30.0)
    monkeypatch.setattr(gossip, "AUTHOR_PER_S", 0.1)
    node, friend = await real_world.pair()
    for each in (node, friend):
        await each.overlay.subscribe(TOPIC)

    async def meshed():
        await friend.overlay.publish(TOPIC, b"first")
        return bool(node.gossip)

    await node.eventually(meshed, "the mesh stands")
    node.gossip.clear()
    transport, peer = node.address.rsplit("/p2p/", 1)
    await hostile.run(lambda host: host.dial(peer, [transport], 5.0))

    async def open_one(host):
        with suppress(*BROKEN):
            await (await host.new_stream(peer, PROTOCOL_ID)).write(HELLO)

    async def open_many(host):
        async with trio.open_nursery() as nursery:
            for _ in range(sessions.MAX_STREAMS_PER_PEER + 3):
                nursery.start_soon(open_one, host)

    await freeze(node, 2.5)
    opening = asyncio.ensure_future(hostile.run(open_many))
    for number in range(60):
        await friend.overlay.publish(TOPIC, b"%d" % number)
    await opening
    _thread, service = node.overlay._running()

    async def too_much_arrived():
        return bool(service._gossip._authors._buckets[friend.id].refused)

    await node.eventually(too_much_arrived, "what was sent meanwhile arrives, faster than the limit")
    assert await friend.overlay.request(node.id, b"x") == b"re:x"
    assert node.violations == []


async def test_a_process_that_is_stopped_and_goes_on_is_welcome_again(real_world, spawn):
    node = await real_world.node()
    process = await spawn("test")
    address = (await process.tells("addresses"))[0]
    peer = await node.overlay.connect(address)
    await process.tells("up")
    process.process.send_signal(signal.SIGSTOP)
    try:
        big = bytes(MAX_REQUEST_BYTES)
        waiting = [node.overlay.request(peer, big, timeout_s=60) for _ in range(12)]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        process.process.send_signal(signal.SIGCONT)
    assert all(isinstance(outcome, PeerUnreachable) for outcome in outcomes)
    assert any("it stopped reading" in str(outcome) for outcome in outcomes)

    accused = None

    async def served_again():
        nonlocal accused
        try:
            await node.overlay.connect(address)
            accused = json.loads(await node.overlay.request(peer, b"violations", timeout_s=5))
        except PeerUnreachable:
            return False
        return True

    await node.eventually(served_again, "the process serves us again")
    assert accused == []
    assert node.violations == []


@pytest.mark.parametrize(("age_s", "known"), [(9 * 60, True), (16 * 60, False)])
async def test_what_nobody_announces_any_more_is_forgotten(real_world, age_s, known):
    provider, keeper = await real_world.pair()

    async def announced():
        await provider.overlay.provide(b"shard 7")
        return await keeper.overlay.providers(b"shard 7") == (provider.id,)

    await keeper.eventually(announced, "the provider is found")
    thread, service = keeper.overlay._running()

    async def let_time_pass():
        for records in service._routing._dht.provider_store.providers.values():
            for record in records.values():
                record.timestamp -= age_s

    await provider.overlay.stop()
    await keeper.until(lambda: not keeper.peers, "the provider is gone")
    await thread.call(let_time_pass, timeout_s=5)
    assert await keeper.overlay.providers(b"shard 7") == ((provider.id,) if known else ())
