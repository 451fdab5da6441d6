"""Token buckets per peer."""

from collections import OrderedDict
from dataclasses import dataclass

MAX_BUCKETS = 4096  # least recently seen peers are forgotten first, which refills their bucket


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float
    refused: int = 0


class RateLimiter:
    """Allows each key ``burst`` events at once and ``per_s`` lasting. Time is an argument."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def allow(self, key: str, now_s: float) -> bool:
        """Whether one more event of this key is within the rate; takes a token if so."""
        bucket = self._buckets.setdefault(key, _Bucket(self._burst, now_s))
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now_s - bucket.at_s) * self._per_s)
        bucket.at_s = now_s
        if bucket.tokens < 1.0:
            bucket.refused += 1
            return False
        bucket.tokens -= 1.0
        bucket.refused = 0
        return True

    def first_refusal(self, key: str) -> bool:
        """Whether the latest refusal is the first since the key was last within its rate."""
        bucket = self._buckets.get(key)
        return bucket is not None and bucket.refused == 1
