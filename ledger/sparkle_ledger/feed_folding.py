"""A feed whose oldest entries may be folded: what becomes of its tree. See ``folding.py``."""

from collections import Counter

from sparkle_ledger.entries import MAX_SEQ, Entry, EntryId, Restore
from sparkle_ledger.feed import Feed, Node
from sparkle_ledger.folding import Base
from sparkle_ledger.forks import ForkProof


class FoldableFeed(Feed):
    """The feed of any account, as a book has it."""

    __slots__ = ()

    def fold(self, base: Base, nodes: list[Node]) -> None:
        """The first entries of a feed with one path are what ``base`` says now. It has others after them."""
        last = nodes[-1]
        (first,) = last.children
        rest = list(self.from_place(0, first.entry.seq))
        for node in nodes:
            del self.known[node.entry.id]
            del self._places[node.order]
        for node in rest:
            node.root = first
            node.depth -= len(nodes)
            node.changes -= last.changes
        first.parent = None
        self.nodes -= len(nodes)
        self._roots = {0: [first]}
        self.line = {first: MAX_SEQ}
        self._changes = Counter({first: rest[-1].changes})
        self.begin(base)
        for entry in [one for one in self.loose() if self._is_folded(one)]:
            self._forget_loose(entry)

    def prove(self, proof: ForkProof) -> bool:
        """Take two entries for a folded place; True: by them the account forked there, which was not known."""
        one, base = proof.first, self.base
        place = (one.incarnation, one.seq)
        if base is None or not self._is_below(place) or (place, one.key) in self._forks:
            return False
        if base.signer(one.seq) != one.key:
            return False
        self._forks[place, one.key] = proof
        if self._fork_at is None or place < self._fork_at:
            before, self._fork_at = self._fork_at, place
            self.tip = None
            self._note_moved({}, before)
        return True

    def bridge(self) -> list[Node]:
        """Have the next entry that waits follow the end of the line, as all between them is gone; returns what did.

        For one's own account only: its owner alone need not see what it signed to go on after it.
        """
        tip = self.tip
        if tip is None or self.frozen:
            return []
        incarnation, end = tip.order  # an entry right after it would follow another one in its place: a fork
        later = [
            one for one in self.loose() if (one.incarnation, one.key) == (incarnation, tip.key) and one.seq > end + 1
        ]
        if not later:
            return []
        entry = min(later, key=lambda one: (one.seq, one.id))
        self._forget_loose(entry)
        return self._with_waiting(self._grow(Node(entry, tip, *self._keys_after(entry, tip.key, tip.keys))))

    def _forget_loose(self, entry: Entry) -> None:
        """It waits no more."""
        self._drop_loose(entry)
        before = EntryId(entry.payload.last) if isinstance(entry.payload, Restore) else entry.prev
        waiting = [one for one in self._waiting.pop(before, ()) if one.id != entry.id]
        if waiting:
            self._waiting[before] = waiting
