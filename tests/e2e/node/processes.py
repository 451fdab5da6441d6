"""Real ``sparkle-node`` processes for tests: started together, followed by their JSON lines, gone at the end.

Nothing here sleeps. Tests wait for an event that a node prints, or for a condition that is looked at again
whenever any node has printed something (at the latest after ``LOOK_EVERY_S``). Every wait has a time-out, and its
failure shows the ends of all logs.
"""

import asyncio
import contextlib
import json
import os
import resource
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sparkle_p2p.api.client import LocalClient

PROGRAMS = Path(sys.executable).parent
READY_S = 60.0  # several nodes load libp2p at once on two busy cores
WAIT_S = 60.0
LOOK_EVERY_S = 0.1
LINE_BYTES = 1 << 20
Event = dict[str, Any]


class Waited(AssertionError):
    """Something did not happen in time."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed with ``--json``."""
        return json.loads(self.out)


class NodeProcess:
    """One node. ``events`` grows while it runs; ``ready`` is its first line."""

    def __init__(self, swarm: "Swarm", name: str, home: Path) -> None:
        self.swarm = swarm
        self.name = name
        self.home = home
        self.client = LocalClient(home)
        self.events: list[Event] = []
        self.process: asyncio.subprocess.Process
        self._pump: asyncio.Task[None] | None = None
        self._starts = 0

    # --- life ---------------------------------------------------------------------------------------------

    async def spawn(
        self,
        *arguments: str,
        program: Sequence[str] = (),
        lie: bool = False,
        waits: bool = False,
        listen: str = "/ip4/127.0.0.1/tcp/0",
    ) -> None:
        """Start the process; ``waits``: it loads its libraries and reads its bootstrap address from stdin."""
        self._starts += 1
        self.events = []
        command = [sys.executable, "-P", "-m", "sparkle_p2p.cli.demo_peer", "--parent", str(os.getpid())]
        command += ["--lie"] if lie else []
        command += ["--bootstrap-from-stdin"] if waits else []
        command = [*(program or [*command, "--"]), "--headless", "--json", "--home", str(self.home)]
        command += ["--net", self.swarm.net, "--listen", listen, *arguments]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SPARKLE_")}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=environ, limit=LINE_BYTES, start_new_session=True, cwd=self.swarm.directory,
            )  # fmt: skip
        self._pump = asyncio.create_task(self._read(self.events), name=f"output of {self.name}")

    async def _read(self, events: list[Event]) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            events.append(json.loads(line))
            self.swarm.look()
        self.swarm.look()

    async def tell_bootstrap(self, address: str) -> None:
        """Give a waiting node the address to join."""
        assert self.process.stdin is not None
        self.process.stdin.write(address.encode() + b"\n")
        await self.process.stdin.drain()

    def signal(self, number: int) -> None:
        """Send the node process a signal."""
        self.process.send_signal(number)

    async def kill(self) -> None:
        """``kill -9`` of the node process alone."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended(15.0)

    async def ended(self, timeout_s: float = 15.0) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            async with asyncio.timeout(timeout_s):
                code = await self.process.wait()
                if self._pump is not None:
                    await self._pump
        except TimeoutError:
            raise Waited(f"{self.name} did not end within {timeout_s} s\n{self.swarm.logs()}") from None
        return code

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process.returncode is None

    # --- what it says -------------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        """Its stderr, of all its starts."""
        return self.home.with_suffix(".log")

    @property
    def ready(self) -> Event:
        """Its first line."""
        return self.events[0]

    @property
    def peer_id(self) -> str:
        """Its id."""
        return str(self.ready["peer_id"])

    @property
    def address(self) -> str:
        """Where others dial it."""
        return str(self.ready["addrs"][0])

    async def wait_ready(self) -> None:
        """Return once it can be used."""
        await self.event("ready", READY_S)

    async def event(self, name: str, timeout_s: float = WAIT_S, count: int = 1, **fields: Any) -> Event:
        """The ``count``-th event of this name and with these fields, also one from before."""

        def found() -> Event | None:
            matching = (e for e in self.events if e["event"] == name and fields.items() <= e.items())
            return next((event for number, event in enumerate(matching, 1) if number == count), None)

        def seen() -> Event | None:
            event = found()
            if event is None and not self.running:
                raise Waited(f"{self.name} ended before its {name}\n{self.swarm.logs()}")
            return event

        what = f"event {name} {fields or ''} no. {count} of {self.name}"
        return await self.swarm.until(seen, what, timeout_s)  # type: ignore[return-value]

    def count(self, name: str, **fields: Any) -> int:
        """How many such events came."""
        return sum(1 for e in self.events if e["event"] == name and fields.items() <= e.items())

    # --- commands -----------------------------------------------------------------------------------------

    async def sparkle(self, *arguments: str, timeout_s: float = 60.0) -> Ran:
        """Run ``sparkle`` on this node."""
        return await run("sparkle", *arguments, "--home", str(self.home), timeout_s=timeout_s)

    async def status(self) -> dict[str, Any]:
        """The status document."""
        return await asyncio.to_thread(self.client.status)

    async def view(self) -> dict[str, Any]:
        """The whole view."""
        return json.loads(await asyncio.to_thread(self.client.view_bytes))  # type: ignore[no-any-return]

    async def peers(self) -> dict[str, dict[str, Any]]:
        """Connected peers by id."""
        return {peer["peer_id"]: peer for peer in await asyncio.to_thread(self.client.peers)}

    async def job(self, job: str) -> dict[str, Any]:
        """A job's document, checked for what always holds."""
        document = await asyncio.to_thread(self.client.job, job)
        check_job(document)
        return document

    async def why(self, subject: str | None = None) -> str:
        """Everything that ``why`` says, as one text."""
        document = await asyncio.to_thread(self.client.why, subject)
        return "\n".join(reason["sentence"] for reason in (document["headline"], *document["details"]))

    async def submit(self, kernel: str, units: int | None, verify: str = "final", **params: Any) -> str:
        """Submit a job; its id."""
        return await asyncio.to_thread(self.client.submit, kernel, params, units, verify)

    async def job_when(
        self, job: str, condition: Callable[[dict[str, Any]], bool], what: str, timeout_s: float = WAIT_S
    ) -> dict[str, Any]:
        """The job's document once the condition holds for it."""

        async def look() -> dict[str, Any] | None:
            document = await self.job(job)
            return document if condition(document) else None

        return await self.swarm.until(look, f"{what} (job {job[:8]} of {self.name})", timeout_s)  # type: ignore[return-value]

    async def done(self, job: str, timeout_s: float = 90.0) -> dict[str, Any]:
        """The job's document once it is done; fails at once if it ends otherwise."""

        def over(document: dict[str, Any]) -> bool:
            assert document["state"] in ("queued", "running", "done"), (document, self.swarm.logs())
            return document["state"] == "done"

        return await self.job_when(job, over, "done", timeout_s)

    def executors(self) -> list[int]:
        """Process ids of its worker processes."""
        return children(self.process.pid)


