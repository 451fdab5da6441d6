"""What a submitter stated about workers, for those who judge in its place."""

from sparkle_protocol.facts import Standings
from sparkle_protocol.ids import FactId, PeerId, key_from_peer_id, peer_id_from_key


class StatedStandings:
    """The statement of the highest number; of equal ones that of the lowest id, so that all copies agree."""

    __slots__ = ("_permille", "newest", "stated")

    def __init__(self) -> None:
        self.stated = 0  # how many statements were seen
        self.newest: tuple[int, FactId] | None = None
        self._permille: dict[PeerId, int] = {}

    def add(self, fact_id: FactId, standings: Standings) -> None:
        """Learn of a statement."""
        self.stated += 1
        newest = self.newest
        if newest is not None and (newest[0], fact_id) > (standings.number, newest[1]):
            return
        self.newest = (standings.number, fact_id)
        self._permille = {peer_id_from_key(item.worker): item.audit_permille for item in standings.items}

    @property
    def next_number(self) -> int:
        """The number of a statement that replaces those that are known."""
        return self.newest[0] + 1 if self.newest is not None else 0

    def permille(self, worker: PeerId) -> int | None:
        """How many of a thousand results of the worker are to be audited; None: its answers do not count."""
        return self._permille.get(worker)

    def __len__(self) -> int:
        return len(self._permille)

    def by_key(self) -> dict[bytes, int]:
        """All that counts, by the workers' keys."""
        return {key_from_peer_id(worker): permille for worker, permille in self._permille.items()}
