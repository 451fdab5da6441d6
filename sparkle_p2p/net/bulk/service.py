"""The data plane of a node: serves its blobs, fetches others'."""

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sparkle_p2p.blobs.partial import Partial
from sparkle_p2p.blobs.store import BlobStore
from sparkle_p2p.net.bulk.certificate import client_context, make_certificate
from sparkle_p2p.net.bulk.connections import Connections
from sparkle_p2p.net.bulk.fetch import Fetch, FetchProgress, FetchReport
from sparkle_p2p.net.bulk.holder import Holder
from sparkle_p2p.net.bulk.outlines import fetch_outline
from sparkle_p2p.net.bulk.peer_source import Hosts, PeerSource
from sparkle_p2p.net.bulk.server import BulkServer
from sparkle_p2p.net.bulk.source import Asker
from sparkle_protocol import messages
from sparkle_protocol.blobs.limits import MAX_FETCHES
from sparkle_protocol.blobs.link import LinkEstimate
from sparkle_protocol.blobs.source import MAX_ASKS
from sparkle_protocol.blobs.tickets import TicketOffice
from sparkle_protocol.blobs.transfer import MAX_SOURCES
from sparkle_protocol.blobs.tree import BlobId, Outline
from sparkle_protocol.errors import RemoteProtocolError, SparkleError, TransportError
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId

THREADS = 8  # hashing and disk; what is more waits
LINES = 2 * MAX_ASKS * MAX_SOURCES  # threads for answers that come over HTTPS, one each; more than so many wait
SETTLE_EVERY_S = 40.0
MAX_LINKS = 1024  # remembered; the one not used for longest is forgotten

log = logging.getLogger("sparkle.bulk")

T = TypeVar("T")

OnProgress = Callable[[FetchProgress], None]


@dataclass(eq=False)
class _Running:
    """A fetch that several callers may wait for."""

    task: "asyncio.Task[FetchReport]"
    listeners: list[OnProgress]
    fetch: Fetch | None = None
    joined: dict[PeerId, None] = field(default_factory=dict)  # sources named since it was started
    spare: dict[PeerId, None] = field(default_factory=dict)  # peers that may be sources too
    ending: bool = False  # nobody waits for it any more


