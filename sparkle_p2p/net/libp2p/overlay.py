"""The overlay as the node uses it: asyncio side, and supervision of the trio thread.

If the thread dies, every pending call fails with ``OverlayDown`` at once and all links go down. It is then
started again with growing pauses: same identity, same ports where they are still free, same
subscriptions, and the peers that were connected are dialled again. ``events.restarted`` follows.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from sparkle_ledger.genesis import GenesisRecord
from sparkle_p2p.net.addresses import split_address, split_listen
from sparkle_p2p.net.libp2p.ask import Ask
from sparkle_p2p.net.libp2p.bridge import Main, TrioThread
from sparkle_p2p.net.libp2p.inbox import Inbox
from sparkle_p2p.net.libp2p.links import Links
from sparkle_p2p.net.libp2p.sink import Answer
from sparkle_p2p.net.overlay import (
    MAX_PENDING_PER_PEER,
    Link,
    Overlay,
    OverlayEvents,
    RequestHandler,
    check_gossip,
    check_key,
    check_net,
    check_request,
)
from sparkle_p2p.net.resolve import resolve
from sparkle_p2p.net.serving import ErrorCode, Serving
from sparkle_p2p.network_key import NetworkKey
from sparkle_protocol.errors import (
    ConfigError,
    LocalProtocolError,
    OverlayDown,
    PeerUnreachable,
    RequestTimeout,
    SparkleError,
    TransportError,
)
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId, short_peer

if TYPE_CHECKING:
    from sparkle_p2p.net.libp2p.mdns import Mdns
    from sparkle_p2p.net.libp2p.service import Ready, Service

logger = logging.getLogger("sparkle.net")

START_TIMEOUT_S = 60.0  # mostly imports, on a machine that is busy
STOP_TIMEOUT_S = 2.5
CALL_TIMEOUT_S = 10.0  # of calls that only hand something over
RESTART_PAUSES_S = (0.1, 0.5, 2.0, 10.0, 30.0)  # the last one repeats
STEADY_S = 60.0  # a run this long counts as healthy: pauses start over
REDIAL_TIMEOUT_S = 5.0
MAX_REDIALS = 3  # addresses tried of each


class Libp2pOverlay(Overlay):
    """See ``Overlay``. One instance runs once at a time; it can be started again after ``stop``.

    ``genesis``: the digest of the network's genesis record, if it is not the default one of its name; peers that name
    another one are refused.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        net: str,
        listen: Sequence[str],
        agent: str,
        mdns: bool = True,
        network_key: NetworkKey | None = None,
        genesis: str = "",
    ) -> None:
        check_net(net)
        for address in listen:
            split_listen(address)
        self.startup_ms: dict[str, float] = {}
        self._identity = identity
        self._net = net
        self._listen = tuple(listen)
        self._agent = agent
        self._mdns_wanted = mdns
        self._network_key = network_key
        self._genesis = genesis or GenesisRecord(net).digest
        self._reset()

    def _reset(self) -> None:
        self._events = OverlayEvents()
        self._serving: Serving | None = None
        self._thread: TrioThread | None = None
        self._service: Service | None = None
        self._inbox: Inbox | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._mdns: Mdns | None = None
        self._links = Links(self._events)
        self._addresses: tuple[str, ...] = ()
        self._bound: tuple[str, ...] = ()
        self._topics: dict[str, None] = {}
        self._in_flight: Counter[PeerId] = Counter()

    @property
    def peer_id(self) -> PeerId:
        """Our own id."""
        return self._identity.peer_id

    # -- life --------------------------------------------------------------------------------------

    async def start(self, handler: RequestHandler, events: OverlayEvents) -> None:
        """Listen. Returns when peers can reach us. Raises ConfigError (port in use, bad address)."""
        if self._supervisor is not None:
            raise LocalProtocolError("the overlay is already running")
        self._events = events
        self._links = Links(events)
        self._serving = Serving(handler, events.violation)
        try:
            await self._start_thread(self._listen)
        except BaseException:
            await self._stop_thread()
            self._reset()
            raise
        self._supervisor = asyncio.get_running_loop().create_task(self._supervise(), name="sparkle-overlay")
        self._supervisor.add_done_callback(_log_failure)
        if self._mdns_wanted:
            from sparkle_p2p.net.libp2p.mdns import Mdns

            # Strangers on the LAN would only fail to connect: with a key they do not even see each other.
            name = self._net if self._network_key is None else f"{self._net} {self._network_key.fingerprint}"
            self._mdns = Mdns(name, lambda address: events.discovered(address, "mdns"))
            self._mdns.start(self._addresses)

    async def _start_thread(self, listen: tuple[str, ...]) -> None:
        """Start a trio thread; returns when it listens."""
        loop = asyncio.get_running_loop()
        thread = TrioThread("sparkle-libp2p")
        listening: asyncio.Future[Ready] = loop.create_future()
        inbox = self._inbox = Inbox(
            up=self._links.up,
            down=self._links.down,
            latency=self._links.latency,
            violation=self._events.violation,
            gossip=self._events.gossip,
            request=self._peer_asks,
        )
        made: list[Service] = []
        started = time.perf_counter()
        imports_ms = 0.0

        def load() -> Main:
            nonlocal imports_ms
            from sparkle_p2p.net.libp2p.service import Service, Settings

            imports_ms = (time.perf_counter() - started) * 1000
            settings = Settings(self._identity, self._net, self._agent, listen, self._network_key, self._genesis)
            made.append(Service(settings, inbox, lambda ready: thread.resolve(listening, ready)))
            return made[0].main

        def last_words() -> None:
            for service in made:
                service.last_words()

        self._thread, self._service = thread, None
        thread.start(load, last_words)
        ended = loop.create_task(thread.wait_ended())
        ended.add_done_callback(lambda _ended: listening.cancel())
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                ready = await listening
        except TimeoutError as error:
            raise OverlayDown(f"the network service did not start within {START_TIMEOUT_S:g} s") from error
        except asyncio.CancelledError:
            if thread.alive:
                raise
            raise _start_error(thread.error) from None
        finally:
            ended.cancel()
        self._service = made[0]
        self._bound, self._addresses = ready.bound, ready.addresses
        self.startup_ms = {"imports": imports_ms, "host": ready.host_ms, "listening": ready.listening_ms}

    async def stop(self) -> None:
        """Leave; idempotent. Pending calls fail with OverlayDown."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        closing = [self._stop_thread()]
        if self._mdns is not None:
            closing.append(self._mdns.stop())
        if self._serving is not None:
            closing.append(self._serving.stop())
        await asyncio.gather(*closing)
        self._links.all_down("this node stopped")
        self._reset()

    async def _stop_thread(self) -> None:
        thread, service = self._thread, self._service
        if thread is None:
            return
        thread.fail_pending()
        if not thread.entered:  # still importing: it will end by itself once it is done
            thread.abandon()
            return
        if service is not None:
            with suppress(OverlayDown):
                thread.post(service.leave)
            if await self._has_ended(thread):
                return
        thread.cancel()
        if await self._has_ended(thread):
            return
        logger.error("the network thread did not stop in time; abandoning it")
        thread.abandon()
        if self._inbox is not None:
            self._inbox.close()

    async def _has_ended(self, thread: TrioThread) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S / 2):
                await thread.wait_ended()
        return not thread.alive

    async def _supervise(self) -> None:
        failures = 0
        while self._thread is not None:
            began = time.monotonic()
            error = await self._thread.wait_ended()
            failures = 0 if time.monotonic() - began > STEADY_S else failures
            reason = _innermost(error)
            logger.error("the network service died and is restarted: %s", reason, exc_info=error)
            gone = self._links.all_down(f"the network service died: {reason}")
            while not await self._restart(RESTART_PAUSES_S[min(failures, len(RESTART_PAUSES_S) - 1)]):
                failures += 1
            failures += 1
            await asyncio.gather(*(self._redial(link) for link in gone))
            await self._announce_again()
            self._events.restarted(reason)

    async def _announce_again(self) -> None:
        if self._mdns is not None and self._mdns.addresses != self._addresses:
            await self._mdns.stop()
            self._mdns.start(self._addresses)

    async def _restart(self, pause_s: float) -> bool:
        await asyncio.sleep(pause_s)
        for listen in (self._bound, self._listen):
            try:
                await self._start_thread(listen)
                for topic in self._topics:
                    await self._subscribe(topic)
            except SparkleError as error:
                logger.warning("restarting the network service at %s failed: %s", ", ".join(listen), error)
                await self._stop_thread()
                continue
            return True
        return False

    async def _redial(self, link: Link) -> None:
        for address in link.addresses[:MAX_REDIALS]:
            with suppress(TransportError, ConfigError):
                await self.connect(address, timeout_s=REDIAL_TIMEOUT_S)
                return

    def inject_crash(self, reason: str = "injected crash") -> None:
        """Really kill the trio loop from inside. For fault tests and drills only."""
        if self._thread is not None:
            self._thread.die(reason)

    # -- reports from the thread -------------------------------------------------------------------

    def _peer_asks(self, peer: PeerId, payload: bytes, answer: Answer) -> None:
        thread, serving = self._thread, self._serving
        if thread is None or serving is None:
            return

        def reply(outcome: bytes | ErrorCode, text: str) -> None:
            with suppress(OverlayDown):
                thread.post(answer, outcome, text)

        serving.begin(peer, payload, reply)

    # -- what the node asks for --------------------------------------------------------------------

    def _running(self) -> "tuple[TrioThread, Service]":
        if self._thread is None or self._service is None or not self._thread.alive:
            raise OverlayDown("the network service is not running")
        return self._thread, self._service

    def addresses(self) -> tuple[str, ...]:
        """Our own dialable multiaddrs, each ending in /p2p/<our id>; empty while the service does not run."""
        running = self._service is not None and self._thread is not None and self._thread.alive
        return self._addresses if running else ()

    def links(self) -> tuple[Link, ...]:
        """Live connections, in order of peer id."""
        return self._links.all()

    async def connect(self, address: str, *, timeout_s: float = 10.0) -> PeerId:
        """Dial a multiaddr that ends in /p2p/<id>; see ``Overlay.connect``."""
        transport, peer = split_address(address)
        if peer == self.peer_id:
            raise ConfigError(f"{address} is this node's own address; give another peer's")
        thread, service = self._running()
        if peer not in self._links:
            deadline = time.monotonic() + timeout_s
            transports = await resolve(transport, timeout_s=timeout_s)
            left_s = max(0.0, deadline - time.monotonic())
            what = f"connecting to {address}"
            await thread.call(service.connect, peer, transports, left_s, timeout_s=left_s, what=what)
        return peer

    async def connect_peer(self, peer: PeerId, *, timeout_s: float = 10.0) -> None:
        """Connect to a peer by its id, with addresses known from routing. Raises PeerUnreachable."""
        thread, service = self._running()
        if peer in self._links or peer == self.peer_id:
            return
        try:
            await thread.call(service.connect_known, peer, timeout_s, timeout_s=timeout_s + 0.5)
        except RequestTimeout as error:
            raise PeerUnreachable(f"cannot connect to {short_peer(peer)}: no answer in {timeout_s:g} s") from error

    async def disconnect(self, peer: PeerId) -> None:
        """Close the connection to a peer, if there is one."""
        thread, service = self._running()
        await thread.call(service.disconnect, peer, timeout_s=CALL_TIMEOUT_S)

    async def request(self, peer: PeerId, payload: bytes, *, timeout_s: float = 10.0) -> bytes:
        """Ask a connected peer (or ourselves: served locally); see ``Overlay.request``."""
        check_request(payload)
        thread, service = self._running()
        if peer == self.peer_id:
            return await self._ask_self(payload, timeout_s)
        if peer not in self._links:
            raise PeerUnreachable(f"there is no connection to {short_peer(peer)}")
        if self._in_flight[peer] >= MAX_PENDING_PER_PEER:
            raise PeerUnreachable(f"{MAX_PENDING_PER_PEER} requests to {short_peer(peer)} are unanswered; try later")
        future = thread.future()
        ask = Ask(lambda outcome: thread.resolve(future, outcome))
        self._in_flight[peer] += 1
        try:
            thread.post(service.ask, peer, payload, ask)
            async with asyncio.timeout(timeout_s):
                reply: bytes = await future
                return reply
        except TimeoutError as error:
            raise RequestTimeout(f"{short_peer(peer)} did not answer within {timeout_s:g} s") from error
        finally:
            self._in_flight[peer] -= 1
            if not self._in_flight[peer]:
                del self._in_flight[peer]
            if not future.done() or future.cancelled():
                future.cancel()
                with suppress(OverlayDown):
                    thread.post(ask.cancel)

    async def _ask_self(self, payload: bytes, timeout_s: float) -> bytes:
        if self._serving is None:
            raise OverlayDown("the network service is not running")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._serving.ask_self(self.peer_id, payload)
        except TimeoutError as error:
            raise RequestTimeout(f"this node did not answer itself within {timeout_s:g} s") from error

    async def subscribe(self, topic: str) -> None:
        """Have messages of a gossip topic delivered to ``events.gossip`` (own messages are not)."""
        await self._subscribe(topic)
        self._topics[topic] = None

    async def _subscribe(self, topic: str) -> None:
        thread, service = self._running()
        await thread.call(service.subscribe, topic, timeout_s=CALL_TIMEOUT_S, what="subscribing")

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip a payload to the topic's subscribers; best effort."""
        check_gossip(payload)
        thread, service = self._running()
        await thread.call(service.publish, topic, payload, timeout_s=CALL_TIMEOUT_S, what="publishing")

    async def closest(self, key: bytes, k: int, *, timeout_s: float = 5.0) -> tuple[PeerId, ...]:
        """Up to k known peers (ourselves included) nearest to SHA-256(key) by XOR, nearest first."""
        check_key(key)
        thread, service = self._running()
        return await thread.call(
            service.closest, key, k, timeout_s, timeout_s=timeout_s + 1.0, what="looking up peers"
        )

    async def provide(self, key: bytes, *, timeout_s: float = 5.0) -> None:
        """Announce that we provide ``key``; lasts at least ten minutes, call again to keep it up."""
        check_key(key)
        thread, service = self._running()
        await thread.call(service.provide, key, timeout_s=timeout_s, what="announcing")

    async def providers(self, key: bytes, *, limit: int = 8, timeout_s: float = 5.0) -> tuple[PeerId, ...]:
        """Peers that provide ``key``; see ``Overlay.providers``."""
        check_key(key)
        thread, service = self._running()
        return await thread.call(
            service.providers, key, limit, timeout_s, timeout_s=timeout_s + 1.0, what="looking up providers"
        )


def _log_failure(supervisor: asyncio.Task[None]) -> None:
    if not supervisor.cancelled() and supervisor.exception() is not None:
        logger.error("supervision of the network service failed", exc_info=supervisor.exception())


def _start_error(error: BaseException | None) -> SparkleError:
    """The deliberate error inside whatever ended a thread that never listened."""
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if isinstance(current, SparkleError):
            return current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)
        elif current is not None:
            pending.append(current.__cause__)
    down = OverlayDown(f"the network service did not start: {_innermost(error)}")
    down.__cause__ = error
    return down


def _innermost(error: BaseException | None) -> str:
    """The text of the exception that began a failure."""
    if error is None:
        return "it ended without an error"
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
