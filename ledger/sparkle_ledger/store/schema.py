"""The tables of ``ledger.db``, how an older format becomes the present one, and what is said when a file fails."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparkle_ledger.genesis import GenesisRecord, decode_genesis
from sparkle_protocol.errors import ConfigError, LedgerError, RemoteProtocolError
from sparkle_protocol.ids import digest

BUSY_S = 5.0  # to wait for another process that writes, as ``sparkle ledger`` beside a node
_CHECK_BYTES = 8  # before the genesis record. Against accidents only
_SMALLEST_PAGE = 512  # of SQLite
_FAILURES = (sqlite3.Error, UnicodeDecodeError)  # the second: what is wrong with a damaged file is not even a text

# What turned the format of one version into the next; a new database goes through all of them.
MIGRATIONS = (
    """
CREATE TABLE entries  (account BLOB NOT NULL, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, id BLOB NOT NULL,
    raw BLOB NOT NULL, checked BLOB NOT NULL, PRIMARY KEY (account, incarnation, seq, id)) WITHOUT ROWID;
CREATE UNIQUE INDEX entries_by_id ON entries (id);
CREATE TABLE evidence (job BLOB NOT NULL, kind INTEGER NOT NULL, id BLOB NOT NULL, raw BLOB NOT NULL,
    PRIMARY KEY (job, kind, id)) WITHOUT ROWID;