class Swarm:
    """Nodes of one network. Use as an async context manager: leaving it ends them all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.net = f"test-{secrets.token_hex(4)}"  # parallel tests must not meet
        self.nodes: list[NodeProcess] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            with contextlib.suppress(ProcessLookupError, AttributeError):
                os.killpg(node.process.pid, signal.SIGKILL)
        for node in self.nodes:
            with contextlib.suppress(AttributeError):
                await node.ended()

    def node(self, name: str) -> NodeProcess:
        """A node that is not started yet, with a home of its own."""
        node = NodeProcess(self, name, self.directory / name)
        self.nodes.append(node)
        return node

    async def start(
        self, count: int, *arguments: str, liars: int = 0, arguments_of: dict[int, Sequence[str]] | None = None
    ) -> list[NodeProcess]:
        """Nodes that joined the first of them (no mDNS), all ready and each connected to the first; liars last."""
        first = len(self.nodes)
        started = [self.node(f"node{first + number}") for number in range(count)]
        for number, node in enumerate(started):
            own = [*arguments, *(arguments_of or {}).get(number, ())]
            await node.spawn("--no-mdns", *own, waits=number > 0, lie=number >= count - liars)
        await started[0].wait_ready()
        for node in started[1:]:
            await node.tell_bootstrap(started[0].address)
        for node in started[1:]:
            await node.wait_ready()
        for node in started[1:]:
            await node.event("peer_up", peer=started[0].peer_id)
        return started

    async def until(
        self, look: Callable[[], object] | Callable[[], Awaitable[object]], what: str, timeout_s: float = WAIT_S
    ) -> Any:
        """What ``look`` returns once that is true, looked at whenever a node has said something."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._changed.clear()
                    found = look()
                    if isinstance(found, Awaitable):
                        found = await found
                    if found:
                        return found
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY_S):
                            await self._changed.wait()
        except TimeoutError:
            raise Waited(f"not within {timeout_s} s: {what}\n{self.logs()}") from None

    def look(self) -> None:
        """Something happened: conditions are looked at again."""
        self._changed.set()

    def logs(self) -> str:
        """The ends of all logs."""
        parts = []
        for node in self.nodes:
            text = node.log.read_text("utf-8", "replace") if node.log.exists() else ""
            parts.append(f"--- {node.name} ---\n" + "\n".join(text.splitlines()[-25:]))
        return "\n".join(parts)


def check_job(document: dict[str, Any]) -> None:
    """What every job document keeps to, whatever happens."""
    units = document["units"]
    assert sum(count for name, count in units.items() if name != "total") == units["total"], units
    assert min(units.values()) >= 0, units
    accepted = units["final"] + units["provisional"]
    assert sum(document["workers"].values()) >= units["final"] or document["state"] == "queued", document
    # What keepers accepted while the submitter was away may be known to it before the commitments of the workers are.
    assert document["replicas"] >= 0, document
    assert document["eta_s"] is None or 0 <= document["eta_s"] < 86_400, document
    if document["state"] == "done":
        assert accepted == units["total"], document


async def run(program: str, *arguments: str, timeout_s: float = 60.0) -> Ran:
    """Run one of our commands to its end."""
    process = await asyncio.create_subprocess_exec(
        str(PROGRAMS / program), *arguments, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise Waited(f"{program} {' '.join(arguments)} did not end within {timeout_s} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return Ran(process.returncode or 0, out.decode(), err.decode())


def children(pid: int) -> list[int]:
    """Child processes of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def process_state(pid: int) -> str:
    """The letter in ``/proc/PID/stat``: R, S, T and so on; X once the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    return process_state(pid) in "XZ"


@contextlib.contextmanager
def full_disk(node: NodeProcess) -> Iterator[None]:
    """The system refuses whatever the node would write to files; sockets are free (no root needed for this)."""
    pid = node.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        if node.running:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


async def computing(node: NodeProcess) -> int:
    """The worker process of a node that computes a unit now."""

    async def look() -> int | None:
        running = [unit for unit in (await node.view())["units"] if unit["state"] == "running"]
        executors = node.executors()
        return executors[0] if running and executors else None

    return int(await node.swarm.until(look, f"{node.name} computes"))
