"""Folded entries in the ledger's file: what is read again says the same, wherever a process or a file ended."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sparkle_ledger import folding, store
from sparkle_ledger.book import Book
from sparkle_ledger.entries import AccountId
from sparkle_ledger.folding import Fold
from sparkle_protocol.errors import ConfigError, LedgerError
from sparkle_protocol.ids import JobId
from tests.unit.ledger.ledgers import ECONOMY, ENTRIES, NET, Author, Job, idle, person

PAYER, WORKER = person(1), person(2)
JOBS, STEP = 6, 5  # entries of one step of folding
FRAME, LOG_HEADER = 4120, 32
FIRST_BASE = "UPDATE bases SET account = x'00' WHERE account = (SELECT MIN(account) FROM bases)"


class Made(NamedTuple):
    """What a node has, and the steps by which it folds."""

    jobs: list[Job]
    authors: list[Author]
    book: Book
    folds: list[Fold]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """A payer and a worker, all of whose jobs were settled and closed; the worker's key was rotated in between."""
    monkeypatch.setattr("sparkle_ledger.book_folding.FOLD_MOST", STEP)
    payer, worker = Author(PAYER), Author(WORKER)
    book, jobs = Book(NET, ECONOMY), []
    for number in range(JOBS):
        job = Job(PAYER, 2, nonce=number)
        payer.hold(job)
        worker.work(job, 0)
        worker.work(job, 1)
        jobs.append(job)
        if number == JOBS // 2:
            worker.rotate(person(3))
        book.add_record(job.record(job.accepted([worker.who]), job.cancel()))
    for author in (payer, worker):
        author.state(idle())
        book.add_all(author.entries)
    for job in jobs:
        book.close(job.id)
    return Made(jobs, [payer, worker], book, [])


def says(book: Book) -> object:
    accounts = sorted(book.accounts())
    found = [book.account(account) for account in accounts]
    return (
        [(one.balance_micro, one.held_micro, one.limit_micro, one.heads, one.entries + one.folded) for one in found],
        [book.pair_totals(account) for account in accounts],
        sorted((job, account, escrow) for job, account, escrow in book.money.all_escrows()),
        book.sum_micro(),
    )  # fmt: skip


def read(db: sqlite3.Connection) -> Book:
    book = Book(NET, ECONOMY)
    for closing in store.closings(db):
        book.add_closing(closing)
    for base in store.bases(db):
        book.add_base(base)
    book.add_all(store.load(db, ENTRIES))
    return book


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def db(path: Path, made: Made) -> Iterator[sqlite3.Connection]:
    opened = store.open_ledger(path, NET)
    for job in made.jobs:
        facts = [fact.raw for fact in (job.spec, *job.accepted([WORKER]))]
        store.keep_evidence(opened, store.Evidence(job.id, facts, []))
    store.append(opened, [entry for author in made.authors for entry in author.entries])
    for closing in made.book.closings():
        store.close_job(opened, closing, keep_evidence=True)
    for author in made.authors:
        made.folds.extend(made.book.fold(author.account, made.book.foldable(author.account, 0, 1)))
    yield opened
    opened.close()


def test_each_step_takes_entries_away_and_what_is_read_says_the_same(db: sqlite3.Connection, made: Made) -> None:
    before, rows = says(read(db)), store.count(db)
    assert len(made.folds) == 5
    for step in made.folds:
        store.fold(db, step)
        assert says(read(db)) == before
    assert store.count(db) == rows - 21 == 2
    assert says(made.book) == before
    bases = {base.account: base for base in store.bases(db)}
    assert bases == {base.account: base for base in made.book.bases()} | bases
    worker = bases[made.authors[1].account]
    assert [seq for seq, _ in worker.keys] == [0, 10]
    assert worker.signer(9) == WORKER.public_key != worker.signer(10) == worker.key
    assert list(store.evidence(db)) == [], "no job is open again"
    evidence = store.evidence_of(db, made.jobs[0].id)
    assert evidence is not None, "and what proves our own work is still here for whoever asks"


def test_a_step_that_was_done_is_not_done_again(db: sqlite3.Connection, made: Made) -> None:
    for step in (*made.folds, *made.folds):
        store.fold(db, step)
    assert says(read(db)) == says(made.book)


def test_later_entries_follow_what_is_folded(db: sqlite3.Connection, made: Made) -> None:
    for step in made.folds:
        store.fold(db, step)
    payer = made.authors[0]
    before = read(db).account(payer.account).held_micro
    store.append(db, [payer.hold(Job(PAYER, 1, nonce=99))])
    book = read(db)
    account = book.account(payer.account)
    assert (account.entries, account.folded) == (2, JOBS + 1)
    assert account.held_micro == before + 20


