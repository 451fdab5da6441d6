"""All peers of a run, what connects them, and what they do."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sparkle_protocol.effects import Notify, Record, Reply, Send, Violation
from sparkle_protocol.errors import VerificationError
from sparkle_protocol.facts import JobSpec, Signer, Verify
from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_sim.array_work import Arrays
from sparkle_sim.computing import Behaviour, result_size
from sparkle_sim.draws import draws
from sparkle_sim.gossip import Gossip
from sparkle_sim.kernel import Kernel
from sparkle_sim.network import PUBLIC, Conditions, Network, Place
from sparkle_sim.peer import Machine, Peer
from sparkle_sim.routing import Routing
from sparkle_sim.sharing import SharedFacts, Wire
from sparkle_sim.signing import CheapIdentity, verify_cheap
from sparkle_sim.trace import Trace

if TYPE_CHECKING:
    from sparkle_sim.adversaries.base import Adversary
    from sparkle_sim.credit import Credit

NET = "simulated"
KERNEL = "reference"
EPOCH_MS = 1_767_225_600_000  # 2026-01-01: when every run begins, as people write it


class Watcher(Protocol):
    """Who is told what happens: checkers and metrics. None of them may change anything."""

    def heard(self, peer: Peer, effect: Notify) -> None:
        """A peer told its owner something."""
        ...

    def violated(self, peer: Peer, effect: Violation) -> None:
        """A peer found that another one broke a rule."""
        ...


class Listener(Protocol):
    """Who is told what leaves a node, and what it makes durable: that costs time for every message."""

    def said(self, peer: Peer, effect: Send | Reply) -> None:
        """A peer sends something, or answers."""
        ...

    def wrote(self, peer: Peer, record: Record) -> None:
        """A record is on a peer's disk."""
        ...


