"""Copies of a job's state merge to the same, whoever learns what when."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol.facts import Fact, VerdictItem, Verdicts
from sparkle_protocol.ids import digest
from sparkle_protocol.work.state import JobState
from tests.property.facts_of_a_job import (
    CODEC,
    JOB,
    NET,
    PEOPLE,
    RESULTS,
    SPEC,
    SUBMITTER,
    UNITS,
    facts,
    shuffled,
)

lists = st.lists(facts, max_size=25)


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
        found.conflicts(),
        found.cancel,
        found.restarts,
        found.keeper_set,
        [found.is_keeper(worker) for worker in workers],
        [
            (
                found.epoch(unit), found.leased(unit), found.committed(unit), found.equivocators(unit),
                found.votes(unit), found.failures(unit), found.all_failures(unit), found.resets(unit),
                found.verdict(unit),
                found.accepted_workers(unit), found.rejected_workers(unit),
            )
            for unit in range(UNITS)
        ],
        [found.was_leased(unit, epoch, worker) for unit in range(UNITS) for epoch in (0, 1) for worker in workers],
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


def test_two_results_in_one_verdict_are_seen_as_a_conflict() -> None:
    key = SUBMITTER.public_key
    items = [VerdictItem(0, 0, digest(result), [key], []) for result in RESULTS]
    assert state([CODEC.seal(SUBMITTER, Verdicts(JOB, items))]).conflicts() == (0,)
