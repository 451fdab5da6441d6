"""Runs that a seed makes up: a small world and what goes wrong in it, watched by every checker.

In all of them faults strike; in some nodes come and go as well, or some of them are adversaries, or both. Never more
goes wrong than what the checkers promise to withstand: three keepers of eight that are lost or lie. Two hundred runs
are made for every change, tens of thousands before a release (``python3 run.py soak --simulated``); there every fifth
is one in which work is paid for.
"""

import logging
import traceback
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from sparkle_sim import checkers
from sparkle_sim.adversaries import KINDS as ADVERSARIES
from sparkle_sim.checkers import Finding
from sparkle_sim.checkers.credit import PAID_S
from sparkle_sim.draws import Draws, draws
from sparkle_sim.engine import Run
from sparkle_sim.guard import no_outside
from sparkle_sim.scenario import (
    Adversaries,
    Checks,
    Churn,
    Credit,
    Fault,
    JobPlan,
    Machines,
    Peers,
    Scenario,
    Trust,
    Wires,
)
from sparkle_sim.trace import Trace

log = logging.getLogger(__name__)

PEERS = 20
FAULTY_S = 60.0  # all faults are over by then, and nodes have ceased to come and go
LIMIT_S = 1800.0  # for what is left to be done
SETTLE_S = 1.5 * PAID_S  # until what was accepted is paid for: lots are signed less often as time goes by
PRICE_MICRO = 1000  # of a unit
PAID_EVERY = 5
MAX_FAULTS = 8
MAX_LOST = 3  # peers that are gone for good, or lie as keepers: as many as a view of eight is to survive
MAX_SILENT = 1  # keepers that store nothing: of a view of four to seven, two hold up every result
WORKING = 4  # of so many peers at most one lies, or idles, as a worker
FAULTS = (
    "kill", "kill", "lose-disk", "freeze", "freeze", "partition", "one-way", "stall", "half-open", "slow-link",
    "slow", "skew", "slow-reader",
)  # fmt: skip
RAISED = "raised"  # stands for a checker where the cores themselves failed


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
    mix = draws(seed, "mix")  # of its own, so that the faults of a seed stay what they are
    restless, false = mix.below(3) == 0, mix.below(2) == 0
    permille, trust = _trust(draws(seed, "trust of seeds"))
    plan = JobPlan(at_s=random.uniform(3.0, 8.0), units=units, unit_s=unit_s, quorum=quorum, audit_permille=permille)
    return Scenario(
        f"seed-{seed}",
        seconds=LIMIT_S,
        seed=seed,
        peers=Peers(
            count=peers,
            arrive_s=3.0,
            machines=Machines(spread=0.3, skew_s=2.0),
            churn=_churn(draws(seed, "churn of seeds")) if restless else Churn(),
        ),
        wires=wires,
        jobs=[plan],
        faults=wrong,
        adversaries=_adversaries(draws(seed, "adversaries of seeds"), peers, MAX_LOST - lost) if false else [],
        trust=trust,
        checks=Checks(scan_every_s=20.0),
    )


def paid_scenario_of(seed: int) -> Scenario:
    """The same with more to do, for pay, and watched until all should be paid. In half of them settled jobs close."""
    scenario = scenario_of(seed)
    jobs = [replace(plan, units=4 * plan.units, unit_price_micro=PRICE_MICRO) for plan in scenario.jobs]
    close_after_s = (Credit().close_after_s, PAID_S)[draws(seed, "closing of seeds").below(2)]
    return replace(
        scenario,
        name=f"paid-seed-{seed}",
        seconds=LIMIT_S + 2 * SETTLE_S,
        jobs=jobs,
        credit=Credit(enabled=True, settle_s=SETTLE_S, close_after_s=close_after_s),
    )


def _fault(random: Draws, peers: int, *, may_lose: bool) -> Fault:
    """Something that goes wrong with a few peers; the submitter (peer 0) is not lost."""
    kind = FAULTS[random.below(len(FAULTS))]
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


