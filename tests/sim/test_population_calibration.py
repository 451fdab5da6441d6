"""The population engine beside the full one: the same scenario, the same machines, both figures printed.

The full engine runs the production cores, message by message; this is what the model is held against. To see the
table: ``pytest -s tests/sim/test_population_calibration.py``.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId
from sparkle_sim.computing import true_result
from sparkle_sim.engine import Run, machine_of
from sparkle_sim.population import run_population
from sparkle_sim.scenario import Adversaries, JobPlan, Peers, Scenario
from sparkle_sim.trace import Trace

SEED = 3
MODEL_SEEDS = range(8)
# How far the model's mean over its seeds may be from the full engine's one run, as a share.
THROUGHPUT, REPLICAS, MAKESPAN = 0.06, 0.03, 0.12


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared."""

    units_per_s: float  # from the first tenth of the results to the middle of them: while there is work for all
    replicas_per_unit: float
    makespan_s: float
    wrong: int = 0


class Computed(Trace):
    """When each result was computed, instead of a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    def note(self, now_ns: int, peer: int, what: str, detail: str = "") -> None:
        if what == "computed":
            self.at_s.append(now_ns / 1e9)


class Liar:
    """As ``cheat`` and ``collude``: wrong always, alone or as all others of its kind."""

    def __init__(self, name: int) -> None:
        self._name = name

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes | None:
        return bytes([self._name]) + true_result(job, unit)[:7]


def _scenario(count: int, plan: JobPlan, kind: str = "", share: float = 0.0) -> Scenario:
    adversaries = [Adversaries(kind, share=share)] if kind else []
    return Scenario("calibration", seconds=400.0, peers=Peers(count), jobs=[plan], adversaries=adversaries)


def _full(scenario: Scenario) -> Figures:
    trace = Computed()
    run = Run(scenario, SEED, trace=trace)
    for entry in scenario.adversaries:
        for number in range(1, 1 + round(entry.share * (scenario.peers.count - 1))):
            run.world.peers[number].behaviour = Liar(255 if entry.kind == "collude" else number % 250)
    run.advance(scenario.seconds)
    plan = scenario.jobs[0]
    (job,) = run.summary()["jobs"]  # type: ignore[misc]
    assert job["outcome"] == "done"
    return _figures(trace.at_s, plan, job["ended_s"] - plan.at_s)


def _figures(at_s: list[float], plan: JobPlan, makespan_s: float) -> Figures:
    first, middle = len(at_s) // 10, len(at_s) // 2
    rate = (middle - first) / (at_s[middle] - at_s[first]) / plan.quorum
    return Figures(rate, len(at_s) / plan.units, makespan_s)


def _model(scenario: Scenario, seed: int) -> Figures:
    machines = scenario.peers.machines
    speeds = [
        machine_of(machines, SEED, peer).flops_per_s / 1e9 / machines.gigaflops
        for peer in range(scenario.peers.count)
    ]
    run = run_population(scenario, seed, speeds=speeds)
    plan = scenario.jobs[0]
    (job,) = run.summary["jobs"]  # type: ignore[misc]
    assert job["outcome"] == "done"
    results = [(row["t_s"], row["results"]) for row in run.rows]
    total = results[-1][1]
    (from_s, first), (to_s, middle) = (
        next(row for row in results if row[1] >= share * total) for share in (0.1, 0.5)
    )
    rate = (middle - first) / (to_s - from_s) / plan.quorum
    return Figures(rate, run.summary["replicas_per_unit"], job["ended_s"] - plan.at_s, run.summary["wrong_final"])  # type: ignore[arg-type]


CASES = {
    "honest": _scenario(200, JobPlan(units=500, unit_s=12.0)),
    "10 % cheats": _scenario(100, JobPlan(units=300, unit_s=12.0), "cheat", 0.1),
    "20 % colluders": _scenario(100, JobPlan(units=300, unit_s=12.0), "collude", 0.2),
}


@pytest.mark.timeout(300)
def test_both_engines_agree(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        f"{'':16}{'units/s':>20}{'replicas/unit':>20}{'makespan s':>20}",
        f"{'':16}{'full  model' * 1:>20}{'full  model':>20}{'full  model':>20}",
    ]
    beyond = []
    for name, scenario in CASES.items():
        full = _full(scenario)
        models = [_model(scenario, seed) for seed in MODEL_SEEDS]

        def mean(of: Callable[[Figures], float], models: list[Figures] = models) -> float:
            return statistics.mean(map(of, models))

        model = Figures(
            mean(lambda one: one.units_per_s),
            mean(lambda one: one.replicas_per_unit),
            mean(lambda one: one.makespan_s),
        )
        cells = (
            (full.units_per_s, model.units_per_s, THROUGHPUT),
            (full.replicas_per_unit, model.replicas_per_unit, REPLICAS),
            (full.makespan_s, model.makespan_s, MAKESPAN),
        )
        lines.append(f"{name:16}" + "".join(f"{f'{one:.3g}  {other:.3g}':>20}" for one, other, _ in cells))
        beyond += [(name, one, other) for one, other, limit in cells if abs(other / one - 1) > limit]
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert not beyond
