"""Real hosts in several processes, asked for one thing or for several at a time, killed and stopped at will."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.processes import ROOT, environment

READY_S = 120.0  # ten processes load libp2p at the same time
ANSWER_S = 60.0
STOP_S = 10.0
NET = "recording"


class HostProcess:
    """One process with some hosts."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready: asyncio.Future[list[tuple[str, str]]] = asyncio.get_running_loop().create_future()
        self.asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.pump = asyncio.create_task(self._pump(), name="output of hosts")

    async def _pump(self) -> None:
        if self.process.stdout is not None:
            async for line in self.process.stdout:
                document = json.loads(line)
                if "ready" in document:
                    self.ready.set_result([(peer, address) for peer, address in document["ready"]])
                    continue
                answer = self.asked.pop(document["number"], None)
                if answer is not None and not answer.done():
                    answer.set_result(document)
        for future in (self.ready, *self.asked.values()):
            if not future.done():
                future.set_exception(RuntimeError("a process with hosts has ended"))

    async def ask(self, number: int, what: str, **more: Any) -> dict[str, Any]:
        """Have something done; what came of it."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.asked[number] = answer
        if self.process.stdin is not None:
            self.process.stdin.write(json.dumps({"number": number, "what": what, **more}).encode() + b"\n")
            await self.process.stdin.drain()
        async with asyncio.timeout(ANSWER_S):
            return await answer


class Fleet:
    """So many hosts, by their numbers. Use as an async context manager: leaving it ends them all.

    Args:
        hosts: how many.
        each: how many of them share a process.
        log: what the processes say on stderr.
    """

    def __init__(self, hosts: int, each: int, log: Path) -> None:
        self.each = each
        self.peers: list[str] = []
        self.addresses: list[str] = []
        self.well = list(range(hosts))  # those that run
        self._hosts = hosts
        self._log = log
        self._processes: list[HostProcess] = []
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-P", "-m", "tests.bench.recorded_hosts"]
        with self._log.open("wb") as log:
            for first in range(0, self._hosts, self.each):
                count = min(self.each, self._hosts - first)
                process = await asyncio.create_subprocess_exec(
                    *(*command, str(count), NET, str(os.getpid())),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    cwd=ROOT,
                    env=environment(PYTHONPATH=str(ROOT)),
                    limit=1 << 24,
                    start_new_session=True,  # Ctrl-C in the terminal reaches us alone; we end them in order
                )
                self._processes.append(HostProcess(process))
        try:
            async with asyncio.timeout(READY_S):
                for one in self._processes:
                    for peer, address in await one.ready:
                        self.peers.append(peer)
                        self.addresses.append(address)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for one in self._processes:
            with contextlib.suppress(ProcessLookupError):
                one.process.kill()  # there is nothing that would be lost
        async with asyncio.timeout(STOP_S):
            for one in self._processes:
                await one.process.wait()
                one.pump.cancel()
        await asyncio.gather(*(one.pump for one in self._processes), return_exceptions=True)
        await asyncio.gather(*(one.ready for one in self._processes), return_exceptions=True)

    async def do(self, host: int, what: str, **more: Any) -> dict[str, Any]:
        """Have a host do something."""
        process = self._processes[host // self.each]
        return await process.ask(next(self._numbers), what, host=host % self.each, **more)

    async def states(self) -> dict[int, dict[str, Any]]:
        """What each host that runs has, and what it saw since it was asked before."""
        numbers = sorted({host // self.each for host in self.well})
        found = await asyncio.gather(*(self._processes[one].ask(next(self._numbers), "state") for one in numbers))
        return {
            one * self.each + position: state
            for one, answer in zip(numbers, found, strict=True)
            for position, state in enumerate(answer["hosts"])
        }

    def signal(self, processes: int, number: signal.Signals) -> list[int]:
        """Kill or stop some whole processes, the last of those that run; their hosts."""
        running = sorted({host // self.each for host in self.well})
        gone = running[-processes:]
        for one in gone:
            os.killpg(self._processes[one].process.pid, number)
        hosts = [host for host in self.well if host // self.each in gone]
        self.well = [host for host in self.well if host not in hosts]
        return hosts

    @property
    def pids(self) -> list[int]:
        """Of its processes with hosts that run."""
        running = sorted({host // self.each for host in self.well})
        return [self._processes[one].process.pid for one in running]
