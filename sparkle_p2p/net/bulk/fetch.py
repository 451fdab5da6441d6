"""Performs a transfer: asks sources as the core says, checks and writes what comes in threads, reports how it goes.

Bounds: ``MAX_SOURCES`` sources with ``MAX_ASKS`` answers each; of each answer one chunk is being written while the
next one comes, and no more is read until it is on disk.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from sparkle_p2p.blobs.partial import Partial
from sparkle_p2p.net.bulk.source import ChunkSource, Declined, NotThere
from sparkle_protocol.blobs import transfer as tr
from sparkle_protocol.blobs.limits import SPARE_S
from sparkle_protocol.blobs.link import LinkEstimate
from sparkle_protocol.blobs.spare_sources import SpareSources
from sparkle_protocol.blobs.tree import Buffer
from sparkle_protocol.errors import RemoteProtocolError, SparkleError, StorageError, TransportError
from sparkle_protocol.ids import PeerId, short_peer

log = logging.getLogger("sparkle.bulk")

TELL_S = 0.1
NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a blob is."""

    stored_bytes: int
    size: int
    bytes_per_s: Mapping[PeerId, float]  # of the sources in use


@dataclass(slots=True)
class FetchReport:
    """What a fetch was like; complete when it has ended."""

    received_bytes: dict[PeerId, int]  # over the wire
    resumed_bytes: int = 0  # were there when it began
    links: dict[PeerId, LinkEstimate] | None = None


