"""The parameters of a network's credit, each with where it comes from.

Zero-sum credit needs accounts below zero, else nobody could ever pay first. How far one may go down is what it has
done for others, up to a bound, and a little at the start:

    limit = min(``limit_max_micro``, lambda · contributed) + ``starter_micro``

``contributed`` is what others owed the account for accepted work so far. One payer counts for a
``1/payer_share`` of it at most, so that a friend who pays for anything is worth no more than three strangers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sparkle_ledger.entries import MAX_MICRO, AccountId
from sparkle_protocol.errors import ConfigError

MICRO = 1_000_000  # micro-credits of one credit


@dataclass(frozen=True, slots=True)
class Economy:
    """What a network's founders agree on. A private swarm sets its own; all peers of a network must have the same.

    Attributes:
        limit_max_micro: L_max. Ten thousand credits: a month of a desktop machine at one credit for each 10 TFLOP·h
            or so. What a cheat can take before everybody knows is at most this beyond what it gave.
        lambda_percent: λ. At 100 one may owe what one gave: more would pay for running away, less would leave the
            network short of credit (with λ < 1 the sum of limits shrinks with every round of work).
        starter_micro: for jobs before any work. Free identities make it free money, so it is a trifle: the price of
            about an hour of one machine.
        payer_share: one payer counts for one part in this many. Four: the fewest independent payers that a
            certifying set of keepers has (``placement.FEWEST_DECIDING``).
        unlimited: founding accounts, which may go down without end.
    """

    limit_max_micro: int = 10_000 * MICRO
    lambda_percent: int = 100
    starter_micro: int = 10 * MICRO
    payer_share: int = 4
    unlimited: frozenset[AccountId] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for name in ("limit_max_micro", "lambda_percent", "starter_micro"):
            if not 0 <= getattr(self, name) <= MAX_MICRO:
                raise ConfigError(f"{name} of an economy is from 0 to {MAX_MICRO}, not {getattr(self, name)}")
        if not 1 <= self.payer_share <= 64:
            raise ConfigError(f"payer_share of an economy is from 1 to 64, not {self.payer_share}")

    def contributed(self, earned: Iterable[int]) -> int:
        """What counts of the sums that each other account paid for work."""
        sums = list(earned)
        most = sum(sums) // self.payer_share
        return sum(min(one, most) for one in sums)

    def limit_moves(self, more: int) -> int:
        """By how much at most the limit grows when one payer paid so much more.

        Its own part grows by that; a share by one ``payer_share``-th of it, and fewer payers than there are shares
        are cut off at theirs.
        """
        return self.lambda_percent * (2 * more + self.payer_share) // 100 + 1

    def limit(self, earned: Iterable[int]) -> int:
        """How far below zero an account may go that earned these sums, one for each payer."""
        return min(self.limit_max_micro, self.contributed(earned) * self.lambda_percent // 100) + self.starter_micro
