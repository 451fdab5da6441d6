"""Whole runs: jobs end, crashes are survived, and one seed is one run."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from sparkle_protocol.effects import Notify, Violation
from sparkle_protocol.ids import JobId
from sparkle_sim.computing import true_result
from sparkle_sim.engine import Run
from sparkle_sim.guard import no_outside
from sparkle_sim.kernel import SECOND
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import JobPlan, Machines, Peers, Region, Scenario, Wires

CALM = Scenario("calm", peers=Peers(20), jobs=[JobPlan(units=60, unit_s=2.0, repeat=2, every_s=5.0)])
ROUGH = Scenario(
    "rough",
    peers=Peers(25, machines=Machines(spread=0.8, slow_share=0.2)),
    wires=Wires(
        regions=[Region("here", 0.6), Region("there", 0.4, inside_ms=40.0)],
        loss=0.02, twice=0.02, nat_share=0.4, symmetric_share=0.2,
    ),
    jobs=[JobPlan(units=40, unit_s=5.0)],
)  # fmt: skip


NEAR = Wires(regions=[Region("here", 1.0, inside_ms=1.0)], upload_mbps=1000.0, download_mbps=1000.0)


def finished(scenario: Scenario, seed: int) -> Run:
    run = Run(scenario, seed)
    with no_outside():
        run.advance(scenario.seconds)
    return run


def results(run: Run, job: JobId) -> list[bytes]:
    """What the submitter accepted, unit by unit."""
    peer = run.world.peers[run.plans[job].submitter]
    state = peer.submitter.jobs[job].state
    finals = [state.final(unit) for unit in range(state.spec.units)]
    return peer.disk.results_there(job, [final for final in finals if final is not None])


def test_jobs_end_with_the_right_results() -> None:
    run = finished(CALM, 1)
    assert list(run.outcomes.values()) == ["job_done", "job_done"]
    for job, plan in run.plans.items():
        assert results(run, job) == [true_result(job, unit) for unit in range(plan.units)]
    assert run.now_s < 120


def test_a_rough_network_takes_longer_and_comes_to_the_same() -> None:
    run = finished(ROUGH, 2)
    assert list(run.outcomes.values()) == ["job_done"]
    (job,) = run.plans
    assert results(run, job) == [true_result(job, unit) for unit in range(40)]


def test_a_job_goes_on_through_crashes_of_its_submitter_and_of_keepers() -> None:
    run = Run(CALM, 3)
    world = run.world
    run.advance(30.0)
    for number in (0, 4, 5, 6):
        world.peers[number].crash(silently=number == 5)
    run.advance(45.0)
    for number in (0, 4, 5, 6):
        world.peers[number].start(world.addresses[9])
    run.advance(600.0)
    assert list(run.outcomes.values()) == ["job_done", "job_done"]
    assert [world.peers[number].lives for number in (0, 4, 7)] == [2, 2, 1]
    for job, plan in run.plans.items():
        assert results(run, job) == [true_result(job, unit) for unit in range(plan.units)]


def test_one_seed_is_one_run_in_every_process() -> None:
    program = (
        "import json; from tests.sim.test_engine import *; run = finished(ROUGH, 5);"
        "print(json.dumps([run.world.trace.hash, run.world.trace.count, run.summary()], default=str))"
    )
    found = []
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    run = finished(ROUGH, 5)
    assert (
        found[0] == found[1] == json.loads(json.dumps([run.world.trace.hash, run.world.trace.count, run.summary()]))
    )
    assert finished(ROUGH, 6).world.trace.hash != run.world.trace.hash


def test_time_that_passes_in_steps_is_the_same_time() -> None:
    whole, steps = finished(CALM, 4), Run(CALM, 4)
    while not steps.advance(steps.now_s + 7.0):
        pass
    assert steps.world.trace.hash == whole.world.trace.hash
    assert steps.world.kernel.now == whole.world.kernel.now < 600 * SECOND


class Finals:
    """When units became final at their submitter."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def heard(self, peer: Peer, effect: Notify) -> None:
        if effect.event == "unit_final" and effect.fields["own"]:
            self.at_s.append(peer.world.kernel.now / SECOND)

    def violated(self, peer: Peer, effect: Violation) -> None:
        raise AssertionError(effect.reason)


@pytest.mark.parametrize("seed", range(12))
def test_results_that_do_not_fit_into_one_message_hold_nothing_up(seed: int) -> None:
    """Sixteen of 60 kB come at once, ten fit: keepers fetched the others every few seconds, from whom it may be."""
    plan = JobPlan(at_s=5.0, units=64, unit_s=0.02, result_bytes=60_000)
    scenario = Scenario("large results", peers=Peers(5, arrive_s=1.0), wires=NEAR, jobs=[plan])
    finals = Finals()
    run = Run(scenario, seed, watchers=[finals])
    run.advance(scenario.seconds)
    assert list(run.outcomes.values()) == ["job_done"]
    assert max(later - before for before, later in pairwise(finals.at_s)) < 1.0


def test_a_keeper_hears_of_what_the_worker_of_its_own_node_states() -> None:
    """It is not told by that worker: a verdict that calls it a liar could not be joined there for want of proof."""
    run = Run(Scenario("five", peers=Peers(5, arrive_s=1.0), wires=NEAR, jobs=[JobPlan(units=40, unit_s=0.3)]), 1)
    own = Counter[int]()
    while not run.advance(run.now_s + 0.5):
        for peer in run.world.peers:
            for job in peer.submitter.kept.values() if peer.life is not None else ():
                units = range(job.state.spec.units)
                own[peer.number] = max(own[peer.number], sum(peer.id in job.state.votes(unit) for unit in units))
    assert list(run.outcomes.values()) == ["job_done"]
    keepers = [peer.number for peer in run.world.peers if peer.submitter.kept]
    assert len(keepers) >= 3
    assert all(own[number] > 0 for number in keepers)
