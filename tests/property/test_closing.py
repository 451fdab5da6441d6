"""Closing jobs changes nothing that the book says: outcomes stay, whatever evidence was forgotten in between."""

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_ledger import outcomes as out
from sparkle_ledger.book import Book
from sparkle_ledger.closing import Closing
from sparkle_ledger.entries import Entry, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.rulings import JobPage
from sparkle_protocol.codec import encode
from tests.property.ledger_worlds import (
    ECONOMY,
    Action,
    World,
    adds_up,
    drawn,
    give,
    in_order,
    is_right,
    jobs,
    play,
    says,
)
from tests.property.test_ledger import actions, orders, worlds
from tests.unit.ledger.ledgers import NET

TRIES = 150
MUTANT_TRIES = 1000  # it is found out in one of a hundred
honest = st.lists(actions.filter(lambda one: one[0] < 10), max_size=50)


def close(book: Book, seed: int) -> list[bytes]:
    """Close some of what can be."""
    random = Random(seed)
    found = [
        job.id
        for job in jobs()
        if book.is_closable(job.id, though_some_wait=random.random() < 0.5) and random.random() < 0.7
    ]
    for job in found:
        book.close(job)
        assert book.record(job) is None
    return found


def reloaded(book: Book, entries: Iterable[Entry]) -> Book:
    """A book that was written down and read again, with all entries that were ever kept."""
    again = Book(NET, ECONOMY)
    for closing in book.closings():
        again.add_closing(Closing.decode(encode(closing)))
    for record in book.records():
        again.add_record(record)
    again.add_all(entries)
    adds_up(again)
    return again


@settings(max_examples=150)
@given(worlds, orders)
def test_what_is_closed_says_the_same_and_so_does_what_is_read_again(done: list[Action], seed: int) -> None:
    world = play(done)
    book = Book(NET, ECONOMY)
    for item in in_order(world, seed):
        give(book, item)
    before = said(book, world)
    close(book, seed)
    is_right(book, world)
    assert said(book, world) == before
    entries = [item for item in in_order(world, seed + 1) if isinstance(item, Entry)]
    assert said(reloaded(book, entries), world) == before


def said(book: Book, world: World) -> object:
    """Everything but what is not claimed of closed jobs, which is forgotten, and what exactly a Work waits for."""
    told = cast(tuple[Any, ...], says(book, world))
    accounts, pairs, outcomes, of_jobs, forks, places = told
    codes = {one: "waits" if outcome is not None and waits(outcome) else outcome for one, outcome in outcomes.items()}
    return accounts, pairs, codes, [(job, escrow, paid) for job, escrow, _, paid in of_jobs], forks, places


def waits(outcome: out.Outcome) -> bool:
    """It may come to count."""
    return outcome.pending or outcome is out.UNFUNDED


@settings(max_examples=150)
@given(worlds, orders)
def test_closing_at_any_time_breaks_no_law(done: list[Action], seed: int) -> None:
    try_to_break(play(done), seed)


def try_to_break(world: World, seed: int) -> Counter[str]:
    """Close, forget and read again in between; returns how often that happened, and what became of the Works."""
    book = Book(NET, ECONOMY)
    kept: list[Entry] = []
    seen: Counter[str] = Counter()
    for number, item in enumerate(in_order(world, seed)):
        closed = [job.id for job in jobs() if book.closing(job.id)]
        give(book, item)
        seen["opened"] += sum(book.closing(job) is None for job in closed)
        kept += [item] if isinstance(item, Entry) else []
        if not number % 5:
            seen["closed"] += len(close(book, seed + number))
            if not number % 10:
                book = reloaded(book, kept)
        adds_up(book)
    is_right(book, world)
    seen.update(final.code for closing in book.closings() for final in closing.finals)
    return seen


# --- the properties see what is broken --------------------------------------------------------------------------


def forget_who_is_owed(patch: pytest.MonkeyPatch) -> None:
    known = property(lambda self: self.record.executions if self.record is not None else 0)
    patch.setattr(JobPage, "executions", known)


def forget_what_was_paid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Book, "_note_claims", lambda *_: None)


def count_only_what_is_shown(patch: pytest.MonkeyPatch) -> None:
    def executions(self: JobPage) -> int:
        known = self.record if self.record is not None else self.closing
        return known.executions if known is not None else 0

    patch.setattr(JobPage, "executions", property(executions))


@pytest.mark.parametrize("mutant", [forget_who_is_owed, forget_what_was_paid, count_only_what_is_shown])
def test_a_broken_rule_is_noticed(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    for seed in range(MUTANT_TRIES):
        try:
            try_to_break(play(drawn(seed)), seed)
        except AssertionError:
            return
    pytest.fail(f"{MUTANT_TRIES} worlds in which {mutant.__name__} makes no difference")


def test_the_worlds_are_worth_looking_at() -> None:
    """Jobs are closed and opened again in them, and what was paid for is among what is final."""
    seen: Counter[str] = Counter()
    for seed in range(TRIES):
        seen += try_to_break(play(drawn(seed)), seed)
    assert min(seen["closed"], seen["opened"]) > TRIES
    assert seen["booked"] > TRIES // 10
    assert seen.keys() > {"void:settled", "void:own_job"}


@settings(max_examples=150)
@given(honest, orders)
def test_copies_agree_once_what_was_forgotten_was_shown_again(done: list[Action], seed: int) -> None:
    world = play(done)
    always, forgetful = Book(NET, ECONOMY), Book(NET, ECONOMY)
    for number, item in enumerate(in_order(world, seed)):
        give(always, item)
        give(forgetful, item)
        close(forgetful, seed + number)
    for item in world.items:
        if isinstance(item, JobRecord):
            forgetful.add_record(item)
    rivals = contested(world)
    for item in world.items:
        if isinstance(item, Entry) and item.id not in rivals:
            assert always.moved(item.id) == forgetful.moved(item.id)


def contested(world: World) -> set[bytes]:
    """Claims to executions that are claimed more than once: which of them counts may be another one."""
    claims: dict[tuple[bytes, int, bytes], set[bytes]] = {}
    for item in world.items:
        if isinstance(item, Entry) and isinstance(item.payload, Work):
            for one in item.payload.units:
                claims.setdefault((item.payload.job, one.unit, item.payload.worker), set()).add(item.id)
    return {id_ for ids in claims.values() if len(ids) > 1 for id_ in ids}
