"""The database: group commit, order, failures, and a real kill -9 at random moments."""

import asyncio
import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from sparkle_p2p.node.journal import Entry
from sparkle_p2p.node.store import Store, StoreError, schema
from sparkle_protocol.effects import (
    DropCommits,
    DropFact,
    DropJob,
    SealRange,
    StoreCommit,
    StoreFact,
    StoreRejection,
    StoreResult,
)
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.facts import SEAL_UNITS, CommitItem, Commits, Fact, FactCodec, lot_of
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import JobId, PeerId, ResultHash

JOB = JobId(b"j" * 32)
ENTRY = Entry(3, "worker_lost", 10, 20, "12D3A", 2, {"units": 5, "why": "it’s gone", "rate": 0.5, "own": False})


def result(number: int) -> StoreResult:
    return StoreResult(JOB, ResultHash(number.to_bytes(32, "big")), b"r%d" % number)


def numbers(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as db:
        return [int.from_bytes(row[0], "big") for row in db.execute("SELECT hash FROM results ORDER BY hash")]


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = Store(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class Broken:
    """A database connection that fails as on a full disk until it is repaired."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self.real = real
        self.works = False

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def execute(self, sql: str, *arguments: object) -> object:
        if not self.works and not sql.startswith("SELECT"):
            raise sqlite3.OperationalError("database or disk is full")
        return self.real.execute(sql, *arguments)


def break_disk(store: Store) -> Broken:
    broken = Broken(store._connection())
    store._db = broken  # type: ignore[assignment]
    return broken


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    async with opened(tmp_path / "node.db") as store:
        await store.write([result(1), StoreCommit(JOB, 3, 0, b"n" * 16, b"mine")])
        await store.remember_peer(PeerId("12D3A"), ["/ip4/127.0.0.1/tcp/1/p2p/12D3A"], 5)
        await store.save_totals({"units_done": 7})
    async with opened(tmp_path / "node.db") as store:
        assert await store.results(JOB, [ResultHash((1).to_bytes(32, "big"))]) == [b"r1"]
        assert await store.commits() == [StoreCommit(JOB, 3, 0, b"n" * 16, b"mine")]
        assert await store.peers() == ["/ip4/127.0.0.1/tcp/1/p2p/12D3A"]
        assert await store.totals() == {"units_done": 7}
        await store.write([DropCommits(JOB)])
        assert await store.commits() == []


async def test_calls_that_come_together_share_a_commit_and_end_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path / "node.db") as store:
        commits = []
        store._connection().set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        ended: list[int] = []
        writes = [store.write_soon([result(number)]) for number in range(200)]
        for number, write in enumerate(writes):
            write.add_done_callback(lambda _, number=number: ended.append(number))
        await asyncio.gather(*writes)
        assert ended == list(range(200))
        assert len(commits) <= 2
    assert numbers(tmp_path / "node.db") == list(range(200))


async def test_a_failed_write_is_told_and_made_up_for_later(tmp_path: Path) -> None:
    async with opened(tmp_path / "node.db") as store:
        disk = break_disk(store)
        with pytest.raises(StoreError, match=r"could not be written .*full.*; free some space") as failure:
            await store.write([result(1)])
        assert "\n" not in str(failure.value)
        with pytest.raises(StoreError):
            await store.write([result(2)], keep=False)
        assert store.behind
        disk.works = True
        await store.write([result(3)])
        assert not store.behind
        assert numbers(store.path) == [1, 3]


async def test_a_missing_result_is_named(tmp_path: Path) -> None:
    async with opened(tmp_path / "node.db") as store:
        with pytest.raises(StoreError, match="is not in"):
            await store.results(JOB, [ResultHash(b"x" * 32)])


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="newer Sparkle"):
        await Store(path).open()
    assert path.read_bytes() == before


FORMAT_1 = """
CREATE TABLE facts   (id BLOB PRIMARY KEY, job BLOB NOT NULL, raw BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX facts_by_job ON facts (job);
CREATE TABLE results (job BLOB NOT NULL, hash BLOB NOT NULL, result BLOB NOT NULL, PRIMARY KEY (job, hash))
    WITHOUT ROWID;
CREATE TABLE commits (job BLOB NOT NULL, unit INTEGER NOT NULL, epoch INTEGER NOT NULL, nonce BLOB NOT NULL,
    result BLOB NOT NULL, PRIMARY KEY (job, unit, epoch)) WITHOUT ROWID;
CREATE TABLE peers   (peer TEXT PRIMARY KEY, addresses TEXT NOT NULL, seen_s INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE totals  (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version=1;
"""


async def test_a_database_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    """As version 0.1 wrote it: everything is still there, and what is new can be written."""
    path = tmp_path / "node.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FORMAT_1)
        db.execute("INSERT INTO facts VALUES (?, ?, ?)", (b"id", JOB, b"raw"))
        db.execute("INSERT INTO totals VALUES ('units_done', 7)")
        db.commit()
    for _ in range(2):
        async with opened(path) as store:
            assert await store.facts() == [(b"id", b"raw")]
            assert (await store.totals())["units_done"] == 7
            await store.save_journals([(JOB, ENTRY)], [], {"alive_ms": 5})
            assert await store.journal(JOB) == [ENTRY]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)


async def test_jobs_are_forgotten_as_a_whole(tmp_path: Path) -> None:
    """A process killed in between leaves no job half forgotten: its commits without its facts, say."""
    jobs = [JobId(bytes([number]) * 32) for number in range(20)]
    async with opened(tmp_path / "node.db") as store:
        records = [StoreCommit(job, 0, 0, b"n", b"mine") for job in jobs]
        await store.write([*records, *(StoreResult(job, ResultHash(job), b"r") for job in jobs)])
        assert await store.jobs_without_facts() == set(jobs)
        seen: list[int] = []

        def look(sql: str) -> None:
            if sql.startswith("DELETE FROM commits"):
                with closing(sqlite3.connect(store.path)) as other:
                    seen.append(other.execute("SELECT COUNT(*) FROM results").fetchone()[0])

        store._connection().set_trace_callback(look)
        await store.forget_jobs(jobs)
        assert seen == [len(jobs)] * len(jobs)
        assert await store.commits() == []


async def test_for_how_long_jobs_were_kept_is_known_of_those_that_are_kept(tmp_path: Path) -> None:
    other = JobId(b"o" * 32)
    async with opened(tmp_path / "node.db") as store:
        await store.save_totals({"units_done": 1}, {JOB: 5, other: 9})
        await store.save_totals({"units_done": 2}, {JOB: 6})
    async with opened(tmp_path / "node.db") as store:
        assert await store.ages() == {JOB: 6}


async def test_journals_are_written_with_one_flush_and_go_with_their_job(tmp_path: Path) -> None:
    later = dataclasses.replace(ENTRY, number=9, kind="job_done", peer="", notes={})
    async with opened(tmp_path / "node.db") as store:
        commits = []
        store._connection().set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        many = [dataclasses.replace(ENTRY, number=number) for number in range(20, 60)]
        await store.save_journals([(JOB, one) for one in (later, ENTRY, *many)], [], {"alive_ms": 5})
        assert len(commits) == 1
        assert await store.journal(JOB) == [ENTRY, later, *many]
        changed = dataclasses.replace(ENTRY, count=4, last_ms=99)
        await store.save_journals([(JOB, changed)], [(JOB, one.number) for one in many], {"alive_ms": 6})
    async with opened(tmp_path / "node.db") as store:
        assert await store.journal(JOB) == [changed, later]
        assert (await store.totals())["alive_ms"] == 6
        await store.forget_jobs([JOB])
        assert await store.journal(JOB) == []


async def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(b"SQLite format 3\x00" + bytes(range(256)) * 32)
    with pytest.raises(ConfigError, match="damaged: restore it, or move it away"):
        await Store(path).open()


async def test_only_the_latest_peers_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparkle_p2p.node.store.MAX_PEERS_KEPT", 3)
    async with opened(tmp_path / "node.db") as store:
        for number in range(6):
            await store.remember_peer(PeerId(f"p{number}"), [f"/a/{number}"], number)
        assert await store.peers() == ["/a/5", "/a/4", "/a/3"]


WRITER = """
import asyncio, sys
from pathlib import Path
from sparkle_p2p.node.store import Store
from tests.unit.node.test_store import result

async def main():
    store = Store(Path(sys.argv[1]))
    await store.open()
    number = int(sys.argv[2])
    while True:
        await asyncio.gather(*(store.write([result(number + k)]) for k in range(8)))
        number += 8
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()

asyncio.run(main())
"""


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    """A real process is killed at random moments; what it said was written is there, without a gap."""
    path, draw, number = tmp_path / "node.db", random.Random(11), 0
    root = Path(__file__).resolve().parents[3]
    for _ in range(5):
        command = [sys.executable, "-c", WRITER, str(path), str(number)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
        ) as child:
            assert child.stdout is not None
            for _ in range(draw.randint(1, 40)):
                number = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().split()
        number = int(rest[-1]) if rest else number
        found = numbers(path)
        assert found[:number] == list(range(number))
        assert found == list(range(len(found)))  # a group is there as a whole or not at all
        number = len(found)


FORMAT_2 = (
    FORMAT_1
    + """
CREATE TABLE journal (job BLOB NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL, peer TEXT NOT NULL, count INTEGER NOT NULL, notes TEXT NOT NULL,
    PRIMARY KEY (job, number)) WITHOUT ROWID;
PRAGMA user_version=2;
"""
)


def commits_on(*units: int) -> Fact:
    items = [CommitItem(unit, 0, b"c" * 32) for unit in units]
    return FactCodec("test").seal(Identity.from_private_bytes(bytes(31) + b"\1"), Commits(JOB, items))


async def test_facts_of_the_second_format_are_kept_and_can_be_dropped_by_their_range(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    stored = [commits_on(1), commits_on(SEAL_UNITS + 1), commits_on(1, SEAL_UNITS + 1)]
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FORMAT_2)
        db.executemany("INSERT INTO facts VALUES (?, ?, ?)", [(one.id, JOB, one.raw) for one in stored])
        db.commit()
    async with opened(path) as store:
        assert sorted(await store.facts()) == sorted((one.id, one.raw) for one in stored)
        for one in stored:
            await store.write([DropFact(JOB, lot_of(one.payload), one.id)])
        assert await store.facts() == []


async def test_a_record_takes_the_place_of_its_facts_and_goes_with_its_job(tmp_path: Path) -> None:
    fine, other = commits_on(1), commits_on(SEAL_UNITS)
    async with opened(tmp_path / "node.db") as store:
        await store.write([StoreFact(fine), StoreFact(other)])
        await store.write([SealRange(JOB, 0, b"record", ((lot_of(fine.payload), fine.id),))])
        await store.write(
            [StoreRejection(JOB, 3, PeerId("12D3A"), b"why"), StoreRejection(JOB, 3, PeerId("12D3A"), b"?")]
        )
    async with opened(tmp_path / "node.db") as store:
        assert await store.facts() == [(other.id, other.raw)]
        assert await store.sealed() == [(JOB, b"record")]
        assert await store.rejections() == [StoreRejection(JOB, 3, PeerId("12D3A"), b"why")]  # the first evidence
        await store.write([DropJob(JOB)])
        assert await store.sealed() == []
        assert await store.rejections() == []
        assert await store.facts() == []
