"""Those who cheat the trust policy, in a small world of production cores: what they gain, and what it costs.

Costs are printed (``pytest -s``). The bounds follow from the law of ``trust/parameters.py``: who is compared with
probability a per result has 1/a - 1 wrong ones accepted, on average, before it is found out; a gang that has a share
g of all audits gains 1/(1 - g) times as many.
"""

import pytest

from sparkle_sim.adversaries.sleeper import ASLEEP
from sparkle_sim.adversaries.trifles import TIMES
from sparkle_sim.draws import draws
from sparkle_sim.engine import Run
from sparkle_sim.kernel import SECOND
from sparkle_sim.scenario import Adversaries, JobPlan, Peers, Scenario, Trust
from tests.sim.test_adversaries import Played

SEEDS = (1, 2)
PEERS, UNITS, UNIT_S = 13, 120, 5.0
YOUNG, GROWN = 60, 2000  # passes: audited with probability 0.89, and 0.2
SURE = 7.0  # times the mean of a geometric law: exceeded once in a thousand


def play(
    seed: int,
    *entries: Adversaries,
    known: float = 1.0,
    passes: int = GROWN,
    later: JobPlan | None = None,
    **changes: object,
) -> Played:
    """A job whose submitter knows its workers, and does not work itself."""
    plan = {"units": UNITS, "unit_s": UNIT_S, "audit_permille": 50, **changes}
    jobs = [JobPlan(**plan)]  # type: ignore[arg-type]
    if later is not None:
        jobs.append(later)
    scenario = Scenario(
        "trusting", seconds=7200.0, peers=Peers(count=PEERS), jobs=jobs,
        adversaries=list(entries), trust=Trust(known=known, passes=passes, unit_s=UNIT_S),
    )  # fmt: skip
    run = Run(scenario, seed)
    run.world.peers[0].works = False
    played = Played(run, None)  # type: ignore[arg-type]
    run.world.watchers.append(played)
    run.advance(1e9)
    return played


def strangers(seed: int, known: float) -> list[int]:
    """Whom the submitter does not know."""
    return [number for number in range(1, PEERS) if draws(seed, number, "known").random() >= known]


HONEST: dict[tuple[int, int], tuple[float, float]] = {}


def show(kind: str, seed: int, played: Played, passes: int = GROWN) -> None:
    """What it cost, beside an honest world."""
    if (seed, passes) not in HONEST:
        honest = play(seed, passes=passes)
        HONEST[seed, passes] = honest.replicas, honest.makespan_s
    replicas, makespan_s = HONEST[seed, passes]
    done = sum(job.replicas for job in played.jobs) / sum(job.state.spec.units for job in played.jobs)
    print(
        f"\n{kind:18} seed {seed}: {done:.2f} results per unit ({replicas:.2f} if honest), "
        f"{makespan(played):.0f} s ({makespan_s:.0f} s for {UNITS} units), {played.wrong} wrong, "
        f"rejected {sorted(rejected(played))}"
    )


def makespan(played: Played) -> float:
    """From the first submission to the last end."""
    run = played.run
    return (max(run.ended_ns.values()) - min(run.submitted_ns.values())) / SECOND


def rejected(played: Played) -> set[int]:
    """By any of the jobs."""
    return {played.run.world.index[peer] for job in played.jobs for peer in job.rejected}


def check(played: Played, wrong: float) -> None:
    """The job is done, nobody honest is rejected, and no more is wrong than the law lets through."""
    assert {*played.run.outcomes.values()} == {"job_done"}
    assert set(played.violations) <= played.bad
    assert rejected(played) <= played.bad
    assert played.wrong <= wrong


def gains(rate: float, cheaters: int) -> float:
    """Wrong results that so many may have accepted, all but once in a thousand runs."""
    return SURE * (1.0 / rate - 1.0) * cheaters


@pytest.mark.parametrize(
    ("passes", "audited", "rate", "seed"), [(YOUNG, 0.89, 1.0, 1), (GROWN, 0.2, 1.0, 2), (GROWN, 0.2, 0.2, 3)]
)
def test_a_sleeper_gains_little_at_any_rate(passes: int, audited: float, rate: float, seed: int) -> None:
    played = play(seed, Adversaries("sleeper", share=0.2, rate=rate), passes=passes, units=3 * ASLEEP * (PEERS - 1))
    show(f"sleeper {rate:g}", seed, played, passes)
    check(played, gains(audited, len(played.bad)))
    assert played.rejected or rate < 1.0


@pytest.mark.parametrize(("rate", "seed"), [(1.0, 1), (0.2, 2)])
def test_a_gang_gains_as_much_as_its_share_of_audits_lets_it(rate: float, seed: int) -> None:
    played = play(seed, Adversaries("gang", share=0.25, rate=rate), units=3 * ASLEEP * (PEERS - 1))
    show(f"gang {rate:g}", seed, played)
    check(played, gains(0.2, len(played.bad)) / (1.0 - 0.25))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("passes", "audited"), [(YOUNG, 0.89), (GROWN, 0.2)])
def test_framers_convict_themselves(passes: int, audited: float, seed: int) -> None:
    """What they take for an audit may be a unit that nobody else has: then the law of sleepers holds for them."""
    played = play(seed, Adversaries("framer", share=0.2), passes=passes)
    show("framer", seed, played, passes)
    check(played, gains(audited, len(played.bad)))
    assert played.rejected == played.bad
    assert played.replicas < HONEST[seed, passes][0] + 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_slow_workers_hold_up_little(seed: int) -> None:
    played = play(seed, Adversaries("sponge", share=0.25))
    show("sponge", seed, played)
    check(played, 0)
    assert not played.rejected
    assert played.makespan_s < 3 * HONEST[seed, GROWN][1]


@pytest.mark.parametrize("kind", ["sponge", "whitewash", "collude"])
def test_strangers_have_nothing_to_say(kind: str) -> None:
    seed, known = 1, 0.5
    played = play(seed, Adversaries(kind, peers=strangers(seed, known)), known=known)
    show(f"strangers: {kind}", seed, played)
    check(played, 0)
    assert played.replicas < HONEST[seed, GROWN][0] + 0.5
    assert played.makespan_s < 4 * HONEST[seed, GROWN][1], "half of the workers are not there"


@pytest.mark.parametrize("seed", SEEDS)
def test_trust_that_was_earned_on_trifles_buys_little(seed: int) -> None:
    """About units of eight times the work they are audited three times as often as about those they earned it by."""
    later = JobPlan(at_s=80.0, units=60, unit_s=2 * TIMES * UNIT_S, audit_permille=50)
    played = play(seed, Adversaries("trifles", share=0.25), later=later)
    show("trifles", seed, played)
    check(played, gains(0.6, len(played.bad)))
    assert rejected(played)
