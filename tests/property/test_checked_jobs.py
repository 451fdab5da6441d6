"""Jobs whose results are checked, not compared: all of them end, with right results, and only liars are rejected."""

from dataclasses import dataclass
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.state import JobState
from tests.property.checked_world import (
    WRONG,
    CheckedNode,
    check_finals,
    check_result_document,
    check_the_accused,
    checked_spec,
    is_right,
    results_of,
)
from tests.property.test_keepers import (
    CALM_S,
    HOUR_S,
    MANY,
    Season,
    everything_said,
    is_done,
    keepers_are_done,
    nobody_is_left,
    seasons,
    strike,
    was_told,
)
from tests.property.test_world import Crash, idle_ticks
from tests.property.world import SECOND, World


@dataclass(frozen=True)
class Trial:
    """What goes wrong in one run with the submitter there most of the time."""

    seed: int
    units: int
    own_works: bool
    helpers: int
    liars: int
    vain: float
    loss: float
    twice: float
    disk_s: float
    crashes: tuple[Crash, ...]


trials = st.builds(
    Trial,
    seed=st.integers(0, 2**32),
    units=st.integers(1, 12),
    own_works=st.booleans(),
    helpers=st.integers(1, 6),
    liars=st.integers(0, 2),
    vain=st.sampled_from([0.0, 0.3, 0.8]),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    twice=st.sampled_from([0.0, 0.3]),
    disk_s=st.sampled_from([0.0, 0.005, 1.0]),
    crashes=st.lists(
        st.builds(Crash, st.floats(0.1, 60), st.integers(0, 6), st.sampled_from([0.05, 3, 50])), max_size=4
    ).map(tuple),
)


def add(world: World, *, works: bool = True, lies: bool = False) -> CheckedNode:
    node = world.add(works=works, lie=(lambda unit: True) if lies else None, kind=CheckedNode)
    assert isinstance(node, CheckedNode)
    return node


@settings(max_examples=15)
@given(trials)
def test_every_checked_job_ends_with_only_right_results(trial: Trial) -> None:
    run_trial(trial)


def run_trial(trial: Trial) -> None:
    world = World(trial.seed, loss=trial.loss, twice=trial.twice, disk_s=trial.disk_s)
    submitter = add(world, works=trial.own_works)
    for _ in range(trial.helpers):
        add(world)
    for _ in range(trial.liars):
        add(world, lies=True)
    for node in world.nodes:
        node.vain = trial.vain  # type: ignore[attr-defined]
    job = submitter.submit(checked_spec(trial.units, Random(trial.seed)))
    world.run(lambda: job in {fact.job for fact in submitter.disk.facts.values()})
    for crash in trial.crashes:
        node = world.nodes[crash.node % len(world.nodes)]
        world.later(crash.at_s, None, lambda n=node: n.crash() if n.up else None)
        world.later(crash.at_s + crash.down_s, None, lambda n=node: None if n.up else n.start())
    assert world.run(
        lambda: submitter.up and job in submitter.submitter.jobs and bool(submitter.submitter.jobs[job].outcome),
        seconds=20 * HOUR_S,
    ), "the job never ended"
    assert world.run(lambda: nothing_is_held(world), seconds=2 * HOUR_S), "somebody still holds something"
    check_result_document(submitter, job)
    check_finals(everything_said(world, job), results_of(world, job))
    check_the_accused(world)
    assert idle_ticks(world, 600) <= len(world.nodes) * 600 / 10


def nothing_is_held(world: World) -> bool:
    return all(node.up and not node.worker.held and not node.disk.commits for node in world.nodes)


# --- eight keepers, and the submitter away ----------------------------------------------------------------------


