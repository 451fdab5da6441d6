"""Whatever network, disks and a lying minority do, a job ends with right results and nobody holds on to anything."""

from dataclasses import dataclass
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import JobId, hash_result
from tests.property.world import World, WorldNode, spec, true_result

HOUR_S = 3600


@dataclass(frozen=True)
class Crash:
    at_s: float
    node: int
    down_s: float


@dataclass(frozen=True)
class Weather:
    """Everything that goes wrong in one run."""

    seed: int
    units: int = 8
    own_works: bool = True
    helpers: int = 3
    liar: bool = False
    withholder: bool = False
    hog: bool = False
    loss: float = 0.0
    twice: float = 0.0
    disk_s: float = 0.005
    crashes: tuple[Crash, ...] = ()


weathers = st.builds(
    Weather,
    seed=st.integers(0, 2**32),
    units=st.integers(1, 12),
    own_works=st.booleans(),
    helpers=st.integers(3, 4),
    liar=st.booleans(),
    withholder=st.booleans(),
    hog=st.booleans(),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    twice=st.sampled_from([0.0, 0.3]),
    disk_s=st.sampled_from([0.0, 0.005, 1.0]),
    crashes=st.lists(
        st.builds(Crash, st.floats(0.1, 60), st.integers(0, 4), st.sampled_from([0.05, 3, 50])), max_size=4
    ).map(tuple),
)


def build(weather: Weather) -> tuple[World, WorldNode, JobId]:
    world = World(weather.seed, loss=weather.loss, twice=weather.twice, disk_s=weather.disk_s)
    submitter = world.add(works=weather.own_works)
    for _ in range(weather.helpers):
        world.add()
    if weather.liar:
        world.add(lie=lambda unit: True)
    if weather.withholder:
        world.add().withholds = True
    if weather.hog:
        world.add().stalls = True
    job = submitter.submit(spec(weather.units, Random(weather.seed), total_s=100 * HOUR_S))
    world.run(lambda: job in {fact.job for fact in submitter.disk.facts.values()})  # acknowledged to its user
    for crash in weather.crashes:
        node = world.nodes[crash.node % len(world.nodes)]
        world.later(crash.at_s, None, lambda n=node: n.crash() if n.up else None)
        world.later(crash.at_s + crash.down_s, None, lambda n=node: None if n.up else n.start())
    return world, submitter, job


def check(world: World, submitter: WorldNode, job: JobId) -> None:
    kept = submitter.submitter.jobs[job]
    assert kept.outcome == "done", kept.error
    world.run(lambda: False, seconds=2)  # a job is over when it is decided; its last results are on their way to disk
    assert not kept.state.two_faced
    for unit in range(kept.state.spec.units):
        verdict = kept.state.verdict(unit)
        assert verdict is not None
        assert verdict.result_hash == hash_result(true_result(unit))
        assert submitter.disk.results[job, verdict.result_hash] == true_result(unit)
    honest = {node.id for node in world.nodes if node.lie is None}
    assert not kept.rejected & honest
    accused = [(peer, why) for node in world.nodes for peer, why in node.violations if peer in honest]
    assert not accused


def nothing_is_held(world: World) -> bool:
    return all(node.up and not node.worker.held and not node.disk.commits for node in world.nodes)


def test_a_worker_that_only_says_it_computes_holds_up_nobody() -> None:
    world = World(7)
    submitter = world.add(works=False)
    world.add().stalls = True
    for _ in range(2):
        world.add()
    job = submitter.submit(spec(6, world.rng, total_s=100 * HOUR_S))
    assert world.run(lambda: submitter.submitter.jobs[job].outcome == "done", seconds=300)
    assert world.run(lambda: nothing_is_held(world), seconds=60)


@settings(max_examples=40)
@given(weathers)
@example(
    Weather(
        98,
        6,
        own_works=False,
        liar=True,
        withholder=True,
        hog=True,
        loss=0.3,
        crashes=(Crash(23.916110746329682, 2, 0.05),),
    )
)
def test_every_job_ends_with_only_right_results(weather: Weather) -> None:
    world, submitter, job = build(weather)
    ended = world.run(
        lambda: submitter.up and job in submitter.submitter.jobs and bool(submitter.submitter.jobs[job].outcome),
        seconds=20 * HOUR_S,
    )
    assert ended, "the job never ended"
    assert world.run(lambda: nothing_is_held(world), seconds=2 * HOUR_S), "somebody still holds something"
    check(world, submitter, job)


@settings(max_examples=10)
@given(weathers)
def test_the_same_seed_gives_the_same_run(weather: Weather) -> None:
    traces = []
    for _ in range(2):
        world, _, _ = build(weather)
        world.run(lambda: False, seconds=30)
        traces.append(world.trace)
    assert traces[0] == traces[1]


def idle_ticks(world: World, seconds: float) -> int:
    before = sum(node.ticks for node in world.nodes)
    world.run(lambda: False, seconds=seconds)
    return sum(node.ticks for node in world.nodes) - before


def test_a_network_without_work_is_quiet() -> None:
    world = World(1)
    for _ in range(4):
        world.add()
    world.run(lambda: False, seconds=60)
    assert idle_ticks(world, 600) <= 4 * 600 / 20


