"""Records on their way to the disk: what is kept while it fails, what is refused, and what can never be made good."""

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from sparkle_p2p.node.store import Store, StoreError, writing
from sparkle_p2p.node.store.backlog import Backlog, record_bytes
from sparkle_protocol.effects import DropCommit, DropCommits, DropJob, Record, StoreCommit, StoreFact, StoreResult
from sparkle_protocol.ids import JobId, ResultHash
from tests.unit.node.test_store import JOB, break_disk, commits_on, numbers, opened, result

BAD = StoreCommit(JOB, 2**70, 0, b"n", b"r")  # no database takes such a number


def commit(unit: int, made: bytes = b"r", job: JobId = JOB) -> StoreCommit:
    return StoreCommit(job, unit, 0, b"n", made)


async def changed(store: Store) -> None:
    """Return when the store says that it fails, or that it works again."""
    news = asyncio.Event()
    store.on_change = news.set
    async with asyncio.timeout(10):
        await news.wait()


async def test_closing_tries_once_more(tmp_path: Path) -> None:
    async with opened(tmp_path / "node.db") as store:
        disk = break_disk(store)
        with pytest.raises(StoreError):
            await store.write([result(1)])
        disk.works = True
    assert numbers(tmp_path / "node.db") == [1]


async def test_the_store_tries_again_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks any more, as on a quiet node; what it could not write is written once the disk is back."""
    monkeypatch.setattr(writing, "RETRY_S", 0.01)
    async with opened(tmp_path / "node.db") as store:
        disk = break_disk(store)
        with pytest.raises(StoreError):
            await store.write([result(1)])
        assert "full" in str(store.failure)
        disk.works = True
        await changed(store)
        assert (store.failure, store.behind) == (None, False)
        assert numbers(store.path) == [1]


async def test_a_disk_that_takes_nothing_does_not_pass_for_one_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refused write there is nothing to write; whether the disk is back is found out all the same."""
    monkeypatch.setattr(writing, "RETRY_S", 0.01)
    async with opened(tmp_path / "node.db") as store:
        disk = break_disk(store)
        with pytest.raises(StoreError):
            await store.write([result(1)], keep=False)
        tried: list[str] = []
        disk.real.set_trace_callback(tried.append)
        disk.works = True
        await changed(store)
        assert any(sql.startswith("PRAGMA user_version=") for sql in tried)
        assert store.failure is None
        assert numbers(store.path) == []


async def test_a_crowded_store_refuses_what_can_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CROWDED_RECORDS", 4)
    async with opened(tmp_path / "node.db") as store:
        first = store.write_soon([result(10), result(11), result(12)])
        with pytest.raises(StoreError, match="fast enough"):
            await store.write([result(13), result(14)], keep=False)
        kept = store.write_soon([result(15), result(16)])
        assert store.crowded
        await first
        await kept
        assert not store.crowded
        assert numbers(store.path) == [10, 11, 12, 15, 16]


@pytest.mark.parametrize("bound", ["MAX_RECORDS", "MAX_BYTES"])
async def test_once_something_is_given_up_nothing_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """Memory knows what the disk never will: until a restart every write fails, though the disk be back."""
    monkeypatch.setattr(writing, bound, 3 if bound == "MAX_RECORDS" else 3 * record_bytes(result(1)))
    told: list[str] = []
    async with opened(tmp_path / "node.db") as store:
        disk = break_disk(store)
        for number in (1, 2, 3):
            with pytest.raises(StoreError, match="free some space"):
                await store.write([result(number)])
        store.on_change = lambda: told.append(str(store.failure))
        with pytest.raises(StoreError, match="make room on it and restart the node"):
            await store.write([result(4)])
        disk.works = True
        for records in ([result(4)], [result(5)], []):
            with pytest.raises(StoreError, match="restart the node"):
                await store.write(records)
        assert store.behind
        assert store.crowded
        assert not store.idle
    assert len(told) == 1
    assert numbers(tmp_path / "node.db") == [1, 2, 3]  # what was kept is written in the end
    async with opened(tmp_path / "node.db") as store:
        await store.write([result(4)])


async def test_what_is_repeated_waits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was refused asks again and again; that must not use up the room."""
    monkeypatch.setattr(writing, "MAX_RECORDS", 6)
    fact = commits_on(1)
    async with opened(tmp_path / "node.db") as store:
        disk = break_disk(store)
        for _ in range(20):
            with pytest.raises(StoreError, match="free some space"):
                await store.write([result(1), commit(1), StoreFact(fact)])
        disk.works = True
        await store.write(())
        assert numbers(store.path) == [1]
        assert await store.facts() == [(fact.id, fact.raw)]


async def test_a_long_backlog_is_not_tried_with_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "EAGER_RECORDS", 1)
    monkeypatch.setattr(writing, "RETRY_S", 3600.0)
    async with opened(tmp_path / "node.db") as store:
        disk = break_disk(store)
        for number in (1, 2):
            with pytest.raises(StoreError):
                await store.write([result(number)])
        disk.works = True
        with pytest.raises(StoreError, match="full"):
            await store.write([result(3)])
        assert numbers(store.path) == []
    assert numbers(tmp_path / "node.db") == [1, 2, 3]


async def test_a_record_that_no_database_takes_fails_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / "node.db") as store:
        before, bad, after = (
            store.write_soon(records, keep=records != [BAD]) for records in ([result(1)], [BAD], [result(2)])
        )
        with pytest.raises(StoreError, match="could not be written"):
            await bad
        await before
        await after
        assert not store.behind
        assert numbers(store.path) == [1, 2]


async def test_a_record_that_memory_relies_on_and_no_database_takes_ends_all_promises(tmp_path: Path) -> None:
    async with opened(tmp_path / "node.db") as store:
        before, bad, after = (store.write_soon(records) for records in ([result(1)], [BAD], [result(2)]))
        await before
        for write in (bad, after, store.write_soon([result(3)]), store.write_soon(())):
            with pytest.raises(StoreError):
                await write
        assert "restart the node" in str(store.failure)
    assert numbers(tmp_path / "node.db") == [1]


@pytest.mark.parametrize("seed", range(40))
async def test_a_backlog_gives_what_all_its_records_would_have_given(tmp_path: Path, seed: int) -> None:
    """Random records, repeated and dropped again, written one by one and through a backlog."""
    draw, jobs = random.Random(seed), (JOB, JobId(b"k" * 32))
    facts = [commits_on(1), commits_on(2)]

    def some() -> Record:
        job, unit = draw.choice(jobs), draw.randrange(2)
        fact = draw.choice(facts)
        return draw.choice([
            commit(unit, draw.randbytes(1), job), DropCommit(job, unit, 0), DropCommits(job), DropJob(job),
            StoreResult(job, ResultHash(bytes([unit]) * 32), b"r"), StoreFact(fact),
        ])  # fmt: skip

    records = [some() for _ in range(draw.randrange(40))]
    backlog = Backlog()
    for record in records:
        backlog.add(record)
    assert len(backlog) <= len(records)
    assert backlog.bytes == sum(map(record_bytes, backlog))
    left = []
    for name, written in (("all", records), ("backlog", [*backlog])):
        async with opened(tmp_path / f"{name}.db") as store:
            await store.write([commit(0), result(1)])
            await store.write(written)
            db: sqlite3.Connection = store._connection()
            left.append([
                db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
                for table in ("facts", "results", "commits")
            ])  # fmt: skip
    assert left[0] == left[1]
