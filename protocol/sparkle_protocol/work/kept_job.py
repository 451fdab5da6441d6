"""One job at its keeper: units from pending to final.

::

    pending ──lease──▶ leased ──commit──▶ committed ──all wanted committed──▶ reveal asked
       ▲                  │ expiry, failure, hand-back                            │ reveal
       └──────────────────┴──────────────◀── disagreement: one more worker ◀──── vote ──agreement──▶ final

- A result is asked for only after every replica wanted so far has committed, so that nobody can copy.
- Votes decide by ``quorum.decide``. The keeper that is also the submitter trusts its own worker.
- A worker whose revealed result loses against an accepted one is rejected: the reveals of the others are the
  evidence, kept as facts. Rejected workers count for nothing further in the job.
- Late commits and reveals for a final unit are still judged, by comparison with the final result.
- A unit is dead when ``max_replicas`` disagree, when three distinct workers fail alike, after five failures,
  or when the trusted worker fails.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sparkle_protocol.effects import Record, StoreFact, StoreResult
from sparkle_protocol.errors import RemoteProtocolError, VerificationError
from sparkle_protocol.facts import Commits, Fact, Failures, JobSpec, RevealItem, Reveals, VerdictItem
from sparkle_protocol.ids import PeerId, ResultHash, hash_result, key_from_peer_id, peer_id_from_key
from sparkle_protocol.messages import Report, ReportReply, Settled, UnitEpoch
from sparkle_protocol.work.lease import LeaseBook
from sparkle_protocol.work.quorum import Decision, decide
from sparkle_protocol.work.state import JobState, unit_epochs

MAX_FAILURES = 5
SAME_FAILURES = 3
MAX_REJECTIONS_KEPT = 256

CheckResult = Callable[[JobSpec, int, bytes], None]  # raises VerificationError for a result of impossible form


@dataclass(slots=True)
class News:
    """What one worker should hear about one job."""

    reveal: dict[int, int] = field(default_factory=dict)  # unit -> epoch
    drop: dict[int, int] = field(default_factory=dict)
    settled: dict[int, tuple[int, bool]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.reveal or self.drop or self.settled)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refused result and its evidence: who agreed on what instead."""

    unit: int
    worker: PeerId
    given: ResultHash | None  # None: two different commits, or a result of impossible form
    accepted: ResultHash | None
    agreeing: tuple[PeerId, ...]
    code: str  # "minority" | "trusted" | "equivocation" | "malformed"


