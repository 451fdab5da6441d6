"""Our own account: when it may sign, and what it signs as a submitter.

=========  ===========================================================================================
state      the account
=========  ===========================================================================================
learning   signs nothing: its witnesses are being asked what they know of it
ready      signs
lost       signed entries that nobody has any more, in a place where it can neither go on nor begin anew
forked     signed two entries for one place; nothing more of it counts
revoked    has no key in force
cloned     signs nothing: two nodes run with its key, and the next entry of one would fork the other
=========  ===========================================================================================

Every start begins with learning: a store that was put back from a copy looks as whole as any other, and to sign from
there would be a fork, which ends the account. Asked are its witnesses, and who is nearest to the account in the whole
network. Half of the witnesses have to answer, the others to fail three times in a row, and what any of them shows is
fetched. If a later entry of ours turns up whose predecessors cannot be had (others fold the oldest ones), a Restore
begins a new incarnation after it, the last that is known. With fewer than two other peers there is nobody whom the
account could have told, so that after ``ALONE_NS`` it goes on, whatever; a node that never met anybody, and was told
of nobody, does so after ``GRACE_NS``. A key that was made in this very life has signed nothing elsewhere: its account
is ready at once.

Genesis is signed with time 0: it has to be the same entry whenever an account is opened again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sparkle_ledger.agent.desk import SECOND_NS, Desk
from sparkle_ledger.agent.partners import Partners
from sparkle_ledger.entries import MAX_MICRO, NO_PREV, Entry, EntryId, Genesis, Hold, Payload, Release, Restore
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol import effects as fx
from sparkle_protocol.facts import Fact
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.price import in_credits

GRACE_NS = 10 * SECOND_NS  # for peers to be linked, unless there are as many witnesses as there ever are
ALONE_NS = 30 * SECOND_NS  # for the only other peer to answer
FEWEST_PEERS = 2
MAX_WAITING = 256  # jobs to be funded, or to be closed, once the account is ready
HOLD_MS = 30 * 86_400_000  # for so long a hold is meant

WallMs = Callable[[], int]


class State(StrEnum):
    """See the table above."""

    LEARNING = "learning"
    READY = "ready"
    LOST = "lost"
    FORKED = "forked"
    REVOKED = "revoked"
    CLONED = "cloned"


REASONS = {
    State.LEARNING: "this node is still asking its witnesses for the state of its account; try again in a moment",
    State.LOST: "this node has lost entries that it signed, and nobody who is linked has them; link to more peers",
    State.FORKED: "this account signed two entries for one place and can spend no more; use a new identity",
    State.REVOKED: "the key of this account was revoked; use the one that replaced it",
    State.CLONED: "another node runs with the identity of this one; stop one of the two and start the other again",
}


@dataclass(slots=True)
class Waiting:
    """What is to be signed once that is possible."""

    fund: dict[JobId, Fact]
    over: dict[JobId, JobRecord]


class OwnAccount:
    """Signs for this node."""

    def __init__(self, desk: Desk, partners: Partners, wall_ms: WallMs, *, new: bool, met: bool) -> None:
        self.state = State.READY if new else State.LEARNING
        self._desk = desk
        self._partners = partners
        self._wall_ms = wall_ms
        self._alone_ns = ALONE_NS if met else GRACE_NS
        self._started_ns: int | None = None
        self._waiting = Waiting({}, {})
        self._cloned = False

    # --- whether it may sign ------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """It may sign."""
        return self.state is State.READY

    @property
    def waiting(self) -> int:
        """Jobs that wait until it may sign."""
        return len(self._waiting.fund) + len(self._waiting.over)

    def cloned(self) -> None:
        """Sign nothing as long as this process lives: somebody else does."""
        self._cloned = True

    def look(self) -> None:
        """See whether the account may sign, by what is known by now."""
        if self._started_ns is None:
            self._started_ns = self._desk.now_ns
            self._partners.look_up()
        before = self.state
        self._judge()
        if self.state is not before:
            if self.ready:
                self._partners.forget_found()
            self._desk.do(fx.Notify("account_state", {"state": self.state.value, "before": before.value}))

    def _judge(self) -> None:
        account = self._desk.book.account(self._desk.account)
        if account.frozen:
            self.state = State.FORKED
        elif account.entries and account.key != self._desk.signer.public_key:
            self.state = State.REVOKED
        elif self._cloned:
            self.state = State.CLONED
        elif self.state is State.READY:
            if self._desk.book.next_place(self._desk.account) is None:  # we signed what we do not remember
                self._learn_anew()
        elif self._has_asked():
            if self._desk.book.next_place(self._desk.account) is not None or self._begin_anew():
                self.state = State.READY
            elif self.state is not State.LOST:
                self.state = State.LOST
                self._partners.ask_anew()

    def _learn_anew(self) -> None:
        self.state = State.LEARNING
        self._started_ns = self._desk.now_ns
        self._partners.look_up()
        self._partners.ask_anew()

    def _has_asked(self) -> bool:
        """The witnesses were asked, or there are none."""
        if not self._waited(GRACE_NS) and not self._partners.full:
            return False
        alone = self._partners.known < FEWEST_PEERS and self._waited(self._alone_ns)
        return alone or self._partners.have_answered()

    def _waited(self, time_ns: int) -> bool:
        return self._desk.now_ns - (self._started_ns or 0) >= time_ns

    def _begin_anew(self) -> bool:
        """Begin a new incarnation after the last entry that is known; False: even that would be a fork.

        Where partners show what follows entries that they folded themselves, it is after those: they take nothing
        that begins before. What nobody has is missing in our own sums from then on.
        """
        book, own = self._desk.book, self._desk.account
        if not book.account(own).entries:
            self._seal(Genesis(), 0, 0, EntryId(NO_PREV))  # the same as ever
        before = max(book.account(own).heads, default=0)
        while book.bridge(own):
            pass
        if max(book.account(own).heads, default=0) > before and book.next_place(own) is not None:
            return True  # we did so in an earlier life
        last: Entry | None = None
        for entry in book.entries(own):
            last = entry
        lost = [entry for entry in book.waiting(own) if entry.key == self._desk.signer.public_key]
        if last is None or any(entry.incarnation > last.incarnation for entry in lost):
            return False
        self._seal(Restore(last.seq, last.id), last.incarnation + 1, 0, EntryId(NO_PREV))
        return True

    @property
    def due_ns(self) -> int | None:
        """When ``look`` may come to something by time alone."""
        if self.state is not State.LEARNING or self._started_ns is None:
            return None
        dues = (self._started_ns + GRACE_NS, self._started_ns + self._alone_ns)
        return min((due for due in dues if due > self._desk.now_ns), default=None)

    # --- signing ------------------------------------------------------------------------------------------

    def sign(self, payload: Payload) -> Entry | None:
        """State something as the account's next entry, the account being opened if need be; None: it may not."""
        if not self.ready:
            return None
        self._open()
        place = self._desk.book.next_place(self._desk.account)
        if place is None:
            self.look()
            return None
        return self._seal(payload, place.incarnation, place.seq, place.prev)

    def _open(self) -> None:
        """Open the account, unless it is."""
        place = self._desk.book.next_place(self._desk.account)
        if place is not None and place.incarnation == place.seq == 0:
            self._seal(Genesis(), 0, 0, EntryId(NO_PREV))

    def _seal(self, payload: Payload, incarnation: int, seq: int, prev: EntryId) -> Entry:
        time_ms = 0 if isinstance(payload, Genesis) else max(0, self._wall_ms())
        entry = self._desk.entries.seal(
            self._desk.signer, payload, seq=seq, prev=prev, time_ms=time_ms, incarnation=incarnation
        )
        self._desk.take_in((entry,))
        self._desk.when_kept(self._partners.news)
        return entry

    # --- as a submitter -----------------------------------------------------------------------------------

    def fund(self, spec: Fact) -> None:
        """Set aside what a job of ours may cost, now or once the account may sign."""
        if len(self._waiting.fund) >= MAX_WAITING:
            self._desk.do(fx.JobFunded(spec.job, "too many jobs wait for credit; try again in a moment"))
            return
        self._waiting.fund[spec.job] = spec

    def over(self, record: JobRecord) -> None:
        """A job of ours is over: take back what is owed to nobody."""
        if len(self._waiting.over) < MAX_WAITING and self._desk.book.escrow(record.job).balance_micro > 0:
            self._waiting.over[record.job] = record

    def tick(self) -> None:
        """Sign what waits."""
        if self.state in REASONS and self.state is not State.LEARNING:
            for job in list(self._waiting.fund):
                del self._waiting.fund[job]
                self._desk.do(fx.JobFunded(job, REASONS[self.state]))
        if not self.ready:
            return
        for job in list(self._waiting.fund):
            self._fund(self._waiting.fund.pop(job))
        for job in list(self._waiting.over):
            self._release(self._waiting.over.pop(job))

    def _fund(self, spec: Fact) -> None:
        record = JobRecord(spec, self._desk.book.network)
        refused = self._why_not(record)
        if refused is None and record.price_micro:
            self._desk.take_record(record, ())
            if self._desk.book.funding(record.job) is None:  # it may have been, in an earlier life
                hold = Hold(record.job, record.cover_micro, max(0, self._wall_ms()) + HOLD_MS)
                entry = self.sign(hold)
                outcome = self._desk.book.outcome(entry.id) if entry is not None else None
                if outcome is None or not outcome.counts:
                    refused = outcome.text if outcome is not None else REASONS[State.LEARNING]
        self._desk.when_kept(lambda: self._desk.do(fx.JobFunded(record.job, refused)))

    def _why_not(self, record: JobRecord) -> str | None:
        """Why the account cannot pay for a job."""
        if record.account != self._desk.account:
            return "another account has to pay for this job"
        if not record.price_micro or self._desk.book.funding(record.job) is not None:
            return None
        if self._desk.book.closing(record.job) is not None:
            return "this job was over and settled long ago; submit it anew"
        if record.cover_micro >= MAX_MICRO:
            return "this job may cost more than can be set aside at once; cut it into smaller jobs"
        self._open()
        spendable = self._desk.book.account(self._desk.account).spendable_micro
        if record.cover_micro > spendable:
            return (
                f"this job may cost up to {in_credits(record.cover_micro)} and your account can set aside "
                f"{in_credits(spendable)}; compute for others first, submit a smaller job, wait for others of yours "
                "to end, or submit it with --free"
            )
        return None

    def _release(self, record: JobRecord) -> None:
        book = self._desk.book
        self._desk.take_record(record, record.ranges())
        known = book.record(record.job)
        if known is None or not known.over:
            return
        escrow = book.escrow(record.job)
        spare = escrow.held_micro - known.owed_micro - escrow.released_micro
        if spare > 0:
            self.sign(Release(record.job, spare))
