"""A userspace relay per link: TCP passes through it with the delay, losses and cuts that a test asks for.

TCP hides lost segments, so a loss shows as a stall of one retransmission time-out. A link that is cut passes
nothing and answers nothing, in either direction; what was sent before waits and arrives once the link has healed,
as in a real network. Order is kept always. What waits in a relay is bounded; beyond that it does not read on, so
that senders feel it.
"""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Self

CHUNK_BYTES = 16 << 10
MAX_WAITING = 64  # chunks of one direction of one connection; a full queue stops reading
CONNECT_S = 3.0
RETRANSMISSION_S = 0.2


@dataclass(frozen=True, slots=True)
class Shape:
    """How a link treats what passes. The default is a perfect one."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0  # share of chunks that come only after a retransmission
    bytes_per_s: float = 0.0  # 0: no limit


PERFECT = Shape()
SLOW = Shape(delay_s=0.08, jitter_s=0.06, loss=0.05, bytes_per_s=250_000)


class Link:
    """Everything between two peers. Use as an async context manager: leaving it breaks all connections."""

    def __init__(self, seed: str) -> None:
        self.shape = PERFECT
        self.connections = 0  # that came about so far
        self._rng = Random(seed)
        self._open = asyncio.Event()
        self._open.set()
        self._passing: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        await self.reset()

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Where one side reaches the other side, which listens at ``host:port``."""

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._passing.add(task)
            try:
                await self._pass(reader, writer, host, port)
            except asyncio.CancelledError:
                pass  # reset() cancels; the server's callback must not report that
            finally:
                self._passing.discard(task)
                _abort(writer)

        server = await asyncio.start_server(accepted, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self._servers.append(server)
        found: tuple[str, int] = server.sockets[0].getsockname()[:2]
        return found

    # --- faults -------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Nothing passes from now on."""
        self._open.clear()

    def heal(self) -> None:
        """Everything passes again, what waited first."""
        self._open.set()

    async def reset(self) -> None:
        """Break all connections, as a rebooted router does."""
        broken = list(self._passing)
        for task in broken:
            task.cancel()
        await asyncio.gather(*broken, return_exceptions=True)

    # --- passing ------------------------------------------------------------------------------------------

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        await self._open.wait()
        try:
            async with asyncio.timeout(CONNECT_S):
                far_reader, far_writer = await asyncio.open_connection(host, port, limit=CHUNK_BYTES)
        except (OSError, TimeoutError):
            return  # nobody listens there: the caller sees its connection break
        self.connections += 1
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._one_way(reader, far_writer))
                group.create_task(self._one_way(far_reader, writer))
        except* OSError:
            pass  # one side is gone: so is the other
        finally:
            _abort(far_writer)

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_WAITING)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(reader, waiting))
            group.create_task(self._deliver(waiting, writer))

    async def _take(self, reader: asyncio.StreamReader, waiting: "asyncio.Queue[tuple[float, bytes]]") -> None:
        """Read and decide when each chunk is to arrive; an empty one is the end, or a break."""
        now_s = asyncio.get_running_loop().time
        free_s = 0.0  # when the line has passed on what came before
        while True:
            data = b""
            with contextlib.suppress(OSError):
                data = await reader.read(CHUNK_BYTES)
            shape = self.shape
            lost = self._rng.random() < shape.loss
            free_s = max(now_s(), free_s) + (len(data) / shape.bytes_per_s if shape.bytes_per_s else 0.0)
            due_s = free_s + shape.delay_s + self._rng.uniform(0, shape.jitter_s) + lost * RETRANSMISSION_S
            await waiting.put((due_s, data))
            if not data:
                return

    async def _deliver(self, waiting: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        while True:
            due_s, data = await waiting.get()
            await until(due_s)
            await self._open.wait()
            if not data:
                raise ConnectionResetError  # libp2p has no use for half-open connections: both ways end
            writer.write(data)
            await writer.drain()


async def until(due_s: float) -> None:
    """Return at this time of the loop's clock."""
    loop = asyncio.get_running_loop()
    if due_s > loop.time():
        due: asyncio.Future[None] = loop.create_future()
        timer = loop.call_at(due_s, due.set_result, None)
        try:
            await due
        finally:
            timer.cancel()


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


class Relays:
    """A full mesh of links between named peers. Use as an async context manager."""

    def __init__(self, seed: int, listening: dict[str, tuple[str, int]]) -> None:
        self.listening = listening
        pairs = itertools.combinations(listening, 2)
        self.links = {f"{first}-{second}": Link(f"{seed}/{first}-{second}") for first, second in pairs}
        self.routes: dict[str, dict[str, tuple[str, int]]] = {name: {} for name in listening}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        for name, link in self.links.items():
            await self._stack.enter_async_context(link)
            first, second = name.split("-")
            for dialler, dialled in ((first, second), (second, first)):
                host, port = self.listening[dialled]
                self.routes[dialler][f"{host}:{port}"] = await link.listen(host, port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
