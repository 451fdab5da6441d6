"""Claims that nothing here proves yet: others' in jobs that are known here, and forgotten ones of ours.

A job's keepers may accept an execution after its submitter heard the last of the job, and a worker fetches proofs at
another time than the next one: without more their copies would not come to agree. And whose store was put back from a
backup learns from its witnesses what it signed since, but not what that rests on. So each looks into what it keeps of
the job, if that is closed into what the disk has, and else asks: the worker and the payer; about its own claims its
witnesses, too. It asks later and later; after ``MAX_TRIES`` in vain the claim is left as it is, pending. What
submitters take back of jobs that are not known to be over is looked after in the same way.

Anybody may claim anything. So there is room for few claims of one key, and those that were asked about in vain
most often make room for others.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.fetching import NO_UNITS, Fetching
from sparkle_ledger.agent.serving import KeptRecord, Shelf
from sparkle_ledger.agent.stored import Stored
from sparkle_ledger.entries import AccountId, Entry, EntryId, Release, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol.facts import SEAL_UNITS
from sparkle_protocol.ids import JobId, PeerId, peer_id_from_key

UNPROVEN = ("pending:evidence", "pending:not_accepted", "pending:not_over")
UNFUNDED = "pending:hold"
OWN_NS = 5 * SECOND_NS  # until we ask about a claim of ours, or one that we are to pay
OTHERS_NS = 30 * SECOND_NS  # about another: as a rule what we fetch for our own claims proves it by then
RETRY_NS = 10 * SECOND_NS
MAX_RETRY_NS = 600 * SECOND_NS
MAX_TRIES = 16  # in a row: two hours
MAX_CLAIMS = 256  # that are asked about
MAX_OF_AUTHOR = 16


@dataclass(slots=True)
class _Unproven:
    """One claim."""

    job: JobId
    ranges: frozenset[int]
    author: bytes  # the key that signed it
    payer: AccountId
    own: bool
    due_ns: int
    tries: int = 0
    busy: bool = False
    read: bool = False  # the disk was asked, too


class Proving:
    """Claims whose proof is looked for."""

    def __init__(
        self,
        desk: Desk,
        shelf: Shelf,
        fetching: Fetching,
        stored: Stored,
        kept_record: KeptRecord,
        witnesses: Callable[[], tuple[PeerId, ...]],
    ) -> None:
        self._desk = desk
        self._shelf = shelf
        self._fetching = fetching
        self._stored = stored
        self._kept_record = kept_record
        self._witnesses = witnesses
        self._claims: dict[EntryId, _Unproven] = {}
        self._of_author: Counter[bytes] = Counter()
        self._again_ns: int | None = None  # when all entries of ours are looked at once more

    def __len__(self) -> int:
        return len(self._claims)

    def look(self, entries: Iterable[Entry]) -> None:
        """See which of these are claims without a proof here."""
        for entry in entries:
            if isinstance(entry.payload, Work | Release) and entry.id not in self._claims:
                own = entry.account == self._desk.account
                if own and self._outcome(entry.id) == "gap":  # what comes before it is on its way
                    self._again_ns = self._desk.now_ns + RETRY_NS
                if self._lacks(entry.id, own=own):
                    self._take(entry, entry.payload, own=own)

    def _take(self, entry: Entry, stated: Work | Release, *, own: bool) -> None:
        job = JobId(stated.job)
        book = self._desk.book
        known = own or book.record(job) is not None or book.closing(job) is not None
        if not known or (self._of_author[entry.key] >= MAX_OF_AUTHOR and not own):
            return
        if not self._has_room():
            if own:
                self._again_ns = self._desk.now_ns + RETRY_NS
            return
        payer, ranges = entry.account, frozenset([NO_UNITS])  # whether it is over is said without any
        if isinstance(stated, Work):
            payer = AccountId(stated.payer)
            ranges = frozenset(one.unit // SEAL_UNITS for one in stated.units)
        delay_ns = OWN_NS if own or payer == self._desk.account else OTHERS_NS
        self._claims[entry.id] = _Unproven(job, ranges, entry.key, payer, own, self._desk.now_ns + delay_ns)
        self._of_author[entry.key] += 1

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
        author = self._claims.pop(id_).author
        self._of_author[author] -= 1
        if not self._of_author[author]:
            del self._of_author[author]

    def _lacks(self, id_: EntryId, *, own: bool) -> bool:
        """Something that an entry rests on is not known here, and may be had."""
        code = self._outcome(id_)
        return code in UNPROVEN or (own and code == UNFUNDED)

    def _outcome(self, id_: EntryId) -> str:
        outcome = self._desk.book.outcome(id_)
        return outcome.code if outcome is not None else ""

    # --- doing --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take up what came, and ask about those whose turn it is."""
        self.look(self._desk.take_arrived())
        now_ns = self._desk.now_ns
        if self._again_ns is not None and self._again_ns <= now_ns:
            self._again_ns = None
            self.look(self._desk.book.entries(self._desk.account))
        for id_, claim in [(id_, one) for id_, one in self._claims.items() if not one.busy and one.due_ns <= now_ns]:
            self._prove(id_, claim)

    def dues(self) -> Iterator[int]:
        """When the next ones are."""
        if self._again_ns is not None:
            yield self._again_ns
        yield from (claim.due_ns for claim in self._claims.values() if not claim.busy)

    def _prove(self, id_: EntryId, claim: _Unproven) -> None:
        if self._lacks(id_, own=claim.own):
            record = self._kept_record(claim.job)
            if record is not None:
                self._desk.take_record(record, claim.ranges)
        if not self._lacks(id_, own=claim.own) or claim.tries >= MAX_TRIES:
            self._drop(id_)
            return
        if not claim.read and self._desk.book.closing(claim.job) is not None:
            claim.busy = claim.read = True
            if self._stored.find(claim.job, lambda record: self._was_read(id_, claim, record)):
                return
            claim.busy = claim.read = False
        sources = self._sources(claim)
        if not sources:
            self._asked(id_, claim)
            return
        claim.busy = True
        source = sources[claim.tries % len(sources)]
        if self._outcome(id_) == UNFUNDED:
            self._shelf.concern(claim.payer)
            self._fetching.feed(source, claim.payer, lambda _: self._asked(id_, claim))
        else:
            self._fetching.proof(source, claim.job, claim.ranges, lambda _: self._asked(id_, claim))

    def _was_read(self, id_: EntryId, claim: _Unproven, record: JobRecord | None) -> None:
        claim.busy = False
        if record is not None:
            self._desk.take_record(record, claim.ranges)
        self._prove(id_, claim)

    def _sources(self, claim: _Unproven) -> list[PeerId]:
        """Who may have what it rests on."""
        payer = self._desk.book.account(claim.payer).key
        keys = [claim.author, *([payer] if payer is not None else [])]
        peers = [*map(peer_id_from_key, keys), *(self._witnesses() if claim.own else ())]
        return [peer for peer in dict.fromkeys(peers) if peer != self._desk.me]

    def _asked(self, id_: EntryId, claim: _Unproven) -> None:
        claim.busy = False
        if not self._lacks(id_, own=claim.own):
            self._drop(id_)
            return
        got_on = self._outcome(id_) == UNFUNDED and not claim.tries  # it is proven now
        claim.tries += 1
        delay_ns = OWN_NS if got_on else min(RETRY_NS << min(claim.tries - 1, 6), MAX_RETRY_NS)
        claim.due_ns = self._desk.now_ns + delay_ns
