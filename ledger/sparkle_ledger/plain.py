"""Sums along a feed with one path, at any place of it, at a cost that hardly grows with its length.

Most feeds never fork and never leave anything behind. For these nothing is walked: what arrives late, the proof of
work done long ago for example, is judged where it stands, and of the entries after it only those are looked at again
for which it may make a difference (``Margins``).

A feed that is not ``Feed.simple``, and one with very many entries about one job, has a ``Walk``.
"""

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import AccountId, Hold, Release, Work
from sparkle_ledger.feed import Node
from sparkle_ledger.walk import JobSums

if TYPE_CHECKING:
    from sparkle_ledger.folding import Base

MAX_SAME_JOB = 16  # Holds and Releases of one account about one job: there are two as a rule
_BITS = 6
_SIZE = 1 << _BITS  # of a block, and blocks of a block of these
_NEVER = 1 << 200


class Prefix:
    """A row of numbers that grows at its end, and the sum of all before any place in it."""

    __slots__ = ("_blocks", "_large", "total", "values")

    def __init__(self) -> None:
        self.values: list[int] = []
        self.total = 0
        self._blocks: list[int] = []  # sums of ``_SIZE`` values
        self._large: list[int] = []  # and of ``_SIZE`` blocks

    def append(self) -> None:
        """One more place, with 0."""
        at = len(self.values)
        self.values.append(0)
        if not at & (_SIZE - 1):
            self._blocks.append(0)
            if not at & (_SIZE * _SIZE - 1):
                self._large.append(0)

    def put(self, at: int, value: int) -> None:
        """Change the number in a place."""
        more = value - self.values[at]
        self.values[at] = value
        self.total += more
        self._blocks[at >> _BITS] += more
        self._large[at >> 2 * _BITS] += more

    def before(self, at: int) -> int:
        """The sum of all numbers before a place."""
        if at >= len(self.values):
            return self.total
        block, large = at >> _BITS, at >> 2 * _BITS
        found = sum(self._large[:large])
        found += sum(self._blocks[large << _BITS : block])
        return found + sum(self.values[block << _BITS : at])


class _Earned:
    """What one payer paid, entry by entry."""

    __slots__ = ("before", "paid", "places")

    def __init__(self, before: int = 0) -> None:
        self.before = before  # by entries that are folded
        self.places: list[int] = []
        self.paid = Prefix()


class Margins:
    """Which Holds it may make a difference for that the sums before them change.

    Of each is known by how much these have to grow, or to shrink, until it does: two numbers, which every change
    before it lessens by the most that it can matter. A block of Holds is looked into only when one of its numbers is
    used up.
    """

    __slots__ = ("_downs", "_fewest_down", "_fewest_up", "_holds", "_places", "_room", "_ups")

    def __init__(self) -> None:
        self._holds: list[Node] = []
        self._places: list[int] = []
        self._room: list[tuple[int, int]] = []  # up and down, counted from when the block was new
        self._ups: list[int] = []  # of each block: how much the sums before it grew in all
        self._downs: list[int] = []
        self._fewest_up: list[int] = []  # no room in the block is less than that
        self._fewest_down: list[int] = []

    def append(self, node: Node) -> None:
        """One more Hold, to be judged."""
        if not len(self._holds) & (_SIZE - 1):
            self._ups.append(0)
            self._downs.append(0)
            self._fewest_up.append(_NEVER)
            self._fewest_down.append(_NEVER)
        self._holds.append(node)
        self._places.append(node.depth)
        self._room.append((_NEVER, _NEVER))

    def put(self, node: Node, slack: int | None) -> None:
        """A Hold was judged; ``slack``: how much more it could take, or lacks if below 0. None: that is no matter."""
        at = bisect_left(self._places, node.depth)
        block = at >> _BITS
        up = down = _NEVER
        if slack is not None and slack >= 0:
            down = self._downs[block] + slack + 1
        elif slack is not None:
            up = self._ups[block] - slack
        self._room[at] = (up, down)
        self._fewest_up[block] = min(self._fewest_up[block], up)
        self._fewest_down[block] = min(self._fewest_down[block], down)

    def changed(self, place: int, up: int, down: int) -> list[Node]:
        """The sums after a place changed, by so much at most; returns the Holds to be judged anew."""
        first = bisect_right(self._places, place)
        if first == len(self._places):
            return []
        found: list[Node] = []
        block = first >> _BITS
        if first & (_SIZE - 1):
            end = min((block + 1) << _BITS, len(self._room))
            for at in range(first, end):
                room_up, room_down = self._room[at]
                self._room[at] = (
                    room_up - up if room_up < _NEVER else _NEVER,
                    room_down - down if room_down < _NEVER else _NEVER,
                )
            self._look_into(block, found)
            block += 1
        for later in range(block, len(self._ups)):
            ups = self._ups[later] = self._ups[later] + up
            downs = self._downs[later] = self._downs[later] + down
            if ups >= self._fewest_up[later] or downs >= self._fewest_down[later]:
                self._look_into(later, found)
        return found

    def _look_into(self, block: int, found: list[Node]) -> None:
        ups, downs = self._ups[block], self._downs[block]
        fewest_up = fewest_down = _NEVER
        for at in range(block << _BITS, min((block + 1) << _BITS, len(self._room))):
            up, down = self._room[at]
            if up <= ups or down <= downs:
                found.append(self._holds[at])
                self._room[at] = (_NEVER, _NEVER)  # until it is judged
            else:
                fewest_up, fewest_down = min(fewest_up, up), min(fewest_down, down)
        self._fewest_up[block], self._fewest_down[block] = fewest_up, fewest_down


