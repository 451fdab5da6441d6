"""What adversaries of credit have in common: an account of their own, whose entries they sign as they like."""

from typing import ClassVar

from sparkle_ledger.agent.core import LedgerAgent
from sparkle_ledger.entries import AccountId, Entry, EntryCodec, Genesis, Payload
from sparkle_protocol.errors import LocalProtocolError
from sparkle_protocol.ledger_messages import LedgerPush
from sparkle_sim.adversaries.base import Adversary
from sparkle_sim.credit import Credit


class CreditAdversary(Adversary):
    """Does something only where there is credit."""

    rated: ClassVar[bool] = False
    of_credit: ClassVar[bool] = True

    @property
    def credit(self) -> Credit:
        """What the world has."""
        if self.peer.world.credit is None:
            raise LocalProtocolError(f"'{self.kind}' needs a world with credit")
        return self.peer.world.credit

    @property
    def codec(self) -> EntryCodec:
        """Signs and opens entries."""
        return self.credit.entries

    @property
    def account(self) -> AccountId:
        """Of its own key."""
        return self.credit.account(self.number)

    @property
    def agent(self) -> LedgerAgent:
        """Of its present life."""
        return self.peer.ledger

    @property
    def genesis(self) -> Entry:
        """The first entry of its account, which is always the same."""
        return self.codec.seal(self.identity, Genesis(), seq=0, time_ms=0)

    def entry(self, payload: Payload, before: Entry, account: AccountId | None = None) -> Entry:
        """Signed by its key in the place after another one."""
        return self.codec.seal(self.identity, payload, seq=before.seq + 1, prev=before.id, time_ms=0, account=account)

    def push(self, other: int, entries: list[Entry]) -> None:
        """Have a peer that is linked keep entries, and never mind the answer."""
        self.peer.say(other, LedgerPush([entry.raw for entry in entries]))

    def neighbours(self) -> list[int]:
        """Linked peers."""
        return sorted(self.peer.world.network.links[self.number])
