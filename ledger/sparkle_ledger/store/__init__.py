"""The ledger on disk: one SQLite database (``ledger.db``, WAL, synchronous=FULL) for one network.

=========  ==================================================================================================
table      holds
=========  ==================================================================================================
entries    signed entries as they travel. A second one for the same place has another id and is kept beside it
evidence   what proves the outcome of jobs: facts and records as they travel, each once
forks      two entries of one place, for each account that signed such
closings   of jobs that were settled long ago: what is kept in the place of evidence, how many rows of that there
           were then, and whether they are shut
bases      of accounts whose oldest entries are folded: what is kept in the place of these; with ``base_sums``
about      the network and its genesis record; how many rows the first five have
=========  ==================================================================================================

Rows of the first three are added and never changed: mistakes are mended by new entries. Two alone take some away:
``close_job`` evidence about a job whose outcome is final, and what an earlier closing of it said; ``fold`` entries
that are folded. Balances are not here: they follow from those five, and are made again from them whenever a node
starts (``book.py``).

``append`` returns once its entries are on disk, so that what is published afterwards survives a crash. A process that
is killed leaves whole transactions. A file that lost bytes is found out when it is read: ``load`` compares each entry
with what its key and its check say, rows are counted, and a lost page is an error of SQLite. Every failure is a
``LedgerError`` (or ``ConfigError`` when the file cannot be used at all) of one sentence that says what to do. A file
that is put back from a copy looks whole: after that a node asks its witnesses for its own head before it signs
anything.

All functions block; the node runs them in a thread of their own.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sparkle_ledger.closing import Closing
from sparkle_ledger.entries import AccountId, Entry, EntryCodec
from sparkle_ledger.genesis import GenesisRecord
from sparkle_ledger.store.folded import bases as bases
from sparkle_ledger.store.folded import fold as fold
from sparkle_ledger.store.schema import RESTORE, at_once, check_of, one_line, path_of, scan, stored_genesis, told
from sparkle_ledger.store.schema import SCHEMA_VERSION as SCHEMA_VERSION
from sparkle_ledger.store.schema import holds_anything as holds_anything
from sparkle_ledger.store.schema import open_ledger as open_ledger
from sparkle_ledger.store.schema import snapshot as snapshot
from sparkle_protocol.codec import encode
from sparkle_protocol.errors import LedgerError, RemoteProtocolError
from sparkle_protocol.ids import JobId, digest

Database = sqlite3.Connection  # what ``open_ledger`` gives

_FACT, _SEALED = 0, 1  # kinds of evidence
_CHECK_BYTES = 8  # of an entry as it travels: its id does not cover the signature. Against accidents only

_HEARING_STEPS = 100_000  # of SQLite's machine between two looks for signals: some milliseconds

# Jobs about which nothing came since they were closed: those with more evidence than then are open again.
_CLOSED = (
    "SELECT job FROM closings WHERE shut OR kept >= (SELECT COUNT(*) FROM evidence WHERE evidence.job = closings.job)"
)


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


# --- writing ----------------------------------------------------------------------------------------------


def append(db: sqlite3.Connection, entries: Iterable[Entry]) -> int:
    """Keep entries: all of them and on disk when it returns, or none when it raises. Returns how many are new."""
    return _add(
        db,
        "entries",
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (entry.account, entry.incarnation, entry.seq, entry.id, entry.raw, digest(entry.raw)[:_CHECK_BYTES])
            for entry in entries
        ],
    )


def keep_evidence(db: sqlite3.Connection, evidence: Evidence) -> int:
    """Keep facts and records about a job. Returns how many are new."""
    kinds = ((_FACT, evidence.facts), (_SEALED, evidence.sealed))
    rows = [
        (evidence.job, kind, digest(evidence.job, bytes([kind]), raw), raw) for kind, raws in kinds for raw in raws
    ]
    return _add(db, "evidence", "INSERT INTO evidence VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)


def keep_fork(db: sqlite3.Connection, fork: Fork) -> int:
    """Keep the proof of an account's fork; the first one suffices. Returns 1 if it is that."""
    statement = "INSERT INTO forks VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    return _add(db, "forks", statement, [(fork.account, fork.first, fork.second)])


def close_job(db: sqlite3.Connection, closing: Closing, *, keep_evidence: bool) -> None:
    """Keep what takes the place of a job's evidence, instead of what an earlier closing of it said.

    ``keep_evidence``: the evidence stays, to be shown to others; else it is gone. All of it at once, or nothing.
    The closing's Works are to be kept before. Evidence that is kept afterwards opens the job again: see ``evidence``.
    """
    job, raw = closing.job, encode(closing)

    def work() -> None:
        gone = 0 if keep_evidence else db.execute("DELETE FROM evidence WHERE job = ?", (job,)).rowcount
        ((kept,),) = db.execute("SELECT COUNT(*) FROM evidence WHERE job = ?", (job,))
        before = db.execute("DELETE FROM closings WHERE job = ?", (job,)).rowcount
        db.execute("INSERT INTO closings VALUES (?, ?, ?, ?, 0)", (job, kept, raw, check_of(job, kept, raw)))
        for name, more in (("evidence", -gone), ("closings", 1 - before)):
            db.execute("UPDATE about SET value = value + ? WHERE name = ?", (more, name))

    at_once(db, work)