@pytest.mark.parametrize(
    "write", ["INSERT ON bases", "INSERT ON base_sums", "UPDATE ON closings", "DELETE ON entries", "UPDATE ON about"]
)
def test_a_step_that_fails_leaves_everything_as_it_was(db: sqlite3.Connection, made: Made, write: str) -> None:
    store.fold(db, made.folds[0])
    before, rows = says(read(db)), store.count(db)
    db.execute(f"CREATE TRIGGER full BEFORE {write} BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(LedgerError, match="no room"):
        store.fold(db, made.folds[1])
    db.execute("DROP TRIGGER full")
    assert (says(read(db)), store.count(db)) == (before, rows)
    for step in made.folds:
        store.fold(db, step)
    assert says(read(db)) == says(made.book)


@pytest.mark.parametrize("lost", ["DELETE FROM entries WHERE seq = 1", "DELETE FROM closings"])
def test_what_a_step_rests_on_is_missed(db: sqlite3.Connection, made: Made, lost: str) -> None:
    db.execute(lost)
    with pytest.raises(LedgerError, match="has lost"):
        store.fold(db, made.folds[0])


def test_a_log_cut_anywhere_leaves_whole_steps(db: sqlite3.Connection, made: Made, path: Path) -> None:
    expected = says(made.book)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("PRAGMA wal_autocheckpoint=0")
    for step in made.folds:
        store.fold(db, step)
    copy = path.with_name("copy.db")
    whole, log = path.read_bytes(), path.with_name("ledger.db-wal").read_bytes()
    seen = set()
    edges = {edge + beside for edge in range(LOG_HEADER, len(log) + 1, FRAME) for beside in (-1, 0, 1)}
    for cut in sorted(one for one in edges | set(range(0, len(log), 997)) if 0 <= one <= len(log)):
        copy.write_bytes(whole)
        copy.with_name("copy.db-wal").write_bytes(log[:cut])
        copy.with_name("copy.db-shm").unlink(missing_ok=True)
        again = store.open_ledger(copy, NET)
        assert says(read(again)) == expected
        seen.add(store.count(again))
        again.close()
    assert seen == {23, 18, 16, 11, 6, 2}


def test_a_file_cut_anywhere_is_refused_or_whole(db: sqlite3.Connection, made: Made, path: Path) -> None:
    for step in made.folds:
        store.fold(db, step)
    db.close()
    data = path.read_bytes()
    copy = path.with_name("copy.db")
    outcomes = set[bool]()
    for cut in range(512, len(data) + 1021, 1021):
        copy.write_bytes(data[:cut])
        for beside in ("-wal", "-shm"):
            copy.with_name(f"copy.db{beside}").unlink(missing_ok=True)
        try:
            assert says(read_all(copy)) == says(made.book)
        except (ConfigError, LedgerError):
            outcomes.add(False)
        else:
            outcomes.add(True)
    assert outcomes == {True, False}


def read_all(path: Path) -> Book:
    db = store.open_ledger(path, NET)
    try:
        store.check(db)
        return read(db)
    finally:
        db.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE bases SET raw = x'90'", "UPDATE bases SET raw = 'text'", FIRST_BASE,
        "UPDATE base_sums SET sums = '7' WHERE kind = 0", "UPDATE base_sums SET sums = '1 2 3 4' WHERE kind = 1",
        "UPDATE base_sums SET kind = 7", "UPDATE base_sums SET sums = x'00'", "DELETE FROM base_sums WHERE kind = 1",
        "DELETE FROM bases", "UPDATE closings SET shut = 0", "UPDATE base_sums SET account = x'00' WHERE kind = 0",
    ],
)  # fmt: skip
def test_what_changed_is_found_by_reading(db: sqlite3.Connection, made: Made, change: str) -> None:
    for step in made.folds[:3]:
        store.fold(db, step)
    db.execute(change)
    with pytest.raises(LedgerError, match="move it away"):
        read(db)


def test_sums_may_be_of_any_size(db: sqlite3.Connection, made: Made) -> None:
    step = made.folds[0]
    large = folding.Fold(
        AccountId(step.account), step.after, step.seq, step.id, 0, step.keys, 1 << 62, -(1 << 62), [],
        [folding.HeldFor(step.jobs[0].job, 1 << 62, 0, 1 << 62, 0)], step.jobs,
    )  # fmt: skip
    store.fold(db, large)
    again = folding.Fold(
        AccountId(step.account), step.seq, step.seq + 1, b"\1" * 32, 0, [], 1 << 62, -(1 << 62), [],
        [folding.HeldFor(step.jobs[0].job, 1 << 62, 0, 1 << 62, 0)], [],
    )  # fmt: skip
    store.fold(db, again)
    (base,) = store.bases(db)
    assert (base.strict, base.face, base.held[JobId(step.jobs[0].job)].held) == (1 << 63, -(1 << 63), 1 << 63)
