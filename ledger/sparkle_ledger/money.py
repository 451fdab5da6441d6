"""Where the credit is: accounts' balances and jobs' escrows. Each movement has two ends, so that all add up to 0."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sparkle_ledger.entries import AccountId


@dataclass(slots=True)
class Escrow:
    """What one account set aside for one job, what of it was paid to workers, and what it took back."""

    held_micro: int = 0
    paid_micro: int = 0
    released_micro: int = 0

    @property
    def balance_micro(self) -> int:
        """What is in it."""
        return self.held_micro - self.paid_micro - self.released_micro


@dataclass(slots=True)
class Purse:
    """The sums of one account, of all its entries that count."""

    balance: int = 0
    earned: int = 0
    spent: int = 0  # what workers were paid out of its escrows
    held: int = 0  # in its escrows now
    pairs: dict[AccountId, list[int]] = field(default_factory=dict)  # other -> [earned from it, spent on it]


class Money:
    """Balances and escrows. Only movements between two of them exist."""

    __slots__ = ("_escrows", "_purses")

    def __init__(self) -> None:
        self._purses: dict[AccountId, Purse] = {}
        self._escrows: dict[bytes, dict[AccountId, Escrow]] = {}

    def purse(self, account: AccountId) -> Purse:
        """An account's sums."""
        found = self._purses.get(account)
        if found is None:
            found = self._purses[account] = Purse()
        return found

    def seen(self, account: AccountId) -> Purse:
        """An account's sums, to look at only: to ask about accounts that do not exist must cost no room."""
        return self._purses.get(account) or Purse()

    def escrow(self, job: bytes, payer: AccountId) -> Escrow:
        """What an account set aside for a job."""
        payers = self._escrows.setdefault(job, {})
        found = payers.get(payer)
        if found is None:
            found = payers[payer] = Escrow()
        return found

    def escrows(self, job: bytes) -> dict[AccountId, Escrow]:
        """All that was set aside for a job, by whom."""
        return self._escrows.get(job, {})

    def all_escrows(self) -> Iterator[tuple[bytes, AccountId, Escrow]]:
        """Every escrow with its job and payer."""
        for job, payers in self._escrows.items():
            for payer, escrow in payers.items():
                yield job, payer, escrow

    def hold(self, account: AccountId, job: bytes, amount: int) -> None:
        """From an account into its escrow; a negative amount undoes it."""
        purse = self.purse(account)
        purse.balance -= amount
        purse.held += amount
        self.escrow(job, account).held_micro += amount

    def release(self, account: AccountId, job: bytes, amount: int) -> None:
        """From an escrow back to its account."""
        purse = self.purse(account)
        purse.balance += amount
        purse.held -= amount
        self.escrow(job, account).released_micro += amount

    def pay(self, payer: AccountId, job: bytes, worker: AccountId, amount: int) -> None:
        """From an escrow to a worker."""
        self.escrow(job, payer).paid_micro += amount
        self.purse(worker).balance += amount
        self._note_pay(payer, worker, amount)

    def _note_pay(self, payer: AccountId, worker: AccountId, amount: int) -> None:
        theirs, own = self.purse(payer), self.purse(worker)
        own.earned += amount
        theirs.held -= amount
        theirs.spent += amount
        own.pairs.setdefault(payer, [0, 0])[0] += amount
        theirs.pairs.setdefault(worker, [0, 0])[1] += amount

    # --- what is folded -------------------------------------------------------------------------------------

    def begin(
        self,
        account: AccountId,
        balance: int,
        paid: Mapping[AccountId, int],
        held: Mapping[bytes, tuple[int, int]],
    ) -> None:
        """Begin with the sums of folded entries of an account; ``begin_job`` is given what they took from escrows.

        Args:
            account: whose.
            balance: what they added to it.
            paid: by whom, for work.
            held: for jobs of its own, and of that released.
        """
        own = self.purse(account)
        own.balance += balance
        for payer, amount in paid.items():
            self._note_pay(payer, account, amount)
        for job, (amount, released) in held.items():
            escrow = self.escrow(job, account)
            escrow.held_micro += amount
            escrow.released_micro += released
            own.held += amount - released

    def begin_job(self, job: bytes, payer: AccountId, amount: int) -> None:
        """So much of an escrow was paid for work by entries that are folded."""
        self.escrow(job, payer).paid_micro += amount

    def sum_micro(self) -> int:
        """Of all there is; anything but 0 is a bug."""
        escrows = sum(escrow.balance_micro for _, _, escrow in self.all_escrows())
        return sum(purse.balance for purse in self._purses.values()) + escrows
