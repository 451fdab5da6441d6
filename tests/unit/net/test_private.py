"""Connections of a private network: the cipher is the specified one, and who has not the key gets nothing."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from nacl.bindings import crypto_secretbox

from sparkle_p2p.net.libp2p.opening import GREETING
from sparkle_p2p.net.libp2p.private import (
    MAX_STRANGERS,
    NONCE_BYTES,
    TELL_AGAIN_S,
    OtherNetworkKey,
    PrivateConnection,
    Strangers,
    hsalsa20,
    xsalsa20,
)

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


def test_hsalsa20_gives_the_published_vectors() -> None:
    """NaCl, tests/core1.c and core2.c."""
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    first = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    assert hsalsa20(shared, bytes(16)) == first
    prefix = bytes.fromhex("69696ee955b62b73cd62bda875fc73d6")
    second = bytes.fromhex("dc908dda0b9344a953629b733820778880f3ceb421bb61b91cbd4c3e66256ce4")
    assert hsalsa20(first, prefix) == second


def test_the_stream_is_that_of_libsodium() -> None:
    """Its secret box is XSalsa20 after 32 bytes that make the tag; our stream comes in parts."""
    for size in (0, 1, 31, 64, 65, 1000):
        key, nonce, text = os.urandom(32), os.urandom(24), os.urandom(size)
        stream = xsalsa20(key, nonce)
        stream.encrypt(bytes(32))
        ours = b"".join(stream.encrypt(text[at : at + 7]) for at in range(0, size, 7))
        assert ours == crypto_secretbox(text, nonce, key)[16:]


async def tcp_pair() -> tuple[RawConnection, RawConnection]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    dialled = await trio.open_tcp_stream("127.0.0.1", port)
    accepted = await listener.accept()
    await listener.aclose()
    return RawConnection(TrioTCPStream(dialled), True), RawConnection(TrioTCPStream(accepted), False)


def in_trio(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def limited() -> None:
            with trio.fail_after(20):
                await test()

        trio.run(limited)

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


async def read_all(connection: Any, size: int, at_most: int = 65536) -> bytes:
    got = b""
    while len(got) < size:
        part = await connection.read(min(at_most, size - len(got)))
        assert part, "it ended early"
        got += part
    return got


@in_trio
async def test_two_with_one_key_understand_each_other_in_any_portions() -> None:
    one, other = await tcp_pair()
    a, b = PrivateConnection(one, KEY), PrivateConnection(other, KEY)
    said = GREETING + os.urandom(200_000)

    async def speak(connection: PrivateConnection) -> None:
        for start in range(0, len(said), 7777):
            await connection.write(said[start : start + 7777])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak, a)
        nursery.start_soon(speak, b)
        assert await read_all(b, len(said), 3) == said
        assert await read_all(a, len(said), 65536) == said
    assert (a.stranger, b.stranger) == (False, False)
    assert a.get_remote_address() == one.get_remote_address()
    assert a.get_transport_addresses() == one.get_transport_addresses()
    assert a.stream is one.stream
    await a.close()
    assert await b.read(1) == b""


@in_trio
async def test_nothing_on_the_wire_can_be_read_and_no_two_connections_look_alike() -> None:
    seen = []
    for _ in range(2):
        one, other = await tcp_pair()
        await PrivateConnection(one, KEY).write(GREETING)
        wire = await read_all(other, NONCE_BYTES + len(GREETING))
        assert b"multistream" not in wire
        assert xsalsa20(KEY, wire[:NONCE_BYTES]).decrypt(wire[NONCE_BYTES:]) == GREETING
        seen.append(wire)
        await one.close()
        await other.close()
    assert seen[0] != seen[1]


@in_trio
async def test_another_key_is_seen_in_the_first_bytes() -> None:
    one, other = await tcp_pair()
    a, b = PrivateConnection(one, KEY), PrivateConnection(other, OTHER)
    await a.write(GREETING)
    with pytest.raises(OtherNetworkKey, match="another network key, or none"):
        await b.read(1)
    assert b.stranger


@in_trio
async def test_a_dialler_without_a_key_is_seen_before_it_has_said_more() -> None:
    one, other = await tcp_pair()
    b = PrivateConnection(other, KEY)
    await one.write(GREETING)  # 20 bytes: fewer than a nonce has
    with pytest.raises(OtherNetworkKey):
        await b.read(1)
    assert b.stranger


@in_trio
async def test_one_that_breaks_off_is_no_stranger() -> None:
    for said in (b"", bytes(5), bytes(NONCE_BYTES)):
        one, other = await tcp_pair()
        b = PrivateConnection(other, KEY)
        if said:
            await one.write(said)
        await one.close()
        assert await b.read(10) == b""
        assert not b.stranger


@in_trio
async def test_a_read_that_was_cancelled_goes_on_where_it_was() -> None:
    one, other = await tcp_pair()
    a, b = PrivateConnection(one, KEY), PrivateConnection(other, KEY)
    nonce = os.urandom(NONCE_BYTES)
    await one.write(nonce[:10])
    with trio.move_on_after(0.05):
        await b.read(1)
    await one.write(nonce[10:] + xsalsa20(KEY, nonce).encrypt(GREETING + b"more"))
    assert await read_all(b, len(GREETING) + 4) == GREETING + b"more"
    await a.close()


def test_a_stranger_that_keeps_coming_is_told_of_once_in_a_while() -> None:
    strangers = Strangers()
    assert strangers.is_news("a", 0.0)
    assert not strangers.is_news("a", TELL_AGAIN_S - 1)
    assert strangers.is_news("b", 5.0)
    assert strangers.is_news("a", TELL_AGAIN_S)
    for number in range(2 * MAX_STRANGERS):
        assert strangers.is_news(str(number), TELL_AGAIN_S)
    assert len(strangers._told) <= MAX_STRANGERS