class Fetch:
    """One blob on its way here. ``run`` returns when it is stored."""

    def __init__(
        self,
        target: Partial,
        make_source: Callable[[PeerId], ChunkSource],
        *,
        clock: Callable[[], int],
        threads: Executor,
        on_progress: Callable[[FetchProgress], None],
        on_violation: Callable[[PeerId, str], None],
    ) -> None:
        self._partial = target
        self._outline = target.outline
        have = target.have
        self._core = tr.Transfer(target.outline, have)
        self._sourcing = SpareSources(self._core, patience_s=SPARE_S)
        self._make_source = make_source
        self._clock = clock
        self._threads = threads
        self._on_progress = on_progress
        self._on_violation = on_violation
        self._sources: dict[PeerId, ChunkSource] = {}
        self._without: set[PeerId] = set()  # sources that turned out not to have the blob
        self._before: dict[PeerId, int] = {}  # bytes that earlier fetches received from them
        self._asks: dict[int, asyncio.Task[None]] = {}
        self._stored = sum(target.outline.chunk_size(chunk) for chunk in have)
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self.report = FetchReport({}, self._stored)

    # --- life -------------------------------------------------------------------------------------------------

    async def run(
        self, peers: Mapping[PeerId, LinkEstimate | None], spare: Mapping[PeerId, LinkEstimate | None]
    ) -> None:
        """Fetch what is missing from these peers and finish the blob; ``spare``: may have it too.

        Raises:
            TransportError: no source is left, or none sends anything; what came can be gone on from.
            StorageError: the disk does not take it; the same.
        """
        try:
            for peer, link in spare.items():
                self.add_spare(peer, link)
            for peer, link in peers.items():
                self.add(peer, link)
            if not self._partial.have.full:
                if not peers:
                    raise TransportError("nobody to fetch the blob from is known")
                await self._done
            await self._finish()
        finally:
            await self._clean_up()

    async def _finish(self) -> None:
        finishing = self._loop.run_in_executor(self._threads, lambda: self._partial.finish(durable=False))
        try:
            await asyncio.shield(finishing)
        except asyncio.CancelledError:
            await asyncio.gather(finishing, return_exceptions=True)  # nobody closes the file under it
            raise

    def add(self, peer: PeerId, link: LinkEstimate | None = None) -> None:
        """One more source, or one that is back."""
        self._before.setdefault(peer, link.received if link is not None else 0)
        self._tell(tr.SourceJoined(peer, link))

    def add_spare(self, peer: PeerId, link: LinkEstimate | None = None) -> None:
        """One more peer that may have the blob."""
        self._before.setdefault(peer, link.received if link is not None else 0)
        self._sourcing.add(peer, link)
        self._arm()

    async def _clean_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        asks = list(self._asks.values())
        for task in asks:
            task.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
        if self._done.done() and not self._done.cancelled():
            self._done.exception()  # it was raised, or something else was
        sources = self._core.sources.values()
        self.report.received_bytes = {s.peer: s.meter.received - self._before[s.peer] for s in sources}
        self.report.links = {source.peer: source.meter.estimate for source in sources}

    # --- the core ---------------------------------------------------------------------------------------------

    def _tell(self, event: tr.Event) -> None:
        for effect in self._sourcing.handle(event, self._clock()):
            self._perform(effect)
        self._arm()

    def _perform(self, effect: tr.Effect) -> None:
        match effect:
            case tr.AskChunks():
                task = self._loop.create_task(self._run_ask(effect), name="sparkle-blob-ask")
                self._asks[effect.ask] = task
                task.add_done_callback(partial(self._forget, effect.ask))
            case tr.CancelAsk():
                if effect.ask in self._asks:
                    self._asks[effect.ask].cancel()
            case tr.DropSource():
                level = logging.DEBUG if effect.source in self._without else logging.INFO
                log.log(level, "blob source %s dropped: %s", short_peer(effect.source), effect.reason)
                if effect.violation:
                    blob = self._outline.id.hex()[:12]
                    self._on_violation(effect.source, f"blob {blob}: {effect.reason}")
            case tr.Finished():
                if not self._done.done():
                    self._done.set_result(None)
            case tr.GaveUp():
                self._fail(TransportError(f"the blob {self._outline.id.hex()[:12]} cannot be had: {effect.reason}"))

    def _forget(self, ask: int, _task: "asyncio.Task[None]") -> None:
        self._asks.pop(ask, None)

    def _fail(self, error: SparkleError) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _arm(self) -> None:
        """Have the clock looked at in time. Ringing too early costs less than setting it anew each time."""
        deadline = self._sourcing.next_deadline()
        if deadline is None:
            return
        wait_ns = max(0, deadline - self._clock())
        if (soon := self._sourcing.reconsider_after_ns()) is not None:
            wait_ns = min(wait_ns, soon)
        due_s = self._loop.time() + wait_ns / NS
        if self._timer is None or due_s < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._tell(tr.Tick())

    # --- one ask ----------------------------------------------------------------------------------------------

    async def _run_ask(self, ask: tr.AskChunks) -> None:
        source = self._sources.get(ask.source) or self._sources.setdefault(ask.source, self._make_source(ask.source))
        try:
            await source.read(ask.first, ask.last, _AskSink(self, ask.ask), compress=ask.compress)
        except Declined as error:
            if isinstance(error, NotThere):
                self._without.add(ask.source)
            self._tell(tr.AskFailed(ask.ask, "refused", str(error)))
        except TransportError as error:
            log.info("blob source %s: %s", short_peer(ask.source), error)
            self._tell(tr.AskFailed(ask.ask, "lost", str(error)))
        except RemoteProtocolError as error:
            self._tell(tr.AskFailed(ask.ask, "broke", str(error)))
        except StorageError as error:
            self._fail(error)
        except Exception as error:
            log.exception("fetching from %s failed", short_peer(ask.source))
            self._tell(tr.AskFailed(ask.ask, "lost", f"this node failed to read it ({type(error).__name__})"))
        else:
            self._tell(tr.AskEnded(ask.ask))

    def store(self, chunk: int, pieces: Sequence[Buffer]) -> None:
        """Check a chunk and write it; called in threads. Raises RemoteProtocolError, StorageError."""
        self._partial.write(chunk, pieces)

    def happened(self, *events: tr.Event) -> None:
        """Tell the core what a thread has seen."""
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it the transfer
            self._loop.call_soon_threadsafe(self._told, events)

    def _told(self, events: tuple[tr.Event, ...]) -> None:
        for event in events:
            if isinstance(event, tr.ChunkStored) and event.chunk not in self._core.have:
                self._count(event.chunk)
            self._tell(event)

    def _count(self, chunk: int) -> None:
        size = self._outline.chunk_size(chunk)
        self._stored += size
        now_ns = self._clock()
        rates = {
            source.peer: source.meter.rate(now_ns) or 0.0 for source in self._core.sources.values() if source.asks
        }
        self._on_progress(FetchProgress(self._stored, self._outline.size, rates))


class _AskSink:
    """Takes the chunks of one ask, in the thread that they come in."""

    def __init__(self, fetch: Fetch, ask: int) -> None:
        self._fetch = fetch
        self._ask = ask
        self._untold = 0
        self._told_s = time.monotonic()

    def came(self, count: int) -> None:
        """Told once per chunk, or ten times a second: what is told wakes the loop."""
        self._untold += count
        now_s = time.monotonic()
        if now_s - self._told_s >= TELL_S:
            self._fetch.happened(self._bytes(now_s))

    def _bytes(self, now_s: float) -> tr.BytesCame:
        count, self._untold, self._told_s = self._untold, 0, now_s
        return tr.BytesCame(self._ask, count)

    def take(self, chunk: int, pieces: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        self._fetch.happened(self._bytes(time.monotonic()), tr.ChunkCame(self._ask, chunk))
        try:
            self._fetch.store(chunk, pieces)
        except RemoteProtocolError:
            self._fetch.happened(tr.ChunkWrong(self._ask, chunk))
            raise
        self._fetch.happened(tr.ChunkStored(self._ask, chunk))
