"""One end of a transfer, in a process of its own: holds blobs, fetches them, or moves plain bytes over aiohttp TLS.

Questions and answers are JSON lines. Requests that would travel over libp2p travel over plain TCP here: they are a
few per transfer, and what is measured is the bulk.
"""

import asyncio
import json
import mmap
import ssl
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from sparkle_p2p.blobs.store import BlobStore
from sparkle_p2p.net.bulk.certificate import client_context, make_certificate
from sparkle_p2p.net.bulk.service import Bulk
from sparkle_protocol import messages
from sparkle_protocol.blobs.tree import parse_blob_id
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId

NET = "bench-bulk"
PIECE_BYTES = 1 << 20
FRAME = struct.Struct(">I")


class Peer:
    """A ``Bulk`` whose requests go over TCP, each with the sender's id."""

    def __init__(self, folder: Path) -> None:
        self.identity = Identity.generate()
        self.others: dict[PeerId, int] = {}
        self.bulk = Bulk(
            self.identity,
            NET,
            BlobStore(folder / "blobs"),
            ask=self._ask,
            hosts=lambda _peer: ("127.0.0.1",),
            may_read=lambda _peer, _blob: True,
            clock=time.monotonic_ns,
        )

    async def start(self) -> dict[str, Any]:
        await self.bulk.start("127.0.0.1")
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return {"peer": self.identity.peer_id, "port": server.sockets[0].getsockname()[1]}

    async def _ask(self, peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.others[peer])
        try:
            body = self.identity.peer_id.encode() + b" " + messages.encode_message(request)
            writer.write(FRAME.pack(len(body)) + body)
            (length,) = FRAME.unpack(await reader.readexactly(FRAME.size))
            return messages.decode_reply(await reader.readexactly(length))
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = FRAME.unpack(await reader.readexactly(FRAME.size))
        sender, _, body = (await reader.readexactly(length)).partition(b" ")
        reply = messages.encode_message(await self.bulk.serve(PeerId(sender.decode()), messages.decode_request(body)))
        writer.write(FRAME.pack(len(reply)) + reply)
        writer.close()


async def sent_plainly(request: web.BaseRequest, view: memoryview) -> web.StreamResponse:
    """Bytes as anybody would send them."""
    response = web.StreamResponse()
    response.content_length = len(view)
    await response.prepare(request)
    for start in range(0, len(view), PIECE_BYTES):
        await response.write(view[start : start + PIECE_BYTES])
    await response.write_eof()
    return response


async def serve_plainly(path: Path) -> int:
    """A plain aiohttp TLS server of one file, mapped; as anybody would write it."""
    certificate = make_certificate(Identity.generate(), NET)

    async def whole(request: web.BaseRequest) -> web.StreamResponse:
        with path.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return await sent_plainly(request, view)

    runner = web.ServerRunner(web.Server(whole, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.context)
    await site.start()
    port: int = runner.addresses[0][1]
    return port


async def fetch_plainly(port: int, path: Path | None) -> int:
    """Read it as anybody would; into a file, or nowhere."""
    context: ssl.SSLContext = client_context()
    count = 0
    async with aiohttp.ClientSession() as session, session.get(f"https://127.0.0.1:{port}/", ssl=context) as response:
        if path is None:
            async for piece in response.content.iter_any():
                count += len(piece)
        else:
            with path.open("wb") as file:
                async for piece in response.content.iter_any():
                    file.write(piece)
                    count += len(piece)
    return count


async def main(folder: Path) -> None:
    """Answer questions until the end of stdin."""
    peer = Peer(folder)
    where = await peer.start()
    say(where)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question: dict[str, Any] = json.loads(line)
        say(await answer(peer, folder, question))


async def answer(peer: Peer, folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    match question:
        case {"put": path}:
            blob = await asyncio.to_thread(peer.bulk.store.put_file, Path(path))
            return {"blob": blob.hex()}
        case {"serve": path}:
            return {"port": await serve_plainly(Path(path))}
        case {"read": port, "into": into}:
            return await timed(lambda: fetch_plainly(port, Path(into) if into else None))
        case {"fetch": blob, "from": others}:
            peer.others.update(others)
            report = await timed(lambda: peer.bulk.fetch(parse_blob_id(blob), list(others)))
            await asyncio.to_thread(peer.bulk.store.remove, parse_blob_id(blob))
            return report
    raise ValueError(f"unknown question {question}")


async def timed(call: Callable[[], Any]) -> dict[str, Any]:
    began, cpu = time.perf_counter(), time.process_time()
    await call()
    return {"took_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}


def say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
