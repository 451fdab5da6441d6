"""``minter``: one of a ring that pays each other for work that nobody does, certified by keepers of its own.

Every ``MINT_S`` each member signs a hold for a job of its, another one the claim, and all of them, as the job's
keepers, that the work was done. So what each has contributed grows as fast as it likes, and so does its limit.

What stops it: the sum of all is 0 whatever they sign, so that what they spend on others is debt of theirs; one may
go down by ``limit_max`` and the starter's credit at most. To everybody else their credit is worth what flowed to the
ring from those whom it worked for, which is nothing (``sparkle_ledger.flow``).
"""

from collections.abc import Sequence
from typing import ClassVar

from sparkle_ledger.entries import Hold, Settled, Work
from sparkle_ledger.evidence import JobRecord
from sparkle_protocol import facts as f
from sparkle_protocol.facts import Fact, Signer
from sparkle_protocol.ids import HASH_BYTES, digest
from sparkle_protocol.work.placement import FEWEST_DECIDING, threshold
from sparkle_sim.adversaries.credit_adversary import CreditAdversary
from sparkle_sim.kernel import SECOND

MINT_S = 15.0
FIRST_S = 45.0  # accounts are open by then


class Minter(CreditAdversary):
    """Of a ring."""

    kind: ClassVar[str] = "minter"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.minted_micro = 0
        self._rounds = 0

    def begin(self) -> None:
        """The first of them sees to all of it."""
        if self.number == min(self.group.members):
            self.peer.world.kernel.after(int(FIRST_S * SECOND), self._go_on)

    def _go_on(self) -> None:
        if self.peer.life is not None:
            self._mint()
            self.peer.world.kernel.after(int(MINT_S * SECOND), self._go_on)

    @property
    def _ring(self) -> "list[Minter]":
        members = (member for member in self.group.members.values() if isinstance(member, Minter))
        return [member for member in members if member.peer.has_credit and member.agent.state.value == "ready"]

    def _mint(self) -> None:
        """Each pays the next, as much as it may."""
        ring, self._rounds = self._ring, self._rounds + 1
        for place, payer in enumerate(ring):
            worker = ring[(place + self._rounds) % len(ring)]
            amount = payer.agent.account.spendable_micro if payer.agent.account.entries else 0
            amount = amount or self.credit.economy.starter_micro
            if worker is not payer and len(ring) >= FEWEST_DECIDING:
                payer.pay(worker, amount, ring)

    def pay(self, worker: "Minter", amount_micro: int, ring: "list[Minter]") -> None:
        """A job of one unit, a hold, a certificate and a claim."""
        agent, codec = self.agent, self.peer.world.codec
        nonce = digest(self.salt, self._rounds.to_bytes(8, "big"), worker.identity.public_key)[:16]
        self._rounds += 1
        policy = f.Policy(quorum=1, max_replicas=1)
        spec = codec.seal(
            self.identity,
            f.JobSpec(
                "minted", 1, {}, 1, "exact", policy, f.Resources(), f.Deadlines(), bytes(HASH_BYTES), nonce, 0,
                price_micro=amount_micro,
            ),
        )  # fmt: skip
        record = JobRecord(spec, codec.network)
        others = [one.identity for one in ring if one is not self]
        record.add_all(certificate(codec, spec, worker.identity, [self.identity, *others]))
        hold = agent._own.sign(Hold(spec.job, amount_micro, 0))
        if hold is None or not agent.book.moved(hold.id):
            return
        for one in {self.number: self, worker.number: worker}.values():
            one.agent._desk.take_record(record, [0])
            one.agent._shelf.concern(self.account)
            one.agent._desk.take_in([*agent.book.entries(self.account)])
        work = Work(spec.job, self.account, hold.id, worker.identity.public_key, amount_micro, [Settled(0, 0)])
        claim = worker.agent._own.sign(work)
        if claim is not None and worker.agent.book.moved(claim.id):
            worker.minted_micro += amount_micro


def certificate(codec: f.FactCodec, spec: Fact, worker: Signer, keepers: Sequence[Signer]) -> list[Fact]:
    """Facts by which keepers, the submitter being the first of them, accept a worker's result of the only unit."""
    keys = [one.public_key for one in keepers][:16]
    view = codec.seal(keepers[0], f.KeeperSet(spec.job, 0, keys, threshold(len(keys))))
    item = f.VerdictItem(0, 0, digest(b"minted"), [worker.public_key], [])
    verdict = codec.seal(keepers[0], f.Verdicts(spec.job, [item]))
    words = [codec.seal(one, f.Endorsements(spec.job, [bytes(verdict.id)], 0)) for one in keepers[1:]]
    return [view, verdict, *words]
