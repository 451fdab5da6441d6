"""The table of policies: each of them with each kind of cheaters, and what came of it. No I/O.

A *cell* is a policy, a kind of cheaters, their share, and whether the network is old or has just begun. It is played
in many independent rows; the intervals come from these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from sparkle_protocol.errors import NotFound
from sparkle_sim.population.auditing import SMALL, SMALL_SHARE, Audited
from sparkle_sim.population.cheaters import HONEST, KINDS, Cheater, kind
from sparkle_sim.population.finishing import LONG as LONG_UNITS
from sparkle_sim.population.finishing import waits
from sparkle_sim.population.replication import Replicated
from sparkle_sim.population.streams import stream
from sparkle_sim.population.tallying import Setting, Tally
from sparkle_sim.population.trust import Audits, Policy, Replication, Timing

PEERS = 300
SHARES = (0.01, 0.05, 0.10, 0.20)
QUICK_SHARES = (0.05, 0.20)
COLD_UNITS = 1000  # of each peer, in a network that has just begun
LONG_WORKERS = 16  # of a long job, where its waits are measured
LONG = 400  # results of a worker in a long job; in a short one there are four
SLOWLY = 1 / 40  # copies for a newcomer in the time of a unit, where that is what keeps cheaters out
SETTLING = 1500  # units of each peer before counting begins; cheaters are anywhere in their lives from the start
MEASURED = 1000  # of them that are counted, and for the patient a life
MOST_MEASURED = 20_000
RESAMPLES, TAIL = 2000, 0.025

CHOSEN = Audits(
    "capital", "audited with D / (D + L), L: work found right", doubt=500.0, copies=0.01, welcome=0.12, both_pass=True
)


@dataclass(frozen=True, slots=True)
class Bar:
    """What a policy is to keep with the worst kind, in an old network."""

    share: float
    work: float
    wrong: float


BARS = (Bar(0.05, 1.15, 2e-4), Bar(0.20, 1.25, 6e-4))
LONGEST_WAIT = 2.0  # units, from the last commit of a short job until it is FINAL


@dataclass(frozen=True, slots=True)
class Trial:
    """A policy, the jobs that it is tried with, and the shares of cheaters that are looked at."""

    policy: Policy
    per_job: int = 4
    shares: tuple[float, ...] = QUICK_SHARES


_SLOW = Audits("coin", "a coin of 1 in 20, slow promotion", copies=0.05, turn=SLOWLY, in_turn=False)


def _like(name: str, title: str, **changes: object) -> Audits:
    return Audits(**{**asdict(_SLOW), "name": name, "title": title, **changes})


TRIALS = (
    Trial(CHOSEN, shares=SHARES),
    Trial(Audits(**{**asdict(CHOSEN), "name": "no referee", "title": "the same, replicas settle disputes",
                    "referee": False})),
    Trial(Audits(**{**asdict(CHOSEN), "name": "growing windows", "title": "the same rate, one audit a window",
                    "timing": Timing.WINDOWS, "short_drawn": True})),
    Trial(Audits(**{**asdict(CHOSEN), "name": "D = 300", "title": "the same with less doubt", "doubt": 300.0})),
    Trial(Audits(**{**asdict(CHOSEN), "name": "by units", "title": "the same, counts units and not work",
                    "by_work": False})),
    Trial(_SLOW, shares=SHARES),
    Trial(_like("young coin", "a coin of 1 in 20 from 60 passes on", turn=1.0)),
    Trial(_like("closing", "the coin and closing audits, short jobs", timing=Timing.CLOSING), shares=SHARES),
    Trial(_like("windows", "one audit a window of 20, short jobs", timing=Timing.WINDOWS), shares=SHARES),
    Trial(_like("long windows", "the same, long jobs", timing=Timing.WINDOWS), LONG),
    Trial(_like("held windows", "the same, FINAL after four more", timing=Timing.WINDOWS, hold=4), LONG),
    Trial(Audits("spot checks", "1 in 20 checked, no newcomers", passes=0, copies=0.0)),
    Trial(Replication("BOINC", "adaptive replication from 10 valid on", valid=10), shares=SHARES),
    Trial(Replication("2 of 3", "two equal results of at most three"), shares=SHARES),
)  # fmt: skip


def find(names: Sequence[str]) -> list[Trial]:
    """The policies of these names, without names all. Raises NotFound."""
    known = {trial.policy.name: trial for trial in TRIALS}
    for name in names:
        if name not in known:
            raise NotFound(f"there is no policy '{name}'; those that are known: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(TRIALS)


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination."""

    trial: Trial
    cheater: str
    share: float
    cold: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.trial.policy.name}, {self.share:.0%} {self.cheater}{', cold start' if self.cold else ''}"


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where 95 of 100 of its resamples lie."""

    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a cell.

    Args:
        work: executions for each FINAL unit, whatever they were for.
        wrong: share of the FINAL units.
        audits: for each FINAL unit; in voting, second results.
        copies: by newcomers, for each FINAL unit.
        promoted: share of the honest that is trusted in the end.
        punished: honest peers that lost their trust, in a million FINAL units.
        caught: cheaters that were found out, in a million FINAL units.
        final: units.
    """

    work: Interval
    wrong: Interval
    audits: float
    copies: float
    promoted: float
    punished: float
    caught: float
    final: int


