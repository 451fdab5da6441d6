"""Kademlia behind our own time-outs.

Keys. ``closest`` passes the key's bytes as they are: libp2p places a key at its SHA-256 and a peer at the
SHA-256 of its id's bytes. Provider records need a multihash (go and js peers insist), so ``provide(key)``
announces ``12 20 SHA-256(key)``: the sha2-256 multihash of the key.

A peer that does not answer a query in time is taken out of the routing table and left out of results for
a while; the library alone would wait 10 s for it in every lookup and never forget it. Provider records last a
quarter of an hour instead of two days: those of a node that went would have others dial a ghost.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import libp2p.kad_dht.provider_store as provider_store
import trio
from libp2p.abc import INetStream
from libp2p.kad_dht.common import PROTOCOL_ID
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.tools.anyio_service import background_trio_service

from sparkle_p2p.net.addresses import believable
from sparkle_p2p.net.distance import nearest
from sparkle_p2p.net.libp2p.host import BROKEN, Host
from sparkle_p2p.net.libp2p.sessions import Sessions
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import PeerId, key_from_peer_id, short_peer

logger = logging.getLogger("sparkle.net")

T = TypeVar("T")

QUERY_TIMEOUT_S = 1.5  # an answer takes 5 ms on a LAN and two round trips elsewhere
BANISHED_S = 60.0  # how long a peer that did not answer stays out of results
MAX_BANISHED = 1024
LOOKUP_WIDTH = 20  # k of Kademlia
PROVIDERS_ASKED = 8
PROVIDED_S = 15 * 60  # the overlay promises ten minutes; whoever still provides says so twice a minute
GREETED_WITHIN_S = 2.0
PROVIDES_PER_10_S = 60  # accepted from one peer; the library's 10 is less than a keeper's open jobs
_ADDRESS_TTL_S = 3600


class Routing:
    """Lookups and provider records of one node."""

    def __init__(self, host: Host, sessions: Sessions, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery
        self._sessions = sessions
        self._banished: dict[PeerId, float] = {}
        self._dht = KadDHT(host.raw, DHTMode.SERVER, enable_values=False)
        self._dht._provider_rate_max = PROVIDES_PER_10_S
        lookups = self._dht.peer_routing
        found_none: list[ID] = []
        vars(lookups)["_query_peer_for_closest"] = self._timed(lookups._query_peer_for_closest, found_none)
        vars(provider_store)["PROVIDER_RECORD_EXPIRATION_INTERVAL"] = PROVIDED_S  # there is no setting for it
        records = self._dht.provider_store
        vars(records)["_send_add_provider"] = self._timed(records._send_add_provider, False)
        no_providers: tuple[list[PeerInfo], list[ID]] = ([], [])
        self._ask_providers = self._timed(records._get_providers_from_peer_with_closers, no_providers)
        serve = self._dht.handle_stream
        host.set_stream_handler(str(PROTOCOL_ID), lambda stream: self._serve(stream, serve))

    async def run(self, then: Callable[[], Awaitable[None]]) -> None:
        """Run the service around ``then``."""
        async with background_trio_service(self._dht):
            await then()

    async def _serve(self, stream: INetStream, serve: Callable[[INetStream], Awaitable[None]]) -> None:
        """Serve routing queries of greeted peers only, so that networks do not mix."""
        peer = PeerId(str(stream.muxed_conn.peer_id))
        if await self._sessions.wait_up(peer, GREETED_WITHIN_S):
            await serve(stream)
        else:
            await stream.reset()

    def _timed(self, query: Callable[..., Awaitable[T]], nothing: T) -> Callable[..., Awaitable[T]]:
        """A query of one peer with our time-out; a peer that does not answer is banished."""

        async def timed(peer: ID, *args: object) -> T:
            name = PeerId(str(peer))
            if self._is_banished(name):
                return nothing
            outcome = [nothing]
            answered = trio.Event()
            scope = trio.CancelScope()

            async def ask() -> None:
                with scope, suppress(*BROKEN):
                    outcome[0] = await query(peer, *args)
                answered.set()

            # Not awaited when late: libp2p shields the closing of a stream, which a frozen peer can hold up
            # until its connection is given up.
            self._nursery.start_soon(ask)
            with trio.move_on_after(QUERY_TIMEOUT_S):
                await answered.wait()
            if answered.is_set() and self._host.is_connected(name):
                return outcome[0]
            scope.cancel()
            self.banish(name, BANISHED_S)
            return nothing

        return timed

    def banish(self, peer: PeerId, duration_s: float) -> None:
        """Leave a peer out of lookups for a while."""
        logger.debug("%s stays out of lookups for %g s", short_peer(peer), duration_s)
        if len(self._banished) >= MAX_BANISHED:
            self._banished.pop(next(iter(self._banished)))
        self._banished[peer] = trio.current_time() + duration_s
        self.forget(peer)

    def _is_banished(self, peer: PeerId) -> bool:
        until = self._banished.get(peer)
        if until is not None and until <= trio.current_time():
            del self._banished[peer]
            return False
        return until is not None

    async def learn(self, peer: PeerId) -> None:
        """A peer is up: put it into the routing table."""
        self._banished.pop(peer, None)
        await self._dht.add_peer(ID.from_base58(peer), skip_server_mode_check=True)

    def forget(self, peer: PeerId) -> None:
        """A peer is gone: take it out of the routing table."""
        self._dht.routing_table.remove_peer(ID.from_base58(peer))

    async def closest(self, key: bytes, k: int, timeout_s: float) -> tuple[PeerId, ...]:
        """Up to k peers nearest to the key: what a lookup found in time, live peers, ourselves."""
        found: list[ID] = []
        with trio.move_on_after(timeout_s):
            found = await self._dht.peer_routing.find_closest_peers_network(key, LOOKUP_WIDTH)
        if not found:
            found = self._dht.routing_table.find_local_closest_peers(key, LOOKUP_WIDTH)
        candidates = {peer for peer in self._valid(found) if not self._is_banished(peer)}
        candidates.update(self._sessions.peers())
        candidates.add(self._host.peer)
        return nearest(key, candidates, k)

    def _valid(self, ids: Iterable[ID]) -> Iterable[PeerId]:
        for raw in ids:
            peer = PeerId(str(raw))
            try:
                key_from_peer_id(peer)
            except RemoteProtocolError:
                continue  # a libp2p program with another kind of key: not one of us
            yield peer

    async def provide(self, key: bytes) -> None:
        """Announce to the peers nearest to the key that we provide it."""
        record = _multihash(key)
        await self._dht.provider_store.provide(record)
        # Whether it still holds is for the caller to say; the library would repeat it for ever.
        self._dht.provider_store.providing_keys.discard(record)

    async def providers(self, key: bytes, limit: int, timeout_s: float) -> tuple[PeerId, ...]:
        """Peers known here or to the peers nearest to the key as its providers."""
        record = _multihash(key)
        found: dict[PeerId, None] = {}
        self._collect(found, self._dht.provider_store.get_providers(record))
        with trio.move_on_after(timeout_s):
            asked = await self._dht.peer_routing.find_closest_peers_network(record, LOOKUP_WIDTH)
            async with trio.open_nursery() as nursery:
                for peer in asked[:PROVIDERS_ASKED]:
                    nursery.start_soon(self._collect_from, found, peer, record)
        return tuple(found)[:limit]

    async def _collect_from(self, found: dict[PeerId, None], peer: ID, record: bytes) -> None:
        if str(peer) != self._host.peer:
            providers, _closer = await self._ask_providers(peer, record)
            self._collect(found, providers)

    def _collect(self, found: dict[PeerId, None], providers: Iterable[PeerInfo]) -> None:
        for info in providers:
            for peer in self._valid([info.peer_id]):
                found[peer] = None
                texts = [f"{str(address).split('/p2p/', 1)[0]}/p2p/{peer}" for address in info.addrs]
                self._host.remember(peer, believable(texts, peer, None), _ADDRESS_TTL_S)

    async def find_addresses(self, peer: PeerId, timeout_s: float) -> tuple[str, ...]:
        """Transport addresses of a peer, looked up if none are known."""
        if not self._host.known_addresses(peer):
            with trio.move_on_after(timeout_s):
                await self._dht.peer_routing.find_closest_peers_network(ID.from_base58(peer).to_bytes(), LOOKUP_WIDTH)
        return self._host.known_addresses(peer)


def _multihash(key: bytes) -> bytes:
    return b"\x12\x20" + hashlib.sha256(key).digest()
