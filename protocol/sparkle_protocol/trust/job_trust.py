"""The trust policy at work in one job, at one keeper.

Who judges is the job's submitter: its own standings count, or, while it is away, those that it stated for the job.
``work/trusting.py`` asks here how many answers a unit still wants, who may give them, and which results have to wait.
"""

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Set
from typing import Protocol

from sparkle_protocol.facts import Policy
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.trust.attendance import Attendance
from sparkle_protocol.trust.audits import Audit, Audits
from sparkle_protocol.trust.coin import Coin, Lots
from sparkle_protocol.trust.deciding import Ruling, rule
from sparkle_protocol.trust.newcomers import Newcomers
from sparkle_protocol.trust.parameters import TrustRules
from sparkle_protocol.trust.turns import Turn, Turns

SECOND_NS = 1_000_000_000
LOOK_NS = SECOND_NS // 2
RIPE_NS = SECOND_NS
LEAST = 0.999  # so that who has no capital has a chance still
MAX_AWAITED = 4096  # final units; the oldest are forgotten
MAX_AUDITORS = 64  # that are drawn for one answer
MOST_UNDRAWN = 2  # a unit has one copy
FEW = 2  # answers that are enough of those who are asked because nobody else can be
READERS_SHARE = 0.25  # of all lots; who has more cannot be left out, or others would draw each other too often
LOTS_NS = 5 * SECOND_NS  # until it is looked at again who is there, and of what weight


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
        self,
        policy: Policy,
        judges: Judges,
        coin: Coin,
        rules: TrustRules,
        me: PeerId,
        now_ns: int,
        *,
        mine: bool,
        readers: Callable[[], Container[PeerId]] = frozenset,
    ) -> None:
        self.policy = policy
        self.rules = rules
        self.judges = judges
        self.audits = Audits()
        self.bootstrap = True
        self._coin = coin
        self._me = me
        self._alone_judges = mine
        self._readers = readers  # who is shown results before they are final
        self._started_ns = self._looked_ns = now_ns
        self._attendance = Attendance(judges.counts, me)
        self.turns = Turns()
        self._own_ns: int | None = None  # when our own worker was heard of last
        self._lots: tuple[int, Lots] | None = None  # and when they were made
        self._stuck: dict[int, int] = {}  # units that lack somebody who counts; since when, 0: not looked at
        self._single: dict[int, int] = {}  # units with one answer that keepers decide about, and since when
        self._ripe: set[int] = set()  # of these, those about which all had time to say something
        self._relaxed: set[int] = set()  # units about which everybody counts
        self.newcomers = Newcomers(judges, rules)
        self._between_known: set[int] = set()  # open units about which workers that count disagree
        self._awaited: dict[int, Set[PeerId]] = {}  # final units: who committed in time and has not shown its result
        self.refresh(now_ns)

    # --- who is there -------------------------------------------------------------------------------------

    def saw(self, worker: PeerId, now_ns: int, *, works: bool) -> None:
        """The worker asked for work or reported; ``works``: on units that it is not late with."""
        self._attendance.saw(worker, now_ns, works=works)
        if worker == self._me:
            self._own_ns = now_ns
        elif not self.judges.counts(worker):
            self.newcomers.saw(worker, now_ns)

    def takes_over(self, now_ns: int) -> None:
        """It is for us to decide from now on: workers have not come to us before."""
        self._started_ns = now_ns

    def left(self, worker: PeerId) -> None:
        """The worker's connection is gone."""
        self._attendance.left(worker)

    def is_due(self, now_ns: int) -> bool:
        """``refresh`` and ``relax`` were not called for a moment, so something may have changed."""
        if now_ns - self._looked_ns < LOOK_NS and not self.bootstrap:
            return False
        self._looked_ns = now_ns
        return True

    def refresh(self, now_ns: int) -> bool:
        """See whether enough peers are there whose answers count; True when that changed."""
        before = self.bootstrap
        few, present_ns = not self.judges.knows_enough(), now_ns - int(self.rules.present_s * SECOND_NS)
        if not few:
            self.newcomers.line_up(len(self._attendance.everybody(present_ns)), present_ns)
        if not few and now_ns - self._started_ns >= self.rules.patience_s * SECOND_NS:
            few = not self._attendance.are(self.rules.enough_known, present_ns)
        self.bootstrap = few
        return before != few

    # --- whose answers count ------------------------------------------------------------------------------

    def counts(self, unit: int, worker: PeerId) -> bool:
        """An answer of the worker about a unit counts."""
        return worker == self._me or unit in self._relaxed or self.judges.counts(worker)

    def counting(self, unit: int, workers: Iterable[PeerId]) -> int:
        """How many of these count."""
        return sum(1 for worker in workers if self.counts(unit, worker))

    def rule(self, unit: int, votes: Mapping[PeerId, ResultHash], own: Set[PeerId]) -> Ruling:
        """What the votes on a unit mean."""
        few, audit = self.rules.theta_of_few, self.audits.of(unit)
        needed = audit.wanted if audit is not None else 1
        if unit in self._relaxed:
            needed = min(needed, FEW)
        ruling = rule(
            self.policy, votes, lambda worker: self.counts(unit, worker), self.judges.credibility, own,
            few if unit in self._relaxed else self.rules.theta,
            known=self.judges.counts, theta_at_last=few, needed=needed,
        )  # fmt: skip
        if (
            ruling.accepted is None
            and len({given for worker, given in votes.items() if self.counts(unit, worker)}) > 1
        ):
            self._between_known.add(unit)
        else:
            self._between_known.discard(unit)
        return ruling

    def may_add(self, unit: int, worker: PeerId, others: Iterable[PeerId], now_ns: int) -> bool:
        """An answer of the worker is of use for a unit that ``others`` work on or answered.

        A newcomer's is if it is the only one: it is compared, which is how newcomers become known. What one answer is
        not enough for is for those who were drawn.
        """
        if not self.counts(unit, worker):
            if self.audits.of(unit) is not None or not self.newcomers.may_take(worker):
                return False
            return all(self.counts(unit, other) for other in others)
        if worker == self._me:
            return True
        return self.is_named(unit, worker) and not self._is_for_us(unit, now_ns)

    def _is_for_us(self, unit: int, now_ns: int) -> bool:
        """Known workers gave different results, and our own node is at work: what it finds settles that.

        Others could settle it as well, but if they lie together somebody honest would lose its standing.
        """
        if unit not in self._between_known or self._own_ns is None:
            return False
        return now_ns - self._own_ns < self.rules.patience_s * SECOND_NS

    def is_named(self, unit: int, worker: PeerId) -> bool:
        """It is the worker's turn, or anybody's whose answer counts."""
        turn = self.turns.of(unit)
        return turn is None or turn.named is None or worker in turn.named or unit in self._relaxed

    def advance(self, now_ns: int, unit_s: float) -> list[int]:
        """Units that others may take than before; ``unit_s``: after which a busy worker comes by."""
        turn_ns = int(max(self.rules.next_auditor_s, unit_s) * SECOND_NS)
        return self.turns.advance(now_ns, turn_ns, lambda worker: self._attendance.is_there(worker, now_ns))

    def is_for_few(self, unit: int) -> bool:
        """Only those whose turn it is may take the unit, and our own node."""
        return unit not in self._relaxed and self.named_now(unit) is not None

    def take_called(self) -> list[PeerId]:
        """Whose turn has come since the last call; our own node may take whatever anybody may."""
        called = self.turns.take_called()
        return [self._me, *called] if called else []

    def named_now(self, unit: int) -> list[PeerId] | None:
        """Whose turn it is to give the unit's next answer; None: anybody's who counts."""
        turn = self.turns.of(unit)
        return sorted(turn.named) if turn is not None and turn.named is not None else None

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
        at_work: Iterable[PeerId] = (),
        draws: bool,
    ) -> bool:
        """A result that ``givers`` gave may become final; else it is audited, or waits for an audit's end.

        Args:
            unit: which.
            givers: who gave the result.
            commits: who committed to any.
            own: whose result is not audited.
            now_ns: monotonic clock.
            at_work: who else may still give one.
            draws: it is for us to have it audited. What is for others waits for their verdict.
        """
        if self.bootstrap or not own.isdisjoint(givers):
            return True
        counting = sorted(worker for worker in givers if self.counts(unit, worker))
        drawn = self.turns.of(unit) is not None  # somebody was, who may have answered
        if self.audits.of(unit) is not None or (drawn and len(counting) > 1):
            return True
        if not draws:
            return False
        if not self._draw(unit, counting, commits, at_work, now_ns):
            return False
        waits = [worker for worker in counting if self.audits.is_open(worker)]
        if len(waits) < len(counting):
            return True
        self.audits.hold(unit, waits[0])
        return False

    def _draw(
        self, unit: int, workers: list[PeerId], commits: Mapping[PeerId, bytes], others: Iterable[PeerId], now_ns: int
    ) -> bool:
        """Let the coin fall, once for each; False when there is an audit."""
        for worker in workers:
            commit, rate = commits.get(worker, b""), self._own_rate(worker)
            if self.audits.is_spared(unit, worker):
                continue
            if not self._coin.is_audited(unit, commit, rate):
                self.audits.spare(unit, worker)
                continue
            self._begin(unit, worker, rate, self.counting(unit, {*workers, *others}), commits, now_ns)
            return False
        return True

    def _begin(
        self, unit: int, worker: PeerId, rate: float, undrawn: int, commits: Mapping[PeerId, bytes], now_ns: int
    ) -> None:
        """Have a result compared; ``undrawn``: how many answer without having been drawn for it."""
        self.audits.begin(unit, Audit(worker, rate, (worker,), min(undrawn, MOST_UNDRAWN) + 1))
        self._call(unit, commits, now_ns)

    def dispute(self, unit: int, commits: Mapping[PeerId, bytes], now_ns: int) -> None:
        """Answers differ, and one more is wanted: by lot, and who gave these waits for it."""
        if self.audits.of(unit) is None:
            self.audits.begin(unit, Audit(PeerId(""), 1.0, (), 2))
        self.audits.suspect(unit, [worker for worker in commits if self.counts(unit, worker)])
        turn = self.turns.of(unit)
        if turn is None or turn.answers < len(commits):
            self._call(unit, commits, now_ns)

    def _call(self, unit: int, commits: Collection[PeerId], now_ns: int) -> None:
        """Draw who may give the next answer to a unit."""
        if self._lots is None or now_ns - self._lots[0] > LOTS_NS:
            self._lots = now_ns, Lots(self._weights(now_ns))
        order = self._coin.order(unit, len(commits), self._lots[1], MAX_AUDITORS)
        turn = Turn([worker for worker in order if worker not in commits], len(commits), now_ns)
        self.turns.begin(unit, turn, lambda worker: self._attendance.is_there(worker, now_ns))

    def _weights(self, now_ns: int) -> dict[PeerId, float]:
        """Of those who are there, in proportion to their capital, as far as that lowers the rate.

        Many who did little weigh little. Whoever is shown results before they are final could hand in what it is to
        audit, so these are left out where enough others are there.
        """
        there = self._attendance.everybody(now_ns - int(self.rules.present_s * SECOND_NS))
        weights = {peer: 1.0 / self.judges.audit_rate(peer) - LEAST for peer in there}
        readers = self._readers()
        others = {peer: weight for peer, weight in weights.items() if peer not in readers}
        few = sum(weights.values()) * (1.0 - READERS_SHARE)
        return others if others and sum(others.values()) >= few else weights

    # --- where several keepers decide ---------------------------------------------------------------------

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

    def begin_audit(
        self, unit: int, givers: Set[PeerId], commits: Mapping[PeerId, bytes], at_work: Iterable[PeerId], now_ns: int
    ) -> None:
        """Others call for an audit of the unit's single answer."""
        worker = next((one for one in sorted(givers) if self.counts(unit, one)), None)
        if worker is not None and self.audits.of(unit) is None:
            undrawn = self.counting(unit, {*givers, *at_work})
            self._begin(unit, worker, self.judges.audit_rate(worker), undrawn, commits, now_ns)

    def first_seen(self, unit: int, now_ns: int) -> bool:
        """The unit has a single answer; True when that is new."""
        if unit in self._single:
            return False
        self._single[unit] = now_ns
        return True

    def is_ripe(self, unit: int) -> bool:
        """All keepers had time to see the unit's single answer, and to call for a second one."""
        return unit in self._ripe

    def ripen(self) -> list[int]:
        """Units that have become so."""
        fresh = [
            unit
            for unit, since_ns in self._single.items()
            if unit not in self._ripe and self._looked_ns - since_ns >= RIPE_NS
        ]
        self._ripe.update(fresh)
        return fresh

    def is_overdue(self, unit: int) -> bool:
        """The second answer that a keeper called for does not come."""
        return self._looked_ns - self._single.get(unit, self._looked_ns) >= self.rules.patience_s * SECOND_NS

    # --- what comparisons say -----------------------------------------------------------------------------

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

    def relax(self, now_ns: int, part_in: Callable[[int], Container[PeerId]]) -> list[int]:
        """Units that wait, and nobody who counts is at work who could answer: from now on everybody may, for these.

        ``part_in``: who cannot answer a unit any more. So strangers decide nothing by taking more units than those
        who count have time for.
        """
        found, since_ns = [], now_ns - int(self.rules.patience_s * SECOND_NS)
        for unit, lacks_ns in self._stuck.items():
            if not lacks_ns:
                self._stuck[unit] = now_ns
            elif lacks_ns <= since_ns and not self._attendance.works(since_ns, part_in(unit)):
                found.append(unit)
        for unit in found:
            del self._stuck[unit]
            self._relaxed.add(unit)
        return found

    def next_deadline(self) -> int | None:
        """When there is something to look at again."""
        busy = len(self.turns) or self._stuck or len(self._ripe) < len(self._single)
        return self._looked_ns + LOOK_NS if busy else None

    def forget(self, unit: int) -> list[int]:
        """The unit is final, or begins anew; returns units that need not be held any more."""
        self._stuck.pop(unit, None)
        self._relaxed.discard(unit)
        self._single.pop(unit, None)
        self._ripe.discard(unit)
        self._between_known.discard(unit)
        self.turns.end(unit)
        return self.audits.end(unit)
