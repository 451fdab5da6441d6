"""What the full simulator costs: how many peers a core keeps up with, what one takes of memory, and what seeds cost.

The program that is measured: ``python -m tests.bench.simulated PEERS SECONDS`` simulates so many peers under the load
below and prints one JSON line for each ten virtual seconds. It runs compiled (``sparkle-sim compile``).

The load: production timers, gossip and tables, and one unit computed by each peer in 30 s, in jobs of ``OF_A_JOB``
peers. Figures are of the time after ``STEADY_S``: until then all peers arrive at once, fill their tables and look for
work, which the rows of the first seconds tell.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sparkle_protocol.effects import Notify, Violation
from sparkle_sim import compiled
from sparkle_sim.engine import Run
from sparkle_sim.peer import Peer
from sparkle_sim.running import few_collections
from sparkle_sim.scenario import JobPlan, Peers, Scenario
from sparkle_sim.seeds import search
from tests.bench.processes import ROOT, Child, environment, scratch
from tests.bench.rows import Row, median_row

UNIT_S, QUORUM = 30.0, 2
OF_A_JOB = 500  # peers that one job has units for
ARRIVE_S = 60  # virtual: all peers arrive within this time
WORK_S, STEADY_S, END_S = 70, 100, 160  # virtual: when jobs begin, when all peers work, when a run ends
STEP_S = 10
LIMIT_S = 1800.0
SEEDS, SEED_PEERS = 200, 20  # seeds as the tests and the soak make them up, of about a minute


def simulated(repeat: int) -> list[Row]:
    """Real-time factors with 1000 and 5000 peers, memory with 10 000, and the seeds that the tests take."""
    built = compiled.build(lambda _: None)
    few = [_measured(built_env(built), 1000, END_S) for _ in range(repeat)]
    many = _measured(built_env(built), 5000, END_S)
    most = _measured(built_env(built), 10_000, STEADY_S)
    loads = [*few, many]
    return [
        median_row("simulated_1000", "x real time", [_factor(one) for one in few], bar=10, stretch=30, at_least=True),
        median_row("simulated_5000", "x real time", [_factor(many)], bar=1.0, stretch=2.0, at_least=True),
        median_row("simulated_events", "per peer and s", [_rate(one, "events") for one in loads]),
        median_row("simulated_messages", "per peer and s", [_rate(one, "messages") for one in loads]),
        median_row("simulated_units", "per peer and 30 s", [_rate(one, "computed") * UNIT_S for one in loads]),
        median_row(
            "simulated_arrival", "CPU ms/peer", [one[STEADY_S // STEP_S - 1]["cpu_s"] / 5.0 for one in [many]]
        ),
        median_row("simulated_memory", "kB/peer", [most[-1]["memory_kb"] / 10_000], bar=30.0, stretch=15.0),
        median_row("simulated_seeds", "CPU s", [_seeds(built_env(built))], bar=60.0),
    ]


Steps = list[dict[str, float]]


def built_env(built: Path) -> dict[str, str]:
    """The variables of a process that runs the build."""
    path = os.pathsep.join([str(built), str(ROOT)])
    return environment(PYTHONPATH=path, SPARKLE_SIM_COMPILED=str(built))


def _measured(env: dict[str, str], peers: int, seconds: int) -> Steps:
    with scratch() as folder, _program(folder, env, str(peers), str(seconds)) as child:
        return [child.read(LIMIT_S) for _ in range(seconds // STEP_S)]


def _seeds(env: dict[str, str]) -> float:
    with scratch() as folder, _program(folder, env, "seeds", str(SEEDS)) as child:
        return float(child.read(LIMIT_S)["cpu_s"])


def _program(folder: Path, env: dict[str, str], *arguments: str) -> Child:
    return Child([sys.executable, "-P", "-m", "tests.bench.simulated", *arguments], folder / "log", env)


def _over(steps: Steps, name: str) -> float:
    """How much there was of it after all peers worked."""
    return steps[-1][name] - steps[STEADY_S // STEP_S - 1][name]


def _factor(steps: Steps) -> float:
    return (END_S - STEADY_S) / _over(steps, "cpu_s")


def _rate(steps: Steps, name: str) -> float:
    return _over(steps, name) / (END_S - STEADY_S) / steps[0]["peers"]


# --- the program that is measured ---------------------------------------------------------------------------


def load_of(peers: int, seconds: int) -> Scenario:
    """All peers are at work from ``STEADY_S`` to the end."""
    jobs = max(1, peers // OF_A_JOB)
    units = int(peers / jobs * seconds / UNIT_S)  # more than will be done
    plans = [
        JobPlan(at_s=WORK_S, submitter=number, units=units, unit_s=UNIT_S, quorum=QUORUM) for number in range(jobs)
    ]
    return Scenario("load", peers=Peers(peers, ARRIVE_S), jobs=plans, seconds=seconds, until_done=False)


class Finals:
    """Counts units that their submitters hear to be done."""

    def __init__(self) -> None:
        self.count = 0

    def heard(self, peer: Peer, effect: Notify) -> None:
        """A peer told its owner something."""
        if effect.event == "unit_final" and effect.fields.get("own"):
            self.count += 1

    def violated(self, peer: Peer, effect: Violation) -> None:
        """Of no interest here."""


def steps_of(peers: int, seconds: int) -> Iterator[dict[str, float]]:
    """What was spent and what happened until each ten virtual seconds were over."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    finals = Finals()
    run = Run(load_of(peers, seconds), 1, watchers=[finals])
    world = run.world
    spent = 0.0
    with few_collections():
        for end in range(STEP_S, seconds + 1, STEP_S):
            began = time.process_time()
            run.advance(end)
            spent += time.process_time() - began
            yield {
                "peers": peers,
                "cpu_s": spent,
                "events": world.kernel.events,
                "messages": world.network.messages,
                "computed": finals.count * QUORUM,
                "memory_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb,
            }


def main() -> None:
    """One run, or the seeds."""
    what, number = sys.argv[1], int(sys.argv[2])
    if what != "seeds":
        for step in steps_of(int(what), number):
            print(json.dumps(step), flush=True)
        return
    began = time.process_time()
    failed: list[int] = []
    search(range(number), lambda seed, _scenario, _finding: failed.append(seed), peers=SEED_PEERS)
    print(json.dumps({"cpu_s": time.process_time() - began, "failed": len(failed)}), flush=True)


if __name__ == "__main__":
    main()