CREATE TABLE forks    (account BLOB PRIMARY KEY, first BLOB NOT NULL, second BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE about    (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO about VALUES ('entries', 0), ('evidence', 0), ('forks', 0);
""",
    """
CREATE TABLE closings (job BLOB PRIMARY KEY, kept INTEGER NOT NULL, raw BLOB NOT NULL, checked BLOB NOT NULL)
    WITHOUT ROWID;
INSERT INTO about VALUES ('closings', 0);
""",
    # A ledger from before genesis records was judged by what now is the default one.
    """
INSERT OR IGNORE INTO about SELECT 'genesis', x'' FROM about WHERE name = 'network';
""",
    """
ALTER TABLE closings ADD COLUMN shut INTEGER NOT NULL DEFAULT 0;
CREATE TABLE bases     (account BLOB PRIMARY KEY, raw BLOB NOT NULL, checked BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE base_sums (account BLOB NOT NULL, kind INTEGER NOT NULL, other BLOB NOT NULL, sums TEXT NOT NULL,
    checked BLOB NOT NULL, PRIMARY KEY (account, kind, other)) WITHOUT ROWID;
INSERT INTO about VALUES ('bases', 0), ('base_sums', 0);
""",
)
SCHEMA_VERSION = len(MIGRATIONS)


def open_ledger(
    path: Path, network: str | None, genesis: GenesisRecord | None = None, *, readonly: bool = False
) -> sqlite3.Connection:
    """Open the ledger of a network, in the present format; create it where there is none.

    Args:
        path: of the file.
        network: whose ledger it is.
        genesis: by what it is judged; None: the network's default record.
        readonly: to look beside a running node; nothing is created or changed. Only so ``network`` may be None, and
            without ``genesis`` it is judged by whatever it was judged by.

    Raises:
        ConfigError: it is missing (to look at), damaged, unreadable, of another network, judged by another genesis
            record or from a newer version.
    """
    _refuse_remains(path)
    if readonly and not path.exists():
        raise ConfigError(f"there is no ledger at {path}; start a node of this network first")
    mode = "ro" if readonly else "rwc"
    db: sqlite3.Connection | None = None
    try:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        if readonly:
            _refuse_unless(path, _version(db), SCHEMA_VERSION)
        else:
            _prepare(db, path)
        _settle_network(db, path, network, readonly=readonly)
        if network is not None and (genesis is not None or not readonly):
            _settle_genesis(db, path, genesis or GenesisRecord(network), readonly=readonly)
    except _FAILURES as error:
        if db is not None:
            db.close()
        raise ConfigError(_complaint(path, error)) from error
    except BaseException:
        if db is not None:
            db.close()
        raise
    return db


def _refuse_remains(path: Path) -> None:
    """SQLite would begin a file of less than a page anew, and drop the log beside it."""
    size, log, journal = (_size(path, suffix) for suffix in ("", "-wal", "-journal"))
    begun = journal > 0 or size == 0  # there never was more: the process ended while it made the file
    if size < _SMALLEST_PAGE and (log or not begun):
        raise ConfigError(f"{path} has lost its contents; {RESTORE}")


def _size(path: Path, suffix: str) -> int:
    file = path.with_name(path.name + suffix)
    return file.stat().st_size if file.exists() else 0


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = _version(db)
    _refuse_unless(path, version, min(version, SCHEMA_VERSION))
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    for step in range(version, SCHEMA_VERSION):  # each as a whole, so that a crash leaves a known format
        db.executescript(f"BEGIN;{MIGRATIONS[step]}PRAGMA user_version={step + 1};COMMIT;")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _refuse_unless(path: Path, version: int, expected: int) -> None:
    if version > expected:
        raise ConfigError(
            f"{path} was written by a newer Sparkle (format {version}, here {SCHEMA_VERSION}); "
            "update Sparkle or use another --home"
        )
    if version < expected:
        raise ConfigError(
            f"{path} has an older format ({version}, here {SCHEMA_VERSION}); start the node once to convert it"
        )


def _settle_network(db: sqlite3.Connection, path: Path, network: str | None, *, readonly: bool) -> None:
    row = db.execute("SELECT value FROM about WHERE name = 'network'").fetchone()
    if row is None and not readonly:
        db.execute("INSERT INTO about VALUES ('network', ?)", (network,))
    elif row is None or (row[0] != network and network is not None) or not isinstance(row[0], str):
        owner = "no network" if row is None else f"network '{one_line(row[0])}'"
        if network is None:
            raise ConfigError(f"{path} is the ledger of {owner}; {RESTORE}")
        raise ConfigError(f"{path} is the ledger of {owner}, not of '{network}'; use that --net or another --home")


def _settle_genesis(db: sqlite3.Connection, path: Path, genesis: GenesisRecord, *, readonly: bool) -> None:
    row = db.execute("SELECT value FROM about WHERE name = 'genesis'").fetchone()
    if row is not None:
        try:
            found = stored_genesis(row[0], genesis.network)
        except RemoteProtocolError as error:
            raise ConfigError(f"the genesis record in {path} is damaged ({error}); {RESTORE}") from error
        if found.raw() != genesis.raw() and (readonly or holds_anything(db)):
            raise ConfigError(
                f"{path} was judged by the genesis record {found.fingerprint}, not by {genesis.fingerprint}; "
                "use that --genesis or another --home"
            )
    if not readonly:
        raw = genesis.raw()
        db.execute("INSERT OR REPLACE INTO about VALUES ('genesis', ?)", (digest(raw)[:_CHECK_BYTES] + raw,))


def holds_anything(db: sqlite3.Connection) -> bool:
    """Something was judged; else the record may be changed, as by who forgot to give the right one at first."""
    tables = ("entries", "evidence", "forks", "closings", "bases")
    return any(db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables)  # noqa: S608


def stored_genesis(value: object, network: str) -> GenesisRecord:
    """The record that the row about it has.

    Raises:
        RemoteProtocolError: it is not what was written.
    """
    if value == b"":
        return GenesisRecord(network)
    if not isinstance(value, bytes) or digest(value[_CHECK_BYTES:])[:_CHECK_BYTES] != value[:_CHECK_BYTES]:
        raise RemoteProtocolError("its check differs")
    found = decode_genesis(value[_CHECK_BYTES:])
    if found.network != network:
        raise RemoteProtocolError("it is of another network")
    return found


def at_once(db: sqlite3.Connection, work: Callable[[], object]) -> None:
    """All that ``work`` writes, or nothing of it, with one flush."""
    with told(db):
        db.execute("BEGIN IMMEDIATE")
        try:
            work()
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """All that is read within is of one moment, whatever a running node adds meanwhile."""
    with told(db):
        db.execute("BEGIN")
        db.execute("SELECT name FROM about LIMIT 1").fetchone()  # from the first read on it is that moment
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


# --- telling ----------------------------------------------------------------------------------------------

RESTORE = "move it away, and the node gets the ledger from other peers again, or restore a copy"


@contextmanager
def told(db: sqlite3.Connection) -> Iterator[None]:
    """An error of SQLite becomes one that says what to do."""
    try:
        yield
    except _FAILURES as error:
        raise LedgerError(_complaint(path_of(db), error)) from error


def path_of(db: sqlite3.Connection) -> str:
    """Where the database is, to tell."""
    try:
        return str(db.execute("PRAGMA database_list").fetchone()[2])
    except _FAILURES:  # closed, or so damaged that it does not say
        return "the ledger"


def _complaint(path: Path | str, error: sqlite3.Error | UnicodeDecodeError) -> str:
    """What happened to the file and what can be done, as one sentence."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):  # the last: no such table
        advice = RESTORE
    elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        advice = "check its permissions and whether its disk is mounted read-only"
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        advice = "another program writes to it: wait for that, or end it"
    elif code == sqlite3.SQLITE_CONSTRAINT or isinstance(error, sqlite3.ProgrammingError):
        advice = "this is a fault of Sparkle: please report it"
    else:
        advice = "free some space or check the disk"
    return f"{path} cannot be used ({one_line(error)}); {advice}"


def one_line(text: object) -> str:
    """Without line breaks and not too long: SQLite shows whole statements."""
    return " ".join(str(text).split())[:160]


# --- reading ----------------------------------------------------------------------------------------------


def scan(db: sqlite3.Connection, table: str, order: str, without: str = "0") -> Iterator[tuple[Any, ...]]:
    """All rows of a table but those left out, and an error at the end if not all that were added are there."""
    added = f"(SELECT value FROM about WHERE name = '{table}')"  # noqa: S608
    left_out = f"(SELECT COUNT(*) FROM {table} WHERE {without})"  # noqa: S608
    query = f"SELECT {added} - {left_out}, * FROM {table} WHERE NOT ({without}) ORDER BY {order}"  # noqa: S608
    read, expected = 0, None
    with told(db):
        for row in db.execute(query):
            read, expected = read + 1, row[0]
            yield row[1:]
        if not read:  # nobody has said how many were added
            counted = f"SELECT {added} - {left_out}, COUNT(*) FROM {table} WHERE NOT ({without})"  # noqa: S608
            expected, read = db.execute(counted).fetchone()
    if read != expected:
        raise LedgerError(f"{path_of(db)} has lost {table}: {read} of {expected} are there; {RESTORE}")


def check_of(job: bytes, kept: int, raw: bytes) -> bytes:
    """Of a closing. Against accidents only."""
    return digest(job, kept.to_bytes(8), raw)[:_CHECK_BYTES]
