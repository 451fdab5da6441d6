"""Closes jobs that were settled long ago: their outcomes stay, the evidence goes. See ``sparkle_ledger.closing``.

A job is closed once

- it is over, its time ended more than ``keep_ms`` ago, and no Work that is known waits for anything; after
  ``PATIENCE`` times as long also if some do, as anybody can sign what waits for ever,
- nothing is being looked for so that we can claim it, nothing of ours could be claimed, and
- if it is ours, nothing is left in its escrow.

Of a job whose time has ended so long ago and that is not over, as far as is known here, its submitter and its keepers
are asked what became of it, one in each round: who worked for it may have seen only its own part.

The evidence about a job of ours, or one that we worked for, stays on disk: whoever meets us later may ask for it.
``tick`` looks at one job at a time, of a large one at a few of its executions. A job whose evidence has come back is
closed again in the next round.
"""

from collections.abc import Iterator
from itertools import islice

from sparkle_ledger.agent.claims import ASKED_MS, Claims
from sparkle_ledger.agent.desk import Desk
from sparkle_ledger.agent.fetching import NO_UNITS, Fetching
from sparkle_ledger.agent.own import WallMs
from sparkle_ledger.agent.rounds import Rounds
from sparkle_ledger.evidence import Execution, JobRecord
from sparkle_protocol.facts import KeeperSet
from sparkle_protocol.ids import JobId, peer_id_from_key

KEEP_MS = ASKED_MS  # after the end of a job's time: as long as claims of earlier lives are gone on with
PATIENCE = 4
EXECUTIONS = 1024  # looked at in one step
PASSED_OVER = 256  # jobs that are not to be closed, in one step
MAX_ASKS = 8  # about one job, and
MAX_ASKED = 64  # jobs in one round


class OldJobs(Rounds):
    """Rounds through the jobs of a book."""

    def __init__(self, desk: Desk, fetching: Fetching, claims: Claims, wall_ms: WallMs, keep_ms: int) -> None:
        super().__init__(desk, keep_ms)
        self._fetching = fetching
        self._claims = claims
        self._wall_ms = wall_ms
        self._keep_ms = keep_ms
        self._asked: dict[JobId, int] = {}  # how often about jobs that are not over

    def _round(self) -> Iterator[None]:
        book = self._desk.book
        jobs = [record.job for record in book.records() if self._is_past(record)]
        self._asked = {job: self._asked[job] for job in jobs if job in self._asked}
        asked = 0
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
            elif record is not None and not record.over and asked < MAX_ASKED and self._ask(record):
                asked += 1
                yield
            elif not number % PASSED_OVER:
                yield

    def _is_past(self, record: JobRecord, times: int = 1) -> bool:
        ends_ms = record.spec.created_ms + 1000 * record.spec.deadlines.total_s
        return self._wall_ms() > ends_ms + times * self._keep_ms

    def _is_settled(self, record: JobRecord) -> bool:
        """Nobody waits for anything of it, as far as can be seen without its executions."""
        desk, job = self._desk, record.job
        late = self._is_past(record, PATIENCE)
        if desk.behind or self._claims.is_waiting(job) or not desk.book.is_closable(job, though_some_wait=late):
            return False
        ours = desk.book.money.escrows(job).get(desk.account)
        return ours is None or not ours.balance_micro

    def _are_due(self, record: JobRecord, executions: list[Execution]) -> bool:
        """One of them is ours, and nothing claims it."""
        key, book = self._desk.signer.public_key, self._desk.book
        return any(one.worker == key and not book.claims_of(record.job, one) for one in executions)

    def _ask(self, record: JobRecord) -> bool:
        """Ask the next one whether a job is over; False: all were asked, often enough."""
        number = self._asked.get(record.job, 0)
        if number >= MAX_ASKS or self._claims.is_waiting(record.job):
            return False
        keepers = [fact.payload.keys for fact in record.counting(()) if isinstance(fact.payload, KeeperSet)]
        keys = dict.fromkeys([record.submitter_key, *(key for one in keepers for key in one)])
        peers = [peer for peer in map(peer_id_from_key, keys) if peer != self._desk.me]
        if not peers:
            return False
        self._asked[record.job] = number + 1
        self._fetching.proof(peers[number % len(peers)], record.job, [NO_UNITS], lambda _: None)
        return True

    def _close(self, record: JobRecord) -> None:
        desk = self._desk
        closing = desk.book.close(record.job, self._wall_ms())
        self._claims.forget(record.job)
        works = (desk.book.entry(final.entry) for final in closing.finals)
        ours = record.account == desk.account or any(work.account == desk.account for work in works if work)
        desk.keep_closing(closing, keep_evidence=ours)
