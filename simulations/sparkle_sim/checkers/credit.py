"""Credit: nothing is made or lost, whoever worked is paid once, copies agree, and no honest account is punished.

An account is honest if its peer is. What an adversary's own copy says proves nothing, but honest copies of its
account are looked at like any other.
"""

from collections import Counter
from collections.abc import Iterator
from math import inf

from sparkle_ledger.agent.claims import LOT_NS, LOT_PART, MAX_CLAIMS, MAX_LOT_NS, MAX_RETRY_NS, MAX_SOURCES
from sparkle_ledger.agent.core import LedgerAgent
from sparkle_ledger.agent.desk import MAX_UNKEPT_BYTES, SECOND_NS
from sparkle_ledger.agent.forks import MAX_KNOWN
from sparkle_ledger.agent.own import MAX_WAITING, State
from sparkle_ledger.agent.partners import MAX_KNOWN_PEERS, MAX_PAYERS, RETRY_NS
from sparkle_ledger.agent.proving import MAX_CLAIMS as MAX_UNPROVEN
from sparkle_ledger.agent.stored import MAX_WAITING as MAX_READING
from sparkle_ledger.book import Book
from sparkle_ledger.entries import AccountId
from sparkle_ledger.witnesses import MAX_WITNESSES
from sparkle_protocol.effects import KeepLedger, Notify
from sparkle_protocol.ids import JobId, key_from_peer_id
from sparkle_protocol.ids import peer_id_from_key as _peer
from sparkle_sim.checkers.base import KEEPERS, Checker, job_of, named
from sparkle_sim.checkers.evidence import Evidence, JobEvidence
from sparkle_sim.faults import quiet_from_s
from sparkle_sim.peer import Peer
from sparkle_sim.requests import MAX_SENDS, REQUEST_TIMEOUT_NS
from sparkle_sim.scenario import Scenario
from sparkle_sim.world import World

# After a failure the agent tries again within its longest pause; then each of its sources may keep it waiting for a
# request's time and a second, once for the proof and once for what pays. A lot of a job that goes on for long is
# signed later, by a part of that time.
ROUND_NS = MAX_SOURCES * (REQUEST_TIMEOUT_NS + SECOND_NS)
PAID_S = (MAX_RETRY_NS + 2 * ROUND_NS + 2 * LOT_NS) / SECOND_NS
# A partner that answered nothing is asked again within the longest pause; what it lacks fits into a few pages.
TOLD_S = (MAX_RETRY_NS + REQUEST_TIMEOUT_NS + RETRY_NS) / SECOND_NS
EVERY_CHANGE = 64  # accounts of a book whose sum is looked at after each change; of larger ones at each scan

Owed = tuple[JobId, int, int, bytes]  # unit, epoch, worker's key


class CreditChecker(Checker):
    """Of credit; it is idle in a world without."""

    @classmethod
    def applies(cls, scenario: Scenario) -> bool:
        """Where there is credit."""
        return scenario.credit.enabled

    def books(self) -> Iterator[tuple[Peer, LedgerAgent]]:
        """The copies of honest nodes that are up."""
        for peer in self.world.peers:
            if peer.has_credit and self.is_honest(peer):
                yield peer, peer.ledger

    def together(self) -> Book | None:
        """What all honest disks hold together."""
        credit = self.world.credit
        files = [peer.disk.ledger for peer in self.world.peers if peer.disk.ledger and self.is_honest(peer)]
        return credit.book(*files) if credit is not None else None


class ZeroSum(CreditChecker):
    """In every copy balances and escrows are exactly 0 together, no escrow is overdrawn, nor an honest account."""

    name = "zero_sum"

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._looked = 0
        if world.credit is not None:
            world.credit.on_keep.append(self._changed)

    def _changed(self, peer: Peer, _: KeepLedger) -> None:
        if self.is_honest(peer) and sum(1 for _ in peer.ledger.book.accounts()) <= EVERY_CHANGE:
            self._look(peer, peer.ledger.book)

    def scan(self) -> None:
        """Add up every copy."""
        for peer, agent in self.books():
            self._look(peer, agent.book)
            account = agent.account
            if account.balance_micro < -account.limit_micro:
                text = f"its account stands at {account.balance_micro}, and {-account.limit_micro} is its limit"
                self.found(peer.number, text)

    def _look(self, peer: Peer, book: Book) -> None:
        self._looked += 1
        if book.sum_micro():
            self.found(peer.number, f"balances and escrows are {book.sum_micro()} together")
        for job, _, escrow in book.money.all_escrows():
            if escrow.balance_micro < 0 or min(escrow.held_micro, escrow.paid_micro, escrow.released_micro) < 0:
                self.found(peer.number, f"the escrow of job {named(JobId(job))} is {escrow}")

    def report(self) -> dict[str, object]:
        """How often was added up."""
        return {"sums": self._looked}


