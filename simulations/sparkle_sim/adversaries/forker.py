"""``forker``: signs two entries for one place of its account, and shows each to some.

As a submitter it signs a hold for each of its jobs in the same place, so that all are paid from the same credit, and
shows every peer one of them. Without jobs it signs two holds for jobs that there are not, ``FORK_S`` after its start,
and shows both to one peer.

What stops it: whoever sees both has the proof, which is passed on to everybody within seconds, and the account can
spend no more. It gains the work that was accepted until then beyond its limit; those who did it are paid.
"""

from typing import ClassVar

from sparkle_ledger.agent.events import Fund
from sparkle_ledger.entries import Entry, Hold
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.witnesses import head_of
from sparkle_protocol import effects as fx
from sparkle_protocol.ids import JobId, PeerId, digest
from sparkle_protocol.ledger_messages import EntriesReply, EntriesRequest, HeadsReply, HeadsRequest, LedgerPush
from sparkle_sim.adversaries.credit_adversary import CreditAdversary
from sparkle_sim.kernel import SECOND
from sparkle_sim.requests import LEDGER

FORK_S = 30.0
TELL_S = 10.0


class Forker(CreditAdversary):
    """Spends the same credit several times."""

    kind: ClassVar[str] = "forker"
    rated: ClassVar[bool] = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.holds: list[Entry] = []

    def begin(self) -> None:
        """Show itself to those that it is linked with, now and then."""
        self.peer.every(TELL_S, self._tell)
        if all(plan.submitter != self.number for plan in self.group.scenario.jobs):
            life = self.peer.life
            self.peer.world.kernel.after(
                int(FORK_S * SECOND), lambda: self._fork() if self.peer.life is life else None
            )

    def event(self, core: int, event: object) -> object | None:
        """Its agent hears of others' work only; of its own account the adversary tells what it likes."""
        if core != LEDGER:
            return event
        if isinstance(event, Fund):
            record = JobRecord(event.spec, self.peer.world.codec.network)
            self._hold(record.job, record.cover_micro)
            self.peer.perform(LEDGER, fx.JobFunded(record.job))
            return None
        if isinstance(event, fx.Requested) and isinstance(event.message, EntriesRequest | HeadsRequest):
            return self._asked(event)
        return event

    def effects(self, core: int, effects: fx.Effects) -> fx.Effects:
        """What its agent would tell of its account is not told."""
        if core != LEDGER:
            return effects
        return tuple(one for one in effects if not (isinstance(one, fx.Send) and isinstance(one.message, LedgerPush)))

    # --- its account ------------------------------------------------------------------------------------------

    def _hold(self, job: JobId, amount_micro: int) -> None:
        self.holds.append(self.entry(Hold(job, amount_micro, 0), self.genesis))

    def shown_to(self, peer: PeerId) -> list[Entry]:
        """The account as a peer is to see it."""
        if not self.holds:
            return []
        place = self.peer.world.index[peer] % len(self.holds)
        return [self.genesis, self.holds[place]]

    def _asked(self, event: fx.Requested) -> object | None:
        own, feed = self.account, self.shown_to(event.peer)
        if isinstance(event.message, HeadsRequest) and bytes(event.message.accounts[0]) == own:
            self.peer.answer(event.token, HeadsReply([head_of(feed[-1]) if feed else None]))
            return None
        if isinstance(event.message, EntriesRequest) and bytes(event.message.account) == own:
            wanted = [one.raw for one in feed if one.seq >= event.message.first]
            self.peer.answer(event.token, EntriesReply(wanted))
            return None
        return event

    def _tell(self) -> None:
        for other in list(self.peer.world.network.links[self.number]):
            feed = self.shown_to(self.peer.world.peers[other].id)
            if feed:
                self.push(other, feed)

    def _fork(self) -> None:
        for name in (b"one", b"other"):
            self._hold(JobId(digest(self.salt, name)), 1)
        other = min(self.peer.world.network.links[self.number], default=None)
        if other is not None:
            self.push(other, [self.genesis, *self.holds])
