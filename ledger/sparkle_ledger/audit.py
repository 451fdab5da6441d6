"""``ledger verify``: everything that a copy of the ledger holds, checked from the bytes up.

- Every entry is what its place in the file says, every link leads to the entry before, and signatures vouch for all
  of it (``chains.py``); all facts that prove the outcome of jobs are verified again.
- The book judges every entry by the rules. Its balances and escrows must add up to exactly 0, and no escrow may be
  overdrawn.
- Apart from the book, from the job records alone: what all accepted executions together cost, and that each is
  settled by exactly one entry that counts. An execution that is settled twice, or was never accepted, is a violation.
  One that is settled by none is unseen: its worker has not claimed it, or the claim is not here.
- Of jobs that were closed, whatever can be checked without their proofs (``closed_jobs.py``). Of entries that were
  folded nothing is left but sums: what accounts were paid by these is held against what was paid in shut jobs.

A *violation* is what no honest copy of the ledger holds. What an account did against the rules is none: its entries
do not count, and the outcomes say why. What is *unseen* is no fault either, but the sums may change once it comes.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from sparkle_ledger.book import Book
from sparkle_ledger.chains import ChainCheck, place_of
from sparkle_ledger.closed_jobs import Claims, ClosedJobs, packed
from sparkle_ledger.closing import Closing
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import AccountId, Entry, EntryCodec, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.folding import Base
from sparkle_ledger.forks import ForkProof
from sparkle_ledger.witnesses import Head
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Fact, FactCodec, JobSpec
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.sealed import SealedRange

PROGRESS_EVERY = 2_000  # entries


class RawEntry(Protocol):
    """A stored entry, not yet opened: ``store.Row``."""

    @property
    def account(self) -> bytes:
        """Whose it is, as its place in the file says."""
        ...

    @property
    def seq(self) -> int:
        """Its number there."""
        ...

    def open(self, codec: EntryCodec) -> Entry:
        """The entry, its signature not verified. Raises RemoteProtocolError."""
        ...


class RawEvidence(Protocol):
    """What proves the outcome of a job, as it travels: ``store.Evidence``."""

    @property
    def job(self) -> JobId:
        """Which job."""
        ...

    @property
    def facts(self) -> list[bytes]:
        """Signed facts."""
        ...

    @property
    def sealed(self) -> list[bytes]:
        """Records of sealed ranges."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found.

    Attributes:
        feeds: accounts and their incarnations.
        entries: read; ``signatures`` of them verified, which vouch for the rest.
        executions: accepted ones that have a price.
        sum_micro: of all balances and escrows.
        earned_micro: by entries that count.
        final_price_micro: of all accepted executions, by the job records and closings alone.
        unsettled_micro: of those among them that no entry here settles.
        outcomes: how many entries have each outcome.
        misdeeds: what accounts signed against the rules of feeds, forks above all.
        misdeeds, violations, unseen: sentences with places; the first thousand of each. ``violation_codes``: one
            for each violation (``entry_damaged``, ``signature``, ``fact_invalid``, ``seal_invalid``, ``unproven``,
            ``sum``, ``overdrawn``, ``settled_twice``, ``never_accepted``, and of closed jobs ``closing_invalid``,
            ``final_lost``, ``final_wrong``, ``overpaid``, and of what is folded ``base_wrong``).
        violation_count, unseen_count: of all.
    """

    feeds: int
    entries: int
    signatures: int
    jobs: int
    executions: int
    sum_micro: int
    earned_micro: int
    final_price_micro: int
    unsettled_micro: int
    outcomes: Mapping[str, int]
    misdeeds: list[str]
    violations: list[str]
    violation_codes: list[str]
    violation_count: int
    unseen: list[str]
    unseen_count: int

    @property
    def ok(self) -> bool:
        """Nothing is wrong with what is here."""
        return not self.violation_count and not self.sum_micro


class Audit:
    """One audit. Run ``steps`` to its end, then ask for the ``report``.

    Args:
        entries, facts: codecs that verify signatures.
        deep: verify every entry's signature, not only those that vouch for all others.
        heads: the highest heads that witnesses named.
        forks: verified proofs; those of folded places are known by nothing else.
    """

    def __init__(
        self,
        entries: EntryCodec,
        facts: FactCodec,
        economy: Economy | None = None,
        *,
        deep: bool = False,
        heads: Mapping[AccountId, Head] | None = None,
        forks: Iterable[ForkProof] = (),
    ) -> None:
        self.book = Book(entries.network, economy)
        self._entry_codec = entries
        self._fact_codec = facts
        self._chains = ChainCheck(entries, deep=deep)
        self._heads = heads or {}
        self._forks = list(forks)
        self._read = 0
        self._entries: list[Entry] = []
        self._claims: dict[bytes, dict[bytes, array[int]]] = {}  # by job
        self._violations = self._chains.violations
        self._unseen = self._chains.gaps
        self._closed = ClosedJobs(facts, self.book, self._violations)
        self._absent: set[AccountId] = set()  # they are said to pay, and none of their entries is here
        self._outcomes: Counter[str] = Counter()
        self._folded: list[tuple[int, int]] = []  # entries of each base, and when the last of them was signed
        self._paid_by: Counter[bytes] = Counter()  # what bases say that accounts paid, less what shut jobs say
        self._jobs = self._executions = self._earned = self._final_price = self._unsettled = 0

    def steps(
        self,
        rows: Iterable[RawEntry],
        total: int,
        evidence: Iterable[RawEvidence],
        closings: Iterable[Closing] = (),
        bases: Iterable[Base] = (),
    ) -> Iterator[tuple[int, int]]:
        """Check all of it; says now and then how much of how much is done.

        Args:
            rows: all entries by account, incarnation, seq and id.
            total: how many they are, about.
            evidence: about all jobs, also such as is kept about closed ones.
            closings: of jobs that were closed.
            bases: of accounts whose oldest entries are folded.
        """
        for closing in closings:
            self._closed.take(closing)
        for base in bases:
            self._take_base(base)
        for one in evidence:
            self._take_evidence(one)
        done, whole = 0, 3 * total  # each is read, judged and counted
        for row in rows:
            self._take_row(row)
            done += 1
            if not done % PROGRESS_EVERY:
                yield done, max(done, whole)
        self._chains.end()
        whole = 3 * done
        ordered = in_time(self._entries)
        for first in range(0, len(ordered), PROGRESS_EVERY):
            batch = ordered[first : first + PROGRESS_EVERY]
            self.book.add_all(batch)
            done += len(batch)
            yield done, whole
        for proof in self._forks:
            self.book.add_proof(proof)
        for entry in self._entries:
            self._count(entry)
            done += 1
            if not done % PROGRESS_EVERY:
                yield done, whole
        self._settle()
        yield whole, whole

    def report(self) -> Report:
        """What was found."""
        return Report(
            self._chains.feeds,
            self._read,
            self._chains.verified,
            self._jobs,
            self._executions,
            self.book.sum_micro(),
            self._earned,
            self._final_price,
            self._unsettled,
            dict(sorted(self._outcomes.items())),
            self._chains.misdeeds.texts,
            self._violations.texts,
            self._violations.codes,
            self._violations.count,
            self._unseen.texts,
            self._unseen.count,
        )

    # --- reading ------------------------------------------------------------------------------------------

    def _take_base(self, base: Base) -> None:
        self._chains.begin_after(base)
        self.book.add_base(base)
        self._folded.append((base.seq + 1, base.time_ms))
        self._earned += sum(base.paid.values())
        for payer, micro in base.paid.items():
            self._paid_by[payer] += micro

    def _take_row(self, row: RawEntry) -> None:
        self._read += 1
        try:
            entry = row.open(self._entry_codec)
        except RemoteProtocolError as error:
            self._violations.add(
                f"entry {row.seq} of account {row.account.hex()[:12]} is damaged: {error}", "entry_damaged"
            )
            return
        self._chains.take(entry)
        self._entries.append(entry)

    def _take_evidence(self, raw: RawEvidence) -> None:
        """Judge what proves a job's outcome, leaving out what does not hold."""
        facts: list[Fact] = []
        for one in raw.facts:
            try:
                facts.append(self._fact_codec.open(one))
            except RemoteProtocolError as error:
                self._violations.add(f"a fact about job {raw.job.hex()[:12]} is not valid: {error}", "fact_invalid")
        spec = next((fact for fact in facts if type(fact.payload) is JobSpec and fact.job == raw.job), None)
        if spec is None:
            self._unseen.add(f"the spec of job {raw.job.hex()[:12]} is not here, so nothing shows what it pays")
            return
        record = JobRecord(spec, self._fact_codec.network)
        record.add_all(facts)
        for one in raw.sealed:
            try:
                record.add_sealed(SealedRange.decode(one))
            except RemoteProtocolError as error:
                text = f"a sealed range of job {raw.job.hex()[:12]} is not valid: {error}"
                self._violations.add(text, "seal_invalid")
        self.book.add_record(record)

    # --- counting -----------------------------------------------------------------------------------------

    def _count(self, entry: Entry) -> None:
        outcome = self.book.outcome(entry.id)
        if outcome is None:
            self._outcomes["gap"] += 1
            self._unseen.add(f"{place_of(entry)} has no place in its feed: what it follows is not here or not valid")
            return
        self._outcomes[outcome.code] += 1
        payload = entry.payload
        if not isinstance(payload, Work):
            return
        if outcome.counts:
            self._earned += payload.amount_micro
            claims = self._claims.setdefault(payload.job, {}).setdefault(payload.worker, array("Q"))
            claims.extend([packed(one.unit, one.epoch) for one in payload.units])
        elif outcome.pending:
            payer = AccountId(payload.payer)
            if not self.book.account(payer).entries:
                self._absent.add(payer)
            self._unseen.add(f"{place_of(entry)} does not count yet: {outcome.text}")

    def _settle(self) -> None:
        """Hold what was paid against what was accepted, job by job, and everything against 0."""
        for record in self.book.records():
            if record.job not in self._closed:
                payable, paid = self._settled(record, self._claims.pop(record.job, {}))
                self._add_up(record.job, record.price_micro, payable, paid)
        for closing in self.book.closings():
            payable, paid = self._closed.settled(closing, self._claims.pop(closing.job, {}))
            self._add_up(closing.job, closing.price_micro, payable, paid)
        self._settle_bases()
        for text in self._closed.unseen():
            self._unseen.add(text)
        for account in sorted(self._absent):
            self._unseen.add(f"account {account.hex()[:12]} is said to pay for work, and none of its entries is here")
        for job in self._claims:
            self._violations.add(
                f"work on job {job.hex()[:12]} is paid for, and nothing here proves that it was done", "unproven"
            )
        if self.book.sum_micro():
            self._violations.add(
                f"all balances and escrows add up to {self.book.sum_micro()} micro-credits, not to 0", "sum"
            )
        for job, account, escrow in self.book.money.all_escrows():
            if escrow.balance_micro < 0:
                short = f"{-escrow.balance_micro} micro-credits more than went in"
                self._violations.add(
                    f"job {job.hex()[:12]} of account {account.hex()[:12]} paid out {short}", "overdrawn"
                )
        for account, head in self._heads.items():
            known = self.book.account(account).heads
            if (head.incarnation, head.seq) > max(((one, seq) for one, (seq, _) in known.items()), default=(0, -1)):
                self._unseen.add(
                    f"witnesses know entry {head.seq} of account {account.hex()[:12]}, which is not here"
                )

    def _settle_bases(self) -> None:
        """Hold what accounts were paid by folded entries against what was paid in shut jobs."""
        for closing in self.book.closings():
            for payer in closing.paid or ():
                self._paid_by[payer.account] -= payer.micro
        for account, micro in sorted(self._paid_by.items()):
            if micro:
                text = f"by its partners' folded entries account {account.hex()[:12]} paid {micro} micro-credits more"
                self._violations.add(f"{text} than by the jobs that they were for", "base_wrong")
        if self._folded:
            entries, accounts = sum(count for count, _ in self._folded), len(self._folded)
            of = "1 account" if accounts == 1 else f"{accounts} accounts"
            latest = f"the last of them signed {_day(max(time_ms for _, time_ms in self._folded))}"
            text = f"{entries} old entries of {of}, {latest}, are folded into sums: only this node saw what they were"
            self._unseen.add(text)

    def _settled(self, record: JobRecord, claims: Claims) -> tuple[int, int]:
        """How many executions of a job are payable, and how many of these are paid."""
        open_ = {(one.worker, packed(one.unit, one.epoch)) for one in record.all_payable()}
        payable = len(open_)
        for worker, ones in claims.items():
            for one in ones:
                if (worker, one) in open_:
                    open_.remove((worker, one))
                else:
                    self._settled_wrongly(record, worker, one >> 32, one & 0xFFFFFFFF)
        return payable, payable - len(open_)

    def _add_up(self, job: bytes, price_micro: int, payable: int, paid: int) -> None:
        self._jobs += 1
        self._executions += payable if price_micro else 0
        self._final_price += price_micro * payable
        if paid < payable:
            self._unsettled += price_micro * (payable - paid)
            text = f"{payable - paid} of {payable} accepted executions of job {job.hex()[:12]}"
            self._unseen.add(f"{text} are settled by no entry here")

    def _settled_wrongly(self, record: JobRecord, worker: bytes, unit: int, epoch: int) -> None:
        accepted = unit < record.units and worker in record.accepted(unit, epoch)
        why = "is settled twice" if accepted else "is paid for and was never accepted"
        code = "settled_twice" if accepted else "never_accepted"
        self._violations.add(f"unit {unit} of job {record.job.hex()[:12]} by {worker.hex()[:12]} {why}", code)


def _day(time_ms: int) -> str:
    """The day that an author's clock showed."""
    try:
        return datetime.fromtimestamp(time_ms // 1000, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return "at no time that there is"


def in_time(entries: list[Entry]) -> list[Entry]:
    """In the order in which their authors say that they were made, each feed in its own order.

    The book says the same in any order; in this one it seldom has to judge an entry again.
    """
    keys: list[int] = []
    feed: tuple[bytes, int] | None = None
    latest = 0
    for entry in entries:
        here = (entry.account, entry.incarnation)
        latest = max(latest, entry.time_ms) if here == feed else entry.time_ms
        feed = here
        keys.append(latest)
    order = sorted(range(len(entries)), key=keys.__getitem__)
    return [entries[place] for place in order]
