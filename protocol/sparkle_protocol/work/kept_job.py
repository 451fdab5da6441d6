"""One job at a keeper: what it hands out, what workers report, and what other keepers tell.

::

    pending ──lease──▶ leased ──commit──▶ committed ──all wanted committed──▶ reveal asked
       ▲                  │ expiry, failure, hand-back                            │ reveal
       └──────────────────┴──────────────◀── disagreement: one more worker ◀──── vote ──agreement──▶ decided
                                                                        decided ──enough keepers──▶ final

- Who is given which units is said in ``granting.py``; what becomes of results in ``judging.py`` and ``sealing.py``.
- A keeper hands out the units it has duty for (``duty.py``) but takes in what any worker of the job reports, if a
  lease by any keeper of the job shows that the worker was given the unit.
- When the view changes, every open unit begins a new epoch; whoever holds one of us gets a lease that carries it
  over, so that nothing is computed again.
"""

from collections.abc import Callable, Iterable

from sparkle_protocol.effects import StoreFact, StoreResult
from sparkle_protocol.errors import RemoteProtocolError, VerificationError
from sparkle_protocol.facts import (
    SEAL_UNITS,
    AuditCalls,
    CommitItem,
    Commits,
    Fact,
    FailureItem,
    Failures,
    KeeperSet,
    Leases,
    Reset,
    RevealItem,
    Reveals,
    Standings,
    Verdicts,
    epoch_of,
    is_reported,
    resets_of,
    view_of,
)
from sparkle_protocol.ids import PeerId, ResultHash, hash_result, key_from_peer_id
from sparkle_protocol.messages import Report, ReportReply
from sparkle_protocol.trust.job_trust import JobTrust
from sparkle_protocol.work.granting import Granted, Granting
from sparkle_protocol.work.intake import LEARNING_ORDER, WorkItem, check_report, named_results, new_items
from sparkle_protocol.work.judging import CheckResult
from sparkle_protocol.work.lease import SECOND_NS, LeaseBook
from sparkle_protocol.work.rejection import Rejection
from sparkle_protocol.work.rules import PRODUCTION, Rules
from sparkle_protocol.work.sealed import SealedRange
from sparkle_protocol.work.state import JobState

MAX_PROPOSALS = 8  # keeper sets by one keeper to follow the same one; it means one of them at a time
MAX_STANDINGS = (
    256  # statements of the submitter about workers; it makes one in a minute at most, and fewer and fewer
)
MAX_OWN_SETS = 1024  # keeper sets of one job by its submitter
TAKE_OVER_GRACE_NS = 30 * SECOND_NS  # for workers whose keeper went away to report to another


