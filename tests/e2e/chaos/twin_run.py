"""One schedule played twice: by real processes that are killed and suspended, and by the simulator.

The simulator is given what the real run cannot choose: when each killed node was ready again, since how long an
operating system takes to load a program is no part of its model. All else is the schedule's.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sparkle_p2p.node.standings import FLOOR_PERMILLE
from sparkle_protocol.effects import Record, Reply, Send, StoreFact
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.facts import Commits, FactCodec
from sparkle_sim.engine import Run
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import Fault as Planned
from sparkle_sim.scenario import JobPlan, Machines, Peers, Region, Scenario, Wires
from tests.e2e.chaos.chaos_run import ChaosRun, Outcome, leaves
from tests.e2e.chaos.checkers import JobEvidence, NodeEvidence
from tests.e2e.chaos.schedule import Fault, Schedule, Submission
from tests.e2e.node.processes import Swarm

PROGRAM = Path(__file__).with_name("twin_node.py")
NODES = 5
UNIT_S = 2.0
QUORUM = 2  # of "final", whose jobs are under the trust policy; so short a run ends before anybody is known
STOP = 5 * 10**8  # a unit is computed in milliseconds
JOBS = ((0.0, 0, 40), (1.0, 1, 20))  # at seconds, node, units
LENGTH_S = 45.0
# fault -> how often it is drawn, shortest and longest duration in seconds
KINDS = {"kill": (3, 0.0, 3.0), "stop": (3, 0.5, 8.0), "vanish": (1, 13.0, 22.0)}
FIRST_S = (2.0, 14.0)
PAUSE_S = (14.0, 28.0)  # between two faults of one node; it has to be back before the next
SETTLED_S = 30.0  # simulated peers know each other by then; so long before the first job
LONGEST_S = 600.0
LOOPBACK_MS = 1.0


def twin_schedule(seed: int) -> Schedule:
    """What happens in both runs of a seed."""
    names = tuple(f"n{number}" for number in range(NODES))
    faults = sorted(
        (fault for name in names for fault in _faults(Random(f"{seed}/twin/{name}"), name)),
        key=lambda fault: (fault.at_s, fault.target),
    )
    jobs = tuple(Submission(at_s, names[node], STOP, units, "final") for at_s, node, units in JOBS)
    return Schedule(seed, names, LENGTH_S, jobs, tuple(faults))


def _faults(rng: Random, target: str) -> Iterator[Fault]:
    at_s = rng.uniform(*FIRST_S)
    while True:
        kind = rng.choices(list(KINDS), [weight for weight, _, _ in KINDS.values()])[0]
        for_s = rng.uniform(*KINDS[kind][1:])
        if at_s + for_s >= LENGTH_S:
            return
        yield Fault(round(at_s, 3), kind, target, round(for_s, 3))
        at_s += for_s + rng.uniform(*PAUSE_S)


@dataclass(frozen=True, slots=True)
class Absence:
    """A node that did not run, or was suspended. Seconds count from when all nodes were connected."""

    kind: str  # "kill" or "freeze", as the simulator calls them
    node: int
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Played:
    """What a real run was and what it came to.

    Args:
        seed: of the schedule.
        jobs: seconds at which each was submitted, its node and its units.
        absences: of nodes.
        computed: results that any node signed a commitment to.
        makespan_s: from the first submission until all jobs had ended.
        load: of the machine: runnable processes per processor, on average over the run's last minute.
        violations: what the checkers of chaos runs found.
    """

    seed: int
    jobs: tuple[tuple[float, int, int], ...]
    absences: tuple[Absence, ...]
    computed: int
    makespan_s: float
    load: float
    violations: tuple[str, ...] = ()

    @property
    def units(self) -> int:
        """Of all jobs."""
        return sum(units for _, _, units in self.jobs)

    @property
    def replicas(self) -> float:
        """Computed results per unit."""
        return self.computed / self.units


@dataclass(frozen=True, slots=True)
class Simulated:
    """What the simulated twin came to, of one seed of its own."""

    computed: int
    makespan_s: float


# --- the real one -----------------------------------------------------------------------------------------


class TwinRun(ChaosRun):
    """A chaos run of nodes whose units take their time; it keeps when everything happened."""

    def __init__(self, schedule: Schedule, swarm: Swarm, outcome: Outcome) -> None:
        super().__init__(schedule, swarm, outcome)
        self.computed = 0
        self.began_s = 0.0  # by the wall clock, as the nodes tell the time

    def _judge(self, jobs: list[JobEvidence]) -> list[str]:
        self.computed = count_commits(self.swarm.net, (self._evidence(name) for name in self.nodes))
        return super()._judge(jobs)

    async def _start(self) -> None:
        await super()._start()
        self.began_s = time.time()

    async def _spawn(self, name: str) -> None:
        node = self.nodes[name]
        host, port = self._relays.listening[name]
        routes = json.dumps(self._relays.routes[name])
        program = [sys.executable, "-P", str(PROGRAM), str(os.getpid()), routes, str(UNIT_S)]
        first = next(iter(self.nodes))
        bootstrap = [] if name == first else ["--bootstrap", self._address(first)]
        await node.spawn("--no-mdns", *bootstrap, program=program, listen=f"/ip4/{host}/tcp/{port}")
        self._lives[name].append(node.events)

    def played(self) -> Played:
        """How it went."""
        events = [event for lives in self._lives.values() for life in lives for event in life]
        asked_s = {event["job"]: event["time"] for event in events if event["event"] == "job_submitted"}
        done_s = {event["job"]: event["time"] for event in events if event["event"] == "job_done"}
        numbers = {name: number for number, name in enumerate(self.schedule.nodes)}
        jobs = tuple(
            (round(asked_s[job] - self.began_s, 3), numbers[node], self._units(job))
            for job, (node, _) in self.acknowledged.items()
        )
        absences = tuple(one for name in self.schedule.nodes for one in self._absences(name, numbers[name]))
        makespan_s = max(done_s.values(), default=0.0) - min(asked_s.values(), default=0.0)
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        found = tuple(self.outcome.violations)
        return Played(
            self.schedule.seed, jobs, absences, self.computed, round(makespan_s, 3), round(load, 1), found
        )  # fmt: skip

    def _units(self, job: str) -> int:
        lives = (life for lives in self._lives.values() for life in lives)
        submitted = (event for life in lives for event in life if event["event"] == "job_submitted")
        return int(next(event["units"] for event in submitted if event["job"] == job))

    def _absences(self, name: str, number: int) -> Iterator[Absence]:
        """Each fault that struck a node; one that is killed before it is ready is away until a later life is."""
        kills = 0
        for fault in self.schedule.faults:
            if fault.target != name:
                continue
            if fault.kind == "stop":
                yield Absence("freeze", number, fault.at_s, round(fault.at_s + fault.for_s, 3))
                continue
            kills += 1
            ready_s = next(life[0]["time"] for life in self._lives[name][kills:] if life) - self.began_s
            yield Absence("kill", number, fault.at_s, round(ready_s, 3))


def count_commits(net: str, nodes: Iterable[NodeEvidence]) -> int:
    """Commitments of different workers, units and epochs in all that nodes ever stored."""
    codec = FactCodec(net)
    found: set[tuple[str, bytes, int, int]] = set()
    for raw in {raw for node in nodes for _, raw in (*node.facts, *node.deleted)}:
        fact = codec.open(raw)
        if isinstance(fact.payload, Commits):
            found |= {(fact.author, fact.job, item.unit, item.epoch) for item in fact.payload.items}
    return len(found)


async def play(schedule: Schedule, directory: Path) -> Played:
    """Run a schedule with real processes, in an empty directory. Raises SparkleError when it comes to no end."""
    outcome = Outcome(schedule)
    failure = ""
    async with Swarm(directory) as swarm:
        run = TwinRun(schedule, swarm, outcome)
        try:
            await run.play()
        except* (AssertionError, SparkleError) as failed:  # Waited is an AssertionError
            failure = "; ".join(str(error).split("\n---")[0] for error in leaves(failed))
        if failure:
            raise SparkleError(f"the real run of seed {schedule.seed} failed: {failure}")
        return run.played()


# --- its twin ---------------------------------------------------------------------------------------------


def scenario_of(played: Played) -> Scenario:
    """The same for the simulator."""
    machines = Machines(spread=0.0, noise=0.0)
    return Scenario(
        f"twin-{played.seed}",
        title="the twin of a chaos run of real processes",
        seconds=LONGEST_S,
        peers=Peers(NODES, arrive_s=2.0, machines=machines),
        wires=Wires(regions=[Region("loopback", 1.0, inside_ms=LOOPBACK_MS)]),
        jobs=[
            JobPlan(
                at_s=SETTLED_S + at_s,
                submitter=node,
                units=units,
                unit_s=UNIT_S,
                quorum=QUORUM,
                audit_permille=FLOOR_PERMILLE,
            )
            for at_s, node, units in played.jobs
        ],
        faults=[
            Planned(one.kind, SETTLED_S + one.from_s, for_s=one.to_s - one.from_s, peers=[one.node])
            for one in played.absences
        ],
    )


class _Counting:
    """A listener that counts commitments as ``count_commits`` does."""

    def __init__(self) -> None:
        self.found: set[tuple[str, bytes, int, int]] = set()

    def said(self, peer: Peer, effect: Send | Reply) -> None:
        """Nothing follows from what is said."""

    def wrote(self, peer: Peer, record: Record) -> None:
        """A record is on a peer's disk."""
        if isinstance(record, StoreFact) and isinstance(record.fact.payload, Commits):
            fact, items = record.fact, record.fact.payload.items
            self.found |= {(fact.author, fact.job, item.unit, item.epoch) for item in items}


def simulate(played: Played, seed: int) -> Simulated:
    """The simulated twin of a real run; ``seed`` decides what the schedule leaves open."""
    counting = _Counting()
    run = Run(scenario_of(played), seed)
    run.world.listen(counting)
    run.advance(LONGEST_S)
    if set(run.outcomes.values()) != {"job_done"} or len(run.outcomes) != len(played.jobs):
        raise AssertionError(f"the twin of seed {played.seed} did not end: {run.outcomes}")
    makespan_ns = max(run.ended_ns.values()) - min(run.submitted_ns.values())
    return Simulated(len(counting.found), makespan_ns / 1e9)
