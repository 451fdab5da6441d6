"""Decides which chunk of a blob to ask of which source next.

Rules:

- A chunk is asked of one source. Only when none is left to ask for, a source with nothing to do takes over half of
  what the slowest one still owes, if that is worth it; so at most two send the same chunk at a time.
- Sources are asked for spans of chunks, so long that one takes about half a second, and asked again shortly before
  they have nothing left to send: by the bandwidth and latency measured in passing.
- A source that sends a wrong byte is dropped, which is a violation. One that trickles is dropped if others are there,
  which is none. One whose connection breaks rests and is asked again.
- What is stored stays stored: a transfer that gives up or is killed goes on later from there.

``handle`` takes an event and the time and returns effects in order; call it with ``Tick`` at ``next_deadline``.
"""

from dataclasses import dataclass
from typing import Literal

from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.link import NS, LinkEstimate, LinkMeter
from sparkle_protocol.blobs.source import Ask, Source
from sparkle_protocol.blobs.tree import CHUNK_BYTES, Outline
from sparkle_protocol.ids import PeerId, short_peer

MAX_SOURCES = 16
PATIENCE_NS = 60 * NS  # without a chunk from anybody
RECONSIDER_NS = NS // 4  # how often to look whether a slow source is to be overtaken
WORTH_NS = NS // 10  # what overtaking must save at least


@dataclass(frozen=True, slots=True)
class SourceJoined:
    """This peer has the blob. Of a resting source: it is back."""

    source: PeerId
    link: LinkEstimate | None = None  # from earlier transfers


@dataclass(frozen=True, slots=True)
class BytesCame:
    """So many bytes of an answer came over the wire."""

    ask: int
    count: int


@dataclass(frozen=True, slots=True)
class ChunkCame:
    """A whole chunk came and is being checked and written."""

    ask: int
    chunk: int


@dataclass(frozen=True, slots=True)
class ChunkStored:
    """It was right and is on disk."""

    ask: int
    chunk: int


@dataclass(frozen=True, slots=True)
class ChunkWrong:
    """Its bytes are not the blob's."""

    ask: int
    chunk: int


@dataclass(frozen=True, slots=True)
class AskEnded:
    """The answer is complete."""

    ask: int


@dataclass(frozen=True, slots=True)
class AskFailed:
    """No more comes: the connection broke (lost), the source declines (refused) or breaks a rule (broke)."""

    ask: int
    how: Literal["lost", "refused", "broke"]
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = SourceJoined | BytesCame | ChunkCame | ChunkStored | ChunkWrong | AskEnded | AskFailed | Tick


@dataclass(frozen=True, slots=True)
class AskChunks:
    """Ask ``source`` for chunks ``first`` to ``last``, in order. Compressed if that is likely to be faster."""

    ask: int
    source: PeerId
    first: int
    last: int
    compress: bool


@dataclass(frozen=True, slots=True)
class CancelAsk:
    """Nothing of it is needed any more. No event follows for it."""

    ask: int


@dataclass(frozen=True, slots=True)
class DropSource:
    """It is not asked again. ``violation``: it broke a rule, and this is the evidence."""

    source: PeerId
    reason: str
    violation: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """All chunks are stored."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No source is left, or none has sent anything for long. What is stored can be gone on from."""

    reason: str


Effect = AskChunks | CancelAsk | DropSource | Finished | GaveUp

COMPRESS_BELOW = 60e6  # bytes per second; above it the processor time is worth more than what the line saves
TRY_AGAIN = 16  # asks after one that did not shrink: parts of a blob may differ
SHRUNK = 0.9


