"""Gossip between simulated peers: gossipsub v1.1 message by message, as the production node runs py-libp2p's.

A peer has a mesh: some of the peers that it is connected with. What it hears for the first time it sends on to its
mesh. Once a second it looks after the mesh and tells some others what it heard lately (IHAVE), who then ask for what
they lack (IWANT). The rules, of which each stands in libp2p's specification unless it says otherwise:

- below ``low`` mesh peers it grafts others up to ``degree``; above ``high`` it prunes down to ``degree``.
- py-libp2p: with ``low`` or more it still grafts up to ``eager_grafts`` at each heartbeat. (This is meant for peers
  of a better score; where nobody scores, all have the same, and that is good enough for it.) So a mesh has all
  connections up to ``high``.
- who was pruned does not graft for ``back_off_s``, and prunes whoever grafts meanwhile. py-libp2p: who prunes at a
  heartbeat does not remember it, grafts again soon, is refused, and only then keeps the time.
- py-libp2p: who is in back-off is not told by IHAVE either.
- py-libp2p: to a peer that subscribes, what was heard lately is sent at once.

All nodes subscribe to the same topics, so that one mesh stands for all of them. Heartbeats begin at one of a hundred
times in each second, and all of one time share an event; one that would find nothing to do costs a look at an array.
What would tell a peer nothing new (a second copy, an IHAVE of what it has) is counted as sent, but makes no event.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sparkle_sim.costs import HEARING, PASSING
from sparkle_sim.draws import Draws, draws
from sparkle_sim.kernel import MS, SECOND, Kernel
from sparkle_sim.network import Network

PHASES = 100  # heartbeats begin at one of so many times in each interval
FOREVER = (1 << 63) - 1
OLDEST = 255  # greatest age in seconds that is told apart; by then no message is under way


@dataclass(frozen=True, slots=True)
class GossipParameters:
    """What the node sets (``sparkle_p2p.net.libp2p.gossip``), and what the library does.

    Args:
        degree: mesh peers that are aimed at. Set by the node.
        low: fewest mesh peers. Set by the node.
        high: most mesh peers. Set by the node.
        heartbeat_s: time between heartbeats. Set by the node.
        window: heartbeats for which a message is told by IHAVE. Set by the node.
        history: heartbeats for which it is there for IWANT. Set by the node.
        lazy_degree: least number of peers that are told by IHAVE. The library's.
        lazy_share: or this share of those outside of the mesh. The library's.
        back_off_s: the library's, and the specification's.
        eager_grafts: the library's; the specification has none while nobody scores.
        pruner_backs_off: the specification says so, the library does not do it.
        seen_s: how long a message is known after it was heard the last time. The library's.
        max_kept: messages kept for IWANT; the oldest go first. The library has no bound.
        max_backing_off: peers in back-off; the oldest are forgotten first. The library has no bound.
    """

    degree: int = 6
    low: int = 4
    high: int = 12
    heartbeat_s: float = 1.0
    window: int = 3
    history: int = 5
    lazy_degree: int = 6
    lazy_share: float = 0.25
    back_off_s: float = 60.0
    eager_grafts: int = 2
    pruner_backs_off: bool = False
    seen_s: int = 120
    max_kept: int = 512
    max_backing_off: int = 256


class Listeners(Protocol):
    """Who hears what is said."""

    def gossiped(self, peer: int, topic: str, author: int, payload: bytes) -> None:
        """A message came."""
        ...


class _Message:
    """One for all who have it. ``seen`` has a byte for each peer: the message's age there, 0 if it never came."""

    __slots__ = ("at_ns", "author", "payload", "seen", "topic")

    def __init__(self, at_ns: int, author: int, topic: str, payload: bytes, peers: int) -> None:
        self.at_ns = at_ns
        self.author = author
        self.topic = topic
        self.payload = payload
        self.seen = bytearray(peers)


