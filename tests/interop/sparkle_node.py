"""A real ``sparkle-node --headless --json`` process."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from sparkle_p2p.api.client import LocalClient
from tests.interop.event_log import EventLog

PROGRAM = Path(sys.executable).with_name("sparkle-node")
START_S = 60.0  # mostly imports, on a machine that is busy
STOP_S = 15.0  # it promises ten
_LINE_BYTES = 1 << 20


class SparkleNode:
    """A running node that submits and keeps jobs but computes nothing, so that its jobs stay open."""

    net = "interop"
    peer_id: str
    address: str

    def __init__(self, process: Process, folder: Path) -> None:
        self.events = EventLog("the node")
        self.log = folder / "node.log"
        self.client = LocalClient(folder / "home")
        self._process = process
        assert process.stdout is not None
        self._pump = asyncio.create_task(self.events.read(process.stdout), name="node's output")

    @classmethod
    async def start(cls, folder: Path, *flags: str) -> Self:
        """A node that said that it is ready."""
        fixed = ["--headless", "--json", "--no-work", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"]
        fixed += ["--home", str(folder / "home"), "--net", cls.net]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARKLE_")}
        with (folder / "node.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                PROGRAM, *fixed, *flags, stdout=PIPE, stderr=log, env=environment, limit=_LINE_BYTES
            )
        node = cls(process, folder)
        try:
            ready = await node.events.wait("ready", within_s=START_S)
        except BaseException as error:
            error.add_note(node.log.read_text(errors="replace")[-2000:])
            process.kill()
            await process.wait()
            raise
        node.peer_id, node.address = ready["peer_id"], ready["addrs"][0]
        return node

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, folder: Path, *flags: str) -> AsyncIterator[Self]:
        """The same, stopped at the end, and checked only if the test did not fail before."""
        node = await cls.start(folder, *flags)
        try:
            yield node
        except BaseException as error:
            error.add_note(node.log.read_text(errors="replace")[-2000:])
            node._process.kill()
            await node._process.wait()
            raise
        await node.stop()

    async def stop(self) -> None:
        """Have it leave; it must do so cleanly and must not have failed anywhere."""
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                code = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise AssertionError(f"the node did not leave within {STOP_S:g} s") from None
        await self._pump
        said = self.log.read_text(errors="replace")
        assert code == 0, f"the node ended with exit code {code}:\n{said[-2000:]}"
        assert "Traceback" not in said, f"something failed inside the node:\n{said[-4000:]}"

    async def submit(self, kernel: str, **params: int) -> str:
        """Publish a job as ``sparkle submit`` does; returns its id."""
        return await asyncio.to_thread(self.client.submit, kernel, params)

    async def peers(self) -> list[dict[str, Any]]:
        """Peers that the node counts as its own kind."""
        return await asyncio.to_thread(self.client.peers)

    def violations(self, peer: str) -> list[str]:
        """What the node holds against a peer."""
        return [event["reason"] for event in self.events.all("violation", peer=peer)]