def begin(season: Season, vain: float, liars: int) -> tuple[World, CheckedNode, JobId]:
    """A world in which a job was just published, and everything else is about to go wrong."""
    world = World(season.seed, twice=season.twice, disk_s=season.disk_s)
    world.unit_s = season.unit_s
    submitter = add(world, works=False)
    for place in range(season.nodes - 1):
        add(world, lies=place < liars)
    for node in world.nodes:
        node.vain = vain  # type: ignore[attr-defined]
    world.run(lambda: False, seconds=1)
    job = submitter.submit(checked_spec(season.units, Random(season.seed), inputs=True))
    assert world.run(lambda: submitter.submitter.is_published(job), seconds=60)
    world.loss = season.loss
    strike(world, submitter, job, season)
    return world, submitter, job


@settings(max_examples=6)
@given(seasons(2, leaves=True), st.sampled_from([0.0, 0.3]), st.integers(0, 2))
def test_keepers_check_and_finish_a_job_whose_submitter_left(season: Season, vain: float, liars: int) -> None:
    run_season(season, vain, liars)


def run_season(season: Season, vain: float, liars: int) -> None:
    world, submitter, job = begin(season, vain, liars)
    calm = world.now + int(CALM_S * SECOND)
    world.run(lambda: world.now >= calm, seconds=HOUR_S, events=MANY)
    check_finals(everything_said(world, job), results_of(world, job))
    if not was_told(submitter, job):  # before it left
        assert world.run(lambda: keepers_are_done(world, job), seconds=4 * HOUR_S, events=MANY), "units never ended"
    submitter.come_back()
    assert world.run(lambda: is_done(submitter, job), seconds=HOUR_S, events=MANY), "the submitter never got it all"
    check_result_document(submitter, job)
    assert world.run(lambda: nobody_is_left(world, job), seconds=HOUR_S, events=MANY), "somebody holds something"
    check_finals(everything_said(world, job), results_of(world, job))
    check_the_accused(world)
    world.run(lambda: False, seconds=5)  # what was said last waits for the disk
    assert not any(node.holds for node in world.nodes if node.up)  # type: ignore[attr-defined]


# --- one at a time ----------------------------------------------------------------------------------------------


def test_a_liar_is_rejected_by_a_check_and_its_units_are_done_again() -> None:
    world = World(8)
    submitter = add(world, works=False)
    liar = add(world, lies=True)
    for _ in range(3):
        add(world)
    job = submitter.submit(checked_spec(30, world.rng))
    kept = submitter.submitter.jobs[job]
    assert world.run(lambda: kept.outcome == "done", seconds=600)
    check_result_document(submitter, job)
    assert kept.rejected == {liar.id}
    assert {(one.worker, one.code, one.text) for one in kept.rejections} == {(liar.id, "check", WRONG)}
    assert kept.accepted_by[liar.id] == 0
    told = [one.fields for one in submitter.events if one.event == "worker_rejected"]
    assert [(one["peer"], one["code"], one["text"]) for one in told] == [(liar.id, "check", WRONG)]
    assert liar.worker.units_rejected > 0


def test_each_unit_is_computed_once_where_nobody_lies() -> None:
    world = World(3)
    submitter = add(world, works=False)
    for _ in range(5):
        add(world)
    job = submitter.submit(checked_spec(40, world.rng))
    assert world.run(lambda: submitter.submitter.jobs[job].outcome == "done", seconds=600)
    assert sum(1 for *_, name in world.trace if name == "Compute") == 40
    assert sum(1 for *_, name in world.trace if name == "CheckUnit") == 40


def test_the_submitters_own_results_need_no_check_unless_the_job_is_critical() -> None:
    for policy, checks in ((Policy(quorum=1), 0), (Policy("critical", 1), 6)):
        world = World(8)
        submitter = add(world)
        job = submitter.submit(checked_spec(6, world.rng, policy))
        assert world.run(lambda n=submitter, j=job: n.submitter.jobs[j].outcome == "done", seconds=60)
        assert sum(1 for *_, name in world.trace if name == "CheckUnit") == checks


def test_a_worker_whose_result_cannot_be_had_is_not_waited_for_and_not_accused() -> None:
    world = World(4)
    submitter, gone = add(world, works=False), add(world)
    job = submitter.submit(checked_spec(1, world.rng))
    kept = submitter.submitter.jobs[job]
    world.run(lambda: bool(kept.state.votes(0)))
    gone.crash()
    other = add(world)
    assert world.run(lambda: kept.outcome == "done", seconds=60)
    assert set(kept.accepted_by) == {other.id}
    assert not kept.rejected


