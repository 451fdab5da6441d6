"""``sponge``: computes rightly, and ten times as slowly as its machine could.

It takes units and audits like anybody, so that others wait for it.

What stops it: a newcomer holds two units, and nobody waits for it; what a known worker is slow with others are given
as well, once there is nothing else to do.
"""

from dataclasses import replace
from typing import ClassVar

from sparkle_sim.adversaries.base import Adversary
from sparkle_sim.peer import Machine

SLOWER = 10.0


class Sponge(Adversary):
    """Soaks up time."""

    kind: ClassVar[str] = "sponge"
    rated: ClassVar[bool] = False

    def machine(self, machine: Machine) -> Machine:
        """A slow one."""
        return replace(machine, flops_per_s=machine.flops_per_s / SLOWER)
