"""Which peers are connected, greeted and alive.

A connection counts (is *up*) once both sides exchanged hellos on a request stream and belong to the same
network, by name and genesis record. The side that dialled greets at once; whoever is greeted answers. A
connection to a peer of another network is closed. Other libp2p programs may connect to us and use identify, ping
and gossip; they never count as peers.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio
from libp2p.abc import INetConn, INetStream, INetwork

from sparkle_p2p.net.addresses import believable
from sparkle_p2p.net.libp2p.ask import Ask
from sparkle_p2p.net.libp2p.frames import PROTOCOL_ID, PROTOCOL_VERSION, Hello, decode_hello, encode_hello
from sparkle_p2p.net.libp2p.host import BROKEN, Host, Notifee, is_outbound, peer_of
from sparkle_p2p.net.libp2p.rpc import Answerer, Asker, Channel, TooSlow
from sparkle_p2p.net.libp2p.sink import CONNECTION_LOST, Direction, Sink
from sparkle_p2p.net.libp2p.wakeful import wakeful_clock
from sparkle_p2p.net.overlay import OTHER_GENESIS
from sparkle_protocol.errors import PeerUnreachable, RemoteProtocolError, TransportError
from sparkle_protocol.ids import PeerId, short_peer

logger = logging.getLogger("sparkle.net")

GREETING_TIMEOUT_S = 5.0
PING_INTERVAL_S = 20.0  # both ends ping; with ten peers one small frame per second
PING_TIMEOUT_S = 15.0  # a busy machine may be late; a dead one is noticed within 2 intervals
MISSED_PINGS = 2
NAP_CHECK_S = 0.5  # also how finely the clock can tell sleep from waiting
WAKE_PING_TIMEOUT_S = 10.0  # after a suspend: Wi-Fi takes some seconds to come back
MAX_STREAMS_PER_PEER = 4  # one is needed; more only while an old one dies
LATENCY_WEIGHT = 0.3  # of the newest sample in the moving average
_ADDRESS_TTL_S = 24 * 3600
_LAST_WORDS_S = 0.3  # a refused peer may read our hello before the connection closes, to tell its user why


class _SpeaksNoSparkle(PeerUnreachable):
    """The peer refused our request stream, or went away while we opened it."""


@dataclass(eq=False)
class Session:
    """What we hold about one connected peer."""

    peer: PeerId
    up: bool = False
    latency_ms: float | None = None
    asker: Asker | None = None
    answerers: set[Answerer] = field(default_factory=set)
    opening: trio.Lock = field(default_factory=trio.Lock)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    reason: str = CONNECTION_LOST
    refused: PeerUnreachable | None = None  # why it is not one of us; for everybody who waits for its greeting


class Sessions(Notifee):
    """All connected peers."""

    def __init__(
        self,
        host: Host,
        greeting: Hello,  # without addresses, which change
        sink: Sink,
        foreign: Callable[[PeerId], None],
        nursery: trio.Nursery,
    ) -> None:
        self._host = host
        self._greeting = greeting
        self._foreign = foreign
        self._sink = sink
        self._nursery = nursery
        self._sessions: dict[PeerId, Session] = {}
        self.leaving = False  # whoever connects now is not greeted any more
        self._changed = trio.Event()
        self._clock = wakeful_clock()
        host.set_stream_handler(PROTOCOL_ID, self._serve_stream)
        host.network.register_notifee(self)

    def peers(self) -> tuple[PeerId, ...]:
        """Peers that are up."""
        return tuple(peer for peer, session in self._sessions.items() if session.up)

    async def wait_up(self, peer: PeerId, timeout_s: float) -> bool:
        """Whether the peer is up, waiting a little for its greeting."""
        with trio.move_on_after(timeout_s):
            while True:
                session = self._sessions.get(peer)
                if session is not None and session.up:
                    return True
                await self._changed.wait()
        return False

    def _notify_changed(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    # -- connections, as libp2p reports them -------------------------------------------------------

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        """Greet the peer if we dialled it (a lookup may have)."""
        if is_outbound(conn) and not self.leaving:
            self._nursery.start_soon(self._greet_quietly, peer_of(conn))

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        """Forget the peer with its last connection."""
        peer = peer_of(conn)
        if not self._host.is_connected(peer):
            self._drop(peer)

    def _drop(self, peer: PeerId) -> None:
        session = self._sessions.pop(peer, None)
        if session is None:
            return
        session.scope.cancel()
        for channel in (session.asker, *session.answerers):
            if channel is not None:
                channel.fail(session.reason)
        if session.up:
            session.up = False
            self._sink.down(peer, session.reason)
        self._notify_changed()

    async def disconnect(self, peer: PeerId, reason: str) -> None:
        """Close all connections to a peer; it is down when this returns."""
        session = self._sessions.get(peer)
        if session is not None:
            session.reason = reason
        await self._host.close_connections(peer)
        self._drop(peer)

    # -- greeting ----------------------------------------------------------------------------------

    def _session(self, peer: PeerId) -> Session:
        return self._sessions.setdefault(peer, Session(peer))

    async def _greet_quietly(self, peer: PeerId) -> None:
        try:
            await self.greet(peer)
        except TransportError as error:
            logger.debug("no greeting from %s: %s", short_peer(peer), error)

    async def greet(self, peer: PeerId) -> None:
        """Return once a peer to which there is a connection is up; else close the connection.

        A peer that connected to us and does not speak our protocol is a guest, and keeps its connection.

        Raises:
            PeerUnreachable: it does not speak our protocol, or belongs to another network.
        """
        session = self._session(peer)
        try:
            await self._open_asker(session)
        except PeerUnreachable as error:
            guest = isinstance(error, _SpeaksNoSparkle) and not self._host.dialled(peer)
            if not session.up and not guest:
                session.refused = error
                await self.disconnect(peer, str(error))
            raise

    async def _open_asker(self, session: Session) -> Asker:
        """Our request stream to the peer, opened (and the peer greeted) if there is none."""
        async with session.opening:
            if session.asker is not None and session.asker.open:
                return session.asker
            if session.refused is not None:
                raise session.refused
            try:
                with trio.fail_after(GREETING_TIMEOUT_S):
                    asker = await self._open_stream(session)
            except (trio.TooSlowError, TooSlow) as error:
                raise PeerUnreachable(f"{short_peer(session.peer)} is connected but does not answer") from error
            except RemoteProtocolError as error:
                self._sink.violation(session.peer, str(error))
                raise PeerUnreachable(f"{short_peer(session.peer)} broke the protocol: {error}") from error
            except BROKEN as error:
                raise _SpeaksNoSparkle(
                    f"{short_peer(session.peer)} is not a Sparkle peer or closed the connection"
                ) from error
            session.asker = asker
            self._nursery.start_soon(asker.run)
            return asker

    async def _open_stream(self, session: Session) -> Asker:
        stream = await self._host.new_stream(session.peer, PROTOCOL_ID)
        asker = Asker(stream, session.peer, self._sink, self._abort)
        try:
            started = trio.current_time()
            await asker.write_frame(encode_hello(self._hello()))
            frame = await asker.read_frame()
            if frame is None:
                raise PeerUnreachable(f"{short_peer(session.peer)} closed the connection when greeted")
            hello = decode_hello(frame)
            self._check_network(session.peer, hello)
            sample_ms = (trio.current_time() - started) * 1000
            session.latency_ms = session.latency_ms or sample_ms
            self._set_up(session, hello)
        except BaseException:
            await asker.reset()
            raise
        return asker

    def _hello(self) -> Hello:
        return replace(self._greeting, addresses=self._host.addresses())

    def _check_network(self, peer: PeerId, hello: Hello) -> None:
        if hello.version != PROTOCOL_VERSION:
            raise PeerUnreachable(
                f"{short_peer(peer)} speaks protocol version {hello.version}, not {PROTOCOL_VERSION}"
            )
        own = self._greeting
        if hello.net != own.net:
            self._refuse(peer, "wrong network")
            raise PeerUnreachable(
                f"{short_peer(peer)} belongs to the network '{hello.net}', this node to '{own.net}'"
            )
        if hello.genesis != own.genesis:
            self._refuse(peer, OTHER_GENESIS)
            raise PeerUnreachable(
                f"{short_peer(peer)} {OTHER_GENESIS}; start both nodes with the same --genesis FILE"
            )

    def _refuse(self, peer: PeerId, reason: str) -> None:
        self._sink.violation(peer, reason)
        self._foreign(peer)

    def _set_up(self, session: Session, hello: Hello) -> None:
        if session.up or self._sessions.get(session.peer) is not session:
            return
        addresses = believable(hello.addresses, session.peer, self._host.remote_ip(session.peer))
        self._host.remember(session.peer, addresses, _ADDRESS_TTL_S)
        direction: Direction = "out" if self._host.dialled(session.peer) else "in"
        session.up = True
        self._sink.up(session.peer, addresses, direction, hello.agent, session.latency_ms)
        self._nursery.start_soon(self._keep_alive, session)
        self._notify_changed()

    async def _serve_stream(self, stream: INetStream) -> None:
        """Handler of streams that peers open to us."""
        peer = PeerId(str(stream.muxed_conn.peer_id))
        session = self._session(peer)
        answerer = Answerer(stream, peer, self._sink, self._abort)
        if len(session.answerers) >= MAX_STREAMS_PER_PEER:
            if not self._clock.settling:  # else it tried again and again while we slept
                self._sink.violation(peer, "it opens too many request streams")
            await answerer.reset()
            return
        session.answerers.add(answerer)
        try:
            if await self._answer_greeting(session, answerer):
                await answerer.run()
            else:
                await answerer.reset()
        finally:
            session.answerers.discard(answerer)
            if not self._host.is_connected(peer):
                self._drop(peer)

    async def _answer_greeting(self, session: Session, answerer: Channel) -> bool:
        try:
            with trio.fail_after(GREETING_TIMEOUT_S):
                frame = await answerer.read_frame()
                if frame is None:
                    return False
                hello = decode_hello(frame)
                await answerer.write_frame(encode_hello(self._hello()))
            self._check_network(session.peer, hello)
        except RemoteProtocolError as error:
            self._sink.violation(session.peer, str(error))
            return False
        except (trio.TooSlowError, TooSlow):
            return False
        except PeerUnreachable as error:
            await trio.sleep(_LAST_WORDS_S)
            await self.disconnect(session.peer, str(error))
            return False
        except BROKEN:
            return False
        self._set_up(session, hello)
        return True

    # -- requests ----------------------------------------------------------------------------------

    def ask(self, peer: PeerId, payload: bytes, ask: Ask) -> None:
        """Send a request to a peer that is up; ``ask.resolve`` gets the reply or an exception."""
        session = self._sessions.get(peer)
        if session is None or not session.up:
            ask.resolve(PeerUnreachable(f"there is no connection to {short_peer(peer)}"))
        elif session.asker is not None and session.asker.open:
            ask.sent(session.asker, session.asker.ask(payload, ask.resolve))
        else:
            self._nursery.start_soon(self._open_and_ask, session, payload, ask)

    async def _open_and_ask(self, session: Session, payload: bytes, ask: Ask) -> None:
        try:
            asker = await self._open_asker(session)
        except PeerUnreachable as error:
            ask.resolve(error)
            return
        if not ask.cancelled:
            ask.sent(asker, asker.ask(payload, ask.resolve))

    # -- alive? ------------------------------------------------------------------------------------

    async def _keep_alive(self, session: Session) -> None:
        """Ping seldom: measures latency and notices a peer that is gone without saying so."""
        missed = 0
        pause_s = PING_INTERVAL_S if session.latency_ms is not None else 1.0
        with session.scope:
            while missed < MISSED_PINGS:
                await trio.sleep(pause_s)
                sample_ms = await self._ping(session, PING_TIMEOUT_S)
                if sample_ms is None:
                    missed += 1
                else:
                    missed = 0
                    old = session.latency_ms
                    session.latency_ms = sample_ms if old is None else old + LATENCY_WEIGHT * (sample_ms - old)
                    self._sink.latency(session.peer, session.latency_ms)
                pause_s = PING_INTERVAL_S * random.uniform(0.8, 1.2)  # noqa: S311  only spreads load
            self._nursery.start_soon(self.disconnect, session.peer, "it does not answer any more")

    async def watch_naps(self) -> None:
        """After this process was asleep, let go of peers that are gone, so that they are dialled again."""
        naps = self._clock.naps
        while True:
            await trio.sleep(NAP_CHECK_S)
            if naps != self._clock.naps:
                naps = self._clock.naps
                logger.info("this process was asleep; checking its connections")
                for session in list(self._sessions.values()):
                    if session.up:
                        self._nursery.start_soon(self._check, session)

    async def _check(self, session: Session) -> None:
        answer = await self._ping(session, WAKE_PING_TIMEOUT_S)
        if answer is None and self._sessions.get(session.peer) is session:
            await self.disconnect(session.peer, "the connection did not survive the sleep of this machine")

    async def _ping(self, session: Session, timeout_s: float) -> float | None:
        """Round trip in milliseconds; None if nothing at all was heard from the peer meanwhile."""
        started = trio.current_time()
        answered = trio.Event()
        outcome: list[object] = []

        def resolve(result: object) -> None:
            outcome.append(result)
            answered.set()

        try:
            asker = await self._open_asker(session)
            frame_id = asker.ping(resolve)
            with trio.move_on_after(timeout_s):
                await answered.wait()
            asker.forget(frame_id)
        except PeerUnreachable:
            return None
        if outcome and isinstance(outcome[0], bytes):
            return (trio.current_time() - started) * 1000
        heard_at = max([asker.heard_at, *(answerer.heard_at for answerer in session.answerers)])
        return (session.latency_ms or timeout_s * 1000) if heard_at > started else None

    def _abort(self, peer: PeerId) -> None:
        session = self._sessions.get(peer)
        if session is not None:
            session.reason = "it stopped reading"
        self._host.abort(peer)
