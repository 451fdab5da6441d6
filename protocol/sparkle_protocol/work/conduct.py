"""How many units of a job a worker may hold, by how it behaved in it.

- A worker may have a few undecided units at first (leased, or committed and not judged yet) and two more for each
  that was accepted. So a liar wastes little before the first of its results is compared. Beyond that it may only
  give second answers, one at a time: else everybody could come to wait for everybody.
- One that takes units and does not deliver gets no more than one in a while.
- One that is slow with more units than it ever committed to gets none until it commits: else those who only say that
  they compute, which are always free to ask, would be given every unit that others of their kind are slow with.
- One that does not show what it committed to gets none until it does.

So a peer that hoards or returns units costs a job little time and no more memory than it earned.
"""

from dataclasses import dataclass

from sparkle_protocol.ids import PeerId
from sparkle_protocol.work.lease import SECOND_NS

MAX_WORKERS = 1 << 16
FIRST_LEASES = 8
MOST_LEASES = 1024
FRUITLESS_ALLOWED = 16
FRUITLESS_PAUSE_NS = 30 * SECOND_NS
MAX_WITHHELD = 2  # TRUST: commit and reveal


@dataclass(slots=True)
class Conduct:
    """How one worker behaves in one job."""

    commits: int = 0
    accepted: int = 0
    fruitless: int = 0  # leases that ended without a commit
    withheld: int = 0  # results that are overdue
    next_lease_ns: int = 0


_NEW = Conduct()


class Conducts:
    """The conduct of all workers of a job."""

    def __init__(self) -> None:
        self._of: dict[PeerId, Conduct] = {}

    def of(self, worker: PeerId) -> Conduct:
        """The worker's page, to be written on."""
        return self._of.setdefault(worker, Conduct())

    def allowance(self, worker: PeerId, undecided: int, slow: int, now_ns: int) -> int:
        """How many more units a worker may get now, whatever it asks for.

        Args:
            worker: who asks.
            undecided: units that it holds, or whose results are not judged yet.
            slow: of these, those that it is so late with that others were asked.
            now_ns: monotonic clock.
        """
        conduct = self._of.get(worker, _NEW)
        if conduct is _NEW and len(self._of) >= MAX_WORKERS:
            return 0
        if conduct.withheld > MAX_WITHHELD or slow > conduct.commits:
            return 0
        if conduct.fruitless > FRUITLESS_ALLOWED + 2 * conduct.commits:
            return 1 if now_ns >= conduct.next_lease_ns else 0
        return min(MOST_LEASES, FIRST_LEASES + 2 * conduct.accepted) - undecided

    def delivers(self, worker: PeerId, slow: int) -> bool:
        """The worker shows what it commits to and mostly commits to what it takes; ``slow``: see ``allowance``."""
        conduct = self._of.get(worker, _NEW)
        if slow > conduct.commits:
            return False
        return conduct.withheld <= MAX_WITHHELD and conduct.fruitless <= FRUITLESS_ALLOWED + 2 * conduct.commits

    def delivered(self, worker: PeerId) -> bool:
        """The worker committed to some result."""
        return self._of.get(worker, _NEW).commits > 0

    def forgive(self, worker: PeerId) -> None:
        """A lease without a commit was not the worker's fault."""
        conduct = self.of(worker)
        conduct.fruitless = max(0, conduct.fruitless - 1)

    def granted(self, worker: PeerId, now_ns: int) -> None:
        """The worker was given something."""
        self.of(worker).next_lease_ns = now_ns + FRUITLESS_PAUSE_NS