class Settled(CreditChecker):
    """Whoever's result was accepted is paid, once: ``PAID_S`` after that at the latest, and after it is back.

    And no job is handed out before what pays for it is durable.

    What was accepted follows from the facts that anybody made durable, by rules written down here once more. Nothing
    is said of a job that nobody set enough aside for, of one that was let go of before its submitter was lost, of one
    more of whose keepers lie than ``lying_keepers``, nor of what somebody whose file was put back had not claimed.
    ``report`` tells how many there are, and of how many of them the time is over.
    """

    name = "settled"
    listens = True

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._quiet_s = quiet_from_s(scenario)
        self._since: dict[Owed, float] = {}
        self._seen: dict[JobId, int] = {}  # facts that were there when it was looked at last
        self._up: dict[int, tuple[int, float]] = {}  # number of a peer's life, and since when it is known
        self._known: set[Owed] = set()  # accepted for any reason; of the others all keepers that decide say so
        self._paid: set[Owed] = set()

    def heard(self, peer: Peer, effect: Notify) -> None:
        """A job is handed out."""
        if effect.event != "job_published" or not self.is_honest(peer) or not peer.has_credit:
            return
        kept = peer.submitter.jobs.get(job_of(effect))
        if kept is None or not kept.state.spec.price_micro:
            return
        hold = peer.ledger.book.funding(kept.state.id)
        if hold is None or peer.disk.ledger is None or hold.raw not in peer.disk.ledger.entries:
            self.found(peer.number, f"its job {named(kept.state.id)} is handed out, and nothing durable pays for it")

    def scan(self) -> None:
        """Compare what is owed with what is paid."""
        for peer in self.world.peers:
            if self._up.get(peer.number, (-1, 0.0))[0] != peer.lives:
                self._up[peer.number] = peer.lives, self.now_s
        for name, job in self.evidence.jobs.items():
            if job.spec is not None and job.spec.price_micro and self._seen.get(name) != job.count:
                self._seen[name] = job.count
                for (unit, epoch, key), sure in payable(job):
                    self._known.add((name, unit, epoch, key))
                    if sure:
                        self._since.setdefault((name, unit, epoch, key), self.now_s)
        for peer, agent in self.books():
            self._look(peer, agent.book)

    def _look(self, peer: Peer, book: Book) -> None:
        key = key_from_peer_id(peer.id)
        for job in jobs_of(book):
            counted = Counter((one.unit, one.epoch, one.worker) for one, _ in book.settled(job))
            for (unit, epoch, worker), times in counted.items():
                owed = job, unit, epoch, worker
                if times > 1:
                    self.found(peer.number, f"work on {named(job, unit)} in epoch {epoch} is paid {times} times")
                if owed not in self._known and not self._is_news(owed) and not self._is_beyond(job):
                    self.found(peer.number, f"work on {named(job, unit)} in epoch {epoch} is paid, and nobody did it")
                if worker == key:
                    self._paid.add(owed)

    def _is_beyond(self, job: JobId) -> bool:
        """More of a view's keepers lie than what is accepted must withstand."""
        known = self.evidence.jobs.get(job)
        for view in {payload.view for _, payload in known.sets.values()} if known is not None else ():
            keepers = known.keepers(view) if known is not None else ()
            lying = sum(1 for one in keepers if not self.keeps_honestly(self.world.peers[self.world.index[one]]))
            if lying > self.scenario.checks.lying_keepers * len(keepers) // KEEPERS:
                return True
        return False

    def _is_news(self, owed: Owed) -> bool:
        job = self.evidence.jobs.get(owed[0])
        return job is not None and owed[1:] in {one for one, _ in payable(job)}

    def finish(self) -> None:
        """Whom nobody paid in time."""
        self.scan()
        self._count_restored()
        funded: dict[JobId, bool] = {}
        for owed, since_s in self._since.items():
            if owed in self._paid or not self._is_late(owed, since_s):
                continue
            job = owed[0]
            if job not in funded:
                funded[job] = self._is_funded(job) and not self._is_beyond(job)
            if funded[job]:
                late_s = self.now_s - since_s
                number = self.world.index[_peer(owed[3])]
                text = f"its work on {named(job, owed[1])} was accepted {late_s:.0f} s ago and is not paid"
                self.found(number, text)

    def _count_restored(self) -> None:
        """Whose file was put back may lack what proves its claims; then others' copies say that it is paid."""
        whole, credit = self.together(), self.world.credit
        if whole is None or credit is None:
            return
        keys = {key_from_peer_id(self.world.peers[number].id) for number in credit.restored}
        for job in jobs_of(whole) if keys else ():
            for one, _ in whole.settled(job):
                if one.worker in keys:
                    self._paid.add((job, one.unit, one.epoch, one.worker))

    def _is_late(self, owed: Owed, since_s: float) -> bool:
        peer = self.world.peers[self.world.index[_peer(owed[3])]]
        if peer.life is None or peer.frozen or not self.is_honest(peer):
            return False
        restored_s = self.world.credit.restored.get(peer.number, -inf) if self.world.credit is not None else -inf
        if since_s <= restored_s + self.scenario.checks.scan_every_s:  # it forgot what it had not claimed by then
            return False
        lot_s = min(self.now_s / LOT_PART, MAX_LOT_NS / SECOND_NS)
        return self.now_s - max(since_s, self._quiet_s, self._up[peer.number][1]) > PAID_S + lot_s

    def _is_funded(self, job: JobId) -> bool:
        """Somebody honest who has not lost it can show what pays for the job, and what was accepted of it."""
        submitter = self.world.peers[self.world.index[self.evidence.jobs[job].submitter]]
        if submitter.lost and not any(peer.life and peer.submitter.kept.get(job) for peer in self.world.peers):
            return False
        whole, spec = self.together(), self.evidence.jobs[job].spec
        if whole is None or spec is None:
            return False
        if whole.closing(job) is not None:
            return whole.escrow(job).held_micro >= spec.price_micro * spec.units * spec.policy.max_replicas
        return whole.funding(job) is not None

    def report(self) -> dict[str, object]:
        """Executions that are owed, and those of them that are paid."""
        return {"owed": len(self._since), "paid": len(self._paid & self._since.keys())}


