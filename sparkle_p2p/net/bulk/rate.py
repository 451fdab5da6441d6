"""How many requests a peer may make: a token bucket per peer."""

from sparkle_protocol.ids import PeerId

NS = 1_000_000_000
MAX_PEERS = 1024  # remembered; those whose bucket is full are forgotten first, which changes nothing for them


class RateLimit:
    """``per_s`` in the long run, ``burst_s`` times as many at once."""

    def __init__(self, per_s: float, *, burst_s: float) -> None:
        self._per_s = per_s
        self._burst_ns = round(burst_s * NS)
        self._full_at_ns: dict[PeerId, int] = {}  # when each bucket is full again (GCRA: one number per peer)

    def take(self, peer: PeerId, now_ns: int) -> bool:
        """Whether the peer may make a request now; counts it if so."""
        cost_ns = round(NS / self._per_s)
        full_at_ns = max(self._full_at_ns.get(peer, now_ns), now_ns)
        if full_at_ns + cost_ns - now_ns > self._burst_ns:
            return False
        self._full_at_ns[peer] = full_at_ns + cost_ns
        if len(self._full_at_ns) > MAX_PEERS:
            self._full_at_ns = {peer: at_ns for peer, at_ns in self._full_at_ns.items() if at_ns > now_ns}
        return True
