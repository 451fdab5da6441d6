"""The wires between the nodes of an in-memory overlay, and what is wrong with them (see ``memory``)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Generic, Protocol, TypeVar

from sparkle_p2p.net.addresses import split_listen
from sparkle_p2p.net.overlay import Link
from sparkle_protocol.errors import ConfigError
from sparkle_protocol.ids import PeerId

_FIRST_PORT = 40000

_Pair = frozenset[PeerId]


def _pair(one: PeerId, other: PeerId) -> _Pair:
    return frozenset((one, other))


class MemoryNode(Protocol):
    """What the network needs of a node."""

    transports: tuple[str, ...]

    def links(self) -> tuple[Link, ...]:
        """Live connections."""
        ...

    def link_down(self, peer: PeerId, reason: str) -> None:
        """A connection is gone."""
        ...

    def inject_crash(self, reason: str) -> None:
        """Kill the network service."""
        ...


Node = TypeVar("Node", bound=MemoryNode)


@dataclass
class MemoryNetwork(Generic[Node]):
    """The wires between nodes, and what is wrong with them."""

    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311  a model, not a secret
    delay_s: float = 0.0
    loss: float = 0.0  # share of requests, replies and gossip hops that get lost
    nodes: dict[PeerId, Node] = field(default_factory=dict)
    _cut: set[_Pair] = field(default_factory=set)
    _delays_s: dict[_Pair, float] = field(default_factory=dict)
    _losses: dict[_Pair, float] = field(default_factory=dict)
    _stalled: set[PeerId] = field(default_factory=set)
    _next_port: int = _FIRST_PORT

    # -- faults ------------------------------------------------------------------------------------

    def cut(self, one: PeerId, other: PeerId) -> None:
        """Break the link between two nodes and keep them from connecting again."""
        self._cut.add(_pair(one, other))
        self._unlink(one, other, "the connection was lost")

    def heal(self, one: PeerId, other: PeerId) -> None:
        """Let two nodes connect again."""
        self._cut.discard(_pair(one, other))

    def set_delay(self, one: PeerId, other: PeerId, delay_s: float) -> None:
        """One-way delay between two nodes."""
        self._delays_s[_pair(one, other)] = delay_s

    def set_loss(self, one: PeerId, other: PeerId, loss: float) -> None:
        """Share of what two nodes send each other that gets lost."""
        self._losses[_pair(one, other)] = loss

    def stall(self, peer: PeerId) -> None:
        """The node stops reading: nothing reaches it until ``unstall``."""
        self._stalled.add(peer)

    def unstall(self, peer: PeerId) -> None:
        """The node reads again; what was sent meanwhile is gone."""
        self._stalled.discard(peer)

    def crash(self, peer: PeerId, reason: str = "injected crash") -> None:
        """Kill the node's network service; it restarts by itself."""
        self.nodes[peer].inject_crash(reason)

    # -- wires -------------------------------------------------------------------------------------

    def reachable(self, one: PeerId, other: PeerId) -> bool:
        """Whether a connection between two nodes can be made or exist."""
        return other in self.nodes and _pair(one, other) not in self._cut

    def carry(self, sender: PeerId, receiver: PeerId, deliver: Callable[[], None]) -> None:
        """Deliver something after the delay, unless it gets lost."""
        pair = _pair(sender, receiver)
        if receiver in self._stalled or self.random.random() < self._losses.get(pair, self.loss):
            return
        delay_s = self._delays_s.get(pair, self.delay_s)
        loop = asyncio.get_running_loop()
        if delay_s:
            loop.call_later(delay_s, deliver)
        else:
            loop.call_soon(deliver)

    def round_trip_ms(self, one: PeerId, other: PeerId) -> float:
        """Twice the delay between two nodes."""
        return 2000 * self._delays_s.get(_pair(one, other), self.delay_s)

    def at(self, transport: str) -> Node | None:
        """The node that listens at a transport address."""
        return next((node for node in self.nodes.values() if transport in node.transports), None)

    def component(self, start: PeerId) -> list[PeerId]:
        """Nodes that a node can reach over links, itself first."""
        seen = [start]
        for peer in seen:
            seen.extend(link.peer for link in self.nodes[peer].links() if link.peer not in seen)
        return seen

    def assign_port(self, host: str, port: int) -> int:
        """The port itself, or a free one for port 0.

        Raises:
            ConfigError: it is taken.
        """
        if port:
            taken = any(
                split_listen(transport) == (host, port)
                for node in self.nodes.values()
                for transport in node.transports
            )
            if taken:
                raise ConfigError(f"port {port} of {host} is already in use; choose another port with --listen")
            return port
        self._next_port += 1
        return self._next_port

    def _unlink(self, one: PeerId, other: PeerId, reason: str) -> None:
        for peer, lost in ((one, other), (other, one)):
            node = self.nodes.get(peer)
            if node is not None:
                node.link_down(lost, reason)
