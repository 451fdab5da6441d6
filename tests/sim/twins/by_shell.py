"""A script run by whole nodes: shell, lanes and SQLite as they are, on the in-memory overlay and virtual time.

Replaced are what a node gets from outside: the clock, chance, the network, and the process that computes units (which
calls the same kernel). No local API is served, no blob is moved,
and there is no credit: jobs are free, and all weigh the same.
"""

import asyncio
import base64
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from sparkle_p2p.config import NodeConfig
from sparkle_p2p.home import KEY_FILE, HomeDir
from sparkle_p2p.net.memory import MemoryNetwork, MemoryOverlay
from sparkle_p2p.node import node as node_module
from sparkle_p2p.node import results
from sparkle_p2p.node.node import Node
from sparkle_p2p.runtime import clock
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, ResultHash
from sparkle_protocol.work.fairness import equal_weight
from sparkle_sim.world import EPOCH_MS, NET
from tests.e2e.chaos.checkers import keep_deleted
from tests.e2e.chaos.relay import until
from tests.sim.twins.said import Left
from tests.sim.twins.script import DEVICE, KERNEL, ROUND_TRIP_S, SYNC_S, Act, Machine, Script
from tests.sim.twins.virtual_loop import VirtualLoop


class Works:
    """A ``UnitExecutor`` that computes one unit after the other on the loop, in its virtual time."""

    missing_protections: tuple[str, ...] = ()

    def __init__(self, script: Script, machine: Machine) -> None:
        self._script = script
        self._machine = machine
        self._turn = asyncio.Lock()

    async def run(
        self,
        kernel: str,
        version: int,
        unit: dict[str, Any],
        on_progress: Callable[[float], None],
        on_begin: Callable[[], None] | None = None,
    ) -> bytes:
        """What the script says of the unit. Raises ComputeError."""
        async with self._turn:
            if on_begin is not None:
                on_begin()
            await until(asyncio.get_running_loop().time() + self._script.seconds(unit))
            return self._script.outcome(self._machine, unit)

    async def run_arrays(self, *_arguments: Any, **_more: Any) -> None:
        """No script has arrays."""
        raise NotImplementedError

    def pause(self) -> None:
        """No script pauses."""

    def resume(self) -> None:
        """No script pauses."""

    async def stop(self) -> None:
        """There is no process."""


@dataclass(slots=True)
class _Life:
    """A node that runs."""

    node: Node
    home: HomeDir
    task: asyncio.Task[None]


