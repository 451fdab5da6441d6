"""What becomes of units under the trust policy: answers of known workers count, and some of them are audited.

A job is under it when its spec names a floor (``Policy.audit_permille``) and its results are compared. The rules
stand in ``trust/deciding.py``, ``trust/standing.py`` and ``trust/audits.py``; here they meet votes, leases, verdicts:

- A unit with one answer that counts is *believed*. Whether it is final at once, waits for an audit of another result
  of its worker, or is audited itself, ``trust/audits.py`` says. No verdict is stated before, so whatever an audit
  throws out was never final, and nobody was paid for it.
- An audited unit wants one answer more that counts, by a lease like any other.
- Whoever committed by then is waited for, for as long as it has time to show its result: where one differs, be it a
  newcomer's, nothing is final yet. What comes later is compared with the verdict.
- While keepers decide, each of them may call for an audit (``_may_keepers_end``), and none endorses a single answer
  before the others had a moment to do so.
- Who loses an audit is rejected as in every disagreement, and what it answered counts no more. So its other units
  want somebody else, and its standing is gone for all jobs of this submitter.
"""

from collections.abc import Mapping, Set

from sparkle_protocol.facts import CallItem
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.trust.job_trust import JobTrust
from sparkle_protocol.work.judging import Judging
from sparkle_protocol.work.quorum import Decision
from sparkle_protocol.work.rejection import Rejection

MOST_HELD = 64  # results of one worker that may wait for an audit beside what it may have undecided