class _Node:
    """What one peer knows while its process runs."""

    __slots__ = ("backing_off", "kept", "known", "mesh", "phase", "since_ns")

    def __init__(self, phase: int, since_ns: int) -> None:
        self.phase = phase
        self.since_ns = since_ns
        self.known = array("i")  # connected peers whose subscription came
        self.mesh: list[int] = []
        self.kept: list[tuple[int, _Message]] = []  # with the number of the heartbeat before
        self.backing_off: dict[int, int] | None = None  # until when

    def outside(self) -> list[int]:
        """The known ones that are not in the mesh. Those who know thousands are asked seldom."""
        mesh = self.mesh
        return [other for other in self.known if other not in mesh]


class Gossip:
    """Peers are numbers here; everybody hears every topic.

    ``begin`` and ``end`` say when a peer's process starts and ends; between them ``link_up`` and ``link_down`` what
    it is connected with. ``heartbeats``, ``messages`` and ``controls`` count what was done and sent.
    """

    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        listeners: Listeners,
        seed: int,
        parameters: GossipParameters | None = None,
    ) -> None:
        count = len(network.places)
        self.parameters = parameters or GossipParameters()
        self.heartbeats = self.messages = self.controls = 0
        self._kernel = kernel
        self._network = network
        self._listeners = listeners
        self._nodes: list[_Node | None] = [None] * count
        self._wake = array("q", bytes(8 * count))  # a heartbeat before this time finds nothing to do
        self._phases: list[list[int]] = [[] for _ in range(PHASES)]
        self._beating = bytearray(PHASES)
        self._interval_ns = int(self.parameters.heartbeat_s * SECOND)
        self._draws: list[Draws] = [draws(seed, peer, "gossip") for peer in range(count)]

    # --- peers and connections --------------------------------------------------------------------------------

    def begin(self, peer: int) -> None:
        """A process starts; it knows nothing."""
        self.end(peer)
        phase = self._draws[peer].below(PHASES)
        self._nodes[peer] = _Node(phase, self._kernel.now)
        self._wake[peer] = FOREVER
        self._phases[phase].append(peer)
        if not self._beating[phase]:
            self._beating[phase] = True
            beat = self._beats(phase) + 1
            self._kernel.at(beat * self._interval_ns + self._offset(phase), self._pulse, phase)

    def end(self, peer: int) -> None:
        """A process ends."""
        node = self._nodes[peer]
        if node is not None:
            self._phases[node.phase].remove(peer)
            self._nodes[peer] = None

    def link_up(self, peer: int, other: int) -> None:
        """A connection stands; the other end opens a stream over it and says what it subscribes to."""
        network = self._network
        wait_ns = 2 * network.delay_ns(other, peer) + network.delay_ns(peer, other)
        self._kernel.after(wait_ns, self._subscribed, peer, other)

    def link_down(self, peer: int, other: int) -> None:
        """A connection is gone."""
        node = self._nodes[peer]
        if node is None:
            return
        if other in node.known:
            node.known.remove(other)
        if other in node.mesh:
            node.mesh.remove(other)
        self._wake[peer] = 0

    def _subscribed(self, peer: int, other: int) -> None:
        node = self._nodes[peer]
        if node is None or other not in self._network.links[peer] or other in node.known:
            return
        node.known.append(other)
        self._wake[peer] = 0
        beats = self._beats(node.phase)
        for beat, message in node.kept:
            if beats - beat < self.parameters.window:
                self._pass_on(peer, other, message, 0)
        if len(node.mesh) < self.parameters.low and other not in node.mesh and not self._waits(node, other):
            node.mesh.append(other)
            self._control(peer, other, self._grafted)

    def mesh(self, peer: int) -> tuple[int, ...]:
        """Whom a peer sends on what it hears."""
        node = self._nodes[peer]
        return tuple(node.mesh) if node is not None else ()

    # --- messages ---------------------------------------------------------------------------------------------

    def publish(self, peer: int, topic: str, payload: bytes) -> None:
        """Say something to all; best effort."""
        node = self._nodes[peer]
        if node is not None:
            message = _Message(self._kernel.now, peer, topic, payload, len(self._nodes))
            self._is_new(peer, message)
            self._spread(peer, node, peer, message)

    def _arrive(self, peer: int, source: int, message: _Message) -> None:
        node, network = self._nodes[peer], self._network
        if network.suspended and network.defers(peer, self._arrive, peer, source, message):
            return
        if node is None or source not in network.links[peer]:  # what was under way is lost with a connection
            return
        if self._is_new(peer, message):
            self._spread(peer, node, source, message)
            if message.author != peer:
                self._listeners.gossiped(peer, message.topic, message.author, message.payload)

    def _knows(self, peer: int, message: _Message) -> bool:
        """Whether this process heard it in the last ``seen_s``."""
        node, seen = self._nodes[peer], message.seen[peer]
        if not seen or node is None or message.at_ns + seen * SECOND < node.since_ns:
            return False
        return (self._kernel.now - message.at_ns) // SECOND + 1 - seen <= self.parameters.seen_s

    def _is_new(self, peer: int, message: _Message) -> bool:
        """Whether it does not know it; from now on it does."""
        known = self._knows(peer, message)
        message.seen[peer] = min(OLDEST, (self._kernel.now - message.at_ns) // SECOND + 1)
        return not known

    def _spread(self, peer: int, node: _Node, source: int, message: _Message) -> None:
        node.kept.append((self._beats(node.phase), message))
        if len(node.kept) > self.parameters.max_kept:
            del node.kept[0]
        self._wake[peer] = 0
        random = self._draws[peer]
        passing_ns, threads = PASSING.draw(random), self._network.threads
        handling_ns = threads.take(peer, passing_ns)
        threads.take(peer, max(0, HEARING.draw(random) - passing_ns))  # other copies, and what is left to send
        for other in node.mesh:
            if other not in (source, message.author):
                self._pass_on(peer, other, message, handling_ns)

    def _pass_on(self, peer: int, other: int, message: _Message, handling_ns: int) -> None:
        self.messages += 1
        network = self._network
        if not self._knows(other, message) and network.carries(peer, other):
            delay_ns = handling_ns + network.delay_ns(peer, other)
            self._kernel.after(delay_ns, self._arrive, other, peer, message)

    # --- heartbeats -------------------------------------------------------------------------------------------

    def _offset(self, phase: int) -> int:
        return phase * self._interval_ns // PHASES

    def _beats(self, phase: int) -> int:
        """Heartbeats of this phase so far, the present one included."""
        return (self._kernel.now - self._offset(phase)) // self._interval_ns

    def _pulse(self, phase: int) -> None:
        """A heartbeat of all peers of a phase."""
        peers = self._phases[phase]
        if not peers:
            self._beating[phase] = False
            return
        self.heartbeats += len(peers)
        now, wake, suspended = self._kernel.now, self._wake, self._network.suspended
        for peer in peers:
            if wake[peer] <= now and peer not in suspended:
                self._heartbeat(peer)
        self._kernel.after(self._interval_ns, self._pulse, phase)

    def _heartbeat(self, peer: int) -> None:
        node, rules = self._nodes[peer], self.parameters
        if node is None:
            return
        size = len(node.mesh)
        if node.backing_off is not None:
            self._forget_back_offs(node)
        wanted = rules.degree - size if size < rules.low else rules.eager_grafts
        for other in self._choose(peer, self._free(node), wanted) if wanted else ():
            node.mesh.append(other)
            self._control(peer, other, self._grafted)
        if size > rules.high:
            self._shed(peer, node, size - rules.degree)
        if node.kept:
            self._tell(peer, node)
        self._wake[peer] = self._next_need(node)

    def _free(self, node: _Node) -> list[int]:
        """Whom it could graft."""
        waits, now = node.backing_off, self._kernel.now
        if waits is None:
            return node.outside()
        return [other for other in node.outside() if waits.get(other, 0) <= now]

    def _shed(self, peer: int, node: _Node, count: int) -> None:
        """Prune some."""
        for other in self._choose(peer, list(node.mesh), count):
            node.mesh.remove(other)
            if self.parameters.pruner_backs_off:
                self._back_off(node, other)
            self._control(peer, other, self._pruned)

    def _tell(self, peer: int, node: _Node) -> None:
        """IHAVE to some outside of the mesh; then what is too old is forgotten."""
        rules, beat = self.parameters, self._beats(node.phase)
        recent = tuple(message for since, message in node.kept if beat - since <= rules.window)
        if recent:
            count = max(rules.lazy_degree, int((len(node.known) - len(node.mesh)) * rules.lazy_share))
            for other in self._choose(peer, self._free(node), count):
                if all(self._knows(other, message) for message in recent):
                    self.controls += 1
                else:
                    self._control(peer, other, self._told, recent)
        if beat - node.kept[0][0] >= rules.history:
            node.kept = [one for one in node.kept if beat - one[0] < rules.history]

    def _next_need(self, node: _Node) -> int:
        """When a heartbeat has something to do again, if nothing happens until then."""
        size = len(node.mesh)
        if node.kept or size > self.parameters.high:
            return 0
        if size >= self.parameters.low and not self.parameters.eager_grafts:
            return FOREVER
        waits = node.backing_off or {}
        return min([waits.get(other, 0) for other in node.outside()], default=FOREVER)

    def _choose(self, peer: int, pool: list[int], count: int) -> list[int]:
        """Some of them at random; the pool is used up."""
        if count >= len(pool):
            return pool
        random = self._draws[peer]
        chosen = []
        for _ in range(count):
            position = random.below(len(pool))
            chosen.append(pool[position])
            pool[position] = pool[-1]
            pool.pop()
        return chosen

    # --- control messages -------------------------------------------------------------------------------------

    def _control(self, peer: int, other: int, call: Callable[..., None], *arguments: Any) -> None:
        self.controls += 1
        self._network.send(peer, other, self._controlled, other, peer, call, arguments)

    def _controlled(self, peer: int, source: int, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        node = self._nodes[peer]
        if node is not None and source in self._network.links[peer]:
            call(peer, node, source, *arguments)

    def _grafted(self, peer: int, node: _Node, source: int) -> None:
        if self._waits(node, source):
            self._back_off(node, source)
            self._control(peer, source, self._pruned)
        elif source not in node.mesh:
            node.mesh.append(source)
            self._wake[peer] = 0

    def _pruned(self, peer: int, node: _Node, source: int) -> None:
        self._back_off(node, source)
        if source in node.mesh:
            node.mesh.remove(source)
        self._wake[peer] = 0

    def _told(self, peer: int, _node: _Node, source: int, there: tuple[_Message, ...]) -> None:
        wanted = tuple(message for message in there if not self._knows(peer, message))
        if wanted:
            self._control(peer, source, self._asked, wanted)

    def _asked(self, peer: int, node: _Node, source: int, wanted: tuple[_Message, ...]) -> None:
        for _, message in node.kept:
            if message in wanted:
                self._pass_on(peer, source, message, 0)

    # --- back-off ---------------------------------------------------------------------------------------------

    def _back_off(self, node: _Node, other: int) -> None:
        if node.backing_off is None:
            node.backing_off = {}
        waits = node.backing_off
        waits.pop(other, None)
        waits[other] = self._kernel.now + int(self.parameters.back_off_s * 1000) * MS
        if len(waits) > self.parameters.max_backing_off:
            del waits[next(iter(waits))]

    def _waits(self, node: _Node, other: int) -> bool:
        """Whether a peer is in back-off."""
        return node.backing_off is not None and node.backing_off.get(other, 0) > self._kernel.now

    def _forget_back_offs(self, node: _Node) -> None:
        """Those that are over; they lie in the order in which they end."""
        waits, now = node.backing_off, self._kernel.now
        while waits:
            other = next(iter(waits))
            if waits[other] > now:
                return
            del waits[other]
        node.backing_off = None
