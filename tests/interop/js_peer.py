"""Drives the js-libp2p peer of ``js/peer.mjs``."""

import asyncio
import contextlib
import itertools
import json
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, Self

from tests.interop.event_log import WAIT_S, Document, EventLog
from tests.interop.foreign_peer import ForeignPeer, ForeignPeerError, Gossip, Identified, Stream
from tests.interop.setup import JS, NODE

_LINE_BYTES = 4 << 20
_STOP_S = 5.0


class JsPeer(ForeignPeer):
    """js-libp2p in its own process."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self._log = EventLog("the js-libp2p peer")
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._readers: dict[int, asyncio.StreamReader] = {}
        assert process.stdout is not None
        self._pump = asyncio.create_task(self._log.read(process.stdout, self._hear), name="js peer's output")

    @classmethod
    async def start(cls, folder: Path) -> Self:
        with (folder / "js-peer.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                NODE, JS / "peer.mjs", stdin=PIPE, stdout=PIPE, stderr=log, limit=_LINE_BYTES
            )
        peer = cls(process)
        try:
            ready = await peer._log.wait("ready")
        except BaseException as error:
            error.add_note((folder / "js-peer.log").read_text(errors="replace")[-2000:])
            await peer.stop()
            raise
        peer.peer_id, peer.address = ready["peer"], ready["address"]
        return peer

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._pump

    def _hear(self, document: Document) -> None:
        match document:
            case {"id": number, "result": result}:
                self._answers.pop(number).set_result(result)
            case {"id": number, "error": text}:
                self._answers.pop(number).set_exception(ForeignPeerError(text))
            case {"event": "message", "author": author, "topic": topic, "data": data}:
                self.messages.put_nowait(Gossip(author, topic, bytes.fromhex(data)))
            case {"event": "stream", "stream": number, "protocol": protocol, "peer": peer}:
                self.streams.put_nowait(self._stream(number, peer, protocol))
            case {"event": "data", "stream": number, "data": data}:
                self._reader(number).feed_data(bytes.fromhex(data))
            case {"event": "closed", "stream": number}:
                self._reader(number).feed_eof()

    async def _do(self, name: str, **fields: object) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "do": name, **fields}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # it has ended; the time-out below says so
            await self._process.stdin.drain()
        async with asyncio.timeout(WAIT_S):
            return await answer

    def _reader(self, number: int) -> asyncio.StreamReader:
        return self._readers.setdefault(number, asyncio.StreamReader())

    def _stream(self, number: int, peer: str, protocol: str) -> Stream:
        async def write(data: bytes) -> None:
            await self._do("write", stream=number, data=data.hex())

        return Stream(peer, protocol, self._reader(number), write)

    async def dial(self, address: str) -> None:
        opened = await self._do("dial", address=address)
        assert opened == {"encryption": "/noise", "multiplexer": "/yamux/1.0.0"}

    async def identify(self, peer: str) -> Identified:
        said = await self._do("identify", peer=peer)
        return Identified(said["agent"], frozenset(said["protocols"]))

    async def ping(self, peer: str) -> None:
        await self._do("ping", peer=peer)

    async def subscribe(self, topic: str) -> None:
        await self._do("subscribe", topic=topic)

    async def publish(self, topic: str, data: bytes) -> None:
        await self._do("publish", topic=topic, data=data.hex())

    async def open(self, peer: str, protocol: str) -> Stream:
        return self._stream(await self._do("open", peer=peer, protocol=protocol), peer, protocol)

    async def serve(self, protocol: str) -> None:
        await self._do("serve", protocol=protocol)

    async def find_providers(self, cid: bytes) -> set[str]:
        return set(await self._do("providers", cid=cid.hex()))