class World:
    """A run. Peers are numbers, and things here by these numbers.

    Args:
        seed: decides all that is random.
        places: where the peers are.
        conditions: of the wires between them.
        trace: where it is written down.
        adversaries: the peers that are none of ours.
        rules: how the cores of all peers decide what they may decide.
        identities: of all peers, instead of cheap ones; not beside adversaries, which make their own.
        verify: checks their signatures.
    """

    def __init__(
        self,
        seed: int,
        places: Sequence[Place],
        conditions: Conditions,
        trace: Trace | None = None,
        adversaries: Mapping[int, "Adversary"] | None = None,
        rules: Rules = PRODUCTION,
        identities: Sequence[Signer] | None = None,
        verify: Verify = verify_cheap,
    ) -> None:
        self.seed = seed
        self.rules = rules
        self.epoch_ms = EPOCH_MS
        self.kernel_key = f"{KERNEL}@1"
        self.kernel = Kernel()
        self.check_result: Callable[[JobSpec, int, bytes], None] = check_size
        self.codec = SharedFacts(NET, verify, len(places))
        self.wire = Wire(len(places))
        self.trace = trace or Trace()
        self.watchers: list[Watcher] = []
        self.listeners: list[Listener] = []
        self.peers: list[Peer] = []
        self.adversaries: Mapping[int, Adversary] = adversaries or {}
        self.identities = identities or [self._identity(number) for number in range(len(places))]
        ids = [identity.peer_id for identity in self.identities]
        self.index: dict[PeerId, int] = {peer: number for number, peer in enumerate(ids)}
        self.network = Network(self.kernel, self, places, conditions, seed)
        self.gossip = Gossip(self.kernel, self.network, self, seed)
        self.routing = Routing(self.kernel, self.network, self, ids, seed)
        self.arrays = Arrays(self)
        self.credit: Credit | None = None  # nobody has any
        self.addresses = [(self._address(number, peer, places),) for number, peer in enumerate(ids)]

    def _identity(self, number: int) -> CheapIdentity:
        adversary = self.adversaries.get(number)
        return CheapIdentity(self.seed, number) if adversary is None else adversary.identity

    def _address(self, number: int, peer: PeerId, places: Sequence[Place]) -> str:
        """One public network of the internet for each peer; behind a NAT the address of a relay."""
        if places[number].nat == PUBLIC:
            adversary = self.adversaries.get(number)
            return f"/ip4/{_ip(number if adversary is None else adversary.network())}/tcp/4001/p2p/{peer}"
        relay = draws(self.seed, number, "relay").below(len(places))
        return f"/ip4/{_ip(relay)}/tcp/4001/p2p-circuit/p2p/{peer}"

    def add(self, machine: Machine, *, works: bool = True, behaviour: Behaviour | None = None) -> Peer:
        """The next peer; it does not live yet."""
        number = len(self.peers)
        adversary = self.adversaries.get(number)
        if adversary is None:
            peer = Peer(self, number, machine, works=works, behaviour=behaviour)
        else:
            peer = adversary.join(self, number, machine, works=works)
        self.peers.append(peer)
        return peer

    # --- what the parts tell each other -----------------------------------------------------------------------

    def is_up(self, peer: int) -> bool:
        """Whether its process runs."""
        return self.peers[peer].life is not None

    def begins(self, peer: int) -> None:
        """Its process starts."""
        self.gossip.begin(peer)
        self.routing.begin(peer)

    def ends(self, peer: int) -> None:
        """Its process is gone."""
        self.gossip.end(peer)
        self.routing.end(peer)

    def link_up(self, peer: int, other: int) -> None:
        """A connection stands, at this end."""
        self.routing.link_up(peer, other)
        self.peers[peer].link_up(other)

    def link_down(self, peer: int, other: int) -> None:
        """A connection is gone, as this end finds."""
        self.routing.link_down(peer, other)
        self.peers[peer].link_down(other)

    def gossiped(self, peer: int, topic: str, author: int, payload: bytes) -> None:
        """A message came that everybody gets."""
        self.peers[peer].gossiped(topic, author, payload)

    def note(self, peer: int, what: str, detail: str = "") -> None:
        """Write down what happens at a peer."""
        self.trace.note(self.kernel.now, peer, what, detail)

    def heard(self, peer: Peer, effect: Notify) -> None:
        """A peer told its owner something."""
        self.note(peer.number, effect.event, " ".join(f"{name}={value}" for name, value in effect.fields.items()))
        for watcher in self.watchers:
            watcher.heard(peer, effect)

    def violated(self, peer: Peer, effect: Violation) -> None:
        """A peer found that another one broke a rule."""
        self.note(peer.number, "violation", f"{self.index[effect.peer]} {effect.reason}")
        for watcher in self.watchers:
            watcher.violated(peer, effect)

    def listen(self, listener: Listener) -> None:
        """Tell somebody what is said and written from now on."""
        self.listeners.append(listener)
        for peer in self.peers:
            peer.disk.watch = partial(self.wrote, peer)

    def said(self, peer: Peer, effect: Send | Reply) -> None:
        """A peer sends something, or answers."""
        for listener in self.listeners:
            listener.said(peer, effect)

    def wrote(self, peer: Peer, record: Record) -> None:
        """A record is on a peer's disk."""
        for listener in self.listeners:
            listener.wrote(peer, record)

    # --- running ----------------------------------------------------------------------------------------------

    def at(self, when_ns: int, call: Callable[[], None]) -> None:
        """Have something happen from outside."""
        self.kernel.at(when_ns, call)


def check_size(spec: JobSpec, unit: int, result: bytes) -> None:
    """Refuse a result of impossible form. Raises VerificationError."""
    if len(result) != result_size(spec):
        raise VerificationError(f"unit {unit} of {spec.kernel} has a result of {result_size(spec)} bytes")


def _ip(number: int) -> str:
    """A public address in a network of its own (a /24 each)."""
    return f"{11 + number // 65536 % 80}.{number // 256 % 256}.{number % 256}.7"
