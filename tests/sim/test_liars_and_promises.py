"""Checkers judge honest peers; what an adversary says or has is no finding."""

from pathlib import Path

from sparkle_sim import checkers
from sparkle_sim.engine import Run
from sparkle_sim.reading import Override, read_scenario

SYBIL = Path(__file__).parents[2] / "simulations" / "scenarios" / "sybil.toml"


def test_promises_are_those_of_honest_peers() -> None:
    """The cores of keepers that lie store what their owner had signed for them; with this seed nothing backs it."""
    few = {"peers.count": 20, "jobs.0.units": 24, "jobs.0.unit_s": 6.0}
    lies = {"adversaries.0.kind": "equivocate", "adversaries.0.share": 0.4}
    often = {"checks.names": ["promises"], "checks.scan_every_s": 5.0}
    overrides = [Override(key, value) for key, value in (few | lies | often).items()]
    run = Run(read_scenario(SYBIL, overrides), 2)
    watch = checkers.watch(run.world, run.scenario)
    run.advance(run.scenario.seconds)
    assert watch.finish() == []
    run.world.adversaries = {}
    for checker in watch.checkers:
        checker.scan()
    assert watch.findings, "and nobody but adversaries is spared"
