"""Copies of a job's state merge to the same, whoever learns what when."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol.facts import Endorsements, Fact, VerdictItem, Verdicts, epoch_of, resets_of, view_of
from sparkle_protocol.ids import digest
from sparkle_protocol.work.state import JobState
from tests.property.facts_of_a_job import (
    CODEC,
    JOB,
    NET,
    NEXT_VIEW,
    PEOPLE,
    RESULTS,
    SETS,
    SPEC,
    SUBMITTER,
    UNITS,
    VERDICTS,
    facts,
    shuffled,
)

lists = st.lists(facts, max_size=25)
EPOCHS = [epoch_of(view, resets) for view in (0, 1, NEXT_VIEW) for resets in (0, 1)]


def state(*parts: list[Fact]) -> JobState:
    found = JobState(SPEC, NET)
    for part in parts:
        found.merge(part)
    return found


def says(found: JobState) -> object:
    """Everything that one can ask a state."""
    workers = [person.peer_id for person in PEOPLE]
    return (
        {fact.id for fact in found.facts()},
        sorted(found.final_units),
        found.two_faced,
        found.cancel,
        found.restarts,
        found.view.fact if found.view is not None else None,
        [(epoch, view.fact if (view := found.views.get(view_of(epoch))) is not None else None) for epoch in EPOCHS],
        {fact.id for fact in found.view_facts()},
        [found.is_keeper(worker) for worker in workers],
        [
            (
                found.epoch(unit), found.leased(unit), found.committed(unit), found.equivocators(unit),
                found.votes(unit), found.failures(unit), found.all_failures(unit), found.resets(unit),
                found.final(unit), found.verdict(unit), [found.support(unit, epoch) for epoch in EPOCHS],
                found.accepted_workers(unit), found.rejected_workers(unit),
            )
            for unit in range(UNITS)
        ],
        [found.was_leased(unit, epoch, worker) for unit in range(UNITS) for epoch in EPOCHS for worker in workers],
        [found.next_counter(worker) for worker in workers],
    )  # fmt: skip


@given(lists, lists)
def test_merging_is_commutative(a: list[Fact], b: list[Fact]) -> None:
    assert says(state(a, b)) == says(state(b, a))


@given(lists, lists, lists)
def test_merging_is_associative(a: list[Fact], b: list[Fact], c: list[Fact]) -> None:
    left, right = state(a, b), state(b, c)
    assert says(state(list(left.facts()), c)) == says(state(a, list(right.facts())))


@given(lists)
def test_merging_is_idempotent(a: list[Fact]) -> None:
    once = state(a)
    before = says(once)
    assert once.merge(a) == 0
    assert says(once) == before


@settings(max_examples=50)
@given(lists, st.integers(0, 1000))
def test_order_does_not_matter_even_when_one_asks_in_between(a: list[Fact], seed: int) -> None:
    asked = JobState(SPEC, NET)
    for fact in shuffled(a, seed):
        asked.add(fact)
        says(asked)  # fills the caches
    assert says(asked) == says(state(a))


@given(lists, st.sampled_from(VERDICTS), st.integers(0, 1000))
def test_what_all_keepers_support_is_final_in_every_order(a: list[Fact], verdict: Fact, seed: int) -> None:
    """Unless the unit was reset, or another epoch below was final before."""
    words = [CODEC.seal(person, Endorsements(JOB, [bytes(verdict.id)], 0)) for person in PEOPLE]
    found = state(shuffled([*a, SETS[0], verdict, *words], seed))
    assert isinstance(verdict.payload, Verdicts)
    item = verdict.payload.items[0]
    view = found.views.get(view_of(item.epoch))
    if view is not None and resets_of(item.epoch) == found.reset_count(0):
        assert found.final(0) is not None
        assert found.epoch(0) <= item.epoch


def test_two_results_in_one_verdict_are_held_against_its_author() -> None:
    key = SUBMITTER.public_key
    items = [VerdictItem(0, 0, digest(result), [key], []) for result in RESULTS]
    found = state([CODEC.seal(SUBMITTER, Verdicts(JOB, items))])
    assert found.two_faced == {SUBMITTER.peer_id: (0, 0)}


def test_endorsing_two_results_is_held_against_a_keeper() -> None:
    keeper = PEOPLE[1]
    both = [fact for fact in VERDICTS if fact.author == SUBMITTER.peer_id][:2]
    words = [CODEC.seal(keeper, Endorsements(JOB, [bytes(fact.id)], 0)) for fact in both]
    assert state([SETS[0], *both, *words]).two_faced == {keeper.peer_id: (0, 0), SUBMITTER.peer_id: (0, 0)}
