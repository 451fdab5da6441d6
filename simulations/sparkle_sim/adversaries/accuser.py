"""``accuser``: says of honest accounts that they forked, and has throw-away accounts fork for everybody to remember.

Every ``ACCUSE_S`` it publishes two entries that its own key signed in an honest account's name, and two of a key that
nobody has heard of, which do prove a fork of that key's account.

What stops it: a proof counts only where it shows that the key was the account's. True proofs about accounts that
nobody has dealings with are kept up to a bound, and cost a message and two signatures each.
"""

from typing import ClassVar

from sparkle_ledger.entries import AccountId, Entry, Hold
from sparkle_ledger.forks import ForkProof
from sparkle_protocol.codec import encode
from sparkle_protocol.effects import Publish
from sparkle_protocol.facts import Signer
from sparkle_protocol.ids import digest
from sparkle_protocol.ledger_messages import forks_topic
from sparkle_sim.adversaries.credit_adversary import CreditAdversary
from sparkle_sim.requests import LEDGER
from sparkle_sim.signing import CheapIdentity

ACCUSE_S = 10.0


class Accuser(CreditAdversary):
    """Accuses others."""

    kind: ClassVar[str] = "accuser"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.accusations = 0

    def begin(self) -> None:
        """Again and again."""
        self.peer.every(ACCUSE_S, self._accuse)

    def _accuse(self) -> None:
        world = self.peer.world
        victim = self.random.below(len(world.peers))
        if victim not in world.adversaries:
            self._publish(self.identity, self.credit.account(victim))
        self.accusations += 1
        thrown_away = CheapIdentity(self.group.seed, self.number, 1_000_000 + self.accusations)
        self._publish(thrown_away, None)

    def _publish(self, signer: Signer, account: AccountId | None) -> None:
        proof = ForkProof.make(*(self._hold(signer, account, name) for name in (b"one", b"other")))
        topic = forks_topic(self.codec.network)
        self.peer.perform(LEDGER, Publish(topic, encode(proof.encode())))

    def _hold(self, signer: Signer, account: AccountId | None, name: bytes) -> Entry:
        job = digest(self.salt, self.accusations.to_bytes(8, "big"), name)
        return self.codec.seal(signer, Hold(job, 1, 0), seq=1, prev=digest(job), time_ms=0, account=account)
