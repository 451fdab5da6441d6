"""Claims pay for accepted work: fetches what proves it and what it is paid from, and signs Works.

For each job of somebody else's in which results of ours were accepted:

1. The proof of these executions is fetched, range by range: from the submitter first, then from the keepers.
2. The Hold that pays is looked for in the submitter's feed: fetched from the submitter, the keepers, and the
   witnesses of its account. Where it does not count by what is known here, what its account rests on is fetched too:
   that jobs are over from which it took back what they did not cost, and the proofs of what it earned.
3. Works are signed in lots: the first ones ``LOT_NS`` apart, later ones a quarter of the time since the job began for
   us, an hour at most, and one more when it has ended. So a job of an hour costs 25 lots, one of a day 51: each is an
   entry that everybody who deals with us keeps.

From the moment on when there is work the Hold is looked for. While nobody shows one the node takes no more of the job
(``JobUnfunded``), as what it computed would be for nothing.

Whoever has nothing is asked again later and later; after ``MAX_TRIES`` in vain what is missing is given up and told.
The spec, and who keeps the job, is kept from the moment on when there is work, so that after a restart everything
about an unfinished job is asked once more.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.events import Accepted, WorkEnded
from sparkle_ledger.agent.fetching import NO_UNITS, Fetching
from sparkle_ledger.agent.own import OwnAccount, WallMs
from sparkle_ledger.agent.partners import Partners
from sparkle_ledger.agent.serving import Shelf
from sparkle_ledger.entries import AccountId, Release, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.witnesses import choose_witnesses
from sparkle_protocol import effects as fx
from sparkle_protocol.facts import SEAL_UNITS, KeeperSet
from sparkle_protocol.ids import FactId, JobId, PeerId, peer_id_from_key
from sparkle_protocol.work.sealed import range_count

LOT_NS = 10 * SECOND_NS
LAST_LOT_NS = 5 * SECOND_NS  # once the job has ended: what its keepers accept late
MAX_LOT_NS = 3600 * SECOND_NS
LOT_PART = 4
RETRY_NS = 10 * SECOND_NS
MAX_RETRY_NS = 600 * SECOND_NS
MAX_TRIES = 48  # in a row: half a day
UNFUNDED_NS = 60 * SECOND_NS  # for so long everybody is asked for the Hold before that is said
RESTORE_NS = SECOND_NS // 4  # from one job of an earlier life to the next
ASKED_MS = 7 * 86_400_000  # after the end of a job's time
MAX_CLAIMS = 256  # jobs
LOOKS = 3  # the last of them minutes after the first
MAX_SOURCES = 17  # the submitter, and keepers of two views
MAX_RESTS = 32  # proofs and feeds that a payer's account rests on, of one round
MAX_REST_ACCOUNTS = 64
MAX_BACK = 20  # bits: known entries of a payer that are asked for again, as its feed may have another branch
MAX_RELEASES = 256  # of one round
MAX_MISSES = 3  # after so many a peer is asked about no more of them
NOT_OVER = ("pending:evidence", "pending:not_over")
UNPROVEN = ("pending:evidence", "pending:not_accepted")


Rest = Callable[[Callable[[], None]], None]  # fetches something, and calls back then


@dataclass(slots=True)
class _Claim:
    """What is still to be claimed of one job."""

    job: JobId
    payer: AccountId
    sources: tuple[PeerId, ...]
    due_ns: int | None
    named: set[FactId]  # the spec, and what shows who keeps the job
    begun_ns: int
    wanted: dict[int, set[tuple[int, int]]] = field(default_factory=dict)  # range -> not proven here
    unsure: set[int] = field(default_factory=set)  # ranges of which anything may be ours
    shown_by: dict[int, Counter[PeerId]] = field(default_factory=dict)  # how often each showed all it has of a range
    busy: bool = False
    ended: bool = False
    tries: int = 0
    turn: int = 0  # whom to ask next
    lot_ns: int = 0  # the next lot is not signed before
    asked_ns: int | None = None  # when a proof was asked for last
    hold_next: bool = False  # what it is paid from is looked for next


class Claims:
    """All jobs that owe us."""

    def __init__(
        self, desk: Desk, shelf: Shelf, fetching: Fetching, own: OwnAccount, partners: Partners, wall_ms: WallMs
    ) -> None:
        self._wall_ms = wall_ms
        self._desk = desk
        self._shelf = shelf
        self._fetching = fetching
        self._own = own
        self._partners = partners
        self._key = desk.signer.public_key
        self._claims: dict[JobId, _Claim] = {}
        self._unfunded: dict[AccountId, int] = {}  # who had a job without a Hold, and since when it was looked for

    def __len__(self) -> int:
        return len(self._claims)

    def is_waiting(self, job: JobId) -> bool:
        """Something is still to be claimed of a job, or looked for."""
        claim = self._claims.get(job)
        return claim is not None and (claim.busy or bool(claim.wanted) or claim.due_ns is not None)

    def forget(self, job: JobId) -> None:
        """A job is closed: there will be no more work in it."""
        self._claims.pop(job, None)

    # --- what happened ------------------------------------------------------------------------------------

    def restore(self, records: Iterable[JobRecord]) -> None:
        """Go on with jobs of earlier lives of which something is not claimed, or may not be: those not over by now.

        What is known to be ours goes first. They begin one after the other, as there may be hundreds.
        """
        open_: list[tuple[bool, int, JobRecord]] = []
        for record in records:
            if record.account == self._desk.account or not record.price_micro:
                continue
            owes = bool(self._desk.book.payable(self._key, record))
            if owes or (not record.over and not self._is_long_past(record)):
                open_.append((owes, record.spec.created_ms, record))
        open_.sort(key=lambda one: one[:2], reverse=True)
        for number, (_, _, record) in enumerate(open_[:MAX_CLAIMS]):
            keepers = [fact.payload.keys for fact in record.counting(()) if isinstance(fact.payload, KeeperSet)]
            peers = [peer_id_from_key(key) for keys in reversed(keepers) for key in keys]
            claim = self._claim(record, peers)
            if claim is not None:
                claim.wanted = {index: set() for index in range(range_count(record.units))}
                claim.unsure = set(claim.wanted)
                claim.ended = True
                claim.due_ns = self._desk.now_ns + number * RESTORE_NS

    def _is_long_past(self, record: JobRecord) -> bool:
        """Its time was over so long ago that whoever might show a proof was asked in earlier lives, or is gone."""
        ends_ms = record.spec.created_ms + 1000 * record.spec.deadlines.total_s
        return self._wall_ms() > ends_ms + ASKED_MS

    def accepted(self, event: Accepted) -> None:
        """Results of ours were accepted."""
        record = JobRecord(event.spec, self._desk.book.network)
        if record.account == self._desk.account or not record.price_micro or self._is_settled(event):
            return
        record.add_all(event.views)
        claim = self._claim(record, event.keepers)
        if claim is None:
            if event.units:
                self._desk.do(fx.Notify("pay_not_claimed", {"job": record.job.hex(), "units": len(event.units)}))
            return
        for unit, epoch in event.units:
            if 0 <= unit < record.units:
                claim.wanted.setdefault(unit // SEAL_UNITS, set()).add((unit, epoch))
        if not event.units:
            return
        claim.tries = 0
        due_ns = max(self._desk.now_ns, claim.lot_ns)
        if claim.asked_ns is not None:
            due_ns = max(due_ns, claim.asked_ns + self._pause_ns(claim))
        claim.due_ns = due_ns if claim.due_ns is None else min(claim.due_ns, due_ns)

    def _is_settled(self, event: Accepted) -> bool:
        """The job is closed, and each of these results is paid."""
        if self._desk.book.closing(event.spec.job) is None:
            return False
        paid = {
            (one.unit, one.epoch) for one, _ in self._desk.book.settled(event.spec.job) if one.worker == self._key
        }
        return paid.issuperset(event.units)

    def _pause_ns(self, claim: _Claim) -> int:
        """Between two lots."""
        if claim.ended:
            return LAST_LOT_NS
        return min(max(LOT_NS, (self._desk.now_ns - claim.begun_ns) // LOT_PART), MAX_LOT_NS)

    def ended(self, event: WorkEnded) -> None:
        """There is no more work for us in a job; everybody is to show what is known of units we heard nothing of."""
        claim = self._claims.get(event.job)
        if claim is not None:
            for index in event.ranges:
                claim.wanted.setdefault(index, set())
                claim.unsure.add(index)
                claim.shown_by.pop(index, None)
            claim.ended = True
            claim.lot_ns = claim.due_ns = self._desk.now_ns

    def _claim(self, record: JobRecord, keepers: Iterable[PeerId]) -> _Claim | None:
        submitter = record.spec_fact.author
        claim = self._claims.get(record.job)
        sources = dict.fromkeys((submitter, *keepers, *(claim.sources if claim is not None else ())))
        sources.pop(self._desk.me, None)
        peers = tuple(sources)[:MAX_SOURCES]
        named = {fact.id for fact in record.counting(())}
        if claim is not None:
            claim.sources = peers
            if not named <= claim.named:  # other keepers than before
                claim.named |= named
                self._desk.take_record(record, ())
            return claim
        if len(self._claims) >= MAX_CLAIMS:
            idle = next((one for one in self._claims.values() if not one.wanted and not one.busy), None)
            if idle is None:
                return None
            del self._claims[idle.job]
        self._desk.take_record(record, ())
        self._shelf.concern(record.account)
        now_ns = self._desk.now_ns
        begun_ns = self._unfunded.get(record.account, now_ns)  # it has had its minute
        claim = _Claim(record.job, record.account, peers, now_ns, named, begun_ns)
        self._claims[record.job] = claim
        return claim

    # --- doing --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Go on with those whose turn it is."""
        for claim in list(self._claims.values()):
            if not claim.busy and claim.due_ns is not None and claim.due_ns <= self._desk.now_ns:
                self._go_on(claim)

    def dues(self) -> Iterator[int]:
        """When the next ones are."""
        yield from (claim.due_ns for claim in self._claims.values() if not claim.busy and claim.due_ns is not None)

    def _go_on(self, claim: _Claim) -> None:
        self._note_proven(claim)
        self._sign(claim)
        if self._unpaid(claim) and (claim.hold_next or not claim.wanted):  # in turns, as one may be hard to get
            claim.hold_next = False
            self._look_for_funding(claim)
        elif not claim.wanted and not claim.ended and not self._desk.book.is_held(claim.job):
            self._look_for_hold(claim)
        elif not claim.wanted:
            self._rest(claim)
        elif not claim.sources:
            self._in_vain(claim)
        else:
            claim.hold_next = claim.busy = True
            claim.asked_ns = self._desk.now_ns
            peer = self._source(claim, claim.sources)
            self._fetching.proof(peer, claim.job, claim.wanted, lambda shown: self._proof_came(claim, peer, shown))

    @staticmethod
    def _source(claim: _Claim, sources: tuple[PeerId, ...]) -> PeerId:
        claim.turn += 1
        return sources[(claim.turn - 1) % len(sources)]

    def _proof_came(self, claim: _Claim, source: PeerId, shown: list[int]) -> None:
        claim.busy = False
        before = sum(len(one) or 1 for one in claim.wanted.values())
        for index in shown:
            claim.shown_by.setdefault(index, Counter())[source] += 1
        self._note_proven(claim)
        if sum(len(one) or 1 for one in claim.wanted.values()) < before:
            claim.tries = 0
            claim.turn -= 1  # it is good to ask
            claim.due_ns = self._desk.now_ns
            self._go_on(claim)
        else:
            self._in_vain(claim)

    def _note_proven(self, claim: _Claim) -> None:
        """Forget what was wanted and is here.

        Where it is not known what that is, everybody is to show what it has, ``LOOKS`` times: the submitter may
        rather show nothing, and keepers may come to accept what they had not by then.
        """
        record = self._desk.book.record(claim.job)
        if record is None:
            return
        for index, wanted in list(claim.wanted.items()):
            proven = {one for one in wanted if (one[1], self._key) in record.payable(one[0])}
            wanted -= proven
            shown = claim.shown_by.get(index, Counter())
            all_shown = all(shown[source] >= LOOKS for source in claim.sources)
            if not wanted and (all_shown or (proven and index not in claim.unsure)):
                del claim.wanted[index]
                claim.unsure.discard(index)
                claim.shown_by.pop(index, None)

    def _unpaid(self, claim: _Claim) -> bool:
        record = self._desk.book.record(claim.job)
        return (
            record is not None
            and bool(self._desk.book.payable(self._key, record))
            and self._desk.book.funding(claim.job) is None
        )

    def _sign(self, claim: _Claim) -> None:
        """Sign a lot, if it is time."""
        if not self._own.ready or claim.lot_ns > self._desk.now_ns:
            return
        signed = [self._own.sign(work) for work in self._desk.book.claims_due(self._key, claim.job)]
        if any(signed):
            claim.tries = 0
            claim.lot_ns = self._desk.now_ns + self._pause_ns(claim)
            record = self._desk.book.record(claim.job)
            if record is not None:
                self._partners.add_payer(record.spec_fact.author)

    def _rest(self, claim: _Claim) -> None:
        """Nothing is missing; sign what could not be signed yet, later."""
        record = self._desk.book.record(claim.job)
        left = record is not None and bool(self._desk.book.payable(self._key, record))
        if left:
            claim.due_ns = max(claim.lot_ns, self._desk.now_ns + (SECOND_NS if self._own.ready else RETRY_NS))
        elif claim.ended:
            del self._claims[claim.job]
        else:
            claim.due_ns = None

    def _in_vain(self, claim: _Claim) -> None:
        """Nobody has what is missing for now."""
        claim.tries += 1
        now_ns = self._desk.now_ns
        if not claim.ended and now_ns - claim.begun_ns >= UNFUNDED_NS and not self._desk.book.is_held(claim.job):
            self._unfunded.setdefault(claim.payer, claim.begun_ns)
            if len(self._unfunded) > MAX_CLAIMS:
                del self._unfunded[next(iter(self._unfunded))]
            self._desk.do(fx.JobUnfunded(claim.job))
        if claim.tries > MAX_TRIES:
            units = sum(map(len, claim.wanted.values()))
            del self._claims[claim.job]
            if units:
                self._desk.do(fx.Notify("pay_not_claimed", {"job": claim.job.hex(), "units": units}))
            return
        rounds = claim.tries // max(1, len(claim.sources))  # everybody is asked once in a row
        delay_ns = min(RETRY_NS << min(rounds - 1, 6), MAX_RETRY_NS) if rounds else SECOND_NS
        claim.due_ns = now_ns + delay_ns

    # --- what it is paid from -----------------------------------------------------------------------------

    def _look_for_hold(self, claim: _Claim) -> None:
        """See whether there is one, before there is anything to be paid."""

        def fed(_: PeerId) -> None:
            claim.busy = False
            if self._desk.book.is_held(claim.job):
                self._unfunded.pop(claim.payer, None)
                claim.tries, claim.due_ns = 0, self._desk.now_ns
            else:
                self._in_vain(claim)

        self._fetch_feed(claim, fed)

    def _look_for_funding(self, claim: _Claim) -> None:
        def fed(source: PeerId) -> None:
            self._fetch_rests(claim, self._rests(source, claim.payer))

        self._fetch_feed(claim, fed)

    def _fetch_feed(self, claim: _Claim, fed: Callable[[PeerId], None]) -> None:
        """Fetch what the payer signed, from the next of those who may know it."""
        witnesses = choose_witnesses(claim.payer, self._partners.candidates(), ())
        sources = dict.fromkeys((*claim.sources, *witnesses))
        if not sources:
            self._in_vain(claim)
            return
        source = self._source(claim, tuple(sources))
        claim.busy = True
        back = 1 << min(2 * claim.tries, MAX_BACK)
        self._fetching.feed(source, claim.payer, lambda _: fed(source), back=back)

    def _fetch_rests(self, claim: _Claim, rests: Iterator[Rest]) -> None:
        """One after the other what the payer's account rests on, until that suffices."""
        rest = next(rests, None) if self._desk.book.funding(claim.job) is None else None
        if rest is not None:
            rest(lambda: self._fetch_rests(claim, rests))
            return
        claim.busy = False
        if self._desk.book.funding(claim.job) is not None:
            claim.tries, claim.due_ns = 0, max(self._desk.now_ns, claim.lot_ns)
        else:
            self._in_vain(claim)

    def _rests(self, source: PeerId, payer: AccountId) -> Iterator[Rest]:
        """What is missing of what a payer took back, and of what accounts rest on that it and others earned from."""
        taken_back = [one for one in self._desk.book.entries(payer) if isinstance(one.payload, Release)]
        shown: list[bool] = []
        for entry in taken_back[: -MAX_RELEASES - 1 : -1]:  # the latest first
            outcome = self._desk.book.outcome(entry.id)
            if isinstance(entry.payload, Release) and outcome is not None and outcome.code in NOT_OVER:
                yield _end_of(self._fetching, source, entry.payload, shown)
                if shown.count(False) >= MAX_MISSES:
                    break
        accounts, seen, count = [payer], {payer}, 0
        for account in accounts:  # grows meanwhile
            for entry in list(self._desk.book.entries(account)):
                work, outcome = entry.payload, self._desk.book.outcome(entry.id)
                if not isinstance(work, Work) or outcome is None or outcome.counts or count >= MAX_RESTS:
                    continue
                other = AccountId(work.payer)
                if other not in seen and len(seen) < MAX_REST_ACCOUNTS:
                    seen.add(other)
                    accounts.append(other)
                if outcome.code in UNPROVEN:
                    count += 1
                    yield _proof_of(self._fetching, source, work)
                elif outcome.code == "pending:hold":
                    count += 1
                    self._shelf.concern(other)
                    yield _feed_of(self._fetching, source, other)


def _proof_of(fetching: Fetching, source: PeerId, work: Work) -> Rest:
    ranges = {one.unit // SEAL_UNITS for one in work.units}
    return lambda done: fetching.proof(source, JobId(work.job), ranges, lambda _: done())


def _end_of(fetching: Fetching, source: PeerId, release: Release, shown: list[bool]) -> Rest:
    """Asks what became of a job; whether that was shown goes into a list."""

    def ask(done: Callable[[], None]) -> None:
        def came(ranges: list[int]) -> None:
            shown.append(bool(ranges))
            done()

        fetching.proof(source, JobId(release.job), [NO_UNITS], came)

    return ask


def _feed_of(fetching: Fetching, source: PeerId, account: AccountId) -> Rest:
    return lambda done: fetching.feed(source, account, lambda _: done())
