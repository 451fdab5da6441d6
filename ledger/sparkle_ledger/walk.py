"""Sums along one path of an account's tree: what each next entry is judged by.

A walk stands at an entry. It steps to a child by adding what the book found out about it, and back by taking that off
again, so that to judge an entry anew costs as much as there are entries after it.
"""

from typing import TYPE_CHECKING

from sparkle_ledger.entries import AccountId, Hold, Release, Work
from sparkle_ledger.feed import Node

if TYPE_CHECKING:
    from sparkle_ledger.folding import Base


class JobSums:
    """What the entries of a path did with the escrow of one job."""

    __slots__ = ("held", "released", "signed_held", "signed_released")

    def __init__(self) -> None:
        self.held = 0  # by Holds that count
        self.released = 0  # by Releases that count
        self.signed_held = 0  # by all Holds
        self.signed_released = 0  # by all Releases once the job was over, up to what was signed as held

    def copy(self) -> "JobSums":
        """The same, to go on with."""
        found = JobSums()
        found.held, found.released = self.held, self.released
        found.signed_held, found.signed_released = self.signed_held, self.signed_released
        return found

    def count(self, node: Node, sign: int) -> None:
        """Add a Hold or Release, or take it off again."""
        if isinstance(node.entry.payload, Hold):
            self.held -= sign * node.moved
            self.signed_held -= sign * node.face
        else:
            self.released += sign * node.moved
            self.signed_released += sign * node.face


class Walk:
    """The sums up to one entry, it included.

    Attributes:
        strict: balance of the path: what its Works brought and its Holds that count took, less what went back.
        face: the same by what was signed: a Hold takes its amount even if it does not count, and a Release gives
            its amount even if executions are still owed.
    """

    __slots__ = ("_base", "at", "face", "jobs", "paid", "strict")

    def __init__(self, base: "Base | None" = None) -> None:
        self._base = base
        self.at: Node | None = None
        self.strict = base.strict if base is not None else 0
        self.face = base.face if base is not None else 0
        self.jobs: dict[bytes, JobSums] = {}
        self.paid: dict[AccountId, int] = base.earned() if base is not None else {}  # by each other one, for work

    def go_to(self, node: Node | None) -> None:
        """Stand at ``node``; None: before the first entry that is here."""
        forward: list[Node] = []
        there = node
        while there is not self.at:
            if there is not None and (self.at is None or there.depth >= self.at.depth):
                forward.append(there)
                there = there.parent
            elif self.at is not None:
                self._count(self.at, -1)
                self.at = self.at.parent
        for one in reversed(forward):
            self.step(one)

    def step(self, node: Node) -> None:
        """Go on to a child of where the walk stands."""
        self._count(node, 1)
        self.at = node

    def earned(self) -> list[int]:
        """What each other account paid for work."""
        return list(self.paid.values())

    def job(self, job: bytes) -> JobSums:
        """The sums of one job."""
        found = self.jobs.get(job)
        if found is None:
            found = self.jobs[job] = self._base.job(job) if self._base is not None else JobSums()
        return found

    def _count(self, node: Node, sign: int) -> None:
        payload = node.entry.payload
        self.strict += sign * node.strict
        self.face += sign * node.face
        if isinstance(payload, Hold | Release):
            self.job(payload.job).count(node, sign)
        elif isinstance(payload, Work) and node.moved and payload.payer != node.entry.account:
            payer = AccountId(payload.payer)
            self.paid[payer] = self.paid.get(payer, 0) + sign * node.moved
