"""What is counted of credit in a run: what was paid, how long after it was accepted, and how fast forks are known.

A result counts as accepted when its worker hears so, and as paid when the entry that claims it is made durable.
"""

from collections.abc import Iterable

from sparkle_ledger.agent.events import Accepted
from sparkle_ledger.entries import Entry, Work
from sparkle_protocol.effects import KeepLedger, Notify, Violation
from sparkle_protocol.ids import JobId
from sparkle_sim.kernel import SECOND
from sparkle_sim.metrics import Latencies
from sparkle_sim.peer import Peer
from sparkle_sim.world import World

Execution = tuple[int, JobId, int, int]  # peer, unit, epoch


class CreditMetrics:
    """A watcher of a world that has credit.

    Args:
        world: what is watched.
        submitters: whose accounts are looked at for what they have set aside.
    """

    def __init__(self, world: World, submitters: Iterable[int]) -> None:
        self.paid_within = Latencies()
        self.paid_micro = 0
        self.forks: dict[str, dict[int, int]] = {}  # account -> peer -> when it knew, in nanoseconds
        self._world = world
        self._submitters = sorted({*submitters})
        self._told: dict[Execution, int] = {}
        self._kept: set[bytes] = set()
        world.watchers.append(self)
        if world.credit is not None:
            world.credit.on_tell.append(self._tell)
            world.credit.on_keep.append(self._keep)

    def heard(self, peer: Peer, effect: Notify) -> None:
        """Somebody knows that an account forked."""
        if effect.event == "account_forked" and peer.number not in self._world.adversaries:
            known = self.forks.setdefault(str(effect.fields["account"]), {})
            known.setdefault(peer.number, self._world.kernel.now)

    def violated(self, peer: Peer, effect: Violation) -> None:
        """It is counted elsewhere."""

    def _tell(self, peer: Peer, event: object) -> None:
        if isinstance(event, Accepted):
            for unit, epoch in event.units:
                self._told.setdefault((peer.number, event.spec.job, unit, epoch), self._world.kernel.now)

    def _keep(self, peer: Peer, effect: KeepLedger) -> None:
        credit = self._world.credit
        own = credit.account(peer.number) if credit is not None else b""
        for raw in effect.entries:
            entry = credit.entries.open(raw) if credit is not None else None
            if entry is not None and entry.account == own and isinstance(entry.payload, Work):
                self._paid(peer, entry, entry.payload)

    def _paid(self, peer: Peer, entry: Entry, work: Work) -> None:
        if entry.id in self._kept or not peer.ledger.book.moved(entry.id):
            return
        self._kept.add(entry.id)
        self.paid_micro += work.amount_micro
        for one in work.units:
            since = self._told.pop((peer.number, JobId(work.job), one.unit, one.epoch), self._world.kernel.now)
            self.paid_within.add((self._world.kernel.now - since) / SECOND)

    # --- telling ------------------------------------------------------------------------------------------------

    def held_micro(self) -> int:
        """What submitters that are up have in escrows, by their own books."""
        up = (self._world.peers[number] for number in self._submitters)
        return sum(peer.ledger.account.held_micro for peer in up if peer.has_credit)

    def sample(self) -> tuple[int, int, int, int]:
        """How things stand now, in the order of ``metrics.CREDIT_COLUMNS``."""
        return self.paid_within.count, self.paid_micro, self.held_micro(), len(self.forks)

    def summary(self) -> dict[str, object]:
        """The whole run in figures."""
        return {
            "paid_units": self.paid_within.count,
            "paid_micro": self.paid_micro,
            "held_micro": self.held_micro(),
            "paid_within_s": {
                name: self.paid_within.quantile(share) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
            },
            "forks": [self.spread(account) for account in self.forks],
        }

    def spread(self, account: str) -> dict[str, object]:
        """How long after the first honest peer so many of those that are up knew that an account forked."""
        known = sorted(self.forks[account].values())
        up = sum(1 for peer in self._world.peers if peer.has_credit and peer.number not in self._world.adversaries)
        found: dict[str, object] = {"account": account[:12], "known": len(known), "peers": up}
        for name, share in (("p50_s", 0.5), ("p90_s", 0.9), ("p99_s", 0.99), ("all_s", 1.0)):
            place = max(1, -(-up * int(share * 100) // 100)) - 1
            found[name] = (known[place] - known[0]) / SECOND if place < len(known) else None
        return found
