"""The ledger on disk: one SQLite database (``ledger.db``, WAL, synchronous=FULL) for one network.

=========  ==================================================================================================
table      holds
=========  ==================================================================================================
entries    signed entries as they travel. A second one for the same place has another id and is kept beside it
evidence   what proves the outcome of jobs: facts and records as they travel, each once
forks      two entries of one place, for each account that signed such
accounts   balances, limits and heads: a projection. Amounts are texts, as sums may exceed 64 bits
escrows    what is held for jobs: a projection
pairs      what went between two accounts: a projection
about      the network; how often entries or evidence came; at which such count the projections were made
=========  ==================================================================================================

Rows of the first three are added and never changed: mistakes are mended by new entries. Projections say nothing that
does not follow from those three; ``projection`` gives them only while nothing came after them and their digest fits.

``append`` returns once its entries are on disk, so that what is published afterwards survives a crash. A process that
is killed leaves whole transactions. A file that lost bytes is found out when it is read: ``load`` compares each entry
with what its key and its check say, and a lost page is an error of SQLite. Every failure is a ``LedgerError`` (or
``ConfigError`` when the file cannot be used at all) of one sentence that says what to do. What cannot be seen in a
file is that its newest entries are missing: after a restore from a backup a node asks its witnesses for its own head
before it signs anything.

All functions block; the node runs them in a thread of their own.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sparkle_ledger.entries import AccountId, Entry, EntryCodec, EntryId
from sparkle_ledger.projections import AccountRow, EscrowRow, PairRow, Projection
from sparkle_protocol.errors import ConfigError, LedgerError, RemoteProtocolError
from sparkle_protocol.ids import JobId, digest

BUSY_S = 5.0  # to wait for another process that writes, as ``sparkle ledger`` beside a node
MAX_LOOKUP = 512  # ids of one query

_FACT, _SEALED = 0, 1  # kinds of evidence
_SMALLEST_PAGE = 512  # of SQLite
_CHECK_BYTES = 8  # of an entry as it travels: its id does not cover the signature. Against accidents only

# What turned the format of one version into the next; a new database goes through all of them.
MIGRATIONS = (
    """
CREATE TABLE entries  (account BLOB NOT NULL, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, id BLOB NOT NULL,
    raw BLOB NOT NULL, checked BLOB NOT NULL, PRIMARY KEY (account, incarnation, seq, id)) WITHOUT ROWID;
CREATE UNIQUE INDEX entries_by_id ON entries (id);
CREATE TABLE evidence (job BLOB NOT NULL, kind INTEGER NOT NULL, id BLOB NOT NULL, raw BLOB NOT NULL,
    PRIMARY KEY (job, kind, id)) WITHOUT ROWID;
