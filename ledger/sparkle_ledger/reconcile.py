"""What two copies of the ledger lack of each other, found with traffic proportional to the difference.

Range-based set reconciliation (A. Meyer, "Range-Based Set Reconciliation", SRDS 2023) over sorted 32-byte ids. One
side asks, the other answers and keeps nothing between two requests:

1. The asker sends a range with the fingerprint of its own ids in it, first the range of all ids. An equal fingerprint
   is answered by ``Same``.
2. Else the answer lists the ids of a small range (``Listed``), or cuts a large one into up to ``PARTS`` parts with
   as many ids each and gives count and fingerprint of each (``Split``). Cuts are by rank, not by value: ids that
   somebody made to lie close together do not deepen the search.
3. The asker goes on with the parts that differ from its own. So it learns what it lacks (``wanted``) and what the
   other lacks (``extra``); fetching the one and sending the other is the caller's.

**Fingerprint**: the first 16 bytes of BLAKE3, keyed with a salt that the asker draws for each session, over the
sorted ids of the range one after another. Entries are made by strangers, who could otherwise make two different sets
with one fingerprint, so that two honest copies never find their difference. XOR of ids falls to linear algebra, a sum
modulo 2²⁵⁶ to Wagner's generalised birthday (about 2³¹ steps with 2¹⁵ lists), and an unkeyed hash of 16 bytes to 2⁶⁴
steps done beforehand. Whoever does not know the salt has nothing to work on before the session: BLAKE3 is then a
random function, and two different ranges look equal with a chance of 2⁻¹²⁸ each, less than 2⁻¹⁰⁰ in any session.
Whoever knows it is one of the two sides, and could as well just say less than it has: only a session with somebody
else heals that. The price of the salt is that nothing can be kept: a request costs one pass over the ids in its
ranges, about 7 ms for each million. Those of one request are disjoint, so no request costs more than two passes.

**Bounds** against a lying partner. Cuts by rank end after ``MAX_DEPTH`` steps, as 32 · 16¹⁰ ids is more than anybody
has; whoever cuts further lies. The deepest ranges are asked first, so at most (``MAX_DEPTH`` + 1) · ``MAX_ASKED`` ·
``PARTS`` wait. After ``MAX_REQUESTS`` requests or ``MAX_FOUND`` ids the session ends incomplete, and what it found is
as good as any. A set that changes meanwhile does no harm: what it gains in parts already compared is found next time.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated

from blake3 import blake3
from msgspec import Meta

from sparkle_protocol.codec import Wire
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import HASH_BYTES

PARTS = 16  # of a split: 1.6 kB for each single difference among 100 000, four round trips
LISTED = 32  # ids that are named rather than split
FINGERPRINT_BYTES = 16
SALT_BYTES = 32
MAX_REPLY_BYTES = 60 << 10  # of 64 kB with all that is around it
MAX_ASKED = 256  # ranges of one request: 18 kB
MAX_DEPTH = 11
MAX_REQUESTS = 1024
MAX_FOUND = 1 << 16  # ids of either kind

_FEW = 8  # one new id among so many known ones is looked up by itself
_ANSWER_BYTES = 16  # of framing, at most
_PART_BYTES = 32  # of a part without its bound, at most

Bound = Annotated[bytes, Meta(max_length=HASH_BYTES)]  # the beginning of an id; empty: before or after all
Fingerprint = Annotated[bytes, Meta(max_length=FINGERPRINT_BYTES)]
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
Salt = Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]


class Asked(Wire, frozen=True):
    """All ids from ``lower`` on and before ``upper``. Without a fingerprint they are known to differ."""

    lower: Bound
    upper: Bound
    fingerprint: Fingerprint = b""


class CompareIds(Wire, tag=50, frozen=True):
    """What do you have in these ranges? They ascend and do not overlap."""

    salt: Salt
    ranges: Annotated[list[Asked], Meta(min_length=1, max_length=MAX_ASKED)]


class Same(Wire, tag=1, frozen=True):
    """I have what you have."""


class Listed(Wire, tag=2, frozen=True):
    """All my ids of the range, ascending, one after another."""

    ids: Annotated[bytes, Meta(max_length=LISTED * HASH_BYTES)]


class Part(Wire, frozen=True):
    """My ids before ``upper``, from the end of the part before or the range's lower bound on."""

    upper: Bound
    count: Count
    fingerprint: Fingerprint


class Split(Wire, tag=3, frozen=True):
    """The range, cut into parts."""

    parts: Annotated[list[Part], Meta(min_length=2, max_length=PARTS)]


class IdsCompared(Wire, tag=51, frozen=True):
    """Answers about the first ranges asked, as many as fit, at least one."""

    answers: Annotated[list[Same | Listed | Split], Meta(min_length=1, max_length=MAX_ASKED)]


