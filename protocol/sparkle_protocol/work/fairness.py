"""Whose unit is next at a keeper: start-time fair queueing by dominant resource share.

- Every submitter with units to hand out has a *start tag*; the least goes next and its tag grows by what it got,
  divided by its weight (Goyal, Vin and Cheng 1996). What it got is the dominant share of the unit (Ghodsi et al.
  2011): of arithmetic, memory times seconds and bytes, the one of which it takes the most seconds of all there is.
  So any two that both wait all the time differ, per weight, by at most one grant of each.
- Virtual time is the start tag last served. Who comes back from having nothing to hand out starts there: idling
  earns nothing. Who waits for workers that can run its kernels may fall behind by ``MAX_LAG`` and catch up later.
- Weight 0 means no credit: such submitters share the *lottery lane*, one pick in ten while others wait. Tickets go to
  networks, one each, and the submitters of the winning network are equally likely: more names win nothing.
- A job that does not pay what its work is worth (``Rules.pays``) is in that lane whoever submitted it: a submitter's
  free jobs queue under a name of their own.
- *Ageing*: who was not served for ``AGED_NS`` goes next, the longest waiting first, but only every fourth time, so
  that in a long queue weights still count. In the lottery lane it is the network that ages.

Tags are integers (nanoseconds of everything the workers have), so they never lose precision. Our own jobs are not in
the queue: that they come first is decided by the caller.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from math import isfinite
from random import Random
from typing import Literal, TypeVar

from sparkle_protocol.facts import Resources
from sparkle_protocol.ids import PeerId

LOTTERY_SHARE = 0.1
AGED_NS = 600 * 1_000_000_000  # longer than the patience of somebody who watches
AGED_EVERY = 4
MAX_LAG = 60 * 1_000_000_000  # a minute of all workers
LEAST_COST_S = 1e-4  # about what handing out and judging a unit costs, whatever it claims to need
MOST_COST_S = 86_400.0  # the default limit of a unit's execution
EQUAL_WEIGHT = 1.0
_FREE = "free/"
MAX_IDLE = 1024  # remembered without work; the one that got least goes first, as it has least to gain by it

Weigh = Callable[[PeerId], float]
Lane = Literal["fair", "aged", "lottery"]
Name = TypeVar("Name", bound=str)


def free_name(submitter: PeerId) -> PeerId:
    """The name under which a submitter's free jobs queue; it never has a weight."""
    return PeerId(f"{_FREE}{submitter}")


def equal_weight(_submitter: PeerId) -> float:
    """The default: everybody counts the same, and nobody is in the lottery lane."""
    return EQUAL_WEIGHT


@dataclass(frozen=True, slots=True)
class Capacity:
    """What all workers of a keeper have together; a guess serves, as only ratios count."""

    flops_per_s: float
    memory_bytes: float
    bytes_per_s: float
    slots: float  # units computed at a time


def dominant_share(resources: Resources, seconds: float, capacity: Capacity) -> float:
    """Seconds of all the capacity that one unit takes, of the resource of which it takes the most.

    ``seconds`` is how long a unit was seen to run, 0 while unknown. It counts beside the arithmetic that the
    submitter declared, so declaring little gains nothing for long.
    """
    return max(
        resources.flops / capacity.flops_per_s,
        seconds / capacity.slots,
        resources.memory_bytes * seconds / capacity.memory_bytes,
        resources.bytes / capacity.bytes_per_s,
    )


@dataclass(slots=True)
class Flow:
    """A submitter. ``tag`` is where its next unit starts in virtual time."""

    tag: int
    since_ns: int  # of being served last, or of having had nothing before
    turn: int = 0  # of being served last: among equal tags the one that waits longer goes first
    waiting: bool = True


