"""When and under which keys a worker without keepers looks for work in the routing layer.

- Keepers with open work of a kernel are found under ``SHARDS`` keys; a job is under that of ``shard_of(job)``.
- At once when there is nobody to ask, and again when the first peer comes up; then after 1, 2, 4 … 120 s:
  open work is gossiped as well, and a lookup costs every peer that it asks a stream.
- Not in the first two seconds after the last unit was done: in those, whoever has more usually says so.
- Each time two keys, at random but none again before all others: with one kernel every job is looked for after two
  attempts.
"""

from collections.abc import Sequence
from random import Random

from sparkle_protocol import messages
from sparkle_protocol.effects import FindProviders
from sparkle_protocol.work.lease import SECOND_NS

KEYS_AT_ONCE = 2
FIRST_PAUSE_NS = SECOND_NS
LULL_NS = 2 * SECOND_NS
MAX_PAUSE_NS = 120 * SECOND_NS


class Lookup:
    """The lookups of one worker."""

    def __init__(self, network: str, kernels: Sequence[str], rng: Random) -> None:
        self._network = network
        self._kernels = kernels
        self._rng = rng
        self._deck: list[tuple[str, int]] = []
        self._pause_ns = FIRST_PAUSE_NS
        self._last_ns: int | None = None
        self.due_ns = 0

    def restart(self, now_ns: int) -> None:
        """Something changed for which it is worth looking at once; still no more than one lookup a second."""
        earliest_ns = now_ns if self._last_ns is None else max(now_ns, self._last_ns + FIRST_PAUSE_NS)
        self.due_ns = min(self.due_ns, earliest_ns)
        self._pause_ns = FIRST_PAUSE_NS

    def busy(self, now_ns: int) -> None:
        """There is work at hand."""
        self.due_ns = max(self.due_ns, now_ns + LULL_NS)

    def look(self, now_ns: int) -> list[FindProviders]:
        """The lookups that are due; the next ones are due later than ``now_ns``."""
        if now_ns < self.due_ns:
            return []
        found = [self._draw() for _ in range(KEYS_AT_ONCE)]
        self._last_ns = now_ns
        self.due_ns = now_ns + int(self._pause_ns * self._rng.uniform(0.8, 1.0))
        self._pause_ns = min(2 * self._pause_ns, MAX_PAUSE_NS)
        return found

    def _draw(self) -> FindProviders:
        if not self._deck:
            self._deck = [(kernel, shard) for kernel in self._kernels for shard in range(messages.SHARDS)]
            self._rng.shuffle(self._deck)
        kernel, shard = self._deck.pop()
        return FindProviders(messages.shard_key(self._network, kernel, shard))
