"""What was stated about trust in one job: by its submitter about workers and audits, by keepers about audits."""

from collections import Counter

from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import AuditSecret, JobSpec, Standings
from sparkle_protocol.ids import FactId, PeerId, digest, key_from_peer_id, peer_id_from_key

FEW_CALLS = 16  # so many audits may a keeper call for in any job
CALLED_SHARE = 4  # and for one in so many of its units: its coin never gives more (``judges.ALWAYS_PERMILLE``)


def check_secret(opened: AuditSecret, spec: JobSpec, *, by_submitter: bool) -> None:
    """Return when the secret is the one that the spec commits to, else raise RemoteProtocolError."""
    if not by_submitter or digest(opened.secret) != spec.audit_commitment:
        raise RemoteProtocolError("an audit secret that is not the one that the job's spec commits to")


class StatedStandings:
    """The statement of the highest number; of equal ones that of the lowest id, so that all copies agree."""

    __slots__ = ("_calls", "_most_calls", "_permille", "newest", "secret", "stated")

    def __init__(self, units: int) -> None:
        self.secret: bytes | None = None  # behind the spec's ``audit_commitment``, once the job is over
        self._calls: Counter[PeerId] = Counter()  # units for which each keeper wanted a second answer
        self._most_calls = max(FEW_CALLS, units // CALLED_SHARE)
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

    def called(self, keeper: PeerId, units: int) -> None:
        """A keeper wants second answers for some units."""
        self._calls[keeper] += units

    def hears(self, keeper: PeerId) -> bool:
        """It does not want them for too many, which would have everything computed twice."""
        return self._calls[keeper] <= self._most_calls

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
