"""The node with its screen: the first frame comes at once, the network loads behind it."""

import asyncio
import logging
import os
import signal
from typing import Any

from sparkle_p2p.api.client import LocalClient
from sparkle_p2p.cli.logs import LOG_FILE, set_up_logging
from sparkle_p2p.cli.service import LEAVE_LIMIT_S, Service, limit_leaving
from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import HomeDir
from sparkle_tui.app import SparkleApp

log = logging.getLogger("sparkle")


def run_screen(config: NodeConfig) -> int:
    """Node and screen in one process, until the user quits.

    Raises:
        SparkleError: the node cannot start or has failed; the screen is closed then.
    """
    with HomeDir.open(config.home) as home:
        set_up_logging(config.log_level, home.path / LOG_FILE)
        return asyncio.run(_Screen(config, home).run())


def attach(home: str) -> int:
    """The screen of a node that already runs; quitting leaves the node alone.

    Raises:
        NodeNotRunning: there is none.
    """
    from sparkle_p2p.api.remote import RemoteControl

    with RemoteControl(LocalClient(home)) as control:
        app = SparkleApp(control, leave=_nothing)
        app.run()
        return app.return_code or 0


async def _nothing() -> None:
    """Leaving an attached screen ends nothing but the screen."""


class _Screen:
    """Binds the node's life to the screen's: whichever ends first ends the other."""

    def __init__(self, config: NodeConfig, home: HomeDir) -> None:
        from sparkle_p2p.cli.companions import Companions

        self._home = home
        self._service = Service(config, home)
        self._node = self._service.node
        self._companions = Companions(self._node, config.net)
        self._app = SparkleApp(self._node, start_demo=self._companions.start, leave=self._leave)
        self._drawn = asyncio.Event()
        self._gone = asyncio.Event()
        self._failure: BaseException | None = None
        self._background: asyncio.Task[None] | None = None
        self._hung_up = False

    async def run(self) -> int:
        """Until one of the two has ended; the screen's exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._app.exit)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        async with asyncio.TaskGroup() as tasks:
            self._background = tasks.create_task(self._run_node(), name="node behind the screen")
            try:
                await self._app.run_async(auto_pilot=self._first_frame)
            finally:
                self._end_node()
        if self._failure is not None:
            raise self._failure
        return self._app.return_code or 0

    async def _first_frame(self, pilot: Any) -> None:
        """Called by Textual once the screen is laid out; when it is drawn, the network may take the processor."""
        pilot.app.call_after_refresh(self._drawn.set)

    async def _run_node(self) -> None:
        try:
            await self._drawn.wait()
            await self._service.run()
        except Exception as error:  # the boundary: shown by run() once the screen has gone
            log.exception("the node failed")
            self._failure = error
        finally:
            self._gone.set()
            self._app.exit()
            await self._companions.stop()
            if self._hung_up:
                self._end_without_terminal()

    def _end_node(self) -> None:
        limit_leaving()
        self._node.stop()
        if self._background is not None and not self._drawn.is_set():
            self._background.cancel()  # it never started

    def _hang_up(self) -> None:
        self._hung_up = True
        self._end_node()

    def _end_without_terminal(self) -> None:
        """End here: Textual cannot restore a terminal that has gone, and its input thread reads on for ever."""
        self._home.close()
        logging.shutdown()
        os._exit(128 + signal.SIGHUP)

    async def _leave(self) -> None:
        self._node.stop()
        async with asyncio.timeout(LEAVE_LIMIT_S):
            await self._gone.wait()
