"""Ledgers of any size in which what counts arrives late, and how many steps a book takes over them."""

import sys
from collections.abc import Callable, Iterable
from random import Random
from types import FrameType
from typing import Any

import sparkle_ledger
from sparkle_ledger.book import Book
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import Entry, Hold, Release, Settled, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol.identity import Identity
from tests.unit.ledger.ledgers import NET, Author, Job, person

Item = Entry | JobRecord
PAYER, WORKER = person(1), person(2)
ECONOMY = Economy(limit_max_micro=1 << 40, starter_micro=0)
INSIDE = sys.modules["sparkle_ledger"].__path__[0]
assert sparkle_ledger


def steps(work: Callable[[], object]) -> int:
    """How many lines of the ledger are executed."""
    count = 0

    def inside(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return inside

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        return inside if frame.f_code.co_filename.startswith(INSIDE) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def give(book: Book, items: Iterable[Item]) -> None:
    """One by one."""
    for item in items:
        if isinstance(item, Entry):
            book.add(item)
        else:
            book.add_record(item)


def shuffled(items: list[Item]) -> list[Item]:
    """In an order that is always the same."""
    return Random(len(items)).sample(items, len(items))


def proven(job: Job, *workers: Identity) -> JobRecord:
    """Evidence that these did all of a job."""
    return job.record(job.accepted(workers))


def done_jobs(n: int, by: Identity = PAYER) -> list[Job]:
    return [Job(by, 1, nonce=number) for number in range(n)]


# --- what happens -------------------------------------------------------------------------------------------------


def paid(n: int) -> tuple[Book, list[Item], list[Item]]:
    """Jobs of one payer, done by one worker: first entries, then evidence."""
    payer, worker, jobs = Author(PAYER), Author(WORKER), done_jobs(n)
    for job in jobs:
        payer.hold(job)
        worker.work(job, 0)
    book = Book(NET, Economy(unlimited=frozenset((payer.account,))))
    return book, [*payer.entries, *worker.entries], [proven(job, WORKER) for job in jobs]


def earned_and_spent(n: int) -> tuple[Book, list[Item], list[Item]]:
    """The worker spends at once what it earns, and holds it for jobs of its own."""
    payer, worker, jobs = Author(PAYER), Author(WORKER), done_jobs(n)
    for number, job in enumerate(jobs):
        payer.hold(job)
        worker.work(job, 0)
        worker.state(Hold(number.to_bytes(32, "big"), job.price, 0))
    book = Book(NET, Economy(1 << 40, starter_micro=0, unlimited=frozenset((payer.account,))))
    return book, [*payer.entries, *worker.entries], [proven(job, WORKER) for job in jobs]


def taken_back(n: int) -> tuple[Book, list[Item], list[Item]]:
    """Jobs that were held for, called off and released; each Hold is made of what the last one gave back."""
    payer, jobs = Author(PAYER), done_jobs(n)
    for job in jobs:
        payer.hold(job)
        payer.state(Release(job.id, job.cover))
    book = Book(NET, Economy(1 << 40, starter_micro=jobs[0].cover))
    return book, list(payer.entries), [job.record(job.cancel()) for job in jobs]


def paid_by_many(n: int) -> tuple[Book, list[Item], list[Item]]:
    """One worker, as many payers as jobs; what they pay from becomes known last."""
    worker = Author(WORKER)
    late: list[Item] = []
    early: list[Item] = []
    for number in range(n):
        who = person(1000 + number)
        payer, job = Author(who), Job(who, 1)
        late.append(payer.hold(job))
        early += [payer.entries[0], proven(job, WORKER)]
        worker.work(job, 0)
    return Book(NET, Economy(1 << 40, starter_micro=1000)), [*early, *worker.entries], late


def claimed_again(n: int) -> tuple[Book, list[Item], list[Item]]:
    """The worker claims one execution over and over."""
    payer, worker, job = Author(PAYER), Author(WORKER), Job(PAYER, 1)
    hold = payer.hold(job)
    for _ in range(n):
        worker.state(Work(job.id, payer.account, hold.id, worker.key, job.price, [Settled(0, 0)]))
    book = Book(NET, Economy(1 << 40, starter_micro=1000))
    return book, [*payer.entries, proven(job, WORKER)], list(worker.entries)


def forked_everywhere(n: int) -> tuple[list[Item], list[Item]]:
    """A feed of Holds, and another Hold for each place of it, the last place first."""
    author = Author(PAYER)
    for number in range(n):
        author.state(Hold(number.to_bytes(32, "big"), 1, 0))
    others: list[Item] = []
    for number in reversed(range(n)):
        twin = author.twin()
        del twin.entries[1 + number :]
        others.append(twin.state(Hold(bytes(32), 2, 0)))
    return list(author.entries), others


def many_accounts(n: int) -> tuple[Book, list[Item], list[Item]]:
    """Everybody pays the next one."""
    authors = [Author(person(1000 + number)) for number in range(n)]
    late: list[Item] = []
    for number, author in enumerate(authors):
        job = Job(author.who, 1)
        author.hold(job)
        worker = authors[(number + 1) % n]
        worker.work(job, 0)
        late.append(proven(job, worker.who))
    book = Book(NET, Economy(1 << 40, starter_micro=1000))
    return book, [entry for author in authors for entry in author.entries], late


WORLDS = [paid, earned_and_spent, taken_back, paid_by_many, claimed_again, many_accounts]
