"""First contact and requests over libp2p, both ends in processes of their own, against plain TCP and hivemind."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparkle_p2p.net.libp2p import Libp2pOverlay
from sparkle_p2p.net.overlay import OverlayEvents
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from tests.bench import alternatives
from tests.bench.alternatives import NotAvailable
from tests.bench.processes import LOOPBACK, module, scratch
from tests.bench.rows import Row, median_row, percentile

NET = "bench-contact"
HIVEMIND = "hivemind's P2P, a go-libp2p daemon on either side"
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
    """Requests one after the other on a connection that stands, against an echo over TCP and hivemind's P2P."""
    with scratch() as folder, contextlib.ExitStack() as left:
        server = left.enter_context(module("echo_peer", folder / "echo.log"))
        lacking = ""
        try:
            ask_hivemind = _hivemind(folder, left)
        except (NotAvailable, RuntimeError) as error:
            lacking, ask_hivemind = str(error), None
        ours, bare, theirs = asyncio.run(_requests(server.read(), ask_hivemind, repeat))
    rows = []
    for name, share, stretch in (("rpc_p50", 0.5, 0.6), ("rpc_p99", 0.99, None)):
        ms = [[percentile(batch, share) * 1e3 for batch in batches] for batches in (ours, bare, theirs)]
        rows.append(median_row(name, "ms", ms[0], ms[1], stretch=stretch, against="echo over TCP (asyncio)"))
        rows.append(median_row(f"{name}_hivemind", "ms", ms[0], ms[2], against=HIVEMIND, lacking=lacking))
    return rows


def _hivemind(folder: Path, left: contextlib.ExitStack) -> Callable[[int], list[float]]:
    """What makes so many requests over hivemind's P2P; its processes end with ``left``."""
    server = left.enter_context(alternatives.hivemind("serve", folder / "hivemind-serve.log"))
    client = left.enter_context(alternatives.hivemind("ask", folder / "hivemind-ask.log"))
    where = server.read()
    client.read()

    def ask(count: int) -> list[float]:
        times: list[float] = client.ask({**where, "count": count, "size": len(PAYLOAD)})["times"]
        return times

    ask(WARM_UP)
    return ask


async def _requests(
    where: dict[str, Any], ask_hivemind: Callable[[int], list[float]] | None, repeat: int
) -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    """Seconds of each request, by repetition: ours, over plain TCP, and hivemind's if it is there."""
    client = overlay()
    await client.start(echo, OverlayEvents())
    reader, writer = await asyncio.open_connection("127.0.0.1", where["port"])
    ours, bare, theirs = [], [], []

    async def ask() -> None:
        await client.request(peer, PAYLOAD)

    async def ask_plainly() -> None:
        writer.write(PAYLOAD)
        await reader.readexactly(len(PAYLOAD))

    try:
        peer = await client.connect(where["address"])
        await _batch(ask, WARM_UP)
        for _ in range(repeat):
            ours.append(await _batch(ask, REQUESTS))
            bare.append(await _batch(ask_plainly, REQUESTS))
            if ask_hivemind is not None:
                theirs.append(await asyncio.to_thread(ask_hivemind, REQUESTS))
    finally:
        writer.close()
        await client.stop()
    return ours, bare, theirs


async def _batch(ask: Any, count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - began)
    return times
