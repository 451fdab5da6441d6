"""What a node must not lose, in one SQLite database (``node.db``, WAL, synchronous=FULL).

``write`` is done when the records are on disk. Calls that arrive while a commit is under way share the next one
(group commit), so a flush costs a node the same whether one unit or a hundred wait for it; they end in the order
in which they were made. Records that could not be written are kept and go first into the next attempt, so that a
disk that was full for a while leaves no gap. One thread owns the connection. A database from a newer version is
refused, never changed; one from an older version is brought up to date. Journals and totals are not of this rank:
they are written every few seconds (``save_journals``), and a crash may cost what came after.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sparkle_p2p.node.journal import Entry
from sparkle_protocol.effects import (
    DropCommit,
    DropCommits,
    DropFact,
    DropJob,
    Record,
    SealRange,
    StoreCommit,
    StoreFact,
    StoreResult,
)
from sparkle_protocol.errors import ConfigError, SparkleError
from sparkle_protocol.facts import NO_RANGE, FactCodec, lot_of
from sparkle_protocol.ids import JobId, PeerId, ResultHash

log = logging.getLogger("sparkle.store")

MAX_PENDING_RECORDS = 100_000  # beyond that writes fail at once: the disk is slower than the network
MAX_OVERDUE_RECORDS = 20_000  # beyond that what cannot be written is given up, the newest first
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
)
SCHEMA_VERSION = len(MIGRATIONS)
MAX_PEERS_KEPT = 256

T = TypeVar("T")


class StoreError(SparkleError):
    """The database could not be read or written."""


@dataclass(slots=True)
class _Write:
    """Records of one caller, what tells it that they are on disk, and whether to try again if they are not."""

    records: Sequence[Record]
    done: asyncio.Future[None]
    keep: bool


class Store:
    """The node's database. Open it before use; every method may raise StoreError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sparkle-store")
        self._db: sqlite3.Connection | None = None
        self._pending: list[_Write] = []
        self._pending_records = 0
        self._overdue: list[Record] = []
        self._flushing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open or create the database.

        Raises:
            ConfigError: it is damaged, unreadable or from a newer version.
        """
        try:
            self._db = await self._call(self._open)
        except sqlite3.Error as error:
            raise ConfigError(self._complaint("cannot be used", error)) from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"{self.path} was written by a newer Sparkle (format {version}, here {SCHEMA_VERSION}); "
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

    async def close(self) -> None:
        """Write what is pending and close; idempotent."""
        if self.behind and self._db is not None:
            with contextlib.suppress(StoreError):
                await self.write(())
        if self._flushing is not None:
            await self._flushing
        db, self._db = self._db, None
        if db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, db.close)
        self._thread.shutdown(wait=False)

    # --- writing ------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """All that was handed over is on disk."""
        return not (self._pending or self._overdue or self._flushing)

    @property
    def behind(self) -> bool:
        """There are records that could not be written so far."""
        return bool(self._overdue)

    async def write(self, records: Sequence[Record], *, keep: bool = True) -> None:
        """Make records durable. Raises StoreError."""
        await self.write_soon(records, keep=keep)

    def write_soon(self, records: Sequence[Record], *, keep: bool = True) -> asyncio.Future[None]:
        """Have records written; the future is done when they, and all before them, are on disk.

        Args:
            records: may be empty, which tries again what could not be written before.
            keep: try again later if this fails; otherwise a failure means that they will never be written.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_mark_seen)
        if self._pending_records + len(records) > MAX_PENDING_RECORDS:
            done.set_exception(StoreError(f"{self.path} cannot be written fast enough; try again later"))
            return done
        self._pending.append(_Write(records, done, keep))
        self._pending_records += len(records)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="write to the database")
        return done

    async def _flush(self) -> None:
        try:
            while self._pending:
                batch, self._pending, self._pending_records = self._pending, [], 0
                records = [*self._overdue, *(record for write in batch for record in write.records)]
                try:
                    await self._call(partial(_write, self._connection(), records))
                except (sqlite3.Error, StoreError) as error:
                    log.error("writing %s failed: %s", self.path, error)
                    self._put_off(batch)
                    _finish(batch, StoreError(self._complaint("could not be written", error)))
                except Exception:  # a record that SQLite cannot take is a bug of ours: it must not come again
                    log.exception("writing %s failed", self.path)
                    _finish(batch, StoreError(f"{self.path} could not be written; the log says why"))
                else:
                    self._overdue.clear()
                    _finish(batch, None)
        finally:
            self._flushing = None

    def _put_off(self, batch: Sequence[_Write]) -> None:
        """Keep for the next attempt what may be kept."""
        late = [record for write in batch if write.keep for record in write.records]
        room = MAX_OVERDUE_RECORDS - len(self._overdue)
        if len(late) > room:
            log.error("%d records that could not be written were given up", len(late) - room)
        self._overdue += late[:room]

    def _complaint(self, what: str, error: Exception) -> str:
        """What happened to the database and what can be done, as one sentence."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            advice = "it is damaged: restore it, or move it away to start without its history"
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            advice = "check its permissions and whether its disk is mounted read-only"
        else:
            advice = "free some space or check the disk"
        return f"{self.path} {what} ({error}); {advice}"

    async def remember_peer(self, peer: PeerId, addresses: Sequence[str], now_s: int) -> None:
        """Keep where a peer was reached; the oldest beyond a bound are forgotten."""

        def work(db: sqlite3.Connection) -> None:
            row = (peer, "\n".join(addresses), now_s)
            db.execute("INSERT OR REPLACE INTO peers VALUES (?, ?, ?)", row)
            db.execute(
                "DELETE FROM peers WHERE peer NOT IN (SELECT peer FROM peers ORDER BY seen_s DESC LIMIT ?)",
                (MAX_PEERS_KEPT,),
            )

        await self._run(work)

    async def save_totals(self, totals: dict[str, int], ages: Mapping[JobId, int] | None = None) -> None:
        """Keep running totals (units done and the like), and the seconds for which each job was kept, no others."""

        def work(db: sqlite3.Connection) -> None:
            _put_totals(db, totals)
            if ages is not None:
                db.execute("DELETE FROM ages")
                db.executemany("INSERT INTO ages VALUES (?, ?)", list(ages.items()))

        await self._run(lambda db: _at_once(db, lambda: work(db)))

    async def save_journals(
        self, entries: Sequence[tuple[JobId, Entry]], gone: Sequence[tuple[JobId, int]], totals: dict[str, int]
    ) -> None:
        """Write changed journal entries and remove others, in one transaction, and totals with them."""
        rows = [
            (job, e.number, e.kind, e.first_ms, e.last_ms, e.peer, e.count, json.dumps(e.notes)) for job, e in entries
        ]

        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM journal WHERE job = ? AND number = ?", gone)
            db.executemany("INSERT OR REPLACE INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            _put_totals(db, totals)

        await self._run(lambda db: _at_once(db, lambda: work(db)))

    async def forget_jobs(self, jobs: Sequence[JobId]) -> None:
        """Remove everything about jobs that concern this node no longer."""

        def work(db: sqlite3.Connection) -> None:
            for table in ("facts", "sealed", "results", "commits", "journal"):
                db.executemany(f"DELETE FROM {table} WHERE job = ?", [(job,) for job in jobs])  # noqa: S608

        await self._run(work)

    # --- reading ------------------------------------------------------------------------------------------

    async def facts(self) -> list[tuple[bytes, bytes]]:
        """All facts as signed, each after its id."""
        return await self._run(lambda db: db.execute("SELECT id, raw FROM facts ORDER BY job, lot").fetchall())

    async def sealed(self) -> list[tuple[JobId, bytes]]:
        """The records of all sealed ranges, each after its job; those of a job in ascending order."""
        rows = await self._run(lambda db: db.execute("SELECT job, raw FROM sealed ORDER BY job, range").fetchall())
        return [(JobId(job), raw) for job, raw in rows]

    async def commits(self) -> list[StoreCommit]:
        """Commits of ours that are not settled."""
        return await self._run(
            lambda db: [
                StoreCommit(JobId(job), unit, epoch, nonce, result)
                for job, unit, epoch, nonce, result in db.execute(
                    "SELECT job, unit, epoch, nonce, result FROM commits"
                )
            ]
        )

    async def result_names(self, job: JobId) -> list[ResultHash]:
        """Hashes of all results that are kept of a job."""
        rows = await self._run(lambda db: db.execute("SELECT hash FROM results WHERE job = ?", (job,)).fetchall())
        return [ResultHash(name) for (name,) in rows]

    async def result_bytes(self, job: JobId) -> int:
        """The size of all results that are kept of a job."""
        query = "SELECT COALESCE(SUM(LENGTH(result)), 0) FROM results WHERE job = ?"
        return int(await self._run(lambda db: db.execute(query, (job,)).fetchone()[0]))

    async def results_there(self, job: JobId, hashes: Sequence[ResultHash]) -> list[bytes]:
        """Result bytes by hash, in order; those that are not kept are left out."""

        def work(db: sqlite3.Connection) -> list[bytes]:
            query = "SELECT result FROM results WHERE job = ? AND hash = ?"
            rows = (db.execute(query, (job, name)).fetchone() for name in hashes)
            return [row[0] for row in rows if row is not None]

        return await self._run(work)

    async def results(self, job: JobId, hashes: Sequence[ResultHash]) -> list[bytes]:
        """Result bytes by hash, in order. Raises StoreError when one is missing."""

        def work(db: sqlite3.Connection) -> list[bytes]:
            found = []
            for name in hashes:
                row = db.execute("SELECT result FROM results WHERE job = ? AND hash = ?", (job, name)).fetchone()
                if row is None:
                    raise StoreError(f"the result {name.hex()[:12]} of job {job.hex()[:12]} is not in {self.path}")
                found.append(row[0])
            return found

        return await self._run(work)

    async def peers(self) -> list[str]:
        """Addresses of peers from earlier runs, the latest seen first."""
        rows = await self._run(lambda db: db.execute("SELECT addresses FROM peers ORDER BY seen_s DESC").fetchall())
        return [address for (text,) in rows for address in text.split("\n") if address]

    async def journal(self, job: JobId) -> list[Entry]:
        """The journal of a job, oldest entry first."""
        query = (
            "SELECT number, kind, first_ms, last_ms, peer, count, notes FROM journal WHERE job = ? ORDER BY number"
        )
        rows = await self._run(lambda db: db.execute(query, (job,)).fetchall())
        return [
            Entry(number, kind, first_ms, last_ms, peer, count, json.loads(notes))
            for number, kind, first_ms, last_ms, peer, count, notes in rows
        ]

    async def ages(self) -> dict[JobId, int]:
        """For how many seconds each of others' jobs had been kept when ``save_totals`` last said so."""
        rows = await self._run(lambda db: db.execute("SELECT job, seconds FROM ages").fetchall())
        return {JobId(job): seconds for job, seconds in rows}

    async def totals(self) -> dict[str, int]:
        """The totals kept by ``save_totals``."""
        return await self._run(lambda db: dict(db.execute("SELECT name, value FROM totals").fetchall()))

    # --- the thread ---------------------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(f"{self.path} is closed")
        return self._db

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._connection()
        try:
            return await self._call(lambda: work(db))
        except sqlite3.Error as error:
            raise StoreError(self._complaint("failed", error)) from error

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _mark_seen(done: asyncio.Future[None]) -> None:
    """Keep asyncio from reporting a failure for which nobody waits any more."""
    if not done.cancelled():
        done.exception()


def _finish(batch: Sequence[_Write], error: StoreError | None) -> None:
    for write in batch:
        if not write.done.done():
            if error is None:
                write.done.set_result(None)
            else:
                write.done.set_exception(error)


def _write(db: sqlite3.Connection, records: Sequence[Record]) -> None:
    def work() -> None:
        for record in records:
            _write_one(db, record)

    _at_once(db, work)


def _put_totals(db: sqlite3.Connection, totals: dict[str, int]) -> None:
    db.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?)", list(totals.items()))


def _at_once(db: sqlite3.Connection, work: Callable[[], object]) -> None:
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
    elif isinstance(record, DropJob):
        db.execute("DELETE FROM results WHERE job = ?", (record.job,))
        open_commits = db.execute("SELECT 1 FROM commits WHERE job = ? LIMIT 1", (record.job,)).fetchone()
        if open_commits is None:  # else the facts show what we committed to
            db.execute("DELETE FROM facts WHERE job = ?", (record.job,))
            db.execute("DELETE FROM sealed WHERE job = ?", (record.job,))