class IdSet:
    """Ids in ascending order: 32 bytes of memory each."""

    __slots__ = ("_fresh", "_ids")

    def __init__(self, ids: Iterable[bytes] = ()) -> None:
        self._ids = b""
        self._fresh: set[bytes] = set(ids)

    def add(self, id_: bytes) -> None:
        """Take one in; known ones are no harm."""
        self._fresh.add(id_)

    def __len__(self) -> int:
        return len(self._settled()) // HASH_BYTES

    def __contains__(self, id_: bytes) -> bool:
        if id_ in self._fresh:
            return True
        place = bisect_left(_Ranks(self._ids), id_)
        return self._ids[place * HASH_BYTES : (place + 1) * HASH_BYTES] == id_

    def rank(self, bound: bytes) -> int:
        """How many ids are below a bound."""
        return bisect_left(_Ranks(self._settled()), bound)

    def span(self, lower: bytes, upper: bytes) -> tuple[int, int]:
        """Rank of the first id of a range, and of the first after it."""
        return self.rank(lower), self.rank(upper) if upper else len(self)

    def at(self, rank: int) -> bytes:
        """The id with that many before it."""
        return self._settled()[rank * HASH_BYTES : (rank + 1) * HASH_BYTES]

    def between(self, first: int, end: int) -> bytes:
        """Ids by rank, one after another."""
        return self._settled()[first * HASH_BYTES : end * HASH_BYTES]

    def fingerprint(self, salt: bytes, first: int, end: int) -> bytes:
        """Of the ids from rank ``first`` on and before rank ``end``."""
        ids = memoryview(self._settled())[first * HASH_BYTES : end * HASH_BYTES]
        return blake3(ids, key=salt).digest(FINGERPRINT_BYTES)

    def _settled(self) -> bytes:
        """All ids, those included that came since the last look: many at once cost hardly more than one."""
        if len(self._fresh) > len(self._ids) // (_FEW * HASH_BYTES):
            known = (self._ids[at : at + HASH_BYTES] for at in range(0, len(self._ids), HASH_BYTES))
            self._ids = b"".join(sorted(self._fresh.union(known)))
        elif self._fresh:
            old, pieces, done = memoryview(self._ids), [], 0
            for id_ in sorted(self._fresh):
                place = bisect_left(_Ranks(self._ids), id_) * HASH_BYTES
                pieces.append(old[done:place])
                done = place
                if self._ids[place : place + HASH_BYTES] != id_:
                    pieces.append(memoryview(id_))
            pieces.append(old[done:])
            self._ids = b"".join(pieces)
        self._fresh.clear()
        return self._ids


class _Ranks:
    """Sorted ids as the sequence that ``bisect`` wants."""

    __slots__ = ("_ids",)

    def __init__(self, ids: bytes) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids) // HASH_BYTES

    def __getitem__(self, rank: int) -> bytes:
        return self._ids[rank * HASH_BYTES : (rank + 1) * HASH_BYTES]


def answer(held: IdSet, request: CompareIds) -> IdsCompared:
    """What this side has in the ranges of a request; nothing of it is remembered.

    Raises:
        RemoteProtocolError: the ranges are empty, overlap or do not ascend.
    """
    before = b""
    for number, asked in enumerate(request.ranges):
        overlaps = number > 0 and (not before or asked.lower < before)
        if overlaps or (asked.upper and asked.lower >= asked.upper):
            raise RemoteProtocolError("ranges of ids that do not ascend")
        before = asked.upper
    answers: list[Same | Listed | Split] = []
    left = MAX_REPLY_BYTES
    for asked in request.ranges:
        one, size = _answer_one(held, request.salt, asked)
        if answers and size > left:
            break
        answers.append(one)
        left -= size
    return IdsCompared(answers)


