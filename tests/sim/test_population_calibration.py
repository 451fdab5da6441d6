"""The population engine beside the full one: the same scenario, the same machines, both figures printed.

The full engine runs the production cores, message by message; this is what the model is held against. The table is
printed whenever the test runs: ``pytest tests/sim/test_population_calibration.py``.
"""

import statistics
from dataclasses import dataclass

import pytest

from sparkle_sim.engine import Run, machine_of
from sparkle_sim.population import run_population
from sparkle_sim.scenario import Adversaries, Churn, JobPlan, Peers, Scenario
from sparkle_sim.trace import Trace

SEEDS = (3, 4)  # of the full engine's runs: the makespan of one may differ by a fifth from that of the next,
MANY_SEEDS = range(1, 9)  # and by half where it hangs on who leaves in the middle of the last units
MODEL_RUNS = 3  # for each of these, with its machines
# How far the mean of the model's runs may be from the mean of the full engine's, as a share of that.
TOLERANCES = {"units/s": 0.08, "replicas/unit": 0.04, "makespan s": 0.15}
BEGIN_S = 90.0  # by then all are there and their tables are full, as the model takes for granted
CHURN = Churn("exponential", session_s=240.0, absence_s=60.0, begin_s=BEGIN_S, silent_share=0.3)


def _scenario(count: int, units: int, unit_s: float, **more: object) -> Scenario:
    plan = JobPlan(at_s=BEGIN_S + 2.0, units=units, unit_s=unit_s)
    peers = Peers(count, arrive_s=BEGIN_S / 2, churn=CHURN if more.pop("churn", False) else Churn())
    return Scenario("calibration", seconds=700.0, peers=peers, jobs=[plan], **more)  # type: ignore[arg-type]


CASES = {
    "150 honest peers": _scenario(150, 300, 20.0),
    "sessions of 240 s": _scenario(100, 200, 12.0, churn=True),
    "10 % cheats": _scenario(100, 200, 12.0, adversaries=[Adversaries("cheat", 0.1)]),
    "20 % colluders": _scenario(100, 200, 12.0, adversaries=[Adversaries("collude", 0.2)]),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared."""

    rate: float  # units per second from the first tenth of the results to the middle: while there is work for all
    replicas: float
    makespan_s: float


class Computed(Trace):
    """When each result was computed, in place of a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    def note(self, now_ns: int, peer: int, what: str, detail: str = "") -> None:
        if what == "computed":
            self.at_s.append(now_ns / 1e9)


def _full(scenario: Scenario, seed: int) -> Figures:
    """One run of the production cores."""
    trace = Computed()
    run = Run(scenario, seed, trace=trace)
    run.advance(scenario.seconds)
    plan = scenario.jobs[0]
    (job,) = run.summary()["jobs"]  # type: ignore[misc]
    assert job["outcome"] == "done"
    at_s = trace.at_s
    first, middle = len(at_s) // 10, len(at_s) // 2
    rate = (middle - first) / (at_s[middle] - at_s[first]) / plan.quorum
    return Figures(rate, len(at_s) / plan.units, job["ended_s"] - plan.at_s)


def _model(scenario: Scenario, seed: int, number: int) -> Figures:
    """One run of the model, with the machines that the full engine drew."""
    machines, plan = scenario.peers.machines, scenario.jobs[0]
    drawn = [machine_of(machines, seed, peer).flops_per_s for peer in range(scenario.peers.count)]
    run = run_population(
        scenario, MODEL_RUNS * seed + number, speeds=[one / 1e9 / machines.gigaflops for one in drawn]
    )
    (job,) = run.summary["jobs"]  # type: ignore[misc]
    assert job["outcome"] == "done"
    results = [(row["t_s"], row["results"]) for row in run.rows]
    total = results[-1][1]
    (from_s, first), (to_s, middle) = (
        next(row for row in results if row[1] >= share * total) for share in (0.1, 0.5)
    )
    rate = (middle - first) / (to_s - from_s) / plan.quorum
    return Figures(rate, total / plan.units, job["ended_s"] - plan.at_s)


def _mean(runs: list[Figures]) -> tuple[float, float, float]:
    return (
        statistics.mean(one.rate for one in runs),
        statistics.mean(one.replicas for one in runs),
        statistics.mean(one.makespan_s for one in runs),
    )


@pytest.mark.timeout(300)
def test_both_engines_agree_on_throughput_replicas_and_makespan(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [" " * 20 + "".join(f"{f'{name} ± {limit:.0%}':>24}" for name, limit in TOLERANCES.items())]
    lines.append(" " * 20 + f"{'full  model':>24}" * len(TOLERANCES))
    beyond = []
    for name, scenario in CASES.items():
        seeds = MANY_SEEDS if scenario.peers.churn.kind != "none" else SEEDS
        full = _mean([_full(scenario, seed) for seed in seeds])
        model = _mean([_model(scenario, seed, number) for seed in seeds for number in range(MODEL_RUNS)])
        pairs = list(zip(full, model, strict=True))
        lines.append(f"{name:20}" + "".join(f"{f'{one:.3g}  {other:.3g}':>24}" for one, other in pairs))
        for (one, other), (figure, limit) in zip(pairs, TOLERANCES.items(), strict=True):
            if abs(other / one - 1) > limit:
                beyond.append((name, figure, one, other))
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert not beyond
