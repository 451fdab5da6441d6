"""What a book says of accounts, entries and jobs, and what an author can sign next. Nothing here changes it."""

from collections.abc import Iterator
from dataclasses import dataclass

from sparkle_ledger.entries import (
    MAX_MICRO,
    MAX_SETTLED,
    NO_PREV,
    AccountId,
    Entry,
    EntryId,
    Hold,
    Settled,
    Work,
    account_of,
)
from sparkle_ledger.evidence import Execution, JobRecord
from sparkle_ledger.feed import NO_KEY
from sparkle_ledger.forks import ForkProof
from sparkle_ledger.money import Escrow
from sparkle_ledger.outcomes import Outcome
from sparkle_ledger.rulings import Rulings
from sparkle_protocol.facts import SEAL_UNITS


@dataclass(frozen=True, slots=True)
class Account:
    """An account as this copy of the ledger has it."""

    id: AccountId
    balance_micro: int
    held_micro: int
    earned_micro: int
    spent_micro: int
    limit_micro: int
    spendable_micro: int  # a Hold of up to so much would count now
    heads: dict[int, tuple[int, EntryId]]  # of each incarnation: the highest number, and the entry there
    entries: int
    frozen: bool  # it forked
    key: bytes | None  # in force; None after a Revoke, and when the account is not known
    folded: int = 0  # entries before those that are here: see ``folding.py``


@dataclass(frozen=True, slots=True)
class PairTotal:
    """What went between an account and another one, ever."""

    account: AccountId
    earned_micro: int
    spent_micro: int


@dataclass(frozen=True, slots=True)
class NextPlace:
    """Where an author's next entry goes: the arguments of ``EntryCodec.seal``."""

    incarnation: int
    seq: int
    prev: EntryId


