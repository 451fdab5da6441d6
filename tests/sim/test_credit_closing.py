"""Jobs that are closed while much goes wrong: the sums stay, evidence goes, and nobody is paid twice."""

import pytest
from msgspec.structs import replace

from sparkle_sim import checkers
from sparkle_sim.engine import Run
from sparkle_sim.scenario import Checks, Credit, Fault, JobPlan, Peers, Scenario

PRICE, PEERS = 1000, 12
CLOSE_S = 900.0
FOLD_S = 400.0  # so that folding begins before the last jobs do
NAMES = ["zero_sum", "settled", "copies", "unpunished", "credit_bounds"]


def scene() -> Scenario:
    """Two jobs that end early, peers that are killed all the time, and two that begin once those are closed."""
    jobs = [
        JobPlan(at_s=at_s, submitter=number % 2, units=16, unit_s=3.0, unit_price_micro=PRICE)
        for number, at_s in enumerate((15.0, 20.0, 1500.0, 1510.0))
    ]
    kills = [Fault("kill", 16.0 + 25.0 * turn, 2.0, peers=[2 + turn % 9]) for turn in range(80)]
    return Scenario(
        "closed", seconds=6000.0, peers=Peers(count=PEERS, arrive_s=2.0), jobs=jobs, faults=kills,
        checks=Checks(names=NAMES, scan_every_s=10.0),
        credit=Credit(enabled=True, settle_s=3000.0, close_after_s=CLOSE_S),
    )  # fmt: skip


def play(scenario: Scenario, seed: int) -> Run:
    run = Run(scenario, seed)
    watch = checkers.watch(run.world, scenario)
    run.advance(1e9)
    assert [str(one) for one in watch.finish()] == []
    return run


@pytest.mark.parametrize("seed", [1, 2])
def test_jobs_are_closed_wherever_they_were_settled_and_all_is_as_it_was(seed: int) -> None:
    run = play(scene(), seed)
    closed, shown, needed, short = 0, 0, 0, 0
    for peer in run.world.peers:
        file = peer.disk.ledger
        assert file is not None
        closed += sum(peer.ledger.book.record(job) is None and job in file.closings for job in run.plans)
        sizes = {job: sum(map(len, [*facts, *sealed])) for job, (facts, sealed) in file.evidence.items()}
        shown += sum(sizes.values())
        needed += sum(size for job, size in sizes.items() if job not in file.closings)
        short += sum(map(len, file.closings.values()))
    print(f"\n{closed} closed; of {shown} bytes of evidence {needed} are read by the next life, and {short} in place")
    assert list(run.outcomes.values()) == ["job_done"] * 4
    assert closed >= 4 * PEERS - 4
    assert 10 * (needed + short) < shown


def test_old_entries_are_folded_while_peers_are_killed_and_all_is_as_it_was() -> None:
    scenario = scene()
    credit = replace(scenario.credit, keep_entries=2, close_after_s=FOLD_S)
    run = play(replace(scenario, credit=credit), 3)
    assert run.world.credit is not None
    folded, own = 0, 0
    for peer in run.world.peers:
        file = peer.disk.ledger
        assert file is not None
        folded += sum(base.seq + 1 for base in file.bases.values())
        own += run.world.credit.account(peer.number) in file.bases
    print(f"\n{folded} entries folded")
    assert list(run.outcomes.values()) == ["job_done"] * 4
    assert folded > 5 * PEERS
    assert not own
