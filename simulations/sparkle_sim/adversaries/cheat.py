"""``cheat``: every result is wrong, and nobody else's.

What stops it: its first revealed result loses against two workers that agree, and it gets no further unit of the job.
"""

from typing import ClassVar

from sparkle_sim.adversaries.base import Adversary, Lies
from sparkle_sim.computing import Behaviour


class Cheat(Adversary):
    """Never computes anything."""

    kind: ClassVar[str] = "cheat"
    rated: ClassVar[bool] = False

    def behaviour(self) -> Behaviour:
        """Wrong results of its own."""
        return Lies(self.salt, self.salt, 1.0)
