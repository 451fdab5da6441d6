"""``gang``: sleepers that lie together: about the same units, at the rate, with the same wrong results.

Whoever of them is to audit another one finds it right.

What stops it: who audits, and who settles what differs, is drawn by lot among all who are known, in proportion to
what they were found right about. So they audit each other as often as their share of it says, and no more.
"""

from typing import ClassVar

from sparkle_sim.adversaries.base import Lies
from sparkle_sim.adversaries.sleeper import Sleeper


class Gang(Sleeper):
    """One of those that vouch for each other."""

    kind: ClassVar[str] = "gang"

    def lies(self) -> Lies:
        """Those of all."""
        return Lies(self.group.salt, self.group.salt, self.group.rate)
