"""The ledger's file: what is appended is there, in order; what is not usable says so in a sentence."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sparkle_ledger import store
from sparkle_ledger.closing import Closing, Final
from sparkle_ledger.entries import AccountId, Hold
from sparkle_ledger.store import schema
from sparkle_protocol.errors import ConfigError, LedgerError
from sparkle_protocol.ids import JobId, digest
from tests.unit.ledger.feeds import CODEC, NET, PEOPLE, feed, holds, job
from tests.unit.ledger.ledgers import PRICE

HUGE = 1 << 90  # more than a column of SQLite takes as a number
FEEDS = [holds(person, count) for person, count in zip(PEOPLE[:3], (5, 9, 0), strict=True)]
ENTRIES = [entry for one in FEEDS for entry in one]
ORDERED = sorted(ENTRIES, key=lambda entry: (entry.account, entry.seq))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    opened = store.open_ledger(path, NET)
    yield opened
    opened.close()


def test_entries_come_back_feed_by_feed_however_they_came(db: sqlite3.Connection, path: Path) -> None:
    assert store.append(db, ENTRIES[::-1]) == len(ENTRIES)
    assert store.append(db, ENTRIES) == 0
    assert store.count(db) == len(ENTRIES)
    db.close()
    again = store.open_ledger(path, NET)
    assert list(store.load(again, CODEC)) == ORDERED
    again.close()


def test_two_entries_for_one_place_are_both_kept(db: sqlite3.Connection) -> None:
    store.append(db, ENTRIES)
    (other,) = feed(PEOPLE[0], [Hold(job(77), 1, 1)], before=FEEDS[0][2])
    assert store.append(db, [other]) == 1
    fork = store.Fork(other.account, FEEDS[0][3].raw, other.raw)
    assert (store.keep_fork(db, fork), store.keep_fork(db, fork)) == (1, 0)
    assert store.forks(db) == [fork]
    assert {entry.raw for entry in store.load(db, CODEC)} == {other.raw, *(entry.raw for entry in ENTRIES)}


def test_evidence_is_kept_once_and_comes_back_by_job(db: sqlite3.Connection) -> None:
    one, two = sorted([JobId(job(1)), JobId(job(2))])
    assert store.keep_evidence(db, store.Evidence(two, [b"b"], [])) == 1
    assert store.keep_evidence(db, store.Evidence(one, [b"a", b"c"], [b"c"])) == 3
    assert store.keep_evidence(db, store.Evidence(one, [b"c", b"d"], [b"c"])) == 1
    found = [(known.job, sorted(known.facts), known.sealed) for known in store.evidence(db)]
    assert found == [(one, [b"a", b"c", b"d"], [b"c"]), (two, [b"b"], [])]


def closing(number: int, executions: int = 3) -> Closing:
    finals = [Final(ENTRIES[number].id, "booked", PRICE), Final(ENTRIES[9].id, "void:settled", 0)]
    return Closing(job(number), b"spec" * 9, PEOPLE[0].public_key, PRICE, executions, finals)


def facts_of(db: sqlite3.Connection, **options: bool) -> dict[bytes, list[bytes]]:
    return {one.job: sorted(one.facts) for one in store.evidence(db, **options)}


def evidence(number: int, *facts: bytes) -> store.Evidence:
    return store.Evidence(JobId(job(number)), list(facts), [])


@pytest.mark.parametrize("keep", [False, True])
def test_a_closing_takes_the_place_of_evidence(db: sqlite3.Connection, path: Path, *, keep: bool) -> None:
    for number in range(3):
        store.keep_evidence(db, evidence(number, b"a", b"b"))
    store.close_job(db, closing(1), keep_evidence=keep)
    db.close()
    again = store.open_ledger(path, NET)
    assert list(store.closings(again)) == [closing(1)]
    assert facts_of(again) == {job(0): [b"a", b"b"], job(2): [b"a", b"b"]}
    assert len(facts_of(again, closed=True)) == (3 if keep else 2)
    assert (store.evidence_of(again, job(1)) is not None) is keep
    assert store.count_evidence(again) == (6 if keep else 4)
    again.close()


def test_evidence_is_found_by_job_also_of_a_closed_one(db: sqlite3.Connection) -> None:
    store.keep_evidence(db, store.Evidence(JobId(job(1)), [b"a"], [b"s"]))
    store.close_job(db, closing(1), keep_evidence=True)
    assert store.evidence_of(db, job(1)) == store.Evidence(JobId(job(1)), [b"a"], [b"s"])
    assert store.evidence_of(db, job(2)) is None


@pytest.mark.parametrize("keep", [False, True])
def test_evidence_that_comes_later_opens_a_job_until_it_is_closed_again(
    db: sqlite3.Connection, *, keep: bool
) -> None:
    store.keep_evidence(db, evidence(1, b"a", b"b"))
    store.close_job(db, closing(1), keep_evidence=keep)
    if keep:
        store.keep_evidence(db, evidence(1, b"a", b"b"))
        assert facts_of(db) == {}, "nothing of that is new"
    store.keep_evidence(db, evidence(1, b"c"))
    assert facts_of(db) == {job(1): [b"a", b"b", b"c"] if keep else [b"c"]}
    assert list(store.closings(db)) == [closing(1)]
    store.close_job(db, closing(1, 4), keep_evidence=keep)
    assert facts_of(db) == {}
    assert list(store.closings(db)) == [closing(1, 4)]


def test_a_closing_that_fails_leaves_everything_as_it_was(db: sqlite3.Connection) -> None:
    store.keep_evidence(db, evidence(1, b"a"))
    store.close_job(db, closing(1), keep_evidence=True)
    db.execute("CREATE TRIGGER full BEFORE INSERT ON closings BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(LedgerError, match="no room"):
        store.close_job(db, closing(1, 4), keep_evidence=False)
    assert list(store.closings(db)) == [closing(1)]
    assert facts_of(db, closed=True) == {job(1): [b"a"]}


def test_a_ledger_of_the_first_format_is_converted_and_keeps_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        patch.setattr(schema, "SCHEMA_VERSION", 1)
        old = store.open_ledger(path, NET)
        store.append(old, ENTRIES)
        store.keep_evidence(old, evidence(1, b"a"))
        old.close()
    with pytest.raises(ConfigError, match="start the node once to convert it"):
        store.open_ledger(path, NET, readonly=True)
    new = store.open_ledger(path, NET)
    assert list(store.load(new, CODEC)) == ORDERED
    assert (facts_of(new), list(store.closings(new))) == ({job(1): [b"a"]}, [])
    store.close_job(new, closing(1), keep_evidence=False)
    assert list(store.closings(new)) == [closing(1)]
    new.close()


def test_an_append_that_fails_leaves_nothing(db: sqlite3.Connection) -> None:
    bad = replace(ENTRIES[1], account=AccountId(None))  # type: ignore[arg-type]
    with pytest.raises(LedgerError):
        store.append(db, [ENTRIES[0], bad])
    assert store.count(db) == 0
    assert store.append(db, [ENTRIES[0]]) == 1


def test_a_ledger_is_looked_at_beside_its_node_without_changing_it(db: sqlite3.Connection, path: Path) -> None:
    store.append(db, ENTRIES[:5])
    seen = store.open_ledger(path, NET, readonly=True)
    assert store.count(seen) == 5
    store.append(db, ENTRIES[5:6])
    assert store.count(seen) == 6
    store.check(seen)
    with pytest.raises(LedgerError, match="read-only"):
        store.append(seen, ENTRIES)
    seen.close()


def test_looking_creates_nothing(path: Path) -> None:
    with pytest.raises(ConfigError, match="start a node"):
        store.open_ledger(path, NET, readonly=True)
    assert not path.exists()


def test_a_ledger_of_another_network_is_refused(db: sqlite3.Connection, path: Path) -> None:
    with pytest.raises(ConfigError, match="network 'test', not of 'other'; use that --net or another --home"):
        store.open_ledger(path, "other")


def test_a_ledger_of_a_newer_version_is_refused_and_not_touched(db: sqlite3.Connection, path: Path) -> None:
    db.execute(f"PRAGMA user_version={store.SCHEMA_VERSION + 1}")
    with pytest.raises(ConfigError, match="update Sparkle"):
        store.open_ledger(path, NET)
    assert db.execute("PRAGMA user_version").fetchone()[0] == store.SCHEMA_VERSION + 1


def test_a_ledger_that_was_never_finished_is_not_looked_at(path: Path) -> None:
    sqlite3.connect(path).execute("CREATE TABLE begun (x)").connection.close()
    with pytest.raises(ConfigError, match="start the node once"):
        store.open_ledger(path, NET, readonly=True)


def test_an_empty_file_beside_a_log_is_refused_since_sqlite_would_drop_the_log(
    db: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    store.append(db, ENTRIES)
    other = tmp_path / "other.db"
    other.touch()
    other.with_name("other.db-wal").write_bytes(path.with_name("ledger.db-wal").read_bytes())
    with pytest.raises(ConfigError, match="move it away"):
        store.open_ledger(other, NET)


def test_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"what I earned: a lot" * 300)
    with pytest.raises(ConfigError, match="move it away"):
        store.open_ledger(path, NET)


def test_an_entry_in_the_wrong_place_is_found_by_reading(db: sqlite3.Connection) -> None:
    store.append(db, ENTRIES)
    db.execute("UPDATE entries SET raw = ? WHERE id = ?", (ENTRIES[2].raw, ENTRIES[1].id))
    with pytest.raises(LedgerError, match=r"entry 1 of account .* is damaged"):
        list(store.load(db, CODEC))


def test_evidence_that_changed_is_found_by_reading(db: sqlite3.Connection) -> None:
    store.keep_evidence(db, store.Evidence(JobId(job(1)), [b"fact"], []))
    db.execute("UPDATE evidence SET raw = x'00'")
    with pytest.raises(LedgerError, match="damaged"):
        list(store.evidence(db))


@pytest.mark.parametrize("which", ["= (SELECT MAX({0}) FROM {1})", "NOT NULL"])
@pytest.mark.parametrize(
    ("table", "column", "read"),
    [
        ("entries", "id", store.rows),
        ("evidence", "job", store.evidence),
        ("forks", "account", store.forks),
        ("closings", "job", store.closings),
    ],
)
def test_rows_that_got_lost_are_missed(
    db: sqlite3.Connection,
    table: str,
    column: str,
    read: Callable[[sqlite3.Connection], Iterable[object]],
    which: str,
) -> None:
    store.append(db, ENTRIES)
    for number in range(2):
        store.keep_evidence(db, store.Evidence(JobId(job(number)), [b"fact"], []))
        store.keep_fork(db, store.Fork(FEEDS[number][0].account, ENTRIES[0].raw, ENTRIES[1].raw))
        store.close_job(db, closing(2 + number), keep_evidence=False)
    assert list(read(db))
    db.execute(f"DELETE FROM {table} WHERE {column} {which.format(column, table)}")
    with pytest.raises(LedgerError, match=f"has lost {table}"):
        list(read(db))


@pytest.mark.parametrize("which", ["job = x'{0}'", "job <> x'{0}'", "1"])
def test_lost_evidence_is_missed_also_where_some_is_left_out(db: sqlite3.Connection, which: str) -> None:
    """Of the closed job, of the open one, of both."""
    for number in range(2):
        store.keep_evidence(db, evidence(number, b"a", b"b", b"c"))
    store.close_job(db, closing(1), keep_evidence=True)
    assert len(list(store.evidence(db))) == 1
    db.execute(f"DELETE FROM evidence WHERE {which.format(job(1).hex())} AND kind = 0 AND raw = ?", (b"b",))
    with pytest.raises(LedgerError, match="has lost evidence"):
        list(store.evidence(db))
    with pytest.raises(LedgerError, match="has lost evidence"):
        list(store.evidence(db, closed=True))
    if "<>" not in which:
        with pytest.raises(LedgerError, match=f"has lost evidence about job {job(1).hex()[:12]}"):
            store.evidence_of(db, job(1))


@pytest.mark.parametrize(
    "change",
    [
        "raw = CAST(raw || x'00' AS BLOB)",
        "raw = 'text'",
        "checked = x'00'",
        "kept = kept + 1",
        "kept = -1",
        "kept = 'x'",
        "job = x'00'",
    ],
)
def test_a_closing_that_changed_is_found_by_reading(db: sqlite3.Connection, change: str) -> None:
    store.close_job(db, closing(1), keep_evidence=False)
    db.execute(f"UPDATE closings SET {change}")
    with pytest.raises(LedgerError, match=r"closed job in .* is damaged; move it away"):
        list(store.closings(db))


def test_a_closing_that_cannot_be_read_again_is_found_by_reading(db: sqlite3.Connection) -> None:
    """As if a program had written it that knows another shape."""
    store.close_job(db, closing(1), keep_evidence=False)
    raw = b"\x93\x01\x02\x03"
    db.execute("UPDATE closings SET raw = ?, checked = ?", (raw, digest(job(1), bytes(8), raw)[:8]))
    with pytest.raises(LedgerError, match="damaged"):
        list(store.closings(db))
