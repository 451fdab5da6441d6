"""Runs that a seed makes up: a small world and a list of faults, watched by every checker.

Two hundred of them are run for every change, tens of thousands before a release.
"""

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from sparkle_sim import checkers
from sparkle_sim.checkers import Finding
from sparkle_sim.draws import Draws, draws
from sparkle_sim.engine import Run
from sparkle_sim.scenario import Checks, Fault, JobPlan, Machines, Peers, Scenario, Wires
from sparkle_sim.trace import Trace

PEERS = 20
FAULTY_S = 60.0  # everything that goes wrong is over by then
LIMIT_S = 1800.0  # for what is left to be done
MAX_FAULTS = 8
MAX_LOST = 3  # peers that are gone for good: as many keepers as a view is to survive
KINDS = (
    "kill", "kill", "lose-disk", "freeze", "freeze", "partition", "one-way", "slow-link", "slow", "skew",
    "slow-reader",
)  # fmt: skip


def scenario_of(seed: int, *, peers: int = PEERS) -> Scenario:
    """The run that a seed makes up."""
    random = draws(seed, "seeds")
    units, unit_s = 2 + random.below(7), random.uniform(1.0, 8.0)
    quorum = 2 + (random.random() < 0.2)
    wires = Wires(
        loss=(0.0, 0.0, 0.02, 0.1)[random.below(4)],
        twice=(0.0, 0.1)[random.below(2)],
        jitter=random.uniform(0.0, 0.5),
        nat_share=(0.0, 0.3)[random.below(2)],
    )
    lost, wrong = 0, []
    for _ in range(1 + random.below(MAX_FAULTS)):
        fault = _fault(random, peers, may_lose=lost < MAX_LOST)
        lost += fault.kind == "lose-disk" or (fault.kind == "kill" and not fault.for_s)
        wrong.append(fault)
    return Scenario(
        f"seed-{seed}",
        seconds=LIMIT_S,
        seed=seed,
        peers=Peers(count=peers, arrive_s=3.0, machines=Machines(spread=0.3, skew_s=2.0)),
        wires=wires,
        jobs=[JobPlan(at_s=random.uniform(3.0, 8.0), units=units, unit_s=unit_s, quorum=quorum)],
        faults=wrong,
        checks=Checks(scan_every_s=20.0),
    )


def _fault(random: Draws, peers: int, *, may_lose: bool) -> Fault:
    """Something that goes wrong with a few peers; the submitter (peer 0) is not lost."""
    kind = KINDS[random.below(len(KINDS))]
    if kind == "lose-disk" and not may_lose:
        kind = "kill"
    at_s = random.uniform(2.0, 40.0)
    for_s = random.uniform(0.05, 1.0) if random.random() < 0.3 else random.uniform(1.0, FAULTY_S - at_s)
    many = 1 if kind == "lose-disk" else 1 + random.below(4 if random.random() < 0.7 else peers // 2)
    first = 1 if kind == "lose-disk" else 0
    hit = sorted({first + random.below(peers - first) for _ in range(many)})
    factor = random.uniform(2.0, 50.0)
    amount_s = random.uniform(-3600.0, 3600.0) if kind == "skew" else 0.0
    return Fault(kind, round(at_s, 3), round(for_s, 3), peers=hit, factor=factor, amount_s=amount_s)


def outcome(scenario: Scenario, seed: int, *, trace: Trace | None = None, least_s: float = FAULTY_S) -> list[Finding]:
    """Run a scenario to its end, but no less than this, with its checkers; returns what they found."""
    run = Run(scenario, seed, trace=trace)
    watch = checkers.watch(run.world, scenario, stop=True)
    run.advance(scenario.seconds)
    if not watch.findings:
        run.world.kernel.run(int(min(least_s, scenario.seconds) * 1e9))
    return watch.finish()


def first_finding(scenario: Scenario, seed: int) -> Finding | None:
    """What goes wrong first in a run, if anything does: what ``shrink`` asks."""
    return next(iter(outcome(scenario, seed)), None)


def search(seeds: Iterable[int], failed: Callable[[int, Scenario, Finding], None], *, peers: int = PEERS) -> int:
    """Make the runs of these seeds; says how many there were, and ``failed`` is told of each that has a finding."""
    count = 0
    for seed in seeds:
        count += 1
        scenario = scenario_of(seed, peers=peers)
        finding = first_finding(scenario, seed)
        if finding is not None:
            failed(seed, replace(scenario, title=str(finding)), finding)
    return count
