"""What a node shows of the ledger: an account's credit, where it came from, and what does not count yet and why.

Amounts are whole micro-credits and may exceed 64 bits. Times are those that the authors of entries state.
"""

from dataclasses import dataclass
from typing import Literal

from sparkle_p2p.view import Reason

AccountState = Literal["learning", "ready", "lost", "forked", "revoked", "cloned", "kept"]


@dataclass(frozen=True, slots=True)
class BalancePoint:
    """The balance from a moment on."""

    time_ms: int
    balance_micro: int


@dataclass(frozen=True, slots=True)
class PartnerView:
    """What went between an account and another one."""

    account: str
    peer_id: str  # by the key in force; "" when that is not known here
    earned_micro: int  # the account from this partner
    spent_micro: int  # the account on this partner's work


@dataclass(frozen=True, slots=True)
class EscrowView:
    """What an account set aside for a job, as far as something is left of it."""

    job: str
    left_micro: int  # in it now
    paid_micro: int
    released_micro: int
    owed_micro: int | None  # of what is left: for accepted work that is not claimed yet; None: not shown here yet
    over: bool  # the job ended: what is left and not owed comes back


@dataclass(frozen=True, slots=True)
class EntryView:
    """An entry that does not count, with the reason's code and sentence."""

    incarnation: int
    seq: int
    time_ms: int
    kind: str
    job: str  # "" where it names none
    stated_micro: int  # the amount that it names
    outcome: str
    sentence: str


@dataclass(frozen=True, slots=True)
class ForkView:
    """A proven fork: an account signed two entries for one place."""

    account: str
    peer_id: str  # of the key that signed both
    incarnation: int
    seq: int
    time_ms: int  # the later of the two times that the entries state


@dataclass(frozen=True, slots=True)
class CreditView:
    """An account as this node's copy of the ledger has it.

    Always: balance = earned - spent - held. Lists are bounded, the count beside each says how many there are.
    ``state`` is ``kept`` for accounts of others that are neither forked nor revoked.
    """

    account: str
    peer_id: str  # by the key in force; "" when that is not known here
    own: bool
    state: AccountState
    reason: Reason  # with what to do, where something can be done
    balance_micro: int
    held_micro: int
    earned_micro: int
    spent_micro: int
    limit_micro: int  # so far below zero the balance may go
    spendable_micro: int  # so much can be set aside for jobs now
    pending_micro: int  # of pay that does not count yet
    unlimited: bool
    incarnation: int
    entries: int
    history: tuple[BalancePoint, ...]  # at most 500, oldest first; the last is the balance now
    partners: tuple[PartnerView, ...]  # those with the largest sums first
    partner_count: int
    escrows: tuple[EscrowView, ...]  # those with most in them first
    escrow_count: int
    pending: tuple[EntryView, ...]  # may count yet; newest first
    pending_count: int
    void: tuple[EntryView, ...]  # never will, as things are; newest first
    void_count: int
    forks: tuple[ForkView, ...]  # of all accounts that are known here; this account's first
    fork_count: int
