"""The trust policy at work in one job, at one keeper.

Who judges is the job's submitter: its own standings count, or, while it is away, those that it stated for the job.
``work/trusting.py`` asks here how many answers a unit still wants, who may give them, and which results have to wait.
"""

from collections.abc import Iterable, Mapping, Set
from typing import Protocol

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.trust.audits import Audit, Audits
from sparkle_protocol.trust.coin import Coin
from sparkle_protocol.trust.deciding import Ruling, rule
from sparkle_protocol.trust.parameters import TrustRules

SECOND_NS = 1_000_000_000
LOOK_NS = SECOND_NS // 2
MAX_SEEN = 4096  # workers whose presence is noted; the one seen the longest ago is forgotten first
LEAST = 0.999  # so that who has no capital has a chance still
MAX_AWAITED = 4096  # final units; the oldest are forgotten
MAX_AUDITORS = 64  # that are drawn for one audit


class Judges(Protocol):
    """What the submitter thinks of workers, for units of this job (see ``judges.py``)."""

    def counts(self, worker: PeerId) -> bool:
        """The worker's answers count."""
        ...

    def audit_rate(self, worker: PeerId) -> float:
        """The probability with which a result of the worker is compared."""
        ...

    def credibility(self, worker: PeerId) -> float:
        """The probability that its next result is right."""
        ...

    def known(self) -> int:
        """How many peers there are whose answers count."""
        ...

    def passed(self, worker: PeerId, others: Set[PeerId], rate: float) -> None:
        """A result of the worker was found equal to that of others; ``rate``: how probable it was to be compared."""
        ...

    def failed(self, worker: PeerId) -> None:
        """The worker was proven wrong."""
        ...


