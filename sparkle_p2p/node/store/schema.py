"""The tables of ``node.db``, how an older format becomes the present one, and how each record is written."""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from sparkle_protocol.effects import (
    DropCommit,
    DropCommits,
    DropFact,
    DropJob,
    Record,
    SealRange,
    StoreCommit,
    StoreFact,
    StoreRejection,
    StoreResult,
)
from sparkle_protocol.errors import ConfigError, SparkleError
from sparkle_protocol.facts import NO_RANGE, FactCodec, lot_of

# What turned the format of one version into the next; a new database goes through all of them.
MIGRATIONS = (
    """
CREATE TABLE facts   (id BLOB PRIMARY KEY, job BLOB NOT NULL, raw BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX facts_by_job ON facts (job);
CREATE TABLE results (job BLOB NOT NULL, hash BLOB NOT NULL, result BLOB NOT NULL, PRIMARY KEY (job, hash))
    WITHOUT ROWID;
CREATE TABLE commits (job BLOB NOT NULL, unit INTEGER NOT NULL, epoch INTEGER NOT NULL, nonce BLOB NOT NULL,
    result BLOB NOT NULL, PRIMARY KEY (job, unit, epoch)) WITHOUT ROWID;
CREATE TABLE peers   (peer TEXT PRIMARY KEY, addresses TEXT NOT NULL, seen_s INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE totals  (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
""",
    """
CREATE TABLE journal (job BLOB NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL, peer TEXT NOT NULL, count INTEGER NOT NULL, notes TEXT NOT NULL,
    PRIMARY KEY (job, number)) WITHOUT ROWID;
""",
    # Facts of one range of units lie together: they come together and go together.
    """
CREATE TABLE facts_by_lot (job BLOB NOT NULL, lot INTEGER NOT NULL, id BLOB NOT NULL, raw BLOB NOT NULL,
    PRIMARY KEY (job, lot, id)) WITHOUT ROWID;
INSERT INTO facts_by_lot SELECT job, lot_of(raw), id, raw FROM facts;
DROP TABLE facts;
ALTER TABLE facts_by_lot RENAME TO facts;
CREATE TABLE sealed (job BLOB NOT NULL, range INTEGER NOT NULL, raw BLOB NOT NULL, UNIQUE (job, range));
""",
    # For how long others' jobs have been kept, by the clock of the runs so far: the wall clock may jump.
    """
CREATE TABLE ages (job BLOB PRIMARY KEY, seconds INTEGER NOT NULL) WITHOUT ROWID;
""",
    # Results that were refused, with the evidence.
    """
CREATE TABLE rejections (job BLOB NOT NULL, unit INTEGER NOT NULL, worker TEXT NOT NULL, raw BLOB NOT NULL,
    PRIMARY KEY (job, unit, worker)) WITHOUT ROWID;
""",
    # What workers have shown, for one network each: they outlive the jobs. ``others``: passes by submitter, as JSON;
    # ``changed``: in which order they changed.
    """
CREATE TABLE standings (net TEXT NOT NULL, peer TEXT NOT NULL, device TEXT NOT NULL, verification TEXT NOT NULL,
    passes INTEGER NOT NULL, capital REAL NOT NULL, failures INTEGER NOT NULL, others TEXT NOT NULL,
    changed INTEGER NOT NULL, PRIMARY KEY (net, peer, device, verification)) WITHOUT ROWID;
""",
)
SCHEMA_VERSION = len(MIGRATIONS)


def open_database(path: Path) -> sqlite3.Connection:
    """Open or create the database, in the present format.

    Raises:
        ConfigError: it is from a newer version.
        sqlite3.Error: it is damaged or unreadable.
    """
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"{path} was written by a newer Sparkle (format {version}, here {SCHEMA_VERSION}); "
                "update Sparkle or use another --home"
            )
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.create_function("lot_of", 1, _lot_of, deterministic=True)
        for step in range(version, SCHEMA_VERSION):  # each as a whole, so that a crash leaves a known format
            db.executescript(f"BEGIN;{MIGRATIONS[step]}PRAGMA user_version={step + 1};COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def damage(path: Path) -> str | None:
    """What is wrong with the database at ``path``, in words, looked at beside whoever uses it; None: nothing."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                return f"it was written by a newer Sparkle (format {version}, here {SCHEMA_VERSION})"
            found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)
    return None if found == "ok" else " ".join(found.split())


def write_records(db: sqlite3.Connection, records: Iterable[Record], *, probe: bool = False) -> None:
    """Write records in their order: all of them or, when it raises, none. ``probe``: write also if there are none."""

    def work() -> None:
        for record in records:
            _write_one(db, record)
        if probe:
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    at_once(db, work)


def put_totals(db: sqlite3.Connection, totals: dict[str, int]) -> None:
    """Set running totals."""
    db.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?)", list(totals.items()))


def at_once(db: sqlite3.Connection, work: Callable[[], object]) -> None:
    """All that ``work`` writes, or nothing of it, with one flush."""
    db.execute("BEGIN IMMEDIATE")
    try:
        work()
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


_DROP_FACT = "DELETE FROM facts WHERE job = ? AND lot = ? AND id = ?"


def _lot_of(raw: bytes) -> int:
    """Where a fact of an earlier format belongs; a damaged one is kept, for whoever reads it to judge."""
    try:
        return FactCodec("").lot_of(raw)
    except SparkleError:
        return NO_RANGE


def _write_one(db: sqlite3.Connection, record: Record) -> None:
    if isinstance(record, StoreFact):
        fact = record.fact
        placed = (fact.job, lot_of(fact.payload), fact.id, fact.raw)
        db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?)", placed)
    elif isinstance(record, DropFact):
        db.execute(_DROP_FACT, (record.job, record.lot, record.fact_id))
    elif isinstance(record, SealRange):
        db.execute("INSERT OR IGNORE INTO sealed VALUES (?, ?, ?)", (record.job, record.index, record.raw))
        db.executemany(_DROP_FACT, [(record.job, lot, fact_id) for lot, fact_id in record.drop])
    elif isinstance(record, StoreResult):
        row = (record.job, record.result_hash, record.result)
        db.execute("INSERT OR IGNORE INTO results VALUES (?, ?, ?)", row)
    elif isinstance(record, StoreCommit):
        commit = (record.job, record.unit, record.epoch, record.nonce, record.result)
        db.execute("INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?, ?)", commit)
    elif isinstance(record, DropCommit):
        key = (record.job, record.unit, record.epoch)
        db.execute("DELETE FROM commits WHERE job = ? AND unit = ? AND epoch = ?", key)
    elif isinstance(record, DropCommits):
        db.execute("DELETE FROM commits WHERE job = ?", (record.job,))
    elif isinstance(record, StoreRejection):
        rejection = (record.job, record.unit, record.worker, record.raw)
        db.execute("INSERT OR IGNORE INTO rejections VALUES (?, ?, ?, ?)", rejection)
    elif isinstance(record, DropJob):
        db.execute("DELETE FROM results WHERE job = ?", (record.job,))
        db.execute("DELETE FROM rejections WHERE job = ?", (record.job,))
        open_commits = db.execute("SELECT 1 FROM commits WHERE job = ? LIMIT 1", (record.job,)).fetchone()
        if open_commits is None:  # else the facts show what we committed to
            db.execute("DELETE FROM facts WHERE job = ?", (record.job,))
            db.execute("DELETE FROM sealed WHERE job = ?", (record.job,))