def test_a_result_that_could_not_be_had_is_checked_again() -> None:
    """The only worker was unreachable when its result was to be fetched."""
    world = World(4)
    submitter, worker = add(world, works=False), add(world)
    submitter.vain = 1.0
    job = submitter.submit(checked_spec(1, world.rng))
    kept = submitter.submitter.jobs[job]
    world.run(lambda: worker.id in kept.leases.known(0).withheld)
    submitter.vain = 0.0
    assert world.run(lambda: kept.outcome == "done", seconds=60)
    assert set(kept.accepted_by) == {worker.id}
    assert not kept.leases.books


def test_what_was_shown_and_not_decided_is_checked_anew_after_a_restart() -> None:
    world = World(4)
    submitter, worker = add(world, works=False), add(world)
    submitter.check_s = 1000.0
    job = submitter.submit(checked_spec(3, world.rng))
    world.run(lambda: len(submitter.checking) == 3)
    submitter.crash()
    submitter.check_s = 0.5
    submitter.start()
    assert world.run(lambda: submitter.submitter.jobs[job].outcome == "done", seconds=60)
    assert sum(1 for *_, name in world.trace if name == "Compute") == 3
    check_result_document(submitter, job)
    assert not worker.violations


def test_no_more_than_so_many_checks_are_under_way() -> None:
    world = World(4)
    submitter = add(world, works=False)
    for _ in range(12):
        add(world)
    submitter.check_s, world.unit_s = 60.0, 0.1
    job = submitter.submit(checked_spec(200, world.rng))
    world.run(lambda: False, seconds=20)
    assert submitter.most_checks == 64
    submitter.check_s = 0.1
    assert world.run(lambda: submitter.submitter.jobs[job].outcome == "done", seconds=600)
    assert submitter.most_checks == 64


def test_a_unit_of_which_all_results_are_wrong_is_dead_for_that_reason() -> None:
    world = World(4)
    submitter = add(world, works=False)
    for _ in range(3):
        add(world, lies=True)
    job = submitter.submit(checked_spec(1, world.rng, Policy(quorum=1, max_replicas=3)))
    kept = submitter.submitter.jobs[job]
    assert world.run(lambda: bool(kept.outcome), seconds=120)
    assert kept.outcome == "failed"
    assert kept.error == f"unit 0: the results of 3 workers failed the check; {WRONG}"


# --- inputs -----------------------------------------------------------------------------------------------------


def nine(seed: int, inputs_s: float) -> tuple[World, CheckedNode, list[CheckedNode]]:
    world = World(seed)
    submitter = add(world, works=False)
    others = [add(world) for _ in range(8)]
    for node in others:
        node.inputs_s = inputs_s
    world.run(lambda: False, seconds=1)
    return world, submitter, others


def test_a_job_is_published_when_its_keepers_hold_its_inputs_however_long_that_takes() -> None:
    world, submitter, others = nine(5, 300.0)
    world.unit_s = 1000.0
    job = submitter.submit(checked_spec(8, world.rng, inputs=True))
    assert world.run(lambda: submitter.submitter.is_published(job), seconds=600)
    assert sum(1 for node in others if node.holds.get(job)) >= 5
    assert len(submitter.submitter.jobs[job].state.views.counting()) == 1


def test_the_submitter_hears_at_once_that_the_inputs_are_held() -> None:
    world, submitter, _ = nine(5, 1.0)
    job = submitter.submit(checked_spec(8, world.rng, inputs=True))
    assert world.run(lambda: submitter.submitter.is_published(job), seconds=3)


