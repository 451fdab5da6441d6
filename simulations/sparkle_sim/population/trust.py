"""Trust policies as plain numbers: who is audited how often, who may audit, and what a key must do to be believed.

Each policy here is a rule about *units in general*; ``auditing`` and ``replication`` play them with populations of
peers, ``trust_policies`` asks what each costs and what it lets through.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float32]


class Timing(StrEnum):
    """When an audit of a trusted worker is drawn."""

    COIN = "a coin for each result, after its commit"
    CLOSING = "the coin, and one result of each window besides"
    WINDOWS = "one result of each window"


@dataclass(frozen=True, slots=True)
class Audits:
    """Trusted workers are audited by trusted peers; newcomers compute copies of what trusted workers did.

    Args:
        name: on the command line and in tables.
        title: for people.
        timing: when an audit is drawn.
        least: the share of results that is audited however long a worker was honest.
        doubt: D, in ordinary units. A worker that was found right about so much work is audited half of the time; 0:
            everybody that is trusted is audited at the least rate.
        passes: K, the work that a newcomer is found right about before it is trusted and may audit.
        copies: of each unit for newcomers, whatever became of earlier copies.
        welcome: the same while copies pass: it is multiplied with the share of the latest ones that did.
        in_turn: those newcomers get them who passed most; else any.
        turn: a newcomer gets at most this many copies in the time of a unit.
        hold: windows of a worker in a job that pass before an earlier one of it is FINAL.
        short_drawn: a window that the end of a job cuts short is audited with the probability that it is full for.
        referee: the submitter's own node settles disputes; else trusted replicas, by Sarmenta's credibility.
        both_pass: an audit also counts for the auditor, as the work that it is.
        by_work: audits and passes are worth the reference work of their units.
        agree: so many newcomers must agree while nobody is trusted.
        forgets: what a failed audit does to trust. False is a mistake that tests plant.
        trusted_only: only trusted peers audit. False is another one.
    """

    name: str
    title: str
    timing: Timing = Timing.COIN
    least: float = 0.05
    doubt: float = 0.0
    passes: int = 60
    copies: float = 0.02
    welcome: float = 0.0
    in_turn: bool = True
    turn: float = 1.0
    hold: int = 0
    short_drawn: bool = False
    referee: bool = True
    both_pass: bool = False
    by_work: bool = True
    agree: int = 2
    forgets: bool = True
    trusted_only: bool = True

    def rate(self, capital: Shares, work: Shares | float = 1.0) -> Shares:
        """The probability that a result of this much reference work is audited.

        Args:
            capital: reference work that its worker was found right about.
            work: of the unit, 1 for an ordinary one.
        """
        if not self.doubt:
            return np.full_like(capital, self.least)
        stake = np.float32(self.doubt) * np.asarray(work, np.float32)
        return np.maximum(np.float32(self.least), stake / (stake + capital)).astype(np.float32)

    @property
    def seniority(self) -> float:
        """Capital from which on the least rate is in force."""
        return self.capital_at(self.least)

    def capital_at(self, rate: float) -> float:
        """Capital from which on a trusted worker is audited no more than so often, if it ever is."""
        return max(float(self.passes), self.doubt * (1.0 / max(rate, self.least) - 1.0))


@dataclass(frozen=True, slots=True)
class Replication:
    """Workers are compared with each other; there are no audits.

    Args:
        name: on the command line and in tables.
        title: for people.
        valid: consecutive valid results from which on a worker is believed alone with probability 1 - 1 / valid ones;
            0: every unit is computed by two.
    """

    name: str
    title: str
    valid: int = 0


Policy = Audits | Replication


def wrong_of_a_life(least: float) -> float:
    """The most wrong results that a cheater gets through on average before an audit finds one: 1/a - 1.

    It does not depend on how often it cheats: each lie is audited with probability a.
    """
    return 1.0 / least - 1.0


def wrong_share(policy: Audits, share: float, *, others: float = 0.0) -> float:
    """The law for the patient: the share of FINAL units that cheaters spoil who wait until they are audited least.

    Args:
        policy: with a coin.
        share: of the peers that cheat.
        others: of the trusted peers that pass any wrong result of theirs.
    """
    detected = policy.least * (1.0 - others)
    lies = 1.0 / detected - 1.0
    working = policy.seniority + 1.0 / detected
    copies = policy.copies * (1.0 - share) / share if share else policy.turn
    waiting = policy.passes / min(policy.turn, copies)
    trusted = working / (working + waiting)
    return share * trusted * lies / working / (1.0 - share + share * trusted)


def audits_until(policy: Audits, capital: float) -> float:
    """How many audits an honest worker takes until it was found right about so much: the price of young trust."""
    if not policy.doubt:
        return capital * policy.least
    growing = min(capital, policy.seniority)
    taken = policy.doubt * float(np.log1p(growing / policy.doubt))
    return taken + (capital - growing) * policy.least
