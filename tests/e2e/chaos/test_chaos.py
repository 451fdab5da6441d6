"""Fixed seeds of the soak: whatever goes wrong meanwhile, every job ends, once, with the right answer."""

from pathlib import Path

import pytest

from tests.e2e.chaos.chaos_run import chaos
from tests.e2e.chaos.schedule import ABSENCES, LINK_FAULTS, NODE_FAULTS, make_schedule

NODES, LENGTH_S = 5, 17.0  # four keepers besides the submitter, and time for them to take over
SEEDS = (44, 200)  # together they hold every kind of fault


@pytest.mark.timeout(240)  # a lease and a reveal may have to run out after the last fault
@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_or_decided_twice(seed: int, tmp_path: Path) -> None:
    outcome = await chaos(make_schedule(seed, NODES, LENGTH_S), tmp_path)
    assert not outcome.violations, outcome.report()
    assert outcome.jobs > 0
    assert outcome.connections >= NODES  # they did speak through relays


def test_these_seeds_hold_every_kind_of_fault() -> None:
    kinds = {fault.kind for seed in SEEDS for fault in make_schedule(seed, NODES, LENGTH_S).faults}
    assert kinds == {*NODE_FAULTS, *LINK_FAULTS, *ABSENCES}
