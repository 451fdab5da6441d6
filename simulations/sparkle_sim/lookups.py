"""Questions between simulated peers about who is near a place, and the lookups made of them.

A question goes over a new stream: a round trip to agree on the protocol, one for question and answer. Who is not
connected is dialled before; that connection is closed again, unless ``kept_links`` says otherwise. Either end keeps
the other in its table, if there is room. A question costs time of the thread at either end (``costs.py``).

Who asks gives up after a time, and the question is cancelled then: one that has not left by then never does, and
nobody hears an answer that would come later.

A lookup asks in rounds, as py-libp2p does: the ``alpha`` nearest that were not asked yet; when all have answered or
failed, the nearest of all that are known now; until a round changes nothing.
"""

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sparkle_sim.costs import ANSWERING, ASKING
from sparkle_sim.draws import Draws
from sparkle_sim.kernel import MS, SECOND, Kernel
from sparkle_sim.network import HANDSHAKE_TRIPS, PUNCH_SUCCESS, Network
from sparkle_sim.tables import Tables

Found = Callable[[list[int]], None]

ROUND = 32  # peers that are left out until one looks whose time is over
_WHO = 40  # one who is left out is one number: who it is, and in so many bits below until which millisecond
_UNTIL = (1 << _WHO) - 1
STREAM_TRIPS = 3  # one-way trips until a question is there: a round trip to agree on the protocol, and its own


@dataclass(frozen=True, slots=True)
class RoutingParameters:
    """What the node sets (``sparkle_p2p.net.libp2p.routing``), what the library does, and what was measured.

    Args:
        bucket_size: k of Kademlia: of buckets, of answers and of lookups. The specification's.
        bucket_room: of a bucket, if it is more. (py-libp2p splits full buckets; see ``tables.py``.)
        alpha: questions of a round. The specification's, and the library's.
        rounds: of a lookup at most. The library's.
        few: with fewer peers in its table a lookup begins with the connected ones too. The library's.
        query_s: time for one question, with dialling. Set by the node.
        banished_s: how long who did not answer is left out. Set by the node.
        max_banished: at most so many; the oldest are forgotten first. Set by the node.
        lookup_s: time for a whole lookup or announcement. Set by the node.
        asked: peers that are asked for providers. Set by the node.
        max_found: providers in an answer. Set by the node.
        provided_s: lifetime of provider records. Set by the node.
        max_providers: of one key at one peer; further ones are refused. The specification's.
        max_keys: with records at one peer; the oldest go first. The library has no bound.
        max_lookups: of one peer at a time; further ones get what its table knows. The library has no bound.
        refresh_s: a peer looks up itself and a place in each of its buckets so often; 0: never. The library has 600.
        hanging: share of questions to peers that are well which never get an answer. Recorded.
        kept_links: with fewer connections, a peer keeps those that its questions made. The library does so up to 300,
            which lets each node of a large network end there.
        primed: at their first start peers have tables as after a long time in the network.
        primed_gone: share of those who are not there that such a table has all the same. Assumed.
    """

    bucket_size: int = 20
    bucket_room: int = 0
    alpha: int = 10
    rounds: int = 20
    few: int = 5
    query_s: float = 1.5
    banished_s: float = 60.0
    max_banished: int = 1024
    lookup_s: float = 5.0
    asked: int = 8
    max_found: int = 8
    provided_s: float = 900.0
    max_providers: int = 20
    max_keys: int = 1024
    max_lookups: int = 32
    refresh_s: float = 600.0
    hanging: float = 0.0003
    kept_links: int = 0
    primed: bool = True
    primed_gone: float = 0.05


