"""A worker that freezes at the end of a job costs seconds; where nobody does, nothing is computed twice."""

from random import Random

import pytest

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.lease import MIN_TTL_NS, REVEAL_OVERDUE_NS, SILENT_NS
from tests.property.world import SECOND, World, WorldNode, spec

SEEDS = range(8)
POLLS_S = 6.0  # two looks of an idle worker, and computing the copy


def computed(world: World) -> int:
    return sum(1 for *_, name in world.trace if name == "Compute")


def ends(world: World, submitter: WorldNode, job: JobId, seconds: float) -> bool:
    return world.run(lambda: bool(submitter.submitter.jobs[job].outcome), seconds=seconds)


def freeze_at_work(world: World, submitter: WorldNode, frozen: WorldNode, job: JobId, left: int) -> None:
    """Run until the victim holds a lease and few units are left; then it neither says nor hears anything more."""
    kept = submitter.submitter.jobs[job]
    world.run(
        lambda: kept.leases.holds(frozen.id) > 0 and kept.state.spec.units - len(kept.state.final_units) <= left
    )
    assert not kept.outcome
    world.cut.add(frozen.id)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("own_works", [True, False])
def test_a_frozen_worker_at_the_end_is_not_waited_for(seed: int, own_works: bool) -> None:
    world = World(seed)
    submitter = world.add(works=own_works)
    frozen = world.add()
    for _ in range(3):
        world.add()
    job = submitter.submit(spec(60, Random(seed), total_s=36_000))
    freeze_at_work(world, submitter, frozen, job, 40)
    start = world.now
    assert ends(world, submitter, job, 3600)
    kept = submitter.submitter.jobs[job]
    assert kept.outcome == "done"
    assert world.now - start < MIN_TTL_NS
    assert kept.rejected == set()
    world.cut.clear()
    assert world.run(lambda: not frozen.worker.held, seconds=120)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_frozen_in_a_job_of_few_units_is_missed_by_its_silence(seed: int) -> None:
    """Nobody knows yet how long a unit takes."""
    world = World(seed)
    submitter, frozen = world.add(works=False), world.add()
    job = submitter.submit(spec(1, Random(seed), Policy("fast", 1)))
    world.run(lambda: submitter.submitter.jobs[job].leases.holds(frozen.id) > 0)
    world.cut.add(frozen.id)
    start = world.now
    world.add()
    assert ends(world, submitter, job, 3600)
    assert world.now - start < SILENT_NS + POLLS_S * SECOND < MIN_TTL_NS


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_frozen_before_it_showed_its_result_is_not_waited_for(seed: int) -> None:
    world = World(seed)
    submitter, frozen = world.add(works=False), world.add()
    job = submitter.submit(spec(1, Random(seed)))
    kept = submitter.submitter.jobs[job]
    world.run(lambda: frozen.id in kept.state.committed(0))
    world.cut.add(frozen.id)
    for _ in range(2):
        world.add()
    world.run(lambda: frozen.id in kept.leases.known(0).asked)
    start = world.now
    assert ends(world, submitter, job, 3600)
    assert world.now - start < REVEAL_OVERDUE_NS + POLLS_S * SECOND


@pytest.mark.parametrize("level", ["fast", "final", "critical"])
@pytest.mark.parametrize("unit_s", [0.01, 1.0, 60.0])
def test_where_nobody_freezes_hardly_anything_is_computed_twice(level: str, unit_s: float) -> None:
    quorum = {"fast": 1, "final": 2, "critical": 3}[level]
    total = 0
    for seed in SEEDS:
        world = World(seed)
        world.unit_s = unit_s
        submitter = world.add(works=False)
        for _ in range(4):
            world.add()
        job = submitter.submit(spec(50, Random(seed), Policy(level, quorum)))
        assert ends(world, submitter, job, 3600 * 10)
        total += computed(world)
    assert total <= 1.02 * 50 * quorum * len(SEEDS)


def test_one_copy_of_a_unit_and_never_to_who_had_a_part_in_it() -> None:
    """A crowd of idle workers around one slow unit."""
    world = World(1)
    submitter, slow = world.add(works=False), world.add()
    job = submitter.submit(spec(1, Random(1), Policy("fast", 1)))
    kept = submitter.submitter.jobs[job]
    world.run(lambda: kept.leases.holds(slow.id) > 0)
    world.unit_s = 50.0
    world.cut.add(slow.id)
    for _ in range(6):
        world.add()
    world.run(lambda: len(kept.leases.known(0).leases) > 1)
    most = 0

    def count() -> bool:
        nonlocal most
        most = max(most, len(kept.leases.known(0).leases))
        return bool(kept.outcome)

    assert world.run(count, seconds=3600)
    assert most == 2
    assert sum(1 for node in world.nodes for _ in node.events if _.event == "unit_computed") == 1


def test_copies_stand_back_behind_work_of_other_jobs() -> None:
    """A straggler of a job of higher priority is no reason to leave a fresh unit."""
    world = World(2)
    first, slow = world.add(works=False), world.add()
    job = first.submit(spec(1, Random(2), Policy("fast", 1)))
    kept = first.submitter.jobs[job]
    world.run(lambda: kept.leases.holds(slow.id) > 0)
    world.cut.add(slow.id)
    world.run(lambda: False, seconds=SILENT_NS / SECOND)
    other = first.submit(spec(20, Random(3), Policy("fast", 1)))
    worker = world.add()
    world.run(lambda: first.submitter.jobs[other].leases.holds(worker.id) > 0, seconds=10)
    assert worker.id not in kept.leases.known(0).leases
    assert ends(world, first, job, 60)