class KeptJob(Granting):
    """Leases, reports and decisions of one job. Methods append to ``records`` what must be stored."""

    def __init__(
        self,
        state: JobState,
        leases: Callable[[Callable[[int], bool]], LeaseBook],
        me: PeerId,
        check_result: CheckResult,
        now_ns: int,
        results: Iterable[ResultHash] = (),
        sealed: Iterable[SealedRange] = (),
        rejections: Iterable[Rejection] = (),
        rules: Rules = PRODUCTION,
        trust: Callable[[Callable[[PeerId], str]], JobTrust | None] = lambda _device_of: None,
    ) -> None:
        super().__init__(state, leases(self.is_decided), me, check_result, now_ns, rules)
        self.pays = rules.pays(state.spec)
        self.trust, self.calls = trust(self.devices.of), []
        self._init_sealing(sealed)
        self._init_granting()
        self.proven.restore_stored(rejections)
        self.carried: list[tuple[PeerId, Granted]] = []  # leases to be signed, see ``moved``
        self.to_endorse: dict[bytes, Fact] = {}  # verdicts that we may come to stand by
        self._view = state.view
        self._take_stock(results)
        self._restore(now_ns)
        self.restored_final = len(state.final_units)  # accepted in an earlier life of this node

    def _restore(self, now_ns: int) -> None:
        """Pick up from stored facts: leases are gone, commits and votes stand, overdue decisions are made."""
        self._restore_support()
        self._restore_sealed()
        for unit in sorted(self.state.touched_units()):
            if unit in self.state.sealed:
                self.proven.restore(self.state, unit)
                continue
            committed = self.state.committed(unit)
            self.replicas += len(committed)
            accepted, refused = self.state.accepted_workers(unit), self.state.rejected_workers(unit)
            self.accepted_by.update(accepted)
            self.proven.restore(self.state, unit)
            for worker in accepted:
                self._conduct.of(worker).accepted += 1
            for worker in committed:
                self._conduct.of(worker).commits += 1
            if self.mine:
                for worker in sorted(committed.keys() - accepted - refused):
                    self._unsettled.setdefault(worker, set()).add(unit)
            final = self.state.final(unit)
            if final is not None:
                if not self.has_result(final):
                    self.lacking[final] = None
                continue
            self.leases.book(unit).failures = len(self.state.failures(unit))
            self._dirty.add(unit)
        self.state.take_fresh_finals()
        self._restore_devices(now_ns)
        for unit in sorted(self._dirty):
            if self.state.failures(unit):
                self._judge_failures(unit, now_ns)
        self.settle_dirty(now_ns)

    def _restore_devices(self, now_ns: int) -> None:
        for fact in self.state.facts():
            self._note_device(fact)
            for item in fact.payload.items if type(fact.payload) is Failures else ():
                self.devices.failed(fact.author, item.unit, item.code, item.device, now_ns)
                self.devices.exclusion.restarted(now_ns)

    def _note_device(self, fact: Fact) -> None:
        if type(fact.payload) is Commits and fact.payload.device:
            self.devices.committed(fact.author, fact.payload.device)

    def _restore_support(self) -> None:
        """What we signed binds us, in every epoch; what others proposed is looked at again."""
        for fact in self.state.facts():
            if type(fact.payload) is not Verdicts:
                continue
            ours = self.me in self.state.supporters(fact.id)
            for item in fact.payload.items if ours else ():
                if item.unit not in self.state.final_units or item.epoch == self.state.epoch(item.unit):
                    self.support(item.unit, item.epoch, ResultHash(item.result_hash))
            if not ours and any(item.unit not in self.state.final_units for item in fact.payload.items):
                self.to_endorse[fact.id] = fact

    # --- leases -------------------------------------------------------------------------------------------

    def set_duty(self, spans: tuple[tuple[int, int], ...], *, leads: bool, now_ns: int) -> None:
        """Hand out the units of these spans from now on; ``leads``: decide as well."""
        before = self.leads
        self.leads = leads
        if self._view is None:
            self._view = self.state.view  # the first one: nobody was given anything before
        moved = self.leases.serve(spans)
        if moved and not self.mine:
            for unit in list(self.state.touched_units()):  # others may be at work on them
                if self.leases.serves(unit) and not self.is_decided(unit) and self.state.leased(unit):
                    self.leases.postpone(unit, now_ns + TAKE_OVER_GRACE_NS)
        if leads and not before and self.trust is not None:
            self.trust.takes_over(now_ns)
        if leads and (not before or (moved and (self.checks is not None or self.trust is not None))):
            self._dirty.update(unit for unit in self.state.touched_units() if not self.is_decided(unit))
            self.settle_dirty(now_ns)

    # --- reports of workers -------------------------------------------------------------------------------

    def report(self, worker: PeerId, message: Report, facts: list[Fact], now_ns: int) -> list[Fact]:
        """Take in what a worker says; returns what is new of it.

        Raises:
            RemoteProtocolError: it breaks a rule. Nothing but proofs of leases has changed then.
        """
        proofs = [fact for fact in facts if type(fact.payload) is Leases]
        new = [fact for fact in proofs if self._prove_lease(fact, worker)]
        facts = [fact for fact in facts if type(fact.payload) is not Leases]
        shown = check_report(self.state, worker, message, facts)
        self.leases.heard(worker, now_ns)
        self.saw(worker, now_ns, works=self.works(worker))
        malformed = self._first_malformed(worker, shown)
        for fact in facts:
            if malformed is not None and type(fact.payload) is Reveals:
                continue  # as if it had not been shown: nothing could be done with such a result later
            news = new_items(self.state, fact)
            if news and self.state.add(fact):
                new.append(fact)
                self.records.append(StoreFact(fact))
                self._note_device(fact)
                self._hear(worker, news, now_ns)
        if malformed is not None:
            if worker not in self.rejected:
                self._reject(malformed)
            for item, _ in shown:
                self.news.of(worker).drop[item.unit] = item.epoch
        else:
            for item, result in shown:
                self._shown(item, worker, result)
        for back in message.returned:
            if back.epoch == self.state.epoch(back.unit):
                self._unfinished(back.unit, worker)
            if back.unit in self.leases.books:
                self._dirty.add(back.unit)
        for beat in message.running:
            self._heartbeat(beat.unit, beat.epoch, worker, beat.progress, now_ns)
        self.settle_dirty(now_ns)
        self._too_late(worker, facts)
        return new

    def is_behind(self, facts: Iterable[Fact]) -> bool:
        """There are leases among these in a newer view than is known here."""
        newest = self.state.view.number if self.state.view is not None else -1
        proofs = (fact.payload for fact in facts if type(fact.payload) is Leases)
        return any(view_of(item.epoch) > newest for proof in proofs for item in proof.items)

    def _prove_lease(self, fact: Fact, worker: PeerId) -> bool:
        """Learn of a lease by another keeper; True when it is new."""
        if not self._is_lease(fact) or any(item.worker != key_from_peer_id(worker) for item in fact.payload.items):  # type: ignore[union-attr]
            raise RemoteProtocolError("a lease that proves nothing about its bearer")
        if not self.state.add(fact):
            return False
        self.records.append(StoreFact(fact))
        return True

    def _is_lease(self, fact: Fact) -> bool:
        payload = fact.payload
        return type(payload) is Leases and all(self.state.may_keep(fact.author, item.epoch) for item in payload.items)

    def _hear(self, worker: PeerId, items: list[WorkItem], now_ns: int) -> None:
        for item in items:
            self._dirty.add(item.unit)
            if type(item) is CommitItem:
                self._committed(item.unit, worker, now_ns)
            elif type(item) is FailureItem:
                self._failed(item, worker, now_ns)

    def _first_malformed(self, worker: PeerId, shown: Iterable[tuple[RevealItem, bytes]]) -> Rejection | None:
        for item, result in shown:
            if worker in self.state.votes(item.unit) or item.unit in self.state.sealed:
                continue
            try:
                self.check_result(self.state.spec, item.unit, result)
            except VerificationError:
                return Rejection(item.unit, worker, ResultHash(item.result_hash), None, (), "malformed")
        return None

    def _committed(self, unit: int, worker: PeerId, now_ns: int) -> None:
        lease = self.leases.release(unit, worker, unfinished=False)
        if lease is not None and not self.is_newcomer(worker):  # made up results take no time
            self.leases.committed_after(now_ns - lease.granted_ns)
            self._answered.append(lease.granted_ns)
        if self._equivocated(unit, worker):
            return
        self._executed(unit, worker)
        self._conduct.of(worker).commits += 1
        if lease is not None and lease.copy and self._decision(unit).wanted > len(self.participants(unit)):
            self.leases.copy_again(unit, now_ns)
        if unit in self.dead:
            self.news.of(worker).drop[unit] = self.state.epoch(unit)
        else:
            self._unsettled.setdefault(worker, set()).add(unit)

    def _equivocated(self, unit: int, worker: PeerId) -> bool:
        if worker not in self.state.equivocators(unit):
            return False
        if worker not in self.rejected:
            self._reject(Rejection(unit, worker, None, None, (), "equivocation"))
        return True

    def _shown(self, item: RevealItem, worker: PeerId, result: bytes) -> None:
        if self.state.votes(item.unit).get(worker) != item.result_hash:
            return
        if self.leases.shown(item.unit, worker):
            self._conduct.of(worker).withheld -= 1
        self._keep_result(result)

    def _keep_result(self, result: bytes) -> None:
        name = hash_result(result)
        if not self.has_result(name):
            self.records.append(StoreResult(self.state.id, name, result))
        if self.checks is not None:
            self.checks.remember(name, result)
        if name in self.lacking:
            self._dirty |= self._waiting.keys()
            self._waiting.clear()
            self._unseen.clear()
            self.look_for_seals()
        self.got_result(name)

    def _failed(self, item: FailureItem, worker: PeerId, now_ns: int) -> None:
        unit = item.unit
        self._unfinished(unit, worker)
        if self.is_decided(unit) or unit in self.dead or worker in self.rejected:
            return
        self.leases.delay(unit, now_ns)
        self.devices.failed(worker, unit, item.code, item.device, now_ns)
        self._judge_failures(unit, now_ns)

    def _heartbeat(self, unit: int, epoch: int, worker: PeerId, progress: float, now_ns: int) -> None:
        """A unit that a worker runs, or holds a committed result of."""
        news, current = self.news.of(worker), self.state.epoch(unit)
        if unit in self.state.sealed:
            self._tell_how_it_ended(unit, epoch, worker)
        elif unit in self.dead or not self.state.was_leased(unit, epoch, worker):
            news.drop[unit] = epoch
        elif epoch != current:
            if not self._carry(unit, worker, epoch, now_ns):
                news.drop[unit] = epoch
        elif worker in self.state.committed(unit):
            if self.checks is not None and self._is_over_for(unit, worker):
                return
            if worker not in self.state.judged(unit, self.decided(unit) or ResultHash(b"")):
                self._unsettled.setdefault(worker, set()).add(unit)
                self._dirty.add(unit)
            self._repeat_news(unit, worker)
        elif self.is_decided(unit) or (
            not self.leases.renew(unit, worker, progress, now_ns) and not self._readmit(unit, worker, now_ns)
        ):
            news.drop[unit] = epoch

    def _is_over_for(self, unit: int, worker: PeerId) -> bool:
        """A result need not be held any longer though nothing was accepted; the worker hears so again."""
        epoch, news = self.state.epoch(unit), self.news.of(worker)
        if worker in self.state.accepted_workers(unit):
            return False
        if self.checks is not None and worker in self.checks.of(unit).wrong:
            news.settled[unit] = (epoch, False)
            return True
        if worker in self.rejected or unit in self.state.final_units:
            news.drop[unit] = epoch
            return True
        return False

    def _readmit(self, unit: int, worker: PeerId, now_ns: int) -> bool:
        """A worker still runs a unit whose lease ran out (or was forgotten in a restart): let it go on."""
        if self._allowance(worker, now_ns) <= 0 or not self.may_take(unit, worker, now_ns):
            return False
        self.leases.grant(unit, worker, now_ns)
        self._refresh(unit)
        return True

    def _repeat_news(self, unit: int, worker: PeerId) -> None:
        """Say again what a worker with a committed result may have missed."""
        epoch, news, book = self.state.epoch(unit), self.news.of(worker), self.leases.known(unit)
        given = self.state.votes(unit).get(worker)
        if given in self.lacking and unit not in self.state.final_units:
            news.reveal[unit] = epoch  # it was shown to keepers that are gone
        elif given is None:
            if worker in book.asked or worker in book.withheld or self.is_decided(unit):
                news.reveal[unit] = epoch
        elif worker in self.state.accepted_workers(unit):
            news.settled[unit] = (epoch, True)
        elif worker in self.state.rejected_workers(unit):
            news.settled[unit] = (epoch, False)

    def lost(self, worker: PeerId, now_ns: int) -> None:
        """A worker's connection broke; it keeps what it holds only if it is soon back."""
        self.leases.lost(worker, self._unsettled.get(worker, ()), now_ns)
        self.left(worker)

    # --- what other keepers tell --------------------------------------------------------------------------

    def learn(self, facts: Iterable[Fact], results: Iterable[bytes], now_ns: int) -> list[Fact]:
        """Take in facts and results that another keeper holds; returns those facts that are new and count.

        What counts only by others of these facts is taken in whatever their order.
        """
        new: list[Fact] = []
        by_name = {hash_result(result): result for result in results}
        left = sorted(facts, key=lambda one: LEARNING_ORDER.get(type(one.payload), 0))
        before = -1
        while before != len(new):  # a keeper set counts by those before it, and other facts by the sets
            before = len(new)
            left = [fact for fact in left if not self._take_in(fact, by_name, new, now_ns)]
        wanted = {name for fact in new for name in named_results(fact)} if by_name else set()
        for name, result in by_name.items():
            if name in self.lacking or (name in wanted and name not in self._results):
                self._keep_result(result)
        self.moved(now_ns)
        self.take_finals((), now_ns)
        return new

    def _take_in(self, fact: Fact, results: dict[ResultHash, bytes], new: list[Fact], now_ns: int) -> bool:
        """Learn of one fact, and add it to ``new`` if it is; False when it may not be stated, as far as is known."""
        if fact.id in self.state:
            return True
        if not self._is_plausible(fact):
            return False
        if self.mine and self.state.replaces_final(fact):
            return True  # what our user was told stands, also after a restart: the fact is not stored
        if self._is_malformed(fact, results):
            return True
        reset = fact.payload if type(fact.payload) is Reset else None
        if reset is not None and self._starts_over(reset):
            self.start_over(reset.unit)
        if self.state.add(fact):
            self.records.append(StoreFact(fact))
            new.append(fact)
            self._note(fact, now_ns)
        return True

    def _starts_over(self, reset: Reset) -> bool:
        return reset.unit not in self.state.sealed and reset.resets > self.state.reset_count(reset.unit)

    def _is_plausible(self, fact: Fact) -> bool:
        """The fact may be stated by its author, as far as can be told here."""
        payload, state = fact.payload, self.state
        try:
            state.check(fact)
        except RemoteProtocolError:
            return False
        if type(payload) is Leases:
            return self._is_lease(fact)
        if is_reported(payload):
            return all(
                item.unit in state.sealed or state.was_leased(item.unit, item.epoch, fact.author)
                for item in payload.items
            )
        if type(payload) is KeeperSet:
            if fact.author == state.submitter:
                return state.views.stated_by(fact.author) < MAX_OWN_SETS
            return self._may_propose(fact.author, payload)
        if type(payload) is Standings and state.standings.stated >= MAX_STANDINGS:
            return False
        if (type(payload) is Verdicts or type(payload) is AuditCalls) and not all(
            self._has_begun(item.unit, item.epoch) for item in payload.items
        ):
            return False
        return fact.author == state.submitter or state.views.ever_kept(fact.author)

    def _has_begun(self, unit: int, epoch: int) -> bool:
        """An epoch of a unit is there, as far as is known; verdicts in others come again by comparison.

        So nobody can have more epochs of a unit looked after than there were views and resets of it.
        """
        return self.state.views.get(view_of(epoch)) is not None and resets_of(epoch) <= self.state.reset_count(unit)

    def _may_propose(self, keeper: PeerId, proposed: KeeperSet) -> bool:
        """A keeper proposes a few sets to follow one that counts and holds it; no flood of them is kept."""
        before = self.state.views.get(proposed.view - 1)
        if before is None or not before.holds(keeper) or before.fact.id != proposed.previous:
            return False
        return sum(1 for fact in self.state.views.successors(before) if fact.author == keeper) < MAX_PROPOSALS

    def _is_malformed(self, fact: Fact, results: dict[ResultHash, bytes]) -> bool:
        if type(fact.payload) is not Reveals:
            return False
        items = [(i, results[ResultHash(i.result_hash)]) for i in fact.payload.items if i.result_hash in results]
        malformed = self._first_malformed(fact.author, items)
        if malformed is not None and fact.author not in self.rejected:
            self._reject(malformed)
        return malformed is not None

    def _note(self, fact: Fact, now_ns: int) -> None:
        payload = fact.payload
        if type(payload) is Verdicts:
            self.to_endorse[fact.id] = fact
            self._to_seal.update(item.unit // SEAL_UNITS for item in payload.items[:1])
        elif type(payload) is Reset:
            self._dirty.add(payload.unit)
        elif type(payload) is AuditCalls:
            self._dirty.update(item.unit for item in payload.items)
        elif type(payload) is Standings:
            self._dirty.update(unit for unit in self.state.touched_units() if not self.is_decided(unit))
        elif is_reported(payload):
            self._note_device(fact)
            for item in payload.items:
                if item.unit in self.state.sealed:
                    continue
                self._dirty.add(item.unit)
                if type(item) is CommitItem and not self._equivocated(item.unit, fact.author):
                    self._executed(item.unit, fact.author)
                elif type(item) is RevealItem:
                    if self.leases.shown(item.unit, fact.author):
                        self._conduct.of(fact.author).withheld -= 1
                elif type(item) is FailureItem:
                    self.devices.failed(fact.author, item.unit, item.code, item.device, now_ns)
                    self._judge_failures(item.unit, now_ns)

    def _forget_verdicts(self, dropped: list[Fact]) -> None:
        for fact in dropped:
            self.to_endorse.pop(fact.id, None)

    def moved(self, now_ns: int) -> None:
        """If the view changed, every open unit is in a new epoch: whoever holds one here is carried over."""
        before, self._view = self._view, self.state.view
        if before is None or self._view is None or before.number == self._view.number:
            return
        heard = self.leases.silences()
        stated = {(unit, worker) for worker, units in self._unsettled.items() for unit in units}
        self._stated_before = {one for one in self._stated_before | stated if one[0] not in self.state.final_units}
        holders = [
            (unit, worker)
            for worker in (*self.leases.holders(), *self._unsettled)
            for unit in (*self.leases.held_by(worker), *self._unsettled.get(worker, ()))
            if unit not in self.state.final_units and unit not in self.dead
        ]
        for unit in [unit for unit in self.leases.books if unit not in self.state.final_units]:
            for worker in tuple(self.leases.known(unit).leases):
                self.leases.release(unit, worker, unfinished=False)
            for worker in self.leases.acquit(unit):
                self._conduct.of(worker).withheld -= 1
            self.leases.start_over(unit)
            if self.trust is not None:
                self._dirty.update(self.trust.forget(unit))  # its answers belong to an epoch that is over
            self._dirty.add(unit)
        for worker in list(self._unsettled):
            for unit in list(self._unsettled[worker]):
                if unit not in self.state.final_units:
                    self._forget_unsettled(unit, worker)
        for unit, worker in dict.fromkeys(holders):
            self._grant_carried(unit, worker, now_ns)
        self.leases.keep_silences(heard)  # or who is frozen would be missed that much later

    def _carry(self, unit: int, worker: PeerId, epoch: int, now_ns: int) -> bool:
        """A worker holds a unit of an older view: let it go on in this one."""
        current = self.state.epoch(unit)
        if epoch > current or resets_of(epoch) != resets_of(current) or self.is_decided(unit):
            return False
        if not self.state.may_keep(self.me, current) or worker in self.rejected:
            return False
        if worker not in self.leases.known(unit).leases:
            self._grant_carried(unit, worker, now_ns)
        return True

    def _grant_carried(self, unit: int, worker: PeerId, now_ns: int) -> None:
        epoch = epoch_of(self._view.number if self._view is not None else 0, self.state.reset_count(unit))
        if not self.state.may_keep(self.me, epoch) or worker in self.rejected:
            return
        lease = self.leases.grant(unit, worker, now_ns)
        self.carried.append((worker, (lease.counter, unit, epoch, lease.ttl_ns // 1_000_000)))
        self._dirty.add(unit)

    # --- time and ends ------------------------------------------------------------------------------------

    def expire(self, now_ns: int) -> list[tuple[int, PeerId, str]]:
        """End what ran out; returns (unit, worker, "lease" or "reveal") of each."""
        ran_out = []
        for unit, worker, kind in self.leases.expire(now_ns):
            if kind == "lease":
                self._conduct.of(worker).fruitless += 1
            elif kind == "reveal":
                self._conduct.of(worker).withheld += 1
            if kind in ("lease", "reveal"):
                ran_out.append((unit, worker, kind))
            elif kind == "look":
                self._in_doubt.pop(unit, None)
                self._judge_failures(unit, now_ns)
            self._dirty.add(unit)
        self.settle_dirty(now_ns)
        self.expect_results(now_ns)
        return ran_out

    def to_start_over(self, unit: int | None) -> list[int]:
        """The units that must begin a new epoch so that a dead one (None: all of them) can be computed again."""
        if unit is not None and unit not in self.dead:
            return []
        units = sorted(self.dead) if unit is None else [unit]
        if self.outcome == "failed":  # what was not judged then has been dropped by its workers
            units += [
                other
                for other in sorted(self.leases.books)
                if not self.is_decided(other) and other not in self.dead and self.state.committed(other)
            ]
        return units

    def start_over(self, unit: int) -> None:
        """Forget what was done for a unit, in the moment before its Reset becomes a fact."""
        self._let_go(unit)
        self.leases.start_over(unit)
        if self.trust is not None:
            self._dirty.update(self.trust.forget(unit))
        self.dead.pop(unit, None)
        if self.checks is not None:
            self.checks.forget(unit)

    def go_on(self, now_ns: int) -> None:
        """Units have begun a new epoch: hand them out, and go on with the job if it had failed."""
        if self.outcome:
            self.outcome, self.error, self.ended_ns = "", "", None
            self.started_ns, self.restored_final = now_ns, len(self.state.final_units)
        for unit in list(self.leases.books):
            self._refresh(unit)

    def end(self, outcome: str, error: str, now_ns: int) -> None:
        """The job is over; everybody who still holds something of it will hear so."""
        self.outcome, self.error, self.ended_ns = outcome, error, now_ns
        self._nobody_has_a_part()
        for worker in (*self._unsettled, *self.leases.holders()):
            self.news.of(worker)
        for worker in self.leases.holders():
            for unit in self.leases.held_by(worker):
                self.leases.release(unit, worker, unfinished=False)

    def reply(self, worker: PeerId) -> ReportReply:
        """The news for a worker, taken out."""
        return self.news.take(worker, self.state.view_facts, ended=bool(self.outcome))
