"""The book: what every entry of every account comes to. A function of the *set* of entries and evidence.

Rules
-----
An entry is judged by the path of entries before it in its own account (``feed.py``), by the evidence about its job
(``evidence.py``), and by the entry that it names by hash. Hashes make no circles, so there is always exactly one
answer, whatever came first. Only its consequences off the path are looked at otherwise: forks, restores, and other
claims to one execution.

- **Hold** moves its amount from the account into the job's escrow. It counts if the path can bear it by what was
  signed: Works that count, plus what Releases of finished jobs gave back, less all Holds, not below -limit. And
  besides, it must be on the line, and bearable by what the path really holds. Or else executions of the job
  were accepted: then workers relied on it, and what the account did wrong elsewhere is not theirs to pay for.
  Before the job's spec is known it is taken for the account's own job.
- **Work** moves the price of its executions from the escrow to the account. It counts if the worker's key is or was
  the account's, each execution is payable by the evidence and claimed here first, the amount is the price, and the
  Hold that it names counts and covers the most that the job may cost. So no escrow is ever overdrawn.
  Of claims to one execution on one path the first that counts stands; of others that of the lowest rank.
- **Release** moves back up to its amount: as much as the job, once it is over, has in escrow beyond what is owed to
  anybody. On the line only.
- **Pay** moves nothing. It says that the payer knows a Work that counts, and so enters its own Checkpoints.
- **Checkpoint** counts if its sums are those of the path.

A Work that counts keeps counting, whatever its payer or anybody but its own account signs afterwards: all that its
Hold rests on then can only grow.

To judge the next entry of a feed costs nothing that grows with it. Of a feed with one path (``plain.py``) that goes
for what arrives late, too. Any other has a ``Walk`` that stands at the entry judged last: what arrives late is judged
with all that follows it, so that many such should come in one ``add_all``.
"""

from bisect import insort
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sparkle_ledger import outcomes as out
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import (
    MAX_MICRO,
    MAX_SETTLED,
    NO_PREV,
    AccountId,
    Entry,
    EntryCodec,
    EntryId,
    Hold,
    PairTotal,
    Penalty,
    Release,
    Settled,
    Work,
)
from sparkle_ledger.evidence import Execution, JobRecord
from sparkle_ledger.feed import NO_KEY, Feed, Node, Room
from sparkle_ledger.forks import ForkProof
from sparkle_ledger.money import Escrow
from sparkle_ledger.outcomes import Outcome
from sparkle_ledger.plain import PlainSums
from sparkle_ledger.rulings import Page, Rulings
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import Verify
from sparkle_protocol.identity import verify_signature


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


@dataclass(frozen=True, slots=True)
class NextPlace:
    """Where an author's next entry goes: the arguments of ``EntryCodec.seal``."""

    incarnation: int
    seq: int
    prev: EntryId


