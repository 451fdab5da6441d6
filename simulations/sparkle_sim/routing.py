"""Finding peers near a key, and who provides one: Kademlia message by message, behind the node's own time-outs.

``tables.py`` has what each peer knows, ``lookups.py`` how it asks others, here is what the node wants of it. What
goes wrong is what goes wrong in production:

- who does not answer in time (because it is gone, the question was lost, or it hangs) holds up its round of a lookup,
  is taken out of the table and left out of results for a minute; but others, who still have it, tell of it again.
- a lookup that takes too long is cut: the answer is what the table knows, and who is connected.
- a lookup ends when a round brought nobody nearer, though those that it did not ask may know of nearer ones.

Provider records lie with the peers nearest to the key for a quarter of an hour. Who provides says so again and again;
nobody else repeats it.
"""

from array import array
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Protocol

import base58

from sparkle_protocol.ids import PeerId
from sparkle_sim.draws import Draws, draws
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.lookups import Asking, Found, Lookups, RoutingParameters
from sparkle_sim.network import Network
from sparkle_sim.tables import Tables

_SHA256 = b"\x12\x20"  # begins a multihash: a provider record lies under that of its key


class Present(Protocol):
    """Who is there."""

    def is_up(self, peer: int) -> bool:
        """Whether its process runs."""
        ...


class _Announcement(Asking):
    """A peer says that it provides a key."""

    __slots__ = ("_key", "_peer", "_routing")

    def __init__(self, routing: "Routing", peer: int, key: bytes, until_ns: int) -> None:
        super().__init__()
        self._routing = routing
        self._peer = peer
        self._key = key
        self.until_ns = until_ns

    def waits(self, other: int) -> bool:
        """Always."""
        return True

    def serve(self, other: int) -> "array[int]":
        """It takes the record."""
        self._routing.keep(other, self._key, self._peer)
        return array("i")

    def answered(self, other: int, answer: "array[int]") -> None:
        """It has it."""

    def failed(self, other: int) -> None:
        """It is left out from now on."""
        self._routing.lookups.banish(self._peer, other)


class _Search(Asking):
    """Questions for the providers of a key."""

    __slots__ = ("_routing", "found", "key", "life", "over", "peer", "tell", "waiting")

    def __init__(
        self, routing: "Routing", peer: int, life: int, key: bytes, found: dict[int, None], tell: Found
    ) -> None:
        super().__init__()
        self._routing = routing
        self.peer = peer
        self.life = life
        self.key = key
        self.found = found
        self.tell = tell
        self.waiting: dict[int, None] = {}
        self.over = False

    def waits(self, other: int) -> bool:
        """Whether its answer is among those that lack."""
        return other in self.waiting

    def serve(self, other: int) -> "array[int]":
        """Providers of which it has records."""
        return array("i", self._routing.recorded(other, self.key))

    def answered(self, other: int, answer: "array[int]") -> None:
        """They are found."""
        if other in self.waiting:
            self.found.update(dict.fromkeys(answer))
            self._routing.drop(self, other)

    def failed(self, other: int) -> None:
        """It is left out from now on."""
        if other in self.waiting:
            self._routing.lookups.banish(self.peer, other)
            self._routing.drop(self, other)