def cells(trials: Sequence[Trial], shares: Sequence[float]) -> Iterator[Cell]:
    """All cells of these policies."""
    for trial in trials:
        yield Cell(trial, HONEST.name, 0.0)
        yield Cell(trial, HONEST.name, 0.0, cold=True)
        for share in [share for share in shares if share in trial.shares]:
            for one in KINDS:
                yield Cell(trial, one.name, share)
                if share in QUICK_SHARES and one.patience >= 1.0:  # the others do not begin in that time
                    yield Cell(trial, one.name, share, cold=True)


def play(cell: Cell, seed: int, rows: int, peers: int = PEERS, *, most: int = MOST_MEASURED) -> Figures:
    """Play a cell in so many rows.

    Args:
        cell: what.
        seed: decides everything.
        rows: independent runs.
        peers: in each of them.
        most: units of each peer that are counted, and that pass before, at most.
    """
    cheater = kind(cell.cheater)
    setting = Setting(peers, cell.share, cheater, rows, per_job=cell.trial.per_job, cold=cell.cold)
    policy = cell.trial.policy
    model = Audited(policy, setting, seed) if isinstance(policy, Audits) else Replicated(policy, setting, seed)
    if cell.cold:
        model.run(min(most, COLD_UNITS))
    else:
        model.run(min(most, SETTLING))
        model.tally.clear()
        model.run(min(most, max(MEASURED, _needed(model, cheater))))
    if cheater.large_only:  # of the reference work, not of the units
        model.tally.wrong /= SMALL_SHARE * SMALL + 1.0 - SMALL_SHARE
    return figures(model.tally, float(fmean(model.promoted)), stream(seed, "resamples", cell.name))


def _needed(model: Audited | Replicated, cheater: Cheater) -> int:
    """Lives of the patient are long."""
    return model.life if cheater.patience < 1.0 else 0


def figures(tally: Tally, promoted: float, random: np.random.Generator) -> Figures:
    """What came of some rows."""
    final = float(tally.final.sum())
    return Figures(
        work=_ratio(tally.work, tally.final, random),
        wrong=_ratio(tally.wrong, tally.final, random),
        audits=float(tally.audits.sum() / final),
        copies=float(tally.copies.sum() / final),
        promoted=promoted,
        punished=float(tally.punished.sum() / final * 1e6),
        caught=float(tally.caught.sum() / final * 1e6),
        final=int(final),
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64], random: np.random.Generator) -> Interval:
    """Sum over sum, by resampling rows; where nothing was seen, three of all is the exact bound."""
    drawn = random.integers(0, len(part), (RESAMPLES, len(part)))
    ratios = np.sort(part[drawn].sum(axis=1) / whole[drawn].sum(axis=1))
    low, high = ratios[int(TAIL * RESAMPLES)], ratios[int((1 - TAIL) * RESAMPLES)]
    value = part.sum() / whole.sum()
    return Interval(float(low), float(value), float(high if value else 3.0 / whole.sum()))


@dataclass(frozen=True, slots=True)
class Waits:
    """What results wait for, in units of the longest unit.

    Args:
        mean: from the last commit of a short job until all of it is FINAL.
        p99: the same for the slowest of a hundred jobs.
        result: of a long job, from its commit until it is FINAL, on average.
    """

    mean: float
    p99: float
    result: float


def finishing(policy: Policy, runs: int, seed: int) -> Waits:
    """How long results wait, with the worst number of workers."""
    found = [[wait for wait, _ in waits(policy, workers, runs, seed, unequal=unequal)]
             for workers in (8, 16, 64) for unequal in (False, True)]  # fmt: skip
    long = waits(policy, LONG_WORKERS, max(1, runs // 100), seed, units=LONG_UNITS)
    return Waits(
        max(map(fmean, found)),
        max(sorted(times)[int(0.99 * (len(times) - 1))] for times in found),
        fmean(wait for _, wait in long),
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a policy keeps a bar."""

    bar: Bar
    work: float
    work_kind: str
    wrong: float
    wrong_kind: str

    @property
    def kept(self) -> bool:
        """It does."""
        return self.work <= self.bar.work and self.wrong <= self.bar.wrong


Results = dict[Cell, Figures]


def worst(results: Results, trial: Trial, share: float, *, cold: bool = False) -> tuple[Cell, Cell] | None:
    """The cells of the most work and of the most wrong results; None: there are none."""
    mine = [cell for cell in results if (cell.trial, cell.share, cell.cold) == (trial, share, cold)]
    if not mine:
        return None
    return max(mine, key=lambda cell: results[cell].work.value), max(mine, key=lambda cell: results[cell].wrong.value)


def verdicts(results: Results, trial: Trial) -> list[Verdict]:
    """What a policy makes of the bars whose cells were played."""
    found = []
    for bar in BARS:
        cells_ = worst(results, trial, bar.share)
        if cells_ is not None:
            work, wrong = cells_
            found.append(
                Verdict(bar, results[work].work.value, work.cheater, results[wrong].wrong.value, wrong.cheater)
            )
    return found


def kept(results: Results, waits_of: Mapping[str, Waits]) -> bool:
    """Production's policy keeps every bar, as far as it was played, and punished nobody that is honest."""
    chosen = [trial for trial in dict.fromkeys(cell.trial for cell in results) if trial.policy == CHOSEN]
    if any(not verdict.kept for trial in chosen for verdict in verdicts(results, trial)):
        return False
    if any(figures.punished for cell, figures in results.items() if cell.trial in chosen):
        return False
    wait = waits_of.get(CHOSEN.name)
    return not chosen or wait is None or wait.p99 <= LONGEST_WAIT