CREATE TABLE forks    (account BLOB PRIMARY KEY, first BLOB NOT NULL, second BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE accounts (account BLOB PRIMARY KEY, balance_micro TEXT NOT NULL, limit_micro TEXT NOT NULL,
    held_micro TEXT NOT NULL, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, head BLOB NOT NULL,
    frozen INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE escrows  (job BLOB NOT NULL, account BLOB NOT NULL, held_micro TEXT NOT NULL,
    PRIMARY KEY (job, account)) WITHOUT ROWID;
CREATE TABLE pairs    (account BLOB NOT NULL, other BLOB NOT NULL, earned_micro TEXT NOT NULL,
    spent_micro TEXT NOT NULL, PRIMARY KEY (account, other)) WITHOUT ROWID;
CREATE TABLE about    (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO about VALUES ('changes', 0), ('projected', -1), ('digest', x'');
""",
)
SCHEMA_VERSION = len(MIGRATIONS)


_Table = list[tuple[bytes | int | str, ...]]


class Row(NamedTuple):
    """A stored entry, not yet opened. A tuple, as there may be millions."""

    account: bytes
    incarnation: int
    seq: int
    id: bytes
    raw: bytes
    checked: bytes

    def open(self, codec: EntryCodec) -> Entry:
        """The entry, if it is the one that its place in the file says. Its signature is not verified.

        Raises:
            RemoteProtocolError: it is not.
        """
        if digest(self.raw)[:_CHECK_BYTES] != self.checked:
            raise RemoteProtocolError("it is not what was written")
        entry = codec.open_known(self.raw)
        if entry.id != self.id or (entry.account, entry.incarnation, entry.seq) != (
            self.account, self.incarnation, self.seq,
        ):  # fmt: skip
            raise RemoteProtocolError("it is not what its place in the file says")
        return entry


@dataclass(frozen=True, slots=True)
class Evidence:
    """What proves the outcome of a job: signed facts and records of sealed ranges, as they travel."""

    job: JobId
    facts: list[bytes]
    sealed: list[bytes]


@dataclass(frozen=True, slots=True)
class Fork:
    """Two entries that one account signed for one place, as they travel."""

    account: AccountId
    first: bytes
    second: bytes


# --- opening ----------------------------------------------------------------------------------------------


def open_ledger(path: Path, network: str, *, readonly: bool = False) -> sqlite3.Connection:
    """Open the ledger of a network, in the present format; create it where there is none.

    ``readonly``: to look beside a running node; nothing is created or changed.

    Raises:
        ConfigError: it is missing (to look at), damaged, unreadable, of another network or from a newer version.
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
    except sqlite3.Error as error:
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
        raise ConfigError(f"{path} has lost its contents; {_RESTORE}")


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


def _settle_network(db: sqlite3.Connection, path: Path, network: str, *, readonly: bool) -> None:
    row = db.execute("SELECT value FROM about WHERE name = 'network'").fetchone()
    if row is None and not readonly:
        db.execute("INSERT INTO about VALUES ('network', ?)", (network,))
    elif row is None or row[0] != network:
        owner = "no network" if row is None else f"network '{row[0]}'"
        raise ConfigError(f"{path} is the ledger of {owner}, not of '{network}'; use that --net or another --home")


# --- writing ----------------------------------------------------------------------------------------------


def append(db: sqlite3.Connection, entries: Iterable[Entry]) -> int:
    """Keep entries: all of them and on disk when it returns, or none when it raises. Returns how many are new."""
    return _add(
        db,
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (entry.account, entry.incarnation, entry.seq, entry.id, entry.raw, digest(entry.raw)[:_CHECK_BYTES])
            for entry in entries
        ],
    )


def keep_evidence(db: sqlite3.Connection, evidence: Evidence) -> int:
    """Keep facts and records about a job. Returns how many are new."""
    kinds = ((_FACT, evidence.facts), (_SEALED, evidence.sealed))
    rows = [(evidence.job, kind, digest(raw), raw) for kind, raws in kinds for raw in raws]
    return _add(db, "INSERT INTO evidence VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)


def keep_fork(db: sqlite3.Connection, fork: Fork) -> int:
    """Keep the proof of an account's fork; the first one suffices. Returns 1 if it is that."""
    return _add(
        db, "INSERT INTO forks VALUES (?, ?, ?) ON CONFLICT DO NOTHING", [(fork.account, fork.first, fork.second)]
    )


def changes(db: sqlite3.Connection) -> int:
    """How often entries, evidence or forks came. To be read before what a projection is made of."""
    with _told(db):
        return int(db.execute("SELECT value FROM about WHERE name = 'changes'").fetchone()[0])


def save_projection(db: sqlite3.Connection, projection: Projection, at: int) -> None:
    """Keep what the book says of the ledger as it was when ``changes`` was ``at``."""
    accounts: _Table = [
        (
            row.account, str(row.balance_micro), str(row.limit_micro), str(row.held_micro),
            row.incarnation, row.seq, row.head, int(row.frozen),
        )
        for row in projection.accounts
    ]  # fmt: skip
    escrows: _Table = [(row.job, row.account, str(row.held_micro)) for row in projection.escrows]
    pairs: _Table = [
        (row.account, row.other, str(row.earned_micro), str(row.spent_micro)) for row in projection.pairs
    ]

    def work() -> None:
        for table in ("accounts", "escrows", "pairs"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608
        db.executemany("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", accounts)
        db.executemany("INSERT INTO escrows VALUES (?, ?, ?)", escrows)
        db.executemany("INSERT INTO pairs VALUES (?, ?, ?, ?)", pairs)
        db.execute("UPDATE about SET value = ? WHERE name = 'projected'", (at,))
        db.execute("UPDATE about SET value = ? WHERE name = 'digest'", (_digest(accounts, escrows, pairs),))

    _at_once(db, work)


def _add(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
    new = 0

    def work() -> None:
        nonlocal new
        new = db.executemany(statement, rows).rowcount
        if new:
            db.execute("UPDATE about SET value = value + 1 WHERE name = 'changes'")

    if rows:
        _at_once(db, work)
    return new


def _at_once(db: sqlite3.Connection, work: Callable[[], object]) -> None:
    """All that ``work`` writes, or nothing of it, with one flush."""
    with _told(db):
        db.execute("BEGIN IMMEDIATE")
        try:
            work()
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


# --- reading ----------------------------------------------------------------------------------------------


def rows(db: sqlite3.Connection) -> Iterator[Row]:
    """All entries as stored, by account, incarnation and seq."""
    with _told(db):
        query = "SELECT * FROM entries ORDER BY account, incarnation, seq, id"
        for account, incarnation, seq, id_, raw, checked in db.execute(query):
            if not type(account) is type(id_) is type(raw) is type(checked) is bytes:
                raise LedgerError(f"{_path(db)} holds an entry without its bytes; {_RESTORE}")
            yield Row(account, incarnation, seq, id_, raw, checked)


def load(db: sqlite3.Connection, codec: EntryCodec) -> Iterator[Entry]:
    """All entries, by account, incarnation and seq; their signatures were verified before they were stored.

    Raises:
        LedgerError: an entry is damaged, or the file is.
    """
    for row in rows(db):
        try:
            yield row.open(codec)
        except RemoteProtocolError as error:
            place = f"entry {row.seq} of account {row.account.hex()[:12]}"
            raise LedgerError(f"{place} in {_path(db)} is damaged ({error}); {_RESTORE}") from error


def count(db: sqlite3.Connection) -> int:
    """How many entries there are."""
    with _told(db):
        return int(db.execute("SELECT COUNT(*) FROM entries").fetchone()[0])


def ids(db: sqlite3.Connection) -> Iterator[EntryId]:
    """The ids of all entries, ascending."""
    with _told(db):
        for (id_,) in db.execute("SELECT id FROM entries ORDER BY id"):
            yield EntryId(id_)


def by_ids(db: sqlite3.Connection, wanted: Sequence[bytes]) -> list[bytes]:
    """Those of up to ``MAX_LOOKUP`` entries that are kept, as they travel, by account, incarnation and seq."""
    asked = list(wanted[:MAX_LOOKUP])
    marks = ", ".join("?" * len(asked))
    query = f"SELECT raw FROM entries WHERE id IN ({marks}) ORDER BY account, incarnation, seq"  # noqa: S608
    with _told(db):
        return [raw for (raw,) in db.execute(query, asked)]


def feed(db: sqlite3.Connection, account: bytes, incarnation: int, first: int, most: int) -> list[bytes]:
    """Up to ``most`` entries of a feed from a seq on, as they travel; both of a place that has two."""
    query = "SELECT raw FROM entries WHERE account = ? AND incarnation = ? AND seq >= ? ORDER BY seq, id LIMIT ?"
    with _told(db):
        return [raw for (raw,) in db.execute(query, (account, incarnation, first, most))]


def evidence(db: sqlite3.Connection) -> Iterator[Evidence]:
    """All that proves the outcome of jobs, job by job. Whoever reads it judges it.

    Raises:
        LedgerError: something is damaged, or the file is.
    """
    found: Evidence | None = None
    with _told(db):
        for job, kind, id_, raw in db.execute("SELECT job, kind, id, raw FROM evidence ORDER BY job, kind, id"):
            if not type(job) is type(raw) is bytes or digest(raw) != id_:
                raise LedgerError(f"evidence about a job in {_path(db)} is damaged; {_RESTORE}")
            if found is None or job != found.job:
                if found is not None:
                    yield found
                found = Evidence(JobId(job), [], [])
            (found.facts if kind == _FACT else found.sealed).append(raw)
    if found is not None:
        yield found


def forks(db: sqlite3.Connection) -> list[Fork]:
    """Proofs of forks, by account. Whoever reads them verifies them."""
    with _told(db):
        found = db.execute("SELECT account, first, second FROM forks ORDER BY account").fetchall()
    return [Fork(AccountId(account), first, second) for account, first, second in found]


def projection(db: sqlite3.Connection) -> Projection | None:
    """What the book said of all that is here; None if something came since, or the rows are not what was written."""
    with _told(db):
        about = dict(db.execute("SELECT name, value FROM about").fetchall())
        accounts = db.execute("SELECT * FROM accounts ORDER BY account").fetchall()
        escrows = db.execute("SELECT * FROM escrows ORDER BY job, account").fetchall()
        pairs = db.execute("SELECT * FROM pairs ORDER BY account, other").fetchall()
    if about.get("projected") != about.get("changes") or about.get("digest") != _digest(accounts, escrows, pairs):
        return None
    return Projection(
        tuple(
            AccountRow(account, int(balance), int(limit), int(held), incarnation, seq, head, bool(frozen))
            for account, balance, limit, held, incarnation, seq, head, frozen in accounts
        ),
        tuple(EscrowRow(job, account, int(held)) for job, account, held in escrows),
        tuple(PairRow(account, other, int(earned), int(spent)) for account, other, earned, spent in pairs),
    )


def check(db: sqlite3.Connection) -> None:
    """Read every page of the file and compare the tables with their indexes.

    Raises:
        LedgerError: they do not agree.
    """
    with _told(db):
        found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise LedgerError(f"{_path(db)} is damaged ({_one_line(found)}); {_RESTORE}")


def _digest(*tables: _Table) -> bytes:
    return digest(repr(tables).encode())


# --- telling ----------------------------------------------------------------------------------------------

_RESTORE = "move it away, and the node gets the ledger from other peers again, or restore a copy"


@contextmanager
def _told(db: sqlite3.Connection) -> Iterator[None]:
    """An error of SQLite becomes one that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(_complaint(_path(db), error)) from error


def _path(db: sqlite3.Connection) -> str:
    try:
        return str(db.execute("PRAGMA database_list").fetchone()[2])
    except sqlite3.Error:  # closed, or so damaged that it does not say
        return "the ledger"


def _complaint(path: Path | str, error: sqlite3.Error) -> str:
    """What happened to the file and what can be done, as one sentence."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
    ):  # the last: a table is not there
        advice = _RESTORE
    elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        advice = "check its permissions and whether its disk is mounted read-only"
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        advice = "another program writes to it: wait for that, or end it"
    else:
        advice = "free some space or check the disk"
    return f"{path} cannot be used ({_one_line(error)}); {advice}"


def _one_line(text: object) -> str:
    """Without line breaks and not too long: SQLite shows whole statements."""
    return " ".join(str(text).split())[:160]