class Routing:
    """Peers are numbers here.

    ``begin`` and ``end`` say when a peer's process starts and ends; between them ``link_up`` and ``link_down`` what
    it is connected with.
    """

    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        present: Present,
        ids: Sequence[PeerId],
        seed: int,
        parameters: RoutingParameters | None = None,
    ) -> None:
        self.parameters = rules = parameters or RoutingParameters()
        self._kernel = kernel
        self._network = network
        self._present = present
        self._draws: list[Draws] = [draws(seed, peer, "routing") for peer in range(len(ids))]
        places = [_place(base58.b58decode(peer)) for peer in ids]
        self.tables = Tables(places, max(rules.bucket_size, rules.bucket_room), self._draws, present.is_up)
        self.lookups = Lookups(kernel, network, self.tables, self._draws, rules)
        self._lived = bytearray(len(ids))  # who was here before
        self._records: dict[int, dict[bytes, dict[int, int]]] = {}  # by peer and key: providers, until when

    # --- peers and connections --------------------------------------------------------------------------------

    def begin(self, peer: int) -> None:
        """A process starts."""
        self.end(peer)
        self.lookups.begin(peer)
        if self.parameters.primed and not self._lived[peer]:
            self.tables.prime_when_needed(peer, self.parameters.primed_gone)
        self._lived[peer] = True
        if self.parameters.refresh_s:
            wait_s = self._draws[peer].uniform(0.0, self.parameters.refresh_s)
            self._kernel.after(int(wait_s * SECOND), self._refresh, peer, self.lookups.life(peer))

    def end(self, peer: int) -> None:
        """A process ends: what it knew is gone, and nobody gets its answers."""
        self.lookups.end(peer)
        self.tables.clear(peer)
        self._records.pop(peer, None)

    def link_up(self, peer: int, other: int) -> None:
        """A connection stands: the other end is one to ask. For it, the oldest of a full bucket is pinged."""
        self.lookups.pardon(peer, other)
        oldest = self.tables.add(peer, other)
        if oldest is None or oldest in self._network.links[peer]:
            return
        wait_ns = int(self.parameters.query_s * SECOND)
        if self._present.is_up(oldest):
            wait_ns = self._network.delay_ns(peer, oldest) + self._network.delay_ns(oldest, peer)
        self._kernel.after(wait_ns, self._pinged, peer, self.lookups.life(peer), oldest, other)

    def link_down(self, peer: int, other: int) -> None:
        """A connection is gone, and with it the reason to ask that peer."""
        self.tables.remove(peer, other)

    def _pinged(self, peer: int, life: int, oldest: int, other: int) -> None:
        """The place of a peer that does not answer goes to one that is connected."""
        if self.lookups.life(peer) == life and other in self._network.links[peer]:
            if not self._present.is_up(oldest):
                self.tables.remove(peer, oldest)
            self.tables.add(peer, other)

    def _refresh(self, peer: int, life: int) -> None:
        """Look up itself and a place in each bucket, one after the other."""
        if self.lookups.life(peer) != life:
            return
        self._kernel.after(int(self.parameters.refresh_s * SECOND), self._refresh, peer, life)
        self._go_on(peer, [self.tables.places[peer], *self.tables.places_in_buckets(peer)], [])

    def _go_on(self, peer: int, places: list[int], _: list[int]) -> None:
        """Look up what is left, the last one first."""
        if places:
            place = places.pop()
            self.lookups.look_up(peer, place, self.parameters.lookup_s, partial(self._go_on, peer, places))

    # --- what the node asks for -------------------------------------------------------------------------------

    def closest(self, peer: int, key: bytes, count: int, found: Found) -> None:
        """Tell the peers nearest to a key, nearest first: those found in time, those connected, the peer itself."""
        place = _place(key)
        done = partial(self._closest, peer, place, count, found)
        self.lookups.look_up(peer, place, self.parameters.lookup_s, done)

    def _closest(self, peer: int, place: int, count: int, found: Found, near: list[int]) -> None:
        if not near:
            near = self.tables.nearest(peer, place, self.parameters.bucket_size)
        candidates = dict.fromkeys(one for one in near if not self.lookups.is_banished(peer, one))
        candidates.update(dict.fromkeys(self._network.links[peer]))
        candidates[peer] = None
        found(self.tables.sort(place, candidates)[:count])

    def provide(self, peer: int, key: bytes) -> None:
        """Announce to the peers nearest to a key that a peer provides it."""
        if not self.lookups.life(peer):
            return
        until_ns = self._kernel.now + int(self.parameters.lookup_s * SECOND)
        self.keep(peer, key, peer)
        done = partial(self._announce, peer, _Announcement(self, peer, key, until_ns))
        self.lookups.look_up(peer, _record_place(key), self.parameters.lookup_s, done)

    def _announce(self, peer: int, announcement: _Announcement, near: list[int]) -> None:
        for other in near:
            in_time = self._kernel.now < announcement.until_ns
            if other != peer and not self.lookups.is_banished(peer, other) and in_time:
                self.lookups.ask(peer, other, announcement)

    def providers(self, peer: int, key: bytes, found: Found) -> None:
        """Tell who provides a key, as far as it is known here or the nearest peers say so in time."""
        life = self.lookups.life(peer)
        if not life:
            return
        search = _Search(self, peer, life, key, dict.fromkeys(self.recorded(peer, key)), found)
        self._kernel.after(int(self.parameters.lookup_s * SECOND), self._finish, search)
        self.lookups.look_up(peer, _record_place(key), self.parameters.lookup_s, partial(self._search, search))

    def _search(self, search: _Search, near: list[int]) -> None:
        peer, banished = search.peer, self.lookups.is_banished
        search.waiting = dict.fromkeys(
            one for one in near[: self.parameters.asked] if one != peer and not banished(peer, one)
        )
        if search.over or not search.waiting:
            self._finish(search)
            return
        search.until_ns = self._kernel.now + int(self.parameters.query_s * SECOND)
        self._kernel.at(search.until_ns, self._late, search)
        for other in list(search.waiting):
            self.lookups.ask(peer, other, search)

    def drop(self, search: _Search, other: int) -> None:
        """It does not wait for a peer any more."""
        del search.waiting[other]
        if not search.waiting:
            self._finish(search)

    def _late(self, search: _Search) -> None:
        """Who has not answered yet will not."""
        if self.lookups.life(search.peer) == search.life:
            for other in search.waiting:
                self.lookups.banish(search.peer, other)
            search.waiting = {}
            self._finish(search)

    def _finish(self, search: _Search) -> None:
        if not search.over and self.lookups.life(search.peer) == search.life:
            search.over = True
            search.tell(list(search.found)[: self.parameters.max_found])

    # --- provider records -------------------------------------------------------------------------------------

    def keep(self, peer: int, key: bytes, provider: int) -> None:
        """A peer takes a record."""
        keys = self._records.setdefault(peer, {})
        self.recorded(peer, key)  # forgets those that have expired
        providers = keys.setdefault(key, {})
        if provider not in providers and len(providers) >= self.parameters.max_providers:
            return
        providers[provider] = self._kernel.now + int(self.parameters.provided_s * SECOND)
        if len(keys) > self.parameters.max_keys:
            del keys[next(iter(keys))]

    def recorded(self, peer: int, key: bytes) -> list[int]:
        """Providers that a peer has records of."""
        keys, now = self._records.get(peer), self._kernel.now
        if keys is None or key not in keys:
            return []
        keys[key] = there = {one: until_ns for one, until_ns in keys[key].items() if until_ns > now}
        if not there:
            del keys[key]
        return list(there)


def _place(key: bytes) -> int:
    """Where a key lies."""
    return int.from_bytes(sha256(key).digest()[:8], "big")


def _record_place(key: bytes) -> int:
    """Where the provider records of a key lie: those of its multihash."""
    return _place(_SHA256 + sha256(key).digest())
