"""First contact and requests over libp2p, both ends in processes of their own, against plain TCP."""

import asyncio
import contextlib
import time
from typing import Any

from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.overlay import OverlayEvents
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from tests.bench.processes import LOOPBACK, module, scratch
from tests.bench.rows import Row, median_row, percentile

NET = "bench-contact"
PAYLOAD = b"x" * 200  # about the size of a heartbeat
REQUESTS = 500  # per repetition
WARM_UP = 20


def overlay() -> Libp2pOverlay:
    """A peer with a fresh key on loopback."""
    return Libp2pOverlay(Identity.generate(), net=NET, listen=(LOOPBACK,), agent="bench", mdns=False)


async def echo(_peer: PeerId, payload: bytes) -> bytes:
    """The request handler of both ends."""
    return payload


def first_contact(repeat: int) -> list[Row]:
    """Connect and first request of a peer that never met the other, against TCP connect and echo."""
    with scratch() as folder, module("echo_peer", folder / "echo.log") as server:
        where = server.read()
        ours, bare = asyncio.run(_contacts(where, repeat))
    against = "TCP connect and echo (asyncio)"
    return [median_row("first_contact", "ms", ours, bare, bar=100, stretch=30, against=against)]


async def _contacts(where: dict[str, Any], repeat: int) -> tuple[list[float], list[float]]:
    ours, bare = [], []
    for round_ in range(repeat + 1):
        fresh = overlay()
        await fresh.start(echo, OverlayEvents())
        try:
            began = time.perf_counter()
            peer = await fresh.connect(where["address"])
            await fresh.request(peer, PAYLOAD)
            took = time.perf_counter() - began
        finally:
            await fresh.stop()
        plain = await _tcp_contact_s(where["port"])
        if round_ >= 1:  # the first one imports what is imported late
            ours.append(took * 1e3)
            bare.append(plain * 1e3)
    return ours, bare


async def _tcp_contact_s(port: int) -> float:
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PAYLOAD)
    await reader.readexactly(len(PAYLOAD))
    took = time.perf_counter() - began
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return took


def rpc(repeat: int) -> list[Row]:
    """Requests one after the other on a connection that stands, against an echo over TCP."""
    with scratch() as folder, module("echo_peer", folder / "echo.log") as server:
        ours, bare = asyncio.run(_requests(server.read(), repeat))
    rows = []
    for name, share in (("rpc_p50", 0.5), ("rpc_p99", 0.99)):
        values = [percentile(batch, share) * 1e3 for batch in ours]
        baselines = [percentile(batch, share) * 1e3 for batch in bare]
        rows.append(median_row(name, "ms", values, baselines, against="echo over TCP (asyncio)"))
    return rows


async def _requests(where: dict[str, Any], repeat: int) -> tuple[list[list[float]], list[list[float]]]:
    client = overlay()
    await client.start(echo, OverlayEvents())
    reader, writer = await asyncio.open_connection("127.0.0.1", where["port"])

    async def ask() -> None:
        await client.request(peer, PAYLOAD)

    async def ask_plainly() -> None:
        writer.write(PAYLOAD)
        await reader.readexactly(len(PAYLOAD))

    try:
        peer = await client.connect(where["address"])
        await _batch(ask, WARM_UP)
        pairs = [(await _batch(ask, REQUESTS), await _batch(ask_plainly, REQUESTS)) for _ in range(repeat)]
    finally:
        writer.close()
        await client.stop()
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


async def _batch(ask: Any, count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - began)
    return times