class PlainSums:
    """The sums before any entry of one feed. What ``Walk`` has, asked for by place. They begin from its base."""

    __slots__ = ("_at", "_base", "_economy", "_face", "_jobs", "_margins", "_payers", "_strict")

    def __init__(self, economy: Economy, base: "Base | None" = None) -> None:
        self._economy = economy
        self._base = base
        self._at = 0
        self._strict = Prefix()
        self._face = Prefix()
        earned = base.earned() if base is not None else {}
        self._payers = {payer: _Earned(micro) for payer, micro in earned.items()}
        self._jobs: dict[bytes, tuple[Node, ...]] = {}  # Holds and Releases
        self._margins = Margins()

    def append(self, node: Node) -> bool:
        """The feed has one more entry, to be judged; False: it needs a ``Walk`` now."""
        payload = node.entry.payload
        self._strict.append()
        self._face.append()
        if isinstance(payload, Hold | Release):
            same = self._jobs.get(payload.job, ())
            self._jobs[payload.job] = (*same, node)
            if isinstance(payload, Hold):
                self._margins.append(node)
            return len(same) < MAX_SAME_JOB
        if isinstance(payload, Work) and payload.payer != node.entry.account:
            earned = self._payers.get(AccountId(payload.payer))
            if earned is None:
                earned = self._payers[AccountId(payload.payer)] = _Earned()
            earned.places.append(node.depth)
            earned.paid.append()
        return True

    def go_to(self, node: Node | None) -> None:
        """What follows is asked about the sums up to ``node``, it included; None: before the first that is here."""
        self._at = 0 if node is None else node.depth + 1

    # --- the sums up to there -----------------------------------------------------------------------------

    @property
    def strict(self) -> int:
        """As of ``Walk``."""
        return self._strict.before(self._at) + (self._base.strict if self._base is not None else 0)

    @property
    def face(self) -> int:
        """As of ``Walk``."""
        return self._face.before(self._at) + (self._base.face if self._base is not None else 0)

    def funds(self, *, relied: bool) -> int:
        """What a Hold is paid out of, one on which workers relied or not."""
        return self.face if relied else min(self.face, self.strict)

    def earned(self) -> list[int]:
        """What each other account paid for work."""
        at = self._at
        if at >= len(self._face.values):
            return [earned.before + earned.paid.total for earned in self._payers.values()]
        return [
            earned.before + earned.paid.before(bisect_left(earned.places, at)) for earned in self._payers.values()
        ]

    def job(self, job: bytes) -> JobSums:
        """The sums of one job."""
        sums = self._base.job(job) if self._base is not None else JobSums()
        for node in self._jobs.get(job, ()):
            if node.depth < self._at:
                sums.count(node, 1)
        return sums

    # --- changes ------------------------------------------------------------------------------------------

    def judged(self, hold: Node, slack: int | None) -> None:
        """See ``Margins.put``."""
        self._margins.put(hold, slack)

    def judged_before(self, node: Node) -> None:
        """What an entry comes to is known; it was in other sums until now. Holds are to be judged once more."""
        self.changed(node, node.moved, node.strict, node.face)

    def changed(self, node: Node, moved: int, strict: int, face: int) -> list[Node]:
        """The book found out more about an entry than is known here; returns those to be judged anew after it.

        The last three: by how much what the node says changed.
        """
        found: list[Node] = []
        up, down = max(strict, face, 0), max(-strict, -face, 0)
        if strict:
            self._strict.put(node.depth, node.strict)
        if face:
            self._face.put(node.depth, node.face)
        payload = node.entry.payload
        if isinstance(payload, Work):
            earned = self._payers.get(AccountId(payload.payer))
            if moved and earned is not None:
                earned.paid.put(bisect_left(earned.places, node.depth), node.moved)
                most = self._economy.limit_moves(abs(moved))
                up, down = (up + most, down) if moved > 0 else (up, down + most)
        elif isinstance(payload, Hold | Release):
            same = self._jobs[payload.job]
            found += [one for one in same if one.depth > node.depth and isinstance(one.entry.payload, Release)]
        if up or down:
            found += self._margins.changed(node.depth, up, down)
        return found