class Asking(ABC):
    """What is asked of several peers: what one says, and what follows from that."""

    __slots__ = ("until_ns",)

    def __init__(self) -> None:
        self.until_ns = 0  # when the present questions are given up

    @abstractmethod
    def waits(self, other: int) -> bool:
        """Whether the answer of one that was asked is still waited for."""

    @abstractmethod
    def serve(self, other: int) -> "array[int]":
        """What the peer that is asked says."""

    @abstractmethod
    def answered(self, other: int, answer: "array[int]") -> None:
        """It said this."""

    @abstractmethod
    def failed(self, other: int) -> None:
        """It cannot be reached."""


class _Lookup(Asking):
    """One on its way."""

    __slots__ = (
        "_lookups", "asked", "closest", "done", "fresh", "life", "over", "peer", "place", "rounds", "told",
        "waiting",
    )  # fmt: skip

    def __init__(self, lookups: "Lookups", peer: int, life: int, place: int, closest: list[int], done: Found) -> None:
        super().__init__()
        self._lookups = lookups
        self.peer = peer
        self.life = life
        self.place = place
        self.closest = closest
        self.done = done
        self.asked: dict[int, None] = {}
        self.waiting: dict[int, None] = {}  # whose answers the present round lacks
        self.fresh: dict[int, None] = {}  # whom the present round told of, and who may be among the nearest
        self.told = False  # of anybody
        self.rounds = 0
        self.over = False

    def waits(self, other: int) -> bool:
        """Whether the round waits for it."""
        return other in self.waiting

    def serve(self, other: int) -> "array[int]":
        """Those in its table that are nearest."""
        return self._lookups.serve(self, other)

    def answered(self, other: int, answer: "array[int]") -> None:
        """It told of others."""
        if other in self.waiting:
            self._lookups.told(self, other, answer)

    def failed(self, other: int) -> None:
        """It is left out from now on."""
        if other in self.waiting:
            self._lookups.banish(self.peer, other)
            self._lookups.drop(self, other)


