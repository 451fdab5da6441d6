"""Real local peers as child processes: started together, watched, and gone whatever happens to us.

Each child is a whole node with its own temporary home on loopback. They start at the same time (loading the
network library is most of the work); all but the first wait on stdin for the address to bootstrap from. A
child asks the kernel for SIGTERM on our death, so not even ``kill -9`` of the demo leaves one behind.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sparkle_protocol.errors import LocalProtocolError, SparkleError

READY_TIMEOUT_S = 90.0  # five peers on one slow core load for half a minute
STOP_TIMEOUT_S = 10.0  # what a node promises
_LINE_BYTES = 1024 * 1024


@dataclass(eq=False, slots=True)
class LocalPeer:
    """One child process. ``ready`` holds its first JSON line once it has come."""

    name: str
    home: Path
    lying: bool
    process: asyncio.subprocess.Process
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    ready: "asyncio.Future[dict[str, Any]]"
    pump: "asyncio.Task[None]" = field(init=False)

    @property
    def peer_id(self) -> str:
        """Its id, once it is ready."""
        return str(self.ready.result()["peer_id"])

    @property
    def log(self) -> Path:
        """Where its log lines go."""
        return self.home.with_suffix(".log")


class Swarm:
    """Local peers of one network. Use as an async context manager: leaving it stops them all.

    Args:
        net: name of their network.
        honest: how many compute what they are asked to.
        liars: how many alter every result.
        first_number: the number in the first peer's name.
    """

    def __init__(self, net: str, honest: int, liars: int, *, first_number: int = 1) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sparkle-demo-"))
        self.peers: list[LocalPeer] = []
        self._net = net
        self._honest = honest
        self._liars = liars
        self._first_number = first_number

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if kind is None or not issubclass(kind, SparkleError):  # logs stay where they explain a failure
            shutil.rmtree(self.directory, ignore_errors=True)

    async def start(self, bootstrap: str | None = None) -> None:
        """Start all peers and return when every one is ready.

        Args:
            bootstrap: address of a node to join; without it the first peer is joined by the others.

        Raises:
            SparkleError: one of them did not start; the sentence says where its log is.
        """
        for offset in range(self._honest + self._liars):
            waits = bootstrap is not None or offset > 0
            peer = await self._spawn(f"peer {self._first_number + offset}", offset >= self._honest, waits)
            self.peers.append(peer)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                if bootstrap is None:
                    bootstrap = str((await self._ready(self.peers[0]))["addrs"][0])
                for peer in self.peers:
                    await _tell(peer, bootstrap)
                for peer in self.peers:
                    await self._ready(peer)
        except TimeoutError as error:
            late = next(peer for peer in self.peers if not peer.ready.done())
            raise SparkleError(
                f"{late.name} was not ready within {READY_TIMEOUT_S:.0f} s; its log is {late.log}"
            ) from error

    async def stop(self) -> None:
        """End all peers: politely, then by force. Idempotent."""
        for peer in self.peers:
            with contextlib.suppress(ProcessLookupError):
                peer.process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                for peer in self.peers:
                    await peer.process.wait()
        except TimeoutError:
            pass  # force follows
        finally:
            for peer in self.peers:
                # Each leads its own process group: this also ends what a crashed node left behind.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(peer.process.pid, signal.SIGKILL)
                peer.pump.cancel()
        for peer in self.peers:
            await peer.process.wait()
        await asyncio.gather(*(peer.pump for peer in self.peers), return_exceptions=True)
        self.peers.clear()

    async def _spawn(self, name: str, lying: bool, waits: bool) -> LocalPeer:
        home = self.directory / name.replace(" ", "-")
        command = [sys.executable, "-P", "-m", "sparkle_p2p.cli.demo_peer", "--parent", str(os.getpid())]
        command += ["--lie"] if lying else []
        command += ["--bootstrap-from-stdin"] if waits else []
        command += ["--", "--headless", "--json", "--home", str(home), "--net", self._net]
        command += ["--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SPARKLE_")}
        with home.with_suffix(".log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self.directory,
                env=environ,
                limit=_LINE_BYTES,
                start_new_session=True,  # Ctrl-C in the terminal reaches us alone; we stop them in order
            )
        if process.stdin is None or process.stdout is None:
            raise LocalProtocolError("both ends were asked to be pipes")
        ready = asyncio.get_running_loop().create_future()
        peer = LocalPeer(name, home, lying, process, process.stdin, process.stdout, ready)
        peer.pump = asyncio.create_task(_pump(peer), name=f"output of {name}")
        return peer

    async def _ready(self, peer: LocalPeer) -> dict[str, Any]:
        await asyncio.wait((peer.ready, peer.pump), return_when=asyncio.FIRST_COMPLETED)
        if not peer.ready.done():
            code = await peer.process.wait()
            raise SparkleError(f"{peer.name} ended at its start (exit code {code}){_last_words(peer)}")
        return peer.ready.result()


async def _pump(peer: LocalPeer) -> None:
    """Read the peer's output to its end: the first line says that it is ready, the rest is not needed."""
    with contextlib.suppress(ValueError):  # an endless line: not ours, and it will not become ready
        async for line in peer.stdout:
            if not peer.ready.done():
                document = json.loads(line)
                if document.get("event") == "ready":
                    peer.ready.set_result(document)


async def _tell(peer: LocalPeer, bootstrap: str) -> None:
    with contextlib.suppress(ConnectionError):  # it has ended; waiting for it to be ready says so
        peer.stdin.write(bootstrap.encode() + b"\n")
        await peer.stdin.drain()


def _last_words(peer: LocalPeer) -> str:
    lines = peer.log.read_text("utf-8", "replace").strip().splitlines()
    return f": {lines[-1][:300]}; its log is {peer.log}" if lines else f"; its log is {peer.log}"