class Transfer:
    """One blob on its way here."""

    def __init__(self, outline: Outline, have: Bitmap, *, patience_ns: int = PATIENCE_NS) -> None:
        self.have = have.copy()
        self.sources: dict[PeerId, Source] = {}
        self._outline = outline
        self._patience_ns = patience_ns
        self._asked = bytearray(outline.chunks)  # by how many asks each chunk is being fetched
        self._free_from = 0  # no chunk before it is free
        self._free = outline.chunks - have.count
        self._asks: dict[int, Ask] = {}
        self._numbers = 0
        self._plain_asks = 0  # so many are made without compression, since it did not help
        self._over = False
        self._began = False
        self._stored_ns = 0  # when a chunk came last, or when we began
        self._effects: list[Effect] = []

    @property
    def over(self) -> bool:
        """Whether it has finished or given up."""
        return self._over

    def handle(self, event: Event, now_ns: int) -> tuple[Effect, ...]:
        """What to do now that this has happened."""
        if self._over:
            return ()
        self._effects = []
        if not self._began:
            self._began, self._stored_ns = True, now_ns
        match event:
            case SourceJoined():
                self._joined(event)
            case BytesCame():
                self._came(event, now_ns)
            case ChunkCame():
                if ask := self._asks.get(event.ask):
                    ask.storing += 1
            case ChunkStored() | ChunkWrong():
                self._checked(event, now_ns)
            case AskEnded():
                self._ended(event, now_ns)
            case AskFailed():
                self._failed(event, now_ns)
            case Tick():
                pass
        self._look_at_clock(now_ns)
        self._assign(now_ns)
        return tuple(self._effects)

    def next_deadline(self) -> int | None:
        """When to call ``handle(Tick())`` at the latest."""
        if self._over or not self._began:
            return None
        due = [self._stored_ns + self._patience_ns]
        for source in self.sources.values():
            if source.rests_until_ns is not None:
                due.append(source.rests_until_ns)
            if (watched := source.watched_until_ns()) is not None:
                due.append(watched)
        return min(due)

    def reconsider_after_ns(self) -> int | None:
        """How long after now to ``Tick`` in any case: while a source has nothing to do and others have."""
        idle = any(source.ready and not source.asks for source in self.sources.values())
        return RECONSIDER_NS if idle and self._asks and not self._over else None

    # --- events -----------------------------------------------------------------------------------------------

    def _joined(self, event: SourceJoined) -> None:
        known = self.sources.get(event.source)
        if known is not None:
            known.rests_until_ns = None
        elif len(self.sources) < MAX_SOURCES:
            self.sources[event.source] = Source(event.source, LinkMeter(event.link))

    def _came(self, event: BytesCame, now_ns: int) -> None:
        if ask := self._asks.get(event.ask):
            ask.source.came(ask, event.count, now_ns)

    def _checked(self, event: ChunkStored | ChunkWrong, now_ns: int) -> None:
        ask = self._asks.get(event.ask)
        if ask is not None:
            ask.storing -= 1
        if isinstance(event, ChunkWrong):
            if ask is not None:
                self._drop(ask.source, f"chunk {event.chunk} is not what its hash says", True, now_ns)
            return
        self._have(event.chunk, now_ns)
        if ask is not None:
            ask.source.stored()
            self._delivered(ask, event.chunk)
        if self.have.full:
            for number in sorted(self._asks):
                self._cancel(self._asks[number], now_ns)
            self._over = True
            self._effects.append(Finished())
            return
        for number in sorted(self._asks):
            other = self._asks[number]
            if other.first <= event.chunk <= other.last and all(chunk in self.have for chunk in other.left):
                self._cancel(other, now_ns) if other is not ask or other.left else None

    def _have(self, chunk: int, now_ns: int) -> None:
        if chunk not in self.have:
            self.have.add(chunk)
            self._stored_ns = now_ns
            if not self._asked[chunk]:
                self._free -= 1

    def _delivered(self, ask: Ask, chunk: int) -> None:
        """Chunks come in order; what was skipped is here already."""
        for passed in range(ask.next, chunk + 1):
            self._asked[passed] -= 1
            self._count_if_free(passed)
        ask.next = max(ask.next, chunk + 1)

    def _ended(self, event: AskEnded, now_ns: int) -> None:
        ask = self._asks.get(event.ask)
        if ask is None:
            return
        if all(chunk in self.have for chunk in ask.left):
            content = sum(self._outline.chunk_size(chunk) for chunk in range(ask.first, ask.last + 1))
            if ask.compress and ask.came > SHRUNK * content:
                self._plain_asks = TRY_AGAIN
            self._forget(ask, now_ns)
        else:
            self._failed(AskFailed(event.ask, "lost", "the answer ended early"), now_ns)

    def _failed(self, event: AskFailed, now_ns: int) -> None:
        ask = self._asks.get(event.ask)
        if ask is None:
            return
        self._forget(ask, now_ns)
        source = ask.source
        if event.how != "lost":
            self._drop(source, event.reason, event.how == "broke", now_ns)
        elif source.ready:
            self._rest(source, now_ns)

    # --- sources ----------------------------------------------------------------------------------------------

    def _rest(self, source: Source, now_ns: int) -> None:
        for ask in list(source.asks.values()):
            self._cancel(ask, now_ns)
        source.rest(now_ns)

    def _drop(self, source: Source, reason: str, violation: bool, now_ns: int) -> None:
        if source.gone:
            return
        for ask in list(source.asks.values()):
            self._cancel(ask, now_ns)
        source.gone = reason
        source.rests_until_ns = None
        self._effects.append(DropSource(source.peer, reason, violation))

    def _look_at_clock(self, now_ns: int) -> None:
        if self._over:
            return
        for source in self.sources.values():
            if source.rests_until_ns is not None and now_ns >= source.rests_until_ns:
                source.rests_until_ns = None
            if source.trickles(now_ns):
                others = any(other.ready for other in self.sources.values() if other is not source)
                if others:
                    self._drop(source, "it sends less than 16 KiB a second", False, now_ns)
                else:
                    self._rest(source, now_ns)
        late = now_ns - self._stored_ns >= self._patience_ns
        if late or (self.sources and all(source.gone for source in self.sources.values())):
            self._give_up(late, now_ns)

    def _give_up(self, late: bool, now_ns: int) -> None:
        for ask in list(self._asks.values()):
            self._cancel(ask, now_ns)
        self._over = True
        if late:
            reason = f"nothing came for {self._patience_ns // NS} s"
        else:
            reasons = (f"{short_peer(source.peer)}: {source.gone}" for source in self.sources.values())
            reason = f"no source is left ({'; '.join(reasons)})"
        self._effects.append(GaveUp(reason))

    # --- asks -------------------------------------------------------------------------------------------------

    def _assign(self, now_ns: int) -> None:
        """Give work to every source that can take more, one ask each in turn."""
        asked = not self._over
        while asked:
            asked = False
            for source in self.sources.values():
                if not source.ready or not source.wants(now_ns):
                    continue
                span = self._next_span(source, now_ns) or (None if source.asks else self._overtake(source, now_ns))
                if span is not None:
                    self._ask(source, span, now_ns)
                    asked = True

    def _next_span(self, source: Source, now_ns: int) -> range | None:
        """The first free chunks in a row; few enough that the last ones are shared by all sources."""
        if self._free <= 0:
            return None
        while self._free_from < self._outline.chunks and not self._is_free(self._free_from):
            self._free_from += 1
        ready = sum(other.ready for other in self.sources.values())
        most = min(source.span(now_ns), -(-self._free // (2 * ready)) if ready > 1 else self._free)
        end = self._free_from
        while end < self._outline.chunks and end - self._free_from < most and self._is_free(end):
            end += 1
        return range(self._free_from, end)

    def _overtake(self, thief: Source, now_ns: int) -> range | None:
        """The later half of what the slowest other source still owes and nobody else fetches."""
        owed = [
            (ask.source.time_left_ns(now_ns), number, left)
            for number, ask in self._asks.items()
            if ask.source is not thief
            and (left := [c for c in ask.left if self._asked[c] == 1 and c not in self.have])
        ]
        if not owed:
            return None
        wait_ns, _, left = max(owed)
        taken = left[len(left) // 2 :][: thief.span(now_ns)]
        start = next((i for i in range(len(taken) - 1, 0, -1) if taken[i] != taken[i - 1] + 1), 0)
        taken = taken[start:]
        rate = thief.meter.rate(now_ns) or float(CHUNK_BYTES)
        cost_ns = (thief.meter.latency_ns or 0) + len(taken) * CHUNK_BYTES * NS / max(rate, 1.0)
        if wait_ns < 2 * cost_ns + WORTH_NS:
            return None
        return range(taken[0], taken[-1] + 1)

    def _ask(self, source: Source, span: range, now_ns: int) -> None:
        self._numbers += 1
        rate = source.meter.rate(now_ns)
        compress = self._plain_asks == 0 and (rate is None or rate < COMPRESS_BELOW)
        self._plain_asks = max(0, self._plain_asks - 1)
        ask = Ask(self._numbers, source, span[0], span[-1], now_ns, compress)
        self._asks[ask.number] = ask
        source.began(ask, now_ns)
        for chunk in span:
            if self._is_free(chunk):
                self._free -= 1
            self._asked[chunk] += 1
        self._effects.append(AskChunks(ask.number, source.peer, ask.first, ask.last, compress))

    def _cancel(self, ask: Ask, now_ns: int) -> None:
        self._forget(ask, now_ns)
        self._effects.append(CancelAsk(ask.number))

    def _forget(self, ask: Ask, now_ns: int) -> None:
        del self._asks[ask.number]
        ask.source.ended(ask, now_ns)
        for chunk in ask.left:
            self._asked[chunk] -= 1
            self._count_if_free(chunk)
        ask.next = ask.last + 1

    def _is_free(self, chunk: int) -> bool:
        return not self._asked[chunk] and chunk not in self.have

    def _count_if_free(self, chunk: int) -> None:
        if self._is_free(chunk):
            self._free += 1
            self._free_from = min(self._free_from, chunk)
