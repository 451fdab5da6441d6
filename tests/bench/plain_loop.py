"""64 products in a plain loop with the data moved: ``plain_loop owner A.npy B.npy C.npy`` and ``plain_loop worker``.

The owner serves the panels of both factors over aiohttp TLS and puts the blocks that are sent to it into a mapped
file. A worker is asked for a share of the grid: it gets each panel that it needs once, multiplies with one BLAS
thread and sends each block back while it computes the next one. Nothing is checked, hashed, kept or shared.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from sparkle_p2p.net.bulk.certificate import client_context, make_certificate
from sparkle_protocol.identity import Identity
from tests.bench.bulk_peer import sent_plainly

GRID = 8
SIZE = 1024
BLOCK_BYTES = 4 * SIZE * SIZE

Array = np.ndarray[Any, Any]


def block(index: int) -> slice:
    """Rows or columns of a panel."""
    return slice(index * SIZE, (index + 1) * SIZE)


class Owner:
    """Has the factors, wants the product."""

    def __init__(self, a: Path, b: Path, c: Path) -> None:
        self._factors = {"a": np.load(a, mmap_mode="r"), "b": np.load(b, mmap_mode="r")}
        shape = (GRID * SIZE, GRID * SIZE)
        self._product: Array = np.lib.format.open_memmap(c, mode="w+", dtype=np.float32, shape=shape)

    async def serve(self) -> int:
        """Listen; the port."""
        context = make_certificate(Identity.generate(), "bench-loop").context
        runner = web.ServerRunner(web.Server(self._answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port: int = runner.addresses[0][1]
        return port

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        _, name, *places = request.path.split("/")
        if request.method == "GET":
            whole = self._factors[name]
            panel = whole[block(int(places[0]))] if name == "a" else whole[:, block(int(places[0]))]
            return await sent_plainly(request, np.ascontiguousarray(panel).data.cast("B"))
        data = bytearray()
        async for piece in request.content.iter_any():
            data += piece
        rows, columns = map(int, places)
        self._product[block(rows), block(columns)] = np.frombuffer(data, np.float32).reshape(SIZE, SIZE)
        return web.Response()


class Worker:
    """Computes a share of the blocks."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self._base = f"https://127.0.0.1:{port}"
        self._session = session
        self._context = client_context()
        self._panels: dict[tuple[str, int], Array] = {}
        self.kernel_s = 0.0

    async def compute(self, share: int, shares: int) -> None:
        """All blocks of every ``shares``-th row of the grid, from the ``share``-th on."""
        sending: asyncio.Task[None] | None = None
        for rows in range(share, GRID, shares):
            for columns in range(GRID):
                a, b = await self._panel("a", rows), await self._panel("b", columns)
                result = await asyncio.to_thread(self._multiplied, a, b)
                if sending is not None:
                    await sending
                sending = asyncio.create_task(self._send(result, rows, columns))
        if sending is not None:
            await sending

    def _multiplied(self, a: Array, b: Array) -> Array:
        began = time.thread_time()
        result = a @ b
        self.kernel_s += time.thread_time() - began
        return result

    async def _panel(self, name: str, place: int) -> Array:
        known = self._panels.get((name, place))
        if known is None:
            data = bytearray()
            async with self._session.get(f"{self._base}/{name}/{place}", ssl=self._context) as response:
                async for piece in response.content.iter_any():
                    data += piece
            shape = (SIZE, -1) if name == "a" else (-1, SIZE)
            known = self._panels[name, place] = np.frombuffer(data, np.float32).reshape(shape)
        return known

    async def _send(self, result: Array, rows: int, columns: int) -> None:
        url = f"{self._base}/c/{rows}/{columns}"
        async with self._session.put(url, data=result.data.cast("B"), ssl=self._context) as response:
            response.raise_for_status()


async def own(paths: list[str]) -> None:
    """Serve until stdin ends, and say what that takes."""
    say({"port": await Owner(*map(Path, paths)).serve()})
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        say({"cpu_s": time.process_time()})


async def work() -> None:
    """Compute what is asked for until stdin ends."""
    say({})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        before, began = time.process_time(), time.perf_counter()
        async with aiohttp.ClientSession() as session:
            worker = Worker(question["port"], session)
            await worker.compute(question["share"], question["shares"])
        took = time.perf_counter() - began
        say({"took_s": took, "cpu_s": time.process_time() - before, "kernel_s": worker.kernel_s})


def say(document: dict[str, Any]) -> None:
    """A line on stdout."""
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    asyncio.run(own(sys.argv[2:]) if sys.argv[1] == "owner" else work())