class BookReading(Rulings):
    """The part of ``Book`` that answers."""

    __slots__ = ()

    # --- what it says ---------------------------------------------------------------------------------------

    def outcome(self, entry: EntryId) -> Outcome | None:
        """What became of an entry that has a place; None for any other."""
        node = self._nodes.get(entry)
        return node.outcome if node is not None else None

    def moved(self, entry: EntryId) -> int:
        """What its account gained by an entry; negative: what it lost."""
        node = self._nodes.get(entry)
        return node.moved if node is not None else 0

    def entry(self, entry: EntryId) -> Entry | None:
        """An entry that has a place."""
        node = self._nodes.get(entry)
        return node.entry if node is not None else None

    def entries(self, account: AccountId, incarnation: int = 0, first: int = 0) -> Iterator[Entry]:
        """The entries of an account that have a place, from this one on, by incarnation, seq and id."""
        page = self._pages.get(account)
        return (node.entry for node in page.feed.from_place(incarnation, first)) if page is not None else iter(())

    def accounts(self) -> Iterator[AccountId]:
        """All accounts of which an entry has a place."""
        return (account for account, page in self._pages.items() if page.feed.nodes)

    def waiting(self, account: AccountId) -> list[Entry]:
        """Entries of an account that have no place: they wait for others, or break the rules of the feed."""
        page = self._pages.get(account)
        return list(page.feed.loose()) if page is not None else []

    def account(self, account: AccountId) -> Account:
        """An account; one that is not known has nothing and a starter's limit."""
        purse, page = self.money.seen(account), self._pages.get(account)
        tip = page.feed.tip if page is not None else None
        limit, spendable = self.economy.limit(()), 0
        base = page.feed.base if page is not None else None
        if page is not None and (tip is not None or base is not None):
            sums = page.sums
            sums.go_to(tip)
            limit = self.economy.limit(sums.earned())
            if account in self.economy.unlimited:
                limit = MAX_MICRO
            if tip is not None and tip.key != NO_KEY and not page.feed.frozen:
                funds = min(sums.strict - self._left_behind(page, tip), sums.face)
                spendable = min(max(0, funds + limit), MAX_MICRO)
        heads = page.feed.heads if page is not None else {}
        return Account(
            account, purse.balance, purse.held, purse.earned, purse.spent, limit, spendable,
            {one: (node.entry.seq, node.entry.id) for one, node in sorted(heads.items())},
            page.feed.nodes if page is not None else 0,
            page is not None and page.feed.frozen,
            (tip.key or None) if tip is not None else base.key if base is not None else None,
            base.seq + 1 if base is not None else 0,
        )  # fmt: skip

    def escrow(self, job: bytes) -> Escrow:
        """What all accounts together (there is one, as a rule) set aside for a job."""
        found = self.money.escrows(job).values()
        return Escrow(
            sum(one.held_micro for one in found),
            sum(one.paid_micro for one in found),
            sum(one.released_micro for one in found),
        )

    def record(self, job: bytes) -> JobRecord | None:
        """The evidence about a job."""
        page = self._jobs.get(job)
        return page.record if page is not None else None

    def records(self) -> Iterator[JobRecord]:
        """The evidence about all jobs."""
        return (page.record for page in self._jobs.values() if page.record is not None)

    def sum_micro(self) -> int:
        """Of all balances and escrows; anything but 0 is a bug."""
        return self.money.sum_micro()

    def pair_totals(self, account: AccountId) -> list[PairTotal]:
        """What went between an account and each other one, by account."""
        pairs = self.money.seen(account).pairs
        return [PairTotal(other, *pairs[other]) for other in sorted(pairs) if any(pairs[other])]

    def fork_proofs(self) -> list[ForkProof]:
        """One for each place that an account signed twice, as far as the account's feed shows that it was its key."""
        return [proof for page in self._pages.values() for proof in page.feed.fork_proofs()]

    def is_frozen(self, account: AccountId) -> bool:
        """It is proven that an account forked."""
        page = self._pages.get(account)
        return page is not None and page.feed.frozen

    def fork_of(self, account: AccountId) -> ForkProof | None:
        """The proof that an account is frozen, by the lowest place that it signed twice."""
        page = self._pages.get(account)
        return page.feed.fork_proofs()[0] if page is not None and page.feed.frozen else None

    def settled(self, job: bytes) -> Iterator[tuple[Execution, EntryId]]:
        """Executions of a job that are paid, and by which entry."""
        page = self._jobs.get(job)
        for node in page.all_works() if page is not None else ():
            payload = node.entry.payload
            if isinstance(payload, Work) and node.outcome.counts:
                yield from ((Execution(one.unit, one.epoch, payload.worker), node.entry.id) for one in payload.units)

    def unsettled(self, job: bytes) -> list[Execution]:
        """Executions of a job that are payable, and that no Work that counts names yet."""
        record = self.record(job)
        paid = {execution for execution, _ in self.settled(job)}
        return [one for one in record.all_payable() if one not in paid] if record is not None else []

    def claims_of(self, job: bytes, execution: Execution) -> list[EntryId]:
        """The entries that claim the pay for an execution, whatever became of them."""
        page = self._jobs.get(job)
        if page is None:
            return []
        unit, epoch, worker = execution
        if page.record is not None or page.closing is None:
            return [node.entry.id for node in page.claims.get(worker, {}).get((unit, epoch), ())]
        works = ((node, node.entry.payload) for node in page.works.get(unit // SEAL_UNITS, ()))
        return [
            node.entry.id
            for node, work in works
            if isinstance(work, Work) and work.worker == worker in node.keys and Settled(unit, epoch) in work.units
        ]

    # --- for an author --------------------------------------------------------------------------------------

    def next_place(self, account: AccountId) -> NextPlace | None:
        """Where the account's next entry goes.

        None: nothing more of it can count, or later entries by its key are known that hang in the air. Its author
        forgot them, so what it signed now might be a fork: it has to find what is between, or to begin anew.
        """
        page = self._pages.get(account)
        tip = page.feed.tip if page is not None else None
        if page is not None and page.feed.frozen:
            return None
        if page is None or tip is None:
            opened = page is not None and any(
                account_of(self.network, entry.key) == account for entry in page.feed.loose()
            )
            return None if opened else NextPlace(0, 0, EntryId(NO_PREV))
        later = (tip.entry.incarnation, tip.entry.seq + 1)
        if tip.key == NO_KEY or any(
            entry.key == tip.key and (entry.incarnation, entry.seq) >= later for entry in page.feed.loose()
        ):
            return None
        return NextPlace(tip.entry.incarnation, tip.entry.seq + 1, tip.entry.id)

    def payable(self, worker: bytes, record: JobRecord) -> list[Settled]:
        """Executions by a worker's key that the record shows as payable and that no entry claims yet."""
        page = self._jobs.get(record.job)
        claims = page.claims.get(worker, {}) if page is not None else {}
        return [
            Settled(one.unit, one.epoch)
            for one in record.all_payable()
            if one.worker == worker and (one.unit, one.epoch) not in claims
        ]

    def funding(self, job: bytes) -> Entry | None:
        """A Hold that counts and covers the job: what its Works are paid from."""
        page = self._jobs.get(job)
        if page is None or page.record is None:
            return None
        for node in page.others:
            payload = node.entry.payload
            if isinstance(payload, Hold) and node.outcome.counts and payload.amount_micro >= page.record.cover_micro:
                return node.entry
        return None

    def is_held(self, job: bytes) -> bool:
        """Its submitter signed a Hold that covers the job, whatever became of that. Or the job was closed."""
        page = self._jobs.get(job)
        if page is None or page.record is None:
            return page is not None and page.closing is not None
        return any(
            isinstance(node.entry.payload, Hold)
            and node.entry.account == page.record.account
            and node.entry.payload.amount_micro >= page.record.cover_micro
            for node in page.others
        )

    def claims_due(self, worker: bytes, job: bytes) -> list[Work]:
        """The Work entries that a worker can sign now for a job that this book has evidence and funding of."""
        record, hold = self.record(job), self.funding(job)
        if record is None or hold is None:
            return []
        due = self.payable(worker, record)
        lots = [due[at : at + MAX_SETTLED] for at in range(0, len(due), MAX_SETTLED)]
        return [Work(job, hold.account, hold.id, worker, record.price_micro * len(lot), lot) for lot in lots]
