"""Others' claims in jobs that are known here, and that nothing here proves yet.

A job's keepers may accept an execution after its submitter heard the last of the job, and a worker fetches proofs at
another time than the next one: without more their copies would not come to agree. So whoever knows the job looks into
what it keeps of it, and else asks the worker and whoever brought the claim, later and later; after ``MAX_TRIES`` in
vain the claim is left as it is, pending.

Anybody may claim anything. So there is room for few of one worker's claims, and those that were asked about in vain
most often make room for others.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.fetching import Fetching
from sparkle_ledger.agent.serving import KeptRecord
from sparkle_ledger.entries import Entry, EntryId, Work
from sparkle_protocol.facts import SEAL_UNITS
from sparkle_protocol.ids import JobId, PeerId, peer_id_from_key

UNPROVEN = ("pending:evidence", "pending:not_accepted")
OWN_NS = SECOND_NS  # until we ask about a claim that we are to pay
OTHERS_NS = 15 * SECOND_NS  # about another: as a rule what we fetch for our own claims proves it by then
RETRY_NS = 10 * SECOND_NS
MAX_RETRY_NS = 600 * SECOND_NS
MAX_TRIES = 16  # in a row: two hours
MAX_CLAIMS = 256  # that are asked about
MAX_OF_WORKER = 16


@dataclass(slots=True)
class _Unproven:
    """One claim, and who can prove it."""

    work: Work
    sources: tuple[PeerId, ...]
    due_ns: int
    tries: int = 0
    busy: bool = False


class Proving:
    """What others claim."""

    def __init__(self, desk: Desk, fetching: Fetching, kept_record: KeptRecord) -> None:
        self._desk = desk
        self._fetching = fetching
        self._kept_record = kept_record
        self._claims: dict[EntryId, _Unproven] = {}
        self._of_worker: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._claims)

    def claimed(self, entries: Iterable[Entry], source: PeerId | None = None) -> None:
        """Entries of somebody came here; ``source``: from whom."""
        for entry in entries:
            work = entry.payload
            if isinstance(work, Work) and work.worker != self._desk.signer.public_key and self._is_unproven(entry.id):
                self._take(entry.id, work, source)

    def _take(self, id_: EntryId, work: Work, source: PeerId | None) -> None:
        known = self._desk.book.record(JobId(work.job)) is not None
        if id_ in self._claims or not known or self._of_worker[work.worker] >= MAX_OF_WORKER or not self._has_room():
            return
        sources = dict.fromkeys([peer_id_from_key(work.worker), *([source] if source is not None else [])])
        sources.pop(self._desk.me, None)
        delay_ns = OWN_NS if work.payer == self._desk.account else OTHERS_NS
        self._claims[id_] = _Unproven(work, tuple(sources), self._desk.now_ns + delay_ns)
        self._of_worker[work.worker] += 1

    def _has_room(self) -> bool:
        if len(self._claims) < MAX_CLAIMS:
            return True
        idle = [(one.tries, id_) for id_, one in self._claims.items() if not one.busy]
        tries, id_ = max(idle, default=(0, None))
        if id_ is None or not tries:
            return False
        self._drop(id_)
        return True

    def _drop(self, id_: EntryId) -> None:
        worker = self._claims.pop(id_).work.worker
        self._of_worker[worker] -= 1
        if not self._of_worker[worker]:
            del self._of_worker[worker]

    # --- doing --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Ask about those whose turn it is."""
        now_ns = self._desk.now_ns
        for id_, claim in [(id_, one) for id_, one in self._claims.items() if not one.busy and one.due_ns <= now_ns]:
            self._prove(id_, claim)

    def dues(self) -> Iterator[int]:
        """When the next ones are."""
        yield from (claim.due_ns for claim in self._claims.values() if not claim.busy)

    def _is_unproven(self, id_: EntryId) -> bool:
        outcome = self._desk.book.outcome(id_)
        return outcome is not None and outcome.code in UNPROVEN

    def _prove(self, id_: EntryId, claim: _Unproven) -> None:
        job, ranges = JobId(claim.work.job), {one.unit // SEAL_UNITS for one in claim.work.units}
        if self._is_unproven(id_):
            record = self._kept_record(job)
            if record is not None:
                self._desk.take_record(record, ranges)
        if not self._is_unproven(id_) or claim.tries >= MAX_TRIES:
            self._drop(id_)
            return
        claim.busy = True
        source = claim.sources[claim.tries % len(claim.sources)]
        self._fetching.proof(source, job, ranges, lambda _: self._asked(id_, claim))

    def _asked(self, id_: EntryId, claim: _Unproven) -> None:
        claim.busy = False
        claim.tries += 1
        claim.due_ns = self._desk.now_ns + min(RETRY_NS << min(claim.tries - 1, 6), MAX_RETRY_NS)
        if not self._is_unproven(id_):
            self._drop(id_)