def _churn(random: Draws) -> Churn:
    """Nodes that come and go while faults strike, often and at once: sessions of minutes would be over before."""
    kind = ("weibull", "weibull", "exponential")[random.below(3)]
    return Churn(
        kind,
        session_s=round(random.uniform(15.0, 120.0), 3),
        absence_s=round(random.uniform(2.0, 40.0), 3),
        shape=round(random.uniform(0.4, 1.2), 3),
        share=round(random.uniform(0.2, 1.0), 3),
        silent_share=(0.0, 0.3, 1.0)[random.below(3)],
        begin_s=round(random.uniform(2.0, 15.0), 3),
        end_s=FAULTY_S,
    )


def _trust(random: Draws) -> tuple[int, Trust]:
    """In half of the runs some workers are known, more or less well, and audited; whatever they do now."""
    permille = (0, 0, 50, 300, 1000)[random.below(5)] if random.below(5) else 50
    known = (0.0, 0.2, 0.6, 1.0)[random.below(4)]
    passes = (10, 200, 10_000)[random.below(3)]
    return permille, Trust(known=known, passes=passes, unit_s=5.0) if permille else Trust()


def _adversaries(random: Draws, peers: int, spared: int) -> list[Adversaries]:
    """One to three kinds, each of its own peers; of keepers that lie no more than may yet be lost."""
    found: list[Adversaries] = []
    free = list(range(1, peers))  # the submitter is honest
    keeping, silent, working = spared, min(spared, MAX_SILENT), peers // WORKING
    kinds = sorted(kind for kind, make in ADVERSARIES.items() if not make.of_credit)
    for _ in range(1 + random.below(3)):
        kind = kinds.pop(random.below(len(kinds)))
        make = ADVERSARIES[kind]
        most = working if make.keeps else silent if kind == "silent-keeper" else keeping
        if kind == "flood":
            most = min(most, 1)
        count = min(most, 1 + random.below(max(1, most)))
        if not count:
            continue
        who = sorted(free.pop(random.below(len(free))) for _ in range(count))
        if make.keeps:
            working -= count
        else:
            keeping -= count
            silent = min(silent - count if kind == "silent-keeper" else silent, keeping)
        rate = 1.0 if not make.rated or random.below(2) else round(random.uniform(0.1, 1.0), 3)
        found.append(Adversaries(kind, peers=who, rate=rate))
    return found


def outcome(scenario: Scenario, seed: int, *, trace: Trace | None = None, least_s: float = FAULTY_S) -> list[Finding]:
    """Run a scenario to its end, but no less than this, with its checkers; returns what they found."""
    run = Run(scenario, seed, trace=trace)
    watch = checkers.watch(run.world, scenario, stop=True)
    run.advance(scenario.seconds)
    if not watch.findings:
        run.world.kernel.run(int(min(least_s, scenario.seconds) * 1e9))
    return watch.finish()


def first_finding(scenario: Scenario, seed: int) -> Finding | None:
    """What goes wrong first in a run, if anything does: what ``shrink`` asks. An error of the cores is a finding."""
    try:
        with no_outside():
            return next(iter(outcome(scenario, seed)), None)
    except Exception as error:  # the boundary of a run: others go on
        log.exception("seed %s", seed)
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error}, in {where.name} of {where.filename.rpartition('/')[2]}"
        return Finding(RAISED, 0.0, None, text)


def examine(scenario: Scenario, seed: int) -> tuple[Scenario, Finding] | None:
    """Make a run; returns what a file of it needs if anything is found."""
    finding = first_finding(scenario, seed)
    return None if finding is None else (replace(scenario, title=str(finding)), finding)


def search(seeds: Iterable[int], failed: Callable[[int, Scenario, Finding], None], *, peers: int = PEERS) -> int:
    """Make the runs of these seeds; says how many there were, and ``failed`` is told of each that has a finding."""
    count = 0
    for seed in seeds:
        count += 1
        found = examine(scenario_of(seed, peers=peers), seed)
        if found is not None:
            failed(seed, *found)
    return count
