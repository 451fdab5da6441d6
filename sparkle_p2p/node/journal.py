"""The story of one job, short enough to read: what happened when, like things told as one.

Rules
-----
- An entry is of a *kind* and may name a peer. What happens again soon (``MERGE_GAP_MS``) to the same peer joins the
  entry that is there; a landmark (or this node's restart) between the two keeps them apart: the order stays true.
- Leases that end because their worker was lost belong to the loss and are counted there.
- There are at most ``MAX_ENTRIES``. Beyond that the old half is thinned: the two entries of one kind that lie closest
  together become one, details before events. Landmarks (submitted, published, first lease, milestones, the end) are
  few by nature and stay.

Nothing rests on a journal: it is written a few seconds late, so a crash may cost its last lines.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise

from sparkle_p2p.view import Scalar

MAX_ENTRIES = 400
MERGE_GAP_MS = 120_000
LOOKED_BACK = 64  # entries; where more peers than that come and go, thinning puts their entries together
MAX_TEXT = 300
MILESTONES = (10, 25, 50, 75, 90)  # percent; "done" says the rest
NUMBERS_PER_MS = 1000  # entries are numbered by time, so that those of several runs sort without being loaded

DETAIL, EVENT, LANDMARK = range(3)
RANKS = {
    "job_submitted": LANDMARK,
    "job_published": LANDMARK,
    "first_lease": LANDMARK,
    "milestone": LANDMARK,
    "job_done": LANDMARK,
    "job_cancelled": LANDMARK,
    "job_failed": EVENT,
    "keepers_changed": EVENT,
    "worker_rejected": EVENT,
    "class_excluded": EVENT,
    "unit_dead": EVENT,
    "units_requeued": EVENT,
    "node_stopped": EVENT,
    "node_back": EVENT,
    "node_stood_still": EVENT,
    "submitter_back": EVENT,
    "worker_lost": DETAIL,
    "worker_back": DETAIL,
    "lease_expired": DETAIL,
    "result_withheld": DETAIL,
    "keeper_away": DETAIL,
    "keeper_back": DETAIL,
    "duty_taken": DETAIL,
    "duty_returned": DETAIL,
    "units_moved": DETAIL,
}
_SUMMED = frozenset({"units", "ranges", "moved", "away_s"})  # over all that an entry tells of
_OF_THE_FIRST = frozenset({"unit", "text", "evidence"})  # the others are those of the latest
_DIVIDES = frozenset({"node_back", "node_stopped"})


@dataclass(slots=True)
class Entry:
    """One line, of one thing or of several like things. Times are Unix milliseconds."""

    number: int  # its place; unique in the job
    kind: str
    first_ms: int
    last_ms: int
    peer: str = ""  # "" where several peers, or none, are meant
    count: int = 1
    notes: dict[str, Scalar] = field(default_factory=dict)

    def take_in(self, last_ms: int, count: int, notes: Mapping[str, Scalar]) -> None:
        """Tell also of what happened again."""
        self.last_ms = max(self.last_ms, last_ms)
        self.count += count
        for name, value in notes.items():
            known = self.notes.get(name)
            if name in _SUMMED and isinstance(known, int) and isinstance(value, int):
                self.notes[name] = known + value
            elif known is None or name not in _OF_THE_FIRST:
                self.notes[name] = value


class Journal:
    """The entries of one job, oldest first, and which of them the disk does not hold yet."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries: list[Entry] = []
        self._changed: dict[int, Entry] = {}
        self._gone: dict[int, None] = {}
        self.absorb(entries)

    def absorb(self, entries: Iterable[Entry]) -> None:
        """Take in what the disk holds; what is known here of the same entries is newer."""
        known = {entry.number for entry in self.entries}
        self.entries += [one for one in entries if one.number not in known and one.number not in self._gone]
        self.entries.sort(key=lambda entry: entry.number)
        self._bound()

    def add(self, kind: str, now_ms: int, /, *, peer: str = "", **notes: Scalar) -> None:
        """Something happened. A kind that this version does not know is no news."""
        if kind not in RANKS:
            return
        short = {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in notes.items()}
        if kind == "lease_expired" and (loss := self._recent("worker_lost", peer, now_ms)) is not None:
            loss.take_in(now_ms, 0, {"moved": 1})
            self._changed[loss.number] = loss
            return
        same = self._same(kind, peer, short, now_ms)
        if same is not None:
            same.take_in(now_ms, 1, short)
            self._changed[same.number] = same
            return
        number = max(now_ms * NUMBERS_PER_MS, self.entries[-1].number + 1 if self.entries else 0)
        entry = Entry(number, kind, now_ms, now_ms, peer, 1, short)
        self.entries.append(entry)
        self._changed[number] = entry
        self._bound()

    def has(self, kind: str) -> bool:
        """There is an entry of that kind."""
        return any(entry.kind == kind for entry in self.entries)

    def total(self, kind: str, peer: str) -> int:
        """How often that happened to a peer, as far as it is told apart."""
        return sum(entry.count for entry in self.entries if entry.kind == kind and entry.peer == peer)

    def leases_lost(self, peer: str) -> int:
        """How many leases of a peer ran out, as far as it is told apart."""
        moved = [entry.notes.get("moved") for entry in self.entries if entry.peer == peer]
        return self.total("lease_expired", peer) + sum(count for count in moved if isinstance(count, int))

    @property
    def last_ms(self) -> int:
        """When something happened last; 0 when nothing did."""
        return max((entry.last_ms for entry in self.entries), default=0)

    @property
    def clean(self) -> bool:
        """The disk holds it all."""
        return not self._changed and not self._gone

    def changes(self) -> tuple[list[Entry], list[int]]:
        """Entries to be written and numbers to be removed since ``saved``."""
        return list(self._changed.values()), list(self._gone)

    def saved(self, entries: Sequence[Entry], gone: Sequence[int], *, as_of: Sequence[Entry]) -> None:
        """``entries`` are on disk as ``as_of`` shows them; what changed meanwhile stays to be written."""
        for entry, written in zip(entries, as_of, strict=True):
            if entry == written:
                self._changed.pop(entry.number, None)
        for number in gone:
            self._gone.pop(number, None)

    def _same(self, kind: str, peer: str, notes: Mapping[str, Scalar], now_ms: int) -> Entry | None:
        """The entry that may tell also of this."""
        if RANKS[kind] == LANDMARK:
            return None
        if kind in _DIVIDES:  # in a row, as when something restarts it again and again
            last = self.entries[-1] if self.entries else None
            return last if last and last.kind == kind and last.notes.get("clean") == notes.get("clean") else None
        return self._recent(kind, peer, now_ms)

    def _recent(self, kind: str, peer: str, now_ms: int) -> Entry | None:
        """The entry that something of this kind joins."""
        for entry in islice(reversed(self.entries), LOOKED_BACK):
            if entry.kind == kind and entry.peer == peer:
                # A clock that was set back has no say in what is recent.
                return entry if abs(now_ms - entry.last_ms) <= MERGE_GAP_MS or kind == "worker_rejected" else None
            if RANKS.get(entry.kind, DETAIL) == LANDMARK or entry.kind in _DIVIDES:
                return None
        return None

    def _bound(self) -> None:
        while len(self.entries) > MAX_ENTRIES:
            old = self.entries[: MAX_ENTRIES // 2]
            pair = (
                _closest(old, DETAIL) or _closest(self.entries, DETAIL)
                or _closest(old, EVENT) or _closest(self.entries, EVENT)
            )  # fmt: skip
            if pair is None:  # hundreds of landmarks: the first tell how it began
                self._remove(self.entries[MAX_ENTRIES // 2])
            else:
                self._join(*pair)

    def _join(self, first: Entry, second: Entry) -> None:
        if first.peer != second.peer:
            first.peer = ""
        first.take_in(second.last_ms, second.count, second.notes)
        self._changed[first.number] = first
        self._remove(second)

    def _remove(self, entry: Entry) -> None:
        self.entries.remove(entry)
        self._changed.pop(entry.number, None)
        self._gone[entry.number] = None


def _closest(entries: Sequence[Entry], rank: int) -> tuple[Entry, Entry] | None:
    """The two entries of one kind that together span the least time."""
    by_kind: dict[str, list[Entry]] = {}
    for entry in entries:
        if RANKS.get(entry.kind, DETAIL) == rank:
            by_kind.setdefault(entry.kind, []).append(entry)
    pairs = [pair for like in by_kind.values() for pair in pairwise(like)]
    return min(pairs, key=lambda pair: (pair[1].last_ms - pair[0].first_ms, pair[0].number), default=None)


def milestone(before: int, accepted: int, total: int) -> int | None:
    """The highest milestone reached beyond ``before`` percent; None when there is none."""
    reached = [percent for percent in MILESTONES if before < percent and accepted * 100 >= percent * total]
    return reached[-1] if reached and accepted < total else None
