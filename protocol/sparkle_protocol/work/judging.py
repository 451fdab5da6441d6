"""What becomes of the units of one job, as a keeper sees it: asked to be shown, decided, final, or dead.

- A result is asked for only after every replica wanted so far has committed, so that nobody can copy.
- Votes decide by ``quorum.decide`` (or as ``rules.py`` says for a study). The submitter's node trusts its own worker,
  except for ``critical`` jobs, where three workers must agree whoever they are.
- A keeper that *leads* (the submitter; any keeper while that is away, if there are enough to certify) states a
  verdict once it holds the agreed result. From then on it supports that result. A unit is final when enough
  keepers do (``state.py``), and only then are workers told.
- A worker whose revealed result loses against an accepted one is rejected: the reveals of the others are the
  evidence, kept as facts. A rejected worker gets nothing more, and no decision rests on its votes any more; units
  that they had helped along are looked at again. Its results for final units are still judged by comparison.
- Late commits and reveals for a decided unit are judged too. A result that was not shown in time counts for nothing
  until it is shown; meanwhile another worker is wanted.
- When a unit is dead, and what becomes of its job, is said in ``dead.py``.
- Where results are checked instead of compared (``checking.py``), the first one found right is accepted, and its
  worker alone is named. What others gave is dropped without judgement once the unit is final. While another keeper's
  verdict may be joined, no other is stated: each keeper stands by one result of an epoch, whatever comes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Set

from sparkle_protocol.effects import Record, StoreRejection
from sparkle_protocol.facts import SEAL_UNITS, JobSpec, VerdictItem
from sparkle_protocol.ids import PeerId, ResultHash, key_from_peer_id, peer_id_from_key
from sparkle_protocol.work.checking import Checks, Key
from sparkle_protocol.work.conduct import Conducts
from sparkle_protocol.work.dead import failure_verdict, has_failed
from sparkle_protocol.work.devices import Devices
from sparkle_protocol.work.lease import SECOND_NS, LeaseBook
from sparkle_protocol.work.news import Newsboard
from sparkle_protocol.work.quorum import Decision
from sparkle_protocol.work.rejection import Rejection, Rejections
from sparkle_protocol.work.rules import Rules
from sparkle_protocol.work.state import JobState

MAX_VERDICT_KEYS = 64
RESULT_PATIENCE_NS = 60 * SECOND_NS  # for a result that workers agreed on and no keeper that is there holds
MAX_RESULTS_REMEMBERED = 1 << 16  # names only; one that was forgotten is fetched again

CheckResult = Callable[[JobSpec, int, bytes], None]  # raises VerificationError for a result of impossible form


class Judging:
    """Votes and decisions of one job. Methods append to ``records`` what must be stored."""

    def __init__(
        self,
        state: JobState,
        leases: LeaseBook,
        me: PeerId,
        check_result: CheckResult,
        now_ns: int,
        rules: Rules,
    ) -> None:
        self.state = state
        self.rules = rules
        self.leases = leases
        self.me = me
        self.mine = state.submitter == me
        self.leads = self.mine
        # Whose result decides alone. `critical` wants that many workers even so.
        self.trusted = frozenset({me}) if self.mine and state.spec.policy.level != "critical" else frozenset()
        self.check_result = check_result
        self.checks = Checks() if state.checked else None
        self.started_ns = now_ns
        self.ended_ns: int | None = None
        self.outcome = ""  # "" while it runs, then "done", "cancelled" or "failed"
        self.error = ""
        self.dead: dict[int, str] = {}  # unit -> why
        self.died: list[int] = []  # of these, those of this step, to be told
        self.finalized: list[int] = []  # units that became final in this step, to be told
        self.proven = Rejections(me)
        self.accepted_by: Counter[PeerId] = Counter()
        self.replicas = 0
        self.news = Newsboard(state.id)
        self.records: list[Record] = []
        self.verdicts: list[VerdictItem] = []  # decided in this step, to be signed
        self.lacking: dict[ResultHash, None] = {}  # results that should be here and are not
        self._sought: set[ResultHash] = set()  # of these, those that no final unit needs (so far)
        self._results: dict[ResultHash, None] = {}  # those that are, of units not final yet
        self._deciding: dict[int, ResultHash] = {}  # their units
        self._supports: dict[int, dict[int, ResultHash]] = {}  # unit -> epoch -> what we stand by, unless it is final
        self._dirty: set[int] = set()  # units whose decision may change
        self._to_seal: set[int] = set()  # ranges that may have become ready to be sealed
        self.freed = False  # some worker may hold more units than before
        self._waiting: dict[int, int] = {}  # units whose decision waits for results; since when, 0: not looked at
        self._unseen: set[int] = set()  # of these, the ones that waited too long: somebody shall compute them again
        self._conduct = Conducts()
        self._unsettled: dict[PeerId, set[int]] = {}  # units that a worker committed to here and was not judged on
        self._disputed: dict[int, None] = {}  # open units with different votes
        self.devices = Devices()
        self._class_proven = False  # something was learnt about classes of devices in this step
        self._in_doubt: dict[int, None] = {}  # units whose failures may be the fault of a class of devices

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

    # --- where a unit stands ------------------------------------------------------------------------------

    def decided(self, unit: int) -> ResultHash | None:
        """The result that stands here: the final one, or the one that this keeper supports."""
        final = self.state.final(unit)
        if final is not None:
            return final
        return self.supports(unit, self.state.epoch(unit)) or self._deciding.get(unit)

    def is_decided(self, unit: int) -> bool:
        """Nothing more need be computed for the unit, unless its verdict finds no support."""
        return unit in self.state.final_units or self.decided(unit) is not None

    def supports(self, unit: int, epoch: int) -> ResultHash | None:
        """The result that this keeper stands by in an epoch."""
        own = self._supports.get(unit, {}).get(epoch)
        if own is None and unit in self.state.final_units and self.state.epoch(unit) == epoch:
            return self.state.final(unit)
        return own

    def supported_units(self) -> Iterable[int]:
        """Units of which this keeper stands by a result, those that are sealed left out."""
        return self._supports.keys()

    def support(self, unit: int, epoch: int, result: ResultHash) -> None:
        """From now on this keeper stands by a result, whatever comes to be final."""
        if self.supports(unit, epoch) != result:
            self._supports.setdefault(unit, {}).setdefault(epoch, result)

    def has_result(self, result: ResultHash) -> bool:
        """The result's bytes are kept here, as far as is remembered."""
        return result in self._results

    def got_result(self, result: ResultHash) -> None:
        """The result's bytes are kept here."""
        self.lacking.pop(result, None)
        self._sought.discard(result)
        self._results[result] = None
        if len(self._results) > MAX_RESULTS_REMEMBERED:
            del self._results[next(iter(self._results))]

    def seek(self, result: ResultHash) -> None:
        """We would stand by this result if we had its bytes."""
        if result not in self.lacking:
            self.lacking[result] = None
            self._sought.add(result)

    def keep_seeking(self, results: Iterable[ResultHash]) -> None:
        """Of what is sought we would still stand by these, or by what workers agreed on; forget the rest."""
        if self._sought:
            agreed = (given for unit in self._waiting for given in self.state.votes(unit).values())
            for name in self._sought.difference(results, agreed):
                self._sought.discard(name)
                self.lacking.pop(name, None)

    def missing(self, unit: int) -> int:
        """How many more workers the unit wants now."""
        if self._trusted_at_work(unit):
            return 0
        live = sum(1 for lease in self.leases.known(unit).leases.values() if not lease.slow)
        if unit in self._unseen:
            votes = self.state.votes(unit)
            return 1 - live - sum(1 for worker in self.participants(unit) if worker not in votes)
        return self._lacking(unit, self._decision(unit), self.participants(unit)) - self._coming(unit, live)

    def _is_for_few(self, unit: int) -> bool:
        """Not everybody may take the unit now; those who may are told."""
        return False

    def _lacking(self, unit: int, decision: Decision, answered: Set[PeerId]) -> int:
        """How much more a unit needs than the answers of these."""
        return decision.wanted - len(answered)

    def _coming(self, unit: int, live: int) -> int:
        """How much of what a unit needs is at work, on as many leases that are not slow."""
        return live

    def _trusted_at_work(self, unit: int) -> bool:
        for one in self.trusted:
            lease = self.leases.known(unit).leases.get(one)
            if lease is not None and not lease.slow:
                return True
            if one in self.state.committed(unit) and one in self.participants(unit):
                return one in self.state.votes(unit) or self._answers_here(unit, one)
        return False

    def _answers_here(self, unit: int, worker: PeerId) -> bool:
        """The worker reported the unit to this keeper, and not to another."""
        return unit in self._unsettled.get(worker, ())

    def participants(self, unit: int) -> set[PeerId]:
        """Workers whose binding commit counts: neither rejected, nor do they withhold the result."""
        found = self.state.committed(unit).keys() - self.rejected - self.leases.known(unit).withheld
        return found if self.checks is None else found - self.checks.of(unit).wrong.keys()

    def _decision(self, unit: int) -> Decision:
        votes = self.state.votes(unit)
        if not self.rejected.isdisjoint(votes):
            votes = {w: given for w, given in votes.items() if w not in self.rejected}
        if self.checks is not None:
            return self.checks.decide(
                self.state.spec.policy, unit, votes, self.trusted, lambda given: self._supporters(unit, given)
            )
        return self.rules.decide(self.state.spec.policy, votes, self.trusted)

    def agreed(self, unit: int) -> ResultHash | None:
        """What the votes known here accept."""
        return self._decision(unit).accepted

    def _refresh(self, unit: int) -> None:
        """Bring the queue up to date after anything happened to ``unit``."""
        open_ = not self.is_decided(unit) and unit not in self.dead and not self.outcome
        self.leases.want_more(unit, more=open_ and self.missing(unit) > 0, tell=not self._is_for_few(unit))
        if open_ and self.checks is None and len(set(self.state.votes(unit).values())) > 1:
            self._disputed[unit] = None
        else:
            self._disputed.pop(unit, None)

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
        if unit in self.dead or unit in self.state.sealed:
            return
        decided = self.decided(unit)
        if decided is None:
            self._check_votes(unit, now_ns)
        decision = self._decision(unit) if decided is None else None
        if decision is None or decision.accepted is not None:
            if decision is not None and self.leads and not self._may_join(unit, decision.accepted):
                accepted = ResultHash(decision.accepted or b"")
                decided = self._accept(unit, accepted) if self._may_end(unit, accepted, now_ns) else None
            self._ask_reveals(unit, now_ns)
            if decided is not None and self.leads:
                self._judge_latecomers(unit, decided)
        elif decision.dead:
            gave = f"unit {unit}: {len(self.state.votes(unit))} workers gave no majority"
            self._kill(unit, self.checks.why_dead(unit) if self.checks is not None else gave)
        else:
            present = self.participants(unit)
            if self.trusted & present or self._lacking(unit, decision, present) <= 0:
                self._ask_reveals(unit, now_ns)
        self._refresh(unit)
        if unit in self.state.final_units:
            self._reject_losers(unit)
            self.leases.forget(unit)
            self._to_seal.add(unit // SEAL_UNITS)

    def _may_end(self, unit: int, accepted: ResultHash, now_ns: int) -> bool:
        """A result that the votes accept may become final at once."""
        return True

    def _reject_losers(self, unit: int) -> None:
        """Whoever is known to have given another result than the final one takes no further part."""
        for worker in sorted(self.state.rejected_workers(unit)):
            self._reject(self.proven.by_votes(self.state, unit, worker, self.state.final(unit)))

    def _ask_reveals(self, unit: int, now_ns: int) -> None:
        """Have results shown. Who committed to another keeper is asked by that, and awaited here all the same."""
        if self.checks is not None and self.is_decided(unit):
            return
        votes, book = self.state.votes(unit), self.leases.known(unit)
        for worker in sorted(self.state.committed(unit)):
            if worker not in votes and worker not in book.asked and worker not in book.withheld:
                if self._answers_here(unit, worker):
                    self.news.of(worker).reveal[unit] = self.state.epoch(unit)
                elif self.is_decided(unit):
                    continue
                self.leases.ask_reveal(unit, worker, now_ns)

    def _accept(self, unit: int, accepted: ResultHash) -> ResultHash | None:
        if not self.has_result(accepted):
            self.seek(accepted)
            self._waiting.setdefault(unit, 0)
            return None
        self._verdict(unit, accepted, self._givers(unit, accepted))
        for worker in tuple(self.leases.known(unit).leases):
            self.leases.release(unit, worker, unfinished=False)
            self.news.of(worker).drop[unit] = self.state.epoch(unit)
        return accepted

    def expect_results(self, now_ns: int) -> None:
        """Who agreed on a unit, and who was shown its result, may all be gone: then it is computed once more."""
        for unit, since_ns in list(self._waiting.items()):
            if self.is_decided(unit):
                del self._waiting[unit]
                self._unseen.discard(unit)
            elif not since_ns:
                self._waiting[unit] = now_ns
            elif now_ns - since_ns >= RESULT_PATIENCE_NS and unit not in self._unseen:
                self._unseen.add(unit)
                self._refresh(unit)

    def _givers(self, unit: int, accepted: ResultHash) -> dict[PeerId, ResultHash]:
        """Whom a first verdict judges: everybody, or where results are checked one who gave this one."""
        votes = self.state.votes(unit)
        if self.checks is None:
            return votes
        gave = [worker for worker, given in votes.items() if given == accepted and worker not in self.rejected]
        return {min(gave, key=lambda worker: (worker not in self.trusted, worker)): accepted}

    def _judge_latecomers(self, unit: int, decided: ResultHash) -> None:
        if self.checks is not None:
            return
        judged = self.state.judged(unit, decided)
        judged |= {w for v in self.verdicts if v.unit == unit for w in _named(v)} if unit in self._deciding else set()
        late = {worker: given for worker, given in self.state.votes(unit).items() if worker not in judged}
        if late:
            self._verdict(unit, decided, late)

    def _verdict(self, unit: int, accepted: ResultHash, judged: dict[PeerId, ResultHash]) -> None:
        """State the accepted result and what became of ``judged``. A verdict names at least one who gave it."""
        epoch, votes = self.state.epoch(unit), self.state.votes(unit)
        agreeing = sorted(worker for worker, given in votes.items() if given == accepted)
        winners = sorted(worker for worker, given in judged.items() if given == accepted)
        losers = sorted(worker for worker, given in judged.items() if given != accepted)
        if not agreeing:  # decided by keepers whose evidence is not here yet
            return
        if self.supports(unit, epoch) not in (None, accepted) or not self.state.may_keep(self.me, epoch):
            return  # it became final against our word, or in a view that we did not keep
        for start in range(0, max(len(winners), len(losers)), MAX_VERDICT_KEYS):
            part = slice(start, start + MAX_VERDICT_KEYS)
            good, bad = winners[part] or agreeing[:1], losers[part]
            keys = [[key_from_peer_id(worker) for worker in side] for side in (good, bad)]
            self.verdicts.append(VerdictItem(unit, epoch, accepted, keys[0], keys[1]))
        self._deciding[unit] = accepted
        for worker in losers:
            self._reject(self.proven.by_votes(self.state, unit, worker, accepted))

    def signed(self, now_ns: int) -> None:
        """The verdicts of this step have become facts of the state."""
        late = {verdict.unit for verdict in self.verdicts if verdict.unit in self.state.final_units}
        for verdict in self.verdicts:
            self.support(verdict.unit, verdict.epoch, ResultHash(verdict.result_hash))
        self.verdicts.clear()
        self._deciding.clear()
        self.take_finals(late, now_ns)

    def take_finals(self, units: Iterable[int], now_ns: int) -> None:
        """Act on units that are final, or about whose final results more was said."""
        fresh = self.state.take_fresh_finals()
        self.finalized += fresh
        for unit in fresh:
            self._finalize(unit, now_ns, fresh=True)
        for unit in sorted(set(units).difference(fresh)):
            self._finalize(unit, now_ns, fresh=False)
            self._to_seal.add(unit // SEAL_UNITS)
        self._dirty.update(fresh)
        if self._class_proven:
            self._class_proven = False
            for unit in tuple(self._in_doubt):
                self._judge_failures(unit, now_ns)
        self.settle_dirty(now_ns)

    def _finalize(self, unit: int, now_ns: int, *, fresh: bool) -> None:
        """Tell those who answered here what became of it, and keep only what late answers need."""
        final, epoch = self.state.final(unit), self.state.epoch(unit)
        if final is None:
            return
        accepted, refused = self.state.accepted_workers(unit), self.state.rejected_workers(unit)
        for worker in sorted(accepted):
            if fresh or unit in self._unsettled.get(worker, ()):
                self.accepted_by[worker] += 1
                self._conduct.of(worker).accepted += 1
                self._class_proven |= self.devices.succeeded(worker, unit, now_ns)
                self.freed = True
        self._reject_losers(unit)
        self._learn(unit, accepted, fresh=fresh)
        if self.checks is not None:
            self._drop_latecomers(unit, epoch, accepted)
        for worker in sorted(accepted | refused):
            if unit in self._unsettled.get(worker, ()):
                self.news.of(worker).settled[unit] = (epoch, worker in accepted)
                self._forget_unsettled(unit, worker)
        for worker in tuple(self.leases.known(unit).leases):
            self.leases.release(unit, worker, unfinished=False)
            self.news.of(worker).drop[unit] = epoch
        own = self._supports.pop(unit, {}).get(epoch, final)
        if own != final:
            self._supports[unit] = {epoch: own}  # or we would come to sign for both
        if fresh and final not in self._results:
            self.lacking[final] = None
            self._sought.discard(final)

    def _learn(self, unit: int, accepted: frozenset[PeerId], *, fresh: bool) -> None:
        """What a final unit says about its workers."""

    def _forget_unsettled(self, unit: int, worker: PeerId) -> None:
        unsettled = self._unsettled.get(worker)
        if unsettled is not None:
            unsettled.discard(unit)
            if not unsettled:
                del self._unsettled[worker]

    def _reject(self, rejection: Rejection) -> None:
        """A worker proven wrong holds nothing further here; what it had a part in is looked at again."""
        worker = rejection.worker
        known = worker in self.rejected or worker == self.me
        if self.proven.add(rejection):
            self.records.append(StoreRejection(self.state.id, rejection.unit, worker, rejection.encode()))
        if known:
            return
        self._distrust(rejection)
        if self.checks is not None:
            self._drop_all(worker)
        for unit in self.leases.held_by(worker):
            self.leases.release(unit, worker, unfinished=False)
            self.news.of(worker).drop[unit] = self.state.epoch(unit)
            self._dirty.add(unit)
        self._dirty |= {unit for unit in self._unsettled.get(worker, ()) if not self.is_decided(unit)}

    def _distrust(self, rejection: Rejection) -> None:
        """A worker is rejected for the first time."""

    # --- results that are checked -------------------------------------------------------------------------

    def _check_votes(self, unit: int, now_ns: int) -> None:
        """Reject who shows what was found wrong; have checked what nobody knows about, if that is for us to do."""
        if self.checks is None or self.outcome:
            return
        epoch, ours = self.state.epoch(unit), self.leads and self.leases.serves(unit)
        for worker, given in sorted(self.state.votes(unit).items()):
            known = self.checks.of(unit)
            if worker in self.rejected or worker in self.trusted or given in known.right or worker in known.wrong:
                continue
            why = self.checks.why_wrong(unit, given)
            if why is not None:
                self._found_wrong(unit, worker, given, why)
            elif ours and self.checks.is_due(unit, epoch, worker, given, now_ns):
                if self.checks.has_bytes(given):
                    self.checks.want(unit, epoch, worker, given)
                else:
                    self.seek(given)
                    self._waiting.setdefault(unit, 0)

    def to_check(self, key: Key) -> bytes | None:
        """The result that is still to be checked when its turn has come."""
        unit, _, worker = key
        if self.checks is None:
            return None
        result = self.checks.pending(*key)
        if self.outcome or self.is_decided(unit) or unit in self.dead or worker in self.rejected:
            self.checks.answered(*key)
            return None
        return result

    def checked(self, key: Key, passed: bool | None, text: str, now_ns: int) -> None:
        """A check has ended."""
        unit, epoch, worker = key
        given = self.checks.answered(*key) if self.checks is not None else None
        if given is None or self.checks is None or self.outcome or unit in self.state.final_units:
            return
        if passed is None:
            again_ns = self.checks.in_vain(unit, epoch, worker, now_ns)
            if epoch == self.state.epoch(unit) and unit not in self.dead:
                self.leases.remind(unit, again_ns)
                self._withhold(unit, worker)
        else:
            if self.leases.shown(unit, worker):
                self._conduct.of(worker).withheld -= 1
            if passed:
                self.checks.found_right(unit, given)
            else:
                self._found_wrong(unit, worker, given, text)
        self._dirty.add(unit)
        self.settle_dirty(now_ns)

    def _withhold(self, unit: int, worker: PeerId) -> None:
        """A worker's result cannot be had: somebody else shall compute the unit."""
        withheld = self.leases.book(unit).withheld
        if worker not in withheld:
            withheld.add(worker)
            self._conduct.of(worker).withheld += 1

    def _found_wrong(self, unit: int, worker: PeerId, given: ResultHash, text: str) -> None:
        if self.checks is not None:
            self.checks.found_wrong(unit, worker, given, text)
        self.news.of(worker).settled[unit] = (self.state.epoch(unit), False)
        self._forget_unsettled(unit, worker)
        self._reject(Rejection(unit, worker, given, None, (), "check", text))
        self._dirty.add(unit)

    def _may_join(self, unit: int, accepted: ResultHash | None) -> bool:
        """Another keeper stands by another result that may be joined: two results of one epoch hold each other up.

        The submitter joins by a verdict of its own, so it waits until it has found that result right.
        """
        if self.checks is None:
            return False
        return any(
            given != accepted and self._is_joinable(unit, given)
            for given in self.state.support(unit, self.state.epoch(unit))
        )

    def _supporters(self, unit: int, given: ResultHash) -> int:
        return len(self.state.support(unit, self.state.epoch(unit)).get(given, ()))

    def _is_joinable(self, unit: int, given: ResultHash) -> bool:
        epoch = self.state.epoch(unit)
        named = {peer_id_from_key(key) for _, verdict in self.state.agreeing(unit, given) for key in verdict.accepted}
        if self.checks is None or self.checks.why_wrong(unit, given) is not None or not self.has_result(given):
            return False
        if not self.mine:
            return any(self.state.has_shown(unit, worker, given) for worker in named)
        return any(self.checks.pending(unit, epoch, worker) is not None for worker in named)

    def _drop_latecomers(self, unit: int, epoch: int, accepted: frozenset[PeerId]) -> None:
        """Whoever else computed a unit that is final may forget it; nobody is judged."""
        for worker in sorted(self.state.committed(unit).keys() - accepted):
            if unit in self._unsettled.get(worker, ()):
                self._forget_unsettled(unit, worker)
                self.news.of(worker).drop[unit] = epoch
        for worker in sorted(self.leases.acquit(unit)):  # nothing can be made good any more: it was a lease in vain
            conduct = self._conduct.of(worker)
            conduct.withheld -= 1
            conduct.commits -= 1
            conduct.fruitless += 1
        if self.checks is not None:
            self.checks.forget(unit)

    def _drop_all(self, worker: PeerId) -> None:
        """A worker's results are not looked at any more, as no comparison could judge them."""
        for unit in sorted(self._unsettled.get(worker, ())):
            if not self.is_decided(unit):
                self.news.of(worker).drop[unit] = self.state.epoch(unit)
                self._dirty.add(unit)
                self._forget_unsettled(unit, worker)

    # --- units that nobody can compute --------------------------------------------------------------------

    def _judge_failures(self, unit: int, now_ns: int) -> None:
        reason: str | None = ""
        if not self.is_decided(unit) and unit not in self.dead:
            trusted = self.me if self.mine else PeerId("")
            reason = failure_verdict(self.state, unit, self.rejected, trusted, self.devices, now_ns)
        if reason is None:
            if unit not in self._in_doubt:
                self._in_doubt[unit] = None
                self.leases.remind(unit, self.devices.exclusion.look_again_ns(now_ns))
        else:
            self._in_doubt.pop(unit, None)
        if reason:
            self._kill(unit, reason)
            for worker in self.state.failures(unit):  # it was not their fault
                self._conduct.forgive(worker)

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
            if unit in self._unsettled.get(worker, ()):
                self._forget_unsettled(unit, worker)
                self.news.of(worker).drop[unit] = self.state.epoch(unit)
        for worker in holders:
            self.news.of(worker).drop[unit] = self.state.epoch(unit)
        for worker in self.leases.acquit(unit):
            self._conduct.of(worker).withheld -= 1

    @property
    def has_failed(self) -> bool:
        """There are dead units, and nothing else is worth going on with."""
        return has_failed(self.state, self.dead)


def _named(verdict: VerdictItem) -> Iterable[PeerId]:
    return (peer_id_from_key(key) for key in (*verdict.accepted, *verdict.rejected))