class Copies(CreditChecker):
    """Copies agree: what an account's witnesses and partners know of it, and what all copies together come to.

    ``TOLD_S`` after the last fault each of an honest account's witnesses knows its last durable entry of then; and at
    the end a book made of all honest disks has for each honest account what its own book has, if that is quiet.
    """

    name = "copies"

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._quiet_s = quiet_from_s(scenario)
        self._heads: dict[int, tuple[int, bytes, float]] = {}  # life, last entry, and since when
        self._compared = 0

    def scan(self) -> None:
        """Compare heads."""
        for peer, agent in self.books():
            account = agent.account
            head = max(account.heads.items(), default=(0, (0, b"")))[1][1]
            if self._heads.get(peer.number, (0, b""))[:2] != (peer.lives, head):
                self._heads[peer.number] = peer.lives, head, self.now_s
            since_s = max(self._heads[peer.number][2], self._quiet_s)
            if not head or self.now_s - since_s <= TOLD_S or agent.state is not State.READY:
                continue
            for witness in agent.witnesses():
                other = self.world.peers[self.world.index[witness]]
                lived_s = self._heads.get(other.number, (0, b"", self.now_s))[2]
                if not self.is_honest(other) or not other.has_credit or self.now_s - lived_s <= TOLD_S:
                    continue
                self._compared += 1
                if other.ledger.book.entry(head) is None:  # type: ignore[arg-type]
                    text = f"it witnesses peer {peer.number} and does not know its last entry of {since_s:.0f} s"
                    self.found(other.number, text)

    def finish(self) -> None:
        """Compare sums."""
        self.scan()
        whole = self.together()
        if whole is None:
            return
        if whole.sum_micro():
            self.found(None, f"balances and escrows of all copies together are {whole.sum_micro()}")
        for peer, agent in self.books():
            head = self._heads.get(peer.number)
            restored = self.world.credit is not None and peer.number in self.world.credit.restored
            if head is None or restored or self.now_s - max(head[2], self._quiet_s) <= PAID_S:
                continue
            own, found = agent.account, whole.account(agent.account.id)
            if own.earned_micro != found.earned_micro:
                text = f"it earned {own.earned_micro}, and {found.earned_micro} by what all know together"
                self.found(peer.number, text)

    def report(self) -> dict[str, object]:
        """How many heads were compared."""
        return {"heads": self._compared}


