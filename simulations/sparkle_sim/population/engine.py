"""A run of the population engine: a scenario, a seed, and what became of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sparkle_protocol.errors import ConfigError
from sparkle_sim.population.presence import Presence
from sparkle_sim.population.spreading import heard_s, lookup_hops, lookup_s
from sparkle_sim.population.streams import stream
from sparkle_sim.population.units import Units
from sparkle_sim.population.workers import Workers
from sparkle_sim.scenario import Scenario, Wires

MOST_ROWS = 500  # of the time series
STEPS_PER_UNIT = 120
SHORTEST_STEP_S, LONGEST_STEP_S = 0.05, 30.0
LEAST_UNIT_S = 1.5  # below that a worker's queue is deeper, and messages decide more than machines
SETTLE_TRIPS = 3.0  # round trips from a result until it counts: commit, asked to reveal, reveal

CANNOT_SAY = (
    "what one node can bear: the hand-out has no limit; compare peak_leases_per_s with what a submitter serves",
    "facts, keepers, certificates, disks: nothing is lost but work, and nothing waits for keepers to agree",
    "single messages: losses, time-outs and partitions act on the announcement at most",
    "copies of stragglers: a unit on a slow machine is waited for, so the tail of a job is an upper bound",
    "trust and credit; allowances of new workers; fairness between submitters",
    "bandwidth and blobs: inputs and results cost no time",
    "units under 1.5 s, sessions shorter than a unit's step",
)

Row = dict[str, float]


@dataclass(slots=True)
class PopulationRun:
    """What became of a run.

    Args:
        rows: time series, one row of columns for each moment.
        summary: the whole, as plain values; ``complete`` is False when it was stopped before its end.
    """

    rows: list[Row] = field(default_factory=list)
    summary: dict[str, object] = field(default_factory=dict)


def run_population(
    scenario: Scenario,
    seed: int,
    on_progress: Callable[[float, Row], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    speeds: Sequence[float] | None = None,
) -> PopulationRun:
    """Run a scenario to its end, the same for the same seed on every machine with the same NumPy.

    Args:
        scenario: what happens; ``engine`` is not looked at.
        seed: decides everything that the scenario leaves open.
        on_progress: is told virtual seconds and the latest row, at each row.
        should_stop: is asked between steps; where it says so, the run ends there and is marked as not complete.
        speeds: of each peer, as multiples of the median; without them drawn as ``peers.machines`` says.

    Raises:
        ConfigError: the scenario asks for what this engine has no model of.
    """
    model = _Model(scenario, seed, speeds)
    stopped = False
    while not model.over and not stopped:
        row = model.step()
        if row is not None and on_progress is not None:
            on_progress(row["t_s"], row)
        stopped = should_stop is not None and should_stop()
    return PopulationRun(model.rows, model.summary(complete=model.over))


def step_s(scenario: Scenario) -> float:
    """How long a step is: short against units, sessions and absences."""
    shortest = min((job.unit_s for job in scenario.jobs), default=LONGEST_STEP_S * STEPS_PER_UNIT)
    churn = scenario.peers.churn
    if churn.kind != "none":
        shortest = min(shortest, churn.session_s, churn.absence_s)
    longest = min(LONGEST_STEP_S, scenario.seconds / 20)
    return float(min(longest, max(SHORTEST_STEP_S, shortest / STEPS_PER_UNIT)))


class _Model:
    """The state of a run."""

    def __init__(self, scenario: Scenario, seed: int, speeds: Sequence[float] | None) -> None:
        _check(scenario)
        if speeds is not None and len(speeds) != scenario.peers.count:
            raise ConfigError(f"there are {len(speeds)} speeds for {scenario.peers.count} peers; give one for each")
        self._scenario = scenario
        self._seed = seed
        self._step_s = step_s(scenario)
        self._steps = int(np.ceil(scenario.seconds / self._step_s))
        self._step = 0
        self._regions = _regions(scenario, seed)
        self._trips_s = round_trips_s(scenario.wires)
        shares = np.bincount(self._regions, minlength=len(self._trips_s)) / len(self._regions)
        self._trip_s = float(shares @ self._trips_s @ shares)
        self._units = Units(scenario, self._step_s)
        self._presence = Presence(scenario, self._regions, seed, self._step_s)
        self._workers = Workers(
            scenario, self._presence, self._units, seed, step_s=self._step_s, delay_s=self._trip_s, speeds=speeds
        )
        self._lookup_s = lookup_s(scenario.peers.count, self._trip_s)
        self._every = max(1, self._steps // MOST_ROWS)
        self._announced: dict[str, float] = {}
        self._peak = 0
        self._sampled = (0, 0)  # step and final units of the latest row
        self._online = 0.0  # peer-steps at the rows
        self.rows: list[Row] = []
        active = np.flatnonzero(self._presence.active).astype(np.int32)
        order = stream(seed, "first asks").permutation(active).astype(np.int32)
        self._workers.ask(self._workers.slots_of(order))

    @property
    def over(self) -> bool:
        """The time is up, or nothing is left to do."""
        return self._step >= self._steps or (self._scenario.until_done and self._units.over)

    @property
    def now_s(self) -> float:
        """Virtual seconds that have passed."""
        return min(self._step * self._step_s, self._scenario.seconds)

    def step(self) -> Row | None:
        """The next one; a row of the time series where it is time for one."""
        step = self._step
        self._step += 1
        now_s = self._step * self._step_s
        for change in self._presence.advance(step):
            self._workers.change(change, step, self._lookup_s)
        self._units.wake(step)
        self._announce(step, now_s)
        self._workers.finish(step)
        self._workers.wake(step)
        self._peak = max(self._peak, self._workers.hand_out(now_s))
        if self._step % self._every == 0 or self.over:
            return self._sample()
        return None

    def _announce(self, step: int, now_s: float) -> None:
        """Peers without work hear of new jobs by gossip; those who have some ask anyway."""
        jobs = self._units.submit_until(now_s)
        if not jobs:
            return
        self._workers.unpark()
        idle = self._workers.take_idle()
        if not len(idle):
            return
        wires = self._scenario.wires
        random = stream(self._seed, "gossip", step)
        heard = heard_s(self._regions, self._trips_s, wires.jitter, wires.loss, random)
        if not self._announced:
            half, most, last = np.quantile(heard, (0.5, 0.99, 1.0))
            self._announced = {"half_s": float(half), "p99_s": float(most), "all_s": float(last)}
        slots = self._scenario.peers.machines.slots
        self._workers.ask_later(idle, jobs[0].at_s + heard[idle // slots].astype(np.float64), step - 1)

    # --- what is told -----------------------------------------------------------------------------------------

    def _sample(self) -> Row:
        totals, workers = self._units.totals, self._workers
        step, final = self._sampled
        self._sampled = (self._step, totals.final)
        online = self._presence.online
        self._online += online
        row: Row = {
            "t_s": self.now_s,
            "online": online,
            "computing": workers.computing,
            "results": totals.results,
            "units_done": totals.final,
            "units_per_s": (totals.final - final) / ((self._step - step) * self._step_s),
            "wrong_final": totals.wrong,
            "dead": totals.dead,
            "replicas_per_unit": _per(totals.votes + totals.late, totals.final + totals.dead),
            "wasted_share": _per(workers.wasted_s, workers.computed_s),
            "open_units": self._units.open,
        }
        self.rows.append(row)
        return row

    def summary(self, *, complete: bool) -> dict[str, object]:
        """What became of it, as plain values."""
        totals, workers, count = self._units.totals, self._workers, self._scenario.peers.count
        return {
            "engine": "population",
            "seed": self._seed,
            "complete": complete,
            "peers": count,
            "virtual_seconds": self.now_s,
            "steps": self._step,
            "step_s": self._step_s,
            "online_share": _per(self._online, count * len(self.rows)),
            "units_done": totals.final,
            "units_dead": totals.dead,
            "units_per_s": _per(totals.final, self.now_s),
            "wrong_final": totals.wrong,
            "wrong_share": _per(totals.wrong, totals.final),
            "replicas_per_unit": _per(totals.votes + totals.late, totals.final + totals.dead),
            "results_outvoted": totals.outvoted,
            "leases": totals.leases,
            "leases_lost": totals.lost,
            "peak_leases_per_s": self._peak / self._step_s,
            "wasted_share": _per(workers.wasted_s, workers.computed_s),
            "announcement": self._announced,
            "lookup": {"hops": lookup_hops(count), "seconds": self._lookup_s},
            "jobs": self._jobs(),
            "cannot_say": list(CANNOT_SAY),
        }

    def _jobs(self) -> list[dict[str, object]]:
        settle_s = SETTLE_TRIPS * self._trip_s
        return [
            {
                "job": number,
                "units": job.plan.units,
                "outcome": "running" if not job.over else "failed" if job.dead else "done",
                "submitted_s": job.at_s,
                "ended_s": job.last_s + settle_s if job.over else None,
                "units_done": job.final,
                "wrong": job.wrong,
            }
            for number, job in enumerate(self._units.jobs)
            if job.at_s <= self.now_s
        ]


def _per(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _check(scenario: Scenario) -> None:
    """Return if this engine has a model of it. Raises ConfigError."""
    for number, job in enumerate(scenario.jobs):
        if job.unit_s < LEAST_UNIT_S:
            raise ConfigError(
                f"jobs[{number}].unit_s is {job.unit_s:g}; the population engine needs units of {LEAST_UNIT_S:g} s "
                'at least: use larger units, or engine = "full"'
            )
        if job.submitter >= scenario.peers.count:
            raise ConfigError(f"jobs[{number}].submitter is {job.submitter}; there are {scenario.peers.count} peers")


def _regions(scenario: Scenario, seed: int) -> "np.ndarray[tuple[int], np.dtype[np.int8]]":
    """The region of each peer, by the regions' shares."""
    shares = np.array([region.share for region in scenario.wires.regions])
    drawn = stream(seed, "places").random(scenario.peers.count, np.float32)
    numbers = np.searchsorted(np.cumsum(shares), drawn, side="right")
    return np.minimum(numbers, len(shares) - 1).astype(np.int8)


def round_trips_s(wires: Wires) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Between each two regions. Raises ConfigError for a distance to a region that there is not."""
    numbers = {region.name: number for number, region in enumerate(wires.regions)}
    trips = np.full((len(numbers), len(numbers)), wires.far_ms)
    for number, region in enumerate(wires.regions):
        trips[number, number] = region.inside_ms
    for distance in wires.distances:
        for name in distance.between:
            if name not in numbers:
                raise ConfigError(f"wires.distances names '{name}', which is no region of the scenario")
        one, other = (numbers[name] for name in distance.between)
        trips[one, other] = trips[other, one] = distance.round_trip_ms
    return trips / 1000.0
