"""Peers that break the wire rules: each is refused and recorded, nobody else notices."""

import asyncio
import threading
import time

import msgpack
import pytest

from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.net.libp2p.frames import PROTOCOL_ID, Hello, Kind, encode, encode_hello
from sparkle_p2p.net.overlay import MAX_REQUEST_BYTES
from sparkle_protocol.errors import ConfigError, OverlayDown, PeerUnreachable
from sparkle_protocol.identity import Identity

GENESIS = GenesisRecord("test").digest
HELLO = encode_hello(Hello("test", "hostile/1", (), GENESIS))


def hello_of(*fields):
    return encode(0, Kind.HELLO, msgpack.packb(fields))


async def dial(host, address):
    transport, peer = address.rsplit("/p2p/", 1)
    await host.dial(peer, [transport], 5.0)
    return peer


async def say(host, address, data, finish):
    """Open a request stream, say something, and return what comes back until the stream ends."""
    from libp2p.network.stream.exceptions import StreamError

    peer = await dial(host, address)
    stream = await host.new_stream(peer, PROTOCOL_ID)
    await stream.write(data)
    if finish:
        await stream.close_write()
    got = b""
    try:
        while chunk := await stream.read(65536):
            got += chunk
    except StreamError:
        pass
    return got


BAD_STREAMS = {
    "garbage": (b"\x00\x00\x00\x20" + b"not a frame at all" * 4, "kind"),
    "http": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "larger than the limit"),
    "no hello first": (encode(1, Kind.REQUEST, b"x"), "not a hello"),
    "hello that is no msgpack": (encode(0, Kind.HELLO, b"\xc1\xc1"), "msgpack"),
    "hello of the wrong types": (hello_of("2", 3, 4, 5, 6), "fields"),
    "hello without a network": (hello_of(2, "", "x", [], GENESIS), "name"),
    "hello that is deeply nested": (encode(0, Kind.HELLO, b"\x91" * 5000), "msgpack"),
    "huge hello": (encode(0, Kind.HELLO, bytes(10000)), "larger than the limit"),
    "oversized frame": (HELLO + (2 * MAX_REQUEST_BYTES).to_bytes(4, "big"), "larger than the limit"),
    "undersized frame": (HELLO + (8).to_bytes(4, "big") + bytes(8), "too short"),
    "truncated frame": (HELLO + encode(1, Kind.REQUEST, b"half of it")[:-3], "inside a frame"),
    "truncated length": (HELLO + b"\x00\x00", "inside a frame"),
    "unknown kind": (HELLO + (9).to_bytes(4, "big") + (1).to_bytes(8, "big") + b"\x63", "unknown kind"),
    "reply from the asker": (HELLO + encode(1, Kind.REPLY, b"x"), "reply"),
    "id used twice": (HELLO + 2 * encode(1, Kind.PING), "twice"),
    "id zero": (HELLO + encode(0, Kind.PING), "twice"),
}


@pytest.mark.parametrize("attack", BAD_STREAMS)
async def test_a_stream_that_breaks_the_format_is_reset_and_recorded(real_world, hostile, attack):
    data, complaint = BAD_STREAMS[attack]
    victim, friend = await real_world.pair()
    await hostile.run(say, victim.address, data, attack.startswith("truncated"))
    await victim.until(lambda: bool(victim.violations), "the violation is recorded")
    ((peer, reason),) = victim.violations
    assert peer == hostile.identity.peer_id
    assert complaint in reason
    assert await friend.overlay.request(victim.id, b"x") == b"re:x"
    assert victim.restarts == []


async def test_a_hello_of_another_version_ends_the_connection(real_world, hostile):
    victim = await real_world.node()
    await hostile.run(say, victim.address, hello_of(3, "test", "future/9", [], GENESIS), False)
    assert victim.up == []


@pytest.mark.parametrize(
    "protocol", ["/ipfs/kad/1.0.0", "/meshsub/1.1.0", "/ipfs/ping/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/id/1.0.0"]
)
async def test_garbage_on_libp2ps_own_streams_kills_nothing(real_world, hostile, protocol):
    victim, friend = await real_world.pair()
    await victim.overlay.subscribe("/sparkle/test/jobs/1")

    async def spam(host):
        peer = await dial(host, victim.address)
        greeting = await host.new_stream(peer, PROTOCOL_ID)
        await greeting.write(HELLO)
        await greeting.read(1)
        for junk in (b"\xff" * 64, b"\x05\x0a\x03\xff\xff\xff", b"\x20" + bytes(32)):
            stream = await host.new_stream(peer, protocol)
            await stream.write(junk)
            await stream.close()

    await hostile.run(spam)
    assert await friend.overlay.request(victim.id, b"x") == b"re:x"
    assert await victim.overlay.request(friend.id, b"y") == b"re:y"
    assert victim.restarts == []


