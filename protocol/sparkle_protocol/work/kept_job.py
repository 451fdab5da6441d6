"""One job at its keeper: units from pending to final.

::

    pending ──lease──▶ leased ──commit──▶ committed ──all wanted committed──▶ reveal asked
       ▲                  │ expiry, failure, hand-back                            │ reveal
       └──────────────────┴──────────────◀── disagreement: one more worker ◀──── vote ──agreement──▶ final

- A result is asked for only after every replica wanted so far has committed, so that nobody can copy.
- Votes decide by ``quorum.decide``. The keeper that is also the submitter trusts its own worker, except for
  ``critical`` jobs, where three workers must agree whoever they are.
- A worker whose revealed result loses against an accepted one is rejected: the reveals of the others are the
  evidence, kept as facts. A rejected worker gets nothing more, and no decision rests on its votes any more; units
  that they had helped along are looked at again. Its results for final units are still judged by comparison.
- Late commits and reveals for a final unit are judged too. A result that was not shown in time counts for nothing
  until it is shown; meanwhile another worker is wanted.
- How many units a worker may hold follows from how it behaved (``conduct.py``).
- When a unit is dead, and what becomes of its job, is said in ``dead.py``.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from sparkle_protocol.effects import Record, StoreFact, StoreResult
from sparkle_protocol.errors import VerificationError
from sparkle_protocol.facts import CommitItem, Fact, FailureItem, JobSpec, RevealItem, Reveals, VerdictItem
from sparkle_protocol.ids import PeerId, ResultHash, key_from_peer_id, peer_id_from_key
from sparkle_protocol.messages import Report, ReportReply
from sparkle_protocol.work.conduct import MOST_LEASES, Conducts
from sparkle_protocol.work.dead import failure_verdict, has_failed
from sparkle_protocol.work.intake import WorkItem, check_report, new_items
from sparkle_protocol.work.lease import LeaseBook, UnitBook
from sparkle_protocol.work.news import Newsboard
from sparkle_protocol.work.quorum import Decision, decide
from sparkle_protocol.work.rejection import Rejection, Rejections
from sparkle_protocol.work.state import JobState

MAX_VERDICT_KEYS = 64

Granted = tuple[int, int, int, int]  # counter, unit, epoch, ttl_ms
CheckResult = Callable[[JobSpec, int, bytes], None]  # raises VerificationError for a result of impossible form


class KeptJob:
    """Leases, votes and decisions of one job. Methods append to ``records`` what must be stored."""

    def __init__(
        self, state: JobState, leases: LeaseBook, me: PeerId, check_result: CheckResult, now_ns: int
    ) -> None:
        self.state = state
        self.leases = leases
        self.me = me
        # Whose result decides alone. `critical` wants that many workers even so.
        self.trusted = frozenset({me}) if state.spec.policy.level != "critical" else frozenset()
        self.check_result = check_result
        self.started_ns = now_ns
        self.ended_ns: int | None = None
        self.outcome = ""  # "" while it runs, then "done", "cancelled" or "failed"
        self.error = ""
        self.dead: dict[int, str] = {}  # unit -> why
        self.died: list[int] = []  # of these, those of this step, to be told
        self.proven = Rejections(me)
        self.accepted_by: Counter[PeerId] = Counter()
        self.replicas = 0
        self.news = Newsboard(state.id)
        self.records: list[Record] = []
        self.verdicts: list[VerdictItem] = []  # decided in this step, to be signed
        self._deciding: set[int] = set()  # their units
        self._dirty: set[int] = set()  # units whose decision may change
        self._conduct = Conducts()
        self._unsettled: dict[PeerId, set[int]] = {}  # units that a worker committed to and was not judged on
        self._disputed: dict[int, None] = {}  # open units with different votes
        self.restored_final = len(state.final_units)  # accepted in an earlier life of this node
        self._restore(now_ns)

    def _restore(self, now_ns: int) -> None:
        """Pick up from stored facts: leases are gone, commits and votes stand, overdue decisions are made."""
        for unit in sorted(self.state.touched_units()):
            book = self.leases.books.setdefault(unit, UnitBook())
            committed = self.state.committed(unit)
            self.replicas += len(committed)
            accepted, refused = self.state.accepted_workers(unit), self.state.rejected_workers(unit)
            self.accepted_by.update(accepted)
            self.proven.restore(self.state, unit)
            for worker in accepted:
                self._conduct.of(worker).accepted += 1
            for worker in committed:
                self._conduct.of(worker).commits += 1
            for worker in sorted(committed.keys() - accepted - refused):
                self._unsettled.setdefault(worker, set()).add(unit)
            book.failures = len(self.state.failures(unit))
            self._dirty.add(unit)
        for unit in sorted(self._dirty):
            if self.state.failures(unit):
                self._judge_failures(unit)
        self.settle_dirty(now_ns)

    @property
    def rejections(self) -> list[Rejection]:
        """Refused results with their evidence, the first ones."""
        return self.proven.kept

    @property
    def rejected_count(self) -> int:
        """How many results were refused."""
        return self.proven.count

    @property
    def rejected(self) -> set[PeerId]:
        """Workers that take no further part."""
        return self.proven.workers

    # --- leases -------------------------------------------------------------------------------------------

    def may_take(self, unit: int, worker: PeerId) -> bool:
        """``worker`` can add something to the unit now."""
        if self.is_final(unit) or unit in self.dead or worker in self.leases.known(unit).leases:
            return False
        if worker in self.state.committed(unit) or worker in self.state.failures(unit):
            return False
        if worker in self.state.equivocators(unit):
            return False
        return self.missing(unit) > 0 or (worker in self.trusted and not self._trusted_at_work(unit))

    def missing(self, unit: int) -> int:
        """How many more workers the unit wants now."""
        if self._trusted_at_work(unit):
            return 0
        live = sum(1 for lease in self.leases.known(unit).leases.values() if not lease.slow)
        return self._decision(unit).wanted - len(self.participants(unit)) - live

    def _trusted_at_work(self, unit: int) -> bool:
        leases, present = self.leases.known(unit).leases, self.participants(unit)
        return any((one in leases and not leases[one].slow) or one in present for one in self.trusted)

    def participants(self, unit: int) -> set[PeerId]:
        """Workers whose binding commit counts: neither rejected, nor do they withhold the result."""
        withheld = self.leases.known(unit).withheld
        return {
            worker for worker in self.state.committed(unit) if worker not in self.rejected and worker not in withheld
        }

    def _decision(self, unit: int) -> Decision:
        votes = {w: given for w, given in self.state.votes(unit).items() if w not in self.rejected}
        return decide(self.state.spec.policy, votes, self.trusted)

    def is_final(self, unit: int) -> bool:
        """Accepted by a verdict, signed already or about to be."""
        return unit in self.state.final_units or unit in self._deciding

    def grant(self, worker: PeerId, want: int, now_ns: int) -> list[Granted]:
        """Hand out up to ``want`` units."""
        source = self._own_order() if worker == self.me else self.leases.candidates(worker)
        allowed = self._allowance(worker, now_ns)
        if allowed <= 0 and self._may_help_out(worker):
            source, allowed = self.leases.wanted(worker), 1
        granted: list[Granted] = []
        want = min(want, allowed)
        if want <= 0 or worker in self.rejected:
            return granted
        for unit in source:
            if not self.may_take(unit, worker):
                continue
            granted.append(self._hand_out(unit, worker, now_ns))
            if len(granted) >= want:  # looked at before the next unit is drawn: each is shown only once
                break
        return granted

    def grant_copy(self, worker: PeerId, now_ns: int) -> list[Granted]:
        """A unit that others are slow with, for a worker that found no other work: one at most."""
        if worker in self.rejected or next(self.leases.fresh(), None) is not None:
            return []
        if self._allowance(worker, now_ns) <= 0 and not self._may_help_out(worker):
            return []
        for unit in self.leases.stragglers(now_ns):
            taken = self.is_final(unit) or unit in self.dead or worker in self.state.leased(unit)
            if not taken:
                return [self._hand_out(unit, worker, now_ns, copy=True)]
        return []

    def _hand_out(self, unit: int, worker: PeerId, now_ns: int, *, copy: bool = False) -> Granted:
        lease = self.leases.grant(unit, worker, now_ns, copy=copy)
        self._conduct.granted(worker, now_ns)
        self._refresh(unit)
        return lease.counter, unit, self.state.epoch(unit), lease.ttl_ns // 1_000_000

    def _may_help_out(self, worker: PeerId) -> bool:
        """Its hands are full of what others have not answered yet; so may be everybody's. It may take one more."""
        return not self.leases.holds(worker) and self._conduct.delivers(worker)

    def _allowance(self, worker: PeerId, now_ns: int) -> int:
        """How many more units a worker may get now, whatever it asks for."""
        if worker in self.rejected:
            return 0
        if worker == self.me:
            return MOST_LEASES
        undecided = self.leases.holds(worker) + len(self._unsettled.get(worker, ()))
        return self._conduct.allowance(worker, undecided, now_ns)

    def _own_order(self) -> Iterator[int]:
        """Our own result needs no second one: first what is in dispute, then fresh units, then the rest."""
        yield from tuple(self._disputed)
        yield from self.leases.fresh()
        yield from self.leases.wanted(self.me)

    def _refresh(self, unit: int) -> None:
        """Bring the queue up to date after anything happened to ``unit``."""
        open_ = not self.is_final(unit) and unit not in self.dead and not self.outcome
        self.leases.want_more(unit, more=open_ and self.missing(unit) > 0)
        if open_ and len(set(self.state.votes(unit).values())) > 1:
            self._disputed[unit] = None
        else:
            self._disputed.pop(unit, None)

    def _unfinished(self, unit: int, worker: PeerId) -> None:
        """A lease ends without a commit."""
        if self.leases.release(unit, worker) is not None:
            self._conduct.of(worker).fruitless += 1

    # --- reports ------------------------------------------------------------------------------------------

    def report(self, worker: PeerId, message: Report, facts: list[Fact], now_ns: int) -> None:
        """Take in what a worker says. Raises RemoteProtocolError before anything changes."""
        shown = check_report(self.state, worker, message, facts)
        self.leases.heard(worker, now_ns)
        malformed = self._first_malformed(worker, shown)
        for fact in facts:
            if malformed is not None and isinstance(fact.payload, Reveals):
                continue  # as if it had not been shown: nothing could be done with such a result later
            news = new_items(self.state, fact)
            if news and self.state.add(fact):
                self.records.append(StoreFact(fact))
                self._learn(worker, news, now_ns)
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

    def _learn(self, worker: PeerId, items: list[WorkItem], now_ns: int) -> None:
        for item in items:
            self._dirty.add(item.unit)
            if isinstance(item, CommitItem):
                self._committed(item.unit, worker, now_ns)
            elif isinstance(item, FailureItem):
                self._failed(item.unit, worker, now_ns)

    def _first_malformed(self, worker: PeerId, shown: list[tuple[RevealItem, bytes]]) -> Rejection | None:
        for item, result in shown:
            if worker in self.state.votes(item.unit):
                continue
            try:
                self.check_result(self.state.spec, item.unit, result)
            except VerificationError:
                return Rejection(item.unit, worker, ResultHash(item.result_hash), None, (), "malformed")
        return None

    def _committed(self, unit: int, worker: PeerId, now_ns: int) -> None:
        lease = self.leases.release(unit, worker, unfinished=False)
        if lease is not None:
            self.leases.committed_after(now_ns - lease.granted_ns)
        if worker in self.state.equivocators(unit):
            if worker not in self.rejected:
                self._reject(Rejection(unit, worker, None, None, (), "equivocation"))
            return
        self.replicas += 1
        self._conduct.of(worker).commits += 1
        if unit in self.dead:
            self.news.of(worker).drop[unit] = self.state.epoch(unit)
        else:
            self._unsettled.setdefault(worker, set()).add(unit)

    def _shown(self, item: RevealItem, worker: PeerId, result: bytes) -> None:
        if self.state.votes(item.unit).get(worker) != item.result_hash:
            return
        if self.leases.shown(item.unit, worker):
            self._conduct.of(worker).withheld -= 1
        self.records.append(StoreResult(self.state.id, ResultHash(item.result_hash), result))

    def _failed(self, unit: int, worker: PeerId, now_ns: int) -> None:
        self._unfinished(unit, worker)
        if self.is_final(unit) or unit in self.dead or worker in self.rejected:
            return
        self.leases.delay(unit, now_ns)
        self._judge_failures(unit)

    def _judge_failures(self, unit: int) -> None:
        reason = "" if self.is_final(unit) else failure_verdict(self.state, unit, self.rejected, self.me)
        if reason:
            self._kill(unit, reason)
            for worker in self.state.failures(unit):  # it was not their fault
                self._conduct.forgive(worker)

    def _heartbeat(self, unit: int, epoch: int, worker: PeerId, progress: float, now_ns: int) -> None:
        """A unit that a worker runs, or holds a committed result of."""
        news = self.news.of(worker)
        if epoch != self.state.epoch(unit) or unit in self.dead or not self.state.was_leased(unit, epoch, worker):
            news.drop[unit] = epoch
        elif worker in self.state.committed(unit):
            self._repeat_news(unit, worker)
        elif self.is_final(unit) or (
            not self.leases.renew(unit, worker, progress, now_ns) and not self._readmit(unit, worker, now_ns)
        ):
            news.drop[unit] = epoch

    def _readmit(self, unit: int, worker: PeerId, now_ns: int) -> bool:
        """A worker still runs a unit whose lease ran out (or was forgotten in a restart): let it go on."""
        if self._allowance(worker, now_ns) <= 0 or not self.may_take(unit, worker):
            return False
        self.leases.grant(unit, worker, now_ns)
        self._refresh(unit)
        return True

    def _repeat_news(self, unit: int, worker: PeerId) -> None:
        """Say again what a worker with a committed result may have missed."""
        epoch, news, book = self.state.epoch(unit), self.news.of(worker), self.leases.known(unit)
        if worker not in self.state.votes(unit):
            if worker in book.asked or worker in book.withheld or self.is_final(unit):
                news.reveal[unit] = epoch
        elif worker in self.state.accepted_workers(unit):
            news.settled[unit] = (epoch, True)
        elif worker in self.state.rejected_workers(unit):
            news.settled[unit] = (epoch, False)

    def lost(self, worker: PeerId, now_ns: int) -> None:
        """A worker's connection broke; it keeps what it holds only if it is soon back."""
        self.leases.lost(worker, self._unsettled.get(worker, ()), now_ns)

    # --- time ---------------------------------------------------------------------------------------------

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
            self._dirty.add(unit)
        self.settle_dirty(now_ns)
        return ran_out

    # --- decisions ----------------------------------------------------------------------------------------

    def settle_dirty(self, now_ns: int) -> None:
        """Settle every unit about which something was learnt; a rejection may touch further ones."""
        while self._dirty:
            batch = sorted(self._dirty)
            self._dirty.clear()
            for unit in batch:
                self._settle(unit, now_ns)

    def _settle(self, unit: int, now_ns: int) -> None:
        """Ask for reveals, accept, reject or want more, as the facts of a unit now demand."""
        if unit in self.dead:
            return
        decision = self._decision(unit)
        if self.is_final(unit):
            self._judge_latecomers(unit, now_ns)
        elif decision.accepted is not None:
            self._accept(unit, decision.accepted)
            self._judge_latecomers(unit, now_ns)
        elif decision.dead:
            self._kill(unit, f"unit {unit}: {len(self.state.votes(unit))} workers gave no majority")
        else:
            present = self.participants(unit)
            if self.trusted & present or len(present) >= decision.wanted:
                self._ask_reveals(unit, now_ns)
        self._refresh(unit)

    def _ask_reveals(self, unit: int, now_ns: int) -> None:
        votes, book = self.state.votes(unit), self.leases.known(unit)
        for worker in sorted(self.state.committed(unit)):
            if worker not in votes and worker not in book.asked and worker not in book.withheld:
                self.leases.ask_reveal(unit, worker, now_ns)
                self.news.of(worker).reveal[unit] = self.state.epoch(unit)

    def _accept(self, unit: int, accepted: ResultHash) -> None:
        self._verdict(unit, accepted, self.state.votes(unit))
        for worker in tuple(self.leases.known(unit).leases):
            self.leases.release(unit, worker, unfinished=False)
            self.news.of(worker).drop[unit] = self.state.epoch(unit)

    def _judge_latecomers(self, unit: int, now_ns: int) -> None:
        self._ask_reveals(unit, now_ns)
        mine = [v for v in self.verdicts if v.unit == unit] if unit in self._deciding else []
        final = self.state.verdict(unit) or mine[0]
        judged = self.state.accepted_workers(unit) | self.state.rejected_workers(unit)
        judged |= {peer_id_from_key(key) for verdict in mine for key in verdict.accepted + verdict.rejected}
        late = {worker: given for worker, given in self.state.votes(unit).items() if worker not in judged}
        if late:
            self._verdict(unit, ResultHash(final.result_hash), late)

    def _verdict(self, unit: int, accepted: ResultHash, judged: dict[PeerId, ResultHash]) -> None:
        """State the accepted result and what became of ``judged``. A verdict names at least one who gave it."""
        epoch, votes = self.state.epoch(unit), self.state.votes(unit)
        agreeing = sorted(worker for worker, given in votes.items() if given == accepted)
        winners = sorted(worker for worker, given in judged.items() if given == accepted)
        losers = sorted(worker for worker, given in judged.items() if given != accepted)
        for start in range(0, max(len(winners), len(losers)), MAX_VERDICT_KEYS):
            part = slice(start, start + MAX_VERDICT_KEYS)
            good, bad = winners[part] or agreeing[:1], losers[part]
            keys = [[key_from_peer_id(worker) for worker in side] for side in (good, bad)]
            self.verdicts.append(VerdictItem(unit, epoch, accepted, keys[0], keys[1]))
        self._deciding.add(unit)
        for worker in winners:
            self.accepted_by[worker] += 1
            self._conduct.of(worker).accepted += 1
            self._tell_settled(unit, epoch, worker, good=True)
        for worker in losers:
            self._reject(self.proven.by_votes(self.state, unit, worker, accepted))
            self._tell_settled(unit, epoch, worker, good=False)

    def _tell_settled(self, unit: int, epoch: int, worker: PeerId, *, good: bool) -> None:
        self.news.of(worker).settled[unit] = (epoch, good)
        self._forget_unsettled(unit, worker)

    def _forget_unsettled(self, unit: int, worker: PeerId) -> None:
        unsettled = self._unsettled.get(worker)
        if unsettled is not None:
            unsettled.discard(unit)
            if not unsettled:
                del self._unsettled[worker]

    def _reject(self, rejection: Rejection) -> None:
        """A worker proven wrong holds nothing further here; what it had a part in is looked at again."""
        worker = rejection.worker
        if not self.proven.add(rejection):
            return
        for unit in self.leases.held_by(worker):
            self.leases.release(unit, worker, unfinished=False)
            self.news.of(worker).drop[unit] = self.state.epoch(unit)
            self._dirty.add(unit)
        self._dirty |= {unit for unit in self._unsettled.get(worker, ()) if not self.is_final(unit)}

    def _kill(self, unit: int, reason: str) -> None:
        self.dead[unit] = reason
        self.died.append(unit)
        self._let_go(unit)
        self._refresh(unit)

    def _let_go(self, unit: int) -> None:
        """Nobody's part in a unit counts any more."""
        holders, committed = tuple(self.leases.known(unit).leases), tuple(self.state.committed(unit))
        for worker in holders:
            self.leases.release(unit, worker, unfinished=False)
        for worker in committed:
            self._forget_unsettled(unit, worker)
        for worker in (*holders, *committed):
            self.news.of(worker).drop[unit] = self.state.epoch(unit)

    @property
    def has_failed(self) -> bool:
        """There are dead units, and nothing else is worth going on with."""
        return has_failed(self.state, self.dead)

    def to_start_over(self, unit: int | None) -> list[int]:
        """The units that must begin a new epoch so that a dead one (None: all of them) can be computed again."""
        if unit is not None and unit not in self.dead:
            return []
        units = sorted(self.dead) if unit is None else [unit]
        if self.outcome == "failed":  # what was not judged then has been dropped by its workers
            units += [
                other
                for other in sorted(self.leases.books)
                if not self.is_final(other) and other not in self.dead and self.state.committed(other)
            ]
        return units

    def start_over(self, unit: int) -> None:
        """Forget what was done for a unit, in the moment before its Reset becomes a fact."""
        self._let_go(unit)
        for worker in self.leases.known(unit).withheld:
            self._conduct.of(worker).withheld -= 1
        self.leases.start_over(unit)
        self.dead.pop(unit, None)

    def go_on(self, now_ns: int) -> None:
        """Units have begun a new epoch: hand them out, and go on with the job if it had failed."""
        if self.outcome:
            self.outcome, self.error, self.ended_ns = "", "", None
            self.started_ns, self.restored_final = now_ns, len(self.state.final_units)
        for unit in self.leases.books:
            self._refresh(unit)

    def end(self, outcome: str, error: str, now_ns: int) -> None:
        """The job is over; everybody who still holds something of it will hear so."""
        self.outcome, self.error, self.ended_ns = outcome, error, now_ns
        for worker in (*self._unsettled, *self.leases.holders()):
            self.news.of(worker)
        for worker in self.leases.holders():
            for unit in self.leases.held_by(worker):
                self.leases.release(unit, worker, unfinished=False)

    def signed(self) -> None:
        """The verdicts of this step have become facts of the state."""
        self.verdicts.clear()
        self._deciding.clear()

    def reply(self, worker: PeerId) -> ReportReply:
        """The news for a worker, taken out."""
        return self.news.take(worker, ended=bool(self.outcome))
