"""``sometimes``: a wrong result of its own for a share ``rate`` of the units.

What stops it: the same as a cheat, at the first wrong result that somebody else's is compared with.
"""

from typing import ClassVar

from sparkle_sim.adversaries.base import Adversary, Lies
from sparkle_sim.computing import Behaviour


class Sometimes(Adversary):
    """An occasional liar, or a machine with bad memory."""

    kind: ClassVar[str] = "sometimes"

    def behaviour(self) -> Behaviour:
        """Right at most units."""
        return Lies(self.salt, self.salt, self.group.rate)