async def test_a_plaintext_dialer_is_refused(real_world, hostile):
    victim, friend = await real_world.pair()

    async def dial_in_plaintext(_host):
        from libp2p import new_host
        from libp2p.crypto.ed25519 import create_new_key_pair
        from libp2p.peer.peerinfo import info_from_p2p_addr
        from libp2p.peer.peerstore import PeerStore
        from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
        from multiaddr import Multiaddr

        keys, store = create_new_key_pair(), PeerStore()
        insecure = {PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys, peerstore=store)}
        host = new_host(key_pair=keys, peerstore_opt=store, sec_opt=insecure)
        host.get_network().retry_config.max_retries = 0
        info = info_from_p2p_addr(Multiaddr(victim.address))
        async with host.run(listen_addrs=[]):
            try:
                await host.connect(info)
            except Exception as error:
                return f"refused: {type(error).__name__}"
        return "connected"

    assert (await hostile.run(dial_in_plaintext)).startswith("refused")
    await victim.until(lambda: (None, "127.0.0.1 connected without a Noise channel") in victim.violations, "recorded")
    assert victim.peers == [friend.id]


async def test_a_tcp_client_that_talks_nonsense_or_nothing(real_world):
    victim, friend = await real_world.pair()
    _, _, host, _, port, *_ = victim.address.split("/")
    for first in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 5000, b""):
        _reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(first)
        writer.close()
        await writer.wait_closed()
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
    assert await friend.overlay.request(victim.id, b"x") == b"re:x"
    for _reader, writer in silent:
        writer.close()


async def test_a_dialler_that_breaks_off_has_broken_no_rule(real_world):
    """Its process died or its link broke while it connected: that is nobody's fault."""
    victim, friend = await real_world.pair()
    _, _, host, _, port, *_ = victim.address.split("/")
    words = b"\x13/multistream/1.0.0\n\x07/noise\n"
    for said in (words[:7], words[:20], words[:-1]):
        _reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        writer.close()
        await writer.wait_closed()
    _reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(words[:20] + b"\x06/none\n")
    writer.close()
    await victim.until(lambda: victim.violations, "the one that wanted something else is recorded")
    assert await friend.overlay.request(victim.id, b"x") == b"re:x"
    assert victim.violations == [(None, "127.0.0.1 connected without a Noise channel")]


async def test_a_dialled_peer_that_is_no_sparkle_peer(real_world, hostile):
    node = await real_world.node()
    (bound,) = hostile.host.bound()
    with pytest.raises(PeerUnreachable, match="not a Sparkle peer"):
        await node.overlay.connect(f"{bound}/p2p/{hostile.identity.peer_id}")
    assert node.peers == []


async def greets_then(host, behaviour):
    """Serve request streams by answering the greeting and then misbehaving."""

    async def serve(stream):
        await stream.read(4096)
        await stream.write(HELLO)
        await behaviour(stream)

    host.set_stream_handler(PROTOCOL_ID, serve)


async def test_a_peer_that_answers_what_nobody_asked(real_world, hostile):
    import trio

    node = await real_world.node()

    async def answer_unasked(stream):
        await stream.write(encode(77, Kind.REPLY, b"surprise"))
        await trio.sleep_forever()

    await hostile.run(greets_then, answer_unasked)
    (bound,) = hostile.host.bound()
    await node.overlay.connect(f"{bound}/p2p/{hostile.identity.peer_id}")
    await node.until(lambda: bool(node.violations), "the violation is recorded")
    assert node.violations == [(hostile.identity.peer_id, "it answers a request that was never sent")]


async def test_an_answerer_that_stops_reading_holds_nobody_up(real_world, hostile):
    import trio

    node, friend = await real_world.pair()

    async def read_no_more(_stream):
        await trio.sleep_forever()

    await hostile.run(greets_then, read_no_more)
    (bound,) = hostile.host.bound()
    stuck = await node.overlay.connect(f"{bound}/p2p/{hostile.identity.peer_id}")
    big = bytes(MAX_REQUEST_BYTES)
    waiting = [asyncio.ensure_future(node.overlay.request(stuck, big, timeout_s=60)) for _ in range(12)]
    slowest_s = 0.0
    while not all(request.done() for request in waiting):
        started = time.monotonic()
        assert await node.overlay.request(friend.id, b"x") == b"re:x"
        slowest_s = max(slowest_s, time.monotonic() - started)
        await asyncio.wait(waiting, timeout=0.05, return_when=asyncio.ALL_COMPLETED)
    errors = [request.exception() for request in waiting]
    assert all(isinstance(error, PeerUnreachable) for error in errors)
    assert any("too slowly" in str(error) for error in errors), "no more than a fixed amount waits in memory"
    assert any("it stopped reading" in str(error) for error in errors)
    assert node.violations == [], "slow is not wrong: it may be suspended"
    assert slowest_s < 3.0, "the stalled writer is given up after 4.5 s: nobody may wait for that"


