"""The network as the node sees it.

Two implementations: ``net.libp2p`` (production) and ``net.memory`` (several nodes in one process, with
faults on demand). One conformance suite holds for both (``tests/e2e/overlay``).

Rules that every implementation keeps:

- All methods are called on one asyncio loop, and all callbacks run on it.
- Every wait ends: by its ``timeout_s``, or with ``OverlayDown`` once the overlay has stopped or its thread
  died.
- Payloads are opaque bytes of at most ``MAX_REQUEST_BYTES`` / ``MAX_GOSSIP_BYTES``; a larger one from us is
  a ``LocalProtocolError``, from a peer a violation. Routing keys have 2 to ``MAX_KEY_BYTES`` bytes.
- A handler that raises ``RemoteProtocolError`` gets that recorded as a violation of the peer and the peer
  gets an error reply; any other exception is logged, answered by an error reply (``PeerFailed`` at the asker)
  and hurts nobody else.
- A peer that is slow or silent loses its stream or connection and is not accused of anything.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sparkle_protocol.errors import ConfigError, LocalProtocolError
from sparkle_protocol.ids import PeerId

MAX_REQUEST_BYTES = 1 << 20
MAX_GOSSIP_BYTES = 16 << 10
MAX_NET_CHARS = 64
MAX_KEY_BYTES = 50  # what other libp2p implementations accept in a lookup
OTHER_GENESIS = "belongs to a network of this name with another genesis record"  # why a peer is refused
MAX_PENDING_PER_PEER = 64  # further requests fail at once: a slow peer must not pile up our memory


@dataclass(frozen=True, slots=True)
class Link:
    """A live connection to a peer. ``latency_ms`` is None until measured (EMA of round trips)."""

    peer: PeerId
    addresses: tuple[str, ...]  # multiaddrs that end in /p2p/<peer>; where others can dial it, best first
    direction: Literal["in", "out"]
    latency_ms: float | None = None
    agent: str = ""
    since_s: float = 0.0  # loop.time() at which it came up


RequestHandler = Callable[[PeerId, bytes], Awaitable[bytes]]


@dataclass(slots=True)
class OverlayEvents:
    """Callbacks of an overlay; all optional, all called on the asyncio loop, none may block or raise."""

    peer_up: Callable[[Link], None] = field(default=lambda _link: None)
    peer_down: Callable[[PeerId, str], None] = field(default=lambda _peer, _reason: None)
    discovered: Callable[[str, str], None] = field(default=lambda _address, _source: None)  # e.g. source "mdns"
    gossip: Callable[[str, PeerId, bytes], None] = field(default=lambda _topic, _author, _payload: None)
    violation: Callable[[PeerId | None, str], None] = field(default=lambda _peer, _reason: None)
    restarted: Callable[[str], None] = field(default=lambda _reason: None)  # the service died and came back


class Overlay(Protocol):
    """Connections, requests, gossip and routing between peers."""

    @property
    def peer_id(self) -> PeerId:
        """Our own id."""
        ...

    async def start(self, handler: RequestHandler, events: OverlayEvents) -> None:
        """Listen. Returns when peers can reach us. Raises ConfigError (port in use, bad address)."""
        ...

    async def stop(self) -> None:
        """Leave; idempotent. Pending calls fail with OverlayDown."""
        ...

    def addresses(self) -> tuple[str, ...]:
        """Our own dialable multiaddrs, each ending in /p2p/<our id>; empty while nobody can reach us.

        That is before ``start``, after ``stop``, and while a network service that died is being restarted.
        """
        ...

    def links(self) -> tuple[Link, ...]:
        """Live connections, in order of peer id."""
        ...

    async def connect(self, address: str, *, timeout_s: float = 10.0) -> PeerId:
        """Dial a multiaddr that ends in /p2p/<id>; returns at once when already connected.

        Raises:
            ConfigError: not such a multiaddr, or it is our own.
            PeerUnreachable, RequestTimeout: no connection, or somebody else answered there.
        """
        ...

    async def disconnect(self, peer: PeerId) -> None:
        """Close the connection to a peer, if there is one."""
        ...

    async def request(self, peer: PeerId, payload: bytes, *, timeout_s: float = 10.0) -> bytes:
        """Ask a connected peer (or ourselves: served locally) and return its reply.

        Raises:
            PeerUnreachable, RequestTimeout, OverlayDown.
            PeerFailed: the peer says that it failed to serve us.
            RemoteProtocolError: the peer says that our request breaks a rule.
        """
        ...

    async def subscribe(self, topic: str) -> None:
        """Have messages of a gossip topic delivered to ``events.gossip`` (own messages are not)."""
        ...

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip a payload to the topic's subscribers; best effort."""
        ...

    async def closest(self, key: bytes, k: int, *, timeout_s: float = 5.0) -> tuple[PeerId, ...]:
        """Up to k known peers (ourselves included) nearest to SHA-256(key) by XOR, nearest first."""
        ...

    async def provide(self, key: bytes, *, timeout_s: float = 5.0) -> None:
        """Announce that we provide ``key``; lasts at least ten minutes, call again to keep it up."""
        ...

    async def providers(self, key: bytes, *, limit: int = 8, timeout_s: float = 5.0) -> tuple[PeerId, ...]:
        """Peers that provide ``key``. Addresses found on the way are kept, so that ``connect_peer`` works."""
        ...

    async def connect_peer(self, peer: PeerId, *, timeout_s: float = 10.0) -> None:
        """Connect to a peer by its id, with addresses known from routing. Raises PeerUnreachable."""
        ...


def check_request(payload: bytes) -> None:
    """Return when a request of ours keeps to the size limit, else raise LocalProtocolError."""
    if len(payload) > MAX_REQUEST_BYTES:
        raise LocalProtocolError(f"{len(payload)} bytes are too many for a request; the limit is {MAX_REQUEST_BYTES}")


def check_gossip(payload: bytes) -> None:
    """Return when a message of ours keeps to the size limit, else raise LocalProtocolError."""
    if len(payload) > MAX_GOSSIP_BYTES:
        raise LocalProtocolError(f"{len(payload)} bytes are too many to gossip; the limit is {MAX_GOSSIP_BYTES}")


def check_net(net: str) -> None:
    """Return when this can be the name of a network, else raise ConfigError."""
    if not 1 <= len(net) <= MAX_NET_CHARS or not net.isprintable():
        raise ConfigError(f"'{net[:MAX_NET_CHARS]}' is not a network name: 1 to {MAX_NET_CHARS} printable characters")


def check_key(key: bytes) -> None:
    """Return when a routing key of ours has a legal length, else raise LocalProtocolError."""
    if not 2 <= len(key) <= MAX_KEY_BYTES:
        raise LocalProtocolError(f"a routing key has 2 to {MAX_KEY_BYTES} bytes, this one {len(key)}")


def sort_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Addresses in dialling order: loopback, private, public, relayed; stable within a class.

    Loopback first because on one machine nothing is faster and elsewhere it fails at once.
    """

    def rank(address: str) -> int:
        if "/p2p-circuit" in address:
            return 3
        if address.startswith(("/ip4/127.", "/ip6/::1/")):
            return 0
        private = ("/ip4/10.", "/ip4/192.168.", "/ip4/172.16.", "/ip4/169.254.", "/ip6/fd", "/ip6/fe80")
        return 1 if address.startswith(private) else 2

    return tuple(sorted(dict.fromkeys(addresses), key=rank))
