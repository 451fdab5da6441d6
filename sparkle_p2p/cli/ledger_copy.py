"""Reads a copy of the ledger from the bytes up, saying how far it is: what ``sparkle ledger`` rests on."""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkle_ledger import store
from sparkle_ledger.audit import Audit, Report, in_time
from sparkle_ledger.book import Book
from sparkle_ledger.entries import EntryCodec, Penalty
from sparkle_ledger.evidence import JobRecord
from sparkle_ledger.forks import ForkProof
from sparkle_protocol.errors import LedgerError, RemoteProtocolError
from sparkle_protocol.facts import FactCodec, JobSpec
from sparkle_protocol.work.price import exactly
from sparkle_protocol.work.sealed import SealedRange

LEDGER_FILE = "ledger.db"
LOT = 1000  # entries

Tell = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit of a copy found."""

    network: str
    genesis: str  # the beginning of the digest of the record that it was judged by
    report: Report
    accounts: int
    forks: int  # proofs that hold
    violations: list[tuple[str, str]]  # code and sentence; the first thousand
    violation_count: int

    @property
    def ok(self) -> bool:
        """Nothing is wrong with what is here."""
        return self.report.ok and not self.violation_count


@contextmanager
def opened(home: str, network: str | None) -> Iterator[store.Database]:
    """The ledger of a home directory, to look at as it is now.

    Raises:
        ConfigError: there is none, or it is of another network, or cannot be used.
    """
    db = store.open_ledger(Path(home) / LEDGER_FILE, network, readonly=True)
    try:
        with store.snapshot(db):
            yield db
    finally:
        db.close()


def audited(db: store.Database, tell: Tell, *, deep: bool = False) -> Audited:
    """Check everything that a copy holds.

    Raises:
        LedgerError: the file is so damaged that it cannot be read to its end.
    """
    tell("checking the file", 0, 0)
    store.check(db)
    genesis = store.genesis_of(db)
    network = genesis.network
    codec = EntryCodec(network)
    forks, broken = _proofs(db, codec)
    audit = Audit(codec, FactCodec(network), genesis.economy, deep=deep, forks=forks)
    facts, entries = store.count_evidence(db), store.count(db)
    accounts = _Accounts(store.rows(db))

    def counted() -> Iterator[store.Evidence]:
        read = 0
        for one in store.evidence(db, closed=True):
            yield one
            read += len(one.facts) + len(one.sealed)
            tell("evidence", read, facts)

    with _no_search_for_garbage():
        for done, whole in audit.steps(accounts, entries, counted(), store.closings(db), store.bases(db)):
            tell("entries", done, whole)
    report = audit.report()
    return Audited(
        network,
        genesis.fingerprint,
        report,
        accounts.count,
        len(forks),
        [*zip(report.violation_codes, report.violations, strict=True), *broken],
        report.violation_count + len(broken),
    )


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Among millions of entries, all of which are needed, the search for it would take a quarter of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Accounts:
    """Rows, counting whose they are while they pass."""

    def __init__(self, rows: Iterable[store.Row]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[store.Row]:
        account = None
        for row in self._rows:
            if row.account != account:
                account = row.account
                self.count += 1
            yield row


def _proofs(db: store.Database, codec: EntryCodec) -> tuple[list[ForkProof], list[tuple[str, str]]]:
    """The proofs of forks that hold, and what is wrong with the others."""
    held: list[ForkProof] = []
    broken: list[tuple[str, str]] = []
    for fork in store.forks(db):
        name = f"the proof that account {fork.account.hex()[:12]} forked"
        try:
            proof = ForkProof.decode(Penalty(fork.first, fork.second), codec)
        except RemoteProtocolError as error:
            broken.append(("proof_invalid", f"{name} is not valid: {error}"))
            continue
        if proof.first.account != fork.account:
            broken.append(("proof_invalid", f"{name} is about another account"))
        else:
            held.append(proof)
    return held, broken


def verdict(found: Audited) -> str:
    """What came of it, in one sentence."""
    report = found.report
    if not found.ok:
        count = found.violation_count
        return f"This copy is not right: {count} {'violation' if count == 1 else 'violations'} of the rules."
    if not report.entries:
        return f"Everything adds up: the ledger of '{found.network}' has no entries here yet."
    entries = "1 entry" if report.entries == 1 else f"{report.entries} entries"
    accounts = "1 account" if found.accounts == 1 else f"{found.accounts} accounts"
    sums = f"Everything adds up: {entries} of {accounts}, balances and escrows sum to exactly {exactly(0)}"
    if not report.executions:
        return f"{sums}; no paid execution is recorded here."
    earned = f"{exactly(report.earned_micro)} credits were earned"
    executions = f"{report.executions} accepted {'execution' if report.executions == 1 else 'executions'}"
    if not report.unsettled_micro:
        return f"{sums}; {earned}, which is the price of the {executions}."
    owed = f"{exactly(report.unsettled_micro)} that no entry here claims yet"
    return f"{sums}; {earned}, which with {owed} is the price of the {executions}."


def loaded(db: store.Database, tell: Tell) -> Book:
    """The book of a copy, as a node has it: what is stored was verified before.

    Raises:
        LedgerError: something is damaged.
    """
    tell("checking the file", 0, 0)
    store.check(db)
    genesis = store.genesis_of(db)
    network = genesis.network
    facts, entries = store.count_evidence(db), store.count(db)
    read = 0
    book, codec = Book(network, genesis.economy), FactCodec(network, verify=_verified_before)
    for closing in store.closings(db):
        book.add_closing(closing)
    for base in store.bases(db):
        book.add_base(base)
    for one in store.evidence(db):
        record = _record(one, codec)
        if record is not None:
            book.add_record(record)
        read += len(one.facts) + len(one.sealed)
        tell("evidence", read, facts)
    tell("reading", 0, 0)
    found = in_time(list(store.load(db, EntryCodec(network))))
    for start in range(0, len(found), LOT):
        book.add_all(found[start : start + LOT])
        tell("entries", start, entries)
    for proof in _proofs(db, EntryCodec(network))[0]:
        book.add_proof(proof)
    return book


def _record(evidence: store.Evidence, codec: FactCodec) -> JobRecord | None:
    """The evidence about one job; None without its spec."""
    try:
        facts = [codec.open(raw) for raw in evidence.facts]
        spec = next((fact for fact in facts if type(fact.payload) is JobSpec and fact.job == evidence.job), None)
        if spec is None:
            return None
        record = JobRecord(spec, codec.network)
        record.add_all(facts)
        for raw in evidence.sealed:
            record.add_sealed(SealedRange.decode(raw))
    except RemoteProtocolError as error:
        name = evidence.job.hex()[:12]
        raise LedgerError(
            f"evidence about job {name} is damaged ({error}); 'sparkle ledger verify' says more"
        ) from error
    return record


def _verified_before(_key: bytes, _signature: bytes, _message: bytes) -> None:
    """Accepts: what is in the file was verified before it was kept, and 'verify' does so again."""
