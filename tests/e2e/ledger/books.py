"""What real nodes have in their ledgers, read beside them or after they were killed."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sparkle_ledger import store
from sparkle_ledger.book import Book
from sparkle_ledger.entries import AccountId, EntryCodec, account_of
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol.facts import FactCodec, JobSpec
from sparkle_protocol.ids import PeerId, key_from_peer_id
from sparkle_protocol.work.sealed import SealedRange
from tests.e2e.node.processes import NodeProcess

SETTLED_S = 90.0  # what was accepted late is claimed later


def account(node: NodeProcess) -> AccountId:
    """The account of a node."""
    return account_of(node.swarm.net, key_from_peer_id(PeerId(node.peer_id)))


def book_of(node: NodeProcess) -> Book:
    """The book that follows from a node's file; every signature of it is verified."""
    book, forks = book_of_all(node.swarm.net, [node.home])
    assert not forks
    return book


def book_of_all(net: str, homes: Sequence[Path]) -> tuple[Book, int]:
    """The book that follows from the files in these homes together, and how many proofs of forks they hold."""
    files = [store.open_ledger(home / "ledger.db", net, readonly=True) for home in homes]
    try:
        book = Book(net, store.genesis_of(files[0]).economy)
        return book, sum(_read(db, book) for db in files)
    finally:
        for db in files:
            db.close()


def _read(db: store.Database, book: Book) -> int:
    entries, facts = EntryCodec(book.network), FactCodec(book.network)
    store.check(db)
    for closing in store.closings(db):
        book.add_closing(closing)
    for base in store.bases(db):
        book.add_base(base)
    for evidence in store.evidence(db):
        opened = [facts.open(raw) for raw in evidence.facts]
        spec = next(fact for fact in opened if isinstance(fact.payload, JobSpec))
        record = JobRecord(spec, book.network)
        record.add_all(opened)
        for raw in evidence.sealed:
            record.add_sealed(SealedRange.decode(raw))
        book.add_record(record)
    book.add_all(entries.open(row.raw) for row in store.rows(db))
    return len(store.forks(db))


def balances(book: Book, nodes: Sequence[NodeProcess]) -> dict[str, tuple[int, int, int, int]]:
    """Balance, escrows, earnings and spending of each node as one book has them."""
    found = {}
    for node in nodes:
        seen = book.account(account(node))
        found[node.name] = (seen.balance_micro, seen.held_micro, seen.earned_micro, seen.spent_micro)
    return found


def is_settled(book: Book, job: str) -> bool:
    """Every accepted execution of a finished job is paid, and nothing is left in its escrow."""
    id_ = bytes.fromhex(job)
    record, closing = book.record(id_), book.closing(id_)
    if closing is not None:
        done = len(list(book.settled(id_))) == closing.executions
    else:
        done = record is not None and record.complete and not book.unsettled(id_)
    return done and book.escrow(id_).balance_micro == 0


async def settled(job: str, by: NodeProcess, timeout_s: float = SETTLED_S) -> Book:
    """The book of a job's submitter once all is paid in it, also what it accepted last, of which it hears late."""

    async def look() -> Book | None:
        book = await asyncio.to_thread(book_of, by)
        if not is_settled(book, job):
            return None
        return None if await owes(by, job) else book

    return await by.swarm.until(look, f"job {job[:8]} of {by.name} is settled", timeout_s)  # type: ignore[no-any-return]


async def owes(submitter: NodeProcess, job: str) -> bool:
    """By all that a submitter accepted, it owes somebody something for a job."""
    told = await asyncio.to_thread(submitter.client.why, job)
    return any(one["numbers"]["owed_micro"] for one in told["details"] if one["code"] == "escrow")