def _answer_one(held: IdSet, salt: bytes, asked: Asked) -> tuple[Same | Listed | Split, int]:
    """The answer about one range, and at most how long it is."""
    first, end = held.span(asked.lower, asked.upper)
    if asked.fingerprint and asked.fingerprint == held.fingerprint(salt, first, end):
        return Same(), _ANSWER_BYTES
    if end - first <= LISTED:
        return Listed(held.between(first, end)), _ANSWER_BYTES + (end - first) * HASH_BYTES
    parts = []
    for number in range(PARTS):
        here, there = (first + (end - first) * step // PARTS for step in (number, number + 1))
        upper = _shortest(held.at(there - 1), held.at(there)) if there < end else asked.upper
        parts.append(Part(upper, there - here, held.fingerprint(salt, here, there)))
    return Split(parts), _ANSWER_BYTES + sum(_PART_BYTES + len(part.upper) for part in parts)


def _shortest(below: bytes, id_: bytes) -> bytes:
    """The shortest beginning of an id that is above the id before it."""
    length = next(place for place in range(HASH_BYTES) if below[place] != id_[place]) + 1
    return id_[:length]


class Session:
    """One comparison with one partner: ``request``, then ``take`` its reply, until there is no request.

    Args:
        held: this side's ids; it may grow meanwhile.
        salt: 32 random bytes, of this session only.

    Attributes:
        wanted: ids that only the partner has, or says that it has.
        extra: ids that only this side has.
        complete: nothing was left out for the sake of the bounds.
    """

    __slots__ = ("_asked", "_held", "_pending", "_salt", "complete", "extra", "requests", "wanted")

    def __init__(self, held: IdSet, salt: bytes) -> None:
        self._held = held
        self._salt = salt
        self._pending: list[list[Asked]] = [[] for _ in range(MAX_DEPTH + 1)]  # by how often they were cut
        self._pending[0].append(Asked(b"", b"", held.fingerprint(salt, 0, len(held))))
        self._asked: list[tuple[Asked, int]] = []  # with how often they were cut
        self.wanted: list[bytes] = []
        self.extra: list[bytes] = []
        self.complete = True
        self.requests = 0

    @property
    def waiting(self) -> int:
        """How many ranges are still to be asked about."""
        return sum(map(len, self._pending))

    def request(self) -> CompareIds | None:
        """What to ask next; None once all is compared."""
        if not self.waiting:
            return None
        if self.requests >= MAX_REQUESTS or max(len(self.wanted), len(self.extra)) >= MAX_FOUND:
            self._pending = [[] for _ in self._pending]
            self.complete = False
            return None
        self.requests += 1
        for depth in range(MAX_DEPTH, -1, -1):
            level, room = self._pending[depth], MAX_ASKED - len(self._asked)
            self._asked += [(asked, depth) for asked in level[:room]]
            del level[:room]
        self._asked.sort(key=lambda one: one[0].lower)
        return CompareIds(self._salt, [asked for asked, _ in self._asked])

    def take(self, reply: IdsCompared) -> None:
        """Learn from the reply to the latest request.

        Raises:
            RemoteProtocolError: no honest partner answers so. What was found until then stays.
        """
        asked, self._asked = self._asked, []
        if len(reply.answers) > len(asked):
            raise RemoteProtocolError("more answers about ids than questions")
        for one, depth in asked[len(reply.answers) :]:
            self._pending[depth].append(one)
        for (one, depth), said in zip(asked, reply.answers, strict=False):
            if isinstance(said, Listed):
                self._compare(one, said.ids)
            elif isinstance(said, Split):
                self._descend(one, depth + 1, said.parts)
            elif not one.fingerprint:
                raise RemoteProtocolError("a range of ids that differs is said to be the same")

    def _compare(self, asked: Asked, listed: bytes) -> None:
        theirs = [listed[place : place + HASH_BYTES] for place in range(0, len(listed), HASH_BYTES)]
        if len(listed) % HASH_BYTES or not all(a < b for a, b in pairwise(theirs)):
            raise RemoteProtocolError("listed ids that are not whole or do not ascend")
        if theirs and (theirs[0] < asked.lower or (asked.upper and theirs[-1] >= asked.upper)):
            raise RemoteProtocolError("listed ids that lie outside their range")
        others = set(theirs)
        first, end = self._held.span(asked.lower, asked.upper)
        self._note_extra([id_ for id_ in self._own(first, end, len(theirs)) if id_ not in others])
        self.wanted += [id_ for id_ in theirs if id_ not in self._held]

    def _descend(self, asked: Asked, depth: int, parts: list[Part]) -> None:
        if depth > MAX_DEPTH:
            raise RemoteProtocolError("a range of ids is cut more often than any set needs")
        lower = asked.lower
        for part in parts[:-1]:
            if part.upper <= lower or (asked.upper and part.upper >= asked.upper):
                raise RemoteProtocolError("parts of a range of ids that do not ascend within it")
            lower = part.upper
        if parts[-1].upper != asked.upper:
            raise RemoteProtocolError("parts of a range of ids that do not end where it ends")
        lower = asked.lower
        for part in parts:
            first, end = self._held.span(lower, part.upper)
            if not part.count:
                self._note_extra(self._own(first, end, 0))
            elif part.count != end - first or part.fingerprint != self._held.fingerprint(self._salt, first, end):
                self._pending[depth].append(Asked(lower, part.upper))
            lower = part.upper

    def _own(self, first: int, end: int, known: int) -> list[bytes]:
        """Own ids by rank, no more than can be noted when the partner has ``known`` of them."""
        room = MAX_FOUND - len(self.extra) + known + 1
        return [self._held.at(rank) for rank in range(first, min(end, first + room))]

    def _note_extra(self, ids: list[bytes]) -> None:
        room = MAX_FOUND - len(self.extra)
        self.extra += ids[:room]
        self.complete = self.complete and len(ids) <= room
