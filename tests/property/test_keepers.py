"""Whatever is lost, cut off or repeated: what was final stays final, is kept, and every unit ends.

Nodes know each other before the job is submitted, so that it has eight keepers from the start.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Fact, JobSpec, Policy, Verdicts, view_of
from sparkle_protocol.ids import JobId, ResultHash, hash_result
from sparkle_protocol.work.state import JobState
from tests.property.world import NET, SECOND, World, WorldNode, spec, true_result

HOUR_S = 3600
CALM_S = 240.0  # from then on nothing more goes wrong
MANY = 1_000_000  # events; a run that needs more spins
BEAT_S = 10


@dataclass(frozen=True)
class Outage:
    """A node is down for a while."""

    at_s: float
    node: int
    down_s: float


@dataclass(frozen=True)
class Split:
    """What some say does not reach the others for a while."""

    at_s: float
    length_s: float
    seed: int
    both_ways: bool


@dataclass(frozen=True)
class Season:
    """Everything that goes wrong with one job of eight keepers."""

    seed: int
    nodes: int = 10
    units: int = 24
    unit_s: float = 1.0
    loss: float = 0.0
    twice: float = 0.0
    disk_s: float = 0.005
    outages: tuple[Outage, ...] = ()
    splits: tuple[Split, ...] = ()
    lost: tuple[float, ...] = ()  # when a keeper goes for good, with its disk
    leaves_s: float | None = None  # when the submitter goes
    returns_s: float | None = None  # after how long it is back


def seasons(most_lost: int = 3, *, leaves: bool = False) -> st.SearchStrategy[Season]:
    moment = st.floats(0.1, 60)
    return st.builds(
        Season,
        seed=st.integers(0, 2**32),
        nodes=st.integers(9, 12),
        units=st.integers(1, 48),
        unit_s=st.sampled_from([0.3, 1.0, 5.0]),
        loss=st.sampled_from([0.0, 0.05, 0.3]),
        twice=st.sampled_from([0.0, 0.3]),
        disk_s=st.sampled_from([0.0, 0.005, 1.0]),
        outages=st.lists(
            st.builds(Outage, moment, st.integers(0, 11), st.sampled_from([0.05, 3, 50, 140])), max_size=6
        ).map(tuple),
        splits=st.lists(
            st.builds(Split, moment, st.sampled_from([3.0, 40.0, 150.0]), st.integers(0, 99), st.booleans()),
            max_size=2,
        ).map(tuple),
        lost=st.lists(moment, max_size=most_lost).map(tuple),
        leaves_s=moment if leaves else st.none(),
    )


def begin(season: Season, works: bool = False, policy: Policy | None = None) -> tuple[World, WorldNode, JobId]:
    """A world in which a job was just published, and everything else is about to go wrong."""
    world = World(season.seed, twice=season.twice, disk_s=season.disk_s)
    world.unit_s = season.unit_s
    submitter = world.add(works=works)
    for _ in range(season.nodes - 1):
        world.add()
    return world, submitter, publish(world, submitter, season, policy)


def publish(world: World, submitter: WorldNode, season: Season, policy: Policy | None = None) -> JobId:
    world.run(lambda: False, seconds=1)
    job = submitter.submit(spec(season.units, Random(season.seed), policy, total_s=100 * HOUR_S))
    published = world.run(lambda: submitter.submitter.is_published(job), seconds=60)
    assert published
    world.loss = season.loss
    strike(world, submitter, job, season)
    return job


def strike(world: World, submitter: WorldNode, job: JobId, season: Season) -> None:
    """Put all faults of a season on the clock."""
    for outage in season.outages:
        node = world.nodes[outage.node % len(world.nodes)]
        world.later(outage.at_s, None, lambda n=node: n.crash() if n.up else None)
        world.later(outage.at_s + outage.down_s, None, lambda n=node: rise(n))
    for split in season.splits:
        some = Random(split.seed).sample([node.id for node in world.nodes], len(world.nodes) // 3)
        world.later(split.at_s, None, lambda s=split, w=some: world.part(set(w), both_ways=s.both_ways))
        world.later(split.at_s + split.length_s, None, world.heal)
    view = submitter.submitter.jobs[job].state.view
    assert view is not None
    assert len(view.keepers) == min(8, len(world.nodes) - 1)
    victims = Random(season.seed).sample([peer for peer in view.keepers if peer != submitter.id], len(season.lost))
    for at_s, victim in zip(season.lost, victims, strict=True):
        world.later(at_s, None, lambda v=victim: world.by_id[v].lose_disk())
    if season.leaves_s is not None:
        world.later(season.leaves_s, None, lambda: submitter.leave())
        if season.returns_s is not None:
            world.later(season.leaves_s + season.returns_s, None, lambda: submitter.come_back())

    def calm() -> None:
        world.loss = 0.0

    world.later(CALM_S, None, calm)


def rise(node: WorldNode) -> None:
    if not (node.up or node.lost or node.away):
        node.start()


# --- what must hold ---------------------------------------------------------------------------------------------


def everything_said(world: World, job: JobId) -> JobState:
    """The union of all facts that ever left a node or are on a disk."""
    codec = world.nodes[0].codec
    facts: dict[bytes, Fact] = {}
    for raw in world.told:
        with suppress(RemoteProtocolError):  # liars send garbage
            fact = codec.open(raw)
            facts[fact.id] = fact
    for node in world.nodes:
        facts |= node.disk.facts
    return state_of(list(facts.values()), job)


def state_of(facts: list[Fact], job: JobId) -> JobState:
    (one,) = (fact for fact in facts if fact.id == job and isinstance(fact.payload, JobSpec))
    state = JobState(one, NET)
    state.merge(fact for fact in facts if fact.job == job)
    return state


def certified(state: JobState) -> dict[tuple[int, int], set[ResultHash]]:
    """The results that enough keepers support, by unit and epoch."""
    found: dict[tuple[int, int], set[ResultHash]] = {}
    for fact in state.facts():
        for item in fact.payload.items if isinstance(fact.payload, Verdicts) else ():
            view = state.views.get(view_of(item.epoch))
            for result, peers in state.support(item.unit, item.epoch).items():
                if view is not None and view.suffices(peers, state.submitter):
                    found.setdefault((item.unit, item.epoch), set()).add(result)
    return found


def check_never_two(world: World, job: JobId) -> JobState:
    """No epoch has two finals, with all facts of all nodes together, and what is final is right."""
    state = everything_said(world, job)
    for (unit, epoch), results in certified(state).items():
        assert results == {hash_result(true_result(unit))}, f"unit {unit} in epoch {epoch}"
    return state


def check_kept(world: World, job: JobId) -> None:
    """What any node ever showed as final can be proven and read by those who are left."""
    facts = {id_: fact for node in world.nodes if not node.lost for id_, fact in node.disk.facts.items()}
    results = {name for node in world.nodes if not node.lost for one, name in node.disk.results if one == job}
    state = state_of(list(facts.values()), job)
    for node in world.nodes:
        for (one, unit), shown in node.shown.items():
            if one == job:
                assert state.final(unit) == shown
                assert shown in results
        for event in node.events:
            if event.event == "result_accepted" and event.fields["job"] == job.hex():
                assert state.final(int(str(event.fields["unit"]))) is not None


def check_shown_stays(world: World, job: JobId) -> None:
    """Who let the job go may be invited once more, and is told everything from the start."""
    for node in world.nodes:
        kept = node.submitter.job(job) if node.up and job not in node.disk.let_go else None
        for (one, unit), shown in node.shown.items() if kept is not None else ():
            assert one != job or kept is None or kept.state.final(unit) == shown


def check_nobody_accused(world: World) -> None:
    """Of honest workers and keepers nobody says that they broke a rule."""
    honest = {node.id for node in world.nodes if node.lie is None}
    accused = [(why, peer[-6:]) for node in world.nodes for peer, why in node.violations if peer in honest]
    assert not accused


def check_done(submitter: WorldNode, job: JobId) -> None:
    kept = submitter.submitter.jobs[job]
    assert kept.outcome == "done", kept.error
    for unit in range(kept.state.spec.units):
        result = kept.state.final(unit)
        assert result == hash_result(true_result(unit))
        assert submitter.disk.results[job, result] == true_result(unit)


def is_done(submitter: WorldNode, job: JobId) -> bool:
    """The submitter is there, and its user was told."""
    return submitter.up and was_told(submitter, job)


def was_told(submitter: WorldNode, job: JobId) -> bool:
    return any(one.event == "job_done" and one.fields["job"] == job.hex() for one in submitter.events)


def nobody_is_left(world: World, job: JobId) -> bool:
    """Everybody who is there has let go of the job but its submitter."""
    return all(
        node.lost or (node.up and job not in node.submitter.kept and not node.worker.held and not node.disk.commits)
        for node in world.nodes
    )


def about_jobs(world: World, seconds: float) -> Counter[str]:
    """Requests about jobs between nodes that are there, while time passes."""
    world.run(lambda: False, seconds=120)  # what is on its way, or said once more after a pause
    world.sent.clear()
    world.run(lambda: False, seconds=seconds, events=MANY)
    found: Counter[str] = Counter()
    for (name, sender, target), count in world.sent.items():
        if name not in ("Offer", "LeaseRequest") and world.by_id[target].up:
            found[name] += count
            most = 2 + 1.3 * seconds / BEAT_S
            assert name != "Beat" or count + world.sent[name, target, sender] <= most, "beats too often"
    return found


# --- the tests --------------------------------------------------------------------------------------------------


def check_season_with_submitter(season: Season) -> None:
    world, submitter, job = begin(season)
    calm = world.now + int(CALM_S * SECOND)
    assert world.run(lambda: is_done(submitter, job) or world.now >= calm, seconds=HOUR_S, events=MANY)
    check_never_two(world, job)
    if not is_done(submitter, job):
        check_kept(world, job)
    check_shown_stays(world, job)
    assert world.run(lambda: is_done(submitter, job), seconds=2 * HOUR_S, events=MANY), "the job never ended"
    check_done(submitter, job)
    world.run(lambda: world.now >= calm, seconds=HOUR_S, events=MANY)
    assert world.run(lambda: nobody_is_left(world, job), seconds=HOUR_S, events=MANY), "somebody holds something"
    check_never_two(world, job)
    check_nobody_accused(world)
    sent = about_jobs(world, 120)
    assert not sent, sent


@settings(max_examples=5)
@given(seasons())
def test_nothing_is_lost_while_three_of_eight_keepers_are(season: Season) -> None:
    check_season_with_submitter(season)


def check_season_without_submitter(season: Season) -> None:
    """The submitter leaves; the keepers finish without it, and it finds all of it when it is back."""
    world, submitter, job = begin(season)
    calm = world.now + int(CALM_S * SECOND)
    world.run(lambda: world.now >= calm, seconds=HOUR_S, events=MANY)
    check_never_two(world, job)
    if not was_told(submitter, job):  # before it left; else the job was let go of, and comes back empty at most
        check_shown_stays(world, job)
        check_kept(world, job)
        assert world.run(lambda: keepers_are_done(world, job), seconds=2 * HOUR_S, events=MANY), "units never ended"
        assert world.run(lambda: nothing_is_held(world, submitter), seconds=HOUR_S, events=MANY)
        check_kept(world, job)
        sent = about_jobs(world, 600)
        assert sent.keys() <= {"Beat"}, sent
    submitter.come_back()
    assert world.run(lambda: is_done(submitter, job), seconds=HOUR_S, events=MANY), "the submitter never got it all"
    check_done(submitter, job)
    assert world.run(lambda: nobody_is_left(world, job), seconds=HOUR_S, events=MANY), "somebody holds something"
    check_never_two(world, job)
    check_nobody_accused(world)


def keepers_are_done(world: World, job: JobId) -> bool:
    kept = [node.submitter.kept[job] for node in world.nodes if node.up and job in node.submitter.kept]
    return bool(kept) and all(one.outcome for one in kept if one.state.view and one.state.view.holds(one.me))


def nothing_is_held(world: World, submitter: WorldNode) -> bool:
    return all(
        node.lost or node is submitter or (node.up and not node.worker.held and not node.disk.commits)
        for node in world.nodes
    )


@settings(max_examples=5)
@example(  # a keeper was away when the job was let go of, and shows it to another that was restarted
    Season(0, 9, 2, 0.3, 0.0, 0.0, 0.0, (Outage(1.0, 2, 0.05), Outage(0.25, 1, 3.0)), (), (), 1.0, None)
)
@given(seasons(2, leaves=True))
@example(  # who had agreed on a unit had shown its result only to keepers that went
    Season(
        10, nodes=9, units=28, loss=0.3, disk_s=0, lost=(51.62364613344883,), leaves_s=36.23111759699429,
        outages=(
            Outage(48.81794295630347, 4, 3), Outage(2.1607740751511932, 7, 50), Outage(4.657751872202754, 11, 50),
        ),
    )
)  # fmt: skip
@example(  # the job ends while a newcomer is invited in place of a keeper that is back
    Season(
        164, nodes=11, units=11, unit_s=0.3, loss=0.3, disk_s=0, leaves_s=23.623538769129457,
        outages=(Outage(0.16, 7, 140),), splits=(Split(23.623538769129457, 40.0, 69, False),),
    )
)  # fmt: skip
@example(  # a report is repeated after a unit in it was let go
    Season(
        10541, nodes=9, units=16, unit_s=0.3, loss=0.05, twice=0.3, disk_s=0.0, lost=(58.11796356881076, 1.1),
        splits=(Split(57.675805268298774, 40.0, 54, True), Split(59.643028234793775, 40.0, 64, True)),
        leaves_s=0.99999,
    )
)  # fmt: skip
def test_keepers_finish_a_job_whose_submitter_left(season: Season) -> None:
    check_season_without_submitter(season)


def test_a_submitter_that_was_cut_off_until_its_job_was_late_hears_that_it_is_done() -> None:
    world = World(5)
    owner = world.add(works=False)
    others = [world.add() for _ in range(8)]
    world.run(lambda: False, seconds=3)
    world.unit_s = 2
    job = owner.submit(spec(40, world.rng, total_s=180))
    assert world.run(lambda: owner.submitter.is_published(job), seconds=30)
    world.part({owner.id}, both_ways=True)
    kept = [node.submitter.kept[job] for node in others if job in node.submitter.kept]
    assert world.run(lambda: all(one.state.finished for one in kept), seconds=120)
    world.run(lambda: False, seconds=181 - world.now / SECOND)
    assert not owner.submitter.jobs[job].outcome  # it is late, but others may know more
    world.heal()
    assert world.run(lambda: owner.submitter.jobs[job].outcome == "done", seconds=60)


def test_a_job_that_nobody_finished_in_time_fails_a_minute_later() -> None:
    world = World(5)
    owner = world.add(works=False)
    for _ in range(4):
        world.add(works=False)
    world.run(lambda: False, seconds=3)
    job = owner.submit(spec(4, world.rng, total_s=180))
    world.run(lambda: False, seconds=182)
    assert not owner.submitter.jobs[job].outcome
    assert world.run(lambda: owner.submitter.jobs[job].outcome == "failed", seconds=62)
