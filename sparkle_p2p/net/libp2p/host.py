"""The libp2p host: TCP, Noise and nothing else, yamux; dialling and closing that always end."""

import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.network.swarm as swarm_module
import trio
from libp2p import create_yamux_muxer_option, new_host
from libp2p.abc import INetConn, INetStream, INetwork, INotifee, IRawConnection, ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.rcmgr import Direction as ConnectionDirection
from libp2p.rcmgr import new_resource_manager
from libp2p.rcmgr.manager import ResourceLimits
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.transport.exceptions import SecurityUpgradeFailure
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from sparkle_p2p.net.addresses import expand, split_listen
from sparkle_p2p.net.libp2p.opening import Opening
from sparkle_p2p.net.libp2p.private import PrivateConnection, Strangers
from sparkle_p2p.net.libp2p.wakeful import wakeful_clock
from sparkle_p2p.net.overlay import sort_addresses
from sparkle_p2p.network_key import NetworkKey
from sparkle_protocol.errors import ConfigError, PeerUnreachable
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId, short_peer

logger = logging.getLogger("sparkle.net")

MAX_CONNECTIONS = 300
MAX_STREAMS = 8192
MAX_STREAMS_PER_PEER = 64  # a peer needs three, and ten more during a lookup
UPGRADE_TIMEOUT_S = 5.0  # Noise and yamux take 10 ms; a dialer that stays silent holds a slot this long
CLOSE_TIMEOUT_S = 1.0

# What libp2p and trio raise when a connection or stream is gone.
BROKEN = (BaseLibp2pError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)

StreamHandler = Callable[[INetStream], Awaitable[None]]


# Logged as errors by libp2p, but they are a remote's doing and reach us as exceptions too.
_REMOTE_FAULTS = (
    "failed to upgrade",
    "Error in handle_incoming",
    "Failed to open",
    "Failed to start TCP listener",
    "fail to upgrade",
)


class _Forward(logging.Handler):
    """libp2p's errors, under our own logger."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().split("\n", 1)[0][:300]
        if not text.startswith(_REMOTE_FAULTS):
            logger.warning("libp2p: %s", text)


def quiet_libp2p() -> None:
    """libp2p logs every frame; keep only its errors, and keep it away from the root logger."""
    library = logging.getLogger("libp2p")
    library.setLevel(logging.ERROR)
    library.propagate = False
    library.handlers[:] = [_Forward()]
    logging.getLogger("libp2p.network.auto_connector").setLevel(logging.ERROR)  # sets its own level
    logging.getLogger("libp2p.protocol_muxer").setLevel(logging.CRITICAL)  # errors of remotes only
    # This module calls the functions of `logging` itself, which installs a handler on the root logger.
    vars(swarm_connection)["logging"] = logging.getLogger("libp2p.network.connection")
    # libp2p waits this long after each dial even if it succeeded at once; addresses are ordered here anyway.
    swarm_module._HAPPY_EYEBALLS_DELAY = 0.0


def peer_of(conn: INetConn) -> PeerId:
    """Whose connection this is."""
    return PeerId(str(conn.muxed_conn.peer_id))


def is_outbound(conn: INetConn) -> bool:
    """Whether we dialled it."""
    return cast(SwarmConn, conn).direction is ConnectionDirection.OUTBOUND


def is_closing(stream: INetStream) -> bool:
    """Whether the connection under a stream is gone or going."""
    shutting_down = getattr(stream.muxed_conn, "event_shutting_down", None)
    return stream.muxed_conn.is_closed or (shutting_down is not None and shutting_down.is_set())


class Notifee(INotifee):
    """Hears of connections; the rest of libp2p's notifications does nothing."""

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        """A connection came up."""

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        """A connection went down."""

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Nothing to do."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Nothing to do."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Nothing to do."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Nothing to do."""