def _add(db: sqlite3.Connection, table: str, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
    new = 0

    def work() -> None:
        nonlocal new
        new = db.executemany(statement, rows).rowcount
        if new:
            db.execute("UPDATE about SET value = value + ? WHERE name = ?", (new, table))

    if rows:
        at_once(db, work)
    return new


# --- reading ----------------------------------------------------------------------------------------------


def rows(db: sqlite3.Connection) -> Iterator[Row]:
    """All entries as stored, by account, incarnation and seq."""
    for account, incarnation, seq, id_, raw, checked in scan(db, "entries", "account, incarnation, seq, id"):
        if not type(account) is type(id_) is type(raw) is type(checked) is bytes:
            raise LedgerError(f"{path_of(db)} holds an entry without its bytes; {RESTORE}")
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
            raise LedgerError(f"{place} in {path_of(db)} is damaged ({error}); {RESTORE}") from error


def count(db: sqlite3.Connection) -> int:
    """How many entries there are."""
    with told(db):
        return int(db.execute("SELECT value FROM about WHERE name = 'entries'").fetchone()[0])


def count_evidence(db: sqlite3.Connection) -> int:
    """How many facts and records about jobs there are."""
    with told(db):
        return int(db.execute("SELECT value FROM about WHERE name = 'evidence'").fetchone()[0])


def network_of(db: sqlite3.Connection) -> str:
    """The network whose ledger this is."""
    with told(db):
        return str(db.execute("SELECT value FROM about WHERE name = 'network'").fetchone()[0])


def genesis_of(db: sqlite3.Connection) -> GenesisRecord:
    """By what this ledger is judged.

    Raises:
        LedgerError: it is damaged.
    """
    network = network_of(db)
    with told(db):
        row = db.execute("SELECT value FROM about WHERE name = 'genesis'").fetchone()
    try:
        return stored_genesis(row[0], network) if row is not None else GenesisRecord(network)
    except RemoteProtocolError as error:
        raise LedgerError(f"the genesis record in {path_of(db)} is damaged ({error}); {RESTORE}") from error


def evidence(db: sqlite3.Connection, *, closed: bool = False) -> Iterator[Evidence]:
    """What proves the outcome of jobs that are not closed, job by job. Whoever reads it judges it.

    Of a job about which evidence came after it was closed, all that is kept is there: it is open again.
    ``closed``: what is kept about closed jobs, too.

    Raises:
        LedgerError: something is damaged, or the file is.
    """
    without = "0" if closed else f"job IN ({_CLOSED})"
    found: Evidence | None = None
    for job, kind, id_, raw in scan(db, "evidence", "job, kind, id", without):
        if found is None or job != found.job:
            if found is not None:
                yield found
            found = Evidence(JobId(job), [], [])
        _put(db, found, job, kind, id_, raw)
    if found is not None:
        yield found


def evidence_of(db: sqlite3.Connection, job: bytes) -> Evidence | None:
    """What is kept about one job, be it closed or not; None: nothing.

    Raises:
        LedgerError: something is damaged, or the file is.
    """
    with told(db):
        about = db.execute("SELECT * FROM evidence WHERE job = ? ORDER BY kind, id", (job,)).fetchall()
        lost = db.execute("SELECT 1 FROM closings WHERE job = ? AND kept > ?", (job, len(about))).fetchone()
    if lost:
        raise LedgerError(f"{path_of(db)} has lost evidence about job {job.hex()[:12]}; {RESTORE}")
    found = Evidence(JobId(job), [], [])
    for row in about:
        _put(db, found, *row)
    return found if about else None


def _put(db: sqlite3.Connection, found: Evidence, job: Any, kind: Any, id_: Any, raw: Any) -> None:
    """A row of evidence to where it belongs, if it is what was written."""
    whole = type(job) is type(raw) is bytes and kind in (_FACT, _SEALED)
    if not whole or digest(job, bytes([kind]), raw) != id_:
        raise LedgerError(f"evidence about a job in {path_of(db)} is damaged; {RESTORE}")
    (found.facts if kind == _FACT else found.sealed).append(raw)


def closings(db: sqlite3.Connection) -> Iterator[Closing]:
    """What is kept of jobs that were closed, by job; also if evidence came since.

    Raises:
        LedgerError: something is damaged, or the file is.
    """
    for job, kept, raw, checked, is_shut in scan(db, "closings", "job"):
        whole = type(job) is type(raw) is bytes and type(kept) is int and 0 <= kept < 1 << 63
        try:
            closing = Closing.decode(raw) if whole and check_of(job, kept, raw) == checked else None
        except RemoteProtocolError as error:
            raise LedgerError(
                f"what is kept of a closed job in {path_of(db)} is damaged ({error}); {RESTORE}"
            ) from error
        if closing is None or closing.job != job or closing.is_shut != is_shut:
            raise LedgerError(f"what is kept of a closed job in {path_of(db)} is damaged; {RESTORE}")
        yield closing


def forks(db: sqlite3.Connection) -> list[Fork]:
    """Proofs of forks, by account. Whoever reads them verifies them."""
    return [Fork(AccountId(account), first, second) for account, first, second in scan(db, "forks", "account")]


def check(db: sqlite3.Connection) -> None:
    """Read every page of the file and compare the tables with their indexes.

    A signal to the process is heard meanwhile: SQLite alone would finish first, which may take a minute.

    Raises:
        LedgerError: they do not agree.
        KeyboardInterrupt: somebody pressed Ctrl-C.
    """
    db.set_progress_handler(lambda: 0, _HEARING_STEPS)  # any Python code lets Python look for signals
    try:
        with told(db):
            found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except LedgerError as error:
        if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from error
        raise
    finally:
        db.set_progress_handler(None, 0)
    if found != "ok":
        raise LedgerError(f"{path_of(db)} is damaged ({one_line(found)}); {RESTORE}")
