"""What a day of a million peers costs the population engine: processor time and peak memory of a process of its own.

The program that is measured: ``python -m tests.bench.population [SEED]`` runs ``million-peers.toml`` and prints one
JSON line.
"""

import json
import resource
import sys
import time

import msgspec

from sparkle_sim.population import run_population
from sparkle_sim.scenario import Scenario
from tests.bench.processes import ROOT, module, scratch
from tests.bench.rows import Row, median_row

SCENARIO = ROOT / "simulations" / "scenarios" / "million-peers.toml"
LIMIT_S = 600.0


def population(repeat: int) -> list[Row]:
    """A million peers for a virtual day: seconds of one core, and memory."""
    found = []
    with scratch() as folder:
        for seed in range(repeat):
            with module("population", folder / "population.log", str(seed)) as child:
                found.append(child.read(LIMIT_S))
    return [
        median_row("population_day", "s", [one["cpu_s"] for one in found], bar=60.0, stretch=30.0),
        median_row("population_memory", "MB", [one["peak_mb"] for one in found], bar=500.0),
        median_row("population_unit", "µs", [one["cpu_s"] / one["results"] * 1e6 for one in found]),
    ]


def main() -> None:
    """One run."""
    scenario = msgspec.toml.decode(SCENARIO.read_bytes(), type=Scenario)
    began = time.process_time()
    run = run_population(scenario, int(sys.argv[1]) if len(sys.argv) > 1 else scenario.seed)
    cpu_s = time.process_time() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    results = run.rows[-1]["results"]
    print(json.dumps({"cpu_s": cpu_s, "peak_mb": peak_mb, "results": results, "summary": run.summary}), flush=True)


if __name__ == "__main__":
    main()
