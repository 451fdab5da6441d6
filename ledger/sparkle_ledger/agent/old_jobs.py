"""Closes jobs that were settled long ago: their outcomes stay, the evidence goes. See ``sparkle_ledger.closing``.

A job is closed once

- the book can (it is over, and no Work that is known waits for anything),
- its time ended more than ``keep_ms`` ago,
- no claim of ours is open in it, none of ours could be signed, and
- if it is ours, nothing is left in its escrow.

The evidence about a job of ours, or one that we worked for, stays on disk: whoever meets us later may ask for it.
``tick`` looks at one job at a time, of a large one at a few of its executions. A job whose evidence has come back is
closed again in the next round.
"""

from collections.abc import Iterator
from itertools import islice

from sparkle_ledger.agent.claims import ASKED_MS, Claims
from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.own import WallMs
from sparkle_ledger.evidence import Execution, JobRecord

KEEP_MS = ASKED_MS  # after the end of a job's time: as long as claims of earlier lives are gone on with
ROUND_NS = 3600 * SECOND_NS
ROUNDS = KEEP_MS // 3_600_000  # of the time that evidence is kept, where that is shorter
STEP_NS = SECOND_NS // 4
EXECUTIONS = 1024  # looked at in one step
PASSED_OVER = 256  # jobs that are not to be closed, in one step
MS_NS = 1_000_000


class OldJobs:
    """The jobs of a book, looked through now and then."""

    def __init__(self, desk: Desk, claims: Claims, wall_ms: WallMs, keep_ms: int) -> None:
        self._desk = desk
        self._claims = claims
        self._wall_ms = wall_ms
        self._keep_ms = keep_ms
        self._round_ns = min(max(keep_ms * MS_NS // ROUNDS, SECOND_NS), ROUND_NS)
        self._steps: Iterator[None] | None = None  # of the round that is under way
        self.due_ns: int | None = None

    def tick(self) -> None:
        """Go one step on, if it is time."""
        now_ns = self._desk.now_ns
        if self.due_ns is None:  # a life begins with other things
            self.due_ns = now_ns + self._round_ns
        if self.due_ns > now_ns:
            return
        if self._steps is None:
            self._steps = self._round()
        for _ in self._steps:
            self.due_ns = now_ns + STEP_NS
            return
        self._steps = None
        self.due_ns = now_ns + self._round_ns

    def _round(self) -> Iterator[None]:
        book = self._desk.book
        jobs = [record.job for record in book.records() if self._is_past(record)]
        for number, job in enumerate(jobs, start=1):
            record = book.record(job)
            if record is not None and self._is_settled(record):
                due, executions = False, record.all_payable()
                while lot := list(islice(executions, EXECUTIONS)):
                    due = due or self._are_due(record, lot)
                    yield
                if not due and book.record(job) is record and self._is_settled(record):  # still
                    self._close(record)
                    yield
            elif not number % PASSED_OVER:
                yield

    def _is_past(self, record: JobRecord) -> bool:
        ends_ms = record.spec.created_ms + 1000 * record.spec.deadlines.total_s
        return self._wall_ms() > ends_ms + self._keep_ms

    def _is_settled(self, record: JobRecord) -> bool:
        """Nobody waits for anything of it, as far as can be seen without its executions."""
        desk, job = self._desk, record.job
        if desk.behind or self._claims.claims(job) or not desk.book.is_closable(job):
            return False
        ours = desk.book.money.escrows(job).get(desk.account)
        return ours is None or not ours.balance_micro

    def _are_due(self, record: JobRecord, executions: list[Execution]) -> bool:
        """One of them is ours, and nothing claims it."""
        key, book = self._desk.signer.public_key, self._desk.book
        return any(one.worker == key and not book.claims_of(record.job, one) for one in executions)

    def _close(self, record: JobRecord) -> None:
        desk = self._desk
        closing = desk.book.close(record.job)
        works = (desk.book.entry(final.entry) for final in closing.finals)
        ours = record.account == desk.account or any(work.account == desk.account for work in works if work)
        desk.keep_closing(closing, keep_evidence=ours)
