"""Bases in the ledger's file: what is kept of an account's oldest entries in the place of these.

A base has a row in ``bases`` and one in ``base_sums`` for each account that paid it and each job that it held for.
"""

import sqlite3
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from sparkle_ledger.closing import Closing, Key
from sparkle_ledger.entries import AccountId, EntryId
from sparkle_ledger.folding import MAX_KEYS, Base, Fold, FoldedJob, KeyFrom, shut
from sparkle_ledger.store.schema import RESTORE, at_once, check_of, path_of, scan
from sparkle_ledger.walk import JobSums
from sparkle_protocol.codec import Wire, decode, encode
from sparkle_protocol.errors import LedgerError, RemoteProtocolError
from sparkle_protocol.ids import digest

_PAID, _HELD = 0, 1  # kinds of sums
_CHECK_BYTES = 8  # against accidents only


class _Row(Wire, frozen=True):
    """A base but for its sums by account and job. ``strict`` and ``face`` may exceed 64 bits."""

    account: Key
    seq: int
    id: Key
    time_ms: int
    keys: Annotated[list[KeyFrom], Meta(max_length=MAX_KEYS)]
    strict: str
    face: str


def fold(db: sqlite3.Connection, step: Fold) -> None:
    """Take the entries of a step away and put its sums in their place: all of it at once, or nothing.

    To be done in order, once the entries and the closings that it rests on are kept. A step that was done is none.

    Raises:
        LedgerError: not everything that it rests on is there.
    """

    def work() -> None:
        base = _base_of(db, step.account) or Base(AccountId(step.account))
        if base.seq >= step.seq:
            return
        place = (step.account, step.seq)
        gone = db.execute("DELETE FROM entries WHERE account = ? AND incarnation = 0 AND seq <= ?", place).rowcount
        if base.seq != step.after or gone < step.seq - step.after:
            raise LedgerError(f"{path_of(db)} has lost entries of account {step.account.hex()[:12]}; {RESTORE}")
        for one in step.jobs:
            _shut(db, one)
        for payer in step.paid:
            _put_sums(db, step.account, _PAID, payer.account, [payer.micro])
        for job in step.held:
            sums = [job.held, job.released, job.signed_held, job.signed_released]
            _put_sums(db, step.account, _HELD, job.job, sums)
        base.add(step)
        new = base.seq == step.seq and step.after < 0
        _put_base(db, base)
        for name, more in (("entries", -gone), ("bases", int(new))):
            db.execute("UPDATE about SET value = value + ? WHERE name = ?", (more, name))

    at_once(db, work)


def bases(db: sqlite3.Connection) -> Iterator[Base]:
    """What is folded, by account.

    Raises:
        LedgerError: something is damaged or lost.
    """
    found: dict[bytes, Base] = {}
    for account, raw, checked in scan(db, "bases", "account"):
        found[account] = _opened(db, account, raw, checked)
    for account, kind, other, text, checked in scan(db, "base_sums", "account, kind, other"):
        base = found.get(account)
        whole = type(account) is type(other) is bytes and kind in (_PAID, _HELD) and type(text) is str
        sums = _sums(text) if whole and checked == _check_of_sums(account, kind, other, text) else []
        if base is None or len(sums) != (1 if kind == _PAID else 4):
            raise LedgerError(f"what is folded of an account in {path_of(db)} is damaged; {RESTORE}")
        if kind == _PAID:
            base.paid[AccountId(other)] = sums[0]
        else:
            base.held[other] = _job_sums(sums)
    yield from found.values()


def _base_of(db: sqlite3.Connection, account: bytes) -> Base | None:
    """The base of an account, without its sums by account and job."""
    row = db.execute("SELECT raw, checked FROM bases WHERE account = ?", (account,)).fetchone()
    return _opened(db, account, *row) if row is not None else None


def _opened(db: sqlite3.Connection, account: bytes, raw: bytes, checked: bytes) -> Base:
    try:
        row = decode(raw, _Row) if digest(raw)[:_CHECK_BYTES] == checked else None
    except (RemoteProtocolError, TypeError) as error:
        raise LedgerError(f"what is folded of an account in {path_of(db)} is damaged; {RESTORE}") from error
    if row is None or row.account != account:
        raise LedgerError(f"what is folded of an account in {path_of(db)} is damaged; {RESTORE}")
    keys = [(one.seq, one.key) for one in row.keys]
    return Base(
        AccountId(row.account), row.seq, EntryId(row.id), row.time_ms, keys, int(row.strict), int(row.face)
    )  # fmt: skip


def _put_base(db: sqlite3.Connection, base: Base) -> None:
    keys = [KeyFrom(*one) for one in base.keys]
    raw = encode(_Row(base.account, base.seq, base.id, base.time_ms, keys, str(base.strict), str(base.face)))
    db.execute("INSERT OR REPLACE INTO bases VALUES (?, ?, ?)", (base.account, raw, digest(raw)[:_CHECK_BYTES]))


def _put_sums(db: sqlite3.Connection, account: bytes, kind: int, other: bytes, more: list[int]) -> None:
    """Add to the sums of one account or job."""
    key = (account, kind, other)
    row = db.execute("SELECT sums FROM base_sums WHERE account = ? AND kind = ? AND other = ?", key).fetchone()
    sums = [was + one for was, one in zip(_sums(row[0]), more, strict=True)] if row is not None else more
    text = " ".join(map(str, sums))
    db.execute("INSERT OR REPLACE INTO base_sums VALUES (?, ?, ?, ?, ?)", (*key, text, _check_of_sums(*key, text)))
    if row is None:
        db.execute("UPDATE about SET value = value + 1 WHERE name = 'base_sums'")


def _shut(db: sqlite3.Connection, one: FoldedJob) -> None:
    """What is kept of a closed job has those of its Works no more that are folded."""
    row = db.execute("SELECT kept, raw FROM closings WHERE job = ?", (one.job,)).fetchone()
    if row is None:
        raise LedgerError(f"{path_of(db)} has lost what is kept of job {one.job.hex()[:12]}; {RESTORE}")
    try:
        raw = encode(shut(Closing.decode(row[1]), one))
    except (RemoteProtocolError, TypeError) as error:
        raise LedgerError(f"what is kept of a closed job in {path_of(db)} is damaged; {RESTORE}") from error
    kept = row[0]
    changed = (raw, check_of(one.job, kept, raw), one.job)
    db.execute("UPDATE closings SET raw = ?, checked = ?, shut = 1 WHERE job = ?", changed)


def _sums(text: object) -> list[int]:
    return [int(one) for one in text.split()] if isinstance(text, str) else []


def _job_sums(sums: list[int]) -> JobSums:
    found = JobSums()
    found.held, found.released, found.signed_held, found.signed_released = sums
    return found


def _check_of_sums(account: bytes, kind: int, other: bytes, text: str) -> bytes:
    return digest(account, bytes([kind]), other, text.encode())[:_CHECK_BYTES]