def test_a_job_that_waits_for_a_worker_is_quiet() -> None:
    world = World(1)
    submitter = world.add(works=False)
    world.add()  # one worker alone cannot make a quorum
    submitter.submit(spec(8, world.rng, total_s=100 * HOUR_S))
    world.run(lambda: False, seconds=60)
    world.trace.clear()
    ticks = idle_ticks(world, 600)
    assert ticks < 2 * 600
    assert len(world.trace) < 6 * 600  # a lease request every two seconds, a heartbeat every ten


def test_a_hung_keeper_costs_neither_time_nor_heat() -> None:
    """A keeper that never answers holds up no other, and nobody spins while waiting for it."""
    world = World(1)
    hung, submitter, worker = world.add(works=False), world.add(works=False), world.add()
    world.add()
    hung.submit(spec(4, world.rng, total_s=100 * HOUR_S))
    world.cut.add(hung.id)
    job = submitter.submit(spec(4, world.rng, total_s=100 * HOUR_S))
    assert world.run(lambda: submitter.submitter.jobs[job].outcome == "done", seconds=40)
    assert worker.ticks < 200


def test_two_jobs_of_two_submitters_share_the_workers() -> None:
    world = World(5)
    first, second = world.add(), world.add(works=False)
    for _ in range(3):
        world.add()
    jobs = [(node, node.submit(spec(12, world.rng))) for node in (first, second)]
    assert world.run(lambda: all(n.submitter.jobs[j].outcome == "done" for n, j in jobs), seconds=600)
    for node, job in jobs:
        check(world, node, job)


def test_a_keeper_gone_for_ever_is_forgotten() -> None:
    world = World(3)
    submitter = world.add(works=False)
    workers = [world.add() for _ in range(2)]
    submitter.submit(spec(40, world.rng, total_s=10 * HOUR_S))
    world.run(lambda: any(node.disk.commits for node in workers))
    submitter.crash()
    world.run(lambda: False, seconds=60)
    assert any(node.worker.held for node in workers)
    world.run(lambda: False, seconds=30 * HOUR_S)
    for node in workers:
        assert not node.worker.held
        assert not node.worker.jobs or len(node.worker.jobs) <= 1
        assert not node.disk.commits
        assert node.worker.drained


def test_a_worker_gone_before_it_showed_its_result_is_replaced_after_a_restart() -> None:
    """Both commits are known, one worker never returns, the submitter restarts: the unit must not wait for ever."""
    world = World(4)
    submitter = world.add(works=False)
    gone, other = world.add(), world.add()
    job = submitter.submit(spec(1, world.rng, total_s=100 * HOUR_S))
    state = submitter.submitter.jobs[job].state
    world.run(lambda: len(state.committed(0)) == 2)
    gone.crash()
    submitter.crash()
    submitter.start()
    world.add()
    assert world.run(lambda: submitter.submitter.jobs[job].outcome == "done", seconds=600)
    assert other.id in submitter.submitter.jobs[job].accepted_by


def test_a_worker_that_was_away_when_asked_is_heard_later() -> None:
    """With only two workers, a pause longer than the reveal's deadline must not end the job."""
    world = World(4)
    submitter, away = world.add(works=False), world.add()
    world.add()
    job = submitter.submit(spec(1, world.rng, total_s=100 * HOUR_S))
    kept = submitter.submitter.jobs[job]
    world.run(lambda: len(kept.state.committed(0)) == 2)
    world.cut.add(away.id)
    world.run(lambda: away.id in kept.leases.known(0).withheld)
    world.cut.clear()
    assert world.run(lambda: kept.outcome == "done", seconds=300)


def test_a_node_that_cannot_compute_does_not_take_units_without_end() -> None:
    world = World(4)
    submitter, broken = world.add(works=False), world.add()
    broken.broken = True
    submitter.submit(spec(8, world.rng, total_s=100 * HOUR_S))
    world.run(lambda: False, seconds=3600)
    assert sum(1 for *_, name in world.trace if name == "Compute") < 200


def test_a_liar_is_excluded_and_its_other_units_are_done_again() -> None:
    world = World(8)
    submitter = world.add(works=False)
    liar = world.add(lie=lambda unit: True)
    for _ in range(3):
        world.add()
    job = submitter.submit(spec(30, world.rng))
    kept = submitter.submitter.jobs[job]
    assert world.run(lambda: kept.outcome == "done", seconds=600)
    check(world, submitter, job)
    assert kept.rejected == {liar.id}
    first = kept.rejections[0]
    assert first.worker == liar.id
    assert len(first.agreeing) >= 2
    assert kept.accepted_by[liar.id] == 0


def test_a_critical_job_has_three_agreeing_workers() -> None:
    world = World(8)
    submitter = world.add(works=False)
    for _ in range(4):
        world.add()
    job = submitter.submit(spec(6, world.rng, Policy("critical", 3)))
    kept = submitter.submitter.jobs[job]
    assert world.run(lambda: kept.outcome == "done", seconds=600)
    assert all(len(kept.state.accepted_workers(unit)) >= 3 for unit in range(6))


def test_a_submitter_alone_does_its_own_job() -> None:
    world = World(8)
    submitter = world.add()
    job = submitter.submit(spec(6, world.rng))
    assert world.run(lambda: submitter.submitter.jobs[job].outcome == "done", seconds=60)
    assert submitter.submitter.jobs[job].replicas == 6
