"""Keys of one owner around a job: what keeps them out, and no checker takes their lies for faults of ours."""

from pathlib import Path

from sparkle_sim import checkers
from sparkle_sim.engine import Run
from sparkle_sim.reading import Override, read_scenario

SYBIL = Path(__file__).parents[2] / "simulations" / "scenarios" / "sybil.toml"


def test_the_sybils_of_the_scenario_change_nothing() -> None:
    few = {"peers.count": 20, "jobs.0.units": 16, "jobs.0.unit_s": 4.0, "checks.scan_every_s": 5.0}
    run = Run(read_scenario(SYBIL, [Override(key, value) for key, value in few.items()]), 2)
    watch = checkers.watch(run.world, run.scenario)
    run.advance(run.scenario.seconds)
    assert [str(one) for one in watch.finish()] == []
    assert list(run.outcomes.values()) == ["job_done"]
    job = next(iter(run.plans))
    view = run.world.peers[0].submitter.jobs[job].state.view
    assert view is not None
    liars = [peer for peer in view.keepers if run.world.index[peer] in run.world.adversaries]
    assert len(liars) <= len(view.keepers) // 4, "they surround the job, and get a quarter of the places at most"
