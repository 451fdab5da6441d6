"""The relay does to a connection what it says, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.chaos.relay import Link, Shape

WAIT_S = 10.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that gives back whatever comes, behind a link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.entrance = await self.link.listen(*self.server.sockets[0].getsockname()[:2])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def dial(self) -> Streams:
        streams = await asyncio.open_connection(*self.entrance)
        self._writers.append(streams[1])
        return streams

    async def stop(self) -> None:
        self.server.close()
        for writer in self._writers:
            writer.transport.abort()


@pytest_asyncio.fixture
async def echo() -> AsyncIterator[Echo]:
    async with asyncio.timeout(2 * WAIT_S), Link("test") as link:
        behind = Echo(link)
        await behind.start()
        yield behind
        await behind.stop()


async def ask(streams: Streams, data: bytes) -> bytes:
    reader, writer = streams
    writer.write(data)
    async with asyncio.timeout(WAIT_S):
        return await reader.readexactly(len(data))


async def test_everything_arrives_in_order_whatever_the_link_is_like(echo: Echo) -> None:
    echo.link.shape = Shape(delay_s=0.002, jitter_s=0.02, loss=0.05)
    streams = await echo.dial()
    data = b"".join(number.to_bytes(4, "big") for number in range(50_000))
    assert await ask(streams, data) == data
    assert echo.link.connections == 1


async def test_delay_counts_both_ways(echo: Echo) -> None:
    streams = await echo.dial()
    await ask(streams, b"warm")
    echo.link.shape = Shape(delay_s=0.1)
    began = time.monotonic()
    await ask(streams, b"ping")
    assert 0.2 <= time.monotonic() - began < 2


async def test_bandwidth_is_limited(echo: Echo) -> None:
    streams = await echo.dial()
    echo.link.shape = Shape(bytes_per_s=400_000)
    began = time.monotonic()
    await ask(streams, bytes(200_000))
    assert 0.5 <= time.monotonic() - began < 5


async def test_a_cut_link_is_silent_and_what_was_sent_arrives_when_it_heals(echo: Echo) -> None:
    streams = await echo.dial()
    assert await ask(streams, b"before") == b"before"
    echo.link.cut()
    streams[1].write(b"during")
    late = await echo.dial()  # accepted by the relay, as by a router that answers nobody
    late[1].write(b"late")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await streams[0].read(1)
    echo.link.heal()
    async with asyncio.timeout(WAIT_S):
        assert await streams[0].readexactly(6) == b"during"
        assert await late[0].readexactly(4) == b"late"


async def test_a_reset_breaks_what_stands_and_lets_others_come(echo: Echo) -> None:
    streams = await echo.dial()
    await ask(streams, b"up")
    await echo.link.reset()
    async with asyncio.timeout(WAIT_S):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await streams[0].readexactly(1)
    assert await ask(await echo.dial(), b"again") == b"again"


async def test_an_end_passes_through_and_so_does_nobody_there(echo: Echo) -> None:
    reader, writer = await echo.dial()
    await ask((reader, writer), b"bye")
    await echo.stop()
    async with asyncio.timeout(WAIT_S):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        late, _ = await echo.dial()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await late.readexactly(1)