async def test_an_asker_that_stops_reading_holds_nobody_up(real_world, hostile):
    victim, friend = await real_world.pair()

    async def large(_peer, payload):
        return bytes(MAX_REQUEST_BYTES) if payload == b"large" else payload

    victim.handler = large

    async def ask_and_ignore(host):
        peer = await dial(host, victim.address)
        stream = await host.new_stream(peer, PROTOCOL_ID)
        await stream.write(HELLO)
        for number in range(1, 60):
            await stream.write(encode(number, Kind.REQUEST, b"large"))
        return stream

    stream = await hostile.run(ask_and_ignore)
    slowest_s = 0.0

    async def given_up():
        nonlocal slowest_s
        started = time.monotonic()
        assert await friend.overlay.request(victim.id, b"x") == b"x"
        slowest_s = max(slowest_s, time.monotonic() - started)
        return stream.muxed_stream.reset_received

    await friend.eventually(given_up, "the stream of the peer that does not read is reset")
    assert victim.violations == []
    assert slowest_s < 3.0, "the stalled writer is given up after 4.5 s: nobody may wait for that"


async def test_a_frozen_peer_delays_only_calls_to_itself(real_world, hostile):
    import trio

    node, friend = await real_world.pair()

    async def idle(_stream):
        await trio.sleep_forever()

    await hostile.run(greets_then, idle)
    (bound,) = hostile.host.bound()
    frozen = await node.overlay.connect(f"{bound}/p2p/{hostile.identity.peer_id}")
    thaw = threading.Event()
    hostile.post(lambda: thaw.wait(30))  # its whole event loop stands still
    try:
        asking = asyncio.ensure_future(node.overlay.request(frozen, bytes(MAX_REQUEST_BYTES), timeout_s=60))
        started = time.monotonic()
        found = await node.overlay.closest(b"some key", 8, timeout_s=5.0)
        assert time.monotonic() - started < 4.0
        assert set(found) >= {node.id, friend.id}
        assert await node.overlay.request(friend.id, b"x") == b"re:x"
        with pytest.raises(PeerUnreachable):
            await asking
        async with asyncio.timeout(3):
            await node.overlay.disconnect(frozen)
        assert node.violations == []
    finally:
        thaw.set()
    assert node.peers == [friend.id]


async def test_stopping_does_not_wait_for_a_frozen_peer(real_world, hostile):
    import trio

    node, friend = await real_world.pair()

    async def idle(_stream):
        await trio.sleep_forever()

    await hostile.run(greets_then, idle)
    (bound,) = hostile.host.bound()
    frozen = await node.overlay.connect(f"{bound}/p2p/{hostile.identity.peer_id}")
    thaw = threading.Event()
    hostile.post(lambda: thaw.wait(30))
    try:
        asking = asyncio.ensure_future(node.overlay.request(frozen, bytes(MAX_REQUEST_BYTES), timeout_s=60))
        await node.overlay.closest(b"some key", 8, timeout_s=5.0)
        async with asyncio.timeout(3):
            await node.overlay.stop()
        with pytest.raises(OverlayDown):
            await asking
        await friend.until(lambda: friend.peers == [], "the other peers see it leave")
    finally:
        thaw.set()


async def test_a_peer_that_falls_silent_is_let_go(real_world, hostile, monkeypatch):
    import trio

    from sparkle_p2p.net.libp2p import sessions

    monkeypatch.setattr(sessions, "PING_INTERVAL_S", 0.2)
    monkeypatch.setattr(sessions, "PING_TIMEOUT_S", 0.3)
    node, friend = await real_world.pair()

    async def idle(_stream):
        await trio.sleep_forever()

    await hostile.run(greets_then, idle)
    (bound,) = hostile.host.bound()
    silent = await node.overlay.connect(f"{bound}/p2p/{hostile.identity.peer_id}")
    await node.until(lambda: bool(node.down), "the silent peer is down")
    assert node.down == [(silent, "it does not answer any more")]
    await friend.eventually(lambda: latency_known(friend), "the end that was dialled measures latency too")
    assert node.peers == [friend.id]


async def latency_known(node):
    return node.overlay.links()[0].latency_ms is not None


async def test_an_unknown_peer_id_form_is_refused(real_world):
    node = await real_world.node()
    other = Identity.generate().peer_id
    for bad in (other[:-1], other + "x", "Qm" + other[2:46]):
        with pytest.raises(ConfigError):
            await node.overlay.connect(f"/ip4/127.0.0.1/tcp/4001/p2p/{bad}")
