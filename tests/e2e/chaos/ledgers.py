"""What must hold of all ledgers after a chaos run: nobody forked, sums are 0, and whoever worked is paid, once."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sparkle_ledger.book import Book
from sparkle_p2p.cli.ledger_copy import audited, opened
from tests.e2e.ledger.books import book_of_all


def ledger_violations(net: str, homes: Mapping[str, Path]) -> list[str]:
    """What is wrong with the files in these homes, by node. All nodes are honest, and all that is owed is paid."""
    together, forks = book_of_all(net, list(homes.values()))
    wrong = [fault for name, home in homes.items() for fault in _copy_faults(name, home)]
    if forks or together.fork_proofs():
        wrong.append("an honest account forked")
    return [*wrong, *_book_faults(together)]


def _copy_faults(name: str, home: Path) -> Iterator[str]:
    """What ``sparkle ledger verify`` finds in one copy."""
    with opened(str(home), None) as db:
        found = audited(db, lambda *_: None, deep=True)
    yield from (f"the ledger of {name}: {sentence}" for _, sentence in found.violations)
    yield from (f"the ledger of {name}: {sentence}" for sentence in found.report.misdeeds)
    if found.report.sum_micro:
        yield f"the ledger of {name} sums to {found.report.sum_micro}"


def _book_faults(book: Book) -> Iterator[str]:
    """What all copies together come to."""
    if book.sum_micro():
        yield f"all ledgers together sum to {book.sum_micro()}"
    for job, _, escrow in book.money.all_escrows():
        if min(escrow.balance_micro, escrow.held_micro, escrow.paid_micro, escrow.released_micro) < 0:
            yield f"the escrow of job {job.hex()[:8]} is {escrow}"
    for record in book.records():
        unpaid = book.unsettled(record.job) if record.complete and record.price_micro else []
        if unpaid:
            yield f"{len(unpaid)} accepted executions of job {record.job.hex()[:8]} are not paid"