class Lookups:
    """Peers are numbers here. ``queries`` counts questions, ``lookups`` and ``cut`` lookups and those out of time."""

    def __init__(
        self, kernel: Kernel, network: Network, tables: Tables, random: list[Draws], parameters: RoutingParameters
    ) -> None:
        self.queries = self.lookups = self.cut = 0
        self._kernel = kernel
        self._network = network
        self._tables = tables
        self._draws = random
        self._rules = parameters
        self._lives = array("q", bytes(8 * len(random)))  # 0: it does not run
        self._life = 0
        self._running = array("i", bytes(4 * len(random)))  # lookups
        self._banished: dict[int, array[int]] = {}  # by peer: in their order whom it leaves out, and until when

    def begin(self, peer: int) -> None:
        """A process starts."""
        self._life += 1
        self._lives[peer] = self._life
        self._running[peer] = 0

    def end(self, peer: int) -> None:
        """A process ends: nobody gets its answers."""
        self._lives[peer] = 0
        self._banished.pop(peer, None)

    def life(self, peer: int) -> int:
        """Of a peer's process; 0 if it does not run."""
        return self._lives[peer]

    # --- who is left out --------------------------------------------------------------------------------------

    def banish(self, peer: int, other: int) -> None:
        """Leave a peer out for a while."""
        banished, now_ms = self._banished.get(peer), self._kernel.now // MS
        if banished is None:
            banished = self._banished[peer] = array("q")
        if len(banished) % ROUND == ROUND - 1:  # now and then those whose time is over are forgotten
            banished = self._banished[peer] = array("q", [one for one in banished if one & _UNTIL > now_ms])
        entry = other << _WHO | now_ms + int(self._rules.banished_s * 1000)
        at = bisect_left(banished, other << _WHO)
        if at < len(banished) and banished[at] >> _WHO == other:
            banished[at] = entry
        else:
            banished.insert(at, entry)
            if len(banished) > self._rules.max_banished:
                banished.remove(min(banished, key=lambda one: one & _UNTIL))
        self._tables.remove(peer, other)

    def pardon(self, peer: int, other: int) -> None:
        """It is there after all."""
        at = self._found(peer, other)
        if at is not None:
            del self._banished[peer][at]

    def is_banished(self, peer: int, other: int) -> bool:
        """Whether a peer is left out."""
        at = self._found(peer, other)
        return at is not None and self._banished[peer][at] & _UNTIL > self._kernel.now // MS

    def _found(self, peer: int, other: int) -> int | None:
        """Where one is among those that a peer left out."""
        banished = self._banished.get(peer)
        if banished is None:
            return None
        at = bisect_left(banished, other << _WHO)
        return at if at < len(banished) and banished[at] >> _WHO == other else None

    # --- questions --------------------------------------------------------------------------------------------

    def ask(self, peer: int, other: int, asking: Asking) -> None:
        """Have ``asking`` told what the other one serves, or that it cannot be reached, or nothing."""
        self.queries += 1
        life, network = self._lives[peer], self._network
        if self._kernel.now + network.threads.wait_ns(peer) >= asking.until_ns:
            return
        if network.connected(peer, other):
            self._open(peer, other, life, 0, 0, asking)
        elif len(network.links[peer]) < self._rules.kept_links:
            network.dial(peer, other, partial(self._dialled, peer, other, life, asking))
        elif not network.answers(peer, other):
            return
        elif not self._lives[other]:
            self._kernel.after(network.refusal_ns(peer, other), self._dialled, peer, other, life, asking, False)
        else:
            both_hidden = (network.places[peer].nat, network.places[other].nat) in PUNCH_SUCCESS
            trips = 2 * HANDSHAKE_TRIPS * (2 if both_hidden else 1)
            self._open(peer, other, life, trips, network.dialling_ns(peer, other), asking)

    def _dialled(self, peer: int, other: int, life: int, asking: Asking, worked: bool) -> None:
        if self._lives[peer] == life:
            if worked:
                self._open(peer, other, life, 0, 0, asking)
            else:
                asking.failed(other)

    def _open(self, peer: int, other: int, life: int, trips: int, wait_ns: int, asking: Asking) -> None:
        """A new stream, after time and one-way trips for the connection; the delays of one exchange go together.

        All that a question costs the asker is done before it leaves: the next one waits for that.
        """
        network = self._network
        work_ns = ASKING.draw(self._draws[peer])
        wait_ns = max(wait_ns + work_ns, network.threads.take(peer, work_ns))
        if self._kernel.now + wait_ns < asking.until_ns and network.carries(peer, other):
            wait_ns += (trips + STREAM_TRIPS) * network.delay_ns(peer, other)
            self._kernel.after(wait_ns, self._serve, peer, other, life, asking)

    def _serve(self, peer: int, other: int, life: int, asking: Asking) -> None:
        network, random = self._network, self._draws[other]
        if network.suspended and network.defers(other, self._serve, peer, other, life, asking):
            return
        if not self._lives[other] or random.random() < self._rules.hanging:
            return
        if not asking.waits(other):
            return
        self._tables.hear(other, (peer,))
        answer = asking.serve(other)
        wait_ns = network.threads.take(other, ANSWERING.draw(random))
        if network.carries(other, peer):
            wait_ns += network.delay_ns(other, peer)
            if self._kernel.now + wait_ns < asking.until_ns:
                self._kernel.after(wait_ns, self._answered, peer, other, life, asking, answer)

    def _answered(self, peer: int, other: int, life: int, asking: Asking, answer: "array[int]") -> None:
        network = self._network
        if network.suspended and network.defers(peer, self._answered, peer, other, life, asking, answer):
            return
        if self._lives[peer] == life and asking.waits(other):
            self._tables.add(peer, other)
            asking.answered(other, answer)

    # --- lookups ----------------------------------------------------------------------------------------------

    def look_up(self, peer: int, place: int, limit_s: float, done: Found) -> None:
        """Have ``done`` called with the peers nearest to a place, nearest first; with none when the time is over.

        A process that ends meanwhile is not told anything.
        """
        life = self._lives[peer]
        if not life:
            return
        self.lookups += 1
        near = self._tables.nearest(peer, place, self._rules.bucket_size)
        if len(near) < self._rules.few:
            both = dict.fromkeys([*near, *self._network.links[peer]])
            near = self._tables.sort(place, both)[: self._rules.bucket_size]
        lookup = _Lookup(self, peer, life, place, near, done)
        if not near or self._running[peer] >= self._rules.max_lookups:
            lookup.over = True
            self._kernel.after(0, self._tell, lookup, near)
            return
        self._running[peer] += 1
        if limit_s:
            self._kernel.after(int(limit_s * SECOND), self._cut, lookup)
        self._round(lookup)

    def _round(self, lookup: _Lookup) -> None:
        """Ask the next ones."""
        peer = lookup.peer
        unasked = [one for one in lookup.closest if one not in lookup.asked and one != peer][: self._rules.alpha]
        if not unasked or lookup.rounds >= self._rules.rounds:
            self._finish(lookup, lookup.closest)
            return
        lookup.rounds += 1
        lookup.fresh, lookup.told = {}, False
        lookup.asked.update(dict.fromkeys(unasked))
        lookup.waiting = dict.fromkeys(one for one in unasked if not self.is_banished(peer, one))
        if not lookup.waiting:
            self._round_over(lookup)
            return
        lookup.until_ns = self._kernel.now + int(self._rules.query_s * SECOND)
        self._kernel.at(lookup.until_ns, self._late, lookup, lookup.rounds)
        for other in unasked:
            if other in lookup.waiting:
                self.ask(peer, other, lookup)

    def serve(self, lookup: _Lookup, other: int) -> "array[int]":
        """What a peer that is asked knows."""
        return self._tables.near(other, lookup.place, self._rules.bucket_size)

    def told(self, lookup: _Lookup, other: int, answer: "array[int]") -> None:
        """A peer that was asked told of some: kept are those that may be among the nearest."""
        self._tables.hear(lookup.peer, answer)
        near = [one for one in answer if one != lookup.peer]
        if near:
            lookup.told = True
            if len(lookup.closest) == self._rules.bucket_size:
                near = self._tables.nearer(lookup.place, near, lookup.closest[-1])
            lookup.fresh.update(dict.fromkeys(near))
        self.drop(lookup, other)

    def drop(self, lookup: _Lookup, other: int) -> None:
        """The present round does not wait for a peer any more."""
        del lookup.waiting[other]
        if not lookup.waiting:
            self._round_over(lookup)

    def _late(self, lookup: _Lookup, rounds: int) -> None:
        """Who has not answered yet will not."""
        if lookup.rounds != rounds or not lookup.waiting or self._lives[lookup.peer] != lookup.life:
            return
        for other in lookup.waiting:
            self.banish(lookup.peer, other)
        lookup.waiting = {}
        self._round_over(lookup)

    def _round_over(self, lookup: _Lookup) -> None:
        if lookup.over:
            return
        if lookup.told:
            both = {**dict.fromkeys(lookup.closest), **lookup.fresh}
            nearest = self._tables.sort(lookup.place, both)[: self._rules.bucket_size]
            if nearest == lookup.closest:
                self._finish(lookup, nearest)
                return
            lookup.closest = nearest
        self._round(lookup)

    def _cut(self, lookup: _Lookup) -> None:
        if not lookup.over:
            self.cut += 1
            lookup.waiting = {}
            self._finish(lookup, [])

    def _finish(self, lookup: _Lookup, found: list[int]) -> None:
        lookup.over = True
        lookup.closest, lookup.asked, lookup.fresh = [], {}, {}  # events hold it for some seconds yet
        if self._lives[lookup.peer] == lookup.life:
            self._running[lookup.peer] -= 1
            lookup.done(found)

    def _tell(self, lookup: _Lookup, found: list[int]) -> None:
        if self._lives[lookup.peer] == lookup.life:
            lookup.done(found)
