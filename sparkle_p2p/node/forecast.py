"""When a job or a unit will probably start and end, from how it went so far; or why nobody can tell.

The pace of a job is the number of units accepted over a sliding window. How far it can be trusted follows from how
few such moments there were: the bounds are those of a Poisson rate (Garwood's interval, 80 %), where units accepted
in one moment count as one, since batches say less than single units.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from sparkle_p2p.view import Eta, Reason

SECOND_NS = 1_000_000_000
WINDOW_NS = 600 * SECOND_NS
MOMENTS_KEPT = 256
ONE_MOMENT_NS = SECOND_NS // 4
STALLED_S = 15.0  # nobody holds a unit and none was accepted for so long: the pace says nothing about the rest
MIN_RUN_TIMES = 3
MIN_PROGRESS = 0.05
_Z = 1.2816  # of the normal distribution: 10 % lie beyond it on either side


class Pace:
    """When units of a job were accepted in this run of the node."""

    def __init__(self) -> None:
        self._moments: deque[tuple[int, int]] = deque(maxlen=MOMENTS_KEPT)  # (when, how many)
        self._since_ns: int | None = None  # when work began, as far as seen

    def began(self, when_ns: int) -> None:
        """A worker took something; the first time counts."""
        if self._since_ns is None or when_ns < self._since_ns:
            self._since_ns = when_ns

    @property
    def watched(self) -> bool:
        """It is known when work began."""
        return self._since_ns is not None

    def accepted(self, now_ns: int, units: int = 1) -> None:
        """Units were accepted."""
        if self._moments and now_ns - self._moments[-1][0] <= ONE_MOMENT_NS:
            when, count = self._moments[-1]
            self._moments[-1] = (when, count + units)
        else:
            self._moments.append((now_ns, units))

    def idle_s(self, now_ns: int) -> float | None:
        """How long ago the last unit was accepted."""
        return (now_ns - self._moments[-1][0]) / SECOND_NS if self._moments else None

    def recent(self, now_ns: int) -> tuple[int, int, float] | None:
        """Units accepted, in how many moments, in how many seconds up to now; None before the first."""
        if not self._moments:
            return None
        start = max(self._since_ns or 0, now_ns - WINDOW_NS)
        if self._since_ns is None or len(self._moments) == MOMENTS_KEPT:
            start = max(start, self._moments[0][0])  # what came before it is not known
        inside = [count for when, count in self._moments if when > start]
        if not inside:
            return None
        return sum(inside), len(inside), max((now_ns - start) / SECOND_NS, 1e-3)


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as the forecast needs it."""

    seconds: float  # since it was granted
    progress: float


def job_forecast(
    pace: Pace, now_ns: int, *, remaining: int, taken: bool, held: Sequence[Held], run_times_s: Sequence[float]
) -> Eta | Reason:
    """When a job of ``remaining`` open units ends.

    Args:
        pace: when units were accepted.
        now_ns: the same clock as the pace's.
        remaining: units neither accepted nor dead.
        taken: some worker has taken a unit of it at some time.
        held: present leases, some of them at least.
        run_times_s: from lease to commit, sorted.
    """
    if not taken:
        return Reason("not_started", "No worker has taken a unit yet, so its end cannot be foreseen.")
    recent, idle_s = pace.recent(now_ns), pace.idle_s(now_ns)
    if not held and (idle_s is None or idle_s > STALLED_S):
        since = "" if idle_s is None else f"; the last unit was accepted {idle_s:.0f} s ago"
        return Reason("nobody_at_work", f"No worker holds a unit of it now{since}, so its end cannot be foreseen.")
    if recent is None:
        return Reason("none_accepted", "No unit has been accepted in this run yet, so its end cannot be foreseen.")
    units, moments, over_s = recent
    fewer, more = _poisson_bounds(moments)
    finish_s = remaining * over_s / units
    tail_s = max((left[1] for one in held if (left := _left_s(one, run_times_s)) is not None), default=0.0)
    return Eta(
        finish_s=max(finish_s, tail_s),
        low_s=min(finish_s * moments / more, max(finish_s, tail_s)),
        high_s=max(finish_s * moments / fewer, tail_s),
    )


def start_forecast(pace: Pace, now_ns: int, ahead: int) -> Eta | None:
    """When a unit is handed out that stands behind ``ahead`` others; None while there is no pace."""
    recent = pace.recent(now_ns)
    if recent is None:
        return None
    units, moments, over_s = recent
    fewer, more = _poisson_bounds(moments)
    start_s = ahead * over_s / units
    return Eta(start_s, start_s * moments / more, start_s * moments / fewer)


def lease_forecast(held: Held, run_times_s: Sequence[float]) -> Eta | None:
    """When a worker will have computed the unit that it holds; None where nothing tells."""
    left = _left_s(held, run_times_s)
    return Eta(left[1], left[0], left[2]) if left is not None else None


def _left_s(held: Held, run_times_s: Sequence[float]) -> tuple[float, float, float] | None:
    """Seconds that a lease will probably go on: low, likely, high."""
    # Of the units that took at least as long as this one already has; a lease also waits in its worker's queue, so
    # progress alone says less than they do.
    longer = run_times_s[bisect_left(run_times_s, held.seconds) :]
    if longer and len(run_times_s) >= MIN_RUN_TIMES:
        low, likely, high = (longer[min(len(longer) - 1, int(len(longer) * part))] for part in (0.1, 0.5, 0.9))
        return low - held.seconds, likely - held.seconds, high - held.seconds
    if held.progress >= MIN_PROGRESS:
        left = held.seconds * (1 - held.progress) / held.progress
        return 0.7 * left, left, 1.5 * left  # progress is told every few seconds and is seldom quite even
    return None


def _poisson_bounds(count: int) -> tuple[float, float]:
    """Between what means a Poisson count lies with 80 % confidence."""
    return _chi_square(2 * count, -_Z) / 2, _chi_square(2 * count + 2, _Z) / 2


def _chi_square(freedom: int, z: float) -> float:
    """A quantile of the chi-square distribution (Wilson and Hilferty, 1931)."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + z * sqrt(part)) ** 3)
