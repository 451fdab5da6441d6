"""Private networks over real libp2p: members meet, and whoever has another key or none hears nothing."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

import pytest

from sparkle_p2p.net.libp2p.private import NONCE_BYTES
from sparkle_p2p.network_key import NetworkKey
from sparkle_protocol.errors import PeerUnreachable

TOPIC = "/sparkle/test/jobs/1"
REFUSED_S = 3.0  # less than the time that libp2p gives a handshake: nobody waits for that


async def test_members_ask_and_gossip_in_both_directions(real_world):
    key = NetworkKey.generate()
    one, two, three = [await real_world.node(network_key=key) for _ in range(3)]
    for dialler, other in ((one, two), (three, two)):
        await real_world.link(dialler, other)
    assert await one.overlay.request(two.id, b"x") == b"re:x"
    assert await two.overlay.request(one.id, b"y" * 300_000) == b"re:" + b"y" * 300_000
    for node in (one, two, three):
        await node.overlay.subscribe(TOPIC)

    async def arrived() -> bool:
        await one.overlay.publish(TOPIC, b"to all")
        return (TOPIC, one.id, b"to all") in three.gossip

    await three.eventually(arrived, "gossip through a third member")
    assert await one.overlay.closest(b"a key", 2)
    assert not one.violations + two.violations + three.violations


@pytest.mark.parametrize("stranger", ["no key", "another key"])
@pytest.mark.parametrize("dials", ["member", "stranger"])
async def test_a_stranger_gets_nothing_and_nobody_waits(real_world, caplog, stranger, dials):
    key = NetworkKey.generate()
    member, friend = await real_world.node(network_key=key), await real_world.node(network_key=key)
    other = await real_world.node(network_key=None if stranger == "no key" else NetworkKey.generate())
    dialler, dialled = (member, other) if dials == "member" else (other, member)
    for _ in range(3):
        async with asyncio.timeout(REFUSED_S):
            with pytest.raises(PeerUnreachable, match="private network"):
                await dialler.overlay.connect(dialled.address)
    await real_world.link(friend, member)  # the member is none the worse for it
    assert other.up == []
    assert member.peers == [friend.id]
    assert await friend.overlay.request(member.id, b"x") == b"re:x"
    if dials == "stranger":
        await member.until(lambda: bool(member.violations), "somebody came without the key")
    assert len([reason for _, reason in member.violations if "came without the key" in reason]) <= 1
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) <= 2, told  # each side may tell of the other, once
    assert not any(record.exc_info for record in told)


async def bytes_from(address: str, say: bytes) -> bytes:
    """Everything that a node says on a plain connection, until it ends it."""
    _, _, host, _, port, *_ = address.split("/")
    reader, writer = await asyncio.open_connection(host, int(port))
    heard = b""
    try:
        writer.write(say)
        async with asyncio.timeout(REFUSED_S):
            with contextlib.suppress(ConnectionResetError):  # it did not read all that we said
                while data := await reader.read(65536):
                    heard += data
    finally:
        writer.close()
    return heard


@pytest.mark.parametrize("say", [b"\x13/multistream/1.0.0\n\x07/noise\n", b"GET / HTTP/1.1\r\n\r\n" + bytes(60)])
async def test_on_the_wire_there_is_nothing_to_be_read(real_world, say):
    """A nonce and a greeting under the cipher are all that anybody gets who has not the key."""
    member = await real_world.node(network_key=NetworkKey.generate())
    heard = [await bytes_from(member.address, say) for _ in range(2)]
    for said in heard:
        assert len(said) <= NONCE_BYTES + len(b"\x13/multistream/1.0.0\n")
        assert b"multistream" not in said
        assert b"noise" not in said
    assert heard[0][:NONCE_BYTES] != heard[1][:NONCE_BYTES] or not heard[0]


async def recorded(address: str, use: Callable[[str], Awaitable[None]]) -> bytes:
    """What crosses the wire in both directions while ``use`` works with a node through a relay."""
    _, _, host, _, port, *_, peer = address.split("/")
    wire = bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                wire.extend(data)
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    near = server.sockets[0].getsockname()[1]
    await use(f"/ip4/127.0.0.1/tcp/{near}/p2p/{peer}")
    server.close()
    return bytes(wire)


@pytest.mark.parametrize("private", [True, False])
async def test_the_cipher_is_in_force_from_the_first_byte_on(real_world, private):
    """Between members too; without a key the same recording shows how libp2p begins."""
    key = NetworkKey.generate() if private else None
    one, other = await real_world.node(network_key=key), await real_world.node(network_key=key)

    async def use(address: str) -> None:
        await one.overlay.connect(address)
        await one.until(lambda: other.id in one.peers, "they are connected")
        assert await one.overlay.request(other.id, b"x") == b"re:x"

    wire = await recorded(other.address, use)
    assert (b"/multistream/1.0.0" in wire) is not private
    assert (b"/noise" in wire) is not private


async def test_on_the_local_network_only_members_find_each_other(real_world, request):
    """One network name, two keys and none: the third member's announcement is the sign that there was time enough."""
    key = NetworkKey.generate()
    net = f"mdns-{abs(hash(request.node.name)) % 10**8}-{time.time_ns()}"
    options = {"net": net, "mdns": True}
    one = await real_world.node(network_key=key, **options)
    strangers = [await real_world.node(network_key=other, **options) for other in (None, NetworkKey.generate())]
    two = await real_world.node(network_key=key, **options)
    for node, other in ((one, two), (two, one)):
        await node.until(lambda node=node: bool(node.discovered), "a member is discovered")
        assert {address for address, _ in node.discovered} <= set(other.overlay.addresses())
    assert [stranger.discovered for stranger in strangers] == [[], []]
