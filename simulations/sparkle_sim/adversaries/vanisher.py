"""``vanisher``: leaves for good, with all it has, as soon as its jobs are published.

What stops it: its hold is with its witnesses before the job is handed out, and the job goes on without it; keepers
show who worked. It gains results that it never fetches, and those who computed them are paid.
"""

from typing import ClassVar

from sparkle_protocol import effects as fx
from sparkle_protocol.ids import JobId
from sparkle_sim.adversaries.credit_adversary import CreditAdversary
from sparkle_sim.kernel import SECOND
from sparkle_sim.requests import SUBMITTER

STAYS_S = 5.0


class Vanisher(CreditAdversary):
    """A submitter that is gone."""

    kind: ClassVar[str] = "vanisher"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._published: set[JobId] = set()

    def effects(self, core: int, effects: fx.Effects) -> fx.Effects:
        """See when the last of its jobs is published."""
        for one in effects if core == SUBMITTER else ():
            if isinstance(one, fx.Notify) and one.event == "job_published":
                self._published.add(JobId(bytes.fromhex(str(one.fields["job"]))))
                planned = sum(plan.repeat for plan in self.group.scenario.jobs if plan.submitter == self.number)
                if len(self._published) >= planned:
                    self.peer.world.kernel.after(int(STAYS_S * SECOND), self.peer.lose_disk)
        return effects
