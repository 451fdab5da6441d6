"""A node together with its API in one home directory, from start to a clean end."""

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import HomeDir
from sparkle_p2p.node.node import Node
from sparkle_p2p.view import Event
from sparkle_protocol.errors import SparkleError

if TYPE_CHECKING:
    from sparkle_p2p.web.server import ApiServer

LEAVE_LIMIT_S = 10.0  # INTERFACES: a node leaves within ten seconds, whatever hangs

log = logging.getLogger(__name__)


class Service:
    """Runs one node and serves its API.

    Args:
        config: how the node runs.
        home: its open home directory.
        executor_factory: replaces the executor that computes units; the demo's liar uses it.
    """

    def __init__(self, config: NodeConfig, home: HomeDir, executor_factory: Callable[[], Any] | None = None) -> None:
        self._config = config
        self._home = home
        if executor_factory is None:
            self.node = Node(config, home)
        else:
            self.node = Node(config, home, executor_factory=executor_factory)

    async def run(
        self,
        on_ready: Callable[[], None] = lambda: None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Serve until ``node.stop()``. ``on_ready`` is called once, ``on_event`` only after it.

        Raises:
            ConfigError: the node cannot start; nothing is left running.
        """
        api_server = await asyncio.to_thread(_load_api)  # meanwhile a screen draws and answers keys
        api = api_server(self.node, token=self._home.token, bind=self._config.api)
        try:
            url = await api.start()
            self.node.api_url = url
            self._home.announce(url)
            log.info("the local API answers at %s", url)
            await self._run_node(on_ready, on_event)
        finally:
            self._home.retract()
            await api.stop()

    async def _run_node(self, on_ready: Callable[[], None], on_event: Callable[[Event], None] | None) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self.node.run(), name="node")
                follower = tasks.create_task(self._follow(on_ready, on_event), name="follow the node")
                await asyncio.wait((running,))  # ends by stop(), which has its own limit, or by a failure
                follower.cancel()
        except BaseExceptionGroup as group:
            raise root_cause(group) from group

    async def _follow(self, on_ready: Callable[[], None], on_event: Callable[[Event], None] | None) -> None:
        try:
            await self.node.wait_ready()
        except SparkleError:
            return  # ``run`` raises what is wrong; a node that was stopped while it started has no fault
        _spare_the_collector()
        on_ready()
        if on_event is not None:
            async for event in self.node.events():
                on_event(event)

    def ready_document(self) -> dict[str, Any]:
        """The first JSON line of ``sparkle-node --headless --json``."""
        view = self.node.view()
        return {
            "event": "ready",
            "time": round(time.time(), 3),
            "peer_id": view.peer_id,
            "addrs": [with_peer(address, view.peer_id) for address in view.addresses],
            "api": self.node.api_url,
            "pid": os.getpid(),
            "startup_ms": {**self.node.startup_ms, "total": round(process_age_s() * 1e3, 1)},
        }


def _spare_the_collector() -> None:
    """Have garbage looked for more seldom, and never in what is loaded by now: that stays.

    A job's records are many small objects without cycles. Going through them again and again was a sixth of what a
    unit cost its submitter, with stops of 70 ms in between.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _load_api() -> "type[ApiServer]":
    """Up to a third of a second."""
    from sparkle_p2p.web.server import ApiServer

    return ApiServer


def with_peer(address: str, peer_id: str) -> str:
    """The address as others dial it: ending in ``/p2p/ID``."""
    return address if "/p2p/" in address else f"{address}/p2p/{peer_id}"


def root_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several failures the one to show: an error of ours if there is one, else the first."""
    leaves = list(_leaves(group))
    return next((error for error in leaves if isinstance(error, SparkleError)), leaves[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> "list[BaseException]":
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def limit_leaving(seconds: float = LEAVE_LIMIT_S) -> threading.Timer:
    """From now on the process has ``seconds`` to end by itself; then it is ended. Cancel the timer if it did."""

    def end() -> None:
        try:
            sys.stderr.write(f"sparkle-node: it did not leave within {seconds:.0f} s and was ended\n")
            sys.stderr.flush()
        finally:  # the terminal may be what has gone
            os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


def process_age_s() -> float:
    """Seconds since this process was started (proc(5): field 22 of ``stat``, in clock ticks since boot)."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
