"""Peers without cores: a network, gossip and routing alone, and what came out of them."""

from collections.abc import Sequence
from hashlib import sha256

import base58

from sparkle_sim.draws import draws
from sparkle_sim.gossip import Gossip, GossipParameters
from sparkle_sim.kernel import SECOND, Kernel
from sparkle_sim.lookups import RoutingParameters
from sparkle_sim.network import Conditions, Network, Place
from sparkle_sim.routing import Routing
from sparkle_sim.signing import CheapIdentity


class Wired:
    """``count`` peers that all run; connections are made by ``connect``."""

    def __init__(
        self,
        count: int,
        seed: int = 1,
        *,
        conditions: Conditions | None = None,
        gossip: GossipParameters | None = None,
        routing: RoutingParameters | None = None,
    ) -> None:
        self.kernel = Kernel()
        self.up = [False] * count
        self.ids = [CheapIdentity(seed, peer).peer_id for peer in range(count)]
        self.network = Network(self.kernel, self, [Place()] * count, conditions or Conditions(), seed)
        self.gossip = Gossip(self.kernel, self.network, self, seed, gossip)
        self.routing = Routing(self.kernel, self.network, self, self.ids, seed, routing)
        self.heard: list[tuple[int, int, bytes]] = []  # when, who, what
        self.random = draws(seed, "test")
        for peer in range(count):
            self.start(peer)

    def is_up(self, peer: int) -> bool:
        return self.up[peer]

    def link_up(self, peer: int, other: int) -> None:
        self.routing.link_up(peer, other)
        self.gossip.link_up(peer, other)

    def link_down(self, peer: int, other: int) -> None:
        self.routing.link_down(peer, other)
        self.gossip.link_down(peer, other)

    def gossiped(self, peer: int, topic: str, author: int, payload: bytes) -> None:
        self.heard.append((self.kernel.now, peer, payload))

    def start(self, peer: int) -> None:
        self.up[peer] = True
        self.gossip.begin(peer)
        self.routing.begin(peer)

    def stop(self, peer: int, *, silently: bool = False) -> None:
        self.up[peer] = False
        self.network.leave(peer, silently=silently)
        self.gossip.end(peer)
        self.routing.end(peer)

    def connect(self, each: int) -> None:
        """Each peer dials so many others, and all connections stand."""
        for peer in range(len(self.up)):
            for _ in range(each):
                self.network.dial(peer, self.random.below(len(self.up)), lambda _: None)
        self.run(1.0)

    def run(self, for_s: float) -> None:
        self.kernel.run(self.kernel.now + int(for_s * SECOND))

    def hearers(self, payload: bytes) -> list[int]:
        """Who heard a message, once for each time."""
        return [peer for _, peer, what in self.heard if what == payload]

    def closest(self, peer: int, key: bytes, count: int = 8) -> list[int]:
        """What a lookup finds."""
        answers: list[list[int]] = []
        self.routing.closest(peer, key, count, answers.append)
        self.run(10.0)
        assert len(answers) == 1, "a lookup is answered once"
        return answers[0]

    def providers(self, peer: int, key: bytes) -> list[int]:
        """Who is found to provide a key."""
        answers: list[list[int]] = []
        self.routing.providers(peer, key, answers.append)
        self.run(10.0)
        assert len(answers) == 1, "a lookup is answered once"
        return answers[0]

    def nearest(self, key: bytes, among: Sequence[int], count: int = 8) -> list[int]:
        """Who is really nearest to a key, by all 256 bits."""
        place = int.from_bytes(sha256(key).digest(), "big")

        def distance(peer: int) -> int:
            return int.from_bytes(sha256(base58.b58decode(self.ids[peer])).digest(), "big") ^ place

        return sorted(among, key=distance)[:count]