class ShellTwin:
    """One run in an empty directory. ``specs`` are the jobs by name, as the node made them."""

    def __init__(self, script: Script, identities: Sequence[Identity], directory: Path, seed: int) -> None:
        self.script = script
        self.identities = identities
        self.specs: dict[str, JobSpec] = {}
        self.left = Left()
        self._homes = [directory / f"node{number}" for number in range(len(identities))]
        self._network: MemoryNetwork[MemoryOverlay] = MemoryNetwork(Random(seed), delay_s=ROUND_TRIP_S / 2)
        self._lives: dict[int, _Life] = {}
        self._seed = seed

    def run(self) -> Left:
        """What it left."""
        for home, identity in zip(self._homes, self.identities, strict=True):
            _give_identity(home, identity)
        loop = VirtualLoop(SYNC_S)
        with asyncio.Runner(loop_factory=lambda: loop) as runner, virtual(loop, self._seed):
            runner.run(self._play())
        for number, home in enumerate(self._homes):
            self._read(number, home / "node.db")
        return self.left

    async def _play(self) -> None:
        async with asyncio.TaskGroup() as group:
            for act in self.script.acts:
                await until(act.at_s)
                await self._act(act, group)
            await until(self.script.length_s)
            self._look()
            for number in list(self._lives):
                await self._end(number)

    async def _act(self, act: Act, group: asyncio.TaskGroup) -> None:
        if act.what == "start":
            await self._start(act.node)
            return
        if act.what == "kill":
            await self._kill(act.node)
            return
        node = self._lives[act.node].node
        if act.what == "submit":  # the call returns once the job is published: the script goes on meanwhile
            group.create_task(self._submit(node, act.job))
        elif act.what == "cancel":
            await node.cancel(self.left.jobs[act.job].hex())
        else:
            await node.requeue(self.left.jobs[act.job].hex())

    async def _submit(self, node: Node, name: str) -> None:
        job = self.script.jobs[name]
        known = set(node.submitter.jobs)
        request = SubmitRequest(KERNEL.name, {"stop": job.stop}, job.units, job.verify, free=True)
        submitting = asyncio.create_task(node.submit(request))
        while not set(node.submitter.jobs) - known:  # noqa: ASYNC110 - a core has no events to wait for
            await asyncio.sleep(0)
        (job_id,) = set(node.submitter.jobs) - known
        self.left.jobs[name] = job_id
        self.specs[name] = node.submitter.jobs[job_id].state.spec
        with contextlib.suppress(asyncio.CancelledError, Exception):  # its node may be killed meanwhile
            await submitting

    # --- nodes --------------------------------------------------------------------------------------------

    async def _start(self, number: int) -> None:
        home = HomeDir.open(self._homes[number])
        machine, script = self.script.machines[number], self.script
        config = NodeConfig(
            home.path, net=NET, listen=(_listen(number),), mdns=False, work=machine.works,
            bootstrap=() if not number else (f"{_listen(0)}/p2p/{self.identities[0].peer_id}",),
        )  # fmt: skip
        node = Node(
            config, home, overlay_factory=self._overlay, executor_factory=lambda: Works(script, machine),
            weigh=equal_weight,
        )  # fmt: skip
        first = not (home.path / "node.db").exists()
        self._lives[number] = _Life(node, home, asyncio.create_task(node.run()))
        await node.wait_ready()
        if first:
            keep_deleted(home.path / "node.db")

    def _overlay(self, config: NodeConfig, home: HomeDir) -> MemoryOverlay:
        return MemoryOverlay(self._network, home.identity, net=config.net, listen=config.listen)

    async def _kill(self, number: int) -> None:
        """As ``kill -9`` does: nothing more is said, and what is not on disk by now is lost."""
        life = self._lives.pop(number)
        db, life.node.store._db = life.node.store._db, None
        life.task.cancel()
        await asyncio.gather(life.task, return_exceptions=True)
        if db is not None:
            db.close()
        life.home.close()

    async def _end(self, number: int) -> None:
        life = self._lives.pop(number)
        life.node.stop()
        await life.task
        life.home.close()

    # --- what is left -------------------------------------------------------------------------------------

    def _look(self) -> None:
        for name, job in self.left.jobs.items():
            submitter = next(act.node for act in self.script.acts if (act.what, act.job) == ("submit", name))
            kept = self._lives[submitter].node.submitter.jobs[job]
            self.left.outcomes[name], self.left.dead[name] = kept.outcome, dict(sorted(kept.dead.items()))

    def _read(self, number: int, database: Path) -> None:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT raw FROM facts UNION SELECT raw FROM deleted_facts").fetchall()
            self.left.facts[number] = [raw for (raw,) in rows]
            for job, name, result in db.execute("SELECT job, hash, result FROM results"):
                self.left.results[number][JobId(job), ResultHash(name)] = result


@contextlib.contextmanager
def virtual(loop: VirtualLoop, seed: int) -> Iterator[None]:
    """Nodes take the loop's time for the real one, and their chance from a seed."""

    def now_ns(*_clock: int) -> int:
        return int(loop.time() * 1e9)

    made = iter(range(1 << 30))
    times = SimpleNamespace(clock_gettime_ns=now_ns, time_ns=lambda: now_ns() + EPOCH_MS * 1_000_000)
    chance = SimpleNamespace(SystemRandom=lambda: Random(f"{seed}/{next(made)}"))
    secret = Random(f"{seed}/secrets")
    with (
        patch.object(clock, "time", times),
        patch.object(node_module, "random", chance),
        patch.object(node_module, "device_class", lambda: DEVICE),
        patch.object(results, "secrets", SimpleNamespace(token_bytes=secret.randbytes)),
    ):
        yield


def _listen(number: int) -> str:
    return f"/ip4/127.0.0.1/tcp/{4001 + number}"


def _give_identity(home: Path, identity: Identity) -> None:
    """A home whose node is this one."""
    home.mkdir(mode=0o700)
    line = f"sparkle-key-1 {base64.b64encode(identity.private_bytes()).decode()}\n"
    (home / KEY_FILE).touch(mode=0o600)
    (home / KEY_FILE).write_text(line)
