"""All that a book says of balances, to compare books by."""

from dataclasses import dataclass

from sparkle_ledger.book import Book


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account. The head is the last entry of its latest incarnation."""

    account: bytes
    balance_micro: int
    limit_micro: int
    held_micro: int  # in its escrows
    incarnation: int
    seq: int
    head: bytes
    frozen: bool  # it forked


@dataclass(frozen=True, slots=True)
class EscrowRow:
    """What is left of what an account set aside for a job."""

    job: bytes
    account: bytes
    held_micro: int


@dataclass(frozen=True, slots=True)
class PairRow:
    """What went between an account and another."""

    account: bytes
    other: bytes
    earned_micro: int
    spent_micro: int


@dataclass(frozen=True, slots=True)
class Projection:
    """All of it: by account, by job and account, by account and other."""

    accounts: tuple[AccountRow, ...] = ()
    escrows: tuple[EscrowRow, ...] = ()
    pairs: tuple[PairRow, ...] = ()


def project(book: Book) -> Projection:
    """What the book says now."""
    accounts, pairs = [], []
    for account in sorted(book.accounts()):
        found = book.account(account)
        incarnation = max(found.heads)
        seq, head = found.heads[incarnation]
        accounts.append(
            AccountRow(
                account,
                found.balance_micro,
                found.limit_micro,
                found.held_micro,
                incarnation,
                seq,
                head,
                found.frozen,
            )
        )
        pairs += [
            PairRow(account, one.account, one.earned_micro, one.spent_micro) for one in book.pair_totals(account)
        ]
    escrows = [EscrowRow(job, account, escrow.balance_micro) for job, account, escrow in book.money.all_escrows()]
    return Projection(
        tuple(accounts),
        tuple(sorted((one for one in escrows if one.held_micro), key=lambda one: (one.job, one.account))),
        tuple(pairs),
    )
