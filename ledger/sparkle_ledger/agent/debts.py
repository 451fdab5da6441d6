"""Claims against our own account that nothing here proves yet.

A job's keepers may accept an execution after its submitter heard the last of the job: its worker has the proof, and
the submitter's copy lacks it. So the submitter looks into what it keeps of the job, and else asks whoever brought the
claim, and the worker itself, later and later; after ``MAX_TRIES`` in vain the claim is left as it is, pending.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.fetching import Fetching
from sparkle_ledger.agent.serving import KeptRecord
from sparkle_ledger.entries import Entry, EntryId, Work
from sparkle_protocol.facts import SEAL_UNITS
from sparkle_protocol.ids import JobId, PeerId, peer_id_from_key

UNPROVEN = ("pending:evidence", "pending:not_accepted")
FIRST_NS = SECOND_NS
RETRY_NS = 10 * SECOND_NS
MAX_RETRY_NS = 600 * SECOND_NS
MAX_TRIES = 16  # in a row: two hours
MAX_DEBTS = 256  # claims that are asked about


@dataclass(slots=True)
class _Debt:
    """One claim, and who can prove it."""

    work: Work
    sources: tuple[PeerId, ...]
    due_ns: int
    tries: int = 0
    busy: bool = False


class Debts:
    """What others claim from us."""

    def __init__(self, desk: Desk, fetching: Fetching, kept_record: KeptRecord) -> None:
        self._desk = desk
        self._fetching = fetching
        self._kept_record = kept_record
        self._debts: dict[EntryId, _Debt] = {}

    def __len__(self) -> int:
        return len(self._debts)

    def claimed(self, entries: Iterable[Entry], source: PeerId | None = None) -> None:
        """Entries of somebody came here; ``source``: from whom."""
        for entry in entries:
            work = entry.payload
            if not isinstance(work, Work) or work.payer != self._desk.account or entry.id in self._debts:
                continue
            if len(self._debts) < MAX_DEBTS and self._is_unproven(entry.id):
                sources = [peer_id_from_key(work.worker), *([source] if source is not None else [])]
                self._debts[entry.id] = _Debt(work, tuple(dict.fromkeys(sources)), self._desk.now_ns + FIRST_NS)

    def tick(self) -> None:
        """Ask about those whose turn it is."""
        due = [(id_, debt) for id_, debt in self._debts.items() if not debt.busy and debt.due_ns <= self._desk.now_ns]
        for id_, debt in due:
            self._prove(id_, debt)

    def dues(self) -> Iterator[int]:
        """When the next ones are."""
        yield from (debt.due_ns for debt in self._debts.values() if not debt.busy)

    def _is_unproven(self, id_: EntryId) -> bool:
        outcome = self._desk.book.outcome(id_)
        return outcome is not None and outcome.code in UNPROVEN

    def _prove(self, id_: EntryId, debt: _Debt) -> None:
        job, ranges = JobId(debt.work.job), {one.unit // SEAL_UNITS for one in debt.work.units}
        if self._is_unproven(id_):
            record = self._kept_record(job)
            if record is not None:
                self._desk.take_record(record, ranges)
        if not self._is_unproven(id_) or debt.tries >= MAX_TRIES:
            del self._debts[id_]
            return
        source = debt.sources[debt.tries % len(debt.sources)]
        debt.busy = True
        self._fetching.proof(source, job, ranges, lambda _: self._asked(id_, debt))

    def _asked(self, id_: EntryId, debt: _Debt) -> None:
        debt.busy = False
        debt.tries += 1
        debt.due_ns = self._desk.now_ns + min(RETRY_NS << min(debt.tries - 1, 6), MAX_RETRY_NS)
        if not self._is_unproven(id_):
            del self._debts[id_]
