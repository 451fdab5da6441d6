"""The rules by which each entry is judged. ``book.py`` states them and decides what is judged when."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from sparkle_ledger import outcomes as out
from sparkle_ledger.closing import Closing, Ruling
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import (
    AccountId,
    EntryId,
    Genesis,
    Hold,
    Penalty,
    Release,
    Restore,
    Revoke,
    Rotate,
    Work,
)
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.feed import Node
from sparkle_ledger.feed_folding import FoldableFeed
from sparkle_ledger.folding import Base
from sparkle_ledger.money import Money
from sparkle_ledger.outcomes import Outcome
from sparkle_ledger.plain import PlainSums
from sparkle_ledger.walk import Walk
from sparkle_protocol.facts import SEAL_UNITS

Claimants = tuple[Node] | list[Node]  # of one execution: a single one as a rule


class Page:
    """One account: its feed, the sums along it, and what has to be judged anew.

    Attributes:
        plain: sums of a feed with one path; None once it needs a walk.
    """

    __slots__ = ("dirty", "feed", "holds", "left", "plain", "walk")

    def __init__(self, feed: FoldableFeed, economy: Economy) -> None:
        self.feed = feed
        self.walk = Walk()
        self.plain: PlainSums | None = PlainSums(economy)
        self.dirty: dict[Node, bool] = {}
        self.holds: list[Node] = []
        self.left: dict[int, int] | None = None  # incarnation -> what Holds that it left behind still take

    def begin(self, base: Base, economy: Economy) -> None:
        """The sums of a feed with one path begin from what is folded of it, however much is here."""
        self.walk, self.plain = Walk(base), PlainSums(economy, base)
        nodes = list(self.feed.from_place(0, 0))
        for node in nodes:
            self.plain.append(node)
        for node in nodes:
            self.plain.judged_before(node)
        self.holds = [node for node in nodes if isinstance(node.entry.payload, Hold)]

    @property
    def sums(self) -> PlainSums | Walk:
        """Those that are kept of this feed."""
        return self.plain if self.plain is not None else self.walk


class JobPage:
    """One job: what is known of it, and the entries that speak of it.

    A closed job has a ``closing``, and until somebody shows evidence about it again no record and no claims.
    """

    __slots__ = ("claims", "closing", "others", "record", "taken", "works")

    def __init__(self) -> None:
        self.closing: Closing | None = None
        self.record: JobRecord | None = None
        self.works: dict[int, list[Node]] = {}  # range -> Works that name units of it
        self.others: list[Node] = []  # Holds and Releases
        self.claims: dict[bytes, dict[tuple[int, int], Claimants]] = {}  # worker -> (unit, epoch) -> by whom
        self.taken: dict[int, set[tuple[int, bytes]]] = {}  # open again: unit -> epoch and worker of final Works

    @property
    def is_known(self) -> bool:
        """Whose job it is, and at what price, is known."""
        return self.record is not None or self.closing is not None

    @property
    def submitter_key(self) -> bytes | None:
        """Who signed its spec; None: that is not known."""
        if self.record is not None:
            return self.record.submitter_key
        return self.closing.submitter if self.closing is not None else None

    @property
    def is_shut(self) -> bool:
        """It is closed for good."""
        return self.closing is not None and self.closing.is_shut

    @property
    def is_over(self) -> bool:
        """It is shown that no further work is wanted."""
        return self.closing is not None or (self.record is not None and self.record.over)

    @property
    def executions(self) -> int:
        """How many are payable by what was ever shown here; not more than really are."""
        if self.closing is None:
            return self.record.executions if self.record is not None else 0
        if self.record is None:
            return self.closing.executions
        shown = {(one.unit, one.epoch, one.worker) for one in self.record.all_payable()}
        most = self.record.spec.policy.max_replicas
        times = Counter(unit for unit, _, _ in shown.union(self.paid()))
        return max(self.closing.executions, sum(min(most, one) for one in times.values()))

    @property
    def owed_micro(self) -> int:
        """The price of these."""
        known = self.record if self.record is not None else self.closing
        return known.price_micro * self.executions if known is not None else 0

    def paid(self) -> Iterator[tuple[int, int, bytes]]:
        """Unit, epoch and worker of what Works that count name."""
        for node in self.all_works():
            work = node.entry.payload
            if isinstance(work, Work) and node.outcome.counts:
                yield from ((one.unit, one.epoch, work.worker) for one in work.units)

    def take(self, node: Node) -> bool:
        """Note what a final Work was paid for; False: for nothing."""
        work = node.entry.payload
        if node.final is None or not node.final.outcome.counts or not isinstance(work, Work):
            return False
        for one in work.units:
            self.taken.setdefault(one.unit, set()).add((one.epoch, work.worker))
        return True

    def has_room(self, work: Work) -> bool:
        """With what was paid before the job was closed, of which no proof may be here, no unit is paid too often."""
        if self.record is None:
            return False
        most = self.record.spec.policy.max_replicas
        for one in work.units:
            taken = self.taken.get(one.unit)
            if taken:
                late = sorted(self.record.payable(one.unit) - taken)
                if (one.epoch, work.worker) not in late[: max(0, most - len(taken))]:
                    return False
        return True

    def all_works(self) -> list[Node]:
        """Each once."""
        return list({node: None for nodes in self.works.values() for node in nodes})


class Rulings:
    """What the rules need to know, and the rules. It changes nothing but the notes on who names what."""

    __slots__ = ("_jobs", "_nodes", "_pages", "_refs", "_rules", "economy", "money", "network")

    def __init__(self, network: str, economy: Economy) -> None:
        self.network = network
        self.economy = economy
        self.money = Money()
        self._nodes: dict[EntryId, Node] = {}
        self._pages: dict[AccountId, Page] = {}
        self._jobs: dict[bytes, JobPage] = {}
        self._refs: dict[bytes, list[Node]] = {}  # an entry -> those that name it
        self._rules: dict[type, Callable[[Page, Node, Any], Ruling]] = {
            Genesis: self._rule_start,
            Restore: self._rule_start,
            Hold: self._rule_hold,
            Work: self._rule_work,
            Release: self._rule_release,
            Penalty: self._rule_penalty,
            Rotate: self._rule_rotate,
            Revoke: self._rule_start,
        }

    def rule(self, page: Page, node: Node) -> Ruling:
        """Judge an entry; the account's walk stands at the one before."""
        if node.final is not None:
            return node.final
        payload = node.entry.payload
        return self._rules[type(payload)](page, node, payload)

    # --- notes --------------------------------------------------------------------------------------------

    def _job(self, job: bytes) -> JobPage:
        found = self._jobs.get(job)
        if found is None:
            found = self._jobs[job] = JobPage()
        return found

    def _refer(self, page: Page, node: Node) -> list[Node]:
        """Note what a new node names; returns others that have to be judged anew because of it."""
        payload = node.entry.payload
        if isinstance(payload, Work):
            job = self._job(payload.job)
            for index in {one.unit // SEAL_UNITS for one in payload.units}:
                job.works.setdefault(index, []).append(node)
            self._refs.setdefault(payload.hold, []).append(node)
            noted = payload.worker in node.keys and (job.closing is None or job.record is not None)
            return self._claim(page, job, node, payload) if noted else []
        if isinstance(payload, Hold):
            self._job(payload.job).others.append(node)
            page.holds.append(node)
        elif isinstance(payload, Release):
            self._job(payload.job).others.append(node)
        return []

    def _claim(self, page: Page, job: JobPage, node: Node, work: Work) -> list[Node]:
        """Note what a Work claims; returns others that count and may have to give way to it."""
        claims = job.claims.setdefault(work.worker, {})
        others: dict[Node, None] = {}
        for one in work.units:
            execution = (one.unit, one.epoch)
            there = claims.get(execution)
            if there is None:
                claims[execution] = (node,)
            elif there[-1] is not node:  # it may name one twice
                if isinstance(there, list):
                    there.append(node)
                else:
                    claims[execution] = [*there, node]
                there[0].contested = node.contested = True
                if not page.feed.simple or there[0].entry.account != node.entry.account:
                    others.update((other, None) for other in there if other.outcome.counts)
        return list(others)

    def _claimed_after(self, node: Node, work: Work) -> list[Node]:
        """Works after one in a feed with one path that claim an execution of it, and for which it matters."""
        claims = self._job(work.job).claims[work.worker]
        return [
            other
            for one in work.units
            for other in claims[one.unit, one.epoch]
            if other.entry.account == node.entry.account
            and other.depth > node.depth
            and other.outcome.counts == node.outcome.counts
        ]

    # --- the rules ----------------------------------------------------------------------------------------

    def _rule_start(self, page: Page, node: Node, _: Genesis | Restore | Revoke) -> Ruling:
        return Ruling(page.feed.why_off(node) or out.BOOKED)

    def _rule_rotate(self, page: Page, node: Node, rotate: Rotate) -> Ruling:
        if node.key != rotate.key:
            return Ruling(out.NO_CONSENT)
        return Ruling(page.feed.why_off(node) or out.BOOKED)

    def _rule_penalty(self, page: Page, node: Node, _: Penalty) -> Ruling:
        return Ruling(node.checked or out.BAD_PROOF)

    def _rule_hold(self, page: Page, node: Node, hold: Hold) -> Ruling:
        job, amount = self._job(hold.job), hold.amount_micro
        if job.is_known and job.submitter_key not in node.keys:
            if page.plain is not None:
                page.plain.judged(node, None)
            return Ruling(out.NOT_OWN_JOB)
        relied = job.executions > 0
        if page.plain is not None:
            slack = self._slack(page, page.plain.funds(relied=relied), amount)
            page.plain.judged(node, slack)
            if slack is None or slack >= 0:
                return Ruling(out.BOOKED, -amount, -amount, -amount)
            return Ruling(out.OVERDRAWN, face=-amount)
        off = page.feed.why_off(node)
        if not self._bears(page, page.walk.face, amount):
            return Ruling(off or out.OVERDRAWN, face=-amount)
        if relied:
            return Ruling(out.BOOKED, -amount, -amount, -amount)
        if off is None and self._bears(page, page.walk.strict - self._left_behind(page, node), amount):
            return Ruling(out.BOOKED, -amount, -amount, -amount)
        return Ruling(off or out.OVERDRAWN, face=-amount)

    def _bears(self, page: Page, funds: int, amount: int) -> bool:
        """An account with these funds may part with so much where its sums stand."""
        slack = self._slack(page, funds, amount)
        return slack is None or slack >= 0

    def _slack(self, page: Page, funds: int, amount: int) -> int | None:
        """How much more it could part with, at least; negative: what it lacks, exactly. None: it has no limit."""
        if page.feed.account in self.economy.unlimited:
            return None
        after = funds - amount
        if after >= -self.economy.starter_micro:  # a limit is never less
            return after + self.economy.starter_micro
        return after + self.economy.limit(page.sums.earned())

    def _left_behind(self, page: Page, node: Node) -> int:
        """What Holds of lower incarnations take that a Restore left behind and that workers relied on."""
        if page.feed.simple or not node.entry.incarnation:
            return 0
        if page.left is None:
            page.left = {}
        incarnation = node.entry.incarnation
        if incarnation not in page.left:
            page.left[incarnation] = sum(
                hold.entry.payload.amount_micro
                for hold in page.holds
                if isinstance(hold.entry.payload, Hold)
                and hold.entry.incarnation < incarnation
                and page.feed.why_off(hold) is not None
                and self._is_relied_on(hold.entry.payload.job)
            )
        return page.left[incarnation]

    def _is_relied_on(self, job: bytes) -> bool:
        return self._job(job).executions > 0

    def _rule_work(self, _: Page, node: Node, work: Work) -> Ruling:
        if node.checked is None:
            node.checked = self._check_work(node, work)
        if not node.checked.counts:
            return Ruling(node.checked)
        if node.contested and self._is_claimed(node, work):
            return Ruling(out.SETTLED)
        amount = work.amount_micro
        return Ruling(out.BOOKED, amount, amount, amount)

    def _check_work(self, node: Node, work: Work) -> Outcome:
        """The rules for a Work that do not depend on the entries before it."""
        if work.worker not in node.keys:
            return out.WRONG_KEY
        if len({(one.unit, one.epoch) for one in work.units}) < len(work.units):
            return out.SETTLED
        if self._job(work.job).is_shut:
            return out.SHUT
        record = self._job(work.job).record
        if record is not None:
            fault = self._check_claim(record, work)
            if fault is not None:
                return fault
            if self._job(work.job).taken and not self._job(work.job).has_room(work):
                return out.SETTLED
        hold = self._nodes.get(EntryId(work.hold))
        if hold is None:
            return out.NO_HOLD
        payload = hold.entry.payload
        if not isinstance(payload, Hold) or (hold.entry.account, payload.job) != (work.payer, work.job):
            return out.WRONG_PAYER
        if record is None:
            return out.NO_EVIDENCE
        return out.BOOKED if hold.outcome.counts and payload.amount_micro >= record.cover_micro else out.UNFUNDED

    @staticmethod
    def _check_claim(record: JobRecord, work: Work) -> Outcome | None:
        """What the evidence has against it."""
        if max(one.unit for one in work.units) >= record.units:
            return out.NO_SUCH_UNIT
        if work.worker == record.submitter_key:
            return out.OWN_JOB
        if work.amount_micro != record.price_micro * len(work.units):
            return out.WRONG_AMOUNT
        if any((one.epoch, work.worker) not in record.payable(one.unit) for one in work.units):
            return out.NOT_ACCEPTED
        return None

    def _is_claimed(self, node: Node, work: Work) -> bool:
        """Another entry comes first for one of its executions."""
        claims = self._job(work.job).claims[work.worker]
        for one in work.units:
            for other in claims[one.unit, one.epoch]:
                if other is node or self._follows(other, node):
                    continue
                if other.final is not None and other.outcome.counts:
                    return True
                if other.outcome.counts if self._follows(node, other) else other.rank < node.rank:
                    return True
        return False

    def _follows(self, node: Node, other: Node) -> bool:
        """``other`` is on the path to ``node``."""
        if node.entry.account != other.entry.account:
            return False
        if self._pages[node.entry.account].feed.simple:
            return node.depth >= other.depth
        return node.follows(other)

    def _rule_release(self, page: Page, node: Node, release: Release) -> Ruling:
        job = self._job(release.job)
        if not job.is_known:
            return Ruling(out.NO_EVIDENCE)
        if job.submitter_key not in node.keys:
            return Ruling(out.NOT_OWN_JOB)
        if not job.is_over:
            return Ruling(out.NOT_OVER)
        sums = page.sums.job(release.job)
        face = min(release.amount_micro, sums.signed_held - sums.signed_released)
        off = page.feed.why_off(node)
        if off is not None:
            return Ruling(off, face=face)
        spare = sums.held - job.owed_micro - sums.released
        if spare <= 0:
            return Ruling(out.NOTHING_SPARE, face=face)
        back = min(release.amount_micro, spare)
        return Ruling(out.BOOKED, back, back, face)
