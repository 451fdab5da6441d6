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

A Work that counts keeps counting, whatever its payer or anybody but its own account signs afterwards: all that its
Hold rests on then can only grow.

To judge the next entry of a feed costs nothing that grows with it. Of a feed with one path (``plain.py``) that goes
for what arrives late, too. Any other has a ``Walk`` that stands at the entry judged last: what arrives late is judged
with all that follows it, so that many such should come in one ``add_all``.
"""

from bisect import insort
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sparkle_ledger import outcomes as out
from sparkle_ledger.book_folding import BookFolding
from sparkle_ledger.closing import MAX_FINALS, Closing, Final, Ruling
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import (
    AccountId,
    Entry,
    EntryCodec,
    EntryId,
    Hold,
    Payload,
    Penalty,
    Release,
    Work,
)
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.feed import Node, Room
from sparkle_ledger.feed_folding import FoldableFeed
from sparkle_ledger.folding import Base, Fold
from sparkle_ledger.forks import ForkProof
from sparkle_ledger.outcomes import Outcome
from sparkle_ledger.plain import PlainSums
from sparkle_ledger.rulings import JobPage, Page
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import SEAL_UNITS, Verify
from sparkle_protocol.identity import verify_signature


class Book(BookFolding):
    """All accounts of a network, as far as their entries are known here."""

    __slots__ = ("_codec", "_finals", "_queue", "_room", "_together", "_verify")

    def __init__(self, network: str, economy: Economy | None = None, verify: Verify = verify_signature) -> None:
        super().__init__(network, economy or Economy())
        self._verify = verify
        self._room = Room()
        self._codec = EntryCodec(network, verify)
        self._queue: dict[AccountId, Page] = {}  # accounts with entries to be judged
        self._together = False
        self._finals: dict[EntryId, Ruling] = {}  # of entries that are not here yet

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
        if page.is_shut or (page.closing is not None and page.record is None and not record.executions):
            return ()  # nothing that was not judged
        had, was_over, owed = page.executions > 0, page.is_over, page.owed_micro
        if page.record is None:
            page.record = JobRecord(record.spec_fact, self.network)
            self._note_claims(page)
        known = page.record
        known.merge(record)
        relied = not had and page.executions > 0
        fresh = known.take_fresh()
        indices = page.works.keys() if first else fresh & page.works.keys()
        for node in [work for index in indices for work in page.works[index]]:
            node.checked = None
            self._anew(node)
        changed = first or relied or page.owed_micro != owed or page.is_over != was_over
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
            queue += self._enter_all(page, placed)
        return why

    def bridge(self, account: AccountId) -> bool:
        """Have one's own account go on after entries that nobody has any more; False: there is nothing after them."""
        page = self._page(account)
        placed = page.feed.bridge()
        for entry in self._enter_all(page, placed):
            self._take(entry)
        self._settle()
        return bool(placed)

    def _enter_all(self, page: Page, placed: list[Node]) -> list[Entry]:
        """Note where new nodes of an account will be looked for; returns the entries that they carry."""
        carried: list[Entry] = []
        if not page.feed.simple:
            page.plain = None
        for node in placed:
            carried += self._enter(page, node)
        moved = page.feed.take_moved()
        if moved:
            page.left = None
            for node in moved:
                self._anew(node, deep=True)
        return carried

    def _enter(self, page: Page, node: Node) -> tuple[Entry, ...]:
        """Note where a new node will be looked for; returns the entries that it carries."""
        payload = node.entry.payload
        node.final = self._finals.pop(node.entry.id, None)
        if page.plain is not None and not page.plain.append(node):
            page.plain = None
        for other in self._refer(page, node):
            self._anew(other)
        self._anew(node)
        if node.final is not None and isinstance(payload, Work):
            self._take_room(payload, node)
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
            self._prove(proof)
            return proof.first, proof.second
        return ()

    def add_proof(self, proof: ForkProof) -> None:
        """Take in the proof that an account forked, if that was among its entries that are folded here."""
        self._prove(proof)
        if not self._together:
            self._settle()

    def _prove(self, proof: ForkProof) -> None:
        page = self._pages.get(proof.first.account)
        if page is not None and page.feed.prove(proof):
            page.plain = page.left = None
            for node in page.feed.take_moved():
                self._anew(node, deep=True)

    # --- closing --------------------------------------------------------------------------------------------

    def is_closable(self, job: bytes, *, though_some_wait: bool = False) -> bool:
        """A job is over, and no Work that is known waits for evidence, or for a hold that counts. More may come.

        ``though_some_wait``: anybody can sign what waits for ever.
        """
        page = self._jobs.get(job)
        if page is None or page.record is None or not page.is_over:
            return False
        works = page.all_works()
        if sum(node.outcome.counts for node in works) > MAX_FINALS:
            return False
        return though_some_wait or not any(map(_waits, works))

    def close(self, job: bytes, at_ms: int = 0) -> Closing:
        """Make the outcomes of a closable job's Works final, and forget what proved them. See ``closing.py``.

        ``at_ms``: this node's clock. If it was closed before, that is when.

        Raises:
            LocalProtocolError: it is not closable.
        """
        page = self._job(job)
        record = page.record
        if record is None or not self.is_closable(job, though_some_wait=True):
            raise LocalProtocolError(f"job {job.hex()[:12]} cannot be closed yet")
        works = sorted(page.all_works(), key=lambda node: (not node.outcome.counts, _waits(node)))
        judged = [node for node in works[:MAX_FINALS] if not _waits(node)]
        for node in judged:
            node.final = Ruling(node.outcome, node.moved, node.strict, node.face)
        finals = [Final(node.entry.id, node.outcome.code, node.moved) for node in judged]
        executions, key = page.executions, record.submitter_key
        if page.closing is not None:
            at_ms = page.closing.at_ms
        page.closing = Closing(job, record.spec_fact.raw, key, record.price_micro, executions, finals, at_ms)
        page.record, page.claims, page.taken = None, {}, {}
        for node in works[len(judged) :]:
            node.checked = None
            self._anew(node)
        self._settle()
        return page.closing

    def add_closing(self, closing: Closing) -> None:
        """Take over what an earlier book closed. To be done before anything else of the job is added.

        Raises:
            LocalProtocolError: it was not.
        """
        page = self._job(closing.job)
        if page.is_known or page.works or page.others:
            raise LocalProtocolError(f"job {closing.job.hex()[:12]} is known already")
        page.closing = closing
        for one in closing.finals:
            self._finals[one.entry] = Ruling(out.BY_CODE.get(one.code, out.GAP), one.moved, one.moved, one.moved)
        for payer in closing.paid or ():
            self.money.begin_job(closing.job, AccountId(payer.account), payer.micro)

    # --- folding --------------------------------------------------------------------------------------------

    def fold(self, account: AccountId, count: int) -> list[Fold]:
        """Fold so many of an account's oldest entries, of those that are ``foldable``; returns the steps of it."""
        if count <= 0:
            return []
        folds, anew = self._fold(self._pages[account], count)
        for node in anew:
            node.checked = None
            self._anew(node)
        self._settle()
        return folds

    def add_base(self, base: Base) -> None:
        """Go on from what an earlier book folded. To be done after its closings, and before anything else.

        Raises:
            LocalProtocolError: it was not.
        """
        page = self._page(base.account)
        if page.feed.nodes or page.feed.base is not None:
            raise LocalProtocolError(f"account {base.account.hex()[:12]} is known already")
        self._begin(page, base)

    def closing(self, job: bytes) -> Closing | None:
        """What is kept of a job in the place of evidence; None: that is here, or nothing is known."""
        page = self._jobs.get(job)
        return page.closing if page is not None and page.record is None else None

    def closings(self) -> Iterator[Closing]:
        """What is kept of all jobs that were closed, also if they are open again."""
        return (page.closing for page in self._jobs.values() if page.closing is not None)

    def _note_claims(self, page: JobPage) -> None:
        """A job is open again."""
        if page.closing is not None:
            for node in page.all_works():
                page.take(node)
                work = node.entry.payload
                if isinstance(work, Work) and work.worker in node.keys:
                    self._claim(self._pages[node.entry.account], page, node, work)

    def _take_room(self, work: Work, node: Node) -> None:
        """A Work that was final before it came here may leave no room for others, if the job is open again."""
        page = self._job(work.job)
        if page.record is not None and page.take(node):
            for index in {one.unit // SEAL_UNITS for one in work.units}:
                for other in page.works[index]:
                    if other.final is None:
                        other.checked = None
                        self._anew(other)

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
                self._note_paid(node.entry.payload)
                for other in self._refs.get(node.entry.id, ()):
                    other.checked = None
                    self._anew(other)
                if node.contested and page.plain is not None and isinstance(node.entry.payload, Work):
                    for other in self._claimed_after(node, node.entry.payload):
                        self._anew(other)
        return True

    def _note_paid(self, payload: Payload) -> None:
        """What Works name counts for what is owed once a job was closed and is open again."""
        job = self._jobs.get(payload.job) if isinstance(payload, Work) else None
        if job is not None and job.closing is not None and job.record is not None:
            for other in job.others:
                self._anew(other)

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
            feed = FoldableFeed(self.network, account, self._nodes, self._verify, self._room)
            found = self._pages[account] = Page(feed, self.economy)
        return found


def _waits(work: Node) -> bool:
    """A Work may come to count without anything more being accepted."""
    return work.outcome.pending or work.outcome is out.UNFUNDED


def _depth(node: Node) -> int:
    return node.depth
