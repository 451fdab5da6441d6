"""Units that nobody can compute, in every weather: the job ends, and once they are begun anew it is done."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkle_protocol.ids import JobId
from tests.property.test_world import HOUR_S, Crash, Weather, build, check, nothing_is_held, weathers
from tests.property.world import World, WorldNode


def outcome(submitter: WorldNode, job: JobId) -> str:
    """How the job stands; empty while it runs or nobody is there to say."""
    return submitter.submitter.jobs[job].outcome if submitter.up and job in submitter.submitter.jobs else ""


def requeue(world: World, submitter: WorldNode, job: JobId, unit: int | None = None) -> tuple[int, ...]:
    units, effects = submitter.submitter.requeue(job, unit, world.now)
    submitter.perform(submitter.submitter, effects)
    submitter.arm()
    return units


@settings(max_examples=40)
@example(  # keepers that took the job for over told its workers so after it had begun anew
    Weather(333, 12, False, 3, False, False, True, 0.3, 0.3, 1.0, (Crash(0.1, 0, 0.05),)), {6, 10}, True
)
@given(weathers, st.sets(st.integers(0, 11), min_size=1, max_size=4), st.booleans())
def test_a_job_with_poisoned_units_ends_and_can_be_finished_later(
    weather: Weather, poison: set[int], one_by_one: bool
) -> None:
    world, submitter, job = build(weather)
    units = range(weather.units)
    world.poison = {unit for unit in units if unit in poison} or {0}
    assert world.run(lambda: bool(outcome(submitter, job)), seconds=20 * HOUR_S), "the job never ended"
    kept = submitter.submitter.jobs[job]
    dead = set(kept.dead)
    assert kept.outcome == "failed" or not dead
    assert dead <= world.poison
    assert dead | kept.state.final_units == set(units)  # what could be done was done
    assert world.run(lambda: nothing_is_held(world), seconds=2 * HOUR_S), "somebody still holds something"
    if not world.run(lambda: outcome(submitter, job) == "done", seconds=0):
        world.poison = set()
        finish(world, submitter, job, one_by_one=one_by_one)
    assert world.run(lambda: nothing_is_held(world), seconds=2 * HOUR_S), "somebody still holds something"
    check(world, submitter, job)


def finish(world: World, submitter: WorldNode, job: JobId, *, one_by_one: bool) -> None:
    """An owner who begins dead units anew until the job is done; a crash may undo what was not on disk yet."""
    for _ in range(20):
        if outcome(submitter, job) == "failed":
            kept = submitter.submitter.jobs[job]
            first = min(kept.dead) if one_by_one else None
            requeue(world, submitter, job, first)
        assert world.run(lambda: bool(outcome(submitter, job)), seconds=20 * HOUR_S), "the job never ended"
        if outcome(submitter, job) == "done":
            return
    raise AssertionError("begun anew twenty times, and never done")


def test_workers_start_on_a_requeued_unit_at_once() -> None:
    world, submitter, job = build(Weather(5, own_works=False))
    world.poison = {3}
    world.run(lambda: bool(outcome(submitter, job)))
    world.run(lambda: False, seconds=600)
    world.poison = set()
    start = world.now
    assert requeue(world, submitter, job) == (3,)
    assert world.run(lambda: outcome(submitter, job) == "done", seconds=60)
    assert world.now - start < 5_000_000_000
    check(world, submitter, job)
