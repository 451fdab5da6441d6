"""One blob on its way to a simulated node: performs what the production cores of a transfer decide."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from sparkle_protocol.blobs import outlines
from sparkle_protocol.blobs import transfer as tr
from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.spare_sources import SpareSources
from sparkle_protocol.blobs.tree import BlobId, Outline
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError, TransportError
from sparkle_protocol.ids import PeerId
from sparkle_sim.blobs import outline_of
from sparkle_sim.processes import Process, Promise
from sparkle_sim.uplinks import Flow

if TYPE_CHECKING:
    from sparkle_sim.bulk import Bulk


class Declined(TransportError):
    """The peer does not have this blob: asking again is of no use."""


class Stream:
    """An answer on its way: a span of chunks, from one peer to another."""

    __slots__ = ("answer", "asker", "blob", "came", "delay_ns", "flow", "left", "marks", "serving")

    def __init__(self, asker: "Bulk", blob: BlobId, marks: Sequence[int], came: Callable[[int], None]) -> None:
        self.asker = asker
        self.blob = blob
        self.marks = marks
        self.came = came  # told of each chunk of the span that is here
        self.answer: Promise[None] = Promise()
        self.flow: Flow | None = None
        self.left = False  # the asker wants no more
        self.serving = False  # it takes a place at the server
        self.delay_ns = 0

    def take(self, mark: int) -> None:
        """A chunk is here."""
        if not self.left:
            self.came(mark)
            if mark == len(self.marks) - 1:
                self.answer.set(None)


@dataclass(slots=True)
class _Ask:
    """Chunks that a source was asked for."""

    stream: Stream
    told: int = 0  # bytes of which the core knows
    process: Process | None = None


class BlobFetch:
    """A fetch that several callers may wait for; ``run`` returns when the blob is here.

    Args:
        bulk: of the node.
        blob: which one.
        size: what it must have; None: any.
    """

    def __init__(self, bulk: "Bulk", blob: BlobId, size: int | None) -> None:
        self.waiting = 0  # callers
        self.process: Process | None = None
        self._bulk = bulk
        self._blob = blob
        self._size = size
        self._first: dict[PeerId, None] = {}
        self._spare: dict[PeerId, None] = {}
        self._core: SpareSources | None = None
        self._outline: Outline | None = None
        self._have: Bitmap | None = None
        self._asks: dict[int, _Ask] = {}
        self._over: Promise[None] = Promise()
        self._ring: int | None = None

    @property
    def started(self) -> Process:
        """The coroutine that it is."""
        if self.process is None:
            raise LocalProtocolError("a fetch was joined before it began")
        return self.process

    def add(self, first: Iterable[PeerId], spare: Iterable[PeerId]) -> None:
        """Further peers that should have the blob, and such that may have it."""
        links = self._bulk.links
        for peer in first:
            self._first[peer] = None
            if self._core is not None:
                self._tell(tr.SourceJoined(peer, links.get(peer)))
        for peer in spare:
            self._spare[peer] = None
            if self._core is not None:
                self._core.add(peer, links.get(peer))

    async def run(self) -> None:
        """Have the blob here. Raises TransportError, StorageError, RemoteProtocolError."""
        bulk, blob = self._bulk, self._blob
        try:
            async with bulk.places:
                part = bulk.files.part(blob)
                size = part[0] if part is not None else await self._find_size()
                if self._size is not None and size != self._size:
                    raise RemoteProtocolError(f"a blob has {size} bytes and should have {self._size}")
                self._outline = outline_of(size)
                self._have = bulk.files.begin(blob, size, bulk.pinned)
                if not self._have.full:
                    await self._transfer(self._outline, self._have)
                bulk.files.finish(blob)
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        bulk = self._bulk
        if bulk.running.get(self._blob) is self:
            del bulk.running[self._blob]
        for ask in list(self._asks.values()):
            if ask.process is not None:
                ask.process.cancel()
        self._asks.clear()
        if self._core is not None:
            bulk.learn({peer: source.meter.estimate for peer, source in self._core.transfer.sources.items()})
            self._core = None

    # --- what it consists of ----------------------------------------------------------------------------------

    async def _find_size(self) -> int:
        """From the first peer that tells it, which surely has the blob."""
        bulk, kernel = self._bulk, self._bulk.world.kernel
        search = outlines.OutlineSearch({**self._first, **self._spare})
        found: Promise[tuple[PeerId, int]] = Promise()
        asking: list[Process] = []

        def tell(event: outlines.NotTold | outlines.Tick) -> None:
            if found.done:
                return
            for effect in search.handle(event, kernel.now):
                if isinstance(effect, outlines.AskOutline):
                    asking.append(bulk.loop.begin(ask(effect.peer)))
                else:
                    found.fail(TransportError(f"no peer has the blob ({effect.reason})"))
            due = search.next_deadline()
            if due is not None:
                kernel.at(due, bulk.loop.soon, lambda: tell(outlines.Tick()))

        async def ask(peer: PeerId) -> None:
            target = bulk.world.index[peer]
            bulk.world.note(bulk.number, "ask outline", f"{target} {self._blob.hex()[:8]}")
            try:
                size = await bulk.ask(target, lambda far: far.tell_outline(self._blob))
            except TransportError as error:
                tell(outlines.NotTold(peer, str(error)))
            else:
                if size is None:
                    tell(outlines.NotTold(peer, "it has no such blob"))
                else:
                    found.set((peer, size))

        try:
            tell(outlines.Tick())
            teller, size = await found
        finally:
            for process in asking:
                process.cancel()
        self._first[teller] = None
        self._spare.pop(teller, None)
        return size

    # --- its chunks -------------------------------------------------------------------------------------------

    async def _transfer(self, outline: Outline, have: Bitmap) -> None:
        if not self._first:
            raise TransportError("nobody to fetch the blob from is known")
        core = self._core = SpareSources(tr.Transfer(outline, have))
        links = self._bulk.links
        for peer in self._spare:
            core.add(peer, links.get(peer))
        for peer in list(self._first):
            self._tell(tr.SourceJoined(peer, links.get(peer)))
        await self._over

    def _tell(self, event: tr.Event) -> None:
        if self._core is None:
            return
        for effect in self._core.handle(event, self._bulk.world.kernel.now):
            self._perform(effect)
        self._arm()

    def _perform(self, effect: tr.Effect) -> None:
        match effect:
            case tr.AskChunks():
                self._begin(effect)
            case tr.CancelAsk():
                ask = self._asks.pop(effect.ask, None)
                if ask is not None and ask.process is not None:
                    ask.process.cancel()
            case tr.DropSource():
                index = self._bulk.world.index[effect.source]
                self._bulk.world.note(self._bulk.number, "drop source", f"{index} {effect.reason}")
            case tr.Finished():
                self._over.set(None)
            case tr.GaveUp():
                self._over.fail(TransportError(f"the blob {self._blob.hex()[:12]} cannot be had: {effect.reason}"))

    def _arm(self) -> None:
        kernel, core = self._bulk.world.kernel, self._core
        due = core.next_deadline() if core is not None else None
        if core is None or due is None:
            return
        soon = core.reconsider_after_ns()
        due = max(kernel.now, due if soon is None else min(due, kernel.now + soon))
        if self._ring is None or due < self._ring:
            self._ring = due
            kernel.at(due, self._rung, due)

    def _rung(self, due: int) -> None:
        if self._ring == due:
            self._ring = None
            self._bulk.loop.soon(self._look)

    def _look(self) -> None:
        """Say what came since, also of chunks that are not whole yet: who is slow then does not seem to trickle."""
        uplinks = self._bulk.world.network.uplinks
        for number, ask in list(self._asks.items()):
            if ask.stream.flow is not None:
                self._came(number, ask, round(uplinks.sent_of(ask.stream.flow)))
        self._tell(tr.Tick())

    def _came(self, number: int, ask: _Ask, sent: int) -> None:
        if sent > ask.told:
            count, ask.told = sent - ask.told, sent
            self._tell(tr.BytesCame(number, count))

    # --- one ask ----------------------------------------------------------------------------------------------

    def _begin(self, effect: tr.AskChunks) -> None:
        outline, bulk = self._outline, self._bulk
        if outline is None:
            return
        marks = tuple(accumulate(outline.chunk_size(chunk) for chunk in range(effect.first, effect.last + 1)))
        stream = Stream(bulk, self._blob, marks, lambda mark: self._take(effect, mark))
        ask = self._asks[effect.ask] = _Ask(stream)
        target = bulk.world.index[effect.source]
        bulk.world.note(bulk.number, "ask chunks", f"{target} {self._blob.hex()[:8]} {effect.first}-{effect.last}")
        ask.process = bulk.loop.begin(self._read(effect.ask, target, stream))

    async def _read(self, number: int, target: int, stream: Stream) -> None:
        event: tr.Event = tr.AskEnded(number)
        try:
            await self._bulk.read(target, stream)
        except Declined as error:
            event = tr.AskFailed(number, "refused", str(error))
        except TransportError as error:
            event = tr.AskFailed(number, "lost", str(error))
        if self._asks.pop(number, None) is not None:
            self._tell(event)

    def _take(self, effect: tr.AskChunks, mark: int) -> None:
        """A chunk is here; that it is right is seen at once."""
        ask, have = self._asks.get(effect.ask), self._have
        if ask is None or have is None:
            return
        chunk = effect.first + mark
        self._came(effect.ask, ask, ask.stream.marks[mark])
        self._tell(tr.ChunkCame(effect.ask, chunk))
        have.add(chunk)
        self._tell(tr.ChunkStored(effect.ask, chunk))
