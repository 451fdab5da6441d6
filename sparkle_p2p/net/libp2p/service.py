"""The trio side put together: host, sessions, gossip, routing. Runs in the bridge's thread.

The only module that the asyncio side imports from that thread; importing it loads libp2p.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import libp2p.identity.identify.identify as identify
import trio
from libp2p.tools.anyio_service import background_trio_service

from sparkle_p2p.net.libp2p.ask import Ask
from sparkle_p2p.net.libp2p.frames import Hello
from sparkle_p2p.net.libp2p.gossip import Gossip
from sparkle_p2p.net.libp2p.host import Host
from sparkle_p2p.net.libp2p.routing import Routing
from sparkle_p2p.net.libp2p.sessions import Sessions
from sparkle_p2p.net.libp2p.sink import Direction, Sink
from sparkle_p2p.network_key import NetworkKey
from sparkle_protocol.errors import PeerUnreachable
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId, short_peer

GOODBYE_S = 1.0  # how long a clean stop may take to close connections politely
FOREIGN_S = 600.0  # how long a peer of another network stays out of lookups
LOOKUP_SHARE = 0.4  # of connect_peer's time for finding addresses


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service needs to know."""

    identity: Identity
    net: str
    agent: str
    listen: tuple[str, ...]
    network_key: NetworkKey | None = None
    genesis: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """The service listens."""

    bound: tuple[str, ...]
    addresses: tuple[str, ...]
    host_ms: float
    listening_ms: float


class Service:
    """One run of libp2p. Methods are called in the trio thread."""

    def __init__(self, settings: Settings, sink: Sink, ready: Callable[[Ready], None]) -> None:
        self._settings = settings
        self._sink = _RoutingSink(self, sink)
        self._ready = ready
        self._leave = trio.Event()
        self._opened: Host | None = None

    async def main(self) -> None:
        """Run until ``leave``; any exception ends it and the thread."""
        started = time.perf_counter()
        vars(identify)["AGENT_VERSION"] = self._settings.agent  # libp2p would name itself and has no setting for it
        host = Host(self._settings.identity, self._sink.violation, self._settings.network_key)
        self._host = self._opened = host
        async with background_trio_service(host.network), trio.open_nursery() as nursery:
            self._nursery = nursery
            await host.listen(self._settings.listen)
            greeting = Hello(self._settings.net, self._settings.agent, (), self._settings.genesis)
            self._sessions = Sessions(host, greeting, self._sink, self._foreign, nursery)
            self._gossip = Gossip(host, self._sink)
            self._routing = Routing(host, self._sessions, nursery)
            host.guard_handlers()
            nursery.start_soon(self._sessions.watch_naps)
            host_ms = (time.perf_counter() - started) * 1000

            async def serve() -> None:
                listening_ms = (time.perf_counter() - started) * 1000 - host_ms
                self._ready(Ready(host.bound(), host.addresses(), host_ms, listening_ms))
                await self._leave.wait()
                await self._say_goodbye()

            await self._gossip.run(lambda: self._routing.run(serve))
            nursery.cancel_scope.cancel()

    async def _say_goodbye(self) -> None:
        self._sessions.leaving = True
        with trio.move_on_after(GOODBYE_S):
            async with trio.open_nursery() as nursery:
                for peer in self._sessions.peers():
                    nursery.start_soon(self._sessions.disconnect, peer, "this node is stopping")
        # libp2p shields the closing of streams; to a frozen peer that would hold up our own end.
        self._host.abort_all()

    def leave(self) -> None:
        """Stop cleanly, soon."""
        self._leave.set()

    def last_words(self) -> None:
        """Close whatever a dead trio run left open, so that ports are free and peers notice."""
        if self._opened is not None:
            self._opened.close_sockets()

    # -- calls of the overlay ----------------------------------------------------------------------

    async def connect(self, peer: PeerId, transports: Sequence[str], timeout_s: float) -> None:
        """Be connected to and greeted by the peer."""
        deadline = trio.current_time() + timeout_s
        await self._host.dial(peer, transports, timeout_s)
        with trio.move_on_at(deadline) as scope:
            await self._sessions.greet(peer)
        if scope.cancelled_caught:
            raise PeerUnreachable(f"{short_peer(peer)} is connected but does not answer")

    async def connect_known(self, peer: PeerId, timeout_s: float) -> None:
        """Connect with addresses known here or found by a lookup."""
        deadline = trio.current_time() + timeout_s
        transports = await self._routing.find_addresses(peer, timeout_s * LOOKUP_SHARE)
        await self.connect(peer, transports, deadline - trio.current_time())

    async def disconnect(self, peer: PeerId) -> None:
        """Close the connections to a peer."""
        await self._sessions.disconnect(peer, "closed by this node")

    def ask(self, peer: PeerId, payload: bytes, ask: Ask) -> None:
        """Send a request; the answer goes to ``ask.resolve``."""
        self._sessions.ask(peer, payload, ask)

    async def subscribe(self, topic: str) -> None:
        """Have a topic's messages reported."""
        await self._gossip.subscribe(topic, self._nursery)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip a message."""
        await self._gossip.publish(topic, payload)

    async def closest(self, key: bytes, k: int, timeout_s: float) -> tuple[PeerId, ...]:
        """Peers nearest to a key."""
        return await self._routing.closest(key, k, timeout_s)

    async def provide(self, key: bytes) -> None:
        """Announce a key."""
        await self._routing.provide(key)

    async def providers(self, key: bytes, limit: int, timeout_s: float) -> tuple[PeerId, ...]:
        """Who announced a key."""
        return await self._routing.providers(key, limit, timeout_s)

    def _foreign(self, peer: PeerId) -> None:
        self._routing.banish(peer, FOREIGN_S)
        self._host.forget(peer)

    def peer_came(self, peer: PeerId) -> None:
        """Keep the routing table in step with the sessions."""
        with suppress(RuntimeError):  # the service is ending, and its nursery takes nothing more
            self._nursery.start_soon(self._routing.learn, peer)

    def peer_went(self, peer: PeerId) -> None:
        """Keep the routing table in step with the sessions."""
        self._routing.forget(peer)


class _RoutingSink:
    """Passes reports on to the asyncio side and keeps the routing table in step."""

    def __init__(self, service: Service, sink: Sink) -> None:
        self._service = service
        self._sink = sink
        self.latency = sink.latency
        self.violation = sink.violation
        self.gossip = sink.gossip
        self.request = sink.request

    def up(
        self,
        peer: PeerId,
        addresses: tuple[str, ...],
        direction: Direction,
        agent: str,
        latency_ms: float | None,
    ) -> None:
        """See Sink."""
        self._service.peer_came(peer)
        self._sink.up(peer, addresses, direction, agent, latency_ms)

    def down(self, peer: PeerId, reason: str) -> None:
        """See Sink."""
        self._service.peer_went(peer)
        self._sink.down(peer, reason)
