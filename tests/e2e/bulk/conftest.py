"""Blob nodes as child processes."""

import asyncio
import contextlib
import json
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 60.0


class BlobProcess:
    """One of them: its orders, and all that it has told."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.seed = secrets.token_hex(32)
        self.told: list[dict[str, Any]] = []
        self.peer = ""
        self.address = ""
        self.port = 0
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.told.clear()
        self.home.mkdir(exist_ok=True)
        with (self.home / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "tests.e2e.bulk.blob_node", str(self.home), self.seed,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT,
                env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            )  # fmt: skip
        self._listening = asyncio.create_task(self._listen())
        where = await self.until(lambda told: "peer" in told)
        self.peer, self.address, self.port = where["peer"], where["address"], where["port"]

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.told.append(json.loads(line))
            self._notify()
        self.told.append({"ended": True})
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def order(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()

    async def until(self, condition: Callable[[dict[str, Any]], bool], since: int = 0) -> dict[str, Any]:
        """The first thing told, of those from number ``since`` on, for which the condition holds."""
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    for told in self.told[since:]:
                        if condition(told):
                            return told
                    assert "ended" not in self.told[-1:] or since, self.log()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"it did not happen; last: {self.told[-3:]}; log: {self.log()}") from None

    async def ask(self, **order: Any) -> dict[str, Any]:
        since = len(self.told)
        await self.order(**order)
        return await self.until(lambda told: "stored" not in told and "violation" not in told, since)

    def log(self) -> str:
        return (self.home / "log").read_text()[-2000:]

    def stored(self) -> int:
        return max((told.get("stored", 0) for told in self.told), default=0)

    async def knows(self, *sources: "BlobProcess", **ports: int) -> None:
        await self.ask(sources={s.peer: {"address": s.address, **ports} for s in sources})

    async def begin(self, blob: str, *sources: "BlobProcess") -> None:
        await self.order(**{"fetch": blob, "from": [source.peer for source in sources]})

    async def fetched(self) -> dict[str, Any]:
        """The report of the fetch that was begun."""
        told = await self.until(lambda told: "fetched" in told or "failed" in told)
        assert "fetched" in told, told
        return told

    async def kill(self) -> None:
        """As a crash would."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        if self._listening is not None:
            await self._listening


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Starts a node with each call; all are killed after the test."""
    made: list[BlobProcess] = []

    async def make() -> BlobProcess:
        node = BlobProcess(tmp_path / f"node{len(made)}")
        made.append(node)
        await node.start()
        return node

    yield make
    for node in made:
        await node.kill()
