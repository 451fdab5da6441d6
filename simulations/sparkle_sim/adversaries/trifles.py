"""``trifles``: right about units of little work, and wrong at the rate about those of four times as much or more.

What stops it: trust is counted in work. Who has shown little of it is compared nearly always where units are long.
"""

from typing import ClassVar

from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId
from sparkle_sim.adversaries.base import Adversary, Lies
from sparkle_sim.computing import Behaviour, result_size, true_result

TIMES = 4.0


class Trifles(Adversary):
    """Honest where it costs nothing."""

    kind: ClassVar[str] = "trifles"

    def behaviour(self) -> Behaviour:
        """By the size of units."""
        return _BySize(Lies(self.salt, self.salt, self.group.rate))


class _BySize:
    def __init__(self, lies: Lies) -> None:
        self._lies = lies
        self._least: float | None = None  # work of a unit, of all that it was given

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes | None:
        """A lie where much is to be gained by it."""
        flops = spec.resources.flops
        self._least = flops if self._least is None else min(self._least, flops)
        if flops >= TIMES * self._least and flops:
            return self._lies.result(spec, job, unit)
        return true_result(job, unit, result_size(spec))
