"""What the book says of an account, as views. Nothing here changes the ledger or waits.

An account's entries may be many, so they are read in lots (``CreditReading.steps``), between which a node does other
things. What is added meanwhile is in the sums and perhaps not in the lists; the last point of the history is the
balance.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import nsmallest

from sparkle_ledger.agent.own import REASONS, State
from sparkle_ledger.book import Book
from sparkle_ledger.book_reading import Account
from sparkle_ledger.entries import AccountId, Entry, Hold, Release, Work, account_of
from sparkle_ledger.forks import ForkProof
from sparkle_ledger.money import Escrow
from sparkle_p2p.ledger_view import (
    AccountState,
    BalancePoint,
    CreditView,
    EntryView,
    EscrowView,
    ForkView,
    PartnerView,
)
from sparkle_p2p.view import Reason
from sparkle_protocol.errors import ConfigError, NotFound, RemoteProtocolError
from sparkle_protocol.ids import PeerId, key_from_peer_id, peer_id_from_key, short_peer
from sparkle_protocol.work.price import exactly

HISTORY_POINTS = 500
LISTED = 100  # partners, escrows, entries, forks of one view
LOT = 1000  # entries between two breaths
_HEX = frozenset("0123456789abcdef")


class CreditReading:
    """Reads one account. Run ``steps`` to its end, then ask for the ``view``.

    Args:
        now_ms: the wall clock.
    """

    def __init__(self, book: Book, account: AccountId, now_ms: int) -> None:
        self._book = book
        self._account = account
        self._history = History(now_ms)
        self._jobs: dict[bytes, None] = {}  # that it set something aside for
        self._escrows: list[tuple[int, bytes, Escrow]] = []  # the largest, by what is left, negative
        self._escrow_count = 0
        self._pending: deque[EntryView] = deque(maxlen=LISTED)
        self._void: deque[EntryView] = deque(maxlen=LISTED)
        self._pending_count = self._void_count = self._pending_micro = 0

    def steps(self) -> Iterator[None]:
        """Read all of its entries, then look into its escrows, a lot at a time."""
        base = self._book.base(self._account)
        if base is not None:
            self._history.add(base.time_ms, base.strict)
            self._jobs = dict.fromkeys(base.held)
        for number, entry in enumerate(self._book.entries(self._account), start=1):
            self._read(entry)
            if not number % LOT:
                yield
        for number, job in enumerate(self._jobs, start=1):
            self._weigh(job)
            if not number % LOT:
                yield

    def _read(self, entry: Entry) -> None:
        payload = entry.payload
        self._history.add(entry.time_ms, self._book.moved(entry.id))
        if isinstance(payload, Hold):
            self._jobs[payload.job] = None
        outcome = self._book.outcome(entry.id)
        if outcome is None or outcome.counts:
            return
        shown = entry_view(entry, outcome.code, outcome.text)
        if outcome.pending:
            self._pending_count += 1
            self._pending.appendleft(shown)
            if isinstance(payload, Work):
                self._pending_micro += payload.amount_micro
        else:
            self._void_count += 1
            self._void.appendleft(shown)

    def _weigh(self, job: bytes) -> None:
        escrow = self._book.money.escrows(job).get(self._account)
        if escrow is None or not escrow.balance_micro:
            return
        self._escrow_count += 1
        self._escrows.append((-escrow.balance_micro, job, escrow))
        if len(self._escrows) > 10 * LISTED:
            self._escrows = nsmallest(LISTED, self._escrows)

    def view(self, *, own: State | None, forks: Iterable[ForkProof] = ()) -> CreditView:
        """The account as it is now.

        Args:
            own: the state of this node's own account; None: it is somebody else's.
            forks: proofs that are known beside those that the book holds.
        """
        book, found = self._book, self._book.account(self._account)
        state = account_state(found, own)
        unlimited = self._account in book.economy.unlimited
        pairs = book.pair_totals(self._account)
        partners = nsmallest(LISTED, pairs, key=lambda one: (-one.earned_micro - one.spent_micro, one.account))
        proofs = fork_views(book, forks, self._account)
        return CreditView(
            account=self._account.hex(),
            peer_id=peer_of(found),
            own=own is not None,
            state=state,
            reason=state_reason(found, state, own=own is not None, unlimited=unlimited),
            balance_micro=found.balance_micro,
            held_micro=found.held_micro,
            earned_micro=found.earned_micro,
            spent_micro=found.spent_micro,
            limit_micro=found.limit_micro,
            spendable_micro=spendable(found, own, state),
            pending_micro=self._pending_micro,
            unlimited=unlimited,
            incarnation=max(found.heads, default=0),
            entries=found.entries,
            history=self._history.points(found.balance_micro),
            partners=tuple(
                PartnerView(
                    one.account.hex(),
                    peer_of(book.account(AccountId(one.account))),
                    one.earned_micro,
                    one.spent_micro,
                )
                for one in partners
            ),
            partner_count=len(pairs),
            escrows=tuple(escrow_view(book, job, escrow) for _, job, escrow in nsmallest(LISTED, self._escrows)),
            escrow_count=self._escrow_count,
            pending=tuple(self._pending),
            pending_count=self._pending_count,
            void=tuple(self._void),
            void_count=self._void_count,
            forks=tuple(proofs[:LISTED]),
            fork_count=len(proofs),
        )


def find_account(book: Book, name: str, own: AccountId, peers: Iterable[PeerId] = ()) -> AccountId:
    """The account that is meant: by its first characters, by a peer's id, or by how the id of one of ``peers`` ends.

    ``own``: known although it may have no entries yet.

    Raises:
        NotFound: none here, or several.
    """
    ending = name.strip().lstrip("…")
    try:
        found = account_of(book.network, key_from_peer_id(PeerId(ending)))
    except (ConfigError, RemoteProtocolError, ValueError):
        pass
    else:
        if found == own or book.account(found).entries:
            return found
        raise NotFound(f"no entry of the account of {short_peer(PeerId(ending))} is kept here")
    known = [own, *book.accounts()] if ending and set(ending) <= _HEX else []
    begins = [one for one in known if one.hex().startswith(ending)]
    ends = [account_of(book.network, key_from_peer_id(peer)) for peer in peers if ending and peer.endswith(ending)]
    named = list(dict.fromkeys([*begins, *(one for one in ends if one == own or book.account(one).entries)]))
    if len(named) == 1:
        return named[0]
    if named:
        raise NotFound(f"{len(named)} accounts are called '{ending[:64]}' here; give more of the name")
    raise NotFound(f"no entry of an account called '{ending[:64]}' is kept here; 'sparkle credit' lists partners")


# --- parts of a view ------------------------------------------------------------------------------------------


class History:
    """The balance over time, in at most ``HISTORY_POINTS`` points however many movements there were.

    Time does not run backwards in it, nor beyond now, whatever the author's clock said. Where there are more
    movements than points, each point is the balance at the end of an equal part of the time.
    """

    __slots__ = ("_balance", "_latest_ms", "_now_ms", "_points")

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._latest_ms = 0
        self._balance = 0
        self._points: list[tuple[int, int]] = []

    def add(self, time_ms: int, moved_micro: int) -> None:
        """The balance changed by so much."""
        if not moved_micro:
            return
        self._balance += moved_micro
        self._latest_ms = max(self._latest_ms, min(time_ms, self._now_ms))
        if self._points and self._points[-1][0] == self._latest_ms:
            self._points.pop()
        self._points.append((self._latest_ms, self._balance))
        if len(self._points) >= 10 * HISTORY_POINTS:
            self._thin()

    def _thin(self) -> None:
        first, rest = self._points[0], self._points[1:]
        span, parts = max(1, self._latest_ms - first[0]), HISTORY_POINTS - 2
        last_of = {(time_ms - first[0]) * (parts - 1) // span: (time_ms, balance) for time_ms, balance in rest}
        self._points = [first, *last_of.values()]

    def points(self, balance_micro: int) -> tuple[BalancePoint, ...]:
        """All points, the last of them with this balance, which is that of now."""
        if len(self._points) >= HISTORY_POINTS:
            self._thin()
        now = BalancePoint(max(self._now_ms, self._latest_ms), balance_micro)
        return (*(BalancePoint(*one) for one in self._points), now)


def account_state(found: Account, own: State | None) -> AccountState:
    """How an account stands: our own by what its agent knows, another by what the book shows."""
    if found.frozen:
        return "forked"
    if own is not None:
        return own.value
    return "revoked" if found.entries and found.key is None else "kept"


def spendable(found: Account, own: State | None, state: AccountState) -> int:
    """What can be set aside for jobs now."""
    if own is None:
        return found.spendable_micro
    if state != "ready":
        return 0  # it signs nothing
    # An account opens by itself before its first hold, so that all of its limit is there from the beginning.
    return found.spendable_micro if found.entries else found.limit_micro


_OTHERS = {
    "forked": "It signed two entries for one place: what it signed from there on counts for nothing.",
    "revoked": "Its key was revoked: nobody signs for it any more.",
}


def state_reason(found: Account, state: AccountState, *, own: bool, unlimited: bool) -> Reason:
    """Why an account stands as it does, and what to do about it."""
    numbers = {"entries": found.entries, "spendable_micro": found.spendable_micro}
    if state == "kept":
        kept = "One entry of it is" if found.entries == 1 else f"{found.entries} entries of it are"
        return Reason("account_kept", f"{kept} kept here.", numbers)
    if state == "ready":
        if not found.entries:
            sentence = "Not opened yet: it opens by itself with the first pay or the first job that costs something."
            return Reason("account_unopened", sentence, numbers)
        can = "any amount" if unlimited else f"{exactly(found.spendable_micro)} credits"
        sentence = f"Ready: pay is claimed by itself, and {can} can be set aside for jobs."
        return Reason("account_ready", sentence, numbers)
    if not own:
        return Reason(f"account_{state}", _OTHERS[state], numbers)
    text = REASONS[State(state)]  # what a job that cannot be paid for is refused with
    return Reason(f"account_{state}", f"{text[0].upper()}{text[1:]}.", numbers)


def entry_view(entry: Entry, outcome: str, sentence: str) -> EntryView:
    """An entry with what became of it."""
    payload = entry.payload
    moving = payload if isinstance(payload, Hold | Work | Release) else None
    return EntryView(
        entry.incarnation,
        entry.seq,
        entry.time_ms,
        type(payload).__name__.lower(),
        moving.job.hex() if moving is not None else "",
        moving.amount_micro if moving is not None else 0,
        outcome,
        sentence,
    )


def escrow_view(book: Book, job: bytes, escrow: Escrow) -> EscrowView:
    """What is in a job's escrow, and how much of that is somebody's already."""
    record, closing = book.record(job), book.closing(job)
    owed = None
    if closing is not None:
        owed = max(0, closing.price_micro * closing.executions - escrow.paid_micro)
    elif record is not None and (record.over or record.executions):  # while a job goes on this may be too little
        owed = max(0, record.owed_micro - escrow.paid_micro)
    return EscrowView(
        job.hex(),
        escrow.balance_micro,
        escrow.paid_micro,
        escrow.released_micro,
        owed,
        closing is not None or (record is not None and record.over),
    )


def fork_views(book: Book, more: Iterable[ForkProof], first: AccountId) -> list[ForkView]:
    """Proven forks, one for each account: those of ``first``, then by account."""
    proofs: dict[AccountId, ForkProof] = {}
    for proof in [*book.fork_proofs(), *more]:
        known = proofs.get(proof.first.account)
        if known is None or _where(proof) < _where(known):
            proofs[proof.first.account] = proof
    ordered = sorted(proofs.items(), key=lambda one: (one[0] != first, one[0]))
    return [
        ForkView(
            account.hex(),
            proof.first.author,
            proof.first.incarnation,
            proof.first.seq,
            max(proof.first.time_ms, proof.second.time_ms),
        )
        for account, proof in ordered
    ]


def _where(proof: ForkProof) -> tuple[int, int]:
    return proof.first.incarnation, proof.first.seq


def peer_of(found: Account) -> str:
    """The peer whose key signs for an account, as far as that is known here."""
    return peer_id_from_key(found.key) if found.key is not None else ""