class Unpunished(CreditChecker):
    """No honest account is frozen, revoked or lost; whatever crashes, restores and liars there are."""

    name = "unpunished"

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        super().__init__(world, scenario, evidence)
        self._accounts: dict[AccountId, int] = {}

    def heard(self, peer: Peer, effect: Notify) -> None:
        """Somebody found that an account forked."""
        if effect.event == "account_forked":
            whose = self._honest().get(AccountId(bytes.fromhex(str(effect.fields["account"]))))
            if whose is not None:
                self.found(whose, f"peer {peer.number} holds that its account forked")

    def _honest(self) -> dict[AccountId, int]:
        """Accounts of honest peers, worked out once: all peers are known when somebody can have forked."""
        credit = self.world.credit
        if not self._accounts and credit is not None:
            self._accounts = {
                credit.account(one.number): one.number for one in self.world.peers if self.is_honest(one)
            }
        return self._accounts

    def scan(self) -> None:
        """Look at each honest account in each honest copy."""
        honest = self._honest()
        for peer, agent in self.books():
            if agent.state in (State.FORKED, State.LOST, State.REVOKED):
                self.found(peer.number, f"its account is {agent.state.value}")
            for account in agent.book.accounts():
                if account in honest and agent.book.fork_of(account) is not None:
                    self.found(honest[account], f"its account is frozen at peer {peer.number}")

    def finish(self) -> None:
        """Look whether one of them signed two entries for one place, though nobody has seen both."""
        self.scan()
        whole, credit = self.together(), self.world.credit
        if whole is None or credit is None:
            return
        for peer in self.world.peers:
            if self.is_honest(peer) and whole.account(credit.account(peer.number)).frozen:
                self.found(peer.number, "its account forked, by what all know together")


class CreditBounds(CreditChecker):
    """What an agent keeps in memory stays within what it is made for."""

    name = "credit_bounds"

    def scan(self) -> None:
        """Measure every agent."""
        limits = {
            "claims": MAX_CLAIMS, "unproven": MAX_UNPROVEN, "asked": MAX_SENDS, "forks": MAX_KNOWN,
            "waiting": 2 * MAX_WAITING, "peers": MAX_KNOWN_PEERS, "partners": 2 * MAX_WITNESSES + MAX_PAYERS,
            "unkept": MAX_UNKEPT_BYTES, "reading": MAX_READING,
        }  # fmt: skip
        for peer, agent in self.books():
            for what, size in agent.sizes().items():
                if size > limits[what]:
                    self.found(peer.number, f"{what} of its agent: {size}, and {limits[what]} are the limit")


def jobs_of(book: Book) -> list[JobId]:
    """All that are known, closed or not."""
    records, closings = (record.job for record in book.records()), (JobId(one.job) for one in book.closings())
    return list(dict.fromkeys([*records, *closings]))


def payable(job: JobEvidence) -> Iterator[tuple[tuple[int, int, bytes], bool]]:
    """Unit, epoch and worker of all executions that are to be paid, and whether all keepers that decide say so.

    Of a unit they are the first ``max_replicas``.
    """
    if job.spec is None:
        return
    by_unit: dict[int, dict[tuple[int, bytes], bool]] = {}
    for unit, epoch in job.given:
        accepted = job.accepted(unit, epoch).items()
        by_unit.setdefault(unit, {}).update(((epoch, key), sure) for key, sure in accepted)
    for unit, found in by_unit.items():
        others = sorted(one for one in found if _peer(one[1]) != job.submitter)
        for epoch, key in others[: job.spec.policy.max_replicas]:
            yield (unit, epoch, key), found[epoch, key]
