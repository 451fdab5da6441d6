"""A ledger's file remembers by which genesis record it was judged, and is not judged by another one unnoticed."""

import sqlite3
from pathlib import Path

import pytest

from sparkle_ledger import store
from sparkle_ledger.entries import AccountId
from sparkle_ledger.genesis import GenesisRecord
from sparkle_ledger.store import schema
from sparkle_protocol.errors import ConfigError, LedgerError
from sparkle_protocol.ids import JobId
from tests.unit.ledger.feeds import holds
from tests.unit.ledger.ledgers import GENESIS, NET, person

FOUNDED = GenesisRecord(NET, starter_micro=5, trusted=(person(1).peer_id,), unlimited=(person(2).peer_id,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def found(path: Path) -> GenesisRecord:
    """What somebody reads who was told nothing."""
    db = store.open_ledger(path, None, readonly=True)
    try:
        return store.genesis_of(db)
    finally:
        db.close()


def make(path: Path, genesis: GenesisRecord | None) -> None:
    store.open_ledger(path, NET, genesis).close()


def use(path: Path, genesis: GenesisRecord | None) -> None:
    """Something was judged by it."""
    db = store.open_ledger(path, NET, genesis)
    store.append(db, holds(person(1), 1))
    db.close()


def write(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement, values)
    db.close()


def test_it_is_remembered_with_all_that_it_says(path: Path) -> None:
    make(path, FOUNDED)
    make(path, FOUNDED)
    assert found(path) == FOUNDED


def test_without_one_it_is_the_default_record(path: Path) -> None:
    make(path, None)
    make(path, GenesisRecord(NET))
    assert found(path) == GenesisRecord(NET)


@pytest.mark.parametrize(("first", "second"), [(FOUNDED, GENESIS), (FOUNDED, None), (None, FOUNDED)])
def test_another_one_is_refused_and_changes_nothing(
    path: Path, first: GenesisRecord | None, second: GenesisRecord | None
) -> None:
    use(path, first)
    own, given = (one or GenesisRecord(NET) for one in (first, second))
    with pytest.raises(ConfigError) as caught:
        make(path, second)
    assert str(caught.value) == (
        f"{path} was judged by the genesis record {own.fingerprint}, not by {given.fingerprint}; "
        "use that --genesis or another --home"
    )
    assert found(path) == own
    make(path, first)


def test_while_nothing_is_there_it_may_be_changed(path: Path) -> None:
    """Who forgot the file at the first start corrects it by giving it."""
    make(path, None)
    make(path, FOUNDED)
    make(path, GENESIS)
    assert found(path) == GENESIS


@pytest.mark.parametrize("what", ["evidence", "fork", "closing"])
def test_not_only_entries_were_judged(path: Path, what: str) -> None:
    db = store.open_ledger(path, NET, FOUNDED)
    if what == "evidence":
        store.keep_evidence(db, store.Evidence(JobId(bytes(32)), [b"fact"], []))
    elif what == "fork":
        store.keep_fork(db, store.Fork(AccountId(bytes(32)), b"one", b"two"))
    else:
        db.execute("INSERT INTO closings VALUES (x'00', 0, x'00', x'00', 0)")
    db.close()
    with pytest.raises(ConfigError, match="was judged by the genesis record"):
        make(path, GENESIS)


def test_whoever_looks_may_ask_for_one(path: Path) -> None:
    make(path, FOUNDED)
    store.open_ledger(path, NET, FOUNDED, readonly=True).close()
    with pytest.raises(ConfigError, match="was judged by the genesis record"):
        store.open_ledger(path, NET, GENESIS, readonly=True)
    store.open_ledger(path, NET, readonly=True).close()


def test_a_ledger_from_before_there_were_records_was_judged_by_the_default_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
            patch.setattr(schema, "SCHEMA_VERSION", 2)
            use(path, None)
        write(path, "DELETE FROM about WHERE name = 'genesis'")

    older()
    with pytest.raises(ConfigError, match="was judged by the genesis record"):
        make(path, FOUNDED)
    assert found(path) == GenesisRecord(NET)
    make(path, None)
    assert found(path) == GenesisRecord(NET)


def test_a_process_that_ended_while_it_made_the_file_has_decided_nothing(path: Path) -> None:
    make(path, None)
    write(path, "DELETE FROM about WHERE name = 'genesis'")
    make(path, FOUNDED)
    assert found(path) == FOUNDED


@pytest.mark.parametrize("damage", [b"x", b"x" * 40, 5, "text", None])
def test_a_damaged_record_is_named(path: Path, damage: object) -> None:
    make(path, FOUNDED)
    write(path, "DROP TABLE about") if damage is None else write(
        path, "UPDATE about SET value = ? WHERE name = 'genesis'", damage
    )
    with pytest.raises(ConfigError, match="move it away"):
        make(path, FOUNDED)
    with pytest.raises((ConfigError, LedgerError), match="move it away"):
        found(path)


def test_a_bit_that_fell_over_is_found(path: Path) -> None:
    """It would be a record like any other, with another limit."""
    make(path, FOUNDED)
    with sqlite3.connect(path) as db:
        (value,) = db.execute("SELECT value FROM about WHERE name = 'genesis'").fetchone()
    db.close()
    at = value.index(FOUNDED.raw()) + 1 + len(NET) + 9  # the last byte of the largest debt
    write(
        path,
        "UPDATE about SET value = ? WHERE name = 'genesis'",
        value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :],
    )
    with pytest.raises(LedgerError, match="its check differs"):
        found(path)


def test_the_record_of_another_network_is_not_taken(path: Path, tmp_path: Path) -> None:
    store.open_ledger(tmp_path / "other.db", "other", GenesisRecord("other")).close()
    make(path, FOUNDED)
    with sqlite3.connect(tmp_path / "other.db") as db:
        (value,) = db.execute("SELECT value FROM about WHERE name = 'genesis'").fetchone()
    db.close()
    write(path, "UPDATE about SET value = ? WHERE name = 'genesis'", value)
    with pytest.raises(LedgerError, match="it is of another network"):
        found(path)
