"""A submitter that knows nobody, in a network in which others know who is honest.

What docs/adr/0013 rests on, with a smaller job; ``pytest -s`` prints figures.
"""

import pytest

from sparkle_protocol.trust.standing import Key, Standing, TrustBook
from sparkle_sim.engine import Run
from sparkle_sim.scenario import Adversaries, JobPlan, Peers, Scenario
from tests.sim.test_adversaries import Played

HONEST, UNITS = 8, 100
FRESH, FRIEND, WORKERS = 0, 1, 2  # the first of them
CAPITAL = 1e13  # of those whom the friend knows: hardly audited there


def play(*entries: Adversaries, strangers: int, named: bool, seed: int = 1, believed: int = 0) -> Played:
    """Its first job; its friend knows the honest ones, and ``believed`` others."""
    count = WORKERS + HONEST + strangers
    job = JobPlan(at_s=60.0, units=UNITS, unit_s=5.0, audit_permille=50)
    run = Run(Scenario("fresh", seconds=7200.0, peers=Peers(count), jobs=[job], adversaries=list(entries)), seed)
    peers, known = run.world.peers, TrustBook()
    peers[FRESH].works = peers[FRIEND].works = False
    for peer in peers[WORKERS : WORKERS + HONEST + believed]:
        known.restore(Key(peer.id, peer.machine.device, "exact"), Standing(2000, CAPITAL))
    peers[FRIEND].disk.trust = known
    peers[FRESH].disk.trust = TrustBook([peers[FRIEND].id] if named else [])
    played = Played(run, None)  # type: ignore[arg-type]
    run.world.watchers.append(played)
    run.advance(1e9)
    print(f"\nnamed: {named}, {strangers} others: {played.wrong} wrong, {played.replicas:.2f} results per unit")
    assert list(run.outcomes.values()) == ["job_done"]
    return played


def others(count: int, rate: float = 1.0) -> Adversaries:
    """They lie together."""
    return Adversaries("collude", peers=list(range(WORKERS + HONEST, WORKERS + HONEST + count)), rate=rate)


def test_keys_that_cost_nothing_decide_nothing_where_a_friend_knows_somebody() -> None:
    crowd = 2 * HONEST
    alone = play(others(crowd), strangers=crowd, named=False)
    assert alone.wrong > UNITS // 2, "nobody can tell who is who"
    helped = play(others(crowd), strangers=crowd, named=True)
    assert helped.wrong == 0
    assert helped.rejected <= helped.bad
    assert helped.replicas < 2.1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_liar_spends_nothing_here_that_it_earned_elsewhere(seed: int) -> None:
    """Each of its results is compared, whatever it has with the friend: two that lie together gain by chance only."""
    one = Adversaries("cheat", peers=[WORKERS + HONEST, WORKERS + HONEST + 1])
    assert play(one, strangers=2, named=True, seed=seed, believed=2).wrong == 0
    gang = play(others(2), strangers=2, named=True, seed=seed, believed=2)
    assert gang.wrong <= 7 * 2 * (2 / 10) / (1 - 2 / 10), "seven times what the law says: once in a thousand runs"
    assert gang.rejected <= gang.bad
