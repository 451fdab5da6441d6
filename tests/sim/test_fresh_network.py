"""The first jobs of a network in which nobody is known, simulated: workers come to be known amid one.

What plain voting gave to two of them is on its way then. It must not wait for a third opinion where nobody is there
who could give it, which takes a minute (``trust/parameters.py``: ``patience_s``).
"""

from dataclasses import replace

import pytest

from sparkle_sim.engine import Run
from sparkle_sim.scenario import JobPlan, Peers, Scenario

BEGIN_S, APART_S = 60.0, 300.0
UNIT_S = 0.002
SOON_S = 5.0
MEDIAN_FLOPS_PER_S = 2e9


@pytest.mark.parametrize(
    ("peers", "units", "times_slower", "soon_s"),
    [
        (3, 3, 1, SOON_S),
        (3, 64, 1, SOON_S),
        (3, 300, 1, SOON_S),
        (3, 300, 20, 300 * UNIT_S * 20 + SOON_S),  # every unit is computed by both
        (4, 64, 1, SOON_S),
        (4, 300, 20, SOON_S),
        (5, 300, 1, SOON_S),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_two_jobs_of_trifles_end_soon(peers: int, units: int, times_slower: int, soon_s: float, seed: int) -> None:
    """The submitter computes nothing itself; the last of the others is slower than these, or not."""
    jobs = [JobPlan(at_s=BEGIN_S + APART_S * n, units=units, unit_s=UNIT_S, audit_permille=50) for n in range(2)]
    run = Run(Scenario("fresh", seconds=3600.0, peers=Peers(peers), jobs=jobs), seed)
    for peer in run.world.peers:
        peer.machine = replace(peer.machine, flops_per_s=MEDIAN_FLOPS_PER_S)
    run.world.peers[0].works = False
    slow = run.world.peers[-1]
    slow.machine = replace(slow.machine, flops_per_s=MEDIAN_FLOPS_PER_S / times_slower)
    for number, job in enumerate(jobs, 1):
        run.advance(job.at_s + soon_s)
        assert list(run.outcomes.values()) == ["job_done"] * number
