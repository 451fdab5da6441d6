"""Two hundred runs that seeds make up pass every checker, and a run is the same wherever it is made."""

import os
import subprocess
import sys

import pytest

from sparkle_sim.checkers import Finding
from sparkle_sim.scenario import Scenario
from sparkle_sim.seeds import FAULTY_S, PEERS, search

SEEDS = 200
STEPS = 4  # so that a failure is told soon, and pytest's limit is for a part
TRACED = """
from sparkle_sim.seeds import outcome, scenario_of
from sparkle_sim.trace import Trace
trace = Trace()
outcome(scenario_of(5), 5, trace=trace)
print(trace.count, trace.hash)
"""


@pytest.mark.parametrize("step", range(STEPS))
def test_no_seed_finds_anything(step: int) -> None:
    failed: list[str] = []

    def note(seed: int, scenario: Scenario, finding: Finding) -> None:
        failed.append(f"seed {seed}: {finding}")

    count = search(range(step, SEEDS, STEPS), note)
    assert (count, PEERS, FAULTY_S) == (SEEDS // STEPS, 20, 60.0)
    assert not failed, "\n".join(failed)


def test_a_run_is_the_same_in_another_process_with_another_hash_seed() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", TRACED],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(said) == 1
    assert int(said.pop().split()[0]) > 1000
