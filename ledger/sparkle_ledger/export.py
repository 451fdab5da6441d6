"""The ledger as a table, for spreadsheets and programs: a row for each entry, with what became of it.

``amount_micro`` is what the entry moved into (or, negative, out of) its account: 0 unless it counts. ``stated_micro``
is the amount that it names. ``balance_micro`` is the account's balance after it, incarnations one after another;
only an account's own entries move its balance, so that the last one is what the book says today.

An account whose oldest entries are folded here begins with one row of kind ``folded`` in their place: its number and
id are those of the last of them, and the amount is what they moved together.

Ids are hexadecimal and everything else is a number or a word of ours: no text of a stranger gets into a table.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from io import StringIO

from sparkle_ledger import outcomes as out
from sparkle_ledger.book import Book
from sparkle_ledger.entries import Entry, EntryCodec, Hold, Penalty, Release, Work
from sparkle_ledger.folding import Base
from sparkle_protocol.errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class TableRow:
    """One entry."""

    account: str
    incarnation: int
    seq: int
    id: str
    time_ms: int  # as its author says
    kind: str
    job: str
    counterparty: str  # the other account, where there is one
    executions: int
    stated_micro: int
    amount_micro: int
    balance_micro: int
    outcome: str
    reason: str


COLUMNS = tuple(field.name for field in fields(TableRow))


def table(book: Book, entries: Iterable[Entry]) -> Iterator[TableRow]:
    """The rows of entries, which come by account, incarnation and seq, all of an account or none."""
    codec = EntryCodec(book.network)
    account: bytes = b""
    balance = 0
    for entry in entries:
        if entry.account != account:
            account, balance = entry.account, 0
            base = book.base(entry.account)
            if base is not None:
                balance = base.strict
                yield _opening(base)
        outcome = book.outcome(entry.id) or out.GAP
        moved = book.moved(entry.id)
        balance += moved
        payload = entry.payload
        yield TableRow(
            entry.account.hex(),
            entry.incarnation,
            entry.seq,
            entry.id.hex(),
            entry.time_ms,
            type(payload).__name__.lower(),
            payload.job.hex() if isinstance(payload, Hold | Work | Release) else "",
            _counterparty(codec, entry).hex(),
            len(payload.units) if isinstance(payload, Work) else 0,
            payload.amount_micro if isinstance(payload, Hold | Work | Release) else 0,
            moved,
            balance,
            outcome.code,
            outcome.text,
        )


def _opening(base: Base) -> TableRow:
    """What stands for all entries of an account that are folded."""
    reason = "the account's entries up to this one are kept here as sums only"
    return TableRow(
        base.account.hex(), 0, base.seq, base.id.hex(), base.time_ms, "folded", "", "", 0, 0,
        base.strict, base.strict, "folded", reason,
    )  # fmt: skip


def as_csv(rows: Iterable[TableRow]) -> Iterator[str]:
    """Lines of CSV (RFC 4180), the names of the columns first."""
    yield _csv_line(COLUMNS)
    for row in rows:
        yield _csv_line([getattr(row, name) for name in COLUMNS])


def as_json_lines(rows: Iterable[TableRow]) -> Iterator[str]:
    """Lines of JSON: one object for each entry."""
    for row in rows:
        yield json.dumps(asdict(row), separators=(",", ":")) + "\n"


def _csv_line(values: Iterable[object]) -> str:
    line = StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()


def _counterparty(codec: EntryCodec, entry: Entry) -> bytes:
    """Who is at the other end: who pays for work, who is accused."""
    payload = entry.payload
    if isinstance(payload, Work):
        return payload.payer
    if isinstance(payload, Penalty):
        try:
            return codec.open_known(payload.first).account
        except RemoteProtocolError:
            return b""
    return b""
