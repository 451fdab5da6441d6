"""One source of a transfer: what it was asked for, how fast it is, and whether it is worth asking again.

A source is **ready** (it can be asked), **resting** (its connection broke or it fell silent: asked again after a
pause that doubles, since links heal) or **gone** (it sent wrong bytes, refused, or trickled while others were there).
Resting ends by time or with a ``SourceJoined``; gone is for good.
"""

from dataclasses import dataclass, field

from sparkle_protocol.blobs.link import NS, LinkMeter
from sparkle_protocol.blobs.tree import CHUNK_BYTES
from sparkle_protocol.ids import PeerId

MAX_ASKS = 2  # of one source: the next one waits there when the one before ends
MAX_SPAN = 64  # chunks of one ask
FIRST_SPAN = 2  # while nothing is known of the link
SPAN_NS = NS // 2  # an ask should take so long
AHEAD_NS = NS // 4  # ask again so long before a source has nothing left to send: a fast link is read by two threads
FLOOR_BYTES_PER_S = 16 << 10  # below it a source trickles: one chunk would take more than a minute
WATCH_NS = 10 * NS
REST_NS = NS // 4
MAX_REST_NS = 15 * NS


@dataclass(slots=True)
class Ask:
    """Chunks ``first`` to ``last``, asked of a source, which sends them in order; those before ``next`` came."""

    number: int
    source: "Source"
    first: int
    last: int
    asked_ns: int
    next: int = field(init=False)
    compress: bool = False
    alone: bool = True  # when it was made: otherwise the answer may have waited for the one before
    answered: bool = False
    came: int = 0  # bytes over the wire
    storing: int = 0  # chunks that came and are being checked and written here

    def __post_init__(self) -> None:
        self.next = self.first

    @property
    def left(self) -> range:
        """Chunks that have not come."""
        return range(self.next, self.last + 1)


class Source:
    """A peer that has the blob."""

    __slots__ = ("_watch_bytes", "_watch_ns", "asks", "failures", "gone", "meter", "peer", "rests_until_ns")

    def __init__(self, peer: PeerId, meter: LinkMeter) -> None:
        self.peer = peer
        self.meter = meter
        self.asks: dict[int, Ask] = {}
        self.failures = 0  # in a row
        self.rests_until_ns: int | None = None
        self.gone = ""  # the reason
        self._watch_ns = 0
        self._watch_bytes = 0

    @property
    def ready(self) -> bool:
        """Whether it can be asked."""
        return not self.gone and self.rests_until_ns is None

    @property
    def outstanding(self) -> int:
        """Bytes asked for that have not come, to the chunk."""
        return sum(len(ask.left) for ask in self.asks.values()) * CHUNK_BYTES

    def wants(self, now_ns: int) -> bool:
        """Whether it should be asked for more before what it was asked for has come."""
        if not self.asks:
            return True
        rate = self.meter.rate(now_ns)
        if rate is None or len(self.asks) >= MAX_ASKS:
            return False
        window = rate * ((self.meter.latency_ns or 0) + AHEAD_NS) / NS
        return self.outstanding <= max(CHUNK_BYTES, window)

    def span(self, now_ns: int) -> int:
        """How many chunks to ask for at once."""
        rate = self.meter.rate(now_ns)
        if rate is None:
            return FIRST_SPAN
        return max(1, min(MAX_SPAN, round(rate * SPAN_NS / NS / CHUNK_BYTES)))

    def time_left_ns(self, now_ns: int) -> float:
        """How long it needs for what it was asked for; for a source that never sent anything, ever longer."""
        rate = self.meter.rate(now_ns)
        if rate is None:
            waited = max((now_ns - ask.asked_ns for ask in self.asks.values()), default=0)
            return float("inf") if waited > NS else 0.0
        return self.outstanding * NS / max(rate, 1.0)

    # --- what happens to it ---------------------------------------------------------------------------------

    def began(self, ask: Ask, now_ns: int) -> None:
        """It was asked."""
        if not self.asks:
            self._watch(now_ns)
        ask.alone = not self.asks
        self.asks[ask.number] = ask
        self.meter.busy(now_ns)

    def ended(self, ask: Ask, now_ns: int) -> None:
        """That ask is over, one way or another."""
        self.asks.pop(ask.number, None)
        if not self.asks:
            self.meter.idle(now_ns)

    def came(self, ask: Ask, count: int, now_ns: int) -> None:
        """Bytes came."""
        if not ask.answered:
            ask.answered = True
            if ask.alone:
                self.meter.answered(now_ns - ask.asked_ns)
        ask.came += count
        self._watch_bytes += count
        self.meter.took(count, now_ns)
        if now_ns - self._watch_ns >= WATCH_NS and not self.trickles(now_ns):
            self._watch(now_ns)

    def stored(self) -> None:
        """A chunk of it was right."""
        self.failures = 0

    def rest(self, now_ns: int) -> None:
        """Leave it alone for a while."""
        self.rests_until_ns = now_ns + min(REST_NS << min(self.failures, 10), MAX_REST_NS)
        self.failures += 1

    # --- trickling --------------------------------------------------------------------------------------------

    def _watch(self, now_ns: int) -> None:
        self._watch_ns, self._watch_bytes = now_ns, 0

    def watched_until_ns(self) -> int | None:
        """When to look whether it trickles."""
        return self._watch_ns + WATCH_NS if self.asks else None

    def trickles(self, now_ns: int) -> bool:
        """Whether it sent less than the floor for as long as we watch."""
        if not self.asks or now_ns - self._watch_ns < WATCH_NS:
            return False
        ours = any(ask.storing for ask in self.asks.values())  # it waits for our disk
        if ours or self._watch_bytes * NS >= FLOOR_BYTES_PER_S * (now_ns - self._watch_ns):
            self._watch(now_ns)
            return False
        return True
