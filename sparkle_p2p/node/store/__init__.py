"""What a node must not lose, in one SQLite database (``node.db``, WAL, synchronous=FULL).

``write`` is done when the records are on disk (see ``writing.py``). One thread owns the connection. A database from a
newer version is refused, never changed; one from an older version is brought up to date. Journals, totals and
standings are not of this rank: they are written every few seconds, and a crash may cost what came after.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sparkle_p2p.node.journal import Entry
from sparkle_p2p.node.store.schema import at_once, open_database, put_totals
from sparkle_p2p.node.store.writing import RecordWriter, complaint
from sparkle_p2p.node.store.writing import StoreError as StoreError
from sparkle_protocol.effects import StoreCommit, StoreRejection
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.ids import JobId, PeerId, ResultHash

log = logging.getLogger("sparkle.store")

MAX_PEERS_KEPT = 256

T = TypeVar("T")


class Store(RecordWriter):
    """The node's database. Open it before use; every method may raise StoreError."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sparkle-store")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open or create the database.

        Raises:
            ConfigError: it is damaged, unreadable or from a newer version.
        """
        try:
            self._db = await self._call(partial(open_database, self.path))
        except sqlite3.Error as error:
            raise ConfigError(complaint(self.path, "cannot be used", error)) from error

    async def close(self) -> None:
        """Write what is pending and close; idempotent."""
        await self._drain()
        db, self._db = self._db, None
        if db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, db.close)
        self._thread.shutdown(wait=False)

    # --- writing what is no record -------------------------------------------------------------------------

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
            put_totals(db, totals)
            if ages is not None:
                db.execute("DELETE FROM ages")
                db.executemany("INSERT INTO ages VALUES (?, ?)", list(ages.items()))

        await self._run(lambda db: at_once(db, lambda: work(db)))

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
            put_totals(db, totals)

        await self._run(lambda db: at_once(db, lambda: work(db)))

    async def save_standings(
        self, net: str, rows: Sequence[tuple[str, str, str, int, float, int, str, int]], most: int, known: int
    ) -> None:
        """Write what workers have shown in a network, in one transaction.

        Args:
            net: the network.
            rows: peer, device, class of kernels, passes, capital, failures, passes by submitter (JSON), and a number
                that grows with every change.
            most: of more than so many those with fewer than ``known`` passes go first, the oldest change first.
            known: see ``most``.
        """
        excess = (
            "DELETE FROM standings WHERE net = ?1 AND (peer, device, verification) IN ("
            "SELECT peer, device, verification FROM standings WHERE net = ?1 ORDER BY passes >= ?2, changed LIMIT ?3)"
        )

        def work(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT OR REPLACE INTO standings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [(net, *row) for row in rows]
            )
            stored = int(db.execute("SELECT COUNT(*) FROM standings WHERE net = ?", (net,)).fetchone()[0])
            if stored > most:
                db.execute(excess, (net, known, stored - most))

        await self._run(lambda db: at_once(db, lambda: work(db)))

    async def forget_jobs(self, jobs: Sequence[JobId]) -> None:
        """Remove everything about jobs that concern this node no longer."""

        def work(db: sqlite3.Connection) -> None:
            for table in ("facts", "sealed", "results", "commits", "journal", "rejections"):
                db.executemany(f"DELETE FROM {table} WHERE job = ?", [(job,) for job in jobs])  # noqa: S608

        await self._run(lambda db: at_once(db, lambda: work(db)))

    # --- reading ------------------------------------------------------------------------------------------

    async def facts(self) -> list[tuple[bytes, bytes]]:
        """All facts as signed, each after its id."""
        return await self._run(lambda db: db.execute("SELECT id, raw FROM facts ORDER BY job, lot").fetchall())

    async def sealed(self) -> list[tuple[JobId, bytes]]:
        """The records of all sealed ranges, each after its job; those of a job in ascending order."""
        rows = await self._run(lambda db: db.execute("SELECT job, raw FROM sealed ORDER BY job, range").fetchall())
        return [(JobId(job), raw) for job, raw in rows]

    async def rejections(self) -> list[StoreRejection]:
        """Results that were refused, of all jobs."""
        query = "SELECT job, unit, worker, raw FROM rejections ORDER BY job, unit, worker"
        rows = await self._run(lambda db: db.execute(query).fetchall())
        return [StoreRejection(JobId(job), unit, PeerId(worker), raw) for job, unit, worker, raw in rows]

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

    async def jobs_without_facts(self) -> set[JobId]:
        """Jobs of which only commits are kept: too little to settle them."""
        query = "SELECT DISTINCT job FROM commits WHERE job NOT IN (SELECT job FROM facts)"
        return {JobId(job) for (job,) in await self._run(lambda db: db.execute(query).fetchall())}

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

    async def standings(self, net: str, most: int) -> list[tuple[Any, ...]]:
        """The latest rows of ``save_standings`` for a network, the oldest change first; not checked for damage."""
        query = (
            "SELECT peer, device, verification, passes, capital, failures, others, changed FROM standings "
            "WHERE net = ? ORDER BY changed DESC LIMIT ?"
        )
        return (await self._run(lambda db: db.execute(query, (net, most)).fetchall()))[::-1]

    async def totals(self) -> dict[str, int]:
        """The totals kept by ``save_totals``."""
        return await self._run(lambda db: dict(db.execute("SELECT name, value FROM totals").fetchall()))

    # --- the thread ---------------------------------------------------------------------------------------

    async def _transact(self, work: Callable[[sqlite3.Connection], None]) -> None:
        await self._call(partial(work, self._connection()))

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(f"{self.path} is closed")
        return self._db

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._connection()
        try:
            return await self._call(lambda: work(db))
        except sqlite3.Error as error:
            raise StoreError(complaint(self.path, "failed", error)) from error

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
