"""What peers did wrong here, kept also after they have gone: counts and the latest reasons, in bounds."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from sparkle_protocol.ids import PeerId

PEERS_KEPT = 1024  # the one that has been good for longest is forgotten first
REASONS_KEPT = 8


@dataclass(slots=True)
class Record:
    """Rule violations of one peer: how many, and the latest reasons with their times (Unix seconds)."""

    violations: int = 0
    reasons: "deque[tuple[float, str]]" = field(default_factory=lambda: deque(maxlen=REASONS_KEPT))


class Offenders:
    """Rule violations by peer."""

    def __init__(self) -> None:
        self._records: OrderedDict[PeerId, Record] = OrderedDict()

    def note(self, peer: PeerId, reason: str, time_s: float) -> None:
        """A peer broke a rule."""
        record = self._records.setdefault(peer, Record())
        record.violations += 1
        record.reasons.append((time_s, reason))
        self._records.move_to_end(peer)
        while len(self._records) > PEERS_KEPT:
            self._records.popitem(last=False)

    def of(self, peer: PeerId) -> Record:
        """What is known of a peer."""
        return self._records.get(peer, Record())

    def all(self) -> tuple[PeerId, ...]:
        """Peers with violations, the latest offender last."""
        return tuple(self._records)

    @property
    def total(self) -> int:
        """Violations of all peers that are remembered."""
        return sum(record.violations for record in self._records.values())
