"""Folds the oldest entries of others' accounts: see ``sparkle_ledger.folding``.

The jobs of what is folded were closed ``TIMES`` as long ago as evidence is kept after a job's time, by this node's
own clock. One account is looked at after the other, and folded if that takes a fair part of its entries away, as
what follows them is counted anew. Nothing is folded while anything waits for the disk. Our own account never is: we
alone may have all of it.
"""

from collections.abc import Iterator

from sparkle_ledger.agent.desk import Desk
from sparkle_ledger.agent.own import WallMs
from sparkle_ledger.agent.rounds import Rounds
from sparkle_ledger.agent.serving import Shelf
from sparkle_ledger.entries import AccountId

TIMES = 8  # with a week: two months
LEAST_PART = 4  # a fourth of an account's entries are folded at once, or more
PASSED_OVER = 64  # accounts of which nothing is folded, in one step


class OldEntries(Rounds):
    """Rounds through the accounts of a book."""

    def __init__(self, desk: Desk, shelf: Shelf, wall_ms: WallMs, keep_ms: int, keep_entries: int) -> None:
        super().__init__(desk, keep_ms)
        self._shelf = shelf
        self._wall_ms = wall_ms
        self._old_ms = max(TIMES * keep_ms, 0)
        self._keep_entries = keep_entries

    def _round(self) -> Iterator[None]:
        for number, account in enumerate(list(self._desk.book.accounts()), start=1):
            while account != self._desk.account and self._is_worth_it(account):
                if self._desk.idle:
                    self._fold(account)
                yield
            if not number % PASSED_OVER:
                yield

    def _is_worth_it(self, account: AccountId) -> bool:
        held = self._desk.book.account(account).entries
        return self._foldable(account) >= max(self._keep_entries, held // LEAST_PART, 1)

    def _foldable(self, account: AccountId) -> int:
        return self._desk.book.foldable(account, self._wall_ms() - self._old_ms, self._keep_entries)

    def _fold(self, account: AccountId) -> None:
        before = self._size(account)
        self._desk.keep_folds(self._desk.book.fold(account, self._foldable(account)))
        self._shelf.remove(account, before - self._size(account))

    def _size(self, account: AccountId) -> int:
        return sum(len(entry.raw) for entry in self._desk.book.entries(account))
