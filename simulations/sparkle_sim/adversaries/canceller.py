"""``canceller``: takes back what it set aside for a job, and sets it aside for the next one, while the first goes on.

As soon as a job is paid for in advance it signs that the job is cancelled, shows that to its own ledger alone, and
releases all of the escrow. The job's keepers do not hear of it, and workers go on.

What stops it: nothing. Each hold was borne when it was signed, and those who relied on it are paid; the account goes
down by its limit once for each job, and no two of its entries have one place.
"""

from typing import ClassVar

from sparkle_ledger.agent.events import Over
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol import effects as fx
from sparkle_protocol.facts import Cancel
from sparkle_protocol.ids import JobId
from sparkle_sim.adversaries.credit_adversary import CreditAdversary
from sparkle_sim.requests import LEDGER


class Canceller(CreditAdversary):
    """Spends the same credit several times, and never forks."""

    kind: ClassVar[str] = "canceller"

    def effects(self, core: int, effects: fx.Effects) -> fx.Effects:
        """A job is paid for: that is taken back in a moment."""
        for one in effects if core == LEDGER else ():
            if isinstance(one, fx.JobFunded) and one.refused is None:
                self.peer.later(0.01, LEDGER, self._over(one.job))
        return effects

    def _over(self, job: JobId) -> Over | fx.Tick:
        known = self.agent.book.record(job)
        if known is None:
            return fx.Tick()
        record = JobRecord(known.spec_fact, known.network)
        record.add(self.peer.sign(Cancel(job, "not really")))
        return Over(record)
