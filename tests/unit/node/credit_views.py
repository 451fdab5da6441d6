"""What is shown of an account, read in one go."""

from collections.abc import Iterable

from sparkle_ledger.agent.own import State
from sparkle_ledger.book import Book
from sparkle_ledger.entries import AccountId
from sparkle_ledger.forks import ForkProof
from sparkle_p2p.ledger_view import CreditView
from sparkle_p2p.node.ledger_reading import CreditReading


def credit_view(
    book: Book, account: AccountId, now_ms: int, *, own: State | None = None, forks: Iterable[ForkProof] = ()
) -> CreditView:
    """What the book says of an account now."""
    reading = CreditReading(book, account, now_ms)
    for _ in reading.steps():
        pass
    return reading.view(own=own, forks=forks)
