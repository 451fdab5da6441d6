"""An account's entries as a tree of hash links: what stands where, by which key, and what is left beside.

Rules
-----
- Genesis is the root: entry 0 of incarnation 0, by the key that the account is named after.
- Entry n > 0 follows the entry that its ``prev`` names: of the same account and incarnation, with number n - 1.
  Restore, entry 0 of an incarnation i > 0, follows the entry of incarnation i - 1 that it names as ``last``.
- Each is signed by the key that is in force after the entry that it follows: Genesis's, or that of the last Rotate to
  which the new key agreed. Nothing follows a Revoke.
- What breaks one of these has no place. What comes before the entry that it follows waits.
- Where the oldest entries are folded (``folding.py``) the tree begins after them. What comes at their places, or
  begins anew from there, is refused; it proves a fork only together with another one.

So there is one path from each entry to Genesis, and it can never change. Usually all entries are on one path. They
are not when

- the account *forks*: two entries of one key for one place, one of which stands in the tree. Both, and all that has
  the same or a higher (incarnation, number), are off the line;
- it *began anew*: the line is the path to the end of the highest incarnation. What a Restore left behind is off it;
- it rotated or revoked its key: an incarnation that does not go through every Rotate and Revoke of the lower ones is
  off the line, so that a key that was taken out of force cannot begin anew from before.

What being off the line means is for the book to say (``book.py``).
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from sparkle_ledger import outcomes as out
from sparkle_ledger.closing import Ruling
from sparkle_ledger.entries import (
    MAX_SEQ,
    NO_PREV,
    AccountId,
    Entry,
    EntryId,
    Genesis,
    Restore,
    Revoke,
    Rotate,
    account_of,
    consent_to_rotate,
)
from sparkle_ledger.forks import ForkProof
from sparkle_ledger.outcomes import Outcome
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Verify

if TYPE_CHECKING:
    from sparkle_ledger.folding import Base

MAX_LOOSE = 1024  # entries of one account without a place that are kept, by keys known to be its own
MAX_STRANGE = 128  # and by other keys: the next one perhaps, or anybody who would fill the room
MAX_WAITING = 1 << 16  # of all accounts: whoever fills it has others' entries offered again, in order
NO_KEY = b""  # after a Revoke


class Node:
    """An entry in its place, and what the book found out about it."""

    __slots__ = (
        "changes", "checked", "children", "contested", "depth", "entry", "face", "final", "key", "keys", "moved",
        "off", "outcome", "parent", "root", "strict",
    )  # fmt: skip

    def __init__(self, entry: Entry, parent: "Node | None", key: bytes, keys: frozenset[bytes]) -> None:
        self.entry = entry
        self.parent = parent
        self.children: tuple[Node, ...] = ()
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.root: Node = parent.root if parent is not None and entry.seq else self  # entry 0 of its incarnation
        self.key = key  # in force after it
        self.keys = keys  # all that were in force up to it
        self.changes: int = 0 if parent is None else parent.changes + (key != parent.key)  # of the key, up to it
        self.off: Outcome | None = None  # of an entry 0: why its incarnation does not count
        # The book's findings.
        self.outcome: Outcome = out.GAP
        self.checked: Outcome | None = None  # what does not depend on the entries before it; None: not looked at
        self.final: Ruling | None = None  # of a Work whose job was closed: it is not judged again
        self.contested = False  # another entry claims an execution that this one claims
        self.moved = 0  # what the account gained by it
        self.strict = self.face = 0  # what it added to the two sums that Holds are judged by

    @property
    def order(self) -> tuple[int, int]:
        """Incarnation and number."""
        return self.entry.incarnation, self.entry.seq

    @property
    def rank(self) -> tuple[bytes, int, int, bytes]:
        """A total order of all entries."""
        return self.entry.account, self.entry.incarnation, self.entry.seq, self.entry.id

    def follows(self, other: "Node") -> bool:
        """``other`` is on the path from Genesis to this entry, or is this entry."""
        at: Node | None = self
        while at is not None and at.depth > other.depth:
            at = at.parent
        return at is other


class Room:
    """How many entries without a place may still be kept, of all accounts of a book."""

    __slots__ = ("left",)

    def __init__(self, left: int = MAX_WAITING) -> None:
        self.left = left


class Feed:
    """All that is known of one account's entries."""

    __slots__ = (
        "_changes", "_fork_at", "_forks", "_loose", "_moved", "_own", "_places", "_room", "_roots", "_shared",
        "_verify", "_waiting", "account", "base", "heads", "known", "line", "network", "nodes", "tip",
    )  # fmt: skip

    def __init__(
        self, network: str, account: AccountId, known: dict[EntryId, Node], verify: Verify, shared: Room | None = None
    ) -> None:
        self.network = network
        self._shared = shared or Room()
        self.account = account
        self.known = known  # entries of all accounts that have a place
        self.base: Base | None = None  # what is folded of it
        self.tip: Node | None = None  # the end of the line, or of what comes before a fork
        self.nodes = 0
        self.heads: dict[int, Node] = {}  # of each incarnation, the entry with the highest number
        self._verify = verify
        self._places: dict[tuple[int, int], tuple[Node, ...]] = {}
        self._loose: dict[
            tuple[int, int], list[tuple[Entry, bool]]
        ] = {}  # without a place, by where they would stand
        self._waiting: dict[EntryId, list[Entry]] = {}  # these, by the entry that they wait for
        self._room = {True: MAX_LOOSE, False: MAX_STRANGE}  # left, for its own keys and for others
        self._roots: dict[int, list[Node]] = {}  # entry 0 of each incarnation
        self.line: dict[Node, int] = {}  # entry 0 of the incarnations that the line goes through -> up to where
        self._changes: Counter[Node] = Counter()  # Revokes, and Rotates that count, of each incarnation
        self._own: set[bytes] = set()  # keys that were in force
        self._moved: list[Node] = []  # see ``take_moved``
        self._forks: dict[tuple[tuple[int, int], bytes], ForkProof] = {}  # of a place and a key
        self._fork_at: tuple[int, int] | None = None  # the lowest that counts

    # --- placing ------------------------------------------------------------------------------------------

    def place(self, entry: Entry) -> tuple[Outcome | None, list[Node]]:
        """Put an entry, and those that waited for it, in their places.

        Returns why it has none (or None), and what was placed.
        """
        if self._is_folded(entry):
            return out.OLD, []
        fault, node = self._try(entry)
        if node is None:
            return self._put_aside(entry, fault or out.GAP), []
        return None, self._with_waiting(node)

    def _with_waiting(self, node: Node) -> list[Node]:
        """An entry that was put in its place, and those that waited for it."""
        placed = [node]
        for one in placed if self._waiting else ():  # grows meanwhile
            for waiting in self._waiting.pop(one.entry.id, ()):
                self._drop_loose(waiting)
                fault, following = self._try(waiting)
                if following is not None:
                    placed.append(following)
                elif fault is not None:
                    self._put_aside(waiting, fault)
        return placed

    def _try(self, entry: Entry) -> tuple[Outcome | None, Node | None]:
        payload, parent = entry.payload, None
        if entry.seq:
            parent = self.known.get(entry.prev)
            if type(payload) is Genesis or type(payload) is Restore:
                return out.MISPLACED, None
            if parent is None and self.base is not None and entry.prev == self.base.id:
                return self._try_after(self.base, entry)
        elif type(payload) is Restore and entry.incarnation and entry.prev == NO_PREV:
            parent = self.known.get(EntryId(payload.last))
        elif type(payload) is not Genesis or entry.incarnation or entry.prev != NO_PREV:
            return out.BAD_START, None
        elif account_of(self.network, entry.key) != entry.account:
            return out.BAD_SIGNER, None
        else:
            return None, self._grow(Node(entry, None, entry.key, frozenset((entry.key,))))
        if parent is None:
            return None, None
        if not self._links(parent.entry, entry):
            return out.BAD_LINK, None
        if not self._may_sign(entry.key, parent):
            return out.AFTER_REVOKE if parent.key == NO_KEY else out.BAD_SIGNER, None
        return None, self._grow(Node(entry, parent, *self._keys_after(entry, parent.key, parent.keys)))

    def _try_after(self, base: "Base", entry: Entry) -> tuple[Outcome | None, Node | None]:
        """As ``_try``, for what follows the last entry that is folded."""
        if entry.incarnation or entry.seq != base.seq + 1:
            return out.BAD_LINK, None
        if entry.key != base.key:
            return out.BAD_SIGNER, None
        node = Node(entry, None, *self._keys_after(entry, base.key, base.all_keys))
        node.changes = int(node.key != base.key)
        return None, self._grow(node)

    def _keys_after(self, entry: Entry, key: bytes, keys: frozenset[bytes]) -> tuple[bytes, frozenset[bytes]]:
        """The key in force after an entry, and all up to it, by those before it."""
        if type(entry.payload) is Revoke:
            return NO_KEY, keys
        if type(entry.payload) is Rotate and self._consents(entry, entry.payload):
            return entry.payload.key, keys | {entry.payload.key}
        return key, keys

    @staticmethod
    def _may_sign(key: bytes, after: Node) -> bool:
        """A key is in force after an entry."""
        return key == after.key

    @staticmethod
    def _links(before: Entry, entry: Entry) -> bool:
        """An entry can follow the one that it says it follows."""
        if before.account != entry.account:
            return False
        if isinstance(entry.payload, Restore):
            return before.incarnation + 1 == entry.incarnation and before.seq == entry.payload.last_seq
        return before.incarnation == entry.incarnation and before.seq + 1 == entry.seq

    def _consents(self, entry: Entry, payload: Rotate) -> bool:
        agreed = consent_to_rotate(self.network, entry.account, entry.incarnation, entry.seq)
        try:
            self._verify(payload.key, payload.consent, agreed)
        except RemoteProtocolError:
            return False
        return True

    def _grow(self, node: Node) -> Node:
        entry, parent = node.entry, node.parent
        self.nodes += 1
        self.known[entry.id] = node
        place = (entry.incarnation, entry.seq)
        there = self._places.get(place, ())
        self._places[place] = (*there, node)
        head = self.heads.get(entry.incarnation)
        if head is None or (head.entry.seq, entry.id) < (entry.seq, head.entry.id):
            self.heads[entry.incarnation] = node
        before = parent.changes if parent is not None else 0
        if parent is not None:
            parent.children += (node,)
        self._changes[node.root] += node.changes - before
        self._own |= node.keys
        if node.root is node:
            self._roots.setdefault(entry.incarnation, []).append(node)
        forked = bool(there or self._loose) and self._look_for_fork(entry)
        changes = node.changes > before
        if node.root is node or (changes and len(self._roots) > 1):
            self._draw_line()
        elif forked:
            self._cut_line(place, entry.key)
        elif parent is self.tip and self.why_off(node) is None:
            self.tip = node
        return node

    # --- folding --------------------------------------------------------------------------------------------

    def begin(self, base: "Base") -> None:
        """The feed begins after what was folded in an earlier life; to be said before anything else of it."""
        self.base = base
        self._own |= base.all_keys

    def _is_below(self, place: tuple[int, int]) -> bool:
        """A place is one of a folded entry."""
        return self.base is not None and place <= (0, self.base.seq)

    def _is_folded(self, entry: Entry) -> bool:
        """It is one of those that are folded, or none of this account's, or begins anew from before them."""
        payload = entry.payload
        if isinstance(payload, Restore) and entry.incarnation == 1 and not entry.seq:
            return self._is_below((0, payload.last_seq))
        return self._is_below((entry.incarnation, entry.seq))

    # --- without a place ----------------------------------------------------------------------------------

    def _put_aside(self, entry: Entry, why: Outcome) -> Outcome:
        """Keep what waits, or may prove a fork, if there is room; returns its outcome."""
        place = (entry.incarnation, entry.seq)
        if any(one.id == entry.id for one, _ in self._loose.get(place, ())):
            return why
        own = self._is_own(entry.key)
        if self._room[own] == 0 or self._shared.left == 0:
            return out.TOO_FAR
        self._room[own] -= 1
        self._shared.left -= 1
        self._loose.setdefault(place, []).append((entry, own))
        if why is out.GAP:
            before = EntryId(entry.payload.last) if isinstance(entry.payload, Restore) else entry.prev
            self._waiting.setdefault(before, []).append(entry)
        if place in self._places and self._look_for_fork(entry):
            self._cut_line(place, entry.key)
        return why

    def _drop_loose(self, entry: Entry) -> None:
        place = (entry.incarnation, entry.seq)
        left = []
        for one, own in self._loose.pop(place):
            if one.id == entry.id:
                self._room[own] += 1
                self._shared.left += 1
            else:
                left.append((one, own))
        if left:
            self._loose[place] = left

    def _is_own(self, key: bytes) -> bool:
        """A key that is known to have been in force for the account."""
        return key in self._own or account_of(self.network, key) == self.account

    def loose(self) -> Iterator[Entry]:
        """Entries without a place that are kept."""
        return (entry for aside in self._loose.values() for entry, _ in aside)

    # --- the line -----------------------------------------------------------------------------------------

    @property
    def simple(self) -> bool:
        """All entries are on the line, whatever comes next to its end."""
        return len(self._roots) <= 1 and not self._forks

    @property
    def frozen(self) -> bool:
        """The account forked."""
        return self._fork_at is not None

    def from_place(self, incarnation: int, first: int) -> Iterator[Node]:
        """The entries that have a place, from this one on, by incarnation, seq and id."""
        for known in sorted(self.heads):
            if known >= incarnation:
                start = max(first if known == incarnation else 0, self._begins(known))
                for seq in range(start, self.heads[known].entry.seq + 1):
                    yield from sorted(self._places.get((known, seq), ()), key=lambda node: node.entry.id)

    def _begins(self, incarnation: int) -> int:
        """The first number of an incarnation of which an entry may be here."""
        return self.base.seq + 1 if self.base is not None and not incarnation else 0

    def fork_proofs(self) -> list[ForkProof]:
        """One for each place that a key of the account signed twice, the lowest first."""
        return [self._forks[place] for place in sorted(self._forks)]

    def roots(self) -> Iterator[Node]:
        """The entries 0."""
        return chain.from_iterable(self._roots[incarnation] for incarnation in sorted(self._roots))

    def starts(self) -> list[Node]:
        """Genesis; two if the account forked there."""
        return self._roots.get(0, [])

    def why_off(self, node: Node) -> Outcome | None:
        """Why an entry is off the line."""
        if self.simple:
            return None
        if node.root.off is not None:
            return node.root.off
        if self._fork_at is not None and node.order >= self._fork_at:
            return out.FORKED
        return None if node.entry.seq <= self.line.get(node.root, -1) else out.CUT

    def _look_for_fork(self, entry: Entry) -> bool:
        """See whether the key of this entry signed another one for its place; True if the line may change by it."""
        place = (entry.incarnation, entry.seq)
        known = self._forks.get((place, entry.key))
        if known is not None:
            same = [known.first, known.second, entry]
        else:
            same = [node.entry for node in self._places.get(place, ()) if node.entry.key == entry.key]
            if same:
                same += [one for one, _ in self._loose.get(place, ()) if one.key == entry.key]
        ranked = sorted({one.id: one for one in same}.items())
        if len(ranked) < 2:
            return False
        self._forks[place, entry.key] = ForkProof.make(ranked[0][1], ranked[1][1])
        return known is None and (self._fork_at is None or place < self._fork_at)

    def _draw_line(self) -> None:
        """Work out which incarnations count, where the first fork of these is, and which path is the line."""
        before = {root: (root.off, self.line.get(root)) for root in self.roots()}, self._fork_at
        counting: set[Node] = set()
        changes, top = 0, None
        for incarnation in sorted(self._roots):
            lower = changes
            for root in sorted(self._roots[incarnation], key=lambda node: node.entry.id, reverse=True):
                root.off = self._why_not(root, counting, lower)
                if root.off is None:
                    counting.add(root)
                    changes += self._changes[root]
                    top = root
        forks = [
            place
            for place, key in self._forks
            if self._is_below(place)
            or any(node.root in counting and node.entry.key == key for node in self._places[place])
        ]
        self._fork_at = min(forks, default=None)
        self.line = {}
        at = top
        while at is not None:
            self.line[at.root] = MAX_SEQ if at is top else at.entry.seq
            at = at.root.parent
        self.tip = top
        while self.tip is not None and not self._before_fork(self.tip):
            self.tip = self.tip.parent
        while self.tip is not None:
            following = [node for node in self.tip.children if node.root is top and self._before_fork(node)]
            if not following:
                break
            self.tip = following[0]

        self._note_moved(*before)

    def _cut_line(self, place: tuple[int, int], key: bytes) -> None:
        """A fork is known before all others: the line ends there, if it is of an incarnation that counts."""
        if any(node.root.off is None and node.entry.key == key for node in self._places[place]):
            before, self._fork_at = self._fork_at, place
            while self.tip is not None and not self._before_fork(self.tip):
                self.tip = self.tip.parent
            self._note_moved({}, before)

    def _note_moved(
        self, before: dict[Node, tuple[Outcome | None, int | None]], fork_at: tuple[int, int] | None
    ) -> None:
        for root, (off, upto) in before.items():
            now = self.line.get(root)
            if off is not root.off or (upto is None) != (now is None):
                self._moved.append(root)
            elif upto != now and upto is not None and now is not None:
                place = (root.entry.incarnation, min(upto, now) + 1)
                self._moved += (node for node in self._places.get(place, ()) if node.root is root)
        if fork_at != self._fork_at:
            lowest = min(place for place in (fork_at, self._fork_at) if place is not None)
            self._moved += self._places.get(lowest, ())
            self._moved += (root for root in self.roots() if root.order > lowest)

    def take_moved(self) -> list[Node]:
        """Entries from which on others may be on the line than at the last call."""
        moved, self._moved = self._moved, []
        return moved

    def _before_fork(self, node: Node) -> bool:
        return self._fork_at is None or node.order < self._fork_at

    @staticmethod
    def _why_not(root: Node, counting: set[Node], changes: int) -> Outcome | None:
        """Why an incarnation does not count; ``changes``: how often the key changed in lower ones that do."""
        if root.parent is None:
            return None
        if root.parent.root not in counting:
            return out.CUT
        return None if root.parent.changes == changes else out.REVOKED_BRANCH
