"""Populations of peers under a policy of audits, unit by unit: what is computed, what is FINAL, what of it is wrong.

Time passes in steps; in each of them every trusted peer computes one unit, and newcomers copies of some of these. A
row is a run of its own with the same peers: many seeds go through NumPy together. Audits are judged within the step,
which is what a node makes of it that lets no result of a worker become FINAL while an audit of it is pending.

Peers are numbered with the cheaters first.
"""

import numpy as np
from numpy.typing import NDArray

from sparkle_sim.population import disputes
from sparkle_sim.population.streams import stream
from sparkle_sim.population.tallying import Setting, Tally
from sparkle_sim.population.trust import Audits, Shares, Timing

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
Sums = NDArray[np.float64]
Which = NDArray[np.intp]

SMALL, SMALL_SHARE = 0.05, 0.9  # of the work of an ordinary unit; of the units, where there are small ones
TRUSTED_FIRST = 2  # trusted peers; with fewer, two newcomers that agree decide
CREDIT_EVERY = 16  # steps between two entries of what auditors earned
LATEST = 200.0  # copies by which newcomers are judged together


class Audited:
    """Some rows of peers under a policy."""

    def __init__(self, policy: Audits, setting: Setting, seed: int) -> None:
        self.policy = policy
        self.setting = setting
        self.tally = Tally(setting.rows)
        self._cheater = setting.cheater
        name = f"{policy.name}/{setting.cheater.name}/{setting.share}/{setting.cold}"
        self._random = stream(seed, "audits", name)
        self._cheaters = round(setting.peers * setting.share)
        shape = (setting.rows, setting.peers)
        self.capital: Shares = np.zeros(shape, np.float32)
        self._passes: Shares = np.zeros(shape, np.float32)
        self._speed = np.linspace(0.25, 1.0, setting.peers, dtype=np.float32)
        self._random.shuffle(self._speed)
        self._small = self._cheater.large_only
        self._held = np.zeros((*shape, max(1, policy.hold)), np.int32)
        self._held_wrong = self._held.copy()
        self._filled, self._bad = np.zeros(shape, np.int32), np.zeros(shape, np.int32)  # of the open windows
        self._left = self._random.integers(1, setting.per_job + 1, shape)
        self._credit = np.zeros(setting.rows, np.float32)
        self._passing = np.full(setting.rows, 0.5)  # share of the latest copies
        self._steps = 0
        self._auditors = self._gang = np.zeros(setting.rows)
        if not setting.cold:
            self._grow_old()
        self.capital[:, setting.peers - setting.founders :] = policy.seniority
        self._passes[:, setting.peers - setting.founders :] = policy.passes
        self.trusted: Flags = self._passes >= policy.passes

    def _grow_old(self) -> None:
        """Honest peers are seniors; cheaters are anywhere on their way to where they begin."""
        bad = self._cheaters
        senior, begin = self.policy.seniority, self.policy.capital_at(self._cheater.patience)
        self.capital[:, bad:] = senior * self._random.uniform(1.0, 2.0, self.capital[:, bad:].shape)
        self.capital[:, :bad] = begin * self._random.random(self.capital[:, :bad].shape)
        self._passes[:] = np.minimum(self.capital, self.policy.passes + self.capital * self.policy.least)

    @property
    def life(self) -> int:
        """Steps from a new key to the last rank, about."""
        waiting = self.policy.passes / min(self.policy.turn, max(0.02, 10 * self.policy.copies))
        return int(waiting + self.policy.seniority + 2.0 / self.policy.least)

    @property
    def promoted(self) -> Sums:
        """The share of the honest that is trusted, in each row."""
        return np.asarray(self.trusted[:, self._cheaters :].mean(axis=1), np.float64)

    def run(self, steps: int) -> None:
        """Go on for so long."""
        for _ in range(steps):
            self._step()

    # --- a step -------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._steps += 1
        self._auditors = trusted = self.trusted.sum(axis=1)
        young = np.flatnonzero(trusted < TRUSTED_FIRST)
        at_work, done = self.trusted.copy(), trusted
        if len(young):
            if self.policy.agree > 2:
                self._agree_in_groups(young)
            else:
                self._agree(young)
            at_work[young] = False
        if self.setting.unequal:
            at_work &= self._random.random(at_work.shape, np.float32) < self._speed
        if len(young) or self.setting.unequal:
            done = at_work.sum(axis=1)
        sizes = self._sizes(at_work.shape)
        rate = self.policy.rate(self.capital, sizes)
        lies = self._lies(at_work, rate, sizes)
        self._gang = self._conspirators(trusted)
        self.tally.work += done
        copied = self._copies(done)
        match self.policy.timing:
            case Timing.COIN:
                self._by_coin(at_work, lies, rate, sizes, copied)
                self.tally.final += done
            case _:
                self._by_window(at_work, lies, rate, copied)
        self._pay_auditors()

    def _sizes(self, shape: tuple[int, ...]) -> Shares | float:
        if not self._small:
            return 1.0
        return np.where(self._random.random(shape, np.float32) < SMALL_SHARE, SMALL, 1.0).astype(np.float32)

    def _lies(self, at_work: Flags, rate: Shares, sizes: Shares | float) -> Flags:
        """Which of the results are wrong, of cheaters only."""
        bad, kind = self._cheaters, self._cheater
        lies = at_work[:, :bad].copy()
        if not bad or not kind.lies:
            return np.zeros_like(lies)
        floor = self.policy.rate(np.full((1, 1), 1e9, np.float32))[0, 0] if kind.patience < 1.0 else 1.0
        if not self._small:
            lies &= rate[:, :bad] <= max(kind.patience, floor * 1.001)
        else:  # they know what an ordinary unit would be audited with
            lies &= self.policy.rate(self.capital[:, :bad]) <= floor * 1.001
            lies &= np.asarray(sizes)[:, :bad] >= 1.0
        if kind.lies < 1.0:
            lies &= self._random.random(lies.shape, np.float32) < kind.lies
        return lies

    def _conspirators(self, trusted: Counts) -> Sums:
        """Their share among those who audit."""
        if not self._cheater.conspire:
            return np.zeros(self.setting.rows)
        if not self.policy.trusted_only:
            return np.full(self.setting.rows, self.setting.share)
        return np.asarray(self.trusted[:, : self._cheaters].sum(axis=1) / np.maximum(trusted, 1), np.float64)

    def _pay_auditors(self) -> None:
        if self.policy.both_pass and self._steps % CREDIT_EVERY == 0:
            self.capital += np.where(self.trusted, self._credit[:, None], 0.0)
            self._credit[:] = 0.0

    # --- newcomers ----------------------------------------------------------------------------------------------

    def _copies(self, done: Counts) -> Sums:
        """Newcomers compute copies; returns how likely an honest one has the unit of a trusted worker, by row."""
        new = ~self.trusted
        new[done == 0] = False
        waiting = new.sum(axis=1)
        if not waiting.any():
            return np.zeros(self.setting.rows)
        policy = self.policy
        share = np.maximum(policy.copies, policy.welcome * self._passing)
        rows, peers = self._next(new, np.minimum(waiting, self._random.poisson(share * done)))
        lies = self._newcomers_lie(peers)
        number = np.bincount(rows, minlength=self.setting.rows)
        failed = np.bincount(rows[lies], minlength=self.setting.rows)
        honest = np.bincount(rows[peers >= self._cheaters], minlength=self.setting.rows)
        weight = np.exp(-number / LATEST)
        self._passing = self._passing * weight + (1.0 - weight) * (1.0 - failed / np.maximum(number, 1))
        tally = self.tally
        tally.copies += number
        tally.disputes += failed
        tally.work += number + failed  # a third execution says which of two is wrong
        right = ~lies
        worth = self._sizes((len(rows),)) if self.policy.by_work else 1.0
        worth = worth if isinstance(worth, float) else worth[right]
        self._pass(rows[right], peers[right], worth, worth)
        self._fail(rows[lies], peers[lies])
        return np.asarray(honest / np.maximum(done, 1), np.float64)

    def _next(self, new: Flags, copies: Counts) -> tuple[Which, Which]:
        """Whose turn it is: those who passed most, so that some are done soon and can vet others."""
        turn = self.policy.turn
        if turn < 1.0:
            new = new & (self._random.random(new.shape, np.float32) < turn)
        if not copies.any():
            return np.zeros(0, np.intp), np.zeros(0, np.intp)
        if not self.policy.in_turn or (copies >= new.sum(axis=1)).all():
            rows, peers = np.nonzero(new)
            chance = copies / np.maximum(new.sum(axis=1), 1)
            got = self._random.random(len(rows), np.float32) < chance[rows]
            return rows[got], peers[got]
        merit = np.where(new, self._passes + self._random.random(new.shape, np.float32), -1.0)
        order = np.argsort(-merit, axis=1)[:, : int(copies.max())]
        first = np.arange(order.shape[1]) < np.minimum(copies, new.sum(axis=1))[:, None]
        rows, place = np.nonzero(first)
        return rows, order[rows, place]

    def _newcomers_lie(self, peers: Which) -> Flags:
        if not self._cheater.from_the_start:
            return np.zeros(len(peers), np.bool_)
        lies = peers < self._cheaters
        lies &= self._random.random(len(peers)) < self._cheater.lies
        return lies

    def _agree(self, rows: Which) -> None:
        """Hardly anybody is trusted: all compute in pairs, and what two distinct workers agree on is FINAL."""
        peers = self.setting.peers - self.setting.peers % 2
        for row in rows:
            pairs = self._random.permutation(self.setting.peers)[:peers].reshape(-1, 2)
            lies = self._newcomers_lie(pairs.ravel()).reshape(-1, 2)
            same = lies[:, 0] == lies[:, 1]
            if not self._cheater.conspire:
                same &= ~lies[:, 0]
            self.tally.work[row] += peers
            agreed = pairs[same].ravel()
            self._pass(np.full(len(agreed), row), agreed, 1.0)
            self.tally.final[row] += same.sum()
            self._count_wrong(np.full(int(lies[same][:, 0].sum()), row))
            for pair, told in zip(pairs[~same], lies[~same], strict=True):
                self._outvote(row, pair, told)

    def _agree_in_groups(self, rows: Which) -> None:
        """The same where more than two must agree; further ones are asked until as many do."""
        agree, alike = self.policy.agree, self._cheater.conspire
        peers = self.setting.peers - self.setting.peers % agree
        for row in rows:
            groups = self._random.permutation(self.setting.peers)[:peers].reshape(-1, agree)
            for group, told in zip(groups, self._newcomers_lie(groups.ravel()).reshape(-1, agree), strict=True):
                asked, lies = list(group), list(told)
                while max(len(lies) - sum(lies), sum(lies) if alike else min(sum(lies), 1)) < agree:
                    further = self._random.integers(0, self.setting.peers, 1)
                    asked.append(further[0])
                    lies.append(self._newcomers_lie(further)[0])
                wrong = bool(len(lies) - sum(lies) < agree)
                self.tally.work[row] += len(asked)
                self.tally.final[row] += 1
                if wrong:
                    self._count_wrong(np.array([row]))
                winners = np.array(asked)[np.array(lies) == wrong]
                self._pass(np.full(len(winners), row), winners, 1.0)

    def _outvote(self, row: int, pair: Which, told: Flags) -> None:
        """Two disagree: further ones are asked until two agree. Whom newcomers outvote earned nothing, no more."""
        right, wrong = int((~told).sum()), int(told.sum())
        alike = 1 if self._cheater.conspire else 0
        most = max(right, wrong if alike else min(wrong, 1))
        while most < 2:
            self.tally.work[row] += 1
            bad = self._newcomers_lie(self._random.integers(0, self.setting.peers, 1))[0]
            right, wrong = right + (not bad), wrong + bool(bad)
            most = max(right, wrong if alike else min(wrong, 1))
        self.tally.final[row] += 1
        self.tally.disputes[row] += 1
        lie = right < 2
        if lie:
            self._count_wrong(np.array([row]))
        winners = pair[told if lie else ~told]
        self._pass(np.full(len(winners), row), winners, 1.0)

    # --- trust --------------------------------------------------------------------------------------------------

    def _pass(self, rows: Which, peers: Which, worth: Shares | float, passed: Shares | float = 1.0) -> None:
        """These were found right about work worth so much."""
        self.capital[rows, peers] += worth
        self._passes[rows, peers] += passed
        self.trusted[rows, peers] = self._passes[rows, peers] >= self.policy.passes

    def _fail(self, rows: Which, peers: Which) -> None:
        """These were found wrong: they are newcomers again."""
        if not len(rows):
            return
        bad = peers < self._cheaters
        self.tally.caught += np.bincount(rows[bad], minlength=self.setting.rows)
        self.tally.punished += np.bincount(rows[~bad], minlength=self.setting.rows)
        if self.policy.forgets:
            self.capital[rows, peers] = 0.0
            self._passes[rows, peers] = 0.0
            self.trusted[rows, peers] = self.policy.passes <= 0

    def _judge(self, rows: Which, peers: Which, lies: Flags, work: Shares | None = None) -> Flags:
        """These results are audited; returns whose is found wrong, rightly or not."""
        audits = np.bincount(rows, minlength=self.setting.rows)
        self.tally.audits += audits
        self.tally.work += audits
        earned = audits if work is None else np.bincount(rows, work, self.setting.rows)
        self._credit += (earned / np.maximum(self._auditors, 1)).astype(np.float32)
        found = lies.copy()
        accused = np.zeros_like(lies)
        if self._cheater.conspire:
            by_gang = self._random.random(len(rows)) < self._gang[rows]
            found &= ~by_gang
            accused = ~lies & by_gang & (peers >= self._cheaters) & self._cheater.accuse
        for place in np.flatnonzero(found | accused):
            found[place] = self._settle(rows[place], peers[place], bool(lies[place]))
        if accused.any():  # whom a gang outvotes, for that unit its lie is FINAL
            self._count_wrong(rows[found & ~lies])
        return found

    def _settle(self, row: int, worker: int, lie: bool) -> bool:
        """An audit and its worker disagree; returns whether the worker is found wrong."""
        self.tally.disputes[row] += 1
        auditor = self._someone(row, of_gang=not lie)
        if self.policy.referee:
            self.tally.work[row] += 1
            wins = False
        else:
            honest, lying = (auditor, worker) if lie else (worker, auditor)
            wins, replicas = disputes.lie_wins(
                self._random,
                float(self._passes[row, honest]),
                float(self._passes[row, lying]),
                float(self._gang[row]),
                float(np.median(self._passes[row][self.trusted[row]])),
            )
            self.tally.work[row] += replicas
        if lie == wins:  # the auditor is found wrong
            self._fail(np.array([row]), np.array([auditor]))
        return lie != wins

    def _someone(self, row: int, *, of_gang: bool) -> int:
        """A trusted peer that audits."""
        among = self.trusted[row, : self._cheaters] if of_gang else self.trusted[row, self._cheaters :]
        known = np.flatnonzero(among)
        chosen = int(known[self._random.integers(len(known))]) if len(known) else 0
        return chosen if of_gang else chosen + self._cheaters

    def _count_wrong(self, rows: Which) -> None:
        self.tally.wrong += np.bincount(rows, minlength=self.setting.rows)

    # --- when audits are drawn ----------------------------------------------------------------------------------

    def _by_coin(self, at_work: Flags, lies: Flags, rate: Shares, sizes: Shares | float, copied: Sums) -> None:
        """Each result by its own coin."""
        audited = at_work & (self._random.random(at_work.shape, np.float32) < rate)
        rows, peers = np.nonzero(audited)
        told = self._told(lies, rows, peers)
        passed = np.ones(len(rows), np.float32)
        if self.policy.by_work and not isinstance(sizes, float):
            passed = sizes[rows, peers]
        found = self._judge(rows, peers, told, passed)
        right = ~found
        passed = passed[right]
        worth = passed / rate[rows, peers][right]
        self._fail(rows[found], peers[found])
        self._pass(rows[right], peers[right], worth, passed)
        lies[rows[found & told], peers[found & told]] = False  # what the audit found is FINAL instead
        through_rows, through_peers = np.nonzero(lies)
        if not len(through_rows):
            return
        copy = self._random.random(len(through_rows)) < copied[through_rows]
        self._fail(through_rows[copy], through_peers[copy])
        self.tally.work += np.bincount(through_rows[copy], minlength=self.setting.rows)
        self._count_wrong(through_rows[~copy])

    def _told(self, lies: Flags, rows: Which, peers: Which) -> Flags:
        """Which of these results are wrong."""
        told = peers < self._cheaters
        told[told] = lies[rows[told], peers[told]]
        return told

    def _by_window(self, at_work: Flags, lies: Flags, rate: Shares, copied: Sums) -> None:
        """One result of each window, which is full, or cut short by the end of its worker's part of the job."""
        bad, policy = self._cheaters, self.policy
        self._filled += at_work
        self._bad[:, :bad] += lies
        self._left -= at_work
        found = self._by_copies(at_work, lies, copied)
        if policy.timing is Timing.CLOSING:
            found |= self._by_coins_besides(at_work, lies, found)
        size = np.maximum(1, np.rint(1.0 / rate)).astype(np.int32)
        ended = at_work & (self._left <= 0)
        full = at_work & (self._filled >= size)
        closing = (full | ended) & ~found
        audited = closing
        if policy.short_drawn:
            audited = closing & (full | (self._random.random(size.shape, np.float32) * size < self._filled))
        rows, peers = np.nonzero(audited)
        filled = self._filled[rows, peers]
        told = self._random.random(len(rows)) * filled < self._bad[rows, peers]
        failed = self._judge(rows, peers, told)
        worth = (size[rows, peers] if policy.short_drawn else filled).astype(np.float32)
        self._pass(rows[~failed], peers[~failed], worth[~failed])
        found[rows[failed], peers[failed]] = True
        self._rerun(found)
        self._finish(closing & ~found, ended)
        self._filled[closing | found] = 0
        self._bad[closing | found] = 0
        self._left[ended | found] = self.setting.per_job

    def _by_copies(self, at_work: Flags, lies: Flags, copied: Sums) -> Flags:
        """Lies that an honest newcomer's copy shows."""
        found = np.zeros_like(at_work)
        rows, peers = np.nonzero(lies)
        seen = self._random.random(len(rows)) < copied[rows]
        found[rows[seen], peers[seen]] = True
        return found

    def _by_coins_besides(self, at_work: Flags, lies: Flags, found: Flags) -> Flags:
        """Those of ``Timing.CLOSING``."""
        rows, peers = np.nonzero(
            at_work & ~found & (self._random.random(at_work.shape, np.float32) < self.policy.least)
        )
        failed = self._judge(rows, peers, self._told(lies, rows, peers))
        caught = np.zeros_like(at_work)
        caught[rows[failed], peers[failed]] = True
        return caught

    def _rerun(self, found: Flags) -> None:
        """What these did in the job and is not FINAL is computed again, by others."""
        rows, peers = np.nonzero(found)
        again = self._filled[rows, peers] + self._held[rows, peers].sum(axis=1)
        sums = np.bincount(rows, weights=again, minlength=self.setting.rows)
        self.tally.work += sums
        self.tally.reruns += sums
        self.tally.final += sums
        self._held[rows, peers] = 0
        self._held_wrong[rows, peers] = 0
        self._fail(rows, peers)

    def _finish(self, passed: Flags, ended: Flags) -> None:
        """These windows count, after as many further ones as the policy holds them back for."""
        rows, peers = np.nonzero(passed)
        filled, bad = self._filled[rows, peers], self._bad[rows, peers]
        if self.policy.hold:
            held, wrong = self._held[rows, peers], self._held_wrong[rows, peers]
            last = ended[rows, peers]
            done = np.where(last, held.sum(axis=1) + filled, held[:, -1])
            done_wrong = np.where(last, wrong.sum(axis=1) + bad, wrong[:, -1])
            keep = ~last[:, None]
            self._held[rows, peers] = np.concatenate([filled[:, None], held[:, :-1]], axis=1) * keep
            self._held_wrong[rows, peers] = np.concatenate([bad[:, None], wrong[:, :-1]], axis=1) * keep
            filled, bad = done, done_wrong
        self.tally.final += np.bincount(rows, weights=filled, minlength=self.setting.rows)
        self.tally.wrong += np.bincount(rows, weights=bad, minlength=self.setting.rows)
