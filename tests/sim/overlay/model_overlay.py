"""The production ``Overlay`` over the simulator's models of network, gossip and Kademlia, in virtual time.

The conformance suite of the overlays runs on it, so that what simulated nodes live in keeps the same promises. What
the models leave out is out here too: processor time and bytes of requests, mDNS, and hostile bytes.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import base58

from sparkle_p2p.net.addresses import expand, split_address, split_listen
from sparkle_p2p.net.distance import nearest
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
    TransportError,
)
from sparkle_protocol.ids import PeerId, short_peer
from sparkle_sim.kernel import MS, SECOND
from sparkle_sim.network import HANDSHAKE_TRIPS
from tests.sim.overlay.model import Model, ModelNode

RESTART_S = 0.1  # as the production overlay's first pause


class ModelOverlay(Overlay):
    """One node; see ``Overlay``."""

    def __init__(
        self, model: Model, *, net: str, listen: Sequence[str], agent: str, mdns: bool = False, genesis: str = ""
    ) -> None:
        check_net(net)
        for address in listen:
            split_listen(address)
        if mdns:
            raise ConfigError("there is no mDNS in the model")
        self.net = net
        self.genesis = genesis
        self.agent = agent
        self.up = False
        self.transports: tuple[str, ...] = ()
        self.number = len(model.overlays)
        model.overlays.append(self)
        self._model = model
        self._listen = tuple(listen)
        self._events = OverlayEvents()
        self._serving: Serving | None = None
        self._links: dict[int, Link] = {}
        self._topics: dict[str, None] = {}
        self._known: dict[int, None] = {}  # who was found, and so at what address
        self._dialled_ns: dict[int, int] = {}  # whom it is dialling, since when
        self._pending: dict[asyncio.Future[Any], int | None] = {}  # and who is asked
        self._in_flight: Counter[int] = Counter()
        self._restarting: asyncio.Task[None] | None = None

    @property
    def peer_id(self) -> PeerId:
        return self._model.ids[self.number]

    # --- life -------------------------------------------------------------------------------------------------

    async def start(self, handler: RequestHandler, events: OverlayEvents) -> None:
        if self._serving is not None:
            raise LocalProtocolError("the overlay is already running")
        transports: list[str] = []
        for address in self._listen:
            host, port = split_listen(address)
            assigned = self._model.listening.assign_port(host, port)
            transports.extend(expand(f"{address.rsplit('/', 1)[0]}/{assigned}"))
        self.transports = sort_addresses(transports)
        self._events = events
        self._serving = Serving(handler, events.violation)
        self._begin()

    def _begin(self) -> None:
        self.up = True
        self._model.listening.nodes[self.peer_id] = self
        self._model.gossip.begin(self.number)
        self._model.routing.begin(self.number)

    def _end(self, reason: str) -> None:
        if not self.up:
            return
        self.up = False
        del self._model.listening.nodes[self.peer_id]
        self._model.gossip.end(self.number)
        self._model.routing.end(self.number)
        self._model.network.leave(self.number, silently=False)
        for future in list(self._pending):
            if not future.done():
                future.set_exception(OverlayDown("the network service is not running"))
        for other in list(self._links):
            self.link_down(other, reason)

    async def stop(self) -> None:
        serving, self._serving = self._serving, None
        restarting, self._restarting = self._restarting, None
        if restarting is not None:
            restarting.cancel()
            await asyncio.gather(restarting, return_exceptions=True)
        self._end("this node is stopping")
        self.transports = ()
        self._topics.clear()
        self._known.clear()
        if serving is not None:
            await serving.stop()

    def inject_crash(self, reason: str = "injected crash") -> None:
        """Kill the network service; it restarts by itself and ``events.restarted`` follows."""
        links = tuple(self._links)
        self._end(f"the network service died: {reason}")
        self._restarting = asyncio.get_running_loop().create_task(self._restart(links, reason))

    async def _restart(self, others: Sequence[int], reason: str) -> None:
        await self._wait(RESTART_S, 2 * RESTART_S)
        self._begin()
        for other in others:
            with contextlib.suppress(TransportError):
                await self._dial(other, 5.0)
        self._events.restarted(reason)

    def _running(self) -> Serving:
        if self._serving is None or not self.up:
            raise OverlayDown("the network service is not running")
        return self._serving

    # --- links ------------------------------------------------------------------------------------------------

    def addresses(self) -> tuple[str, ...]:
        return tuple(f"{transport}/p2p/{self.peer_id}" for transport in self.transports) if self.up else ()

    def links(self) -> tuple[Link, ...]:
        return tuple(sorted(self._links.values(), key=lambda link: link.peer))

    async def connect(self, address: str, *, timeout_s: float = 10.0) -> PeerId:
        transport, peer = split_address(address)
        if peer == self.peer_id:
            raise ConfigError(f"{address} is this node's own address; give another peer's")
        self._running()
        number = self._model.numbers.get(peer)
        if number in self._links:
            return peer
        there: ModelNode | None = self._model.listening.at(transport)
        if there is None or there.number != number:
            where = self.number if there is None else there.number
            await self._wait(self._model.network.refusal_ns(self.number, where) / SECOND, timeout_s)
            who = "nobody answers" if there is None else "somebody else answers"
            raise PeerUnreachable(f"cannot connect to {short_peer(peer)}: {who} at {transport}")
        await self._dial(there.number, timeout_s)
        return peer

    async def _wait(self, seconds: float, timeout_s: float) -> None:
        future = self._future(None)
        self._model.kernel.after(int(seconds * SECOND), _set, future, None)
        await self._outcome(future, timeout_s, "nobody answered in time")

    async def _dial(self, other: int, timeout_s: float) -> None:
        model, future, peer = self._model, self._future(None), self._model.ids[other]
        self._dialled_ns.setdefault(other, model.kernel.now)
        model.network.dial(self.number, other, lambda worked: _set(future, worked))
        try:
            worked = await self._outcome(future, timeout_s, f"{short_peer(peer)} did not answer in {timeout_s:g} s")
        finally:
            self._dialled_ns.pop(other, None)
        net = model.overlays[other].net
        if net != self.net:
            raise PeerUnreachable(f"{short_peer(peer)} belongs to the network '{net}', this node to '{self.net}'")
        if self.is_foreign(model.overlays[other]):
            raise PeerUnreachable(f"{short_peer(peer)} {OTHER_GENESIS}")
        if not worked or other not in self._links:
            raise PeerUnreachable(f"cannot connect to {short_peer(peer)}: nobody answers")

    def link_up(self, other: int) -> None:
        """A connection stands."""
        there, kernel = self._model.overlays[other], self._model.kernel
        dialled_ns = self._dialled_ns.get(other)
        latency_ms = None if dialled_ns is None else (kernel.now - dialled_ns) / HANDSHAKE_TRIPS / MS
        direction = "in" if dialled_ns is None else "out"
        peer, addresses = self._model.ids[other], there.addresses()
        self._links[other] = Link(peer, addresses, direction, latency_ms, there.agent, kernel.now / SECOND)
        self._known[other] = None
        self._events.peer_up(self._links[other])

    def is_foreign(self, other: "ModelOverlay") -> bool:
        """It is of another network, or of one with another genesis record."""
        return (other.net, other.genesis) != (self.net, self.genesis)

    def wrong_network(self, other: int) -> None:
        """A connection stands with a node that is foreign: close it."""
        reason = "wrong network" if self._model.overlays[other].net != self.net else OTHER_GENESIS
        self._events.violation(self._model.ids[other], reason)
        self._model.kernel.after(0, self._model.network.hang_up, self.number, other)

    def link_down(self, other: int, reason: str) -> None:
        """A connection is gone: what waits for that peer fails."""
        link = self._links.pop(other, None)
        if link is None:
            return
        for future, asked in list(self._pending.items()):
            if asked == other and not future.done():
                future.set_exception(PeerUnreachable(f"the connection to {short_peer(link.peer)} was lost"))
        self._events.peer_down(link.peer, reason)

    async def disconnect(self, peer: PeerId) -> None:
        self._running()
        number = self._model.numbers.get(peer)
        if number in self._links:
            self._model.network.hang_up(self.number, number)

    async def connect_peer(self, peer: PeerId, *, timeout_s: float = 10.0) -> None:
        self._running()
        number = self._model.numbers.get(peer)
        if number in self._links or peer == self.peer_id:
            return
        place = base58.b58decode(peer)  # a peer lies at the hash of its id, as a key does at its own
        if number not in self._known and await self.closest(place, 1, timeout_s=timeout_s) != (peer,):
            raise PeerUnreachable(f"cannot connect to {short_peer(peer)}: no address of it is known")
        assert number is not None
        await self._dial(number, timeout_s)

    # --- requests ---------------------------------------------------------------------------------------------

    def _future(self, asked: int | None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[future] = asked
        future.add_done_callback(lambda done: self._pending.pop(done, None))
        return future

    @staticmethod
    async def _outcome(future: asyncio.Future[Any], timeout_s: float, late: str) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError as error:
            raise RequestTimeout(late) from error

    async def request(self, peer: PeerId, payload: bytes, *, timeout_s: float = 10.0) -> bytes:
        check_request(payload)
        serving, number = self._running(), self._model.numbers.get(peer)
        late = f"{short_peer(peer)} did not answer within {timeout_s:g} s"
        if peer == self.peer_id:
            return await self._outcome(asyncio.ensure_future(serving.ask_self(peer, payload)), timeout_s, late)
        if number is None or number not in self._links:
            raise PeerUnreachable(f"there is no connection to {short_peer(peer)}")
        if self._in_flight[number] >= MAX_PENDING_PER_PEER:
            raise PeerUnreachable(
                f"{MAX_PENDING_PER_PEER} requests to {short_peer(peer)} are unanswered; try again later"
            )
        future = self._future(number)
        self._in_flight[number] += 1
        try:
            there = self._model.overlays[number]
            self._model.network.send(self.number, number, there.asked, self.number, future, payload)
            reply: bytes = await self._outcome(future, timeout_s, late)
            return reply
        finally:
            self._in_flight[number] -= 1

    def asked(self, asker: int, future: asyncio.Future[Any], payload: bytes) -> None:
        """A request arrived; over a connection that is gone it would not have."""
        if self._serving is None or asker not in self._links:
            return

        def reply(outcome: bytes | ErrorCode, text: str) -> None:
            self._model.network.send(self.number, asker, _settle, future, outcome, text)

        self._serving.begin(self._model.ids[asker], payload, reply)

    # --- gossip and routing -----------------------------------------------------------------------------------

    async def subscribe(self, topic: str) -> None:
        self._running()
        self._topics[topic] = None

    async def publish(self, topic: str, payload: bytes) -> None:
        check_gossip(payload)
        self._running()
        self._model.gossip.publish(self.number, topic, payload)

    def heard(self, topic: str, author: int, payload: bytes) -> None:
        """A message came. (In the model every node passes every topic on.)"""
        if topic in self._topics:
            self._events.gossip(topic, self._model.ids[author], payload)

    async def closest(self, key: bytes, k: int, *, timeout_s: float = 5.0) -> tuple[PeerId, ...]:
        check_key(key)
        self._running()
        found = await self._ask(lambda tell: self._model.routing.closest(self.number, key, k, tell), timeout_s)
        if found is None:  # what is known without asking anybody
            return nearest(key, [self.peer_id, *(link.peer for link in self._links.values())], k)
        return found

    async def provide(self, key: bytes, *, timeout_s: float = 5.0) -> None:
        check_key(key)
        self._running()
        self._model.routing.provide(self.number, key)

    async def providers(self, key: bytes, *, limit: int = 8, timeout_s: float = 5.0) -> tuple[PeerId, ...]:
        check_key(key)
        self._running()
        found = await self._ask(lambda tell: self._model.routing.providers(self.number, key, tell), timeout_s)
        return (found or ())[:limit]

    async def _ask(
        self, search: Callable[[Callable[[list[int]], None]], None], timeout_s: float
    ) -> tuple[PeerId, ...] | None:
        """What a search finds; None if that takes too long."""
        future = self._future(None)
        search(lambda numbers: _set(future, numbers))
        try:
            numbers: list[int] = await self._outcome(future, timeout_s, "the search took too long")
        except RequestTimeout:
            return None
        self._known.update(dict.fromkeys(numbers))
        return tuple(self._model.ids[number] for number in numbers)


def _set(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _settle(future: asyncio.Future[Any], outcome: bytes | ErrorCode, text: str) -> None:
    if future.done():
        return
    if isinstance(outcome, bytes):
        future.set_result(outcome)
    else:
        future.set_exception(error_for(outcome, text))
