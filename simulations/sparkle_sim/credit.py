"""Credit of simulated nodes: each has the production agent and book, on a simulated disk and with cheap signatures.

What ``sparkle_p2p.node.ledger`` does with a store is done here with a ``LedgerFile``: a transaction takes as long as
one of the work's, and a crash leaves of the one under way everything or nothing. The two files of a node know nothing
of each other, as in the node: after a crash either may be the newer one.
"""

from collections.abc import Callable, Iterable, Iterator

from msgspec.structs import replace

from sparkle_ledger.agent.core import LedgerAgent
from sparkle_ledger.agent.done import say_done
from sparkle_ledger.agent.events import Accepted, Fund, Over, WorkEnded
from sparkle_ledger.agent.old_jobs import KEEP_MS
from sparkle_ledger.book import Book
from sparkle_ledger.closing import Closing
from sparkle_ledger.economy import Economy
from sparkle_ledger.entries import AccountId, Entry, EntryCodec, account_of
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.folding import KEEP_ENTRIES, Fold
from sparkle_ledger.forks import ForkProof
from sparkle_protocol import effects as fx
from sparkle_protocol.facts import Fact
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.sealed import SealedRange
from sparkle_sim.disk import LedgerFile
from sparkle_sim.draws import Draws, draws
from sparkle_sim.kernel import SECOND
from sparkle_sim.peer import Life, Peer
from sparkle_sim.requests import LEDGER, WORKER
from sparkle_sim.scenario import Credit as Plan
from sparkle_sim.signing import verify_cheap
from sparkle_sim.world import World

ENDED = ("job_done", "job_failed", "job_cancelled")
AGAIN_S, MAX_AGAIN_S = 4.0, 600.0  # between two looks at what a job that has ended still owes, as in the node
MIN_SHARED = 16384  # entries that are remembered at least
Funded = Callable[[str | None], None]


class SharedEntries(EntryCodec):
    """Opens the bytes of an entry once: it is immutable, so that nodes can share it."""

    __slots__ = ("_limit", "_opened")

    def __init__(self, network: str, peers: int) -> None:
        super().__init__(network, verify_cheap)
        self._opened: dict[bytes, Entry] = {}
        self._limit = max(MIN_SHARED, 16 * peers)

    def open(self, raw: bytes) -> Entry:
        """The entry in ``raw`` once signature, network, kind and shape hold. Raises RemoteProtocolError."""
        found = self._opened.get(raw)
        if found is None:
            found = super().open(raw)
            if len(self._opened) >= self._limit:
                del self._opened[next(iter(self._opened))]
            self._opened[raw] = found
        return found


