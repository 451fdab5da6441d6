"""An overlay inside one process: nodes of a ``MemoryNetwork`` talk by function calls, with faults on demand.

For tests of everything above the network, and held to the same conformance suite as the real one. Given a
seeded ``random.Random`` (and a loop whose clock is controlled, if delays are used) a run is deterministic.

Faults: ``cut``/``heal`` a pair, ``delay_s`` and ``loss`` for all or for a pair, ``stall`` a node (it stays
connected but reads nothing), ``crash`` a node's network service (it comes back by itself, as the real one
does).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sparkle_p2p.net.addresses import expand, split_address, split_listen
from sparkle_p2p.net.distance import nearest
from sparkle_p2p.net.memory_network import MemoryNetwork
from sparkle_p2p.net.overlay import (
    MAX_PENDING_PER_PEER,
    OTHER_GENESIS,
    Link,
    Overlay,
    OverlayEvents,
    RequestHandler,
    check_gossip,
    check_key,
    check_net,
    check_request,
    sort_addresses,
)
from sparkle_p2p.net.serving import ErrorCode, Serving, error_for
from sparkle_protocol.errors import (
    ConfigError,
    LocalProtocolError,
    OverlayDown,
    PeerUnreachable,
    RequestTimeout,
)
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId, short_peer

__all__ = ["MemoryNetwork", "MemoryOverlay"]

_RECORD_COPIES = 8  # a provider record is kept by so many peers nearest to its key


class MemoryOverlay(Overlay):
    """One node of a ``MemoryNetwork``; see ``Overlay``."""

    def __init__(
        self,
        network: "MemoryNetwork[MemoryOverlay]",
        identity: Identity,
        *,
        net: str,
        listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
        agent: str = "memory",
        mdns: bool = False,
        genesis: str = "",
    ) -> None:
        check_net(net)
        for address in listen:
            split_listen(address)
        self.net = net
        self.genesis = genesis
        self.transports: tuple[str, ...] = ()
        self.records: dict[bytes, dict[PeerId, None]] = {}
        self.mdns = mdns
        self.agent = agent
        self._network = network
        self._peer = identity.peer_id
        self._listen = tuple(listen)
        self._events = OverlayEvents()
        self._serving: Serving | None = None
        self._links: dict[PeerId, Link] = {}
        self._topics: set[str] = set()
        self._seen: dict[tuple[PeerId, int], None] = {}
        self._published = 0
        self._pending: dict[asyncio.Future[Any], PeerId] = {}
        self._in_flight: Counter[PeerId] = Counter()
        self._restarting: asyncio.Task[None] | None = None

    @property
    def peer_id(self) -> PeerId:
        """Our own id."""
        return self._peer

    # -- life --------------------------------------------------------------------------------------

    async def start(self, handler: RequestHandler, events: OverlayEvents) -> None:
        """Listen. Raises ConfigError (port in use)."""
        if self._serving is not None:
            raise LocalProtocolError("the overlay is already running")
        self._listen_at(self._listen)
        self._events = events
        self._serving = Serving(handler, events.violation)
        others = [n for n in self._network.nodes.values() if n.mdns and n.net == self.net and n is not self]
        for other in others if self.mdns else ():
            for finder, found in ((self, other), (other, self)):
                for address in found.addresses():
                    asyncio.get_running_loop().call_soon(finder.discovered, address)

    def _listen_at(self, listen: Sequence[str]) -> None:
        transports: list[str] = []
        for address in listen:
            host, port = split_listen(address)
            assigned = self._network.assign_port(host, port)
            transports.extend(expand(f"{address.rsplit('/', 1)[0]}/{assigned}"))
        self.transports = sort_addresses(transports)
        self._network.nodes[self._peer] = self

    def discovered(self, address: str) -> None:
        """The network's mDNS found an address."""
        if self._serving is not None:
            self._events.discovered(address, "mdns")

    async def stop(self) -> None:
        """Leave; idempotent. Pending calls fail with OverlayDown."""
        serving, self._serving = self._serving, None
        restarting, self._restarting = self._restarting, None
        if restarting is not None:
            restarting.cancel()
            await asyncio.gather(restarting, return_exceptions=True)
        self._go_down("this node is stopping")
        self.transports = ()
        self._topics.clear()
        self.records.clear()
        if serving is not None:
            await serving.stop()

    def _go_down(self, reason: str) -> None:
        self._network.nodes.pop(self._peer, None)
        for future in list(self._pending):
            if not future.done():
                future.set_exception(OverlayDown("the network service is not running"))
        for peer in sorted(self._links):
            self.link_down(peer, reason)
            other = self._network.nodes.get(peer)
            if other is not None:
                other.link_down(self._peer, reason)

    def inject_crash(self, reason: str = "injected crash") -> None:
        """Kill the network service; it restarts by itself and ``events.restarted`` follows."""
        links = self.links()
        self._go_down(f"the network service died: {reason}")
        self._restarting = asyncio.get_running_loop().create_task(self._restart(links, reason))

    async def _restart(self, links: tuple[Link, ...], reason: str) -> None:
        await asyncio.sleep(0)
        self._listen_at(self.transports)
        for link in links:
            if self._network.reachable(self._peer, link.peer):
                self._link_with(self._network.nodes[link.peer])
        self._events.restarted(reason)

    # -- links -------------------------------------------------------------------------------------

    def _check_running(self) -> Serving:
        if self._serving is None or self._network.nodes.get(self._peer) is not self:
            raise OverlayDown("the network service is not running")
        return self._serving

    def addresses(self) -> tuple[str, ...]:
        """Our own dialable multiaddrs, each ending in /p2p/<our id>; empty while the service does not run."""
        if self._network.nodes.get(self._peer) is not self:
            return ()
        return tuple(f"{transport}/p2p/{self._peer}" for transport in self.transports)

    def links(self) -> tuple[Link, ...]:
        """Live connections, in order of peer id."""
        return tuple(link for _, link in sorted(self._links.items()))

    async def connect(self, address: str, *, timeout_s: float = 10.0) -> PeerId:
        """Connect to the node at an address; see ``Overlay.connect``."""
        transport, peer = split_address(address)
        if peer == self._peer:
            raise ConfigError(f"{address} is this node's own address; give another peer's")
        self._check_running()
        if peer in self._links:
            return peer
        await self._wait(peer, self._network.round_trip_ms(self._peer, peer) / 1000, timeout_s)
        node = self._network.at(transport)
        if node is None or not self._network.reachable(self._peer, node.peer_id):
            raise PeerUnreachable(f"cannot connect to {short_peer(peer)}: nobody answers at {transport}")
        if node.peer_id != peer:
            raise PeerUnreachable(f"cannot connect to {short_peer(peer)}: somebody else answers at {transport}")
        self._link_with(node)
        return peer

    async def _wait(self, peer: PeerId, seconds: float, timeout_s: float) -> None:
        """Let time pass for a round trip, but not more than the time-out."""
        if seconds <= 0:
            return
        future = self._future(peer)
        handle = asyncio.get_running_loop().call_later(seconds, _set_result, future, None)
        try:
            await self._outcome(future, timeout_s, f"{short_peer(peer)} did not answer within {timeout_s:g} s")
        finally:
            handle.cancel()

    def _link_with(self, node: "MemoryOverlay") -> None:
        if node.net != self.net:
            self._refuse(node, "wrong network")
            raise PeerUnreachable(
                f"{short_peer(node.peer_id)} belongs to the network '{node.net}', this node to '{self.net}'"
            )
        if node.genesis != self.genesis:
            self._refuse(node, OTHER_GENESIS)
            raise PeerUnreachable(f"{short_peer(node.peer_id)} {OTHER_GENESIS}")
        round_trip_ms = self._network.round_trip_ms(self._peer, node.peer_id)
        since_s = asyncio.get_running_loop().time()
        node.link_up(Link(self._peer, self.addresses(), "in", round_trip_ms, self.agent, since_s))
        self.link_up(Link(node.peer_id, node.addresses(), "out", round_trip_ms, node.agent, since_s))

    def _refuse(self, node: "MemoryOverlay", reason: str) -> None:
        self.foreign(node.peer_id, reason)
        node.foreign(self._peer, reason)

    def foreign(self, peer: PeerId, reason: str) -> None:
        """A node of another network is there."""
        self._events.violation(peer, reason)

    def link_up(self, link: Link) -> None:
        """A connection came up."""
        if link.peer not in self._links:
            self._links[link.peer] = link
            self._events.peer_up(link)

    def link_down(self, peer: PeerId, reason: str) -> None:
        """A connection is gone: what waits for that peer fails."""
        if self._links.pop(peer, None) is None:
            return
        for future, asked in list(self._pending.items()):
            if asked == peer and not future.done():
                future.set_exception(PeerUnreachable(f"the connection to {short_peer(peer)} was lost"))
        self._events.peer_down(peer, reason)

    async def disconnect(self, peer: PeerId) -> None:
        """Close the connection to a peer, if there is one."""
        self._check_running()
        if peer in self._links:
            self.link_down(peer, "closed by this node")
            other = self._network.nodes.get(peer)
            if other is not None:
                other.link_down(self._peer, "the connection was lost")

    async def connect_peer(self, peer: PeerId, *, timeout_s: float = 10.0) -> None:
        """Connect to a peer that some connected peer knows."""
        self._check_running()
        if peer in self._links or peer == self._peer:
            return
        if peer not in self._network.component(self._peer):
            raise PeerUnreachable(f"cannot connect to {short_peer(peer)}: no address of it is known")
        await self.connect(self._network.nodes[peer].addresses()[0], timeout_s=timeout_s)

    # -- requests ----------------------------------------------------------------------------------

    def _future(self, peer: PeerId) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[future] = peer
        future.add_done_callback(lambda done: self._pending.pop(done, None))
        return future

    async def _outcome(self, future: asyncio.Future[Any], timeout_s: float, late: str) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError as error:
            raise RequestTimeout(late) from error

    async def request(self, peer: PeerId, payload: bytes, *, timeout_s: float = 10.0) -> bytes:
        """Ask a connected peer (or ourselves); see ``Overlay.request``."""
        check_request(payload)
        serving = self._check_running()
        late = f"{short_peer(peer)} did not answer within {timeout_s:g} s"
        if peer == self._peer:
            try:
                async with asyncio.timeout(timeout_s):
                    return await serving.ask_self(peer, payload)
            except TimeoutError as error:
                raise RequestTimeout(late) from error
        if peer not in self._links:
            raise PeerUnreachable(f"there is no connection to {short_peer(peer)}")
        if self._in_flight[peer] >= MAX_PENDING_PER_PEER:
            raise PeerUnreachable(
                f"{MAX_PENDING_PER_PEER} requests to {short_peer(peer)} are unanswered; try again later"
            )
        future = self._future(peer)
        self._in_flight[peer] += 1
        try:
            node = self._network.nodes[peer]
            self._network.carry(self._peer, peer, lambda: node.asked(self._peer, payload, future))
            reply: bytes = await self._outcome(future, timeout_s, late)
            return reply
        finally:
            self._in_flight[peer] -= 1

    def asked(self, peer: PeerId, payload: bytes, future: asyncio.Future[Any]) -> None:
        """A request arrived."""
        if self._serving is None or peer not in self._links:
            return

        def reply(outcome: bytes | ErrorCode, text: str) -> None:
            self._network.carry(self._peer, peer, lambda: _settle(future, outcome, text))

        self._serving.begin(peer, payload, reply)

    # -- gossip ------------------------------------------------------------------------------------

    async def subscribe(self, topic: str) -> None:
        """Have messages of a gossip topic delivered to ``events.gossip`` (own messages are not)."""
        self._check_running()
        self._topics.add(topic)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip a payload to the topic's subscribers; best effort."""
        check_gossip(payload)
        self._check_running()
        self._published += 1
        message = (self._peer, self._published)
        self._seen[message] = None
        self._spread(topic, message, payload)

    def _spread(self, topic: str, message: tuple[PeerId, int], payload: bytes) -> None:
        for peer in sorted(self._links):
            node = self._network.nodes[peer]
            self._network.carry(self._peer, peer, _call(node.heard, topic, message, payload))

    def heard(self, topic: str, message: tuple[PeerId, int], payload: bytes) -> None:
        """A message arrived over a link: deliver it once and pass it on, if we follow its topic."""
        if topic not in self._topics or message in self._seen or self._serving is None:
            return
        self._seen[message] = None
        if len(self._seen) > 4096:  # the oldest is forgotten, as in any seen-cache
            self._seen.pop(next(iter(self._seen)))
        self._spread(topic, message, payload)
        self._events.gossip(topic, message[0], payload)

    # -- routing -----------------------------------------------------------------------------------

    async def closest(self, key: bytes, k: int, *, timeout_s: float = 5.0) -> tuple[PeerId, ...]:
        """Up to k reachable peers (ourselves included) nearest to SHA-256(key) by XOR, nearest first."""
        check_key(key)
        self._check_running()
        return nearest(key, self._network.component(self._peer), k)

    def _keepers(self, key: bytes) -> Iterator["MemoryOverlay"]:
        for peer in nearest(key, self._network.component(self._peer), _RECORD_COPIES):
            yield self._network.nodes[peer]

    async def provide(self, key: bytes, *, timeout_s: float = 5.0) -> None:
        """Announce that we provide ``key``."""
        check_key(key)
        self._check_running()
        for node in (self, *self._keepers(key)):
            node.records.setdefault(key, {})[self._peer] = None

    async def providers(self, key: bytes, *, limit: int = 8, timeout_s: float = 5.0) -> tuple[PeerId, ...]:
        """Peers that provide ``key``."""
        check_key(key)
        self._check_running()
        found: dict[PeerId, None] = {}
        for node in (self, *self._keepers(key)):
            found.update(node.records.get(key, {}))
        return tuple(found)[:limit]


def _set_result(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _settle(future: asyncio.Future[Any], outcome: bytes | ErrorCode, text: str) -> None:
    if future.done():
        return
    if isinstance(outcome, bytes):
        future.set_result(outcome)
    else:
        future.set_exception(error_for(outcome, text))


def _call(function: Callable[..., None], *args: Any) -> Callable[[], None]:
    return lambda: function(*args)