class JobTrust:
    """Who counts in one job, its audits, and the units that nobody can be found for."""

    def __init__(
        self, policy: Policy, judges: Judges, coin: Coin, rules: TrustRules, me: PeerId, now_ns: int
    ) -> None:
        self.policy = policy
        self.rules = rules
        self.judges = judges
        self.audits = Audits()
        self.bootstrap = True
        self._coin = coin
        self._me = me
        self._started_ns = self._looked_ns = now_ns
        self._seen: dict[PeerId, int] = {}  # the longest ago first
        self._stuck: dict[int, int] = {}  # units that lack somebody who counts; since when, 0: not looked at
        self._relaxed: set[int] = set()  # units about which everybody counts
        self._awaited: dict[int, Set[PeerId]] = {}  # final units: who committed in time and has not shown its result
        self.refresh(now_ns)

    # --- who is there -------------------------------------------------------------------------------------

    def saw(self, worker: PeerId, now_ns: int) -> None:
        """The worker asked for work or reported."""
        self._seen.pop(worker, None)
        self._seen[worker] = now_ns
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]

    def is_due(self, now_ns: int) -> bool:
        """``refresh`` and ``relax`` were not called for a moment, so something may have changed."""
        if now_ns - self._looked_ns < LOOK_NS and not self.bootstrap:
            return False
        self._looked_ns = now_ns
        return True

    def refresh(self, now_ns: int) -> bool:
        """See whether enough peers are there whose answers count; True when that changed."""
        before = self.bootstrap
        few = self.judges.known() < self.rules.enough_known
        if not few and now_ns - self._started_ns >= self.rules.patience_s * SECOND_NS:
            few = len(self._present(now_ns, self.rules.enough_known)) < self.rules.enough_known
        self.bootstrap = few
        return before != few

    def _present(self, now_ns: int, limit: int) -> list[PeerId]:
        """Workers that are there and count, those heard of last first."""
        since_ns = now_ns - int(self.rules.present_s * SECOND_NS)
        found: list[PeerId] = []
        for worker in reversed(self._seen):
            if self._seen[worker] < since_ns or len(found) >= limit:
                break
            if worker != self._me and self.judges.counts(worker):
                found.append(worker)
        return found

    # --- whose answers count ------------------------------------------------------------------------------

    def counts(self, unit: int, worker: PeerId) -> bool:
        """An answer of the worker about a unit counts."""
        return worker == self._me or unit in self._relaxed or self.judges.counts(worker)

    def counting(self, unit: int, workers: Iterable[PeerId]) -> int:
        """How many of these count."""
        return sum(1 for worker in workers if self.counts(unit, worker))

    def rule(self, unit: int, votes: Mapping[PeerId, ResultHash], own: Set[PeerId]) -> Ruling:
        """What the votes on a unit mean."""
        theta = self.rules.theta_of_few if unit in self._relaxed else self.rules.theta
        return rule(
            self.policy, votes, lambda worker: self.counts(unit, worker), self.judges.credibility, own, theta,
            audited=self.audits.of(unit) is not None,
        )  # fmt: skip

    def may_add(self, unit: int, worker: PeerId, others: Iterable[PeerId], now_ns: int) -> bool:
        """An answer of the worker is of use for a unit that ``others`` work on or answered.

        A newcomer's is if it is the only one: it is compared, which is how newcomers become known. An audit is for
        those who were drawn for it, one more of them after each ``next_auditor_s``.
        """
        if not self.counts(unit, worker):
            return self.audits.of(unit) is None and all(self.counts(unit, other) for other in others)
        audit = self.audits.of(unit)
        if audit is None or worker == self._me or unit in self._relaxed:
            return True
        drawn = self.auditors_now(audit, now_ns)
        return drawn is None or worker in drawn

    def auditors_now(self, audit: Audit, now_ns: int) -> list[PeerId] | None:
        """Who may give the second answer now; None: everybody who counts."""
        turn = 1 + (now_ns - audit.since_ns) / (self.rules.next_auditor_s * SECOND_NS)
        return None if turn > len(audit.auditors) else audit.auditors[: int(turn)]

    def is_relaxed(self, unit: int) -> bool:
        """Everybody counts for the unit, as nobody else could be found."""
        return unit in self._relaxed

    def stuck_since_ns(self, unit: int) -> int | None:
        """Since when the unit lacks somebody who counts, if it does."""
        return self._stuck.get(unit) or None

    # --- audits -------------------------------------------------------------------------------------------

    def may_end(
        self,
        unit: int,
        givers: Set[PeerId],
        commits: Mapping[PeerId, bytes],
        own: Set[PeerId],
        now_ns: int,
        *,
        draws: bool,
    ) -> bool:
        """A result that ``givers`` gave may become final; else it is audited, or waits for an audit's end.

        ``draws``: it is for us to have it audited. What is for others waits for their verdict.
        """
        if self.bootstrap or not own.isdisjoint(givers):
            return True
        counting = sorted(worker for worker in givers if self.counts(unit, worker))
        if len(counting) != 1:
            return True  # compared by somebody who counts
        (worker,) = counting
        if not draws:
            return False
        if not self.audits.is_spared(unit, worker) and not self._draw(unit, worker, commits, now_ns):
            return False
        if self.audits.is_open(worker):
            self.audits.hold(unit, worker)
            return False
        return True

    def _draw(self, unit: int, worker: PeerId, commits: Mapping[PeerId, bytes], now_ns: int) -> bool:
        """Let the coin fall, once; False when there is an audit."""
        commit, rate = commits.get(worker, b""), self.judges.audit_rate(worker)
        if not self._coin.is_audited(unit, commit, rate):
            self.audits.spare(unit, worker)
            return True
        there = self._present(now_ns, MAX_AUDITORS)
        # In proportion to their capital, as far as that lowers the rate: many who have done little weigh little.
        weights = {peer: 1.0 / self.judges.audit_rate(peer) - LEAST for peer in there if peer not in commits}
        self.audits.begin(unit, Audit(worker, rate, now_ns, self._coin.auditors(unit, commit, weights)))
        return False

    def rate_of(self, unit: int, worker: PeerId) -> float:
        """The probability with which the worker's result of a unit was compared, if that was drawn."""
        audit = self.audits.of(unit)
        return audit.rate if audit is not None and audit.worker == worker else 1.0

    def awaits(self, unit: int, workers: Set[PeerId]) -> None:
        """The unit is final; these committed to a result before, and may show it yet."""
        if workers:
            self._awaited[unit] = workers
            if len(self._awaited) > MAX_AWAITED:
                del self._awaited[next(iter(self._awaited))]

    def take_awaited(self, unit: int, workers: Set[PeerId]) -> Set[PeerId]:
        """Of these workers, those whose results were awaited; they are no more."""
        awaited = self._awaited.pop(unit, frozenset())
        self.awaits(unit, awaited - workers)
        return awaited & workers

    # --- units for which nobody who counts can be found ---------------------------------------------------

    def lacks(self, unit: int, *, lacking: bool) -> None:
        """The unit wants an answer that nobody is at work to give, or does not any more."""
        if not lacking:
            self._stuck.pop(unit, None)
        elif unit not in self._relaxed:
            self._stuck.setdefault(unit, 0)

    def relax(self, now_ns: int) -> list[int]:
        """Units that waited too long for somebody who counts: from now on everybody does, for these."""
        found = []
        for unit, since_ns in self._stuck.items():
            if not since_ns:
                self._stuck[unit] = now_ns
            elif now_ns - since_ns >= self.rules.patience_s * SECOND_NS:
                found.append(unit)
        for unit in found:
            del self._stuck[unit]
            self._relaxed.add(unit)
        return found

    def next_deadline(self) -> int | None:
        """When there is something to look at again."""
        return self._looked_ns + LOOK_NS if len(self.audits) or self._stuck else None

    def forget(self, unit: int) -> list[int]:
        """The unit is final, or begins anew; returns units that need not be held any more."""
        self._stuck.pop(unit, None)
        self._relaxed.discard(unit)
        return self.audits.end(unit)