class Credit:
    """Of a world.

    Args:
        world: whose.
        economy: what its nodes agree on.
        keep_ms: for so long after the end of a job's time they keep what proves that it is settled.
        keep_entries: so many of the newest entries of each account they never fold.
    """

    def __init__(
        self, world: World, economy: Economy, keep_ms: int = KEEP_MS, keep_entries: int = KEEP_ENTRIES
    ) -> None:
        self.economy = economy
        self._keep_ms = keep_ms
        self._keep_entries = keep_entries
        self.entries = SharedEntries(world.codec.network, len(world.identities))
        self.on_keep: list[Callable[[Peer, fx.KeepLedger], None]] = []  # told after each change of a book
        self.on_tell: list[Callable[[Peer, object], None]] = []  # and before an agent hears of work
        self._world = world
        self._keeping: dict[int, fx.KeepLedger] = {}  # the transaction under way, by peer
        self._funded: dict[tuple[int, JobId], Funded] = {}
        self._draws: dict[int, Draws] = {}
        self.restored: dict[int, float] = {}  # peers whose file is one of earlier, and since what second
        world.watchers.append(self)

    # --- lives ------------------------------------------------------------------------------------------------

    def account(self, peer: int) -> AccountId:
        """A peer's account."""
        return account_of(self.entries.network, self._world.identities[peer].public_key)

    def cores(self, peer: Peer) -> Iterator[LedgerAgent]:
        """The core of a new life, with what the disk has."""
        if peer.disk.ledger is None:
            peer.disk.ledger = LedgerFile()
        world, file = self._world, peer.disk.ledger

        def kept_record(job: JobId) -> JobRecord | None:
            kept = peer.submitter.job(job)
            return self._record_of(peer, kept) if kept is not None else None

        agent = LedgerAgent(
            peer.identity, self.book(file), world.codec, peer.wall_ms, kept_record,
            [ForkProof.make(self.entries.open(one), self.entries.open(other)) for one, other in file.forks],
            self.entries, keep_ms=self._keep_ms, keep_entries=self._keep_entries,
        )  # fmt: skip
        yield agent

    def _record_of(self, peer: Peer, kept: KeptJob) -> JobRecord:
        """What a node shows of a job that it keeps, and the submitter's word that it is done, as in the node."""
        record = JobRecord.of(kept.state)
        say_done(record, kept, self._world.codec, peer.identity)
        return record

    def book(self, *files: LedgerFile) -> Book:
        """What is in files, together: of several the entries, as no node folds its own."""
        book, codec = Book(self.entries.network, self.economy, verify_cheap), self._world.codec
        alone = len(files) == 1
        for closing in merged(Closing.decode(raw) for file in files for raw in file.closings.values()):
            book.add_closing(closing if alone else replace(closing, paid=None))
        for base in files[0].bases.values() if alone else ():
            book.add_base(base.copy())
        book.add_all(self.entries.open(raw) for file in files for raw in file.entries)
        for file in files:
            for job, (facts, sealed) in file.evidence.items():
                if job in file.closings:
                    continue
                opened = [codec.open(raw) for raw in facts]
                record = JobRecord(opened[0], codec.network)
                record.add_all(opened)
                for raw in sealed:
                    record.add_sealed(SealedRange.decode(raw))
                book.add_record(record)
        return book

    def begin(self, peer: Peer) -> None:
        """A life has all its cores, and what the work of earlier ones left."""
        peer.tell(LEDGER, fx.Tick())
        for job in list(peer.submitter.jobs):
            self._take_back(peer, peer.life, job, AGAIN_S)

    def crash(self, peer: Peer) -> None:
        """A process is gone; of the transaction under way everything or nothing is there."""
        keeping = self._keeping.pop(peer.number, None)
        if keeping is not None and self._of_disk(peer).random() < 0.5:
            self._write(peer, keeping)

    def _of_disk(self, peer: Peer) -> Draws:
        found = self._draws.get(peer.number)
        if found is None:
            found = self._draws[peer.number] = draws(self._world.seed, peer.number, "ledger")
        return found

    # --- what the agent hears of work ---------------------------------------------------------------------------

    def _tell(self, peer: Peer, event: object) -> None:
        self._world.note(peer.number, f"tell {type(event).__name__}")
        for watcher in self.on_tell:
            watcher(peer, event)
        peer.tell(LEDGER, event)

    def heard(self, peer: Peer, effect: fx.Notify) -> None:
        """A job of a node's own may be over: what it has set aside and owes nobody is taken back."""
        if effect.event in ENDED and peer.has_credit:
            self._take_back(peer, peer.life, JobId(bytes.fromhex(str(effect.fields["job"]))), AGAIN_S)

    def violated(self, peer: Peer, effect: fx.Violation) -> None:
        """Nothing follows from it here."""

    def _take_back(self, peer: Peer, life: Life | None, job: JobId, pause_s: float) -> None:
        """Now, and later and later until it is certain that the rest is owed."""
        kept = peer.submitter.jobs.get(job) if life is not None and peer.life is life else None
        if kept is None or not kept.outcome:
            return
        book = peer.ledger.book
        escrow, record = book.escrow(job), book.record(job)
        left = escrow.held_micro - escrow.released_micro
        if escrow.balance_micro <= 0 or (record is not None and record.over and left <= record.owed_micro):
            return
        self._tell(peer, Over(self._record_of(peer, kept)))
        then = min(2 * pause_s, MAX_AGAIN_S)
        self._world.kernel.after(int(pause_s * SECOND), self._take_back, peer, life, job, then)

    def fund(self, peer: Peer, spec: Fact, then: Funded) -> None:
        """Have a job paid for in advance; ``then`` hears why it was not, unless the node ends before."""
        self._funded[peer.number, spec.job] = then
        peer.tell(LEDGER, Fund(spec))

    # --- effects ------------------------------------------------------------------------------------------------

    def perform(self, peer: Peer, effect: fx.Effect) -> None:
        """What only the agent wants done."""
        if isinstance(effect, fx.KeepLedger):
            self._keeping[peer.number] = effect
            for watcher in self.on_keep:
                watcher(peer, effect)
            wait_ns = int(self._of_disk(peer).uniform(*peer.machine.sync_s) * SECOND)
            self._world.kernel.after(wait_ns, self._kept, peer, peer.life, effect)
        elif isinstance(effect, fx.ReadEvidence):
            wait_ns = int(self._of_disk(peer).uniform(*peer.machine.sync_s) * SECOND)
            self._world.kernel.after(wait_ns, self._read, peer, peer.life, effect)
        elif isinstance(effect, fx.JobFunded):
            self._world.note(peer.number, "funded", f"{effect.job.hex()[:8]} {effect.refused or ''}")
            then = self._funded.pop((peer.number, effect.job), None)
            if then is not None:
                then(effect.refused)
        elif isinstance(effect, fx.JobUnfunded):
            self._world.note(peer.number, "unfunded", effect.job.hex()[:8])
            peer.tell(WORKER, effect)
        elif isinstance(effect, fx.Earned):
            self._tell(peer, Accepted(effect.spec, effect.units, effect.keepers, effect.views))
        elif isinstance(effect, fx.WorkOver):
            self._tell(peer, WorkEnded(effect.job, effect.ranges))

    def _kept(self, peer: Peer, life: Life, effect: fx.KeepLedger) -> None:
        if peer.life is not life:
            return
        del self._keeping[peer.number]
        self._write(peer, effect)
        peer.arrive(peer.tell, LEDGER, fx.LedgerKept(effect.tag))

    def _write(self, peer: Peer, effect: fx.KeepLedger) -> None:
        if peer.disk.ledger is not None:
            peer.disk.ledger.write(effect)
            for one in effect.closings:
                job = JobId(Closing.decode(one.raw).job)
                peer.disk.ledger.close_job(job, one.raw, keep_evidence=one.keep_evidence)
            for raw in effect.folds:
                peer.disk.ledger.fold(Fold.decode(raw), self._place_of)

    def _place_of(self, raw: bytes) -> tuple[bytes, int, int]:
        entry = self.entries.open(raw)
        return entry.account, entry.incarnation, entry.seq

    def _read(self, peer: Peer, life: Life, effect: fx.ReadEvidence) -> None:
        if peer.life is life:
            file = peer.disk.ledger
            facts, sealed = file.evidence.get(effect.job, ({}, {})) if file is not None else ({}, {})
            peer.arrive(peer.tell, LEDGER, fx.EvidenceRead(effect.tag, tuple(facts), tuple(sealed)))


def merged(closings: Iterable[Closing]) -> Iterator[Closing]:
    """Of each job one, with all that several nodes hold to be final of it; what counts for one of them counts."""
    found: dict[bytes, Closing] = {}
    for one in closings:
        known = found.setdefault(one.job, one)
        finals = {final.id: final for final in sorted([*known.finals, *one.finals], key=lambda final: final.moved)}
        most = max(known.executions, one.executions)
        found[one.job] = replace(known, executions=most, finals=list(finals.values()))
    yield from found.values()


def give_credit(world: World, plan: Plan, total_s: int) -> None:
    """Have all nodes of a world pay for work, from their next life on; ``total_s``: the time that its jobs have."""
    economy = Economy(limit_max_micro=plan.limit_max_micro, starter_micro=plan.starter_micro)
    world.credit = Credit(world, economy, int(1000 * (plan.close_after_s - total_s)), plan.keep_entries)
