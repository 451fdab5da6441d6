"""How a book folds the oldest entries of an account onto its base, and begins from bases. See ``folding.py``."""

from collections.abc import Iterator
from itertools import islice

from sparkle_ledger.book_reading import BookReading
from sparkle_ledger.entries import AccountId, Genesis, Hold, Release, Rotate, Work
from sparkle_ledger.feed import Node
from sparkle_ledger.folding import FOLD_MOST, KEEP_ENTRIES, MAX_KEYS, Base, Fold, fold_of, shut
from sparkle_ledger.rulings import Page


class BookFolding(BookReading):
    """The part of ``Book`` that folds."""

    __slots__ = ()

    # --- what is folded -------------------------------------------------------------------------------------

    def base(self, account: AccountId) -> Base | None:
        """What is folded of an account."""
        page = self._pages.get(account)
        return page.feed.base if page is not None else None

    def bases(self) -> Iterator[Base]:
        """What is folded, account by account."""
        return (page.feed.base for page in self._pages.values() if page.feed.base is not None)

    def foldable(self, account: AccountId, closed_ms: int, keep: int = KEEP_ENTRIES) -> int:
        """How many of an account's oldest entries can be folded.

        Args:
            account: whose; not one's own.
            closed_ms: their jobs were closed at this time at the latest.
            keep: so many of the newest are not.
        """
        page = self._pages.get(account)
        if page is None or page.plain is None or not page.feed.simple:
            return 0
        base, most = page.feed.base, page.feed.nodes - max(keep, 1)
        keys = len(base.keys) if base is not None else 1
        count = 0
        for node in islice(page.feed.from_place(0, 0), max(most, 0)):
            if keys + node.changes > MAX_KEYS or not self._is_past(node, closed_ms):
                break
            count += 1
        return count

    def _is_past(self, node: Node, closed_ms: int) -> bool:
        """What an entry comes to cannot change any more, if that of all entries before it cannot."""
        payload = node.entry.payload
        if isinstance(payload, Work | Hold | Release):
            job = self._jobs[payload.job]
            closing = job.closing
            return closing is not None and job.record is None and (closing.is_shut or closing.at_ms <= closed_ms)
        return isinstance(payload, Genesis | Rotate)

    # --- doing it -------------------------------------------------------------------------------------------

    def _fold(self, page: Page, count: int) -> tuple[list[Fold], list[Node]]:
        """Fold so many; returns the steps, and Works and Holds that have to be judged anew."""
        nodes = list(islice(page.feed.from_place(0, 0), count))
        base = page.feed.base or Base(page.feed.account)
        folds: list[Fold] = []
        for first in range(0, count, FOLD_MOST):
            fold = fold_of(base, nodes[first : first + FOLD_MOST])
            base.add(fold)
            folds.append(fold)
        late = [work for fold in folds for job in fold.jobs for work in self._shut(job.job)]
        for fold in folds:
            for one in fold.jobs:
                job = self._jobs[one.job]
                if job.closing is not None:
                    job.closing = shut(job.closing, one)
        self._forget(nodes)
        page.feed.fold(base, nodes)
        page.begin(base, self.economy)
        return folds, [node for node in (*late, *page.holds) if node.entry.id in self._nodes]

    def _shut(self, job: bytes) -> list[Node]:
        """A job will not be opened again; returns its Works that wait for that."""
        page = self._jobs[job]
        if page.closing is None or page.closing.is_shut:
            return []
        return [node for node in page.all_works() if node.final is None]

    def _forget(self, nodes: list[Node]) -> None:
        """Nobody looks for these entries any more."""
        gone = set(nodes)
        jobs: dict[bytes, None] = {}
        named: dict[bytes, None] = {}
        for node in nodes:
            self._refs.pop(node.entry.id, None)
            payload = node.entry.payload
            if isinstance(payload, Work | Hold | Release):
                jobs[payload.job] = None
            if isinstance(payload, Work):
                named[payload.hold] = None
        for hold in named:
            left = [node for node in self._refs.pop(hold, ()) if node not in gone]
            if left:
                self._refs[hold] = left
        for job in jobs:
            page = self._jobs[job]
            page.others = [node for node in page.others if node not in gone]
            ranges = {index: [one for one in works if one not in gone] for index, works in page.works.items()}
            page.works = {index: works for index, works in ranges.items() if works}

    # --- beginning from it ----------------------------------------------------------------------------------

    def _begin(self, page: Page, base: Base) -> None:
        """Begin an account with what was folded of it."""
        page.feed.begin(base)
        page.begin(base, self.economy)
        held = {job: (one.held, one.released) for job, one in base.held.items()}
        self.money.begin(base.account, base.strict, base.paid, held)