class FairQueue:
    """Start tags of all submitters at one keeper."""

    def __init__(self, rng: Random, weigh: Weigh = equal_weight) -> None:
        self.rng = rng
        self._weigh = weigh
        self.flows: dict[PeerId, Flow] = {}
        self.networks: dict[str, int] = {}  # since when each was not served in the lottery lane
        self._virtual = 0
        self._turn = 0
        self._since_aged = 0

    def __len__(self) -> int:
        return len(self.flows)

    def begin(self, waiting: Mapping[PeerId, str], serves: Iterable[PeerId], now_ns: int) -> "Round":
        """Answer one request for work.

        Args:
            waiting: *all* submitters with units to hand out to whomever, each with its network
                (``placement.network_prefix``). Who is missing here is idle.
            serves: those of them with something for the worker that asks.
            now_ns: monotonic time.
        """
        self._wake(waiting, now_ns)
        able = {peer: self.flows[peer] for peer in serves if peer in waiting}
        weights = {peer: self.weight(peer) for peer in able}
        fair = {peer: flow for peer, flow in able.items() if weights[peer] > 0}
        self._limit_lag(fair)
        lottery = {peer: waiting[peer] for peer in able if peer not in fair}
        present = set(waiting.values())
        self.networks = {name: since for name, since in self.networks.items() if name in present}
        for name in lottery.values():
            self.networks.setdefault(name, now_ns)
        return Round(self, fair, lottery, now_ns)

    def copy(self, rng: Random) -> "FairQueue":
        """The queue as it stands, to see how it would go on."""
        copy = FairQueue(rng, self._weigh)
        copy.flows = {peer: replace(flow) for peer, flow in self.flows.items()}
        copy.networks = dict(self.networks)
        copy._virtual, copy._turn, copy._since_aged = self._virtual, self._turn, self._since_aged
        return copy

    def weight(self, submitter: PeerId) -> float:
        """What a submitter weighs now; 0: it is in the lottery lane."""
        weight = 0.0 if submitter.startswith(_FREE) else self._weigh(submitter)
        return weight if isfinite(weight) and weight > 0 else 0.0

    def _wake(self, waiting: Mapping[PeerId, str], now_ns: int) -> None:
        """Note who waits and who is idle; forget whoever would start as a newcomer does."""
        idle = [peer for peer in self.flows if peer not in waiting]
        if not waiting and idle:  # the end of a busy period: what was served in it is settled
            self._virtual = max(self._virtual, max(self.flows[peer].tag for peer in idle))
        for peer in idle:
            self.flows[peer].waiting = False
            if self.flows[peer].tag <= self._virtual:
                del self.flows[peer]
        spare = len(self.flows) - len(waiting.keys() & self.flows.keys()) - MAX_IDLE
        if spare > 0:
            rest = (peer for peer in idle if peer in self.flows)
            for peer in sorted(rest, key=lambda peer: (self.flows[peer].tag, peer))[:spare]:
                del self.flows[peer]
        for peer in waiting:
            flow = self.flows.get(peer)
            if flow is None:
                self.flows[peer] = Flow(self._virtual, now_ns)
            elif not flow.waiting:
                flow.waiting, flow.since_ns, flow.tag = True, now_ns, max(flow.tag, self._virtual)

    def _limit_lag(self, flows: Mapping[PeerId, Flow]) -> None:
        """Bring those far behind nearer, all by as much, so that among them nothing changes."""
        excess = self._virtual - MAX_LAG - min((flow.tag for flow in flows.values()), default=self._virtual)
        if excess > 0:
            for flow in flows.values():
                if flow.tag < self._virtual:
                    flow.tag = min(self._virtual, flow.tag + excess)

    def serve(self, submitter: PeerId, lane: Lane, cost_s: float, now_ns: int) -> None:
        """Count what a submitter got (``Round.charge`` does)."""
        flow = self.flows[submitter]
        if lane == "fair":  # others wait at lower tags when age or luck decided
            self._virtual = max(self._virtual, flow.tag)
        if lane != "lottery":
            flow.tag += self._cost(submitter, cost_s)
        self._turn += 1
        self._since_aged += lane != "aged"
        flow.since_ns, flow.turn = now_ns, self._turn

    def refund(self, submitter: PeerId, cost_s: float) -> None:
        """A unit came back untouched: its submitter did not get what it was charged for."""
        flow = self.flows.get(submitter)
        if flow is not None and flow.tag > self._virtual:
            flow.tag = max(self._virtual, flow.tag - self._cost(submitter, cost_s))

    def may_age(self) -> bool:
        """Whether the next pick may go by age; true every fourth time."""
        if self._since_aged < AGED_EVERY - 1:
            return False
        self._since_aged = 0
        return True

    def _cost(self, submitter: PeerId, cost_s: float) -> int:
        weight = self.weight(submitter)
        bounded = min(max(cost_s, LEAST_COST_S), MOST_COST_S)
        return max(1, int(bounded * 1e9 / weight)) if weight else 0


