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
RIPE_NS = SECOND_NS
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

    def knows_enough(self) -> bool:
        """So many peers' answers count that nobody else's need."""
        ...

    def turn(self, worker: PeerId) -> tuple[int, int]:
        """Newcomers for whom this is less come first."""
        ...

    def vetting_share(self) -> float:
        """How many newcomers' answers are wanted for each unit of known workers."""
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
        self, policy: Policy, judges: Judges, coin: Coin, rules: TrustRules, me: PeerId, now_ns: int, *, mine: bool
    ) -> None:
        self.policy = policy
        self.rules = rules
        self.judges = judges
        self.audits = Audits()
        self.bootstrap = True
        self._coin = coin
        self._me = me
        self._alone_judges = mine
        self._started_ns = self._looked_ns = now_ns
        self._seen: dict[PeerId, int] = {}  # the longest ago first
        self._stuck: dict[int, int] = {}  # units that lack somebody who counts; since when, 0: not looked at
        self._single: dict[int, int] = {}  # units with one answer that keepers decide about, and since when
        self._relaxed: set[int] = set()  # units about which everybody counts
        self.between_known: set[int] = set()  # open units about which workers that count disagree
        self.known_units = 0  # that became final by the answer of somebody who counts
        self.vettings = 0  # units that were given to newcomers
        self._turns: set[PeerId] = set()  # newcomers that are compared now
        self.new_turns: list[PeerId] = []  # of these, those that were not before
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
        return True  # (while it goes by votes, somebody may count with every result)

    def refresh(self, now_ns: int) -> bool:
        """See whether enough peers are there whose answers count; True when that changed."""
        before = self.bootstrap
        few = not self.judges.knows_enough()
        self._line_up(now_ns)
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

    def _line_up(self, now_ns: int) -> None:
        """See which newcomers are the next to be compared: as many as there are known workers to do it."""
        since_ns = now_ns - int(self.rules.present_s * SECOND_NS)
        there = [worker for worker, seen_ns in self._seen.items() if seen_ns >= since_ns and worker != self._me]
        newcomers = [worker for worker in there if not self.judges.counts(worker)]
        newcomers.sort(key=lambda worker: (self.judges.turn(worker), worker))
        turns = newcomers[: max(1, len(there) - len(newcomers))]
        self.new_turns = [worker for worker in turns if worker not in self._turns]
        self._turns = set(turns)

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
        ruling = rule(
            self.policy, votes, lambda worker: self.counts(unit, worker), self.judges.credibility, own, theta,
            audited=self.audits.of(unit) is not None,
        )  # fmt: skip
        if ruling.disputed and ruling.accepted is None:
            self.between_known.add(unit)
        else:
            self.between_known.discard(unit)
        return ruling

    def may_add(self, unit: int, worker: PeerId, others: Iterable[PeerId], now_ns: int) -> bool:
        """An answer of the worker is of use for a unit that ``others`` work on or answered.

        A newcomer's is if it is the only one: it is compared, which is how newcomers become known. An audit is for
        those who were drawn for it, one more of them after each ``next_auditor_s``.
        """
        if not self.counts(unit, worker):
            return (
                worker in self._turns
                and self.vettings < self.rules.first_vettings + self.judges.vetting_share() * self.known_units
                and self.audits.of(unit) is None
                and all(self.counts(unit, other) for other in others)
            )
        if worker != self._me and self._is_for_us(unit, now_ns):
            return False
        audit = self.audits.of(unit)
        if audit is None or worker == self._me or unit in self._relaxed:
            return True
        turn = 1 + (now_ns - audit.since_ns) / (self.rules.next_auditor_s * SECOND_NS)
        return worker in audit.auditors[: int(turn)] or turn > len(audit.auditors)

    def _is_for_us(self, unit: int, now_ns: int) -> bool:
        """Known workers gave different results, and our own node is at work: what it finds settles that.

        Others could settle it as well, but if they lie together somebody honest would lose its standing.
        """
        seen_ns = self._seen.get(self._me) if unit in self.between_known else None
        return seen_ns is not None and now_ns - seen_ns < self.rules.patience_s * SECOND_NS

    # --- audits -------------------------------------------------------------------------------------------

    def may_end(
        self, unit: int, givers: Set[PeerId], commits: Mapping[PeerId, bytes], own: Set[PeerId], now_ns: int
    ) -> bool:
        """A result that ``givers`` gave may become final; else it is audited, or waits for an audit's end."""
        if self.bootstrap or not own.isdisjoint(givers):
            return True
        counting = sorted(worker for worker in givers if self.counts(unit, worker))
        if len(counting) != 1:
            return True  # compared by somebody who counts
        (worker,) = counting
        if not self.audits.is_spared(unit, worker) and not self._draw(unit, worker, commits, now_ns):
            return False
        if self.audits.is_open(worker):
            self.audits.hold(unit, worker)
            return False
        return True

    def _draw(self, unit: int, worker: PeerId, commits: Mapping[PeerId, bytes], now_ns: int) -> bool:
        """Let the coin fall, once; False when there is an audit."""
        rate = self._own_rate(worker)
        if self.audits.of(unit) is None and not self._coin.is_audited(unit, commits.get(worker, b""), rate):
            self.audits.spare(unit, worker)
            return True
        self._begin(unit, worker, commits, rate, now_ns)
        return False

    def _own_rate(self, worker: PeerId) -> float:
        """Of our own coin: three honest keepers of a view have a result audited as often as the submitter would."""
        rate = self.judges.audit_rate(worker)
        return rate if self._alone_judges else 1.0 - (1.0 - rate) ** (1.0 / self.rules.honest_keepers)

    def is_called(self, unit: int, givers: Set[PeerId], commits: Mapping[PeerId, bytes]) -> bool:
        """Our own coin says that the single answer of a unit should be compared, which others hand out."""
        worker = next((one for one in sorted(givers) if self.counts(unit, one)), None)
        if worker is None or self._is_always_audited(unit, worker):
            return False  # everybody knows that it must be
        return self._coin.is_audited(unit, commits.get(worker, b""), self._own_rate(worker))

    def _is_always_audited(self, unit: int, worker: PeerId) -> bool:
        return unit not in self._relaxed and self.judges.audit_rate(worker) >= 1.0

    def needs_company(self, unit: int, givers: Iterable[PeerId]) -> bool:
        """The only one who counts and gave a result is somebody whose results are always compared."""
        return any(self.counts(unit, one) and self._is_always_audited(unit, one) for one in givers)

    def begin_audit(self, unit: int, givers: Set[PeerId], commits: Mapping[PeerId, bytes], now_ns: int) -> None:
        """Others call for an audit of the unit's single answer."""
        worker = next((one for one in sorted(givers) if self.counts(unit, one)), None)
        if worker is not None:
            self._begin(unit, worker, commits, self.judges.audit_rate(worker), now_ns)

    def _begin(self, unit: int, worker: PeerId, commits: Mapping[PeerId, bytes], rate: float, now_ns: int) -> None:
        if self.audits.of(unit) is not None:
            return
        commit = commits.get(worker, b"")
        there = self._present(now_ns, MAX_AUDITORS)
        # In proportion to their capital, as far as that lowers the rate: many who have done little weigh little.
        weights = {peer: 1.0 / self.judges.audit_rate(peer) - LEAST for peer in there if peer not in commits}
        self.audits.begin(unit, Audit(worker, rate, now_ns, self._coin.auditors(unit, commit, weights)))

    # --- where several keepers decide ---------------------------------------------------------------------

    def first_seen(self, unit: int, now_ns: int) -> bool:
        """The unit has a single answer; True when that is new."""
        if unit in self._single:
            return False
        self._single[unit] = now_ns
        return True

    def is_ripe(self, unit: int) -> bool:
        """All keepers had time to see the unit's single answer, and to call for a second one."""
        return unit in self._single and self._looked_ns - self._single[unit] >= RIPE_NS

    def is_overdue(self, unit: int) -> bool:
        """The second answer that a keeper called for does not come."""
        return self._looked_ns - self._single.get(unit, self._looked_ns) >= self.rules.patience_s * SECOND_NS

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
        return self._looked_ns + LOOK_NS if len(self.audits) or self._stuck or self._single else None

    def forget(self, unit: int) -> list[int]:
        """The unit is final, or begins anew; returns units that need not be held any more."""
        self._stuck.pop(unit, None)
        self._relaxed.discard(unit)
        self._single.pop(unit, None)
        self.between_known.discard(unit)
        return self.audits.end(unit)
