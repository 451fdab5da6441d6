"""Where a policy is tried, and what is counted there."""

from dataclasses import dataclass

import numpy as np

from sparkle_sim.population.cheaters import Cheater


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a policy is tried.

    Args:
        peers: in each row.
        share: of them that cheat.
        cheater: how.
        rows: independent runs.
        per_job: results of a worker in a job.
        cold: all are newcomers in the beginning; else the honest are seniors, and cheaters anywhere in their lives.
        founders: honest peers that are trusted from the start in a cold one.
        unequal: peers are up to four times slower than the fastest.
    """

    peers: int
    share: float
    cheater: Cheater
    rows: int
    per_job: int = 4
    cold: bool = False
    founders: int = 0
    unequal: bool = False


class Tally:
    """What came of each row; all of them executions or units."""

    __slots__ = ("audits", "caught", "copies", "disputes", "final", "punished", "reruns", "work", "wrong")

    def __init__(self, rows: int) -> None:
        self.work = np.zeros(rows)  # all executions, whatever for
        self.final = np.zeros(rows)
        self.wrong = np.zeros(rows)  # of these
        self.audits = np.zeros(rows)
        self.copies = np.zeros(rows)
        self.disputes = np.zeros(rows)
        self.reruns = np.zeros(rows)
        self.caught = np.zeros(rows)  # cheaters, each time
        self.punished = np.zeros(rows)  # honest peers, each time

    def clear(self) -> None:
        """Count from here."""
        for name in self.__slots__:
            getattr(self, name)[:] = 0.0
