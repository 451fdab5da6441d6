"""A job that was closed and is open again: nobody is paid beyond what its spec agrees to, whatever is shown late."""

from itertools import permutations

import pytest

from sparkle_ledger.book import Book
from sparkle_ledger.closing import Closing
from sparkle_ledger.entries import Entry, Release
from sparkle_ledger.evidence import JobRecord
from tests.unit.ledger.ledgers import ECONOMY, NET, PRICE, Author, Job, person

ALICE = person(1)
WORKERS = sorted((person(n) for n in range(2, 6)), key=lambda one: one.public_key)


def closed(job: Job, *names: int) -> tuple[Book, list[Entry], Closing]:
    """Alice's job, which she alone judges; these workers did it and are paid, and the rest went back to her."""
    alice, authors = Author(ALICE), [Author(WORKERS[name]) for name in names]
    alice.hold(job)
    for author in authors:
        author.work(job, 0)
    alice.state(Release(job.id, job.cover))
    entries = [entry for one in (alice, *authors) for entry in one.entries]
    book = Book(NET, ECONOMY)
    book.add_record(job.record(job.accepted([WORKERS[name] for name in names])))
    book.add_all(entries)
    return book, entries, book.close(job.id)


def late(job: Job, *names: int) -> tuple[list[Entry], JobRecord]:
    """Others that claim pay, and evidence that shows nobody but them."""
    authors = [Author(WORKERS[name]) for name in names]
    for author in authors:
        author.work(job, 0)
    proof = job.record(job.accepted([WORKERS[name] for name in names]))
    return [entry for one in authors for entry in one.entries], proof


@pytest.mark.parametrize(
    ("replicas", "before", "after", "paid"),
    [
        (1, [1], [2], []),
        (1, [1], [0], []),  # though it would have come first
        (2, [1], [2], [2]),
        (2, [1], [0, 2, 3], [0]),
        (2, [1, 2], [0, 3], []),
        (3, [1], [0, 2, 3], [0, 2]),
    ],
)
def test_late_workers_get_the_room_that_is_left(
    replicas: int, before: list[int], after: list[int], paid: list[int]
) -> None:
    job = Job(ALICE, 1, replicas=replicas)
    book, entries, closing = closed(job, *before)
    others, proof = late(job, *after)
    book.add_all(others)
    book.add_record(proof)
    loaded = Book(NET, ECONOMY)  # as after a start: first what is kept of jobs, then entries
    loaded.add_closing(closing)
    loaded.add_record(proof)
    loaded.add_all([*others, *entries])
    for one in (book, loaded):
        got = [entry for entry in others if one.moved(entry.id)]
        assert [entry.key for entry in got] == [WORKERS[name].public_key for name in paid]
        assert all(one.moved(entry.id) == PRICE for entry in got)
        assert one.escrow(job.id).balance_micro >= 0
        assert one.sum_micro() == 0


def test_it_may_be_closed_and_opened_as_often_as_anybody_likes() -> None:
    job = Job(ALICE, 1, replicas=2)
    book, _, first = closed(job, 0)
    assert first.executions == 1
    for name in (1, 2, 3):
        others, proof = late(job, name)
        book.add_all(others)
        book.add_record(proof)
        assert book.close(job.id).executions == 2
    assert book.escrow(job.id).paid_micro == 2 * PRICE
    assert book.escrow(job.id).balance_micro == 0


def test_the_order_of_entries_makes_no_difference() -> None:
    job = Job(ALICE, 1, replicas=2)
    _, entries, closing = closed(job, 1)
    others, proof = late(job, 0, 2)
    seen = set()
    works = [entry for entry in (*entries, *others) if entry.seq]
    starts = [entry for entry in (*entries, *others) if not entry.seq]
    for order in permutations(works):
        book = Book(NET, ECONOMY)
        book.add_closing(closing)
        book.add_record(proof)
        for entry in (*starts, *order):
            book.add(entry)
        seen.add(tuple(book.moved(entry.id) for entry in works))
    assert len(seen) == 1
