"""How each kind of fault strikes. What a fault is, and for how long it lasts, stands in ``schedule``."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.e2e.chaos.relay import PERFECT, SLOW, Link
from tests.e2e.chaos.schedule import Fault
from tests.e2e.node.processes import NodeProcess, Waited, full_disk


def check_running(node: NodeProcess) -> None:
    """Raise Waited if a node has ended although nobody killed it."""
    if not node.running:
        raise Waited(f"{node.name} ended by itself with code {node.process.returncode}")


class Faults:
    """Strikes nodes and links by name; ``spawn`` starts a killed node again on its home."""

    def __init__(
        self, nodes: dict[str, NodeProcess], links: dict[str, Link], spawn: Callable[[str], Awaitable[None]]
    ) -> None:
        self._nodes = nodes
        self._links = links
        self._spawn = spawn

    def of(self, fault: Fault) -> AbstractAsyncContextManager[None]:
        """The fault as a context: it lasts while one is inside."""
        if fault.target in self._links:
            return _LINK_FAULTS[fault.kind](self._links[fault.target])
        node = self._nodes[fault.target]
        check_running(node)
        if fault.kind in ("kill", "vanish"):
            return self._killed(node)
        if fault.kind == "leave":
            return self._left(node)
        if fault.kind in _READY_ONLY and not node.events:
            return contextlib.nullcontext()  # it is still starting
        return self._killed_with_full_disk(node) if fault.kind == "kill_full" else _NODE_FAULTS[fault.kind](node)

    @asynccontextmanager
    async def _killed(self, node: NodeProcess) -> AsyncIterator[None]:
        await node.kill()
        yield
        await self._spawn(node.name)

    @asynccontextmanager
    async def _left(self, node: NodeProcess) -> AsyncIterator[None]:
        starting = not node.events  # then the signal may come before anything of ours runs
        code = await node.terminate()
        if code != 0 and not (starting and code == -signal.SIGTERM):
            raise Waited(f"{node.name} ended with code {code} when it was asked to leave")
        yield
        await self._spawn(node.name)

    @asynccontextmanager
    async def _killed_with_full_disk(self, node: NodeProcess) -> AsyncIterator[None]:
        with full_disk(node):
            yield
            await node.kill()
        await self._spawn(node.name)


@asynccontextmanager
async def _stopped(node: NodeProcess) -> AsyncIterator[None]:
    node.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.signal(signal.SIGCONT)


@asynccontextmanager
async def _full(node: NodeProcess) -> AsyncIterator[None]:
    with full_disk(node):
        yield


@asynccontextmanager
async def _clock_ahead(node: NodeProcess) -> AsyncIterator[None]:
    node.signal(signal.SIGUSR2)
    yield
    node.signal(signal.SIGUSR2)


@asynccontextmanager
async def _executors_killed(node: NodeProcess) -> AsyncIterator[None]:
    for pid in node.executors():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield


@asynccontextmanager
async def _cut(link: Link) -> AsyncIterator[None]:
    link.cut()
    yield
    link.heal()


@asynccontextmanager
async def _reset(link: Link) -> AsyncIterator[None]:
    await link.reset()
    yield


@asynccontextmanager
async def _slow(link: Link) -> AsyncIterator[None]:
    link.shape = SLOW
    yield
    link.shape = PERFECT


_READY_ONLY = ("kill_full", "disk_full", "clock")  # a node may refuse to start on a full disk
_NODE_FAULTS = {"stop": _stopped, "disk_full": _full, "clock": _clock_ahead, "executor": _executors_killed}
_LINK_FAULTS = {"cut": _cut, "reset": _reset, "slow": _slow}
