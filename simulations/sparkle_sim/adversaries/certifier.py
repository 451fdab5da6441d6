"""``certifier``: as one of a job's keepers it states that all of its like computed all of its units.

What stops it: three quarters of a job's keepers have to say so, of whom nobody can choose where they stand in the
network. Where so many are of one mind, they are paid for what they did not do, out of the escrow of that job; the
most that they can take is what its submitter set aside. Those who did the work may get less of it.
"""

from typing import ClassVar

from sparkle_ledger.agent.events import Accepted
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol import facts as f
from sparkle_protocol.facts import SEAL_UNITS
from sparkle_protocol.ids import JobId, digest
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_sim.adversaries.credit_adversary import CreditAdversary
from sparkle_sim.requests import LEDGER

LOOK_S = 5.0


class Certifier(CreditAdversary):
    """Of a set of keepers that lie for each other."""

    kind: ClassVar[str] = "certifier"
    keeps: ClassVar[bool] = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._done: set[JobId] = set()

    def begin(self) -> None:
        """See what it keeps, now and then."""
        self.peer.every(LOOK_S, self._look)

    def _look(self) -> None:
        for job, kept in self.peer.submitter.kept.items():
            if job not in self._done and kept.state.spec.price_micro and kept.state.view is not None:
                self._done.add(job)
                self._certify(kept)

    def _certify(self, kept: KeptJob) -> None:
        """Each of them signs that each of them did everything, and claims its part."""
        state, codec = kept.state, self.peer.world.codec
        view = state.view
        ring = [one for one in self.group.identities if view is not None and one.peer_id in view.keepers]
        record = JobRecord.of(state)
        keys, units = [one.public_key for one in ring], range(state.spec.units)
        for first in range(0, state.spec.units, 256):
            some = units[first : first + 256]
            items = [f.VerdictItem(unit, state.epoch(unit), digest(b"no result"), keys, []) for unit in some]
            verdict = codec.seal(ring[0], f.Verdicts(state.id, items))
            named = f.Endorsements(state.id, [bytes(verdict.id)], first // SEAL_UNITS)
            record.add_all([verdict, *(codec.seal(one, named) for one in ring[1:])])
        self.agent._desk.take_record(record, record.ranges())
        claimed = tuple((unit, state.epoch(unit)) for unit in units)
        keepers = tuple(view.keepers) if view is not None else ()
        self.peer.tell(LEDGER, Accepted(state.spec_fact, claimed, keepers))
