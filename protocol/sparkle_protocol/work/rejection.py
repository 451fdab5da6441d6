"""Who was proven wrong in a job, and by what evidence.

Each rejection is stored: a failed check is shown by no fact, and what facts show may be of an epoch that is over. So
a worker that was refused stays so after a restart, and as many results count as refused as did before.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sparkle_protocol.codec import Wire, decode, encode
from sparkle_protocol.effects import StoreRejection
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.work.state import JobState

MAX_REJECTIONS_KEPT = 256  # with their evidence; beyond that only counted


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refused result and its evidence: who agreed on what instead."""

    unit: int
    worker: PeerId
    given: ResultHash | None  # None: two different commits
    accepted: ResultHash | None
    agreeing: tuple[PeerId, ...]
    code: str  # "minority" | "trusted" | "equivocation" | "malformed" | "check"
    text: str = ""  # what the check found

    def encode(self) -> bytes:
        """As it is stored, but for its unit and worker."""
        return encode(_Evidence(self.given, self.accepted, self.agreeing, self.code, self.text))

    @classmethod
    def decode(cls, record: StoreRejection) -> "Rejection":
        """From what was stored. Raises RemoteProtocolError: it is damaged."""
        found = decode(record.raw, _Evidence)
        given, accepted = (ResultHash(one) if one is not None else None for one in (found.given, found.accepted))
        agreeing = tuple(PeerId(peer) for peer in found.agreeing)
        return cls(record.unit, record.worker, given, accepted, agreeing, found.code, found.text)


class _Evidence(Wire, frozen=True):
    """A rejection on disk."""

    given: bytes | None
    accepted: bytes | None
    agreeing: tuple[str, ...]
    code: str
    text: str = ""


class Rejections:
    """All rejections of one job at its keeper ``me``, which is never excluded itself."""

    def __init__(self, me: PeerId) -> None:
        self.kept: list[Rejection] = []
        self.fresh: list[Rejection] = []  # first ones of a worker in this step, to be told
        self.count = 0
        self.workers: set[PeerId] = set()
        self._me = me
        self._known: set[tuple[int, PeerId]] = set()

    def restore_stored(self, stored: Iterable[Rejection]) -> None:
        """Pick up what was refused in earlier lives."""
        for rejection in stored:
            self._add(rejection)

    def restore(self, state: JobState, unit: int) -> None:
        """Pick up a unit's from stored facts."""
        for worker in sorted(state.rejected_workers(unit)):
            self._add(self.by_votes(state, unit, worker))
        for worker in sorted(state.equivocators(unit)):
            self._add(Rejection(unit, worker, None, None, (), "equivocation"))

    def by_votes(self, state: JobState, unit: int, worker: PeerId, accepted: ResultHash | None = None) -> Rejection:
        """The evidence against a worker whose result is not the final one."""
        final, votes = state.verdict(unit), state.votes(unit)
        if accepted is None and final is not None:
            accepted = ResultHash(final.result_hash)
        agreeing = tuple(sorted(peer for peer, given in votes.items() if given == accepted))
        code = "trusted" if self._me in agreeing else "minority"
        return Rejection(unit, worker, votes.get(worker), accepted, agreeing, code)

    def add(self, rejection: Rejection) -> bool:
        """Record one; False when it was known."""
        if rejection.worker not in self.workers and rejection.worker != self._me:
            self.fresh.append(rejection)
        return self._add(rejection)

    def _add(self, rejection: Rejection) -> bool:
        if (rejection.unit, rejection.worker) in self._known:
            return False
        self._known.add((rejection.unit, rejection.worker))
        self.count += 1
        if len(self.kept) < MAX_REJECTIONS_KEPT:
            self.kept.append(rejection)
        if rejection.worker != self._me:
            self.workers.add(rejection.worker)
        return True
