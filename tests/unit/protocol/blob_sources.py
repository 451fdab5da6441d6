"""Sources as a transfer sees them, on virtual time: each answers one ask after the other at its own rate."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from sparkle_protocol.blobs import transfer as tr
from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.tree import CHUNK_BYTES, Outline
from sparkle_protocol.ids import PeerId

SECOND = 1_000_000_000


@dataclass
class Model:
    """How a source behaves. ``rate`` may depend on time (bytes per second)."""

    rate: Callable[[float], float]
    latency_s: float = 0.001
    wrong: frozenset[int] = frozenset()
    breaks_at_s: tuple[float, ...] = ()  # all connections break then


@dataclass
class _Served:
    ask: int
    chunk: int
    last: int
    ready_s: float
    sent: float = 0.0


@dataclass
class Run:
    """One transfer against models; ``effects`` with the time they were ordered at."""

    outline: Outline
    models: dict[str, Model]
    have: Bitmap | None = None
    step_s: float = 0.02
    effects: list[tuple[float, tr.Effect]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)  # chunks that came, by source
    asked: Counter[int] = field(default_factory=Counter)  # how often each chunk was asked for

    def __post_init__(self) -> None:
        self.core = tr.Transfer(self.outline, self.have or Bitmap(self.outline.chunks))
        self.now_s = 0.0
        self._queues: dict[str, list[_Served]] = defaultdict(list)
        self._breaks = [(at, name) for name, model in self.models.items() for at in model.breaks_at_s]
        heapq.heapify(self._breaks)

    def tell(self, event: tr.Event) -> None:
        for effect in self.core.handle(event, round(self.now_s * SECOND)):
            self.effects.append((self.now_s, effect))
            match effect:
                case tr.AskChunks():
                    self.asked.update(range(effect.first, effect.last + 1))
                    ready_s = self.now_s + self.models[effect.source].latency_s
                    self._queues[effect.source].append(_Served(effect.ask, effect.first, effect.last, ready_s))
                case tr.CancelAsk():
                    for queue in self._queues.values():
                        queue[:] = [served for served in queue if served.ask != effect.ask]

    def go(self, until_s: float = 600.0) -> "Run":
        for name in self.models:
            self.tell(tr.SourceJoined(PeerId(name)))
        while not self.core.over and self.now_s < until_s:
            self.now_s += self.step_s
            while self._breaks and self._breaks[0][0] <= self.now_s:
                self._break(heapq.heappop(self._breaks)[1])
            for name in self.models:
                self._serve(name)
            self.tell(tr.Tick())
        return self

    def _break(self, name: str) -> None:
        for served in list(self._queues[name]):
            self.tell(tr.AskFailed(served.ask, "lost", "the connection broke"))
        self._queues[name].clear()

    def _serve(self, name: str) -> None:
        model, budget = self.models[name], self.models[name].rate(self.now_s) * self.step_s
        while budget > 0 and self._queues[name] and self._queues[name][0].ready_s <= self.now_s:
            served = self._queues[name][0]
            size = self.outline.chunk_size(served.chunk)
            count = min(budget, size - served.sent)
            served.sent += count
            budget -= count
            self.tell(tr.BytesCame(served.ask, round(count)))
            if served.sent >= size:
                self._deliver(name, served, served.chunk in model.wrong)

    def _deliver(self, name: str, served: _Served, wrong: bool) -> None:
        chunk = served.chunk
        served.chunk, served.sent = chunk + 1, 0.0
        if chunk == served.last:
            self._queues[name].remove(served)
        self.sent[name] += 1
        self.tell(tr.ChunkCame(served.ask, chunk))
        self.tell(tr.ChunkWrong(served.ask, chunk) if wrong else tr.ChunkStored(served.ask, chunk))
        if chunk == served.last:
            self.tell(tr.AskEnded(served.ask))

    def of(self, kind: type) -> list[tr.Effect]:
        return [effect for _, effect in self.effects if isinstance(effect, kind)]

    @property
    def finished(self) -> bool:
        return bool(self.of(tr.Finished))


def outline_of(chunks: int) -> Outline:
    """Of a blob whose content does not matter."""
    return Outline(chunks * CHUNK_BYTES, bytes(32 * chunks))


def steady(rate: float, **more: object) -> Model:
    return Model(lambda _now_s: rate, **more)  # type: ignore[arg-type]
