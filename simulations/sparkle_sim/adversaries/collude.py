"""``collude``: all peers of the entry agree on one wrong result for each unit.

Each joins in at a share ``rate`` of the units, by itself. So an entry of all peers with a rate f is the model of the
voting law: every vote is wrong with probability f, whoever gives it.

What stops it: nothing, where enough of them get the same unit. ``voting.expected_wrong`` says how often that is.
"""

from typing import ClassVar

from sparkle_sim.adversaries.base import Adversary, Lies
from sparkle_sim.computing import Behaviour


class Collude(Adversary):
    """One of a conspiracy."""

    kind: ClassVar[str] = "collude"

    def behaviour(self) -> Behaviour:
        """The wrong results of its group."""
        return Lies(self.salt, self.group.salt, self.group.rate)
