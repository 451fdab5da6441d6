"""``hoard``: says that it has 64 slots, takes what it gets, and computes nothing of a share ``rate`` of it.

Its heartbeats go on, so that its leases are renewed.

What stops it: a worker holds eight undecided units of a job at first; a lease that lasts twice its time is *slow*,
and another worker gets the unit; once nothing else is left, units that are long out are copied sooner than that.
"""

from dataclasses import replace
from typing import ClassVar

from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import JobId
from sparkle_sim.adversaries.base import Adversary
from sparkle_sim.computing import Behaviour, result_size, true_result
from sparkle_sim.peer import Machine

SLOTS = 64


class Hoard(Adversary):
    """Sits on units."""

    kind: ClassVar[str] = "hoard"

    def machine(self, machine: Machine) -> Machine:
        """A large one, as it says."""
        return replace(machine, slots=SLOTS)

    def behaviour(self) -> Behaviour:
        """Units that never end."""
        return _Never(self)


class _Never:
    def __init__(self, hoarder: Hoard) -> None:
        self._hoarder = hoarder

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes | None:
        """None where it hoards."""
        if self._hoarder.does(job, unit.to_bytes(4, "big")):
            return None
        return true_result(job, unit, result_size(spec))