class Trusting(Judging):
    """The part of a kept job that weighs answers by who gave them."""

    trust: JobTrust | None = None
    calls: list[CallItem]  # of this step, to be signed
    unit_s: float  # how long a unit was seen to occupy a worker (``granting.py``)

    @property
    def _weighed(self) -> JobTrust | None:
        """The trust of the job while it decides; nobody's word counts more than another's otherwise."""
        return self.trust if self.trust is not None and not self.trust.bootstrap else None

    def _counted_votes(self, unit: int) -> dict[PeerId, ResultHash]:
        return {worker: given for worker, given in self.state.votes(unit).items() if worker not in self.rejected}

    def _decision(self, unit: int) -> Decision:
        trust = self._weighed
        if trust is None:
            return super()._decision(unit)
        ruling = trust.rule(unit, self._counted_votes(unit), self.trusted)
        return Decision(ruling.accepted, ruling.wanted, ruling.dead)

    def _lacking(self, unit: int, decision: Decision, answered: Set[PeerId]) -> int:
        trust = self._weighed
        if trust is None:
            return super()._lacking(unit, decision, answered)
        return decision.wanted - trust.counting(unit, answered)

    def _coming(self, unit: int, live: int) -> int:
        trust = self._weighed
        if trust is None:
            return super()._coming(unit, live)
        leases = self.leases.known(unit).leases
        return trust.counting(unit, (worker for worker, lease in leases.items() if not lease.slow))

    def may_add(self, unit: int, worker: PeerId, now_ns: int) -> bool:
        """An answer of the worker brings a unit further that wants one."""
        trust = self._weighed
        if trust is None:
            return True
        return trust.may_add(unit, worker, (*self.leases.known(unit).leases, *self.participants(unit)), now_ns)

    def _is_for_few(self, unit: int) -> bool:
        trust = self._weighed
        return trust is not None and trust.is_for_few(unit)

    def take_called(self) -> list[PeerId]:
        """Workers that may take units now which are not for everybody."""
        return self.trust.take_called() if self.trust is not None else []

    def may_copy(self, unit: int, worker: PeerId) -> bool:
        """The worker's answer could take the place of one that others are slow with."""
        trust = self._weighed
        return trust is None or (trust.counts(unit, worker) and trust.is_named(unit, worker))

    def is_newcomer(self, worker: PeerId) -> bool:
        """The worker's answers are only compared with those of others."""
        trust = self._weighed
        return trust is not None and worker != self.me and not trust.judges.counts(worker)

    def _excused(self, worker: PeerId) -> int:
        """Of the worker's undecided units, those that only wait for an audit; it can do nothing about it."""
        return min(self.trust.audits.held(worker), MOST_HELD) if self.trust is not None else 0

    def _settle(self, unit: int, now_ns: int) -> None:
        super()._settle(unit, now_ns)
        trust = self._weighed
        if trust is None or unit not in self._disputed or not self.leases.wants(unit):
            return
        if trust.rule(unit, self._counted_votes(unit), self.trusted).disputed:
            trust.dispute(unit, self.state.committed(unit), now_ns)

    def _kill(self, unit: int, reason: str) -> None:
        super()._kill(unit, reason)
        if self.trust is not None:
            self._dirty.update(self.trust.forget(unit))  # nothing can wait for an audit without an outcome

    def _refresh(self, unit: int) -> None:
        super()._refresh(unit)
        if self.trust is not None:
            self.trust.lacks(unit, lacking=self._weighed is not None and self.leases.wants(unit))

    # --- who is there -------------------------------------------------------------------------------------

    def saw(self, worker: PeerId, now_ns: int, *, works: bool) -> None:
        """The worker asks for work, or reports; ``works``: it has some, of whatever job."""
        if self.trust is not None:
            self.trust.saw(worker, now_ns, works=works and worker not in self.rejected)

    def works(self, worker: PeerId) -> bool:
        """The worker holds units that it is not late with."""
        return self.leases.holds(worker) > self.leases.slow(worker)

    def left(self, worker: PeerId) -> None:
        """The worker's connection is gone."""
        if self.trust is not None:
            self.trust.left(worker)

    def heed(self, now_ns: int) -> None:
        """Time has passed, or others are there: see whose word counts now, and which units need not wait for them."""
        trust = self.trust
        if trust is None or self.outcome or not trust.is_due(now_ns):
            return
        changed = trust.relax(now_ns, self._part_in)
        if trust.refresh(now_ns):
            changed += [unit for unit in self.state.touched_units() if not self.is_decided(unit)]
        for worker in trust.newcomers.take_fresh():
            self.leases.show_again(worker)
        for unit in (*changed, *trust.advance(now_ns, self.unit_s)):  # others may take them than a moment ago
            self.leases.show_to_all(unit, tell=not self._is_for_few(unit))
        self._dirty.update(changed)
        self._dirty.update(trust.ripen())
        self.settle_dirty(now_ns)

    def _part_in(self, unit: int) -> set[PeerId]:
        """Who cannot give another answer to a unit."""
        return {*self.state.committed(unit), *self.state.failures(unit), *self.rejected}

    def next_heed_ns(self) -> int | None:
        """When ``heed`` is to be called at the latest."""
        return self.trust.next_deadline() if self.trust is not None and self.leads and not self.outcome else None

    # --- what becomes of results --------------------------------------------------------------------------

    def _may_end(self, unit: int, accepted: ResultHash, now_ns: int) -> bool:
        if self.trust is None:
            return True
        votes = self._counted_votes(unit)
        givers = {worker for worker, given in votes.items() if given == accepted}
        if self._weighed is not None and self.trusted.isdisjoint(givers) and self.participants(unit) - votes.keys():
            return False  # they committed before anybody was shown a result: each that differs is a reason to ask on
        commits, draws = self.state.committed(unit), self.leases.serves(unit)
        at_work = self.leases.known(unit).leases
        if not self.mine and not self._may_keepers_end(self.trust, unit, givers, commits, now_ns):
            return False
        return self.trust.may_end(unit, givers, commits, self.trusted, now_ns, at_work=at_work, draws=draws)

    def _may_keepers_end(
        self, trust: JobTrust, unit: int, givers: Set[PeerId], commits: Mapping[PeerId, bytes], now_ns: int
    ) -> bool:
        """While keepers decide, each draws by a coin of its own, and has a moment to say that it wants an audit.

        Whoever hands the unit out has it audited then; the others only call for it, and wait for a verdict.
        """
        if trust.bootstrap or trust.counting(unit, givers) > 1:
            return True
        serves, called = self.leases.serves(unit), self.state.callers(unit)
        if trust.first_seen(unit, now_ns) and not serves and trust.is_called(unit, givers, commits):
            self.calls.append(CallItem(unit, self.state.epoch(unit)))
        if serves and called:
            trust.begin_audit(unit, givers, commits, self.leases.known(unit).leases, now_ns)
        return serves and trust.is_ripe(unit)

    def may_join(self, unit: int) -> bool:
        """Nothing stands against endorsing another keeper's verdict on a unit."""
        trust = self._weighed
        if trust is None or trust.counting(unit, self._counted_votes(unit)) > 1 or trust.is_overdue(unit):
            return True
        wanted = self.state.callers(unit) or trust.needs_company(unit, self._counted_votes(unit))
        return trust.is_ripe(unit) and not wanted

    def _learn(self, unit: int, accepted: frozenset[PeerId], *, fresh: bool) -> None:
        trust = self.trust
        if trust is None:
            return
        judged = accepted - {self.me}
        if fresh:
            trust.newcomers.known_units += any(trust.judges.counts(worker) for worker in accepted)
            # Whoever committed by now did so before anybody was shown a result; it may still have to show its own.
            trust.awaits(unit, self.state.committed(unit).keys() - judged - self.rejected)
        else:
            judged &= trust.take_awaited(unit, judged)
        for worker in sorted(judged):
            self._compared(trust, unit, worker, accepted - {worker})
        self._dirty.update(trust.forget(unit))

    def _compared(self, trust: JobTrust, unit: int, worker: PeerId, others: frozenset[PeerId]) -> None:
        if not others or not (trust.bootstrap or trust.counting(unit, others)):
            return
        counted = trust.judges.counts(worker)
        trust.judges.passed(worker, others, trust.rate_of(unit, worker))
        if trust.judges.counts(worker) != counted:
            self._look_again(worker)

    def _look_again(self, worker: PeerId) -> None:
        """The worker's answers have another weight: it may take units that it was refused, and others may be done."""
        self.leases.show_again(worker)
        self._dirty.update(unit for unit in self._unsettled.get(worker, ()) if not self.is_decided(unit))

    def revalue(self, worker: PeerId, now_ns: int) -> None:
        """The worker turns out to be of another class of devices."""
        if self.trust is not None:
            self._look_again(worker)
            self.settle_dirty(now_ns)

    def _distrust(self, rejection: Rejection) -> None:
        if self.trust is not None:
            self._dirty.update(self.trust.audits.end_all(rejection.worker))
            if rejection.code != "minority" or not self.trust.bootstrap:  # strangers may have outvoted it
                self.trust.judges.failed(rejection.worker)