class Bulk:
    """Blobs in and out. All methods are called on one asyncio loop.

    Args:
        identity: the node's.
        net: name of the network.
        store: where blobs are.
        ask: sends a request to a peer over libp2p.
        hosts: IP addresses at which a peer is reached directly, best first; none: only libp2p is used.
        may_read: whether a peer may have a blob of ours.
        clock: monotonic nanoseconds.
        on_violation: told of a source that sent wrong bytes.
    """

    def __init__(
        self,
        identity: Identity,
        net: str,
        store: BlobStore,
        *,
        ask: Asker,
        hosts: Hosts,
        may_read: Callable[[PeerId, BlobId], bool],
        clock: Callable[[], int],
        on_violation: Callable[[PeerId, str], None] = lambda _peer, _reason: None,
    ) -> None:
        self.store = store
        self._net = net
        self._me = identity.peer_id
        self._ask = ask
        self._hosts = hosts
        self._clock = clock
        self._on_violation = on_violation
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sparkle-blob")
        self._lines = ThreadPoolExecutor(LINES, thread_name_prefix="sparkle-blob-line")
        certificate = make_certificate(identity, net)
        office = TicketOffice(secrets.token_bytes(32))
        self._server = BulkServer(store, office, certificate, clock, self._threads)
        self._holder = Holder(store, office, certificate, may_read, clock, self._threads)
        self._connections = Connections(client_context())
        self._settling: asyncio.Task[None] | None = None
        self._stopped = False
        self._running: dict[BlobId, _Running] = {}
        self._places = asyncio.Semaphore(MAX_FETCHES)
        self._links: OrderedDict[PeerId, LinkEstimate] = OrderedDict()

    # --- life -------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """Where the HTTPS server listens; 0 while it does not."""
        return self._holder.port

    @property
    def answering(self) -> int:
        """How many answers are being sent over HTTPS now."""
        return self._server.answering

    async def start(self, host: str, port: int = 0) -> None:
        """Serve blobs over HTTPS at this address. Raises ConfigError (the port is taken)."""
        await self._server.start(host, port)
        self._holder.port = self._server.port
        if self._settling is None:
            self._settling = asyncio.get_running_loop().create_task(self._settle(), name="sparkle-blob-settle")

    async def stop(self) -> None:
        """End all fetches, which can be gone on from, and all answers. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._holder.port = 0
        tasks: list[asyncio.Task[Any]] = [running.task for running in self._running.values()]
        if self._settling is not None:
            tasks.append(self._settling)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._connections.close()
        await self._server.stop()
        await self._settle_all()
        for pool in (self._lines, self._threads):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    async def _settle(self) -> None:
        """Sync what has arrived, some time after the system has begun to by itself: then it costs next to nothing."""
        while True:
            await asyncio.sleep(SETTLE_EVERY_S)
            await self._settle_all()

    async def _settle_all(self) -> None:
        for blob in self.store.unsettled():
            try:
                await self._in_thread(partial(self.store.settle, blob))
            except SparkleError as error:  # evicted meanwhile, or the disk fails: then it is hashed after a restart
                log.warning("a blob could not be synced: %s", error)

    # --- serving ----------------------------------------------------------------------------------------------

    async def serve(self, peer: PeerId, request: messages.BlobRequest) -> messages.Reply:
        """The reply to a peer's request over libp2p."""
        if self._stopped:
            return messages.Refusal("stopping", "this node is leaving")
        return await self._holder.answer(peer, request)

    # --- fetching ---------------------------------------------------------------------------------------------

    async def fetch(
        self,
        blob: BlobId,
        peers: Sequence[PeerId],
        *,
        spare: Sequence[PeerId] = (),
        durable: bool = False,
        size: int | None = None,
        on_progress: OnProgress = lambda _progress: None,
    ) -> FetchReport:
        """Have the blob in the store, from all of these peers at once; go on where an earlier fetch stopped.

        ``spare`` may have it as well: they are asked when one of the others fails, or nothing comes for a while.

        A blob that is being fetched already is not fetched twice: the peers join in. Cancelling one caller does not
        disturb the others; with the last one the fetch ends. Pin the blob first if it must stay.

        With ``durable`` it returns when not even a power cut can harm the blob: for those who vouch for it to others.
        Without, that is seen to within a minute; a blob that was harmed before then is noticed and fetched again.

        With ``size`` a blob of another size is refused before any of it is fetched: an id tells nothing of it.

        Raises:
            RemoteProtocolError: the blob has another size than it should have.
            TransportError: none of the peers gives it; what came is kept.
            StorageError: it does not fit, or the disk does not take it; what came is kept.
        """
        if self._stopped:
            raise TransportError("this node is leaving")
        here = blob in self.store
        report = FetchReport({}) if here else await self._fetch_shared(blob, peers, spare, size, on_progress)
        if size is not None:
            _check_size(blob, self.store.size(blob), size)
        if durable:
            await self._in_thread(lambda: self.store.settle(blob))
        return report

    async def _fetch_shared(
        self,
        blob: BlobId,
        peers: Sequence[PeerId],
        spare: Sequence[PeerId],
        size: int | None,
        on_progress: OnProgress,
    ) -> FetchReport:
        while (running := self._running.get(blob)) is not None and running.ending:
            await asyncio.wait([running.task])
            await asyncio.sleep(0)  # its end is noted
        if running is None:
            running = self._begin(blob, tuple(peers), size)
        else:
            self._join(running, peers)
        self._add_spare(running, spare)
        running.listeners.append(on_progress)
        try:
            return await asyncio.shield(running.task)
        finally:
            running.listeners.remove(on_progress)
            if not running.listeners:
                running.ending = True
                running.task.cancel()
                await asyncio.wait([running.task])  # unlike gather this hands no further cancellation on

    def _begin(self, blob: BlobId, peers: tuple[PeerId, ...], size: int | None) -> _Running:
        task = asyncio.get_running_loop().create_task(self._fetch(blob, peers, size), name="sparkle-blob-fetch")
        running = self._running[blob] = _Running(task, [])

        def ended(_: object) -> None:
            running.ending = True
            del self._running[blob]

        task.add_done_callback(ended)
        return running

    def _join(self, running: _Running, peers: Sequence[PeerId]) -> None:
        for peer in peers:
            if running.fetch is None:
                running.joined[peer] = None
            elif peer != self._me:
                running.fetch.add(peer, self._links.get(peer))

    def _add_spare(self, running: _Running, spare: Sequence[PeerId]) -> None:
        for peer in spare:
            if running.fetch is None:
                running.spare[peer] = None
            elif peer != self._me:
                running.fetch.add_spare(peer, self._links.get(peer))

    async def _fetch(self, blob: BlobId, peers: tuple[PeerId, ...], size: int | None) -> FetchReport:
        async with self._places:
            outline = await self._in_thread(lambda: self.store.outline(blob))
            running = self._running[blob]
            if outline is None:
                asked = tuple({**dict.fromkeys(peers), **running.spare})
                outline, teller = await fetch_outline(blob, asked, self._ask, self._on_violation, self._clock)
                peers = tuple(dict.fromkeys((*peers, teller)))  # surely has it, the others may be away
            if size is not None:
                _check_size(blob, outline.size, size)
            known: Outline = outline
            with contextlib.closing(await self._begun(known)) as target:
                fetch = Fetch(
                    target,
                    lambda peer: PeerSource(
                        peer, known, self._ask,
                        net=self._net, hosts=self._hosts, connections=self._connections,
                        clock=self._clock, threads=self._threads, lines=self._lines,
                    ),
                    clock=self._clock,
                    threads=self._threads,
                    on_progress=lambda progress: _tell_all(running.listeners, progress),
                    on_violation=self._on_violation,
                )  # fmt: skip
                running.fetch = fetch
                sources = [peer for peer in {**dict.fromkeys(peers), **running.joined} if peer != self._me]
                spare = [peer for peer in running.spare if peer != self._me and peer not in sources]
                try:
                    await fetch.run(self._with_links(sources[:MAX_SOURCES]), self._with_links(spare[:MAX_SOURCES]))
                finally:
                    self._learn(fetch.report)
                return fetch.report

    async def _begun(self, outline: Outline) -> Partial:
        """A file to write to. Who is cancelled meanwhile leaves none open: nobody else could write it then."""
        beginning = asyncio.get_running_loop().run_in_executor(self._threads, self.store.begin, outline)
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_close)
            await asyncio.wait([beginning])
            raise

    def _with_links(self, peers: Sequence[PeerId]) -> dict[PeerId, LinkEstimate | None]:
        return {peer: self._links.get(peer) for peer in peers}

    def _learn(self, report: FetchReport) -> None:
        for peer, link in (report.links or {}).items():
            self._links[peer] = link
            self._links.move_to_end(peer)
        while len(self._links) > MAX_LINKS:
            self._links.popitem(last=False)

    def links(self) -> dict[PeerId, LinkEstimate]:
        """What transfers told about the links to peers."""
        return dict(self._links)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _close(beginning: "asyncio.Future[Partial]") -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().close()


def _check_size(blob: BlobId, size: int, wanted: int) -> None:
    if size != wanted:
        raise RemoteProtocolError(f"the blob {blob.hex()[:12]} has {size} bytes and should have {wanted}")


def _tell_all(listeners: list[OnProgress], progress: FetchProgress) -> None:
    for listener in tuple(listeners):
        listener(progress)
