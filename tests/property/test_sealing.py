"""Ranges are sealed while a job runs, and nobody who was away meanwhile is left behind or keeps others busy."""

from collections.abc import Iterator
from random import Random

import pytest

from sparkle_protocol.facts import SEAL_UNITS
from sparkle_protocol.ids import JobId, hash_result
from sparkle_protocol.work.kept_job import KeptJob
from tests.property.world import World, WorldNode, spec, true_result

UNITS = SEAL_UNITS + 20
DAY_S = 86_400


def kept(node: WorldNode, job: JobId) -> KeptJob:
    found = node.submitter.job(job)
    assert found is not None
    return found


def is_sealed(node: WorldNode, job: JobId) -> bool:
    return len(kept(node, job).state.sealed) == UNITS


def check(node: WorldNode, job: JobId) -> None:
    """The node knows every unit's result, holds its bytes, and nothing finer of what is sealed."""
    one = kept(node, job)
    for unit in range(UNITS):
        assert one.state.final(unit) == hash_result(true_result(unit))
        assert (job, hash_result(true_result(unit))) in node.disk.results
        assert len(one.state.accepted_workers(unit)) >= 2
    sealed = {record.index for record in one.state.sealed.ranges()}
    assert not [unit for unit in one.state.touched_units() if unit // SEAL_UNITS in sealed]
    assert not [unit for unit in one.leases.books if unit // SEAL_UNITS in sealed]
    assert {index for _, index in node.disk.sealed} == sealed
    on_disk = {fact.id for fact in node.disk.of_job(job)}
    assert on_disk == {fact.id for fact in one.state.facts()}


@pytest.fixture
def running() -> Iterator[tuple[World, WorldNode, list[WorldNode], JobId]]:
    world = World(7, disk_s=0.001)
    world.unit_s = 0.002
    submitter = world.add(works=False)
    helpers = [world.add() for _ in range(5)]
    world.run(lambda: False, seconds=1)
    job = submitter.submit(spec(UNITS, Random(7), total_s=100 * DAY_S))
    world.run(lambda: len(kept(submitter, job).state.final_units) > 300)
    yield world, submitter, helpers, job
    assert not [violation for node in world.nodes for violation in node.violations]


def test_whoever_was_away_while_a_range_was_sealed_gets_its_record(
    running: tuple[World, WorldNode, list[WorldNode], JobId],
) -> None:
    world, submitter, helpers, job = running
    away, restarted, *others = helpers
    away.crash()
    submitter.crash()  # so that nobody releases the job
    there = [restarted, *others]
    assert world.run(lambda: all(is_sealed(one, job) for one in there))
    world.run(lambda: False, seconds=1)  # for the disks
    for one in there:
        check(one, job)

    restarted.crash()
    restarted.start()
    check(restarted, job)
    assert kept(restarted, job).accepted_by == kept(others[0], job).state.sealed.accepted_by
    away.start()
    assert world.run(lambda: is_sealed(away, job) and not kept(away, job).lacking)
    world.run(lambda: False, seconds=60)
    for one in helpers:
        check(one, job)
    assert len({kept(one, job).state.tally.total() for one in helpers}) == 1
    roots = [[record.root for record in kept(one, job).state.sealed.ranges()] for one in helpers]
    assert all(found == roots[0] for found in roots)

    compared = [one for _, _, one in world.trace].count("CompareReply")
    world.run(lambda: False, seconds=120)
    assert [one for _, _, one in world.trace].count("CompareReply") == compared  # nobody has anything left to compare

    submitter.start()
    assert world.run(lambda: submitter.submitter.jobs[job].outcome == "done")
    world.run(lambda: False, seconds=1)
    check(submitter, job)
