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
from sparkle_sim.scenario import Adversaries, JobPlan, Peers, Scenario, Trust
from tests.sim.test_adversaries import Played, check_honest

SEEDS = (1, 2)
PEERS, UNITS, UNIT_S = 17, 240, 5.0
YOUNG, GROWN = 60, 2000  # passes: audited with probability 0.89, and 0.2
SURE = 7.0  # times the mean of a geometric law: exceeded once in a thousand


def play(seed: int, *entries: Adversaries, known: float = 1.0, passes: int = GROWN, **changes: object) -> Played:
    """A job whose submitter knows its workers, and does not work itself."""
    plan = {"units": UNITS, "unit_s": UNIT_S, "audit_permille": 50, **changes}
    scenario = Scenario(
        "trusting", seconds=7200.0, peers=Peers(count=PEERS), jobs=[JobPlan(**plan)],  # type: ignore[arg-type]
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
    print(
        f"\n{kind:18} seed {seed}: {played.replicas:.2f} results per unit ({replicas:.2f} if honest), "
        f"{played.makespan_s:.0f} s ({makespan_s:.0f} s), {played.wrong} wrong, rejected {sorted(played.rejected)}"
    )


def check(played: Played, wrong: float) -> None:
    """The job is done, nobody honest is rejected, and no more is wrong than the law lets through."""
    assert list(played.run.outcomes.values()) == ["job_done"]
    assert set(played.violations) <= played.bad
    assert played.rejected <= played.bad
    assert played.wrong <= wrong


def gains(rate: float, cheaters: int) -> float:
    """Wrong results that so many may have accepted, all but once in a thousand runs."""
    return SURE * (1.0 / rate - 1.0) * cheaters


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [1.0, 0.2])
@pytest.mark.parametrize(("passes", "audited"), [(YOUNG, 0.89), (GROWN, 0.2)])
def test_a_sleeper_gains_little_at_any_rate(passes: int, audited: float, rate: float, seed: int) -> None:
    played = play(seed, Adversaries("sleeper", share=0.2, rate=rate), passes=passes, units=2 * UNITS)
    show(f"sleeper {rate:g}", seed, played, passes)
    check(played, gains(audited, len(played.bad)))
    assert 2 * UNITS > 1.5 * ASLEEP * PEERS, "or nobody would wake up"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [1.0, 0.2])
def test_a_gang_gains_as_much_as_its_share_of_audits_lets_it(rate: float, seed: int) -> None:
    played = play(seed, Adversaries("gang", share=0.25, rate=rate), units=2 * UNITS)
    show(f"gang {rate:g}", seed, played)
    check(played, gains(0.2, len(played.bad)) / (1.0 - 0.25))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("passes", [YOUNG, GROWN])
def test_framers_convict_themselves(passes: int, seed: int) -> None:
    played = play(seed, Adversaries("framer", share=0.2), passes=passes)
    show("framer", seed, played, passes)
    check(played, 0)
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
    """Those who were right about units of a tenth of the work are compared nearly always."""
    played = play(seed, Adversaries("trifles", share=0.25), passes=GROWN, unit_s=2 * TIMES * UNIT_S, units=40)
    assert played.wrong == 0, "there are no smaller units to tell these from"
    check_honest(played, wrong=True) if played.codec else None
    show("trifles", seed, played)