class Host:
    """A libp2p host with our rules. Lives in the trio thread.

    Args:
        identity: ours.
        violation: told of peers, or of somebody not yet identified, that break rules.
        network_key: of a private network: nobody without it gets as far as Noise.
    """

    def __init__(
        self,
        identity: Identity,
        violation: Callable[[PeerId | None, str], None],
        network_key: NetworkKey | None = None,
    ) -> None:
        quiet_libp2p()
        keys = create_new_key_pair(identity.private_bytes())
        noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
        host = new_host(
            key_pair=keys,
            sec_opt={TProtocol(NOISE_PROTOCOL_ID): noise},
            muxer_opt=create_yamux_muxer_option(),
            connection_config=_connection_config(),
            resource_manager=new_resource_manager(
                limits=ResourceLimits(max_connections=MAX_CONNECTIONS, max_streams=MAX_STREAMS),
                enable_metrics=False,
                enable_memory_limits=False,
                enable_memory_pooling=False,
                enable_circuit_breaker=False,
                enable_graceful_degradation=False,
            ),
            transports=[TCP()],  # connections of others would not pass where ``_guard_upgrades`` sees them
            addrs_factory=self._advertise,
            disable_identify_address_discovery=True,
        )
        network = cast(Swarm, host.get_network())
        self.raw = cast(BasicHost, host)
        self.network = network
        self.peer = identity.peer_id
        self._violation = violation
        self._network_key = network_key
        self._strangers = Strangers()
        self._clock = wakeful_clock()
        self._streams: Counter[PeerId] = Counter()  # being served, by who opened them
        self._dialling: dict[PeerId, trio.Lock] = {}
        network.retry_config = RetryConfig(max_retries=0)  # whoever dials decides about trying again
        self._guard_upgrades()

    def _guard_upgrades(self) -> None:
        """Every connection, dialled or accepted, goes through here before its first byte is read or written."""
        upgrader = self.network.upgrader
        upgrade_security = upgrader.upgrade_security

        async def checked(raw: IRawConnection, is_initiator: bool, peer_id: ID | None = None) -> ISecureConn:
            if self._network_key is not None:
                raw = PrivateConnection(cast(RawConnection, raw), self._network_key.secret)
            opening = Opening()
            try:
                with opening.of(raw):
                    return await upgrade_security(raw, is_initiator, peer_id)
            except UnicodeDecodeError as error:  # libp2p takes it for granted that text comes
                self._note_failure(raw, is_initiator, wrong=True)
                raise SecurityUpgradeFailure("the other side says what is no text") from error
            except SecurityUpgradeFailure as error:
                wrong = isinstance(error.__cause__, HandshakeFailure) or not opening.honest
                self._note_failure(raw, is_initiator, wrong=wrong)
                raise

        vars(upgrader)["upgrade_security"] = checked

    def _note_failure(self, raw: IRawConnection, is_initiator: bool, *, wrong: bool) -> None:
        """Tell of a connection that came to nothing, if that was not mere bad luck; of a stranger now and then."""
        remote = raw.get_remote_address()
        host = remote[0] if remote else "somebody"
        stranger = isinstance(raw, PrivateConnection) and raw.stranger
        if is_initiator:
            if (stranger or wrong) and self._strangers.is_news(f"dialled {host}", trio.current_time()):
                why = "has another network key, or none" if stranger else "does not speak Noise, or has a network key"
                logger.warning("a node at %s %s; it is left alone", host, why)
        elif stranger:
            if self._strangers.is_news(host, trio.current_time()):
                self._violation(None, f"{host} came without the key of this private network and was turned away")
        elif wrong and not self._clock.settling:  # while we settle after a sleep it may have given up because of that
            self._violation(None, f"{host} connected without a Noise channel")

    # -- listening ---------------------------------------------------------------------------------

    async def listen(self, addresses: Sequence[str]) -> None:
        """Listen on all these addresses.

        Raises:
            ConfigError: one of them cannot be listened on.
        """
        for address in addresses:
            _probe(address)
        await self.network.listen(*(Multiaddr(address) for address in addresses))
        for address in addresses:
            if str(Multiaddr(address)) not in self.network.listeners:
                raise ConfigError(f"cannot listen on {address}; choose another address with --listen")
        self.raw.get_peerstore().set_local_record(self._signed_record())

    def _signed_record(self) -> Any:
        from libp2p.peer.peerstore import create_signed_peer_record

        return create_signed_peer_record(self.raw.get_id(), self.raw.get_addrs(), self.raw.get_private_key())

    def bound(self) -> tuple[str, ...]:
        """Addresses listened on, with the real ports."""
        return tuple(str(address) for address in self.raw.get_transport_addrs())

    def addresses(self) -> tuple[str, ...]:
        """Dialable addresses, each ending in our peer id."""
        found = [found for address in self.bound() for found in expand(address)]
        return tuple(f"{address}/p2p/{self.peer}" for address in sort_addresses(found))

    def _advertise(self, candidates: list[Multiaddr]) -> list[Multiaddr]:
        return [Multiaddr(address) for candidate in candidates for address in expand(str(candidate))]

    # -- streams -----------------------------------------------------------------------------------

    def set_stream_handler(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol."""
        self.raw.set_stream_handler(TProtocol(protocol), handler)

    def guard_handlers(self) -> None:
        """Wrap every handler set so far: what one raises is logged and ends its stream, not the host."""
        handlers = self.raw.get_mux().handlers
        for protocol, handler in list(handlers.items()):
            if protocol is not None and handler is not None:
                handlers[protocol] = self._guarded(str(protocol), handler)

    def _guarded(self, protocol: str, handler: StreamHandler) -> StreamHandler:
        async def guarded(stream: INetStream) -> None:
            peer = PeerId(str(stream.muxed_conn.peer_id))
            self._streams[peer] += 1
            try:
                if self._streams[peer] <= MAX_STREAMS_PER_PEER:
                    await handler(stream)
                else:
                    if not self._clock.settling:
                        self._violation(peer, "it opens too many streams")
                    await _reset(stream)
            except Exception:
                logger.exception("the handler of %s streams failed", protocol)
                await _reset(stream)
            finally:
                self._streams[peer] -= 1
                if not self._streams[peer]:
                    del self._streams[peer]

        return guarded

    async def new_stream(self, peer: PeerId, protocol: str) -> INetStream:
        """Open a stream to a connected peer."""
        return await self.raw.new_stream(ID.from_base58(peer), [TProtocol(protocol)])

    # -- connections -------------------------------------------------------------------------------

    def _connections(self, peer: PeerId) -> list[INetConn]:
        return [c for c in self.network.get_connections(ID.from_base58(peer)) if not c.is_closed]

    def is_connected(self, peer: PeerId) -> bool:
        """Whether there is an open connection to the peer."""
        return bool(self._connections(peer))

    def dialled(self, peer: PeerId) -> bool:
        """Whether we opened a connection to the peer."""
        return any(is_outbound(conn) for conn in self._connections(peer))

    def remote_ip(self, peer: PeerId) -> str | None:
        """IP address under which we see the peer."""
        for conn in self._connections(peer):
            for address in conn.get_transport_addresses():
                return str(address).split("/")[2]
        return None

    async def dial(self, peer: PeerId, transports: Sequence[str], timeout_s: float) -> None:
        """Connect to a peer at the first of these addresses that works, in this order.

        Raises:
            PeerUnreachable: none does.
        """
        lock = self._dialling.setdefault(peer, trio.Lock())
        try:
            async with lock:
                await self._dial_in_order(peer, transports, trio.current_time() + timeout_s)
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._dialling.pop(peer, None)

    async def _dial_in_order(self, peer: PeerId, transports: Sequence[str], deadline: float) -> None:
        reason = "no address of it is known"
        for position, transport in enumerate(transports):
            if self.is_connected(peer):
                return
            share_s = (deadline - trio.current_time()) / (len(transports) - position)
            try:
                with trio.fail_after(max(0.0, share_s)):
                    await self.network.dial_addr(Multiaddr(transport), ID.from_base58(peer))
                return
            except trio.TooSlowError:
                reason = f"{transport} did not answer"
            except (*BROKEN, SecurityUpgradeFailure) as error:
                reason = _why(error, transport, private=self._network_key is not None)
        if not self.is_connected(peer):
            raise PeerUnreachable(f"cannot connect to {short_peer(peer)}: {reason}")

    async def close_connections(self, peer: PeerId) -> None:
        """Close the connections to a peer that there are now, politely if it still takes data."""
        closing = self.network.get_connections(ID.from_base58(peer))
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for conn in closing:
                    nursery.start_soon(self._close, conn)
        _abort(closing)  # and not one that the peer opened meanwhile

    async def _close(self, conn: INetConn) -> None:
        with suppress(*BROKEN):
            await conn.close()

    def abort(self, peer: PeerId) -> None:
        """Close the sockets of all connections to a peer at once."""
        _abort(self.network.get_connections(ID.from_base58(peer)))

    def abort_all(self) -> None:
        """Close the sockets of all connections at once."""
        for peer in list(self.network.connections):
            self.abort(PeerId(str(peer)))

    def close_sockets(self) -> None:
        """Close every socket after trio has ended (trio's own way of closing needs it running)."""
        sockets = [_socket_of(conn) for conns in self.network.connections.values() for conn in conns]
        for listener in self.network.listeners.values():
            sockets.extend(opened.socket for opened in getattr(listener, "listeners", ()))
        for opened in sockets:
            if opened is not None and (descriptor := opened.detach()) >= 0:
                os.close(descriptor)

    # -- what we know about peers ------------------------------------------------------------------

    def remember(self, peer: PeerId, addresses: Sequence[str], ttl_s: int) -> None:
        """Keep a peer's addresses for lookups and ``known_addresses``."""
        if addresses:
            transports = [Multiaddr(address.rsplit("/p2p/", 1)[0]) for address in addresses]
            self.raw.get_peerstore().add_addrs(ID.from_base58(peer), transports, ttl_s)

    def known_addresses(self, peer: PeerId) -> tuple[str, ...]:
        """Transport addresses known for a peer, in dialling order."""
        try:
            known = self.raw.get_peerstore().addrs(ID.from_base58(peer))
        except PeerStoreError:
            return ()
        transports = [str(address).split("/p2p/", 1)[0] for address in known]
        return sort_addresses(
            [t for t in transports if "/tcp/" in t and not t.startswith(("/ip4/0.0.0.0", "/ip6/::/"))]
        )

    def forget(self, peer: PeerId) -> None:
        """Drop a peer's addresses."""
        with suppress(PeerStoreError):
            self.raw.get_peerstore().clear_addrs(ID.from_base58(peer))


def _connection_config() -> ConnectionConfig:
    return ConnectionConfig(
        max_connections=MAX_CONNECTIONS,
        min_connections=0,  # the node decides whom to dial, not libp2p's auto-connector
        low_watermark=0,
        high_watermark=MAX_CONNECTIONS,
        inbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
        outbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
    )


def _probe(address: str) -> None:
    """Refuse an address that is taken: libp2p sets SO_REUSEPORT and would silently share it."""
    host, port = split_listen(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"{address} is already in use by another program; choose another port with --listen"
                ) from error
            raise ConfigError(
                f"cannot listen on {address}: {error.strerror}; choose another with --listen"
            ) from error


async def _reset(stream: INetStream) -> None:
    with trio.move_on_after(CLOSE_TIMEOUT_S), suppress(*BROKEN):
        await stream.reset()


def _why(error: BaseException | None, transport: str, *, private: bool) -> str:
    texts = []
    while error is not None:
        texts.append(f"{type(error).__name__} {error}")
        error = error.__cause__ or error.__context__
    story = " | ".join(texts)
    if "ismatch" in story:
        return f"somebody else answers at {transport}"
    if "TCP stream" in story or "OpenConnectionError" in story:
        return f"nobody answers at {transport}"
    if private:
        return f"{transport} answers, but not with the key of this private network"
    return f"{transport} answers, but not as a libp2p peer with Noise; it may belong to a private network"


def _abort(connections: Iterable[INetConn]) -> None:
    for conn in connections:
        opened = _socket_of(conn)
        if opened is None:
            logger.error("a connection has no socket to close; it may linger")
        else:
            opened.close()


def _socket_of(conn: INetConn) -> trio.socket.SocketType | None:
    """The TCP socket under a connection; libp2p offers no way to close one that cannot block."""
    layer: Any = conn.muxed_conn
    for name in ("secured_conn", "conn", "read_writer", "read_write_closer", "stream", "stream", "socket"):
        layer = getattr(layer, name, None)
    return cast("trio.socket.SocketType | None", layer)
