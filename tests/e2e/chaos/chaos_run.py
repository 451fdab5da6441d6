"""One chaos run: real nodes behind relays, the faults of a schedule, and what the checkers say afterwards."""

import asyncio
import contextlib
import json
import math
import os
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from sparkle_p2p.home import HomeDir
from sparkle_protocol.errors import PeerUnreachable, SparkleError
from tests.e2e.chaos.checkers import Event, JobEvidence, NodeEvidence, keep_deleted, violations
from tests.e2e.chaos.faults import Faults, check_running
from tests.e2e.chaos.ledgers import ledger_violations
from tests.e2e.chaos.relay import Relays, until
from tests.e2e.chaos.schedule import PRIMES, Fault, Schedule, Submission
from tests.e2e.ledger.books import SETTLED_S, owes
from tests.e2e.node.processes import NodeProcess, Swarm, Waited

PORT = 4001
CONNECTED_S = 30.0
PATIENCE_S = 12.0  # after the last fault; beyond that the nodes are asked what they wait for
SETTLE_S = 90.0  # after that: a lease and a reveal may have to run out, 30 s each
LONGEST_STORY = 60  # lines of each node's log in a report
TRACEBACK = "Traceback (most recent call last)"
PROGRAM = Path(__file__).with_name("relayed_node.py")


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    schedule: Schedule
    violations: list[str] = field(default_factory=list)
    timeline: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    jobs: int = 0
    units: int = 0
    connections: int = 0  # through relays
    seconds: float = 0.0
    settle_s: float = 0.0  # from the last fault to the end of the last job

    @property
    def command(self) -> str:
        """What runs the same schedule again."""
        plan = self.schedule
        return (
            f"python3 run.py soak --first {plan.seed} --seeds 1 --nodes {len(plan.nodes)} --length {plan.length_s:g}"
        )

    def report(self) -> str:
        """Everything that somebody needs who looks for the cause."""
        return "\n".join(
            [
                f"seed {self.schedule.seed}: {len(self.violations)} violations",
                *(f"  {violation}" for violation in self.violations),
                "timeline:",
                *(f"  {line}" for line in self.timeline),
                *(f"--- end of the log of {name} ---\n{text}" for name, text in self.logs.items()),
                f"run it again: {self.command}",
            ]
        )


async def chaos(schedule: Schedule, directory: Path) -> Outcome:
    """Run a schedule in an empty directory. A violation is an outcome; an exception is a fault of the harness."""
    outcome = Outcome(schedule)
    began = time.monotonic()
    async with Swarm(directory) as swarm:
        run = ChaosRun(schedule, swarm, outcome)
        try:
            await run.play()
        except* (AssertionError, SparkleError) as failed:  # Waited is an AssertionError
            outcome.violations += [f"{type(error).__name__}: {error}".split("\n---")[0] for error in leaves(failed)]
        outcome.logs = {node.name: _log_end(node) for node in swarm.nodes}
    outcome.seconds = time.monotonic() - began
    return outcome


