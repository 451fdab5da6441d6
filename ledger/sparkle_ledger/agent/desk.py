"""What the parts of an agent share: the book, requests under way, and what is durable of the book.

Whatever is told to others, or answered, about an entry waits until the entry is durable (``when_kept``). There is one
``KeepLedger`` at a time; what comes up meanwhile goes with the next.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from sparkle_ledger.book import Book
from sparkle_ledger.closing import Closing
from sparkle_ledger.entries import AccountId, Entry, EntryCodec, EntryId, Release, Work, account_of
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.folding import Fold
from sparkle_ledger.forks import ForkProof
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.codec import encode
from sparkle_protocol.facts import FactCodec, Signer
from sparkle_protocol.ids import PeerId
from sparkle_protocol.ledger_messages import Head

SECOND_NS = 1_000_000_000
AGAIN_NS = 10 * SECOND_NS  # after a disk that failed
MAX_UNKEPT_BYTES = 16 << 20  # not durable yet; beyond that nothing of others is taken in

Answer = Callable[[messages.Reply | None], None]


@dataclass(slots=True)
class _Batch:
    """What is to be kept at once, and what follows once it is."""

    entries: list[Entry] = field(default_factory=list)
    evidence: list[fx.LedgerEvidence] = field(default_factory=list)
    forks: list[ForkProof] = field(default_factory=list)
    closings: dict[bytes, fx.LedgerClosing] = field(default_factory=dict)
    folds: list[bytes] = field(default_factory=list)
    then: list[Callable[[], None]] = field(default_factory=list)
    bytes: int = 0

    @property
    def empty(self) -> bool:
        return not (self.entries or self.evidence or self.forks or self.closings or self.folds)


class Desk:
    """One node's place in the ledger."""

    def __init__(self, signer: Signer, book: Book, facts: FactCodec, entries: EntryCodec | None = None) -> None:
        self.signer = signer
        self.me = signer.peer_id
        self.account: AccountId = account_of(book.network, signer.public_key)
        self.book = book
        self.entries = entries or EntryCodec(book.network)
        self.facts = facts
        self.now_ns = 0
        self.touched: set[AccountId] = set()  # accounts that may have forked since it was looked at
        self._out: list[fx.Effect] = []
        self._tag = 0
        self._asked: dict[int, tuple[PeerId, Answer]] = {}
        self._next = _Batch()
        self._under_way: tuple[int, _Batch] | None = None
        self._again_ns: int | None = None
        self._unkept: set[EntryId] = set()
        self._arrived: list[Entry] = []

    # --- effects ------------------------------------------------------------------------------------------

    def do(self, effect: fx.Effect) -> None:
        """Have something performed."""
        self._out.append(effect)

    def ask(self, peer: PeerId, message: messages.Request, answer: Answer) -> None:
        """Ask a peer; ``answer`` gets its reply, None if there is none."""
        tag = self.next_tag()
        self._asked[tag] = (peer, answer)
        self.do(fx.Send(tag, peer, message))

    def replied(self, tag: int, peer: PeerId, message: messages.Reply | None) -> None:
        """A reply came, or will not come; others' and late ones are no harm."""
        asked, answer = self._asked.get(tag, (None, None))
        if asked == peer and answer is not None:
            del self._asked[tag]
            answer(message)

    def violation(self, peer: PeerId, reason: str) -> None:
        """A peer broke a rule."""
        if peer != self.me:
            self.do(fx.Violation(peer, reason))

    def take_out(self) -> fx.Effects:
        """What is to be performed, in order."""
        out, self._out = self._out, []
        return tuple(out)

    # --- the book -----------------------------------------------------------------------------------------

    def take_in(self, entries: Iterable[Entry]) -> None:
        """Take verified entries into the book, and keep those that are new and stand there or may come to."""
        for entry in entries:
            if self.book.entry(entry.id) is not None or entry.id in self._unkept:
                continue
            outcome = self.book.add(entry)
            if outcome.placed or outcome.code == "gap":
                self._next.entries.append(entry)
                self._next.bytes += len(entry.raw)
                self._unkept.add(entry.id)
                self.touched.add(entry.account)
                if isinstance(entry.payload, Work | Release):
                    self._arrived.append(entry)

    def take_arrived(self) -> list[Entry]:
        """What pays, or takes back, and came since this was asked last."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def take_record(self, record: JobRecord, ranges: Collection[int]) -> None:
        """Take evidence into the book, and keep what counts of it by now about these ranges of units.

        Nothing of it is kept if the job is closed, and stays so.
        """
        self.book.add_record(record)
        if self.book.closing(record.job) is not None:
            return
        self._next.closings.pop(record.job, None)  # it is open again, and on disk it still is
        merged = self.book.record(record.job) or record
        wanted = set(ranges)
        facts = tuple(f.raw for f in merged.counting(wanted) if not f.ranges or f.ranges & wanted)
        sealed = tuple(one.encode() for one in merged.sealed() if one.index in wanted)
        self._next.evidence.append(fx.LedgerEvidence(record.job, facts, sealed))
        self._next.bytes += sum(map(len, facts)) + sum(map(len, sealed))

    def keep_fork(self, proof: ForkProof) -> None:
        """Keep a proof that an account forked."""
        self._next.forks.append(proof)
        self._next.bytes += len(proof.first.raw) + len(proof.second.raw)

    def keep_closing(self, closing: Closing, *, keep_evidence: bool) -> None:
        """Keep what a job was closed with, in the place of its evidence or beside it."""
        raw = encode(closing)
        self._next.closings[closing.job] = fx.LedgerClosing(raw, keep_evidence)
        self._next.bytes += len(raw)

    def keep_folds(self, folds: Iterable[Fold]) -> None:
        """Keep what takes the place of entries, all of which are durable."""
        for fold in folds:
            raw = encode(fold)
            self._next.folds.append(raw)
            self._next.bytes += len(raw)

    @property
    def idle(self) -> bool:
        """All that the book has is durable."""
        return self._under_way is None and self._next.empty

    def next_tag(self) -> int:
        """For an effect that is answered."""
        self._tag += 1
        return self._tag

    @property
    def behind(self) -> bool:
        """The disk does not keep up; nothing of others should be taken in."""
        return self.sizes()["unkept"] > MAX_UNKEPT_BYTES

    def kept_entries(self, account: AccountId, incarnation: int = 0, first: int = 0) -> Iterator[Entry]:
        """The durable entries of an account from a place on; nothing after one that is not durable yet."""
        for entry in self.book.entries(account, incarnation, first):
            if entry.id in self._unkept:
                return
            yield entry

    def kept_head(self, account: AccountId) -> Head | None:
        """The last entry of an account that is known and durable; it may be a little behind where the disk is."""
        heads = self.book.account(account).heads
        for incarnation in sorted(heads, reverse=True):
            seq, id_ = heads[incarnation]
            if id_ not in self._unkept:
                return Head(incarnation, seq, id_)
            while seq > 0:  # no more steps than entries that are not durable
                entry = self.book.entry(id_)
                if entry is None or id_ not in self._unkept:
                    break
                seq, id_ = seq - 1, entry.prev
            if id_ not in self._unkept:
                return Head(incarnation, seq, id_)
        return None

    def sizes(self) -> dict[str, int]:
        """Requests under way, and bytes that are not durable yet."""
        waiting = self._next.bytes + (self._under_way[1].bytes if self._under_way is not None else 0)
        return {"asked": len(self._asked), "unkept": waiting}

    # --- what is durable ----------------------------------------------------------------------------------

    def when_kept(self, then: Callable[[], None]) -> None:
        """Call ``then`` once all that was taken in until now is durable."""
        self._next.then.append(then)

    def flush(self) -> None:
        """Have kept what is to be; what has nothing to wait for goes on at once."""
        while self._under_way is None and (self._next.then or not self._next.empty):
            batch, self._next = self._next, _Batch()
            if batch.empty:
                for then in batch.then:
                    then()
                continue
            self._under_way = (self.next_tag(), batch)
            self._keep()

    def _keep(self) -> None:
        if self._under_way is not None:
            tag, batch = self._under_way
            self.do(
                fx.KeepLedger(
                    tag,
                    tuple(entry.raw for entry in batch.entries),
                    tuple(batch.evidence),
                    tuple((proof.first.raw, proof.second.raw) for proof in batch.forks),
                    tuple(batch.closings.values()),
                    tuple(batch.folds),
                )
            )

    def kept(self, event: fx.LedgerKept) -> None:
        """The disk answered; what could not be kept is tried again."""
        if self._under_way is None or self._under_way[0] != event.tag:
            return
        if event.failure is not None:
            self._again_ns = self.now_ns + AGAIN_NS
            return
        batch, self._under_way = self._under_way[1], None
        self._unkept.difference_update(entry.id for entry in batch.entries)
        for then in batch.then:
            then()

    def tick(self) -> None:
        """Try again what the disk refused."""
        if self._again_ns is not None and self._again_ns <= self.now_ns:
            self._again_ns = None
            self._keep()

    @property
    def due_ns(self) -> int | None:
        """When ``tick`` has something to do."""
        return self._again_ns
