"""Populations that compare workers with each other: fixed voting, and adaptive replication as BOINC has it.

Time passes in steps; in each of them every peer begins one unit. A second peer computes it as well unless the policy
believes the first one alone; while no two results are equal further ones are asked.
"""

import numpy as np
from numpy.typing import NDArray

from sparkle_sim.population.streams import stream
from sparkle_sim.population.tallying import Setting, Tally
from sparkle_sim.population.trust import Replication

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]

OLD = 9500  # units that a senior has done, as many as make one with audits
LEAST = 0.02  # share replicated of its results at which the patient begin; there is no floor that they could wait for


class Replicated:
    """Some rows of peers that are compared with each other.

    Args:
        policy: when a worker is believed alone.
        setting: the peers, those that cheat first.
        seed: decides everything.
        partners_learn: second results count for those who gave them.
    """

    def __init__(self, policy: Replication, setting: Setting, seed: int, *, partners_learn: bool = True) -> None:
        self.policy = policy
        self.setting = setting
        self.tally = Tally(setting.rows)
        name = f"{policy.name}/{setting.cheater.name}/{setting.share}/{setting.cold}"
        self._random = stream(seed, "replication", name)
        self._partners_learn = partners_learn
        self._cheaters = round(setting.peers * setting.share)
        self._valid = np.zeros((setting.rows, setting.peers), np.int64)  # CV
        if not setting.cold:
            self._valid[:, self._cheaters :] = int(np.sqrt(2 * OLD + 80))

    @property
    def life(self) -> int:
        """Steps from a new key to where the patient begin, about."""
        return int(((1.0 / LEAST) ** 2 - 80) / 2) if self.policy.valid else 1

    @property
    def promoted(self) -> NDArray[np.float64]:
        """The share of the honest that may be believed alone, in each row."""
        known = self._valid[:, self._cheaters :] >= max(1, self.policy.valid)
        return np.asarray(known.mean(axis=1), np.float64)

    def run(self, steps: int) -> None:
        """Go on for so long."""
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        rows, peers = self.setting.rows, self.setting.peers
        first = np.tile(np.arange(peers), rows)
        row = np.repeat(np.arange(rows), peers)
        wrong = self._lies(row, first)
        alone = self._alone(row, first)
        self.tally.work += peers
        self.tally.final += peers
        self._count(self.tally.wrong, row[alone & wrong])
        row, first, wrong = row[~alone], first[~alone], wrong[~alone]
        second = (first + self._random.integers(1, peers, len(first))) % peers
        self._count(self.tally.work, row)
        self._count(self.tally.audits, row)
        other = self._second_lies(row, second, wrong)
        same = wrong == other
        if not self.setting.cheater.conspire:
            same &= ~wrong
        self._count(self.tally.wrong, row[same & wrong])
        lie_wins = np.zeros(len(row), np.bool_)
        lie_wins[same] = wrong[same]
        lie_wins[~same] = self._ask_more(row[~same], wrong[~same], other[~same])
        self._learn(row, first, wrong == lie_wins)
        if self._partners_learn:
            self._learn(row, second, other == lie_wins)

    def _alone(self, row: Counts, peers: Counts) -> Flags:
        if not self.policy.valid:
            return np.zeros(len(row), np.bool_)
        valid = self._valid[row, peers]
        believed = valid >= self.policy.valid
        believed &= self._random.random(len(row)) < 1.0 - 1.0 / np.maximum(valid, 1)
        return believed

    def _lies(self, row: Counts, peers: Counts) -> Flags:
        kind = self.setting.cheater
        lies = peers < self._cheaters
        if not kind.from_the_start and self.policy.valid:
            valid = self._valid[row, peers]
            lies &= (valid >= self.policy.valid) & (valid * max(kind.patience, LEAST) >= 1.0)
        lies &= self._random.random(len(row)) < kind.lies
        return lies

    def _second_lies(self, row: Counts, peers: Counts, lied: Flags) -> Flags:
        """Conspirators repeat the lie of another; for the rest it is as before."""
        lies = self._lies(row, peers)
        if self.setting.cheater.conspire:
            lies |= lied & (peers < self._cheaters)
        return lies

    def _ask_more(self, row: Counts, wrong: Flags, other: Flags) -> Flags:
        """Ask until two are equal; returns where that is a lie."""
        conspire = self.setting.cheater.conspire
        right = (~wrong).astype(np.int64) + ~other
        lies = wrong.astype(np.int64) + other
        open_ = np.arange(len(row))
        self._count(self.tally.disputes, row)
        while len(open_):
            self._count(self.tally.work, row[open_])
            peers = self._random.integers(0, self.setting.peers, len(open_))
            lie = self._second_lies(row[open_], peers, lies[open_] > 0)
            right[open_] += ~lie
            lies[open_] += lie
            settled = right[open_] > 1
            if conspire:
                settled |= lies[open_] > 1
            open_ = open_[~settled]
        lost = (right < 2) & conspire
        self._count(self.tally.wrong, row[lost])
        return np.asarray(lost, np.bool_)

    def _learn(self, row: Counts, peers: Counts, valid: Flags) -> None:
        np.add.at(self._valid, (row[valid], peers[valid]), 1)
        failed_row, failed = row[~valid], peers[~valid]
        self._valid[failed_row, failed] = 0
        self._count(self.tally.caught, failed_row[failed < self._cheaters])
        self._count(self.tally.punished, failed_row[failed >= self._cheaters])

    def _count(self, sums: NDArray[np.float64], rows: Counts) -> None:
        sums += np.bincount(rows, minlength=self.setting.rows)
