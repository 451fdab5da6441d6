"""What a link is worth, measured in passing: round trip and bandwidth as exponential moving averages."""

from dataclasses import dataclass

NS = 1_000_000_000
_WEIGHT = 0.3  # of a new sample: three samples make two thirds of the figure
SAMPLE_NS = NS // 4  # bandwidth over less time says more about buffers than about the link


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """A link as seen from here; None where nothing was measured yet."""

    latency_ns: int | None = None  # from a request to its first byte
    bytes_per_s: float | None = None  # while something was asked for
    received: int = 0  # bytes so far


class LinkMeter:
    """Measures one link. Time is an argument."""

    __slots__ = ("_began_ns", "_bytes", "bytes_per_s", "latency_ns", "received")

    def __init__(self, known: LinkEstimate | None = None) -> None:
        known = known or LinkEstimate()
        self.latency_ns = known.latency_ns
        self.bytes_per_s = known.bytes_per_s
        self.received = known.received
        self._began_ns: int | None = None  # of the sample
        self._bytes = 0

    @property
    def estimate(self) -> LinkEstimate:
        """What is known by now."""
        return LinkEstimate(self.latency_ns, self.bytes_per_s, self.received)

    def answered(self, took_ns: int) -> None:
        """The first byte of an answer came so long after the question."""
        old = self.latency_ns
        self.latency_ns = took_ns if old is None else round(old + _WEIGHT * (took_ns - old))

    def busy(self, now_ns: int) -> None:
        """From now on something is under way."""
        if self._began_ns is None:
            self._began_ns, self._bytes = now_ns, 0

    def took(self, count: int, now_ns: int) -> None:
        """So many bytes came."""
        self.received += count
        self._bytes += count
        if self._began_ns is not None and now_ns - self._began_ns >= SAMPLE_NS:
            self._sample(now_ns - self._began_ns)
            self._began_ns = now_ns

    def idle(self, now_ns: int) -> None:
        """Nothing is under way any more. What came too fast to be a sample counts if nothing else is known."""
        if self._began_ns is not None and now_ns > self._began_ns and self.bytes_per_s is None and self._bytes:
            self._sample(now_ns - self._began_ns)
        self._began_ns = None

    def _sample(self, took_ns: int) -> None:
        rate = self._bytes * NS / took_ns
        old = self.bytes_per_s
        self.bytes_per_s = rate if old is None else old + _WEIGHT * (rate - old)
        self._bytes = 0

    def rate(self, now_ns: int) -> float | None:
        """Bytes per second as of now: the average, or less if the running sample has been slower for a while."""
        if self._began_ns is None or now_ns - self._began_ns < 4 * SAMPLE_NS:
            return self.bytes_per_s
        running = self._bytes * NS / (now_ns - self._began_ns)
        return running if self.bytes_per_s is None else min(running, self.bytes_per_s)
