"""What lies between the nodes of the conformance suite when it runs on the simulator's models, in virtual time."""

from typing import Any, Protocol

from sparkle_p2p.net.memory_network import MemoryNetwork
from sparkle_protocol.ids import PeerId
from sparkle_sim.gossip import Gossip
from sparkle_sim.kernel import Kernel
from sparkle_sim.lookups import RoutingParameters
from sparkle_sim.network import Conditions, Network, Place
from sparkle_sim.routing import Routing
from sparkle_sim.signing import CheapIdentity

CAPACITY = 16  # nodes of a test; more places cost nothing but memory
NEAR_MS = 1.0  # round trip: the suite's shortest time-outs are made for one machine


class ModelNode(Protocol):
    """What the models need of a node."""

    net: str
    agent: str
    number: int
    up: bool

    def link_up(self, other: int) -> None:
        """A connection stands."""

    def wrong_network(self, other: int) -> None:
        """A connection stands with a node of another network."""

    def link_down(self, other: int, reason: str) -> None:
        """A connection is gone."""

    def heard(self, topic: str, author: int, payload: bytes) -> None:
        """A message came that everybody gets."""

    def addresses(self) -> tuple[str, ...]:
        """Where it can be dialled."""

    def asked(self, asker: int, future: Any, payload: bytes) -> None:
        """A request arrived."""


class Model:
    """What lies between the nodes of a test. Peers are numbers here, in the order in which they were made."""

    def __init__(self, kernel: Kernel, seed: int) -> None:
        self.kernel = kernel
        self.ids = [CheapIdentity(seed, number).peer_id for number in range(CAPACITY)]
        self.numbers = {peer: number for number, peer in enumerate(self.ids)}
        self.overlays: list[ModelNode] = []
        self.conditions = Conditions(((NEAR_MS,),))
        self.network = Network(kernel, self, [Place()] * CAPACITY, self.conditions, seed)
        self.gossip = Gossip(kernel, self.network, self, seed)
        # A new network: nobody has a table as after a long time in it.
        self.routing = Routing(kernel, self.network, self, self.ids, seed, RoutingParameters(primed=False))
        self.listening: MemoryNetwork[Any] = MemoryNetwork()  # for the addresses alone

    # --- what the models ask and tell -------------------------------------------------------------------------

    def is_up(self, peer: int) -> bool:
        return peer < len(self.overlays) and self.overlays[peer].up

    def link_up(self, peer: int, other: int) -> None:
        if not self.overlays[peer].is_foreign(self.overlays[other]):
            self.routing.link_up(peer, other)
            self.gossip.link_up(peer, other)
            self.overlays[peer].link_up(other)
        else:
            self.overlays[peer].wrong_network(other)

    def link_down(self, peer: int, other: int) -> None:
        self.routing.link_down(peer, other)
        self.gossip.link_down(peer, other)
        self.overlays[peer].link_down(other, "the connection was lost")

    def gossiped(self, peer: int, topic: str, author: int, payload: bytes) -> None:
        self.overlays[peer].heard(topic, author, payload)

    # --- faults, in the words of ``MemoryNetwork`` ------------------------------------------------------------

    def cut(self, one: PeerId, other: PeerId) -> None:
        """Nothing gets from one to the other; they find out after a while."""
        ends = {self.numbers[one], self.numbers[other]}
        self.network.block(_pair(one, other), lambda sender, receiver: {sender, receiver} == ends)

    def heal(self, one: PeerId, other: PeerId) -> None:
        self.network.unblock(_pair(one, other))

    def stall(self, peer: PeerId) -> None:
        self.network.suspend(self.numbers[peer])

    def unstall(self, peer: PeerId) -> None:
        self.network.resume(self.numbers[peer])

    def set_delay(self, _one: PeerId, _other: PeerId, delay_s: float) -> None:
        """Between all: regions have distances, not pairs; and without jitter, so that it is what was asked for."""
        self.conditions.round_trip_ms = ((2000 * delay_s,),)
        self.conditions.jitter = 0.0

    def set_loss(self, _one: PeerId, _other: PeerId, loss: float) -> None:
        """Between all."""
        self.conditions.loss = loss


def _pair(one: PeerId, other: PeerId) -> str:
    return "-".join(sorted((one, other)))