class Round:
    """The picks for one request. ``pick`` and ``charge`` take O(log n)."""

    def __init__(
        self, queue: FairQueue, fair: Mapping[PeerId, Flow], lottery: Mapping[PeerId, str], now_ns: int
    ) -> None:
        self._queue = queue
        self._now_ns = now_ns
        self._ready = set(fair)
        self._heap = [(flow.tag, flow.turn, peer) for peer, flow in fair.items()]
        heapify(self._heap)
        self._aged = _oldest_last({peer: flow.since_ns for peer, flow in fair.items()}, now_ns)
        self._networks: dict[str, list[PeerId]] = {}
        for peer in sorted(lottery):
            self._networks.setdefault(lottery[peer], []).append(peer)
        self._tickets = sorted(self._networks)  # one each; of a network without submitters it is void
        self._ticketed = set(self._tickets)
        self._aged_networks = _oldest_last({name: queue.networks[name] for name in self._tickets}, now_ns)
        self._picked: dict[PeerId, tuple[Lane, str]] = {}

    def pick(self) -> PeerId | None:
        """Whose turn it is; None when nobody is left. Who is not charged then has nothing more in this round."""
        while self._heap and self._heap[0] != self._entry(self._heap[0][2]):
            heappop(self._heap)
        if self._networks and (not self._heap or self._queue.rng.random() < LOTTERY_SHARE):
            network = self._next_aged(self._aged_networks, self._networks) or self._draw_network()
            peer = self._draw_submitter(network)
            self._picked[peer] = ("lottery", network)
            return peer
        if not self._heap:
            return None
        aged = self._next_aged(self._aged, self._ready)
        peer = aged or heappop(self._heap)[2]
        self._ready.discard(peer)
        self._picked[peer] = ("aged" if aged else "fair", "")
        return peer

    def charge(self, submitter: PeerId, cost_s: float) -> None:
        """The submitter just picked got units of this cost (sum of their dominant shares); it may be next again."""
        lane, network = self._picked.pop(submitter)
        self._queue.serve(submitter, lane, cost_s, self._now_ns)
        if lane == "lottery":
            self._queue.networks[network] = self._now_ns
            self._networks.setdefault(network, []).append(submitter)
            if network not in self._ticketed:
                self._ticketed.add(network)
                self._tickets.append(network)
        else:
            self._ready.add(submitter)
            heappush(self._heap, self._entry(submitter))

    def wait_anew(self, submitter: PeerId) -> None:
        """Whoever was just charged has not waited long any more; the next request finds that out by itself."""
        if submitter in self._aged:
            self._aged.remove(submitter)

    def _entry(self, peer: PeerId) -> tuple[int, int, PeerId]:
        """Its place in the heap; a place that nothing has while it is picked."""
        flow = self._queue.flows[peer]
        return flow.tag, flow.turn if peer in self._ready else -1, peer

    def _next_aged(self, oldest_last: list[Name], there: Container[Name]) -> Name | None:
        """Who goes first by age, if anybody, and if it is time for that again."""
        while oldest_last and oldest_last[-1] not in there:
            oldest_last.pop()
        return oldest_last.pop() if oldest_last and self._queue.may_age() else None

    def _draw_network(self) -> str:
        while True:
            network = _take(self._tickets, self._queue.rng)
            if network in self._networks:
                self._tickets.append(network)
                return network
            self._ticketed.discard(network)

    def _draw_submitter(self, network: str) -> PeerId:
        peer = _take(self._networks[network], self._queue.rng)
        if not self._networks[network]:
            del self._networks[network]
        return peer


def _oldest_last(since_ns: Mapping[Name, int], now_ns: int) -> list[Name]:
    """Those that waited too long, the longest waiting at the end."""
    aged = [(since, name) for name, since in since_ns.items() if now_ns - since >= AGED_NS]
    return [name for _, name in sorted(aged, reverse=True)]


def _take(items: list[Name], rng: Random) -> Name:
    """Remove any of them, each as likely as the others."""
    index = rng.randrange(len(items))
    items[index], items[-1] = items[-1], items[index]
    return items.pop()
