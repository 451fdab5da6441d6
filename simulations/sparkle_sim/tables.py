"""Routing tables of Kademlia for many peers, in a kilobyte or two each.

A peer's bucket i has peers whose place has the first i bits in common with its own, and not the next one; at most
``size`` of them, in the order in which they were heard of last. (py-libp2p splits any full bucket, not only that of
the peer's own place, until there are 256 of them: in a network of some thousands its tables are larger than these,
and each of its refreshes asks for a place in every bucket.)

Places are the first 64 bits of SHA-256: no two of a million peers are likely to have the same.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from sparkle_sim.draws import Draws

BITS = 64
DEPTH = 32  # buckets; the last one has all that are nearer
TRIES = 3  # a primed bucket is filled from so many times its size

_Table: TypeAlias = "list[array[int] | None]"


class Tables:
    """Peers are numbers here, and their places known to all.

    Args:
        places: of the peers.
        size: of a bucket.
        random: each peer's.
        is_up: whether a peer's process runs.
    """

    def __init__(
        self, places: Sequence[int], size: int, random: Sequence[Draws], is_up: Callable[[int], bool]
    ) -> None:
        self.places = places
        self._size = size
        self._draws = random
        self._is_up = is_up
        self._tables: list[_Table | None] = [None] * len(places)
        self._gone: dict[int, float] = {}  # who is to be primed, and with what share of those who are not there
        self._order: list[int] = []  # all peers by their places, as soon as somebody is primed
        self._ordered: list[int] = []  # and these places

    def clear(self, peer: int) -> None:
        """Forget everything."""
        self._tables[peer] = None
        self._gone.pop(peer, None)

    def add(self, peer: int, other: int) -> int | None:
        """Keep a peer as the one heard of last; if its bucket is full, tell who was heard of first there."""
        bucket = self._bucket(peer, other)
        try:
            bucket.remove(other)
        except ValueError:
            if len(bucket) >= self._size:
                return bucket[0]
        bucket.append(other)
        return None

    def hear(self, peer: int, others: Iterable[int]) -> None:
        """Keep those for whom there is room."""
        table = self._tables[peer]
        if table is None:
            table = self._tables[peer] = []
        places, size, own, last = self.places, self._size, self.places[peer], DEPTH - 1
        for other in others:
            if other == peer:
                continue
            depth = BITS - (own ^ places[other]).bit_length()
            bucket = table[depth if depth < last else last] if depth < len(table) else None
            if bucket is None:
                self._bucket(peer, other).append(other)
            elif len(bucket) < size and other not in bucket:
                bucket.append(other)

    def remove(self, peer: int, other: int) -> None:
        """Forget a peer."""
        table, depth = self._tables[peer], self._depth(peer, self.places[other])
        bucket = table[depth] if table is not None and depth < len(table) else None
        if bucket is not None and other in bucket:
            bucket.remove(other)

    def known(self, peer: int) -> list[int]:
        """All that it has."""
        return [other for bucket in self._table(peer) if bucket for other in bucket]

    def nearest(self, peer: int, place: int, count: int) -> list[int]:
        """Those nearest to a place, nearest first."""
        return self.sort(place, self.near(peer, place, count))

    def near(self, peer: int, place: int, count: int) -> "array[int]":
        """The same in any order.

        The bucket that the place belongs to is nearer to it than all deeper ones, these are nearer than the one
        before it, and so on.
        """
        table = self._table(peer)
        depth = self._depth(peer, place)
        found = self._first(place, table[depth], count) if depth < len(table) else array("i")
        if len(found) < count:
            deeper = array("i", [one for bucket in table[depth + 1 :] if bucket for one in bucket])
            found += self._first(place, deeper, count - len(found))
        for bucket in reversed(table[:depth]):
            if len(found) >= count:
                break
            found += self._first(place, bucket, count - len(found))
        return found

    def _first(self, place: int, peers: "array[int] | None", count: int) -> "array[int]":
        """The nearest of them."""
        if peers is None:
            return array("i")
        return peers[:] if len(peers) <= count else array("i", self.sort(place, peers)[:count])

    def sort(self, place: int, peers: Iterable[int]) -> list[int]:
        """By their distance from a place, nearest first."""
        places = self.places
        return sorted(peers, key=lambda other: places[other] ^ place)

    def nearer(self, place: int, peers: Iterable[int], bound: int) -> list[int]:
        """Those that are nearer to a place than a peer."""
        places = self.places
        limit = places[bound] ^ place
        return [other for other in peers if places[other] ^ place < limit]

    def places_in_buckets(self, peer: int) -> list[int]:
        """A random place in the range of each bucket that has somebody."""
        own, random = self.places[peer], self._draws[peer]
        found = []
        for depth, bucket in enumerate(self._table(peer)):
            if bucket:
                rest = BITS - 1 - depth
                found.append(((own >> rest) ^ 1) << rest | random.bits() & ((1 << rest) - 1))
        return found

    # --- inside -----------------------------------------------------------------------------------------------

    def _depth(self, peer: int, place: int) -> int:
        return min(BITS - (self.places[peer] ^ place).bit_length(), DEPTH - 1)

    def _bucket(self, peer: int, other: int) -> "array[int]":
        """Where another peer belongs."""
        table = self._tables[peer]
        if table is None:
            table = self._tables[peer] = []
        depth = self._depth(peer, self.places[other])
        while len(table) <= depth:
            table.append(None)
        bucket = table[depth]
        if bucket is None:
            bucket = table[depth] = array("i")
        return bucket

    def _table(self, peer: int) -> _Table:
        if peer in self._gone:
            self._prime(peer, self._gone.pop(peer))
        return self._tables[peer] or []

    # --- tables as after a long time --------------------------------------------------------------------------

    def prime_when_needed(self, peer: int, gone: float) -> None:
        """When it is needed first, fill this table at random with the peers that are there.

        Of those who are not there, and would have been chosen, a share ``gone`` is in it too.
        """
        self._gone[peer] = gone

    def _prime(self, peer: int, gone: float) -> None:
        if not self._order:
            self._order = sorted(range(len(self.places)), key=lambda one: self.places[one])
            self._ordered = [self.places[one] for one in self._order]
        own, random = self.places[peer], self._draws[peer]
        for depth in range(DEPTH):
            rest = BITS - 1 - depth
            low = ((own >> rest) ^ 1) << rest
            begin = bisect_left(self._ordered, low)
            end = bisect_left(self._ordered, low + (1 << rest), begin)
            room = self._size
            for position in self._sample(random, begin, end):
                other = self._order[position]
                if self._is_up(other) or random.random() < gone:
                    self.hear(peer, (other,))
                    room -= 1
                if not room:
                    break
            own_low = (own >> rest) << rest
            first = bisect_left(self._ordered, own_low)
            if bisect_left(self._ordered, own_low + (1 << rest), first) - first <= 1:
                break

    def _sample(self, random: Draws, begin: int, end: int) -> Iterable[int]:
        """Different positions in a range, at random; all of them if they are few."""
        count = end - begin
        most = TRIES * self._size
        chosen: dict[int, None] = {}
        if count <= 2 * most:
            rest = list(range(begin, end))
            while rest and len(chosen) < most:
                position = random.below(len(rest))
                chosen[rest[position]] = None
                rest[position] = rest[-1]
                rest.pop()
            return chosen
        while len(chosen) < most:
            chosen[begin + random.below(count)] = None
        return chosen
