"""Sets of keepers that follow each other: whatever is cut off or said twice, one follows, and the job goes on."""

from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkle_protocol import messages as m
from sparkle_protocol.facts import VIEWS_PER_GENERATION, KeeperSet
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.placement import threshold
from tests.property.test_keepers import check_never_two, is_done
from tests.property.world import World, WorldNode, spec

UNITS = 16


def published(seed: int, nodes: int, *, works: bool = False) -> tuple[World, WorldNode, JobId]:
    """A job that eight peers keep, and some peers more. Mostly nobody computes it: only who keeps it matters here."""
    world = World(seed)
    owner = world.add(works=works)
    for _ in range(nodes - 1):
        world.add(works=works)
    world.run(lambda: False, seconds=2)
    world.unit_s = 60
    job = owner.submit(spec(UNITS, Random(seed), total_s=1_000_000))
    assert world.run(lambda: owner.submitter.is_published(job), seconds=30)
    return world, owner, job


def keepers(world: World, owner: WorldNode, job: JobId) -> list[WorldNode]:
    view = owner.submitter.jobs[job].state.view
    assert view is not None
    return [world.by_id[peer] for peer in view.keepers]


def views(world: World, job: JobId) -> set[int]:
    kept = [node.submitter.job(job) for node in world.nodes if node.up]
    return {one.state.view.number for one in kept if one is not None and one.state.view is not None}


def endorsed(world: World, job: JobId, view: int) -> set[bytes]:
    """Sets with that number which any keeper endorsed."""
    found: set[bytes] = set()
    for node in world.nodes:
        kept = node.submitter.job(job) if node.up else None
        if kept is not None:
            sets = [fact for fact in kept.state.facts() if isinstance(fact.payload, KeeperSet)]
            found |= {fact.id for fact in sets if fact.payload.view == view and kept.state.endorsers(fact.id)}
    return found


@settings(max_examples=3)
@given(st.integers(0, 1000), st.sampled_from([60, 150, 600]))
def test_a_submitter_that_is_cut_off_leaves_its_keepers_as_they_are(seed: int, cut_s: int) -> None:
    world, owner, job = published(seed, 9)
    world.part({owner.id}, both_ways=True)
    world.run(lambda: False, seconds=cut_s)
    world.heal()
    world.run(lambda: False, seconds=120)
    assert views(world, job) == {0}
    assert len(keepers(world, owner, job)) == 8
    check_never_two(world, job)


@settings(max_examples=4)
@given(st.integers(0, 1000), st.integers(100, 190))
@example(1, 130)
@example(2, 140)
def test_a_submitter_that_returns_while_its_keepers_choose_does_not_split_them(seed: int, cut_s: int) -> None:
    world, owner, job = published(seed, 12)
    victim = keepers(world, owner, job)[seed % 8]
    world.part({owner.id}, both_ways=True)
    victim.lose_disk()
    world.run(lambda: False, seconds=cut_s)
    world.heal()
    assert world.run(lambda: min(views(world, job)) > 0, seconds=400, events=1_000_000)
    assert views(world, job) == {1}
    assert len(endorsed(world, job, 1)) == 1
    check_never_two(world, job)


@settings(max_examples=3)
@given(st.integers(0, 1000))
def test_a_keeper_that_shows_two_sets_to_two_halves_does_not_split_them(seed: int) -> None:
    """Its submitter is away, a keeper is lost, and another proposes one newcomer here and another there."""
    world, owner, job = published(seed, 11)
    *honest, liar, lost = keepers(world, owner, job)
    guests = [node for node in world.nodes if node not in (owner, liar, lost, *honest)]
    owner.leave()
    lost.lose_disk()
    world.run(lambda: False, seconds=60)
    state = honest[0].submitter.kept[job].state
    assert state.view is not None
    liar.crash()
    liar.lost = True
    first = bytes(state.view.fact.id)
    world.run(lambda: False, seconds=2)
    for half, guest in ((honest[:3], guests[0]), (honest[3:], guests[1])):
        keys = [node.identity.public_key for node in (*honest, liar, guest)]
        named = liar.codec.seal(liar.identity, KeeperSet(job, 1, keys, threshold(8), first))
        for node in half:
            node.ask(liar.id, m.encode_message(m.Push(job, [named.raw])), lambda _: None)
    assert world.run(lambda: min(views(world, job)) > 0, seconds=300, events=1_000_000)
    assert len(endorsed(world, job, 1)) == 1


def test_a_submitter_makes_up_for_a_killed_and_a_frozen_keeper_within_a_minute() -> None:
    """Two of five: too few are left to decide. Units become final again as soon as that is certain."""
    world, owner, job = published(3, 6, works=True)
    one, other, *_ = keepers(world, owner, job)
    one.lose_disk()
    frozen: set[PeerId] = {other.id}
    world.blocked |= {(peer.id, name) for peer in world.nodes for name in frozen}
    world.blocked |= {(name, peer.id) for peer in world.nodes for name in frozen}
    assert world.run(lambda: min(views(world, job) - {0}, default=0) >= VIEWS_PER_GENERATION, seconds=50)
    assert world.run(lambda: is_done(owner, job), seconds=600)
    check_never_two(world, job)