class ChaosRun:
    """Nodes by name, the relays between them, and the faults under way."""

    def __init__(self, schedule: Schedule, swarm: Swarm, outcome: Outcome) -> None:
        self.schedule = schedule
        self.swarm = swarm
        self.outcome = outcome
        self.nodes: dict[str, NodeProcess] = {name: swarm.node(name) for name in schedule.nodes}
        self.peer_ids: dict[str, str] = {}
        self.acknowledged: dict[str, tuple[str, int]] = {}  # job -> its node and its right answer
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # of each node and link
        self._struck: dict[str, float] = {}  # node -> when its last fault so far was over
        self._lives: dict[str, list[list[Event]]] = {name: [] for name in schedule.nodes}
        self._relays: Relays
        self._faults: Faults
        self._began_s = 0.0

    async def play(self) -> None:
        """Everything from the first start to the last look at the databases."""
        net = f"127.{random.randrange(16, 255)}.{random.randrange(256)}"  # so that runs do not meet
        listening = {name: (f"{net}.{number + 1}", PORT) for number, name in enumerate(self.nodes)}
        async with Relays(self.schedule.seed, listening) as self._relays:
            self._faults = Faults(self.nodes, self._relays.links, self._spawn)
            await self._start()
            self._began_s = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as group:
                for submission in self.schedule.submissions:
                    group.create_task(self._submit(submission))
                for fault in self.schedule.faults:
                    group.create_task(self._strike(fault))
            jobs = await self._settle()
            await self._pay(jobs)
            await self._stop()
            self.outcome.connections = sum(link.connections for link in self._relays.links.values())
        self.outcome.violations += await asyncio.to_thread(self._judge, jobs)  # other runs may be under way
        self.outcome.jobs = len(jobs)
        self.outcome.units = sum(job.document["units"]["total"] for job in jobs)
        if not jobs:
            self.outcome.violations.append("no job came about, so the run shows nothing")

    # --- nodes --------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """All nodes at once; returns when each knows the first."""
        for name, node in self.nodes.items():
            with HomeDir.open(node.home) as home:
                self.peer_ids[name] = home.identity.peer_id
        for name in self.nodes:
            await self._spawn(name)
        first, *others = self.nodes.values()
        for node in self.nodes.values():
            await node.wait_ready()
            await asyncio.to_thread(keep_deleted, node.home / "node.db")
        for node in others:
            await node.event("peer_up", CONNECTED_S, peer=first.peer_id)

    async def _spawn(self, name: str) -> None:
        node = self.nodes[name]
        host, port = self._relays.listening[name]
        program = [sys.executable, "-P", str(PROGRAM), str(os.getpid()), json.dumps(self._relays.routes[name])]
        first = next(iter(self.nodes))
        bootstrap = [] if name == first else ["--bootstrap", self._address(first)]
        await node.spawn("--no-mdns", *bootstrap, program=program, listen=f"/ip4/{host}/tcp/{port}")
        self._lives[name].append(node.events)

    def _address(self, name: str) -> str:
        host, port = self._relays.listening[name]
        return f"/ip4/{host}/tcp/{port}/p2p/{self.peer_ids[name]}"

    async def _stop(self) -> None:
        for name, node in self.nodes.items():
            code = await node.terminate()
            if code != 0:
                self.outcome.violations.append(f"{name} ended with code {code} when it was asked to leave")
            if TRACEBACK in node.log.read_text("utf-8", "replace"):
                self.outcome.violations.append(f"{name} logged a failure that nobody expected: see '{TRACEBACK}'")

    # --- what the schedule says ---------------------------------------------------------------------------

    async def _at(self, at_s: float) -> None:
        await until(self._began_s + at_s)

    def _note(self, text: str) -> None:
        now_s = asyncio.get_running_loop().time() - self._began_s
        self.outcome.timeline.append(f"{now_s:7.2f} s  {text}")

    async def _submit(self, submission: Submission) -> None:
        await self._at(submission.at_s)
        self._note(str(submission))
        node = self.nodes[submission.node]
        asked, starting = asyncio.get_running_loop().time(), not node.events
        try:
            job = await node.submit("prime_count", submission.units, submission.verify, stop=submission.stop)
        except SparkleError as error:
            self._note(f"{submission.node} did not take it: {error}")
            struck = starting or self._struck.get(submission.node, -math.inf) >= asked
            if not struck and not isinstance(error, PeerUnreachable):  # which links that are cut explain
                self.outcome.violations.append(f"{submission.node} refused a job for no reason: {error}")
            return
        self.acknowledged[job] = (submission.node, PRIMES[submission.stop])
        self._note(f"{submission.node} published it as job {job[:8]}")

    async def _strike(self, fault: Fault) -> None:
        await self._at(fault.at_s)
        async with self._turns[fault.target]:  # a late end of the one before must not meet the next
            self._struck[fault.target] = math.inf
            try:
                async with self._faults.of(fault):
                    self._note(str(fault))
                    await self._at(fault.at_s + fault.for_s)
            except ProcessLookupError:
                raise Waited(f"{fault.target} ended by itself before or during {fault}") from None
        self._struck[fault.target] = asyncio.get_running_loop().time()
        if fault.for_s:
            self._note(f"end of {fault}")

    # --- afterwards ---------------------------------------------------------------------------------------

    async def _settle(self) -> list[JobEvidence]:
        """Wait until every job that any node knows as its own has ended, and give them all."""
        self._note("the last fault is over")
        began = time.monotonic()
        for node in self.nodes.values():
            await node.wait_ready()
        found: list[JobEvidence] = []
        with contextlib.suppress(Waited):
            await self.swarm.until(self._all_ended, "every job has ended", PATIENCE_S)
        if not await self._all_ended():
            await self._explain()
            with contextlib.suppress(Waited):  # the checker of each job says which did not end
                await self.swarm.until(self._all_ended, "every job has ended", SETTLE_S)
        for name, node in self.nodes.items():
            for row in await asyncio.to_thread(node.client.jobs):
                answer = PRIMES[row["params"]["stop"]]
                found.append(JobEvidence(name, await node.job(row["job"]), answer))
        self.outcome.settle_s = time.monotonic() - began
        self._note("no more waiting for jobs")
        shown = {job.document["job"]: job.node for job in found}
        for job, (name, _) in self.acknowledged.items():
            if shown.get(job) != name:
                self.outcome.violations.append(f"{name} acknowledged job {job[:8]} and knows nothing of it")
        return found

    async def _pay(self, jobs: list[JobEvidence]) -> None:
        """Wait until whoever worked for a job that is done has its pay."""
        waiting = [job for job in jobs if job.document["state"] == "done"]

        async def all_paid() -> bool:
            while waiting and not await owes(self.nodes[waiting[-1].node], waiting[-1].document["job"]):
                waiting.pop()
            return not waiting

        with contextlib.suppress(Waited):  # the checker of the ledgers says what is not paid
            await self.swarm.until(all_paid, "everybody is paid", SETTLED_S)
        self._note("no more waiting for pay")

    async def _explain(self) -> None:
        """Note why jobs take so long."""
        for name, node in self.nodes.items():
            for row in await asyncio.to_thread(node.client.jobs):
                if row["state"] in ("queued", "running"):
                    self._note(f"{name}, asked why about {row['job'][:8]}: {await node.why(row['job'])}")

    async def _all_ended(self) -> bool:
        for node in self.nodes.values():
            check_running(node)
            jobs = await asyncio.to_thread(node.client.jobs)
            if any(row["state"] in ("queued", "running") for row in jobs):
                return False
        return True

    def _judge(self, jobs: list[JobEvidence]) -> list[str]:
        homes = {name: node.home for name, node in self.nodes.items()}
        return [
            *violations(self.swarm.net, [self._evidence(name) for name in self.nodes], jobs),
            *ledger_violations(self.swarm.net, homes),
        ]

    def _evidence(self, name: str) -> NodeEvidence:
        node = self.nodes[name]
        events = [event for life in self._lives[name] for event in life]
        evidence = NodeEvidence(name, self.peer_ids[name], events=events)
        evidence.read(node.home / "node.db")
        return evidence


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions in a group, however deep."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _log_end(node: NodeProcess) -> str:
    text = node.log.read_text("utf-8", "replace") if node.log.exists() else ""
    return "\n".join(text.splitlines()[-LONGEST_STORY:])
