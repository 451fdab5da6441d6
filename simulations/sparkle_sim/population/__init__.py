"""The population engine: a vectorised model of 10⁴ to 10⁷ peers, calibrated against the full engine.

It models who is there, how fast they are, what the queue gives them, how votes decide, and how news spreads. What it
cannot say stands in ``CANNOT_SAY`` and in each summary.
"""

from sparkle_sim.population.engine import CANNOT_SAY, PopulationRun, run_population

__all__ = ["CANNOT_SAY", "PopulationRun", "run_population"]