class KeptJob:
    """Leases, votes and decisions of one job. Methods append to ``records`` what must be stored."""

    def __init__(
        self, state: JobState, leases: LeaseBook, me: PeerId, check_result: CheckResult, now_ns: int
    ) -> None:
        self.state = state
        self.leases = leases
        self.me = me
        self.check_result = check_result
        self.started_ns = now_ns
        self.ended_ns: int | None = None
        self.outcome = ""  # "" while it runs, then "done", "cancelled" or "failed"
        self.error = ""
        self.dead: dict[int, str] = {}
        self.rejections: list[Rejection] = []
        self.fresh_rejections: list[Rejection] = []  # of this step, to be told
        self.rejected_count = 0
        self.rejected: set[PeerId] = set()
        self.accepted_by: Counter[PeerId] = Counter()
        self.replicas = 0
        self.news: dict[PeerId, News] = {}
        self.records: list[Record] = []
        self.verdicts: list[VerdictItem] = []  # decided in this step, to be signed as one fact
        self._deciding: set[int] = set()  # their units
        self._dirty: set[int] = set()  # units whose decision may change because a worker was excluded
        for unit in sorted(state.touched_units()):
            self._restore(unit)

    def _restore(self, unit: int) -> None:
        """Pick up a unit from stored facts: leases are gone, commits and votes stand."""
        self.leases.book(unit)
        self.replicas += len(self.state.committed(unit))
        for worker in self.state.accepted_workers(unit):
            self.accepted_by[worker] += 1
        for worker in self.state.rejected_workers(unit):
            self.rejected.add(worker)
            self.rejected_count += 1
        if unit not in self.state.final_units:
            self.leases.want_more(unit, more=True)

    # --- leases -------------------------------------------------------------------------------------------

    def may_take(self, unit: int, worker: PeerId) -> bool:
        """``worker`` can add something to the unit now."""
        if self.is_final(unit) or unit in self.dead:
            return False
        book = self.leases.books.get(unit)
        if book is not None and (worker in book.leases or worker in book.withheld):
            return False
        taken = self.state.committed(unit).keys() | self.state.failures(unit).keys()
        if worker in taken or worker in self.state.equivocators(unit):
            return False
        return self.missing(unit) > 0 or (worker == self.me and not self._trusted_at_work(unit))

    def missing(self, unit: int) -> int:
        """How many more workers the unit wants now."""
        if self._trusted_at_work(unit):
            return 0
        book = self.leases.books.get(unit)
        live = len(book.leases) if book else 0
        return self._decision(unit).wanted - len(self.participants(unit)) - live

    def _trusted_at_work(self, unit: int) -> bool:
        book = self.leases.books.get(unit)
        return (book is not None and self.me in book.leases) or self.me in self.participants(unit)

    def participants(self, unit: int) -> set[PeerId]:
        """Workers whose binding commit counts: neither rejected, nor did they withhold the result."""
        book = self.leases.books.get(unit)
        withheld = book.withheld if book else set()
        votes = self.state.votes(unit)
        return {
            worker
            for worker in self.state.committed(unit)
            if worker not in self.rejected and (worker in votes or worker not in withheld)
        }

    def _decision(self, unit: int) -> Decision:
        votes = {w: given for w, given in self.state.votes(unit).items() if w not in self.rejected}
        return decide(self.state.spec.policy, votes, frozenset({self.me}))

    def is_final(self, unit: int) -> bool:
        """Accepted by a verdict, signed already or about to be."""
        return unit in self.state.final_units or unit in self._deciding

    def grant(self, worker: PeerId, want: int, now_ns: int) -> list[tuple[int, int, int, int]]:
        """Hand out up to ``want`` units: (counter, unit, epoch, ttl_ms) each."""
        granted: list[tuple[int, int, int, int]] = []
        source = self._own_order() if worker == self.me else self.leases.candidates()
        for unit in source:
            if len(granted) >= want:
                break
            if not self.may_take(unit, worker):
                continue
            lease = self.leases.grant(unit, worker, now_ns)
            granted.append((lease.counter, unit, self.state.epoch(unit), lease.ttl_ns // 1_000_000))
            self._refresh(unit)
        return granted

    def _own_order(self) -> Iterable[int]:
        """Our own result needs no second one: first what is in dispute, then fresh units, then the rest."""
        needy = list(self.leases.candidates())
        disputed = [unit for unit in needy if len(set(self.state.votes(unit).values())) > 1]
        yield from disputed
        yield from self.leases.fresh()
        yield from (unit for unit in needy if unit not in disputed)

    def _refresh(self, unit: int) -> None:
        """Bring the list of wanted units up to date after anything happened to ``unit``."""
        open_ = not self.is_final(unit) and unit not in self.dead
        self.leases.want_more(unit, more=open_ and self.missing(unit) > 0)

    # --- reports ------------------------------------------------------------------------------------------

    def report(self, worker: PeerId, message: Report, facts: list[Fact], now_ns: int) -> None:
        """Take in what a worker says. Raises RemoteProtocolError before anything changes."""
        reveals = [item for fact in facts if isinstance(fact.payload, Reveals) for item in fact.payload.items]
        self._check_report(worker, message, facts, reveals)
        for fact in facts:
            if self._says_nothing_new(fact) or not self.state.add(fact):
                continue
            self.records.append(StoreFact(fact))
            if isinstance(fact.payload, Commits):
                for item in fact.payload.items:
                    self._committed(item.unit, worker, now_ns)
            elif isinstance(fact.payload, Failures):
                for failure in fact.payload.items:
                    self._failed(failure.unit, worker, failure.code, failure.text, now_ns)
        for reveal, result in zip(reveals, message.results, strict=True):
            self._revealed(reveal.unit, worker, ResultHash(reveal.result_hash), result)
        for back in message.returned:
            self.leases.release(back.unit, worker)
            self._refresh(back.unit)
        for beat in message.running:
            self._heartbeat(beat.unit, beat.epoch, worker, beat.progress, now_ns)
        self._dirty |= {unit for fact in facts for unit, _ in unit_epochs(fact.payload)}
        self._dirty |= {beat.unit for beat in message.running}
        self.settle_dirty(now_ns)

    def _check_report(self, worker: PeerId, message: Report, facts: list[Fact], reveals: list[RevealItem]) -> None:
        units = {beat.unit for beat in message.running} | {back.unit for back in message.returned}
        for fact in facts:
            if fact.author != worker:
                raise RemoteProtocolError("a report carries facts of somebody else")
            if not isinstance(fact.payload, Commits | Reveals | Failures):
                raise RemoteProtocolError(f"a worker does not report {type(fact.payload).__name__}")
            named = {unit for unit, _ in unit_epochs(fact.payload)}
            units |= named
            if any(worker not in self.state.leased(unit) for unit in named):
                raise RemoteProtocolError("a fact about a unit that was never leased to its author")
            if isinstance(fact.payload, Reveals):
                self._check_openings(worker, fact.payload)
        if any(unit >= self.state.spec.units for unit in units):
            raise RemoteProtocolError("a report names a unit that the job does not have")
        if len(message.results) != len(reveals):
            raise RemoteProtocolError("a report has another number of results than of reveals")
        for item, result in zip(reveals, message.results, strict=True):
            if hash_result(result) != item.result_hash:
                raise RemoteProtocolError("a result does not have the revealed hash")

    def _says_nothing_new(self, fact: Fact) -> bool:
        """Restatements and stale epochs are not stored, so that one worker cannot fill the store.

        A second, different commit is kept as proof of cheating; a third proves nothing more.
        """
        payload = fact.payload
        if isinstance(payload, Failures):
            return all(fact.author in self.state.failures(item.unit) for item in payload.items)
        if isinstance(payload, Commits):
            return all(
                item.epoch != self.state.epoch(item.unit)
                or fact.author in self.state.equivocators(item.unit)
                or self.state.committed(item.unit).get(fact.author) == item.commit
                for item in payload.items
            )
        if isinstance(payload, Reveals):
            return all(
                item.epoch != self.state.epoch(item.unit)
                or fact.author not in self.state.committed(item.unit)
                or fact.author in self.state.votes(item.unit)
                for item in payload.items
            )
        return False

    def _check_openings(self, worker: PeerId, reveals: Reveals) -> None:
        for item in reveals.items:
            commit = self.state.committed(item.unit).get(worker)
            if item.epoch != self.state.epoch(item.unit) or commit is None:
                continue  # of an earlier epoch, or void: counts for nothing
            if not self.state.opens(item.unit, worker, commit, ResultHash(item.result_hash), item.nonce):
                raise RemoteProtocolError("a reveal does not open its commit")

    def _committed(self, unit: int, worker: PeerId, now_ns: int) -> None:
        lease = self.leases.release(unit, worker)
        if lease is not None:
            self.leases.committed_after(now_ns - lease.granted_ns)
        self.replicas += 1
        if worker in self.state.equivocators(unit):
            self._reject(Rejection(unit, worker, None, None, (), "equivocation"))

    def _revealed(self, unit: int, worker: PeerId, result_hash: ResultHash, result: bytes) -> None:
        self.leases.book(unit).asked.pop(worker, None)
        if self.state.votes(unit).get(worker) != result_hash:
            return
        try:
            self.check_result(self.state.spec, unit, result)
        except VerificationError:
            self._reject(Rejection(unit, worker, result_hash, None, (), "malformed"))
            return
        self.records.append(StoreResult(self.state.id, result_hash, result))

    def _failed(self, unit: int, worker: PeerId, code: str, text: str, now_ns: int) -> None:
        self.leases.release(unit, worker)
        self.leases.delay(unit, now_ns)
        failures = self.state.failures(unit)
        alike = sum(1 for known in failures.values() if known == code)
        if worker == self.me or alike >= SAME_FAILURES or len(failures) >= MAX_FAILURES:
            who = "this node" if worker == self.me else f"{len(failures)} workers"
            self._kill(unit, f"unit {unit} failed on {who}: {text or code}")
        self._refresh(unit)

    def _heartbeat(self, unit: int, epoch: int, worker: PeerId, progress: float, now_ns: int) -> None:
        """A unit that a worker runs, or holds a committed result of."""
        news = self._news(worker)
        if epoch != self.state.epoch(unit) or unit in self.dead:
            news.drop[unit] = epoch
        elif worker in self.state.committed(unit):
            self._repeat_news(unit, worker, news)
        elif self.is_final(unit) or (
            not self.leases.renew(unit, worker, progress, now_ns) and not self._readmit(unit, worker, now_ns)
        ):
            news.drop[unit] = epoch

    def _readmit(self, unit: int, worker: PeerId, now_ns: int) -> bool:
        """A worker still runs a unit whose lease ran out (or was forgotten in a restart): let it go on."""
        if worker in self.rejected or worker not in self.state.leased(unit):
            return False
        self.leases.book(unit).withheld.discard(worker)
        if not self.may_take(unit, worker):
            return False
        self.leases.grant(unit, worker, now_ns)
        self._refresh(unit)
        return True

    def _repeat_news(self, unit: int, worker: PeerId, news: News) -> None:
        """Say again what a worker with a committed result may have missed."""
        epoch = self.state.epoch(unit)
        if worker not in self.state.votes(unit):
            if worker in self.leases.book(unit).asked or self.is_final(unit):
                news.reveal[unit] = epoch
        elif worker in self.state.accepted_workers(unit):
            news.settled[unit] = (epoch, True)
        elif worker in self.state.rejected_workers(unit) or worker in self.rejected:
            news.settled[unit] = (epoch, False)

    # --- decisions ----------------------------------------------------------------------------------------

    def settle_dirty(self, now_ns: int) -> None:
        """Settle every unit about which something was learnt; a rejection may touch further ones."""
        while self._dirty:
            batch = sorted(self._dirty)
            self._dirty.clear()
            for unit in batch:
                self.settle(unit, now_ns)

    def settle(self, unit: int, now_ns: int) -> None:
        """Ask for reveals, accept, reject or want more, as the facts of a unit now demand."""
        if unit in self.dead:
            return
        if self.is_final(unit):
            self._judge_latecomers(unit, now_ns)
            return
        decision = self._decision(unit)
        if decision.accepted is not None:
            self._accept(unit, decision.accepted)
            self._judge_latecomers(unit, now_ns)
        elif decision.dead:
            self._kill(unit, f"unit {unit}: {len(self.state.votes(unit))} workers gave no majority")
        else:
            present = self.participants(unit)
            if self.me in present or len(present) >= decision.wanted:
                self._ask_reveals(unit, now_ns)
        self._refresh(unit)

    def _ask_reveals(self, unit: int, now_ns: int) -> None:
        votes = self.state.votes(unit)
        book = self.leases.book(unit)
        for worker in sorted(self.state.committed(unit)):
            if worker not in votes and worker not in book.asked and worker not in book.withheld:
                self.leases.ask_reveal(unit, worker, now_ns)
                self._news(worker).reveal[unit] = self.state.epoch(unit)

    def _accept(self, unit: int, accepted: ResultHash) -> None:
        votes = self.state.votes(unit)
        winners = tuple(sorted(worker for worker, given in votes.items() if given == accepted))
        losers = tuple(sorted(worker for worker, given in votes.items() if given != accepted))
        self._verdict(unit, accepted, winners, losers)
        for worker in list(self.leases.book(unit).leases):
            self.leases.release(unit, worker)
            self._news(worker).drop[unit] = self.state.epoch(unit)

    def _judge_latecomers(self, unit: int, now_ns: int) -> None:
        final = self.state.verdict(unit) or next(v for v in self.verdicts if v.unit == unit)
        self._ask_reveals(unit, now_ns)
        judged = self.state.accepted_workers(unit) | self.state.rejected_workers(unit)
        judged |= {peer_id_from_key(k) for v in self.verdicts if v.unit == unit for k in v.accepted + v.rejected}
        late = {worker: given for worker, given in self.state.votes(unit).items() if worker not in judged}
        if late:
            accepted = ResultHash(final.result_hash)
            winners = tuple(sorted(worker for worker, given in late.items() if given == accepted))
            losers = tuple(sorted(worker for worker, given in late.items() if given != accepted))
            self._verdict(unit, accepted, winners, losers)

    def _verdict(
        self, unit: int, accepted: ResultHash, winners: tuple[PeerId, ...], losers: tuple[PeerId, ...]
    ) -> None:
        epoch = self.state.epoch(unit)
        votes = self.state.votes(unit)
        agreeing = tuple(sorted(worker for worker, given in votes.items() if given == accepted))
        keys = [[key_from_peer_id(worker) for worker in side] for side in (winners or agreeing, losers)]
        self.verdicts.append(VerdictItem(unit, epoch, accepted, keys[0], keys[1]))
        self._deciding.add(unit)
        for worker in winners:
            self.accepted_by[worker] += 1
            self._news(worker).settled[unit] = (epoch, True)
        for worker in losers:
            code = "trusted" if self.me in agreeing else "minority"
            self._reject(Rejection(unit, worker, votes[worker], accepted, agreeing, code))
            self._news(worker).settled[unit] = (epoch, False)

    def _reject(self, rejection: Rejection) -> None:
        self.rejected_count += 1
        self.fresh_rejections.append(rejection)
        if len(self.rejections) < MAX_REJECTIONS_KEPT:
            self.rejections.append(rejection)
        if rejection.worker != self.me:
            self.exclude(rejection.worker)

    def exclude(self, worker: PeerId) -> None:
        """A worker proven wrong holds nothing further here; what it had goes to others."""
        if worker in self.rejected:
            return
        self.rejected.add(worker)
        for unit, book in self.leases.books.items():
            if worker in book.leases:
                self.leases.release(unit, worker)
                self._news(worker).drop[unit] = self.state.epoch(unit)
                self._refresh(unit)
            elif worker in self.state.committed(unit) and not self.is_final(unit):
                self._dirty.add(unit)

    def _kill(self, unit: int, reason: str) -> None:
        self.dead[unit] = reason
        for worker in list(self.leases.book(unit).leases):
            self.leases.release(unit, worker)
            self._news(worker).drop[unit] = self.state.epoch(unit)

    def _news(self, worker: PeerId) -> News:
        return self.news.setdefault(worker, News())

    def end(self, outcome: str, error: str, now_ns: int) -> None:
        """The job is over; everybody who still holds something of it will hear so."""
        self.outcome, self.error, self.ended_ns = outcome, error, now_ns
        for unit, book in self.leases.books.items():
            for worker in (*book.leases, *self.state.committed(unit)):
                self._news(worker)

    def signed(self) -> None:
        """The verdicts of this step have become a fact of the state."""
        self.verdicts.clear()
        self._deciding.clear()

    # --- answers ------------------------------------------------------------------------------------------

    def reply(self, worker: PeerId) -> ReportReply:
        """The news for a worker, taken out."""
        news = self.news.pop(worker, None) or News()
        return ReportReply(
            self.state.id,
            [UnitEpoch(unit, epoch) for unit, epoch in sorted(news.reveal.items())[:1024]],
            [UnitEpoch(unit, epoch) for unit, epoch in sorted(news.drop.items())[:1024]],
            [Settled(unit, epoch, good) for unit, (epoch, good) in sorted(news.settled.items())[:1024]],
            ended=bool(self.outcome),
        )