def test_keepers_that_never_get_the_inputs_are_left_out_in_the_end() -> None:
    world, submitter, others = nine(5, 1.0)
    for node in others[:4]:
        node.never_fetches = True
    world.unit_s = 100_000.0
    job = submitter.submit(checked_spec(8, world.rng, inputs=True))
    world.run(lambda: False, seconds=1700)
    assert not submitter.submitter.is_published(job)
    assert world.run(lambda: submitter.submitter.is_published(job), seconds=200)
    view = submitter.submitter.jobs[job].state.view
    assert view is not None
    assert not {node.id for node in others[:4]} & set(view.keepers)


def test_a_newcomer_is_no_keeper_before_it_holds_the_inputs() -> None:
    world, submitter, others = nine(5, 1.0)
    world.unit_s = 1000.0
    job = submitter.submit(checked_spec(200, world.rng, inputs=True))
    assert world.run(lambda: submitter.submitter.is_published(job), seconds=30)
    late = add(world, works=False)
    late.inputs_s = 400.0  # longer than a guest may take nothing
    others[0].crash()
    state = submitter.submitter.jobs[job].state
    assert world.run(lambda: state.view is not None and state.view.holds(late.id), seconds=1200)
    assert late.holds[job]


def test_inputs_are_held_again_after_a_restart_and_released_in_the_end() -> None:
    world, submitter, others = nine(5, 1.0)
    job = submitter.submit(checked_spec(200, world.rng, inputs=True))  # not over before the restart is
    assert world.run(lambda: submitter.submitter.is_published(job), seconds=30)
    others[0].crash()
    others[0].start()
    assert world.run(lambda: others[0].holds.get(job, False), seconds=5)
    assert not submitter.submitter.jobs[job].outcome
    assert world.run(lambda: nobody_is_left(world, job), seconds=600)
    world.run(lambda: False, seconds=1)
    assert not any(node.holds for node in others)


# --- results that outlive their workers -------------------------------------------------------------------------


def has_spares(nodes: list[CheckedNode], state: JobState) -> bool:
    """Two others besides its worker have each accepted result that the submitter has not got."""
    keep = [(node.id, node.spares.get(state.id, set())) for node in nodes]
    return all(
        len({node for node, units in keep if unit in units} - state.accepted_workers(unit)) >= 2
        for unit in range(state.spec.units)
        if not is_at_submitter(state, unit)
    )


def is_at_submitter(state: JobState, unit: int) -> bool:
    """It accepted the result before it left, and fetched it for that."""
    final = state.final(unit)
    return final is not None and state.submitter in state.support(unit, state.epoch(unit)).get(final, ())


def test_two_more_keepers_have_each_result_until_the_submitter_has_it() -> None:
    """One has no room, one is killed for good while they work, and one is restarted."""
    world, submitter, others = nine(5, 1.0)
    job = submitter.submit(checked_spec(100, world.rng, inputs=True))
    assert world.run(lambda: submitter.submitter.is_published(job), seconds=30)
    submitter.leave()
    others[0].full = True
    assert world.run(lambda: others[0].submitter.kept[job].outcome == "done", seconds=600)
    lost, back = others[1], others[2]
    state = others[0].submitter.kept[job].state
    assert world.run(lambda: has_spares(others, state), seconds=60)
    assert not others[0].spares[job]
    lost.lose_disk()
    back.crash()
    world.run(lambda: False, seconds=5)
    back.start()
    there = [node for node in others if node is not lost]
    assert world.run(lambda: has_spares(there, state), seconds=180)
    results = {unit: others[0].disk.results[job, final] for unit in range(100) if (final := state.final(unit))}
    assert len(results) == 100
    alone = {unit: result for unit, result in results.items() if not is_at_submitter(state, unit)}
    assert len(alone) > 90
    assert all(sum(1 for node in there if result in node.blobs) >= 2 for result in alone.values())
    submitter.come_back()
    assert world.run(lambda: nobody_is_left(world, job), seconds=300)
    world.run(lambda: False, seconds=1)
    assert not any(node.spares for node in there)


def test_right_means_right() -> None:
    assert is_right(3, (9).to_bytes(8, "big") + b"abcd")
    assert not is_right(3, (10).to_bytes(8, "big") + b"abcd")
