"""The ledger of a node on disk: with jobs closed, it loads to what it was before."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sparkle_ledger import store
from sparkle_ledger.book import Book
from sparkle_ledger.entries import Entry, Release
from sparkle_ledger.evidence import JobRecord
from sparkle_p2p.node.ledger_disk import LEDGER_FILE, LedgerDisk
from sparkle_protocol.codec import encode
from sparkle_protocol.effects import KeepLedger
from sparkle_protocol.errors import ConfigError, LedgerError
from sparkle_protocol.ids import JobId
from tests.unit.ledger.ledgers import ECONOMY, GENESIS, KEEPERS, NET, PRICE, Author, Job, person
from tests.unit.ledger.projections import project

ALICE, BOB, CAROL, DAVE = (person(n) for n in range(1, 5))
UNITS = 3


class World:
    """Alice had two jobs done: Bob and Carol claimed the first, and so did Carol in vain once more."""

    def __init__(self) -> None:
        self.alice, self.bob, self.carol = (Author(one) for one in (ALICE, BOB, CAROL))
        self.jobs = [Job(ALICE, UNITS, replicas=3, keepers=KEEPERS, nonce=n) for n in range(2)]
        self.records = [job.record(job.accepted([BOB, CAROL])) for job in self.jobs]
        for job in self.jobs:
            self.alice.hold(job)
            self.bob.work(job, 0, 1, 2)
            self.alice.state(Release(job.id, 1000))
        self.carol.work(self.jobs[0], 0, 1)
        self.carol.work(self.jobs[0], 1)

    @property
    def entries(self) -> list[Entry]:
        return [*self.alice.entries, *self.bob.entries, *self.carol.entries]

    def book(self) -> Book:
        book = Book(NET, ECONOMY)
        for record in self.records:
            book.add_record(record)
        book.add_all(self.entries)
        return book


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / LEDGER_FILE


@pytest.fixture
async def disk(home: Path) -> AsyncIterator[LedgerDisk]:
    made = LedgerDisk(home, GENESIS)
    yield made
    await made.close()


def kept(db: store.Database, record: JobRecord) -> None:
    store.keep_evidence(
        db,
        store.Evidence(
            record.job, [fact.raw for fact in record.counting()], [one.encode() for one in record.sealed()]
        ),
    )


def written(home: Path, world: World, book: Book, *, keep_evidence: bool) -> None:
    """What a node keeps that has closed all jobs of this world but the last."""
    db = store.open_ledger(home, NET, GENESIS)
    for record in world.records:
        kept(db, record)
    store.append(db, world.entries)
    for job in world.jobs[:-1]:
        store.close_job(db, book.close(job.id), keep_evidence=keep_evidence)
    db.close()


def findings(book: Book, entries: list[Entry]) -> list[object]:
    return [project(book), *((book.outcome(one.id), book.moved(one.id)) for one in entries)]


@pytest.mark.parametrize("keep", [False, True])
async def test_with_jobs_closed_it_loads_to_what_it_was(disk: LedgerDisk, home: Path, *, keep: bool) -> None:
    world = World()
    book = world.book()
    before = findings(book, world.entries)
    written(home, world, book, keep_evidence=keep)
    assert findings(book, world.entries) == before, "closing changes nothing"
    found = (await disk.load()).book
    assert findings(found, world.entries) == before
    assert list(found.closings()) == list(book.closings())
    assert [record.job for record in found.records()] == [world.jobs[1].id]
    assert found.account(world.bob.account).balance_micro == 2 * UNITS * PRICE


@pytest.mark.parametrize("keep", [False, True])
async def test_what_came_after_a_job_was_closed_is_not_forgotten(disk: LedgerDisk, home: Path, *, keep: bool) -> None:
    """Neither Dave's pay, nor what is owed to him for what he has not claimed."""
    world = World()
    book, job, dave = world.book(), world.jobs[0], Author(DAVE)
    written(home, world, book, keep_evidence=keep)
    dave.work(job, 0)
    late = job.record(job.accepted([DAVE], [0, 1]))
    book.add_all(dave.entries)
    book.add_record(late)
    if keep:  # what is read again when a job is opened
        book.add_record(world.records[0])
    assert book.account(dave.account).balance_micro == PRICE
    entries = [*world.entries, *dave.entries]
    db = store.open_ledger(home, NET, GENESIS)
    kept(db, late)
    store.append(db, dave.entries)
    db.close()
    found = (await disk.load()).book
    assert findings(found, entries) == findings(book, entries)
    assert found.account(world.alice.account).held_micro == book.account(world.alice.account).held_micro > 0


async def test_with_entries_folded_it_loads_to_what_it_was_also_if_that_is_kept_twice(
    disk: LedgerDisk, home: Path
) -> None:
    world = World()
    book = world.book()
    written(home, world, book, keep_evidence=False)
    await disk.load()
    before = project(book)
    folds = []
    for author in (world.alice, world.bob, world.carol):
        folds += book.fold(author.account, book.foldable(author.account, 0, 1))
    late = world.alice.state(Release(world.jobs[1].id, 1))
    effect = KeepLedger(1, entries=(late.raw,), folds=tuple(encode(fold) for fold in folds))
    await disk.keep(effect)
    await disk.keep(effect)  # the disk failed after that
    await disk.close()
    again = LedgerDisk(home, GENESIS)
    found = (await again.load()).book
    await again.close()
    book.add(late)
    assert [found.account(one).folded for one in sorted(found.accounts())] == [
        book.account(one).folded for one in sorted(book.accounts())
    ]
    assert sum(base.seq + 1 for base in found.bases()) == len(folds) + 4 == 7
    assert project(found) == project(book)
    assert project(found).pairs == before.pairs
    assert found.sum_micro() == 0


async def test_evidence_of_a_closed_job_is_shown_if_it_was_kept(disk: LedgerDisk, home: Path) -> None:
    world = World()
    with pytest.raises(LedgerError, match="is closed"):
        await disk.evidence_of(world.jobs[0].id)
    written(home, world, world.book(), keep_evidence=True)
    await disk.load()
    for job, record in zip(world.jobs, world.records, strict=True):
        found = await disk.evidence_of(job.id)
        assert found is not None
        assert set(found.facts) == {fact.raw for fact in record.counting()}
    assert await disk.evidence_of(JobId(b"n" * 32)) is None


async def test_a_closing_that_changed_is_refused_at_the_start(disk: LedgerDisk, home: Path) -> None:
    world = World()
    written(home, world, world.book(), keep_evidence=False)
    db = store.open_ledger(home, NET, GENESIS)
    db.execute("UPDATE closings SET checked = x'00'")
    db.close()
    with pytest.raises(ConfigError, match=r"closed job in .* is damaged"):
        await disk.load()
