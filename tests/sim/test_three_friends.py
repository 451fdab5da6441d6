"""Three friends who begin with nothing, simulated: who computes for whom, what is paid, and one leaves."""

from pathlib import Path

import pytest

from sparkle_sim import checkers
from sparkle_sim.engine import Run
from sparkle_sim.reading import read_scenario

FRIENDS = Path(__file__).parents[2] / "simulations" / "scenarios" / "three-friends.toml"
PRICE = 1000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_three_friends_help_and_pay_each_other(seed: int) -> None:
    run = Run(read_scenario(FRIENDS), seed)
    watch = checkers.watch(run.world, run.scenario)
    run.advance(run.scenario.seconds)
    assert [str(one) for one in watch.finish()] == []
    assert list(run.outcomes.values()) == ["job_done"] * 4
    peers, credit = run.world.peers, run.world.credit
    assert credit is not None
    ids = [peer.identity.peer_id for peer in peers]
    submitters = [plan.submitter for plan in run.scenario.jobs]
    alone, two, three, left = run.plans
    helped = {
        job: dict(peers[who].submitter.jobs[job].accepted_by)
        for job, who in zip(run.plans, submitters, strict=True)
        if who
    }
    assert set(helped[two]) <= {ids[0], ids[1]}, "the third is not there yet"
    assert ids[0] in helped[two], "the first computes for the second as soon as they meet"
    assert set(helped[three]) == set(ids)
    assert set(helped[left]) <= {ids[1], ids[2]}, "the first has left"
    book = credit.book(*(peer.disk.ledger for peer in peers if peer.disk.ledger is not None))
    assert book.sum_micro() == 0
    assert book.escrow(alone).balance_micro == 0
    for number, one in enumerate(ids):
        account = book.account(credit.account(number))  # type: ignore[arg-type]
        owed = sum(
            count.get(one, 0) for job, count in helped.items() if submitters[[*run.plans].index(job)] != number
        )
        assert account.earned_micro <= owed * PRICE
        if number:  # the first may have left before it had claimed everything
            assert account.earned_micro == owed * PRICE
    assert book.account(credit.account(0)).spent_micro == 0, "nobody else was there to be paid"  # type: ignore[arg-type]
