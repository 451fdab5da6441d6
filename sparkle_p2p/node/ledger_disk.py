"""The ledger of this node on disk (``ledger.db``), behind one thread of its own: nothing of it blocks the loop."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sparkle_ledger import store
from sparkle_ledger.book import Book
from sparkle_ledger.closing import Closing
from sparkle_ledger.entries import EntryCodec
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.folding import Fold
from sparkle_ledger.forks import ForkProof
from sparkle_ledger.genesis import GenesisRecord
from sparkle_protocol.effects import KeepLedger
from sparkle_protocol.errors import ConfigError, LedgerError, SparkleError
from sparkle_protocol.facts import FactCodec, JobSpec
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.sealed import SealedRange

log = logging.getLogger("sparkle.ledger")

LEDGER_FILE = "ledger.db"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadedLedger:
    """What a file had: all entries and evidence judged, and proofs of forks."""

    book: Book
    forks: tuple[ForkProof, ...]


class LedgerDisk:
    """One writer, in order; what it has taken survives the end of the process at any moment.

    Args:
        path: of the file.
        genesis: of the network whose ledger it is.
    """

    def __init__(self, path: Path, genesis: GenesisRecord) -> None:
        self.path = path
        self._genesis = genesis
        self._codec = EntryCodec(genesis.network)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sparkle-ledger")
        self._db: store.Database | None = None

    async def load(self) -> LoadedLedger:
        """Open the file, or make it, and read all of it.

        Raises:
            ConfigError: it is damaged, unreadable, of another network, or was judged by another genesis record.
        """
        try:
            return await self._call(self._load)
        except LedgerError as error:
            raise ConfigError(str(error)) from error

    def _load(self) -> LoadedLedger:
        net = self._genesis.network
        self._db = db = store.open_ledger(self.path, net, self._genesis)
        store.check(db)
        book = Book(net, self._genesis.economy)
        facts = FactCodec(net, verify=_verified_before)
        for closing in store.closings(db):  # before anything else of these jobs
            book.add_closing(closing)
        for base in store.bases(db):
            book.add_base(base)
        for evidence in store.evidence(db):
            record = _record_of(evidence, facts)
            if record is not None:
                book.add_record(record)
        book.add_all(store.load(db, self._codec))
        forks = []
        for fork in store.forks(db):
            try:
                forks.append(ForkProof.make(self._codec.open(fork.first), self._codec.open(fork.second)))
            except SparkleError as error:
                log.warning("a stored proof of a fork of %s is skipped: %s", fork.account.hex()[:12], error)
        return LoadedLedger(book, tuple(forks))

    async def keep(self, effect: KeepLedger) -> None:
        """Have all of it on disk when this returns. Raises LedgerError: it may not be, and is to be kept again."""
        await self._call(lambda: self._keep(effect))

    def _keep(self, effect: KeepLedger) -> None:
        db = self._db
        if db is None:
            raise LedgerError(f"{self.path} is closed")
        for one in effect.evidence:  # what entries rest on goes first
            store.keep_evidence(db, store.Evidence(one.job, list(one.facts), list(one.sealed)))
        for first, second in effect.forks:
            account = self._codec.open_known(first).account
            store.keep_fork(db, store.Fork(account, first, second))
        store.append(db, [self._codec.open_known(raw) for raw in effect.entries])
        for closing in effect.closings:  # these rest on all of that
            store.close_job(db, Closing.decode(closing.raw), keep_evidence=closing.keep_evidence)
        for raw in effect.folds:
            store.fold(db, Fold.decode(raw))

    async def evidence_of(self, job: JobId) -> store.Evidence | None:
        """What is kept about a job, also of one that is closed; None: nothing.

        Raises:
            LedgerError: it is damaged, or the file is closed.
        """

        def work() -> store.Evidence | None:
            if self._db is None:
                raise LedgerError(f"{self.path} is closed")
            return store.evidence_of(self._db, job)

        return await self._call(work)

    async def close(self) -> None:
        """Finish what is under way and close; idempotent."""

        def work() -> None:
            db, self._db = self._db, None
            if db is not None:
                db.close()

        try:
            await self._call(work)
        except RuntimeError:
            return  # closed before
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _record_of(evidence: store.Evidence, codec: FactCodec) -> JobRecord | None:
    """The evidence about one job; None without its spec. What is kept was verified before it was."""
    facts = []
    for raw in evidence.facts:
        try:
            facts.append(codec.open(raw))
        except SparkleError as error:
            log.warning("a stored fact about job %s is skipped: %s", evidence.job.hex()[:12], error)
    spec = next((fact for fact in facts if isinstance(fact.payload, JobSpec)), None)
    if spec is None:
        return None
    record = JobRecord(spec, codec.network)
    record.add_all(facts)
    for raw in evidence.sealed:
        try:
            record.add_sealed(SealedRange.decode(raw))
        except SparkleError as error:
            log.warning("a stored range of job %s is skipped: %s", evidence.job.hex()[:12], error)
    return record


def _verified_before(_key: bytes, _signature: bytes, _message: bytes) -> None:
    """Accepts: with thousands of facts it would take seconds to verify them all again."""
