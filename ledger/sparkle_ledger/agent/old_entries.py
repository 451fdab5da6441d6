"""Folds the oldest entries of others' accounts: see ``sparkle_ledger.folding``.

The jobs of what is folded were closed ``TIMES`` as long ago as evidence is kept after a job's time, by this node's
own clock. One account is looked at after the other, and folded if that takes a fair part of its entries away, as
what follows them is counted anew. Nothing is folded while anything waits for the disk. Our own account never is: we
alone may have all of it.
"""

from collections.abc import Iterator

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.old_jobs import MS_NS, ROUND_NS, ROUNDS, STEP_NS
from sparkle_ledger.agent.own import WallMs
from sparkle_ledger.agent.serving import Shelf
from sparkle_ledger.entries import AccountId

TIMES = 8  # with a week: two months
LEAST_PART = 4  # a fourth of an account's entries are folded at once, or more
PASSED_OVER = 64  # accounts of which nothing is folded, in one step


class OldEntries:
    """The accounts of a book, looked through now and then."""

    def __init__(self, desk: Desk, shelf: Shelf, wall_ms: WallMs, keep_ms: int, keep_entries: int) -> None:
        self._desk = desk
        self._shelf = shelf
        self._wall_ms = wall_ms
        self._old_ms = max(TIMES * keep_ms, 0)
        self._keep_entries = keep_entries
        self._round_ns = min(max(keep_ms * MS_NS // ROUNDS, SECOND_NS), ROUND_NS)
        self._steps: Iterator[None] | None = None  # of the round that is under way
        self.due_ns: int | None = None

    def tick(self) -> None:
        """Go one step on, if it is time."""
        now_ns = self._desk.now_ns
        if self.due_ns is None:  # a life begins with other things
            self.due_ns = now_ns + self._round_ns
        if self.due_ns > now_ns:
            return
        if self._steps is None:
            self._steps = self._round()
        for _ in self._steps:
            self.due_ns = now_ns + STEP_NS
            return
        self._steps = None
        self.due_ns = now_ns + self._round_ns

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
