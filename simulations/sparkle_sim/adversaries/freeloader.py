"""``freeloader``: one of many keys of one owner, who spends what each may spend at the start, and never works.

What stops it: the starter's credit, which is a trifle, once for each key; a job that costs more is refused.
"""

from typing import TYPE_CHECKING, ClassVar

from sparkle_sim.adversaries.credit_adversary import CreditAdversary
from sparkle_sim.peer import Machine, Peer

if TYPE_CHECKING:
    from sparkle_sim.world import World


class Freeloader(CreditAdversary):
    """Never works."""

    kind: ClassVar[str] = "freeloader"

    def join(self, world: "World", number: int, machine: Machine, *, works: bool = True) -> Peer:
        """Its node has nothing to compute with."""
        return super().join(world, number, machine, works=False)