class Book(Rulings):
    """All accounts of a network, as far as their entries are known here."""

    __slots__ = ("_codec", "_queue", "_room", "_together", "_verify")

    def __init__(self, network: str, economy: Economy | None = None, verify: Verify = verify_signature) -> None:
        super().__init__(network, economy or Economy())
        self._verify = verify
        self._room = Room()
        self._codec = EntryCodec(network, verify)
        self._queue: dict[AccountId, Page] = {}  # accounts with entries to be judged
        self._together = False

    # --- the set ------------------------------------------------------------------------------------------

    def add(self, entry: Entry) -> Outcome:
        """Take in an entry that ``EntryCodec.open`` verified, and say what became of it."""
        why = self._take(entry)
        if self._queue and not self._together:
            self._settle()
        node = self._nodes.get(entry.id)
        return node.outcome if node is not None else why

    def add_all(self, entries: Iterable[Entry]) -> None:
        """Take in many at once: cheaper than one by one where they come out of order."""
        with self.together():
            for entry in entries:
                self._take(entry)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Entries that are added meanwhile get their places at once, and are judged at the end."""
        before, self._together = self._together, True
        try:
            yield
        finally:
            self._together = before
            if not before:
                self._settle()

    def add_record(self, record: JobRecord) -> tuple[EntryId, ...]:
        """Take in evidence about a job; returns the entries whose outcome changed by it.

        Raises:
            LocalProtocolError: it is of another network.
        """
        if record.network != self.network:
            raise LocalProtocolError(f"evidence of network '{record.network}' in a book of '{self.network}'")
        page = self._job(record.job)
        first = page.record is None
        if page.record is None:
            page.record = JobRecord(record.spec_fact, self.network)
        known = page.record
        had, was_over, owed = known.executions > 0, known.over, known.owed_micro
        known.merge(record)
        relied = not had and known.executions > 0
        fresh = known.take_fresh()
        indices = page.works.keys() if first else fresh & page.works.keys()
        for node in [work for index in indices for work in page.works[index]]:
            node.checked = None
            self._anew(node)
        changed = first or relied or known.owed_micro != owed or known.over != was_over
        for node in page.others if changed else ():
            is_hold = isinstance(node.entry.payload, Hold)
            if not is_hold or first or (relied and not node.outcome.counts):
                self._anew(node)
            if relied and is_hold and not self._pages[node.entry.account].feed.simple:
                self._holds_anew(self._pages[node.entry.account])
        return self._settle()

    def _take(self, entry: Entry) -> Outcome:
        """Put an entry and those that it carries in their places; returns why it has none."""
        why = out.GAP
        queue = [entry]
        for one in queue:  # grows meanwhile
            if one.id in self._nodes:
                continue
            page = self._page(one.account)
            aside, placed = page.feed.place(one)
            if one is entry and aside is not None:
                why = aside
            if not page.feed.simple:
                page.plain = None
            for node in placed:
                queue += self._enter(page, node)
            moved = page.feed.take_moved()
            if moved:
                page.left = None
                for node in moved:
                    self._anew(node, deep=True)
        return why

    def _enter(self, page: Page, node: Node) -> tuple[Entry, ...]:
        """Note where a new node will be looked for; returns the entries that it carries."""
        payload = node.entry.payload
        if page.plain is not None and not page.plain.append(node):
            page.plain = None
        for other in self._refer(page, node):
            self._anew(other)
        self._anew(node)
        for other in self._refs.get(node.entry.id, ()):
            other.checked = None
            self._anew(other)
        if isinstance(payload, Hold) and not page.feed.simple and page.feed.why_off(node) is not None:
            self._holds_anew(page)
        if isinstance(payload, Penalty):
            try:
                proof = ForkProof.decode(payload, self._codec)
            except RemoteProtocolError:
                node.checked = out.BAD_PROOF
                return ()
            node.checked = out.BOOKED
            return proof.first, proof.second
        return ()

    # --- judging what has to be judged anew -----------------------------------------------------------------

    def _anew(self, node: Node, *, deep: bool = False) -> None:
        """An entry has to be judged anew; ``deep``: and all after it even if nothing changes for this one."""
        page = self._pages[node.entry.account]
        page.dirty[node] = deep or page.dirty.get(node, False)
        self._queue[page.feed.account] = page

    def _holds_anew(self, page: Page) -> None:
        """Other Holds that a Restore left behind count now."""
        page.left = None
        if len(page.feed.heads) > 1:
            for hold in page.holds:
                if hold.entry.incarnation:  # those of the first one left nothing behind
                    self._anew(hold)

    def _settle(self) -> tuple[EntryId, ...]:
        """Judge until nothing changes any more; returns the entries whose outcome did."""
        before: dict[EntryId, Outcome] = {}
        while self._queue:
            _, page = next(iter(self._queue.items()))
            del self._queue[page.feed.account]
            if page.plain is not None:
                self._judge_plain(page, page.plain, before)
            else:
                self._judge_again(page, before)
        return tuple(one for one, was in before.items() if self._nodes[one].outcome is not was)

    def _judge_plain(self, page: Page, plain: PlainSums, before: dict[EntryId, Outcome]) -> None:
        """Judge the entries of an account with one path that have to be, the first one first."""
        todo, page.dirty = sorted(page.dirty, key=_depth), {}
        queued = set(todo)
        at = 0
        while at < len(todo):
            node = todo[at]
            at += 1
            queued.discard(node)
            plain.go_to(node.parent)
            moved, strict, face = node.moved, node.strict, node.face
            if self._judge(page, node, before):
                for other in plain.changed(node, node.moved - moved, node.strict - strict, node.face - face):
                    if other not in queued:
                        queued.add(other)
                        insort(todo, other, lo=at, key=_depth)

    def _judge_again(self, page: Page, before: dict[EntryId, Outcome]) -> None:
        """Judge the entries of an account that have to be, and those after them for which it makes a difference."""
        dirty, page.dirty = page.dirty, {}
        starts = sorted(dirty, key=lambda node: node.depth) if len(dirty) > 1 else list(dirty)
        done: set[Node] = set()
        for start in starts:
            if start in done:
                continue
            stack = [(start, False)]
            while stack:
                node, deep = stack.pop()
                if node in done:
                    continue
                page.walk.go_to(node.parent)
                deep = self._judge(page, node, before) or deep or dirty.get(node, False)
                page.walk.step(node)
                done.add(node)
                if deep:
                    stack += ((child, True) for child in node.children)

    def _judge(self, page: Page, node: Node, before: dict[EntryId, Outcome]) -> bool:
        """Judge one entry; True when it makes a difference for those after it."""
        page.dirty.pop(node, None)
        ruling = self.rule(page, node)
        was = node.outcome
        if ruling == (was, node.moved, node.strict, node.face):
            return False
        if ruling.moved != node.moved:
            self._move(node, ruling.moved - node.moved)
        node.moved, node.strict, node.face, node.outcome = ruling.moved, ruling.strict, ruling.face, ruling.outcome
        if was is not ruling.outcome:
            before.setdefault(node.entry.id, was)
            if was.counts != ruling.outcome.counts:
                for other in self._refs.get(node.entry.id, ()):
                    other.checked = None
                    self._anew(other)
                if node.contested and page.plain is not None and isinstance(node.entry.payload, Work):
                    for other in self._claimed_after(node, node.entry.payload):
                        self._anew(other)
        return True

    def _move(self, node: Node, more: int) -> None:
        """Move so much more into the account than before."""
        account, payload = node.entry.account, node.entry.payload
        if isinstance(payload, Hold):
            self.money.hold(account, payload.job, -more)
        elif isinstance(payload, Work):
            self.money.pay(AccountId(payload.payer), payload.job, account, more)
        elif isinstance(payload, Release):
            self.money.release(account, payload.job, more)

    def _page(self, account: AccountId) -> Page:
        found = self._pages.get(account)
        if found is None:
            feed = Feed(self.network, account, self._nodes, self._verify, self._room)
            found = self._pages[account] = Page(feed, self._nodes, self.economy)
        return found

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
        if page is not None and tip is not None:
            sums = page.sums
            sums.go_to(tip)
            limit = self.economy.limit(sums.earned())
            if account in self.economy.unlimited:
                limit = MAX_MICRO
            if tip.key != NO_KEY and not page.feed.frozen:
                funds = min(sums.strict - self._left_behind(page, tip), sums.face)
                spendable = min(max(0, funds + limit), MAX_MICRO)
        heads = page.feed.heads if page is not None else {}
        return Account(
            account, purse.balance, purse.held, purse.earned, purse.spent, limit, spendable,
            {one: (node.entry.seq, node.entry.id) for one, node in sorted(heads.items())},
            page.feed.nodes if page is not None else 0,
            page is not None and page.feed.frozen,
            (tip.key or None) if tip is not None else None,
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
        for node in {work: None for works in page.works.values() for work in works} if page is not None else ():
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
        claims = page.claims.get(execution.worker, {}) if page is not None else {}
        return [node.entry.id for node in claims.get((execution.unit, execution.epoch), ())]

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
            return NextPlace(0, 0, EntryId(NO_PREV))
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
        """Its submitter signed a Hold that covers the job, whatever became of that."""
        page = self._jobs.get(job)
        return page is not None and any(
            isinstance(node.entry.payload, Hold)
            and page.record is not None
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


def _depth(node: Node) -> int:
    return node.depth
