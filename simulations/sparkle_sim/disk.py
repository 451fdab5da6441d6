"""What a simulated node has made durable: what its store would have."""

from collections.abc import Callable, Iterable

from sparkle_ledger.closing import Closing
from sparkle_ledger.entries import AccountId
from sparkle_ledger.folding import Base, Fold, shut
from sparkle_protocol import effects as fx
from sparkle_protocol.codec import encode
from sparkle_protocol.facts import Fact, JobSpec, KeeperSet
from sparkle_protocol.ids import FactId, JobId, PeerId, ResultHash
from sparkle_protocol.trust.standing import TrustBook
from sparkle_protocol.work.rejection import Rejection
from sparkle_protocol.work.sealed import SealedRange
from sparkle_sim.blobs import BlobFiles


class JobRecords:
    """Of one job."""

    __slots__ = ("commits", "facts", "refused", "results", "sealed")

    def __init__(self) -> None:
        self.facts: dict[FactId, Fact] = {}
        self.results: dict[ResultHash, bytes] = {}
        self.commits: dict[tuple[int, int], tuple[bytes, bytes]] = {}  # nonce and result by unit and epoch
        self.sealed: dict[int, bytes] = {}
        self.refused: dict[tuple[int, PeerId], fx.StoreRejection] = {}

    @property
    def spec(self) -> Fact | None:
        """The job's spec, if it is here."""
        return next((fact for fact in self.facts.values() if isinstance(fact.payload, JobSpec)), None)

    def names(self, key: bytes) -> bool:
        """A keeper set names this key."""
        sets = (fact.payload for fact in self.facts.values())
        return any(isinstance(payload, KeeperSet) and key in payload.keys for payload in sets)

    def ranges(self) -> list[SealedRange]:
        """Records of sealed ranges, in order."""
        return [SealedRange.decode(raw) for _, raw in sorted(self.sealed.items())]

    def rejections(self) -> list[Rejection]:
        """Results that were refused."""
        return [Rejection.decode(record) for record in self.refused.values()]


class LedgerFile:
    """Entries, evidence, proofs of forks and closings, as they travel, and what is folded.

    Each transaction is there as a whole or not at all.
    """

    __slots__ = ("bases", "closings", "entries", "evidence", "forks")

    def __init__(self) -> None:
        self.entries: dict[bytes, None] = {}
        self.evidence: dict[JobId, tuple[dict[bytes, None], dict[bytes, None]]] = {}  # facts, and sealed records
        self.forks: dict[tuple[bytes, bytes], None] = {}
        self.closings: dict[JobId, bytes] = {}
        self.bases: dict[AccountId, Base] = {}

    def write(self, effect: fx.KeepLedger) -> None:
        """One transaction."""
        self.entries.update(dict.fromkeys(effect.entries))
        self.forks.update(dict.fromkeys(effect.forks))
        for one in effect.evidence:
            facts, sealed = self.evidence.setdefault(one.job, ({}, {}))
            facts.update(dict.fromkeys(one.facts))
            sealed.update(dict.fromkeys(one.sealed))

    def close_job(self, job: JobId, raw: bytes, *, keep_evidence: bool) -> None:
        """Keep a closing beside the evidence about its job, or in the place of it."""
        self.closings[job] = raw
        if not keep_evidence:
            self.evidence.pop(job, None)

    def fold(self, step: Fold, place_of: Callable[[bytes], tuple[bytes, int, int]]) -> None:
        """Sums in the place of entries; ``place_of`` says account, incarnation and number of these."""
        base = self.bases.setdefault(AccountId(step.account), Base(AccountId(step.account)))
        if base.seq >= step.seq:
            return
        base.add(step)
        for one in step.jobs:
            job = JobId(one.job)
            self.closings[job] = encode(shut(Closing.decode(self.closings[job]), one))
        for raw in list(self.entries):
            account, incarnation, seq = place_of(raw)
            if account == step.account and not incarnation and seq <= step.seq:
                del self.entries[raw]

    def copy(self) -> "LedgerFile":
        """What a backup of it would have."""
        found = LedgerFile()
        found.entries, found.forks, found.closings = dict(self.entries), dict(self.forks), dict(self.closings)
        found.bases = {account: base.copy() for account, base in self.bases.items()}
        found.evidence = {job: (dict(facts), dict(sealed)) for job, (facts, sealed) in self.evidence.items()}
        return found


class Disk:
    """Records by job. ``watch`` is shown each record that is durable."""

    __slots__ = ("blobs", "jobs", "ledger", "trust", "watch")

    def __init__(self, watch: Callable[[fx.Record], None] | None = None) -> None:
        self.jobs: dict[JobId, JobRecords] = {}
        self.blobs: BlobFiles | None = None  # a node that never had to do with blobs has none
        self.trust: TrustBook | None = None  # what its node thinks of others, once it has lived
        self.ledger: LedgerFile | None = None  # a node without credit has none
        self.watch = watch

    def write(self, records: Iterable[fx.Record]) -> None:
        """One transaction."""
        for record in records:
            self._write(record)
            if self.watch is not None:
                self.watch(record)

    def _write(self, record: fx.Record) -> None:
        job = record.fact.job if isinstance(record, fx.StoreFact) else record.job
        kept = self.jobs.get(job)
        if kept is None:
            kept = self.jobs[job] = JobRecords()
        match record:
            case fx.StoreFact():
                kept.facts[record.fact.id] = record.fact
            case fx.DropFact():
                kept.facts.pop(record.fact_id, None)
            case fx.SealRange():
                kept.sealed[record.index] = record.raw
                for _, fact in record.drop:
                    kept.facts.pop(fact, None)
            case fx.StoreResult():
                kept.results[record.result_hash] = record.result
            case fx.StoreCommit():
                kept.commits[record.unit, record.epoch] = record.nonce, record.result
            case fx.DropCommit():
                kept.commits.pop((record.unit, record.epoch), None)
            case fx.DropCommits():
                kept.commits.clear()
            case fx.StoreRejection():
                kept.refused.setdefault((record.unit, record.worker), record)
            case fx.DropJob():
                self._drop(job, kept)

    def _drop(self, job: JobId, kept: JobRecords) -> None:
        kept.results.clear()
        kept.refused.clear()
        if not kept.commits:  # else they prove what we committed to
            del self.jobs[job]

    def results_there(self, job: JobId, names: Iterable[ResultHash]) -> list[bytes]:
        """Results by their names; those that are not here are left out."""
        kept = self.jobs.get(job)
        return [] if kept is None else [kept.results[name] for name in names if name in kept.results]
